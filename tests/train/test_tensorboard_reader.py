"""The real tensorboard package reads what we write, and drops what a resumed run made void."""
import os
import pathlib
import subprocess

import pytest

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release"))
PROGRAM = BUILD / "tests/test_tensorboard"


def test_resumed_run(tmp_path):
    subprocess.run([PROGRAM], check=True, env=os.environ | {"F2B_TENSORBOARD_OUT": str(tmp_path)})
    assert len(list(tmp_path.iterdir())) == 2
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert "train/loss" in events.Tags()["scalars"]
    assert "train/loss_disc" not in events.Tags()["scalars"]
    # Steps 1 to 8, stopped, on from the checkpoint of step 5 with other values.
    steps = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert steps == [(step, step + (0.5 if step > 5 else 0.0)) for step in range(1, 11)]
