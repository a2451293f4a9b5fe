#!/bin/sh
# run_pytest.sh FILE [pytest options]: runs one test file with the oracles' Python; 77 (skipped)
# where they are missing, or where every test of the file skipped itself.
cd "$(dirname "$0")/../.." || exit 1
python=.venv/bin/python
if ! "$python" -c 'import pytest, torch, transformers, peft, safetensors' 2>/dev/null; then
    echo "skipped: the Python oracles are not installed (scripts/setup.sh brings them)"
    exit 77
fi
export PYTHONPATH="$PWD/tests" PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
exec "$python" -m pytest -q -rs -p no:cacheprovider "$@"
