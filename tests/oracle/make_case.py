"""Writes cases for the comparison of a training step (files: README.md), with what the oracle
makes of them in f64:

    python -m oracle.make_case OUT_DIR [CASE ...]      all cases if none is named; --list names them
"""
import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from .folder import read_config
from .random_model import SHAPES, normal, write_llava
from .settings import added_parameters, language_linears, make_settings, tower_linears
from .step import IMAGE, NO_LABEL, read_batch, run_step, write_result

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def case(model, kind, committed=False, system=0, summary=(), method=(), trainable=(), lora=()):
    """system: how many words all sequences begin with."""
    return dict(model=model, kind=kind, committed=committed, system=system, settings={
        "summary": dict(tokens=3, **dict(summary)),
        "method": {"temperature": 0.2, **dict(method)},
        "trainable": dict(trainable),
        "lora": {**dict(r=2, alpha=4, dropout=0.0), **dict(lora)}})


SINGLE, BASE = dict(forward="single"), dict(forward="base", loss="autoregressive")
CASES = {
    "gqa_conversation": case("gqa", "conversation", committed=True),
    "gqa_caption": case("gqa", "caption", committed=True, method=dict(temperature=0.05)),
    "gqa_both": case("gqa", "both", committed=True),
    "odd_both_shared_bidirectional": case(
        "odd", "both", committed=True, summary=dict(attention="bidirectional"),
        method=dict(adapters="single", temperature="learned")),
    "odd_conversation_pre_norm": case(
        "odd", "conversation", committed=True, summary=dict(hidden_state="pre_norm"),
        lora=dict(targets=["q_proj", "v_proj", "down_proj"])),
    "f16_both_projector": case("sharded_f16", "both", committed=True,
                               trainable=dict(projector=True)),
    "f16_both_tower": case("sharded_f16", "both",
                           trainable=dict(projector=True, vision_tower=True)),
    "gqa_caption_cold": case("gqa", "caption", method=dict(temperature=0.02)),
    "gqa_caption_learned": case("gqa", "caption", method=dict(temperature="learned")),
    "gqa_conversation_shared": case("gqa", "conversation", method=dict(adapters="single")),
    "gqa_both_autoregressive": case("gqa", "both", method=dict(loss="autoregressive")),
    "gqa_both_contrastive": case("gqa", "both", method=dict(loss="contrastive")),
    "gqa_both_pre_norm": case("gqa", "both", summary=dict(hidden_state="pre_norm")),
    "gqa_both_dropout": case("gqa", "both", lora=dict(dropout=0.25)),
    "gqa_both_frozen": case("gqa", "both", trainable=dict(language_model="frozen")),
    "gqa_both_full": case("gqa", "both", trainable=dict(language_model="full")),
    "odd_both": case("odd", "both"),
    "odd_caption": case("odd", "caption"),
    "odd_single_both": case("odd", "both", method=SINGLE),
    "gqa_single_conversation": case("gqa", "conversation", method=SINGLE),
    "gqa_single_caption_learned": case("gqa", "caption",
                                       method=dict(temperature="learned", **SINGLE)),
    "f16_single_both_dropout": case("sharded_f16", "both", method=SINGLE, lora=dict(dropout=0.5)),
    "f16_single_full": case("sharded_f16", "both", method=SINGLE,
                            trainable=dict(language_model="full")),
    "gqa_both_system": case("gqa", "both", committed=True, system=7),
    "gqa_both_system_dropout": case("gqa", "both", system=7, lora=dict(dropout=0.25)),
    "odd_both_system_full": case("odd", "both", system=6, trainable=dict(language_model="full")),
    "odd_both_system_bidirectional": case("odd", "both", system=5,
                                          summary=dict(attention="bidirectional")),
    "f16_single_both_system_dropout": case("sharded_f16", "both", system=8, method=SINGLE,
                                           lora=dict(dropout=0.5)),
    "gqa_base_system": case("gqa", "conversation", system=9, method=BASE, trainable=dict(projector=True)),
    "gqa_base_lora": case("gqa", "conversation", method=BASE, trainable=dict(projector=True)),
    "odd_base_full": case("odd", "conversation", method=BASE,
                          trainable=dict(language_model="full", projector=True,
                                         vision_tower=True)),
    "f16_base_projector": case("sharded_f16", "conversation", method=BASE,
                               trainable=dict(language_model="frozen", projector=True)),
}


def random_ids(rng, n, vocab, image_at=None):
    ids = [1] + [int(i) for i in rng.randint(3, vocab - 2, n - 1)]
    if image_at is not None:
        ids.insert(image_at, IMAGE)
    return ids


def random_conversation(rng, vocab, with_image):
    """One to three rounds; a round is a few unlabelled ids and then a labelled answer."""
    ids = random_ids(rng, rng.randint(3, 6), vocab, 2 if with_image else None)
    labels = [NO_LABEL] * len(ids)
    for _ in range(rng.randint(1, 4)):
        question = random_ids(rng, rng.randint(3, 6), vocab)[1:]
        answer = random_ids(rng, rng.randint(2, 5), vocab)[1:] + [2]
        ids += question + answer
        labels += [NO_LABEL] * len(question) + answer
    return {"ids": ids, "labels": labels}


def random_pixels(rng, size):
    """(uint8 [S,S,3], the same normalised as f32 [3,S,S])"""
    raw = torch.from_numpy(rng.randint(0, 256, (size, size, 3)).astype(np.uint8))
    value = (raw.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return raw, value.permute(2, 0, 1).float().contiguous()


def begin_alike(rng, samples, vocab, n):
    """n words, the same ones, behind the first id of every sequence."""
    words = random_ids(rng, n + 1, vocab)[1:]
    for sample in samples:
        for part in sample["conversation"], sample["image_prompt"], sample["caption_prompt"]:
            if part["ids"]:
                part["ids"][1:1] = words
            if part.get("labels"):
                part["labels"][1:1] = [NO_LABEL] * n


def random_samples(rng, config, kind, system=0, n=4):
    """Samples and their pixel tensors; the second conversation is text-only."""
    vocab, samples, pixels = config.language.vocab_size, [], {}
    for i in range(n):
        has_image = kind != "conversation" or i != 1
        sample = {"conversation": {"ids": [], "labels": []}, "image_prompt": {"ids": []},
                  "caption_prompt": {"ids": []}, "pixels": None}
        if kind != "caption":
            sample["conversation"] = random_conversation(rng, vocab, has_image)
        if has_image:
            sample["pixels"] = f"image{i}"
            sample["image_prompt"]["ids"] = random_ids(rng, 6, vocab, image_at=3)
            pixels[f"image{i}.uint8"], pixels[f"image{i}"] = random_pixels(
                rng, config.vision.image_size)
        if kind != "conversation":
            sample["caption_prompt"]["ids"] = random_ids(rng, rng.randint(5, 10), vocab)
        samples.append(sample)
    if system > 0:
        begin_alike(rng, samples, vocab, system)
    return samples, pixels


def random_initial(rng, settings, config):
    """Starting values of what the method adds; B is not zero, so that every gradient is alive."""
    initial = {}
    for name, shape in added_parameters(settings, config).items():
        if name == "log_temperature":
            initial[name] = torch.tensor([-1.7], dtype=torch.float64)
        else:
            scale = 0.5 if name == "summary_tokens" else shape[1] ** -0.5
            scale *= 0.3 if name.endswith(".lora_B") else 1
            initial[name] = normal(rng, shape, scale)
    return {name: tensor.float() for name, tensor in initial.items()}


def random_masks(rng, settings, config, samples):
    """Dropout masks of every adapted layer, one for all projections that share an input."""
    groups = {"qkv": "self_attn.q_proj", "o": "self_attn.o_proj", "gate_up": "mlp.gate_proj",
              "down": "mlp.down_proj"}
    tower_groups = {"qkv": "self_attn.q_proj", "o": "self_attn.out_proj", "fc1": "mlp.fc1",
                    "fc2": "mlp.fc2"}
    single, k = settings.method.forward == "single", settings.summary.tokens
    patches = (config.vision.image_size // config.vision.patch_size) ** 2
    language = language_linears(config, settings.lora.targets)
    keep, masks = 1 - settings.lora.dropout, {}

    def add(place, i, rows, linears, wanted):
        for name, (_, width) in linears.items():
            layer, module = name.split(".layers.")[1].split(".", 1)
            for group, first in wanted.items():
                if module == first:
                    drawn = torch.from_numpy(rng.random_sample((rows, width)) < keep)
                    masks[f"{place}.{i}.{layer}.{group}"] = drawn.float() / keep

    for i, sample in enumerate(samples):
        for place in ("image", "caption", "conversation"):
            ids = sample[place + "_prompt" if place != "conversation" else place]["ids"]
            image_rows = patches if place == "image" and not single else k
            rows = len(ids) + (image_rows - 1) * (IMAGE in ids)
            rows += k if place != "conversation" and not single else 0
            add(place, i, rows, language, groups)
        if single:
            add("tower", i, 1 + patches + k, tower_linears(config), tower_groups)
    return masks


def write_case(out, name):
    """Write models/<shape> (if it is not there) and cases/<name> under `out`; returns the case's
    folder."""
    spec, out = CASES[name], Path(out)
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    model = out / "models" / spec["model"]
    if not (model / "config.json").exists():
        write_llava(model, spec["model"], seed=1 + list(SHAPES).index(spec["model"]))
    folder = out / "cases" / name
    folder.mkdir(parents=True, exist_ok=True)
    settings, config = make_settings(spec["settings"]), read_config(model)

    samples, pixels = random_samples(rng, config, spec["kind"], spec["system"])
    batch = {"kind": spec["kind"], "initial": "initial.safetensors",
             "pixels": "pixels.safetensors", "masks": None, "samples": samples}
    save_file(random_initial(rng, settings, config), folder / "initial.safetensors")
    save_file(pixels, folder / "pixels.safetensors")
    if settings.lora.dropout:
        batch["masks"] = "masks.safetensors"
        save_file(random_masks(rng, settings, config, samples), folder / "masks.safetensors")
    (folder / "batch.json").write_text(json.dumps(batch) + "\n")
    document = {"model": {"path": os.path.relpath(model, folder), "weights": "f32"},
                **{section: keys for section, keys in spec["settings"].items() if keys},
                "train": {"precision": "f32"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    result = run_step(model, settings, read_batch(folder / "batch.json"))
    write_result(result, folder / "expected.safetensors")
    save_file({key: tensor.float().contiguous() for key, tensor in result.activations.items()},
              folder / "activations.safetensors")
    return folder


def main():
    if "--list" in sys.argv:
        print("\n".join(CASES))
        return
    out, names = sys.argv[1], sys.argv[2:] or list(CASES)
    for name in names:
        print(write_case(out, name))


if __name__ == "__main__":
    main()
