#!/usr/bin/env python3
"""Writes tests/golden/llama: tiny text-only Llama folders and what transformers makes of a text:
logits and mean negative log-likelihood a token. Run with .venv/bin/python."""
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from oracle.llama_text import LLAMAS, write_golden  # noqa: E402

out = ROOT / "tests" / "golden" / "llama"
shutil.rmtree(out, ignore_errors=True)
for name in LLAMAS:
    print(write_golden(out, name).relative_to(ROOT))
