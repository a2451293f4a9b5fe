"""Reads a Hugging Face Llama or LLaVA folder: config.json with its defaults, and every weight under
its on-disk name (`language_model.model.layers.0...`), whichever of three layouts the file has."""
import json
from pathlib import Path
from types import SimpleNamespace

from safetensors.torch import load_file

LLAMA = dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
             num_attention_heads=32, vocab_size=32000, rms_norm_eps=1e-6, rope_theta=10000.0)
TOWER = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
             num_attention_heads=16, image_size=336, patch_size=14, layer_norm_eps=1e-5)

# First match wins; "" drops the prefix. The middle rows also serve a plain Llama folder.
PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.vision_tower.vision_tower.", "vision_tower."),
    ("model.vision_tower.", "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def on_disk_name(name):
    for prefix, replacement in PREFIXES:
        if name.startswith(prefix):
            return replacement + name[len(prefix):]
    return name


def read_config(folder):
    """Returns .language, .vision (None for a plain Llama), .feature_layer, .tied."""
    raw = json.loads((Path(folder) / "config.json").read_text())
    text = raw.get("text_config", raw)
    language = SimpleNamespace(**{**LLAMA, **text})
    language.num_key_value_heads = (text.get("num_key_value_heads")
                                    or language.num_attention_heads)
    language.head_dim = (text.get("head_dim")
                         or language.hidden_size // language.num_attention_heads)
    vision = raw.get("vision_config")
    return SimpleNamespace(
        language=language,
        vision=SimpleNamespace(**{**TOWER, **vision}) if vision is not None else None,
        feature_layer=raw.get("vision_feature_layer", -2),
        tied=raw.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False))


def read_weights(folder, dtype):
    """Returns {on-disk name: tensor of `dtype`}; buffers that are no weights are left out."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    files = ({"model.safetensors"} if not index.exists() else
             set(json.loads(index.read_text())["weight_map"].values()))
    weights = {}
    for file in sorted(files):
        for name, tensor in load_file(folder / file).items():
            if not name.endswith((".inv_freq", ".position_ids")):
                weights[on_disk_name(name)] = tensor.to(dtype)
    return weights
