"""The program's training step against the oracle: loss and every gradient of every case within
1e-4, through the test program step_dump (MODEL_DIR CONFIG.yaml BATCH.json OUT.safetensors [ROWS]
[MASKS]), with micro-batches of one sample, of several and of all, and with layers computed again.
Where there is dropout, the oracle is given the masks that the program drew."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from oracle.compare import compare
from oracle.make_case import CASES, write_case

STEP_DUMP = Path(os.environ.get("F2B_BUILD_DIR", "build/release")) / "tests" / "step_dump"
ALL = 2 ** 40
# Rows of a micro-batch: every sample alone; about three micro-batches of the four samples; all.
ROWS = {"each": 1, "some": 60, "all": ALL}

pytestmark = pytest.mark.skipif(not STEP_DUMP.exists(), reason=f"{STEP_DUMP} is not built")


def run(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def check(out, expected):
    errors = compare(load_file(out), load_file(expected))
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-4, f"{worst}: {errors[worst]}"


def with_masks(folder, masks):
    """The same case with other masks; returns its expected results."""
    batch = json.loads((folder / "batch.json").read_text())
    batch["masks"] = masks.name
    (folder / "batch.json").write_text(json.dumps(batch))
    model = yaml.safe_load((folder / "config.yaml").read_text())["model"]["path"]
    run(sys.executable, "-m", "oracle.step", folder / model, folder / "config.yaml",
        folder / "batch.json", folder / "again.safetensors")
    return folder / "again.safetensors"


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", CASES)
def test_step(tmp_path, name, rows):
    folder = write_case(tmp_path, name)
    model, out = tmp_path / "models" / CASES[name]["model"], tmp_path / "out.safetensors"
    masks = folder / "drawn.safetensors"
    run(STEP_DUMP, model, folder / "config.yaml", folder / "batch.json", out, ROWS[rows], masks)
    expected = folder / "expected.safetensors"
    if CASES[name]["settings"]["lora"]["dropout"] > 0:
        expected = with_masks(folder, masks)
    check(out, expected)


@pytest.mark.parametrize("name", ["gqa_both", "gqa_both_dropout", "f16_both_tower",
                                  "f16_single_both_dropout"])
def test_checkpointed_layers_change_no_bit(tmp_path, name):
    folder = write_case(tmp_path, name)
    model, results = tmp_path / "models" / CASES[name]["model"], []
    for how in "none", "layer":
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["train"]["activation_checkpointing"] = how
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        out = tmp_path / f"{how}.safetensors"
        run(STEP_DUMP, model, folder / "config.yaml", folder / "batch.json", out)
        results.append(out.read_bytes())
    assert results[0] == results[1]
