"""The program's training step against the oracle: loss and every gradient of every case within
1e-4, through the test program step_dump (MODEL_DIR CONFIG.yaml BATCH.json OUT.safetensors)."""
import os
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from oracle.compare import compare
from oracle.make_case import CASES, write_case

STEP_DUMP = Path(os.environ.get("F2B_BUILD_DIR", "build/release")) / "tests" / "step_dump"

pytestmark = pytest.mark.skipif(not STEP_DUMP.exists(), reason=f"{STEP_DUMP} is not built")


@pytest.mark.parametrize("name", CASES)
def test_step(tmp_path, name):
    folder = write_case(tmp_path, name)
    model, out = tmp_path / "models" / CASES[name]["model"], tmp_path / "out.safetensors"
    done = subprocess.run([STEP_DUMP, model, folder / "config.yaml", folder / "batch.json", out],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    errors = compare(load_file(out), load_file(folder / "expected.safetensors"))
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-4, f"{worst}: {errors[worst]}"
