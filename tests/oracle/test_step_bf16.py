"""The program's step in bf16 against the oracle in f64: loss and every gradient are off by what
rounding explains, and by no more than PyTorch's own bf16 step (transformers, peft, autocast; frozen
weights in bf16, trained ones in f32) on the same weights and batch.

What rounding explains: with u = 2^-8, bf16's unit roundoff, and n roundings on the way of a gradient,
independent of each other, u sqrt(n). A layer rounds ten results (two norms, projections, rotation,
attention, its output, two sums, the gated product and its factors), once forward and once backward;
n counts them over the layers that a sample's gradient passes."""
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from oracle.compare import compare
from oracle.folder import read_config
from oracle.hf_step import run_hf_step
from oracle.make_case import CASES, write_case
from oracle.settings import read_settings
from oracle.step import read_batch, write_result

STEP_DUMP = Path(os.environ.get("F2B_BUILD_DIR", "build/release")) / "tests" / "step_dump"
ROUNDOFF, A_LAYER = 2.0 ** -8, 2 * 10
# Multiples of u sqrt(n): of a case's tensors (root mean square), of its worst tensor.
ALL, WORST = 3, 8
PLAIN = [name for name, case in CASES.items() if case["settings"]["lora"]["dropout"] == 0]

pytestmark = pytest.mark.skipif(not STEP_DUMP.exists(), reason=f"{STEP_DUMP} is not built")
ratios = {}


def roundings(case, config):
    """On the longest way of a gradient: the language model's layers once a pass, the tower's where it
    has something trained."""
    method, trainable = case["settings"]["method"], case["settings"]["trainable"]
    forward, layers = method.get("forward", "double"), config.language.num_hidden_layers
    two_passes = (forward == "double" and case["kind"] != "caption"
                  and method.get("loss") != "contrastive")
    tower = trainable.get("vision_tower") or (
        forward == "single" and trainable.get("language_model", "lora") == "lora")
    depth = config.feature_layer % (config.vision.num_hidden_layers + 1)
    return A_LAYER * (layers * (2 if two_passes else 1) + (depth if tower else 0))


def size(errors):
    """Root mean square over the gradients; a loss may be right by luck."""
    values = [error for name, error in errors.items() if not name.startswith("loss_")]
    return math.sqrt(sum(v * v for v in values) / len(values))


def ours(folder, model):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["train"]["precision"] = "bf16"
    (folder / "bf16.yaml").write_text(yaml.safe_dump(config))
    out = folder / "bf16.safetensors"
    done = subprocess.run([STEP_DUMP, model, folder / "bf16.yaml", folder / "batch.json", out],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return load_file(out)


def theirs(folder, model):
    out = folder / "torch.safetensors"
    write_result(run_hf_step(model, read_settings(folder / "config.yaml"),
                             read_batch(folder / "batch.json"), torch.bfloat16), out)
    return load_file(out)


@pytest.mark.parametrize("name", PLAIN)
def test_step(tmp_path, name):
    folder = write_case(tmp_path, name)
    model = tmp_path / "models" / CASES[name]["model"]
    expected = load_file(folder / "expected.safetensors")
    mine, other = (compare(run(folder, model), expected) for run in (ours, theirs))
    unit = ROUNDOFF * math.sqrt(roundings(CASES[name], read_config(model)))
    worst = max(mine, key=mine.get)
    print(f"{name}: {size(mine) / unit:.2f}, PyTorch {size(other) / unit:.2f}; worst "
          f"{mine[worst] / unit:.2f} ({worst}), PyTorch {max(other.values()) / unit:.2f}")
    assert size(mine) < ALL * unit
    assert mine[worst] < WORST * unit, worst
    assert size(mine) > 0.01 * unit, "this was not bf16"
    assert size(mine) < 1.5 * size(other)
    # One tensor's errors are one draw each of two roundings.
    for tensor, error in mine.items():
        assert error < 3 * max(other[tensor], size(other)), tensor
    ratios[name] = size(mine) / size(other)


def test_all_together():
    """One case may be unlucky, all of them may not."""
    if len(ratios) < len(PLAIN):
        pytest.skip("not all cases ran")
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    print(f"our errors are {mean:.2f} of PyTorch's, {min(ratios.values()):.2f} to "
          f"{max(ratios.values()):.2f}")
    assert mean < 1.1
