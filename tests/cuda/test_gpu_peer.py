"""gpu_step and its peer in PyTorch (scripts/gpu/peer_step.py) do the same step: as many rows and labels, and
a loss near ln(vocabulary) from drawn weights; here on the processor."""
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = Path(os.environ["F2B_BUILD_DIR"])
VOCABULARY_LOSS = 2.5                   # a drawn model's loss is within this of ln(vocabulary)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    subprocess.run([TESTS / "tests/tiny_world", folder], check=True)
    return folder


def output(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind, precision", [("conversation", "bf16"), ("caption", "f32"), ("both", "f32")])
def test_same_step(world, kind, precision):
    model = ["--model", world / "model", "--device", "cpu", "--kind", kind, "--batch", "3", "--steps", "2",
             "--prompt", "9", "--talk", "20", "--labelled", "7", "--caption", "6"]
    ours = output([TESTS / "emulated/tests/gpu_step", *model, "--quiet", "lora.r=4", "summary.tokens=4",
                   f"train.precision={precision}"])
    peer = output([sys.executable, ROOT / "scripts/gpu/peer_step.py", *model, "--rank", "4", "--tokens", "4",
                   "--attention", "eager", "--precision", precision]
                  + (["--checkpointing"] if precision == "bf16" else []))
    for key in ("kind", "batch", "rows_image", "rows_caption", "rows_conversation"):
        assert ours[key] == peer[key]
    vocabulary = json.loads((world / "model/config.json").read_text())["text_config"]["vocab_size"]
    if kind == "conversation":
        assert abs(ours["loss_ar"] - math.log(vocabulary)) < VOCABULARY_LOSS
        assert abs(peer["loss"] - math.log(vocabulary)) < VOCABULARY_LOSS
    assert ours["best_seconds"] > 0 and peer["best_seconds"] > 0
    assert ours["sample_tflop"] > 0 and ours["peak_bytes"] > 0


def test_no_such_setting(world):
    done = subprocess.run([TESTS / "emulated/tests/gpu_step", "--model", world / "model", "--device", "cpu",
                           "train.nothing=1"], capture_output=True, text=True)
    assert done.returncode == 2 and "train.nothing" in done.stderr
