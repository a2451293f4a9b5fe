#!/usr/bin/env bash
# bench.sh: builds, measures, and writes the figures into docs/benchmarks.md, each section between its
# marks: a training step beside PyTorch's, sequences and layers that grow, start to first step, the memory
# plan, pictures, tokenizer, checkpoint, a large JSON. Nothing else should run meanwhile; what did is said.
#
#   scripts/bench.sh                     everything: about half an hour on two quiet cores
#   scripts/bench.sh --only step,images  some sections (--list names them)
#   scripts/bench.sh --out FILE          another page, which is begun if it is not there
#   scripts/bench.sh --newest-peer       beside Debian's PyTorch the newest one: pip installs it with
#                                        transformers, peft and sentencepiece into build/newest-peer, once
#                                        (6 GB); an environment that you have: PEER_PYTHON=.../bin/python
#   --rounds N, --threads N              instead of each bench's own rounds, of all processors
#   --quick                              tiny sizes, to see that it works; say --out with it
#   --build DIR                          programs that are built already (nothing is set up or built)
#
# A single bench: .venv/bin/python scripts/bench/step.py build/release --precision bf16
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."

build=
peer=
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --newest-peer) peer=build/newest-peer ;;
        --build) build=$(cd "$here" && realpath -m "${2:?--build needs a folder}"); shift ;;
        --out) arguments+=(--out "$(cd "$here" && realpath -m "${2:?--out needs a file}")"); shift ;;
        --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

page() { HF_HUB_OFFLINE=1 "$python" scripts/bench/page.py --build "${build:-build/release}" "${arguments[@]}" "$@"; }

python=python3
if [[ " ${arguments[*]-} " == *" --list "* ]]; then page; exit; fi
[ -n "$build" ] || scripts/setup.sh
if .venv/bin/python -c '' 2>/dev/null; then python=.venv/bin/python; fi
if [ -z "$build" ]; then
    targets=$(page --targets | sort -u)
    cmake --preset release >/dev/null
    # shellcheck disable=SC2086
    cmake --build --preset release --target $targets
fi
if [ -n "$peer" ]; then
    if ! $peer/bin/python -c 'import torch, transformers, peft, sentencepiece' 2>/dev/null; then
        python3 -m venv $peer
        $peer/bin/python -m pip install --quiet torch transformers peft sentencepiece
    fi
    export PEER_PYTHON=$PWD/$peer/bin/python
fi
page
