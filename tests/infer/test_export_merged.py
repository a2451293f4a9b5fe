"""f2b-export --format merged: the folder is a Hugging Face model that computes what the run does
with the merged stage; transformers loads it whole and agrees."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration

from oracle.random_model import (SHAPES, language_tensors, normal, save_shards, vision_tensors,
                                 write_llama, write_llava)

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
IMAGE = -200
QUESTION = "What color is the object at the top left?"
METHOD = {
    "tokens": 3, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 4, "alpha": 6, "dropout": 0.0,
             "targets": ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"]},
}

pytestmark = pytest.mark.skipif(not (TESTS / "full_tokens").exists(),
                                reason="full_tokens is not built")


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    run(BIN / "f2b-data", "toy", "--out", folder, "--train", 8, "--val", 1, "--image-size", 16)
    return folder


def merge(run_folder, out, stage="none"):
    return json.loads(run(BIN / "f2b-export", "--checkpoint", run_folder, "--format", "merged",
                          "--stage", stage, "--out", out))


def compute(world, tmp_path, checkpoint, model, stage="none"):
    out = tmp_path / "out.safetensors"
    run(TESTS / "full_tokens", checkpoint, model, stage, world / "images" / "v000000.png", QUESTION,
        out)
    return load_file(out)


def error(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def assert_transformers_agrees(folder, ours):
    model, info = LlavaForConditionalGeneration.from_pretrained(
        folder, torch_dtype=torch.float64, output_loading_info=True)
    assert not any(info.values()), info
    ids = ours["ids"].long()
    with torch.no_grad():
        image = model.get_image_features(ours["pixels"].double()[None],
                                         model.config.vision_feature_layer, "default")[0]
        at = ids.tolist().index(IMAGE)
        rows = model.get_input_embeddings()(ids.clamp(min=0))
        rows = torch.cat([rows[:at], image, rows[at + 1:]])
        logits = model.language_model(inputs_embeds=rows[None]).logits[0, -1]
    assert error(ours["image"], image) < 1e-4
    assert error(ours["logits"], logits) < 1e-4


@pytest.fixture(scope="module")
def bare(world):
    """A small model folder without weights."""
    config = json.loads((world / "model" / "config.json").read_text())
    config["text_config"].update(hidden_size=48, intermediate_size=64, num_hidden_layers=2,
                                 num_attention_heads=4, num_key_value_heads=2)
    config["vision_config"].update(hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                                   num_attention_heads=2)
    (world / "model" / "config.json").write_text(json.dumps(config))
    return world / "model"


def train(world, tmp_path, bare, **sections):
    settings = {
        "model": {"path": str(bare), "weights": "f32"},
        "method": {"loss": "autoregressive"},
        "data": {"conversations": [{"path": str(world / "train.json"),
                                    "images": str(world / "images")}]},
        "sampler": {"conversation_batch": 4},
        "train": {"steps": 3, "learning_rate": 1e-2, "warmup_ratio": 0, "precision": "f32",
                  "seed": 9},
        "run": {"dir": str(tmp_path / "run")},
    }
    for name, keys in sections.items():
        settings.setdefault(name, {}).update(keys)
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    run(BIN / "f2b-train", "--config", tmp_path / "run.yaml", "--quiet")


def test_base_trained_from_nothing(world, bare, tmp_path):
    """A base run on a folder without weights becomes a model folder, for the next run too."""
    train(world, tmp_path, bare, method={"forward": "base"},
          trainable={"language_model": "full", "projector": True, "vision_tower": True})
    result = merge(tmp_path / "run", tmp_path / "merged")
    assert (result["merged"], result["files"]) == (0, 1)
    ours = compute(world, tmp_path, tmp_path / "run", "-")
    for key, value in compute(world, tmp_path, "-", tmp_path / "merged").items():
        assert torch.equal(value, ours[key]), key
    assert_transformers_agrees(tmp_path / "merged", ours)
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert len(tensors) == result["tensors"]


def test_adapters_on_a_base_without_weights(world, bare, tmp_path):
    """What such a run drew at random comes again from its seed: in use, exported, merged."""
    train(world, tmp_path, bare, summary={"tokens": 3}, lora={"r": 2, "alpha": 4})
    run_folder, export = tmp_path / "run", tmp_path / "export"
    assert merge(run_folder, tmp_path / "merged", "generation")["merged"] == 2 * 7
    run(BIN / "f2b-export", "--checkpoint", run_folder, "--format", "peft", "--out", export)
    unmerged = compute(world, tmp_path, run_folder, "-", "generation")
    for key, value in compute(world, tmp_path, export, bare, "generation").items():
        assert torch.equal(value, unmerged[key]), key
    merged = compute(world, tmp_path, "-", tmp_path / "merged")
    assert torch.equal(merged["image"], unmerged["image"])
    assert error(merged["logits"], unmerged["logits"]) < 1e-5
    assert_transformers_agrees(tmp_path / "merged", merged)
    losses = [json.loads(line)["loss"] for line in (run_folder / "metrics.jsonl").open()]
    # the same base once more, from its merged folder: its first loss is the drawn base's
    merge(run_folder, tmp_path / "base")
    again = tmp_path / "again"
    again.mkdir()
    train(world, again, tmp_path / "base", summary={"tokens": 3}, lora={"r": 2, "alpha": 4})
    first = json.loads((again / "run" / "metrics.jsonl").open().readline())["loss"]
    assert first == losses[0]


@pytest.mark.parametrize("shape,changes", [
    ("gqa", {}), ("odd", {"adapters": "single"}), ("sharded_f16", {})])
def test_adapters_of_a_stage(world, tmp_path, shape, changes, monkeypatch):
    spec = dict(SHAPES[shape], language=dict(SHAPES[shape]["language"], vocab_size=832))
    monkeypatch.setitem(SHAPES, "vocab832", spec)
    base, run_folder = write_llava(tmp_path / "base", "vocab832"), tmp_path / "run"
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    run(TESTS / "make_run", base, run_folder, json.dumps(dict(METHOD, **changes)), 5)
    plain = compute(world, tmp_path, "-", base)
    for stage in ("compression", "generation"):
        unmerged = compute(world, tmp_path, run_folder, base, stage)
        assert error(plain["logits"], unmerged["logits"]) > 1e-2    # the adapter matters here
        result = merge(run_folder, tmp_path / stage, stage)
        assert result["merged"] == 2 * 5 and result["change"] > 1e-3
        merged = compute(world, tmp_path, "-", tmp_path / stage)
        assert torch.equal(merged["image"], plain["image"])
        rounding = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 2e-2}[spec["dtype"]]
        assert error(merged["logits"], unmerged["logits"]) < rounding
        if spec["dtype"] == torch.float32:
            assert torch.equal(merged["answer"], unmerged["answer"])
        assert_transformers_agrees(tmp_path / stage, merged)
        (tensors,) = [load_file(f) for f in (tmp_path / stage).glob("model*.safetensors")]
        assert {t.dtype for t in tensors.values()} == {spec["dtype"]}
        summary = load_file(tmp_path / stage / "summary_tokens.safetensors")["summary_tokens"]
        assert summary.shape == (3, spec["language"]["hidden_size"])


def test_shards(world, tmp_path, monkeypatch):
    spec = dict(SHAPES["gqa"], language=dict(SHAPES["gqa"]["language"], vocab_size=832))
    monkeypatch.setitem(SHAPES, "vocab832", spec)
    base, run_folder = write_llava(tmp_path / "base", "vocab832"), tmp_path / "run"
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    run(TESTS / "make_run", base, run_folder, json.dumps(METHOD), 5)
    merge(run_folder, tmp_path / "whole", "generation")
    limit = 20000       # the embedding table has more: it gets a file of its own
    files = int(run(TESTS / "merge_shards", run_folder, tmp_path / "parts", "generation", limit))
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    names = sorted(set(index["weight_map"].values()))
    assert names == [f"model-{i + 1:05d}-of-{files:05d}.safetensors" for i in range(files)]
    assert names == sorted(f.name for f in (tmp_path / "parts").glob("model-*"))
    want, size = load_file(tmp_path / "whole" / "model.safetensors"), 0
    for name in names:
        part = load_file(tmp_path / "parts" / name)
        bytes_here = sum(t.numel() * t.element_size() for t in part.values())
        assert bytes_here <= limit or len(part) == 1
        for key, value in part.items():
            assert index["weight_map"][key] == name and torch.equal(value, want.pop(key))
        size += bytes_here
    assert not want and index["metadata"]["total_size"] == size
    ours = compute(world, tmp_path, "-", tmp_path / "parts")
    assert_transformers_agrees(tmp_path / "parts", ours)


@pytest.mark.parametrize("tied", [False, True])
def test_plain_llama(world, tmp_path, tied):
    """A Llama base gives a Llama folder, by transformers' names; peft on the base is the judge."""
    language = dict(SHAPES["gqa"]["language"], vocab_size=832)
    base, run_folder = write_llama(tmp_path / "base", language, tied=tied), tmp_path / "run"
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    run(TESTS / "make_run", base, run_folder, json.dumps(METHOD), 5)
    run(BIN / "f2b-export", "--checkpoint", run_folder, "--format", "peft", "--out",
        tmp_path / "peft")
    (tmp_path / "text").write_text("Summarize the image in a few words.")
    for stage in ("compression", "generation"):
        result = merge(run_folder, tmp_path / stage, stage)
        assert result["merged"] == 2 * 5 and result["output"] > 1e-3 > 100 * result["rounding"]
        model, info = LlamaForCausalLM.from_pretrained(
            tmp_path / stage, torch_dtype=torch.float64, output_loading_info=True)
        assert not any(info.values()), info
        run(BIN / "f2b-eval", "--task", "nll", "--model", tmp_path / stage, "--text",
            tmp_path / "text", "--logits", tmp_path / "logits.npy")
        ours = torch.from_numpy(np.load(tmp_path / "logits.npy"))
        ids = run_ids(base, (tmp_path / "text").read_text())
        plain = LlamaForCausalLM.from_pretrained(base, torch_dtype=torch.float64)
        with torch.no_grad():
            merged, without = (m(ids).logits[0] for m in (model, plain))
            adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "peft" / stage)
            adapted = adapted.double()(ids).logits[0]
        assert error(merged, adapted) < 1e-5 and error(without, adapted) > 1e-2
        assert error(ours[:len(merged)], merged[:len(ours)]) < 1e-4


def run_ids(model, text):
    done = subprocess.run([BIN / "f2b-data", "tokenize", "--model", model], input=text, text=True,
                          capture_output=True, check=True, timeout=60)
    return torch.tensor([[1] + json.loads(done.stdout)])


def test_an_adapter_lost_in_the_base_type(world, tmp_path, monkeypatch):
    """Weights of bf16 take no change below their rounding: such a merge is no export."""
    monkeypatch.setitem(SHAPES, "vocab832", dict(
        SHAPES["odd"], language=dict(SHAPES["odd"]["language"], vocab_size=832)))
    base = write_llava(tmp_path / "base", "vocab832")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    method = dict(METHOD, lora=dict(METHOD["lora"], alpha=1e-4))
    run(TESTS / "make_run", base, tmp_path / "run", json.dumps(method), 5)
    done = subprocess.run([str(a) for a in (
        BIN / "f2b-export", "--checkpoint", tmp_path / "run", "--format", "merged", "--stage",
        "generation", "--out", tmp_path / "out")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "too coarse" in done.stderr and "peft" in done.stderr
    assert not [f for f in tmp_path.iterdir() if f.name.startswith("out")]


def write_haotian(folder, clip, language, vision):
    """A LLaVA as its authors publish it, and its tower's folder, which has text weights too."""
    rng, d, wide = np.random.RandomState(4), language["hidden_size"], vision["hidden_size"]
    tensors = language_tensors(rng, language, "model.", "lm_head")
    tensors.update({"model.mm_projector.0.weight": normal(rng, (d, wide), wide ** -0.5),
                    "model.mm_projector.0.bias": normal(rng, (d,), 0.1),
                    "model.mm_projector.2.weight": normal(rng, (d, d), d ** -0.5),
                    "model.mm_projector.2.bias": normal(rng, (d,), 0.1),
                    "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    tower = vision_tensors(rng, vision, "vision_model.")
    tower.update({"logit_scale": torch.tensor(1.0),
                  "text_model.final_layer_norm.weight": torch.ones(4),
                  "vision_model.embeddings.position_ids": torch.arange(10.0)[None]})
    for path, weights, config in (
            (folder, tensors, dict(
                language, model_type="llava", architectures=["LlavaLlamaForCausalLM"],
                mm_vision_tower="openai/clip", mm_projector_type="mlp2x_gelu", mm_hidden_size=wide,
                mm_vision_select_layer=-2, mm_vision_select_feature="patch",
                image_aspect_ratio="pad")),
            (clip, tower, dict(model_type="clip", vision_config=vision))):
        path.mkdir()
        save_shards(path, {name: t.half() for name, t in weights.items()}, 1)
        (path / "config.json").write_text(json.dumps(config))


def test_haotian_base_with_a_separate_tower(world, tmp_path):
    """The export is one Hugging Face folder that needs neither of the two."""
    language = dict(SHAPES["odd"]["language"], vocab_size=832, rms_norm_eps=1e-5)
    vision = dict(SHAPES["odd"]["vision"])
    base, clip, run_folder = tmp_path / "base", tmp_path / "clip", tmp_path / "run"
    write_haotian(base, clip, language, vision)
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    (tmp_path / "run.yaml").write_text(json.dumps({
        "model": {"path": str(base), "vision_path": str(clip), "weights": "f16"},
        "method": {"loss": "autoregressive"}, "summary": {"tokens": 3},
        "lora": {"r": 2, "alpha": 4},
        "data": {"conversations": [{"path": str(world / "train.json"),
                                    "images": str(world / "images")}]},
        "sampler": {"conversation_batch": 4},
        "train": {"steps": 2, "learning_rate": 1e-2, "warmup_ratio": 0, "precision": "f32"},
        "run": {"dir": str(run_folder)}}))
    run(BIN / "f2b-train", "--config", tmp_path / "run.yaml", "--quiet")
    merge(run_folder, tmp_path / "merged", "generation")
    unmerged = compute(world, tmp_path, run_folder, "-", "generation")
    merged = compute(world, tmp_path, "-", tmp_path / "merged")
    assert torch.equal(merged["pixels"], unmerged["pixels"])
    assert error(merged["logits"], unmerged["logits"]) < 1e-3       # f16 weights
    assert_transformers_agrees(tmp_path / "merged", merged)
    (tmp_path / "text").write_text("a red circle")
    for folder in (base, tmp_path / "merged"):                      # text needs no tower
        run(BIN / "f2b-eval", "--task", "nll", "--model", folder, "--text", tmp_path / "text")


def test_refusals(world, tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "vocab832", dict(
        SHAPES["gqa"], language=dict(SHAPES["gqa"]["language"], vocab_size=832)))
    base = write_llava(tmp_path / "base", "vocab832")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    method = dict(METHOD, forward="base", language_model="full")
    run(TESTS / "make_run", base, tmp_path / "run", json.dumps(method), 5)

    def refused(words, out, stage="none", checkpoint=tmp_path / "run"):
        command = (BIN / "f2b-export", "--checkpoint", checkpoint, "--format", "merged", "--stage",
                   stage, "--out", out)
        done = subprocess.run([str(a) for a in command], capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 1 and words in done.stderr, done.stderr

    refused("no compression adapter", tmp_path / "out", "compression")
    assert not (tmp_path / "out").exists()
    # what is not ours to replace stays
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    refused("holds other files", tmp_path / "precious")
    assert (tmp_path / "precious" / "file").read_text() == "x"
    refused("holds other files", base)
    assert (base / "model.safetensors").exists()
    # an earlier export is ours, unless it is the base of this one
    merge(tmp_path / "run", tmp_path / "merged")
    merge(tmp_path / "run", tmp_path / "merged")
    run(TESTS / "make_run", tmp_path / "merged", tmp_path / "run2", json.dumps(method), 6)
    refused("is the base model itself", tmp_path / "merged", checkpoint=tmp_path / "run2")
