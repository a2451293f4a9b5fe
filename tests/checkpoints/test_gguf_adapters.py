"""Our adapters for llama.cpp as the gguf package (llama.cpp's own) reads them: metadata, names,
shapes, and values: those of the PEFT export, the rows of q and k as llama.cpp's converter has them."""
import json
import os
import pathlib
import subprocess

import pytest

np = pytest.importorskip("numpy")
gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
from safetensors.numpy import load_file  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release"))
HEADS, GROUPS, LAYERS, WIDTH, WIDE, RANK = 4, 2, 2, 32, 40, 3
OUT = {"q": WIDTH, "k": WIDTH // 2, "v": WIDTH // 2, "o": WIDTH, "gate": WIDE, "up": WIDE,
       "down": WIDTH}

pytestmark = pytest.mark.skipif(not (BUILD / "tests/test_export").exists(),
                                reason="test_export is not built")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    config = transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=WIDE, num_hidden_layers=LAYERS, vocab_size=50,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, tie_word_embeddings=False)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write(folder, base, word, form=""):
    subprocess.run([BUILD / "tests/test_export", "write", folder, base, word, form], check=True,
                   timeout=60)
    return folder


def converted(rows, heads):
    """Rows of a matrix as llama.cpp's converter orders them: halves of a head interleaved."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def value(field):
    return field.contents()


@pytest.mark.parametrize("word", ["stage", "shared", "few", "base"])
def test_adapters(tmp_path, base, word):
    ours, peft = write(tmp_path / "gguf", base, word, "gguf"), write(tmp_path / "peft", base, word)
    stages = ["generation"] if word == "base" else ["compression", "generation"]
    for stage in stages:
        reader = gguf.GGUFReader(ours / f"{stage}.gguf")
        facts = {key: value(reader.fields[key]) for key in (
            "general.architecture", "general.type", "adapter.type", "adapter.lora.alpha",
            "fwd2bot.adapter", "fwd2bot.head_dim")}
        assert facts == {
            "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
            "adapter.lora.alpha": 6.0, "fwd2bot.head_dim": WIDTH // HEADS,
            "fwd2bot.adapter": "shared" if word == "shared" else stage}
        want = load_file(peft / stage / "adapter_model.safetensors")
        tensors = {t.name: t for t in reader.tensors}
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
        for key, array in want.items():
            module, side = key.removeprefix("base_model.model.").split(".lora_")
            name = names.get_name(module)
            t = tensors.pop(f"{name}.weight.lora_{side[0].lower()}")
            assert t.tensor_type == gguf.GGMLQuantizationType.F32
            assert list(t.shape) == list(array.shape[::-1])
            if side[0] == "B" and name.endswith(("attn_q", "attn_k")):
                array = converted(array, HEADS if name.endswith("q") else GROUPS)
            np.testing.assert_array_equal(t.data, array)
        assert not tensors
    if word != "base":
        (t,) = gguf.GGUFReader(ours / "summary_tokens.gguf").tensors
        assert t.name == "summary_tokens" and list(t.shape) == [WIDTH, 4]
        np.testing.assert_array_equal(
            t.data, load_file(peft / "summary_tokens.safetensors")["summary_tokens"])
    manifest = json.loads((ours / "f2b.json").read_text())
    assert manifest["adapters"] == "gguf"
    assert set(manifest["files"]) == {f.name for f in ours.iterdir()} - {"f2b.json"}
    for name, file in manifest["files"].items():
        assert file["size"] == (ours / name).stat().st_size
    assert manifest["fingerprint"] == json.loads((peft / "f2b.json").read_text())["fingerprint"]
