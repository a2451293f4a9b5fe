"""The real peft loads our exports on the real classes of transformers: every tensor lands in its
module with its value, nothing is missing or left over, and the output changes by exactly s B A."""
import os
import pathlib
import subprocess
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import (CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig,
                          LlavaForConditionalGeneration)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release"))
SCALE = 6 / 3


def values(name, shape):
    """As test_export.c makes them from the tensor's name."""
    seed = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            seed = np.uint32((int(seed) ^ byte) * 16777619 & 0xFFFFFFFF)
        i = np.arange(int(np.prod(shape)), dtype=np.uint64) * 2654435761 + int(seed)
    x = (i & 0xFFFFFFFF) >> 8
    return (x.astype(np.float32) / np.float32(16777216) - np.float32(0.5)).reshape(shape)


def text_config():
    return LlamaConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, vocab_size=50,
                       num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)


def make_base(kind):
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(text_config()).eval()
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=20, num_hidden_layers=3,
                              num_attention_heads=2, image_size=28, patch_size=14)
    config = LlavaConfig(vision, text_config(), image_token_index=49, image_seq_length=4)
    return LlavaForConditionalGeneration(config).eval()


def forward(model, kind):
    ids = torch.tensor([[1, 5, 9, 7]])
    if kind == "llama":
        return model(input_ids=ids).logits
    ids = torch.cat([torch.full((1, 4), 49), ids], dim=1)
    pixels = torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28)
    return model(input_ids=ids, pixel_values=pixels).logits


def registry_name(module, kind):
    """Our name of a module: that of LLaVA on disk."""
    return "language_model." + module if kind == "llama" else module


def export(folder, word):
    """Our writer's export for the model in folder/base."""
    program = BUILD / "tests" / "test_export"
    command = [program, "write", folder / "out", folder / "base", word]
    subprocess.run(command, check=True, timeout=60)


def load(folder, kind, stage):
    """The base with the stage's adapter, loaded without a word of warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return PeftModel.from_pretrained(make_base(kind), str(folder / stage), adapter_name=stage)


@pytest.mark.parametrize("kind,word", [("llava", "stage"), ("llava", "shared"), ("llava", "few"),
                                       ("llava", "single"), ("llava", "base"), ("llama", "stage")])
def test_peft_applies_it(tmp_path, kind, word):
    make_base(kind).save_pretrained(tmp_path / "base", max_shard_size="20KB")
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 1
    export(tmp_path, word)
    stages = ["generation"] if word == "base" else ["compression", "generation"]
    for stage in stages:
        base, model = make_base(kind), load(tmp_path / "out", kind, stage)
        written = load_file(tmp_path / "out" / stage / "adapter_model.safetensors")
        adapter = "shared" if word == "shared" else stage
        found = 0
        for path, module in base.named_modules():
            adapted = model.base_model.model.get_submodule(path)
            if not hasattr(adapted, "lora_A"):
                continue
            deltas = []
            for side in "AB":
                weight = getattr(adapted, f"lora_{side}")[stage].weight
                name = f"{registry_name(path, kind)}.{adapter}.lora_{side}"
                np.testing.assert_array_equal(weight.detach().numpy(), values(name, weight.shape))
                deltas.append(weight.detach())
                found += 1
            module.weight.data += SCALE * deltas[1] @ deltas[0]
            in_tower = path.startswith("vision_tower")
            assert in_tower == (word == "single" and stage == "compression")
        assert found == len(written) > 0
        with torch.no_grad():
            ours, merged, plain = (forward(m, kind) for m in (model, base, make_base(kind)))
        torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-4)
        assert (ours - plain).abs().max() > 1e-3
    if word != "base":
        tokens = load_file(tmp_path / "out" / "summary_tokens.safetensors")["summary_tokens"]
        assert tokens.shape == (4, 16 if word == "single" else 24)
        np.testing.assert_array_equal(tokens, values("summary_tokens", tokens.shape))


def test_both_stages_in_one_model(tmp_path):
    make_base("llava").save_pretrained(tmp_path / "base")
    export(tmp_path, "stage")
    model = PeftModel.from_pretrained(make_base("llava"), str(tmp_path / "out/compression"),
                                      adapter_name="compression")
    model.load_adapter(str(tmp_path / "out/generation"), adapter_name="generation")
    outputs = []
    for stage in ("compression", "generation"):
        model.set_adapter(stage)
        with torch.no_grad():
            outputs.append(forward(model, "llava"))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
