#!/usr/bin/env python3
"""Writes tests/golden/step: small random LLaVA models, batches, and the losses and gradients of one
training step in f64. Run with .venv/bin/python; tests/oracle/test_oracle.py keeps it honest."""
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from oracle.make_case import CASES, write_case  # noqa: E402

out = ROOT / "tests" / "golden" / "step"
shutil.rmtree(out, ignore_errors=True)
for name, case in CASES.items():
    if case["committed"]:
        print(write_case(out, name).relative_to(ROOT))
