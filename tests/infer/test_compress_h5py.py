"""h5py reads what f2b-compress wrote: the layout that others rely on, and the tokens of pass 1 (which
test_export_oracle.py compares with transformers and peft), rounded to f16 and nothing else."""
import hashlib
import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from oracle.random_model import SHAPES, write_llava

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
METHOD = {
    "tokens": 3, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]},
}
IMAGES = 7

pytestmark = pytest.mark.skipif(not (TESTS / "infer_dump").exists(),
                                reason="infer_dump is not built")


def run(*args):
    # infer_dump frees nothing before it ends.
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120,
                          env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    run(BIN / "f2b-data", "toy", "--out", folder, "--train", 1, "--val", IMAGES - 1)
    SHAPES["vocab832"] = dict(SHAPES["gqa"],
                              language=dict(SHAPES["gqa"]["language"], vocab_size=832))
    write_llava(folder / "base", "vocab832")
    del SHAPES["vocab832"]
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (folder / "base" / file).write_bytes((folder / "model" / file).read_bytes())
    run(TESTS / "make_run", folder / "base", folder / "run", json.dumps(METHOD), 5)
    run(BIN / "f2b-compress", "--checkpoint", folder / "run", "--images", folder / "images",
        "--out", folder / "store", "--shard-images", 4)
    return folder


def shards(world):
    manifest = json.loads((world / "store" / "store.json").read_text())
    return manifest, [h5py.File(world / "store" / s["file"], "r") for s in manifest["shards"]]


def test_layout(world):
    manifest, files = shards(world)
    names = sorted(p.name for p in (world / "images").iterdir())
    assert [f["tokens"].shape[0] for f in files] == [4, 3]
    assert [i.decode() for f in files for i in f["ids"][()]] == names
    for file, entry in zip(files, manifest["shards"]):
        tokens = file["tokens"]
        assert tokens.dtype == np.dtype("<f2") and tokens.shape[1:] == (3, manifest["width"])
        assert tokens.chunks is None and tokens.compression is None
        assert tokens.id.get_storage_size() == tokens.shape[0] * 2 * 3 * manifest["width"]
        assert tokens.id.get_offset() == entry["tokens_offset"]
        for thing in (tokens, file["ids"], file["hashes"], file["duplicates/rows"]):
            assert not thing.id.get_create_plist().get_obj_track_times()
        for name in ("base_model", "adapter", "precision", "weights"):
            assert file.attrs[name].decode() == manifest[name]
        assert json.loads(file.attrs["method"]) == manifest["method"]
        assert file.attrs["first_row"] == 0 or file.attrs["first_row"] == 4
    hashes = {f["hashes"][i].tobytes() for f in files for i in range(len(f["ids"]))}
    contents = {hashlib.md5((world / "images" / n).read_bytes()).digest() for n in names}
    assert len(hashes) == len(contents) == len(names)


def test_fingerprints_are_those_of_the_export(world, tmp_path):
    run(BIN / "f2b-export", "--checkpoint", world / "run", "--format", "peft", "--out",
        tmp_path / "export")
    export = json.loads((tmp_path / "export" / "f2b.json").read_text())
    _, files = shards(world)
    assert files[0].attrs["adapter"].decode() == export["fingerprint"]
    assert files[0].attrs["base_model"].decode() == export["base_model"]["fingerprint"]


def test_tokens_are_pass_one_in_f16(world, tmp_path):
    _, files = shards(world)
    for file in files:
        for name, tokens in zip(file["ids"][()], file["tokens"][()]):
            run(TESTS / "infer_dump", world / "run", world / "base",
                world / "images" / name.decode(), "What?", tmp_path / "dump.safetensors")
            expected = load_file(tmp_path / "dump.safetensors")["tokens"]
            np.testing.assert_array_equal(tokens, expected.astype(np.float16))
