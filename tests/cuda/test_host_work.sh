#!/usr/bin/env bash
# What a run asks of a device, on an emulated one that does none of it: as much each step, with one wait.
. "$(dirname "$0")/../train/tiny_runs.sh"
program=$(realpath "${F2B_BUILD_DIR:-build/debug}")/emulated/bin/f2b-train

# asked WHAT: how many the last run asked for.
asked() { sed -nE "s/^emulated CUDA: .*\b([0-9]+) $1\b.*/\1/p" "$work/err"; }

for steps in 8 16 24; do                # all kinds of batch come in 8
    rm -rf "$work/run"
    F2B_EMULATED_WORK=none "$program" --config "$work/run.yaml" --device cuda:0 --quiet \
        train.steps=$steps run.save_every=0 lora.dropout=0 >"$work/out" 2>"$work/err" </dev/null
    code=$?
    expect 0 'emulated CUDA: ' "$steps steps" || finish
    waits[$steps]=$(asked waits) launches[$steps]=$(asked launches)
    [ "${launches[$steps]}" -gt $((steps * 100)) ] || fail "$steps steps: ${launches[$steps]} launches"
done
for steps in 16 24; do
    [ $((waits[steps] - waits[steps - 8])) = 8 ] ||
        fail "8 steps: $((waits[steps] - waits[steps - 8])) waits instead of one a step"
done
first=$((launches[16] - launches[8])) second=$((launches[24] - launches[16]))
[ $((second * 2)) -gt "$first" ] && [ $((first * 2)) -gt $second ] ||
    fail "8 steps: $first launches, then $second"
finish
