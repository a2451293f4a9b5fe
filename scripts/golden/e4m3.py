#!/usr/bin/env python3
"""Makes tests/core/golden_e4m3.inc: torch's float8_e4m3fn, for autograd/core/e4m3.h.

    python3 scripts/golden/e4m3.py > tests/core/golden_e4m3.inc        (torch 2.1 or newer)

The value of each positive code, and the code of what lies at, just below and just above the middle
between two neighbours. torch makes NaN of what is beyond 448, so the last middle is left out.
"""
import numpy as np
import torch


def code_of(values):
    return torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()


def rows(cells, a_line):
    for i in range(0, len(cells), a_line):
        print("    " + ", ".join(cells[i:i + a_line]) + ",")


values = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32).numpy()
middle = (values[:-1] + values[1:]) / np.float32(2)
x = np.stack([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(1e9))], 1)
print(f"/* Made by scripts/golden/e4m3.py with torch {torch.__version__}. */")
print("static const float golden_values[127] = {")
rows([f"{float(v)!r}f" for v in values], 8)
print("};")
print("/* of the number below the middle of values i and i + 1, the middle, the number above */")
print("static const unsigned char golden_codes[126][3] = {")
rows(["{ " + ", ".join(str(c) for c in triple) + " }" for triple in code_of(x.reshape(-1)).reshape(-1, 3)], 6)
print("};")
