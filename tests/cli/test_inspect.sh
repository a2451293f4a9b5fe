#!/usr/bin/env bash
# f2b-inspect as a person runs it: reports, damage with exit 3, pictures, refusals with exit 2.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${F2B_BUILD_DIR:-build/debug}/bin/f2b-inspect
tools=${F2B_BUILD_DIR:-build/debug}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# run CODE OUT ERR ARGUMENT...: exit code, and texts that stdout and stderr contain ('' = is empty).
run() {
    local code=$1 out=$2 err=$3 got why=""
    shift 3
    "$bin" "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    [ $got = "$code" ] || why="exit $got instead of $code"
    contains "$work/out" "$out" || why="$why; stdout lacks $out"
    contains "$work/err" "$err" || why="$why; stderr lacks $err"
    [ -z "$why" ] && return
    failures=$((failures + 1))
    echo "FAILED: $*: $why"
    head -n 5 "$work/out" | sed 's/^/  out: /'
    head -n 5 "$work/err" | sed 's/^/  err: /'
}
contains() { if [ -z "$2" ]; then [ ! -s "$1" ]; else grep -qF -- "$2" "$1"; fi; }
fail() { failures=$((failures + 1)); echo "FAILED: $*"; }

"$tools/bin/f2b-data" toy --out "$work" --train 1 --val 1 --quiet >/dev/null || exit 1
method='{"tokens": 3, "prompt": "Summarize.", "template": "vicuna_v1", "attention": "causal",
"hidden_state": "final_norm", "forward": "double", "adapters": "stage", "temperature": 0.02,
"language_model": "lora", "image_aspect_ratio": "pad",
"lora": {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}}'
"$tools/tests/make_run" "$work/model" "$work/run" "$method" 5 || exit 1
state=$work/run/checkpoints/step-00000007/state.h5

# Reports.
run 0 'summary_tokens' '' "$work/run"
run 0 'ok      ' '' --verify "$work/run"
run 0 '"kind": "run"' '' --json "$work/run"
run 0 '"kind": "checkpoint"' '' --json "$work/run/checkpoints/step-00000007"
run 0 'has_weights          false' '' "$work/model"
run 0 '... and ' '' --limit 2 --norms "$work/run"
run 3 '' 'is not known' "$work/images"
run 3 '' "$work/none" "$work/none"

# Names in files move no cursor.
printf '{"a\\u001b[2J":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' >"$work/header"
{ printf '\x50\0\0\0\0\0\0\0'; printf '%-80s' "$(cat "$work/header")"; } >"$work/x.safetensors"
run 0 'a?[2J' '' "$work/x.safetensors"

# Norms of adapters.
run 0 'q_proj' '' --lora-norms "$work/run"
run 0 '"scale": 2.0' '' --lora-norms --json --svg "$work/norms.svg" "$work/run"
grep -q 'generation adapter' "$work/norms.svg" || fail "norms.svg"
run 3 '' 'holds no checkpoint' --lora-norms "$work/model"

# Losses of two runs over each other.
row() {
    printf '{"step": %d, "kind": "%s", "loss": 1, "loss_ar": %s, "loss_disc": %s, "lr": 0.1, ' "$@"
    printf '"grad_norm": 1, "samples": 1, "tokens": 1, "labelled_tokens": 1, "seconds": 1, '
    printf '"tokens_per_second": 1, "data_wait_seconds": 0, "peak_bytes": 1, "skipped": 0}\n'
}
for i in 1 3 5; do row $i conversation 0.$i null; row $((i + 1)) caption null 2.$i; done \
    >"$work/run/metrics.jsonl"
head -n 2 "$work/run/metrics.jsonl" >"$work/other.jsonl"
run 0 '' '' --plot "$work/plot.svg" "$work/run" "$work/other.jsonl"
for text in loss_ar loss_disc other.jsonl; do
    grep -q "$text" "$work/plot.svg" || fail "plot.svg lacks $text"
done
[ "$(grep -c 'class="series s[01]" d="M[^h]*"' "$work/plot.svg")" = 4 ] || fail "plot.svg's lines"
run 0 '' '' --plot "$work/plot.svg" --smooth 2 "$work/run"
grep -q 'class="series s0 faint"' "$work/plot.svg" || fail "plot.svg is not smoothed"
run 3 '' 'metrics.jsonl' --plot "$work/plot.svg" "$work/model"
printf 'nonsense\n{}\n' >"$work/bad.jsonl"
run 3 '' 'bad.jsonl:1' --plot "$work/plot.svg" "$work/bad.jsonl"

# What does not go together.
run 2 '' 'name one file or folder' --json
run 2 '' 'name one file or folder to inspect, not 2' a b
run 2 '' 'needs a run' --plot "$work/plot.svg"
run 2 '' '--plot does not take --verify' --plot "$work/plot.svg" --verify a
run 2 '' 'a report does not take --svg' --svg "$work/x.svg" "$work/run"
run 2 '' '--attention needs --image' --attention "$work/x.svg" --checkpoint "$work/run"
run 2 '' 'name the run with --checkpoint' --attention "$work/x.svg" --image i "$work/run"
run 3 '' "$work/none.png" --attention "$work/x.svg" --image "$work/none.png" \
    --checkpoint "$work/run"

# Damage.
printf 'x' | dd of="$state" bs=1 seek=3000 conv=notrunc status=none
run 3 'DAMAGED' 'state.h5 is damaged' "$work/run"
run 3 'DAMAGED' 'checks failed' --verify "$work/run"
run 3 '"ok": false' 'state.h5 is damaged' --verify --json "$work/run"
run 3 '' 'state.h5 is damaged' "$work/run/checkpoints/step-00000007"

[ $failures = 0 ] && echo "f2b-inspect keeps to it"
exit $((failures > 0))
