#!/usr/bin/env python3
"""Which 8-bit float a gradient is best made: error of dy W [256, 4096] [4096, 512] with dy quantised by
row, for docs/benchmarks.md.

    python3 scripts/bench/fp8_formats.py        (torch 2.1 or newer)
"""
import torch

torch.manual_seed(0)
ROWS, K, N = 256, 4096, 512
FORMATS = {"e4m3": (torch.float8_e4m3fn, 448), "e5m2": (torch.float8_e5m2, 57344)}


def quantised(x, name):
    dtype, top = FORMATS[name]
    scale = x.abs().amax(1, keepdim=True) / top
    return (x / scale).clamp(-top, top).to(dtype).double() * scale


def with_outlier(size):
    x = torch.randn(ROWS, K)
    x[:, 0] = size
    return x


w = torch.randn(K, N).double() * 0.02
w8 = quantised(w.t(), "e4m3").t()
for what, dy in {
        "normal": torch.randn(ROWS, K),
        "Student's t, 3 degrees": torch.distributions.StudentT(3.0).sample((ROWS, K)),
        "normal times e^(2 normal)": torch.randn(ROWS, K) * torch.exp(2 * torch.randn(ROWS, K)),
        "normal, one 1,000 in a row": with_outlier(1e3),
        "normal, one 100,000 in a row": with_outlier(1e5)}.items():
    want = dy.double() @ w
    off = [((quantised(dy, f) @ m - want).norm() / want.norm()).item()
           for f, m in (("e4m3", w), ("e5m2", w), ("e4m3", w8))]
    print(f"| {what} | " + " | ".join(f"{e:.4f}" for e in off) + " |")
