#!/usr/bin/env bash
# What every program keeps to: help and version on stdout with exit 0, errors on stderr with the exit
# code of their kind.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${F2B_BUILD_DIR:-build/debug}/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# run CODE OUT ERR PROGRAM...: exit code, and texts that stdout and stderr contain ('' = is empty).
run() {
    local code=$1 out=$2 err=$3 got
    shift 3
    "$bin/$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    local why=""
    [ $got = "$code" ] || why="exit $got instead of $code"
    contains "$work/out" "$out" || why="$why; stdout"
    contains "$work/err" "$err" || why="$why; stderr"
    [ -z "$why" ] && return
    failures=$((failures + 1))
    echo "FAILED: $*: $why"
    sed 's/^/  out: /' "$work/out" | head -n 5
    sed 's/^/  err: /' "$work/err" | head -n 5
}
contains() { if [ -z "$2" ]; then [ ! -s "$1" ]; else grep -qF -- "$2" "$1"; fi; }

for program in "$bin"/f2b-*; do
    name=$(basename "$program")
    run 0 "usage: $name" '' "$name" --help
    run 0 'devices: cpu' '' "$name" --version
    run 0 'commit ' '' "$name" --version
    run 2 '' "$name: unknown" "$name" --no-such-thing
done

run 2 '' 'f2b-data: which subcommand?' f2b-data
run 2 '' 'did you mean tokenize?' f2b-data tokenise
run 0 'usage: f2b-data tokenize' '' f2b-data tokenize --help
run 2 '' 'f2b-data tokenize: --device is auto, cpu, cuda or cuda:N' f2b-data tokenize --model x --device tpu
run 4 '' 'f2b-data tokenize: --device cuda:999' f2b-data tokenize --model x --device cuda:999
run 3 '' 'f2b-data tokenize: ' f2b-data tokenize --model "$work/none"

F2B_CPU_PRODUCTS=sse run 2 '' 'F2B_CPU_PRODUCTS: "sse" is no way' f2b-data tokenize --model x
run 2 '' '--config FILE is missing' f2b-train
run 2 '' "$work/none.yaml" f2b-train --config "$work/none.yaml"
run 0 '# Configuration' '' f2b-train --help-config
printf 'model: {path: m}\nrun: {dir: r}\ntrain: {sede: 1}\n' >"$work/bad.yaml"
run 2 '' "f2b-train: $work/bad.yaml:3: unknown key train.sede; did you mean train.seed?" \
    f2b-train --config "$work/bad.yaml"
run 2 '' 'override "lora.r=0": lora.r is from 1 to 65536, not 0' \
    f2b-train --config configs/lora_k16.yaml lora.r=0
run 2 '' 'reads KEY=VALUE' f2b-train --config configs/lora_k16.yaml configs/lora_k4.yaml

# Results that cannot be written are a failure, not silence.
if [ -w /dev/full ]; then
    "$bin/f2b-train" --help-config >/dev/full 2>"$work/err"
    [ $? = 3 ] && contains "$work/err" 'standard output' || {
        failures=$((failures + 1))
        echo "FAILED: a full disk under stdout goes unnoticed"
    }
fi
[ $failures = 0 ] && echo "all programs keep to it"
exit $((failures > 0))
