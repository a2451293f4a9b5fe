"""Writes a folder with a model of the exact shapes of llava-1.5-7b-hf, its weights random, and a few
samples to train on: for measuring speed and memory where the real weights are not at hand.

    shape_7b.py OUT [--tokenizer tokenizer.model] [--divide N] [--layers N] [--samples N]

OUT/model has config.json, three shards of bf16 (14.1 GB; matrices normal of deviation 0.02, norms one,
biases zero) named and cut as the original, and a tokenizer of 32,000 pieces: the one given, or a made-up
one whose words are single letters and runs of them. OUT/run.yaml trains on OUT/data:

    f2b-train --config OUT/run.yaml

--divide N makes widths and depths smaller by N (the head's size, the image and the vocabulary stay);
`--divide 8 --layers 8` is the mini model of docs/benchmarks.md.
Needs numpy. Writes as fast as the disk does: one block of random numbers serves for all tensors."""
import argparse
import itertools
import json
import random
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

SHARD_BYTES = 5_000_000_000             # as transformers cuts them
VOCABULARY = 32064                      # 32,000 pieces, <image>, <pad>, to a multiple of 64
BLOCK = 1 << 25                         # random numbers


def sizes(divide):
    return {"d": 4096 // divide, "ff": 11008 // divide, "layers": max(32 // divide, 2),
            "heads": 32 // divide, "vd": 1024 // divide, "vff": 4096 // divide,
            "vlayers": max(24 // divide, 3), "vheads": max(16 // divide, 1)}


def tensors(s):
    """(name, shape) in the order of the original."""
    tower, llm = "vision_tower.vision_model.", "language_model."
    yield tower + "embeddings.class_embedding", (s["vd"],)
    yield tower + "embeddings.patch_embedding.weight", (s["vd"], 3, 14, 14)
    yield tower + "embeddings.position_embedding.weight", (577, s["vd"])
    norm = lambda name: [(name + ".weight", (s["vd"],)), (name + ".bias", (s["vd"],))]
    yield from norm(tower + "pre_layrnorm")
    for i in range(s["vlayers"]):
        layer = f"{tower}encoder.layers.{i}."
        for part, out, into in [("self_attn.k_proj", "vd", "vd"), ("self_attn.v_proj", "vd", "vd"),
                                ("self_attn.q_proj", "vd", "vd"), ("self_attn.out_proj", "vd", "vd"),
                                ("mlp.fc1", "vff", "vd"), ("mlp.fc2", "vd", "vff")]:
            yield f"{layer}{part}.weight", (s[out], s[into])
            yield f"{layer}{part}.bias", (s[out],)
        yield from norm(layer + "layer_norm1")
        yield from norm(layer + "layer_norm2")
    yield from norm(tower + "post_layernorm")
    for name, into in [("linear_1", "vd"), ("linear_2", "d")]:
        yield f"multi_modal_projector.{name}.weight", (s["d"], s[into])
        yield f"multi_modal_projector.{name}.bias", (s["d"],)
    yield llm + "model.embed_tokens.weight", (VOCABULARY, s["d"])
    for i in range(s["layers"]):
        layer = f"{llm}model.layers.{i}."
        for part, out, into in [("self_attn.q_proj", "d", "d"), ("self_attn.k_proj", "d", "d"),
                                ("self_attn.v_proj", "d", "d"), ("self_attn.o_proj", "d", "d"),
                                ("mlp.gate_proj", "ff", "d"), ("mlp.up_proj", "ff", "d"),
                                ("mlp.down_proj", "d", "ff")]:
            yield f"{layer}{part}.weight", (s[out], s[into])
        yield f"{layer}input_layernorm.weight", (s["d"],)
        yield f"{layer}post_attention_layernorm.weight", (s["d"],)
    yield llm + "model.norm.weight", (s["d"],)
    yield llm + "lm_head.weight", (VOCABULARY, s["d"])


def bf16(values):
    """Rounded to nearest; values are far from infinity."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def write_tensor(f, name, count, block, place):
    if name.endswith("bias"):
        f.write(np.zeros(count, np.uint16))
    elif "norm" in name:
        f.write(np.full(count, 0x3F80, np.uint16))
    else:
        at = place.randrange(BLOCK)
        while count > 0:
            n = min(count, BLOCK - at)
            f.write(memoryview(block[at:at + n]))
            count, at = count - n, 0


def write_shards(folder, every, block):
    shards, total = [[]], 0
    for name, shape in every:
        n = 2 * int(np.prod(shape))
        if shards[-1] and sum(b for _, _, b in shards[-1]) + n > SHARD_BYTES:
            shards.append([])
        shards[-1].append((name, shape, n))
        total += n
    place, weight_map = random.Random(1), {}
    for k, shard in enumerate(shards):
        file = f"model-{k + 1:05d}-of-{len(shards):05d}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape, n in shard:
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
            weight_map[name] = file
            at += n
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name, shape, n in shard:
                write_tensor(f, name, n // 2, block, place)
        print(f"{file}: {at / 1e9:.2f} GB", file=sys.stderr)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return total


def write_config(folder, s):
    config = {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
        "ignore_index": -100, "image_token_index": 32000, "pad_token_id": 32001,
        "projector_hidden_act": "gelu", "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "vocab_size": VOCABULARY,
        "text_config": {"model_type": "llama", "hidden_size": s["d"], "intermediate_size": s["ff"],
                        "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"],
                        "num_key_value_heads": s["heads"], "max_position_embeddings": 4096,
                        "rms_norm_eps": 1e-05, "vocab_size": VOCABULARY,
                        "torch_dtype": "bfloat16"},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": s["vd"],
                          "image_size": 336, "intermediate_size": s["vff"],
                          "num_attention_heads": s["vheads"], "num_hidden_layers": s["vlayers"],
                          "patch_size": 14, "projection_dim": 768}}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False,
         "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False,
         "model_max_length": 2048}, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(
        {"crop_size": {"height": 336, "width": 336}, "size": {"shortest_edge": 336},
         "image_mean": [0.48145466, 0.4578275, 0.40821073],
         "image_std": [0.26862954, 0.26130258, 0.27577711], "do_center_crop": True, "resample": 3},
        indent=2))


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def write_tokenizer(path):
    """SentencePiece BPE: each piece is a shorter one with a letter more, so that all can be reached."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ("".join(w) for n in (2, 3, 4) for w in itertools.product(letters, repeat=n))
    normal = ["\u2581"] + [chr(c) for c in range(33, 127)] + ["\u2581" + c for c in letters]
    normal += list(itertools.islice(words, 32000 - 259 - len(normal)))
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3)] + [(f"<0x{b:02X}>", 6) for b in range(256)]
    pieces += [(p, 1) for p in normal]
    out = b""
    for i, (piece, kind) in enumerate(pieces):
        score = -float(max(i - 259, 0))
        out += field(1, field(1, piece.encode()) + field(2, score) + field(3, kind))
    out += field(2, field(3, 2) + field(4, len(pieces)) + field(35, 1) + field(40, 0) + field(41, 1)
                 + field(42, 2))
    out += field(3, field(1, b"identity") + field(3, 1) + field(4, 0))
    path.write_bytes(out)


def write_png(path, width, height, noise):
    rows = noise.integers(0, 256, (height, width // 16, 3), np.uint8).repeat(16, 1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunk = lambda kind, body: (struct.pack(">I", len(body)) + kind + body
                                + struct.pack(">I", zlib.crc32(kind + body)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height,
                                                                     8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))


def write_data(folder, n):
    """Half of the conversations have a caption to be joined; there are captions of other images too."""
    noise = np.random.default_rng(2)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    answer = " ".join(["a red car stands by the old stone house near the river"] * 6)
    talk, captions, joined = [], [], {"images": [], "annotations": []}
    for i in range(2 * n):
        write_png(folder / "images" / f"{i}.png", 640, 480, noise)
        if i >= n:
            captions.append(f"the old stone house of number {i} near a river\t{i}.png\n")
            continue
        talk.append({"id": str(i), "image": f"{i}.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat is to be seen in this picture? Say all of it."},
            {"from": "gpt", "value": answer}]})
        if i % 2:
            joined["images"].append({"id": i, "file_name": f"{i}.png"})
            joined["annotations"].append({"id": i, "image_id": i, "caption": f"a red car, number {i}"})
    (folder / "train.json").write_text(json.dumps(talk))
    (folder / "captions.tsv").write_text("".join(captions))
    (folder / "joined.json").write_text(json.dumps(joined))


RUN = """# One of each kind of batch: conversations, captions, conversations with captions.
model: {path: model, weights: bf16}
summary: {tokens: 16}
lora: {r: 16, alpha: 32, dropout: 0.05}
data:
  conversations: [{path: data/train.json, images: data/images}]
  captions: [{path: data/captions.tsv, images: data/images}]
  conversation_captions: [{path: data/joined.json}]
sampler: {conversation_batch: 1, contrastive_batch: 2}
train: {steps: 4, learning_rate: 2.0e-4, precision: bf16}
run: {dir: run, save_every: 0}
"""


def main():
    options = argparse.ArgumentParser()
    options.add_argument("out", type=Path)
    options.add_argument("--tokenizer", type=Path)
    options.add_argument("--divide", type=int, default=1, choices=(1, 2, 4, 8, 16, 32))
    options.add_argument("--layers", type=int, help="of the language model, whatever --divide says")
    options.add_argument("--samples", type=int, default=4)
    o = options.parse_args()
    model, shape = o.out / "model", sizes(o.divide)
    if o.layers:
        shape["layers"] = o.layers
    model.mkdir(parents=True, exist_ok=True)
    write_config(model, shape)
    if o.tokenizer:
        shutil.copyfile(o.tokenizer, model / "tokenizer.model")
    else:
        write_tokenizer(model / "tokenizer.model")
    write_data(o.out / "data", o.samples)
    (o.out / "run.yaml").write_text(RUN)
    block = bf16(np.random.default_rng(1).standard_normal(BLOCK, np.float32) * np.float32(0.02))
    total = write_shards(model, tensors(shape), block)
    print(f"{o.out}: {total:,} bytes of weights; f2b-train --config {o.out}/run.yaml")


if __name__ == "__main__":
    main()
