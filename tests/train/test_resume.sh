#!/usr/bin/env bash
# A run that is killed (kill -9) at random moments, also while it saves, and resumed each time ends with
# the bits of one that was never stopped; so does one with other threads, workers and checkpointing.
# KILLS=200 is the long form; SEED chooses the moments.
. "$(dirname "$0")/tiny_runs.sh"
kills=${KILLS:-10}
RANDOM=${SEED:-1}

# One run a value of save_every that was never stopped: what the others are compared with.
settings="run.eval_every=4 run.keep=2"
for every in 1 3; do
    start=$(date +%s%3N)
    train --quiet run.save_every=$every $settings
    milliseconds=$(($(date +%s%3N) - start))
    expect 0 '' "the reference, save_every $every"
    mv "$work/run" "$work/ref-$every"
done
[ $failures = 0 ] || finish
[ "$(grep -o '"kind": "[a-z]*"' "$work/ref-1/metrics.jsonl" | sort -u | wc -l)" = 3 ] ||
    fail "the tiny run has not all three kinds of batch"

# The same bits whatever does not belong to the run; the same file where nothing is changed.
vary() {
    train --quiet $settings run.save_every=3 "$@"
    expect 0 '' "$*" && { same "$work/run" "$work/ref-3" || fail "$*: other bits"; }
    mv "$work/run" "$work/other"
}
vary --threads 1
cmp "$work"/{other,ref-3}/checkpoints/step-00000016/state.h5 || fail "the same run, another file"
rm -rf "$work/other"
vary --threads 2 data.workers=0 train.activation_checkpointing=layer
rm -rf "$work/other"
vary --threads 3 data.workers=3 train.activation_checkpointing=none
rm -rf "$work/other"
vary --threads 1 data.workers=1 train.activation_checkpointing=layer
rm -rf "$work/other"

# The last save, killed after its checkpoint was in place: a resume does the rest.
cp -r "$work/ref-3" "$work/run"
mkdir "$work/run/checkpoints/step-00000012.partial"
echo checkpoints/step-00000015 >"$work/run/latest"
train --quiet run.save_every=3 $settings
[ "$(cat "$work/run/latest")" = checkpoints/step-00000016 ] || fail 'a cut last save: latest is old'
[ -e "$work/run/checkpoints/step-00000012.partial" ] && fail 'a cut last save: leftovers stay'
rm -rf "$work/run"

# Going on with other instructions for bf16 is told, if this processor has more than one way.
if grep -qw avx512_bf16 /proc/cpuinfo 2>/dev/null; then
    bf16="train.precision=bf16 train.steps=2"
    F2B_CPU_PRODUCTS=f32 train $bf16 run.dir="$work/bf16"
    expect 0 step 'bf16 by f32 products'
    train $bf16 run.dir="$work/other" --resume "$work/bf16"
    expect 0 'computed products of bf16 by f32, from here on by avx512_bf16' 'other products'
    F2B_CPU_PRODUCTS=f32 train $bf16 run.dir="$work/third" --resume "$work/bf16"
    expect 0 'resumed from' 'the same products'
    grep -q warning "$work/err" && fail 'the same products: a warning'
    rm -rf "$work"/{bf16,other,third}
fi

# Start or go on with the run; kill it at a random moment, or (every second time) in a save.
interrupted() {
    "$bin/f2b-train" --config "$work/run.yaml" --resume auto --quiet run.save_every=$1 \
        $settings >"$work/out" 2>"$work/err" </dev/null &
    local pid=$! moment=$((RANDOM % (milliseconds / 2 + 1)))
    sleep "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))"
    if [ $((RANDOM % 2)) = 0 ]; then
        while kill -0 $pid 2>/dev/null && ! compgen -G "$work/run/checkpoints/*.partial" >/dev/null; do
            :
        done
        compgen -G "$work/run/checkpoints/*.partial" >/dev/null && in_save=$((in_save + 1))
    fi
    kill -9 $pid 2>/dev/null
    { wait $pid; } 2>/dev/null
    code=$?
    [ $code = 137 ] && killed=$((killed + 1))
}

killed=0 in_save=0 runs=0 sessions=0
while [ $killed -lt "$kills" ]; do
    every=$((1 + 2 * (runs % 2))) code=137
    runs=$((runs + 1))
    while [ $code = 137 ]; do
        sessions=$((sessions + 1))
        if [ $killed -lt "$kills" ]; then
            interrupted $every
        else
            train --resume auto --quiet run.save_every=$every $settings
        fi
    done
    expect 0 '' "a killed run, resumed" || break
    same "$work/run" "$work/ref-$every" || { fail "run $runs: other bits after kills"; break; }
    compgen -G "$work/run/checkpoints/*.partial" >/dev/null && fail "run $runs: leftovers stay"
    [ "$(cat "$work/run/latest")" = checkpoints/step-00000016 ] || fail "run $runs: latest is old"
    rm -rf "$work/run"
done
echo "$killed kills ($in_save seen in a save), $sessions sessions, $runs runs: compared to the bit"
finish
