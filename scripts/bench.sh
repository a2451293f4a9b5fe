#!/usr/bin/env bash
# bench.sh [options of scripts/bench/step.py]: builds, then times a training step of the mini model
# against PyTorch in one run (scripts/setup.sh brings it; PEER_PYTHON=... names the python of a newer
# one beside it). Nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
cmake --preset release >/dev/null
cmake --build --preset release --target mini_step
HF_HUB_OFFLINE=1 .venv/bin/python scripts/bench/step.py build/release "$@"
cmake --build --preset release --target image_bench checkpoint_bench
.venv/bin/python scripts/bench/images.py build/release
.venv/bin/python scripts/bench/checkpoint.py build/release
