"""The folder that scripts/bench/shape_7b.py writes: the original's tensors and bytes, and a small one of
the same kind that trains."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ["F2B_BUILD_DIR"]) / "bin"
sys.path.insert(0, str(ROOT / "scripts" / "bench"))
import shape_7b  # noqa: E402


def test_sizes_of_the_original():
    every = list(shape_7b.tensors(shape_7b.sizes(1)))
    bytes_ = 0
    for _, shape in every:
        n = 2
        for side in shape:
            n *= side
        bytes_ += n
    assert len(every) == 686
    assert bytes_ == 14_126_854_144         # total_size of llava-hf/llava-1.5-7b-hf


def test_a_small_one_trains(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts/bench/shape_7b.py", tmp_path, "--divide", "32"],
                   check=True, capture_output=True)
    assert sorted(p.name for p in (tmp_path / "model").glob("*.safetensors")) == \
        ["model-00001-of-00001.safetensors"]
    done = subprocess.run([BIN / "f2b-train", "--config", tmp_path / "run.yaml", "--threads", "2"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {r["kind"] for r in rows} == {"conversation", "both"}
    assert "| images " in done.stderr       # progress within the first step
