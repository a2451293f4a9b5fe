"""f2b-export as a person runs it where something is wrong: every proof that fails ends with its exit
code, says why, and leaves nothing behind; exports that were changed afterwards are named."""
import json
import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")
from oracle.random_model import SHAPES, write_llava  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
METHOD = {
    "tokens": 3, "prompt": "Summarize.", "template": "vicuna_v1", "attention": "causal",
    "hidden_state": "final_norm", "forward": "double", "adapters": "stage", "temperature": 0.02,
    "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]},
}

pytestmark = pytest.mark.skipif(not (TESTS / "make_run").exists(), reason="make_run is not built")


def call(*args):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    assert call(BIN / "f2b-data", "toy", "--out", world, "--train", 1, "--val", 1).returncode == 0
    patch = pytest.MonkeyPatch()
    patch.setitem(SHAPES, "vocab832", dict(
        SHAPES["gqa"], language=dict(SHAPES["gqa"]["language"], vocab_size=832)))
    folder = write_llava(world / "base", "vocab832")
    patch.undo()
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (folder / file).write_bytes((world / "model" / file).read_bytes())
    return folder


def make_run(tmp_path, base, seed=5, **changes):
    """A run; with seed 0 as it starts, every lora_B zero."""
    folder = tmp_path / f"run{seed}{'-'.join(str(v) for v in changes.values())}"
    done = call(TESTS / "make_run", base, folder, json.dumps(dict(METHOD, **changes)), seed)
    assert done.returncode == 0, done.stderr
    return folder


def export(run, out, form, *more):
    return call(BIN / "f2b-export", "--checkpoint", run, "--format", form, "--out", out, *more)


def nothing_left(tmp_path):
    return not [f.name for f in tmp_path.iterdir() if f.name.startswith("out")]


@pytest.mark.parametrize("form,more,words", [
    ("peft", (), ["every lora_B is zero", "train it first"]),
    ("gguf", (), ["every lora_B is zero", "train it first"]),
    ("merged", ("--stage", "generation"), ["generation adapter", "changes nothing",
                                           "was it trained?"])])
def test_adapters_that_change_nothing(tmp_path, base, form, more, words):
    done = export(make_run(tmp_path, base, seed=0), tmp_path / "out", form, *more)
    assert done.returncode == 1 and done.stdout == "" and nothing_left(tmp_path)
    for word in words:
        assert word in done.stderr
    # an export that was good is still there
    assert export(make_run(tmp_path, base), tmp_path / "out", form, *more).returncode == 0
    before = {f: f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()}
    assert export(tmp_path / "run0", tmp_path / "out", form, *more).returncode == 1
    assert before == {f: f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()}
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("changes,words", [
    ({"forward": "single"}, ["vision tower's", "--format peft"]),
    ({"language_model": "full"}, ["trainable.language_model: full", "--format merged"]),
    ({"language_model": "frozen"}, ["trainable.language_model: frozen"])])
def test_what_llama_cpp_cannot_take(tmp_path, base, changes, words):
    done = export(make_run(tmp_path, base, **changes), tmp_path / "out", "gguf")
    assert done.returncode == 1 and nothing_left(tmp_path)
    for word in words:
        assert word in done.stderr


def test_pre_norm_for_llama_cpp(tmp_path, base):
    """llama.cpp answers with such an export but cannot compress: said, and in the manifest."""
    run = make_run(tmp_path, base, hidden_state="pre_norm")
    done = export(run, tmp_path / "out", "gguf")
    assert done.returncode == 0 and "pre_norm" in done.stderr and "final norm only" in done.stderr
    manifest = json.loads((tmp_path / "out" / "f2b.json").read_text())
    assert manifest["method"]["hidden_state"] == "pre_norm"
    assert export(run, tmp_path / "out", "gguf", "--quiet").stderr == ""
    assert export(run, tmp_path / "peft", "peft").stderr == ""
    assert export(make_run(tmp_path, base), tmp_path / "out", "gguf").stderr == ""


def test_options_that_do_not_go_together(tmp_path, base):
    run = make_run(tmp_path, base)
    for form, more in (("peft", ("--stage", "generation")), ("gguf", ("--stage", "none")),
                       ("gguf", ("--names", "llama")), ("merged", ("--names", "llava"))):
        done = export(run, tmp_path / "out", form, *more)
        assert done.returncode == 2 and f"takes no {more[0]}" in done.stderr
        assert nothing_left(tmp_path)


def test_changed_afterwards(tmp_path, base):
    """The message and exit code of a missing adapter tensor, of one that differs, of damage."""
    run, out = make_run(tmp_path, base), tmp_path / "out"

    def refused(*words, inspect=True):
        commands = [(BIN / "f2b-export", "--checkpoint", out, "--model", base, "--format", "peft",
                     "--out", tmp_path / "again")]
        if inspect:
            commands.append((BIN / "f2b-inspect", out))
        for command in commands:
            done = call(*command)
            assert done.returncode == 3, done.stderr
            for word in words:
                assert word in done.stderr
        assert not (tmp_path / "again").exists()

    assert export(run, out, "peft").returncode == 0
    weights = out / "compression" / "adapter_model.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    gone = "base_model.model.language_model.model.layers.1.self_attn.q_proj.lora_B.weight"
    save_file({k: v for k, v in tensors.items() if k != gone}, weights)
    refused("layers.1.self_attn.q_proj.compression.lora_B", "is missing", inspect=False)
    assert call(BIN / "f2b-inspect", out).returncode == 3
    save_file(dict(tensors, **{gone: tensors[gone] + 1}), weights)
    refused("is damaged or was changed")
    weights.write_bytes(whole[:-1])
    refused("adapter_model.safetensors")

    assert export(run, out, "gguf").returncode == 0
    whole = bytearray((out / "generation.gguf").read_bytes())
    whole[-5] ^= 1
    (out / "generation.gguf").write_bytes(whole)
    refused("generation.gguf is damaged: its XXH3-128")
    (out / "generation.gguf").unlink()
    refused("generation.gguf")


def test_a_whole_export_goes_on(tmp_path, base):
    """An export of either form can be exported again, in the other's form."""
    run = make_run(tmp_path, base)
    prints = set()
    for source, form, out in ((run, "gguf", "a"), (tmp_path / "a", "peft", "b"),
                              (tmp_path / "b", "gguf", "c")):
        done = call(BIN / "f2b-export", "--checkpoint", source, "--model", base, "--format", form,
                    "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
        prints.add(json.loads((tmp_path / out / "f2b.json").read_text())["fingerprint"])
    assert len(prints) == 1
    for file in ("compression.gguf", "generation.gguf", "summary_tokens.gguf"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()
