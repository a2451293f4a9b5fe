"""A llama2.c checkpoint and its tokenizer as a Hugging Face Llama folder.

    python -m oracle.llama2c CHECKPOINT.bin TOKENIZER.bin OUT

llama2.c rotates neighbouring elements of a head, transformers its two halves: the rows of q and k
are put into the other order. Its output matrix is the embedding where the vocabulary size in the
header is positive.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6     # types of pieces in sentencepiece_model.proto


def half_split(weight, heads):
    """Rows (2i, 2i + 1) of each head become rows (i, i + head size / 2)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.transpose(0, 2, 1, 3).reshape(rows, columns))


def read_checkpoint(path):
    """(config.json as a dict, tensors by their Hugging Face names)."""
    data = Path(path).read_bytes()
    d, ff, layers, heads, kv_heads, vocab, context = struct.unpack_from("<7i", data)
    values, at = np.frombuffer(data, "<f4", offset=28), 0
    kv = d // heads * kv_heads

    def take(*shape):
        nonlocal at
        n = int(np.prod(shape))
        at += n
        return values[at - n:at].reshape(shape)

    tied, vocab = vocab > 0, abs(vocab)
    tensors = {"model.embed_tokens.weight": take(vocab, d)}
    for name, *shape in (("input_layernorm", d), ("self_attn.q_proj", d, d),
                         ("self_attn.k_proj", kv, d), ("self_attn.v_proj", kv, d),
                         ("self_attn.o_proj", d, d), ("post_attention_layernorm", d),
                         ("mlp.gate_proj", ff, d), ("mlp.down_proj", d, ff),
                         ("mlp.up_proj", ff, d)):
        for i, weight in enumerate(take(layers, *shape)):
            if name in ("self_attn.q_proj", "self_attn.k_proj"):
                weight = half_split(weight, heads if name.endswith("q_proj") else kv_heads)
            tensors[f"model.layers.{i}.{name}.weight"] = np.array(weight)
    tensors["model.norm.weight"] = take(d)
    take(2, context, d // heads // 2)               # the rotary tables
    if not tied:
        tensors["lm_head.weight"] = take(vocab, d)
    assert at == len(values), f"{path}: {len(values)} numbers where the header has {at}"
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d,
              "intermediate_size": ff, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": vocab, "rms_norm_eps": 1e-5,
              "max_position_embeddings": context, "tie_word_embeddings": tied,
              "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
    return config, tensors


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def message(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def number(field, n):
    return varint(field << 3) + varint(n)


def write_tokenizer(source, vocab, target):
    """tokenizer.model, a ModelProto, from llama2.c's list of scores and texts."""
    data, at, out = Path(source).read_bytes(), 4, b""
    for i in range(vocab):
        score, n = struct.unpack_from("<fi", data, at)
        text = data[at + 8:at + 8 + n].decode()
        at += 8 + n
        kind = UNKNOWN if i == 0 else CONTROL if i < 3 else BYTE if i < 259 else NORMAL
        text = ("<unk>", "<s>", "</s>")[i] if i < 3 else text.replace(" ", "\u2581")
        out += message(1, message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
                       + number(3, kind))
    assert at == len(data)
    trainer = (number(3, 2) + number(4, vocab) + number(35, 1) + number(40, 0) + number(41, 1)
               + number(42, 2))
    normaliser = message(1, b"identity") + number(3, 1) + number(4, 0) + number(5, 1)
    Path(target).write_bytes(out + message(2, trainer) + message(3, normaliser))


def convert(checkpoint, tokenizer, out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    config, tensors = read_checkpoint(checkpoint)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(tokenizer, config["vocab_size"], out / "tokenizer.model")
    return out


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    convert(*sys.argv[1:])
