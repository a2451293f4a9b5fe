#!/usr/bin/env python3
"""Makes tests/core/golden_nf4.inc: bitsandbytes' own nf4 (double quantisation) of drawn matrices.

    python3 scripts/golden/nf4.py > tests/core/golden_nf4.inc        (torch, bitsandbytes)

The matrices are drawn by a formula of integers that tests/core/test_quant.c repeats.
"""
import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import torch

CASES = [(1, 1), (3, 64), (5, 130), (7, 96), (300, 128)]


def draw(rows, cols):
    """Multiples of 2^-10, bell-shaped, with rows of different size; the second row is zero."""
    i = np.arange(rows * cols, dtype=np.uint64)
    total = np.zeros(rows * cols, np.int64)
    for k in range(4):
        h = (i * np.uint64(2654435761) + np.uint64(k * 40503)) % np.uint64(2**32)
        h = (h ^ (h >> np.uint64(15))) * np.uint64(2246822519) % np.uint64(2**32)
        total += (h >> np.uint64(22)).astype(np.int64) - 512
    x = (total.astype(np.float32) / 1024).reshape(rows, cols)
    x *= (1 + np.arange(rows, dtype=np.float32)[:, None] % 7) / 4
    if rows > 1:
        x[1] = 0
    return torch.from_numpy(x)


def decode(packed, state, n):
    """The values by their definition. dequantize_4bit's CPU kernel (0.50.2) counts blocks row by row, so
    that it gives others than quantize_4bit meant where 64 does not divide the columns."""
    absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
    book = F.get_4bit_type("nf4", device="cpu")
    codes = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)[:n].long()
    return book[codes] * absmax[torch.arange(n) // 64]


def exact_magnitudes(x, state):
    """The magnitudes' codes by their definition, the nearest value of the book; where quantize_blockwise's
    CPU kernel (0.50.2) takes the second nearest, which it does once in some hundred, it is put right."""
    off = torch.nn.functional.pad(x.reshape(-1), (0, -x.numel() % 64)).reshape(-1, 64).abs().amax(1)
    off = off - state.offset
    book, group = state.state2.code, state.state2.absmax
    place = off / group.clamp(min=1e-38)[torch.arange(off.numel()) // 256]
    codes = torch.bucketize(place, (book[:-1] + book[1:]) / 2).to(torch.uint8)
    assert int((codes.int() - state.absmax.int()).abs().max()) <= (1 if float(group[0]) else 255)
    return codes


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 % 2**64
    return h


def main():
    print("/* Made by scripts/golden/nf4.py with bitsandbytes %s, torch %s. */"
          % (bitsandbytes.__version__, torch.__version__))
    for rows, cols in CASES:
        x = draw(rows, cols)
        packed, state = F.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=True)
        if x.numel() > 64:
            state.absmax = exact_magnitudes(x, state)
        back = decode(packed.reshape(-1), state, rows * cols)
        codes = packed.reshape(-1).numpy().tobytes()
        some = back[:: max(1, back.numel() // 40)][:40]
        print("{ %d, %d, UINT64_C(0x%016x), UINT64_C(0x%016x), %s, %s,\n  %d, {" % (
            rows, cols, fnv(codes), fnv(state.absmax.numpy().tobytes()),
            float(state.offset).hex(), float(state.state2.absmax[0]).hex(), max(1, back.numel() // 40)))
        print("    " + ",\n    ".join(float(v).hex() for v in some) + " } },")


if __name__ == "__main__":
    main()
