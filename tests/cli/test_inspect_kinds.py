"""f2b-inspect --verify --norms --json on every kind of file and folder of weights: tensors, shapes,
types, norms and checksums, against what safetensors, gguf and numpy read there."""
import ctypes
import json
import os
import subprocess
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
gguf = pytest.importorskip("gguf")
pytest.importorskip("torch")
from oracle.random_model import SHAPES, write_llava  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
METHOD = {
    "tokens": 3, "prompt": "Summarize.", "template": "vicuna_v1", "attention": "causal",
    "hidden_state": "final_norm", "forward": "double", "adapters": "stage", "temperature": 0.02,
    "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]},
}

pytestmark = pytest.mark.skipif(not (TESTS / "make_run").exists(), reason="make_run is not built")


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    run(BIN / "f2b-data", "toy", "--out", world, "--train", 1, "--val", 1)
    patch = pytest.MonkeyPatch()
    patch.setitem(SHAPES, "vocab832", dict(
        SHAPES["sharded_f16"], language=dict(SHAPES["sharded_f16"]["language"], vocab_size=832)))
    base = write_llava(world / "base", "vocab832")
    patch.undo()
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    run(TESTS / "make_run", base, world / "run", json.dumps(METHOD), 5)
    for form in ("peft", "gguf"):
        run(BIN / "f2b-export", "--checkpoint", world / "run", "--format", form, "--out",
            world / form)
    run(BIN / "f2b-export", "--checkpoint", world / "run", "--format", "merged", "--stage",
        "generation", "--out", world / "merged")
    return world


def inspect(path):
    report = json.loads(run(BIN / "f2b-inspect", "--json", "--verify", "--norms", path))
    assert report["checks"] and all(check["ok"] for check in report["checks"])
    run(BIN / "f2b-inspect", "--verify", "--norms", path)       # as a person reads it
    totals = report["totals"]
    assert totals["tensors"] == len(report["tensors"])
    assert totals["bytes"] == sum(t["bytes"] for t in report["tensors"])
    return report


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh3_128(data):
    """In one go, where f2b reads a file piece by piece."""
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_128bits.restype = Hash128
    digest = library.XXH3_128bits(data, ctypes.c_size_t(len(data)))
    return f"{digest.high:016x}{digest.low:016x}"


def assert_checksums(report, *files):
    checksums = report["facts"]["checksums"]
    assert set(checksums) == {name for name, _ in files}
    for name, path in files:
        assert checksums[name]["size"] == path.stat().st_size
        assert checksums[name]["xxh3_128"] == xxh3_128(path.read_bytes())


def assert_tensors(report, want):
    assert {t["name"] for t in report["tensors"]} == set(want)
    for t in report["tensors"]:
        array = want[t["name"]]
        assert t["shape"] == list(array.shape)
        assert t["norm"] == pytest.approx(float(np.linalg.norm(array.astype(np.float64))), rel=1e-6)


def arrays(*files):
    return {k: v.float().numpy() for file in files for k, v in load_file(file).items()}


def registry(folder):
    """What a PEFT export holds, by the registry's names."""
    tensors = arrays(folder / "summary_tokens.safetensors")
    for stage in ("compression", "generation"):
        for key, value in arrays(folder / stage / "adapter_model.safetensors").items():
            key = key.removeprefix("base_model.model.").removesuffix(".weight")
            tensors[key.replace(".lora_", f".{stage}.lora_")] = value
    return tensors


def test_safetensors(world):
    file = world / "peft" / "generation" / "adapter_model.safetensors"
    report = inspect(file)
    assert report["kind"] == "safetensors" and {t["type"] for t in report["tensors"]} == {"F32"}
    assert_tensors(report, arrays(file))
    assert_checksums(report, (str(file), file))


def test_gguf(world):
    file = world / "gguf" / "generation.gguf"
    report = inspect(file)
    assert report["kind"] == "gguf"
    assert report["facts"]["metadata"]["adapter.lora.alpha"] == METHOD["lora"]["alpha"]
    assert_tensors(report, {t.name: np.array(t.data) for t in gguf.GGUFReader(file).tensors})
    assert_checksums(report, (str(file), file))


@pytest.mark.parametrize("form,end", [("peft", "/adapter_model.safetensors"), ("gguf", ".gguf")])
def test_exports(world, form, end):
    """Both hold the same, by the same names."""
    report, other = inspect(world / form), "safetensors" if form == "peft" else "gguf"
    assert report["kind"] == "export" and report["facts"]["form"] == form
    assert report["facts"]["method"]["lora"]["r"] == METHOD["lora"]["r"]
    assert_tensors(report, registry(world / "peft"))
    names = [f"compression{end}", f"generation{end}", f"summary_tokens.{other}"]
    assert_checksums(report, *((name, world / form / name) for name in names))


def test_peft_folder(world):
    folder = world / "peft" / "compression"
    report = inspect(folder)
    assert report["kind"] == "peft" and report["facts"]["adapter_config.json"]["r"] == 2
    assert_tensors(report, arrays(folder / "adapter_model.safetensors"))
    assert_checksums(report, ("adapter_model.safetensors", folder / "adapter_model.safetensors"))


def test_model_folders(world):
    shards = sorted((world / "base").glob("*.safetensors"))
    report = inspect(world / "base")
    assert report["kind"] == "model" and {t["type"] for t in report["tensors"]} == {"F16"}
    assert_tensors(report, arrays(*shards))
    assert_checksums(report, *((f.name, f) for f in shards))
    merged = inspect(world / "merged")
    assert merged["kind"] == "model"
    assert merged["facts"]["f2b_merged.json"]["stage"] == "generation"
    assert {"summary_tokens"} == ({t["name"] for t in merged["tensors"]}
                                  - {t["name"] for t in report["tensors"]})


def test_runs(world):
    folder = world / "run" / "checkpoints" / "step-00000007"
    for path, kind in ((world / "run", "run"), (folder, "checkpoint")):
        report = inspect(path)
        assert report["kind"] == kind and report["facts"]["step"] == 7
        assert_tensors(report, registry(world / "peft"))
        assert_checksums(report, ("state.h5", folder / "state.h5"))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert report["facts"]["checksums"] == manifest["files"]
