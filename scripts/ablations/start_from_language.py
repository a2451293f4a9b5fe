#!/usr/bin/env python3
"""start_from_language.py LANGUAGE TOWER OUT: the folder that Table 13's first row starts from.

Its language model comes from the model folder LANGUAGE, its vision tower from TOWER, and it has no
projector: f2b-train draws a new one. Standard library only.
"""
import json
import os
import shutil
import struct
import sys


def read(folder):
    """(name -> header entry, bytes of all tensors) of a folder's model.safetensors."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    return header, data


def main(language, tower, out):
    tensors = []
    for folder, part in ((language, "language_model."), (tower, "vision_tower.")):
        header, data = read(folder)
        for name, entry in header.items():
            if part in name:
                begin, end = entry["data_offsets"]
                tensors.append((name, entry, data[begin:end]))
    header, at = {}, 0
    for name, entry, data in tensors:
        header[name] = {"dtype": entry["dtype"], "shape": entry["shape"],
                        "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(out, exist_ok=True)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(os.path.join(language, name), out)
    path = os.path.join(out, "model.safetensors")
    with open(path + ".partial", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors))
    os.replace(path + ".partial", path)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
