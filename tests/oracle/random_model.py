"""Small random LLaVA folders whose activations stay of order one, in the shapes that tend to break
an implementation: grouped key/value heads, odd sizes, several f16 shards."""
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

# `language` and `vision` go into config.json as they are; keys that are absent there take the
# defaults of transformers, so that defaults are tested too.
SHAPES = {
    "gqa": dict(
        language=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                      num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
                      rms_norm_eps=1e-5),
        vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                    num_attention_heads=3, image_size=16, patch_size=4, projection_dim=16),
        dtype=torch.float32, shards=1, layout="disk"),
    "odd": dict(
        language=dict(hidden_size=36, intermediate_size=52, num_hidden_layers=2,
                      num_attention_heads=3, vocab_size=67, rope_theta=5000.0),
        vision=dict(hidden_size=20, intermediate_size=28, num_hidden_layers=3,
                    num_attention_heads=2, image_size=21, patch_size=7, projection_dim=12,
                    layer_norm_eps=1e-4),
        dtype=torch.bfloat16, shards=1, layout="memory"),
    "sharded_f16": dict(
        language=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2,
                      num_attention_heads=2, vocab_size=64, rms_norm_eps=1e-5),
        vision=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                    num_attention_heads=2, image_size=12, patch_size=4, projection_dim=16),
        dtype=torch.float16, shards=2, layout="disk"),
}


def normal(rng, shape, scale):
    return torch.from_numpy(rng.standard_normal(shape) * scale)


def linear(rng, name, n_out, n_in, bias):
    tensors = {name + ".weight": normal(rng, (n_out, n_in), n_in ** -0.5)}
    if bias:
        tensors[name + ".bias"] = normal(rng, (n_out,), 0.1)
    return tensors


def norm(rng, name, width, bias):
    tensors = {name + ".weight": 1 + normal(rng, (width,), 0.1)}
    if bias:
        tensors[name + ".bias"] = normal(rng, (width,), 0.1)
    return tensors


def language_tensors(rng, shape, prefix, head, tied=False):
    d, m, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    heads = shape["num_attention_heads"]
    kv = shape.get("num_key_value_heads", heads) * (d // heads)
    tensors = {prefix + "embed_tokens.weight": normal(rng, (vocab, d), 1.0)}
    for i in range(shape["num_hidden_layers"]):
        layer = f"{prefix}layers.{i}."
        for name, n_out, n_in in (("self_attn.q_proj", d, d), ("self_attn.k_proj", kv, d),
                                  ("self_attn.v_proj", kv, d), ("self_attn.o_proj", d, d),
                                  ("mlp.gate_proj", m, d), ("mlp.up_proj", m, d),
                                  ("mlp.down_proj", d, m)):
            tensors.update(linear(rng, layer + name, n_out, n_in, bias=False))
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors.update(norm(rng, layer + name, d, bias=False))
    tensors.update(norm(rng, prefix + "norm", d, bias=False))
    if not tied:
        tensors.update(linear(rng, head, vocab, d, bias=False))
    return tensors


def vision_tensors(rng, shape, prefix):
    d, m, patch = shape["hidden_size"], shape["intermediate_size"], shape["patch_size"]
    patches = (shape["image_size"] // patch) ** 2
    embeddings = prefix + "embeddings."
    tensors = {
        embeddings + "class_embedding": normal(rng, (d,), 1.0),
        embeddings + "patch_embedding.weight":
            normal(rng, (d, 3, patch, patch), (3 * patch * patch) ** -0.5),
        embeddings + "position_embedding.weight": normal(rng, (patches + 1, d), 0.5),
    }
    tensors.update(norm(rng, prefix + "pre_layrnorm", d, bias=True))
    for i in range(shape["num_hidden_layers"]):
        layer = f"{prefix}encoder.layers.{i}."
        for name, n_out, n_in in (("self_attn.q_proj", d, d), ("self_attn.k_proj", d, d),
                                  ("self_attn.v_proj", d, d), ("self_attn.out_proj", d, d),
                                  ("mlp.fc1", m, d), ("mlp.fc2", d, m)):
            tensors.update(linear(rng, layer + name, n_out, n_in, bias=True))
        for name in ("layer_norm1", "layer_norm2"):
            tensors.update(norm(rng, layer + name, d, bias=True))
    tensors.update(norm(rng, prefix + "post_layernorm", d, bias=True))
    return tensors


def projector_tensors(rng, language, vision, prefix):
    d = language["hidden_size"]
    tensors = linear(rng, prefix + "linear_1", d, vision["hidden_size"], bias=True)
    tensors.update(linear(rng, prefix + "linear_2", d, d, bias=True))
    return tensors


def save_shards(folder, tensors, shards):
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = list(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        weight_map.update({name: file for name in part})
        save_file({name: tensors[name] for name in part}, folder / file,
                  metadata={"format": "pt"})
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def llava_config(shape):
    vision = shape["vision"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    vocab = shape["language"]["vocab_size"]
    return {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
        "ignore_index": -100, "image_token_index": vocab - 2, "pad_token_id": vocab - 1,
        "image_seq_length": patches, "projector_hidden_act": "gelu",
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False, "torch_dtype": str(shape["dtype"]).split(".")[1],
        "text_config": {"model_type": "llama", **shape["language"]},
        "vision_config": {"model_type": "clip_vision_model", **vision},
    }


def write_llava(folder, shape_name, seed=1):
    """Write a random LLaVA of SHAPES; names in the layout `disk`, or `memory` (as transformers
    >= 4.52 has them in memory)."""
    shape, folder = SHAPES[shape_name], Path(folder)
    rng = np.random.RandomState(seed)
    inner = "model." if shape["layout"] == "memory" else ""
    language = "model.language_model." if inner else "language_model.model."
    tensors = vision_tensors(rng, shape["vision"], inner + "vision_tower.vision_model.")
    tensors.update(projector_tensors(rng, shape["language"], shape["vision"],
                                     inner + "multi_modal_projector."))
    tensors.update(language_tensors(rng, shape["language"], language,
                                    "lm_head" if inner else "language_model.lm_head"))
    folder.mkdir(parents=True, exist_ok=True)
    save_shards(folder, {name: t.to(shape["dtype"]) for name, t in tensors.items()},
                shape["shards"])
    (folder / "config.json").write_text(json.dumps(llava_config(shape), indent=2) + "\n")
    return folder


def write_llama(folder, language, seed=1, tied=False):
    """Write a random text-only LlamaForCausalLM folder in f32."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    tensors = language_tensors(rng, language, "model.", "lm_head", tied)
    save_shards(folder, {name: t.float() for name, t in tensors.items()}, 1)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1,
              "eos_token_id": 2, "tie_word_embeddings": tied, "torch_dtype": "float32",
              **language}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder
