#!/usr/bin/env bash
# The programs on the emulated device: a training run has the host's loss curve; killed and resumed it has
# its own bits; a checkpoint goes on on the other device; what a trained model answers, compresses, finds and
# measures is what the host's programs say. And a machine without a device.
. "$(dirname "$0")/../train/tiny_runs.sh"
host=$bin
device=$(realpath "${F2B_BUILD_DIR:-build/debug}")/emulated/bin
steps=8

# on cpu|cuda:0 ARGUMENT...: a training run there.
on() {
    local where=$1
    shift
    bin=$host
    [ "$where" = cpu ] || bin=$device
    train --device "$where" --quiet train.steps=$steps run.save_every=2 "$@"
}

# near RUN RUN TOLERANCE WHAT: losses and norms of all steps.
near() {
    paste <(grep -o '"loss": [^,]*\|"grad_norm": [^,]*' "$work/$1/metrics.jsonl") \
        <(grep -o '"loss": [^,]*\|"grad_norm": [^,]*' "$work/$2/metrics.jsonl") |
        awk -v most="$3" -v want=$((2 * steps)) '
            { n++; d = $2 - $4; if (d < 0) d = -d; if (!(d <= most * ($4 < 0 ? -$4 : $4))) { print; bad = 1 } }
            END { exit bad || n != want }' || fail "$4: $1 and $2 differ"
}

# ---- A run on both ----
on cpu run.dir="$work/cpu" run.eval_every=4
expect 0 '' 'on the host' || finish
on cuda:0 run.dir="$work/cuda" run.eval_every=4
expect 0 '' 'on the device' || finish
[ "$(grep -o '"kind": "[a-z]*"' "$work/cuda/metrics.jsonl" | sort -u | wc -l)" = 3 ] ||
    fail 'the run has not all three kinds of batch'
near cuda cpu 1e-3 'f32'
cmp -s <(losses "$work/cuda") <(losses "$work/cpu") && fail 'the same bits: was it the device?'
for precision in "bf16 model.weights=bf16" "bf16 model.weights=nf4 train.activation_checkpointing=layer"; do
    on cpu run.dir="$work/cpu-low" train.precision=$precision
    expect 0 '' "$precision on the host"
    on cuda:0 run.dir="$work/cuda-low" train.precision=$precision
    expect 0 '' "$precision on the device"
    near cuda-low cpu-low 0.1 "$precision"
    rm -rf "$work"/*-low
done

# Shared images, and features kept between steps: the second run finds them.
shared="sampler.group_images=true train.micro_batch_tokens=1000"
on cpu run.dir="$work/cpu-shared" $shared
expect 0 '' 'shared images on the host'
for run in cold warm; do
    on cuda:0 run.dir="$work/cuda-$run" $shared data.feature_cache="$work/features"
    expect 0 '' "features on the device, $run"
    near "cuda-$run" cpu-shared 1e-3 "features, $run"
done
same "$work/cuda-cold" "$work/cuda-warm" || fail 'kept features: other bits'

# ---- Stopped and resumed ----
"$device/f2b-train" --config "$work/run.yaml" --device cuda:0 --quiet train.steps=$steps run.save_every=2 \
    run.dir="$work/killed" run.eval_every=4 >"$work/out" 2>"$work/err" </dev/null &
pid=$!
until [ -e "$work/killed/checkpoints/step-00000004" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.1; done
kill -9 $pid 2>/dev/null
{ wait $pid; } 2>/dev/null
[ $? = 137 ] || fail 'the run was over before it was killed'
on cuda:0 run.dir="$work/killed" run.eval_every=4
expect 0 '' 'resumed on the device'
same "$work/killed" "$work/cuda" || fail 'killed and resumed: other bits'

on cuda:0 run.dir="$work/to-cpu" --resume "$work/cpu/checkpoints/step-00000006" run.eval_every=4
expect 0 '' "the host's checkpoint on the device"
on cpu run.dir="$work/to-cuda" --resume "$work/cuda/checkpoints/step-00000006" run.eval_every=4
expect 0 '' "the device's checkpoint on the host"
for run in to-cpu to-cuda; do
    paste <(tail -n 2 "$work/cpu/metrics.jsonl" | grep -o '"loss": [^,]*') \
        <(grep -o '"loss": [^,]*' "$work/$run/metrics.jsonl") |
        awk '{ n++; d = $2 - $4; if (d < 0) d = -d; if (!(d <= 1e-3 * $2)) bad = 1 } END { exit bad || n != 2 }' ||
        fail "$run: other losses after the change of device"
done

# ---- 8-bit floats ----
fp8="train.precision=fp8 model.weights=bf16"
on cuda:0 run.dir="$work/fp8" $fp8
expect 0 '' 'fp8 on the device'
on cuda:0 run.dir="$work/fp8-again" $fp8 --resume "$work/fp8/checkpoints/step-00000006"
expect 0 '' 'fp8 resumed'
diff <(losses "$work/fp8" | tail -n 2) <(losses "$work/fp8-again") || fail 'fp8 resumed: other losses'
"$tools/state_compare" "$work/fp8" "$work/fp8-again" || fail 'fp8 resumed: other bits'
on cuda:0 run.dir="$work/fp8-other" train.precision=bf16 --resume "$work/fp8/checkpoints/step-00000006"
expect 2 'train.precision' 'fp8 resumed in bf16'
message 'fp8 resumed in bf16'

# ---- Use ----
image=$(ls "$work/images"/v*.png | head -n 1)
use() {                     # use PROGRAM ARGUMENT...: on both; what they print without times must be equal
    local program=$1
    shift
    "$host/f2b-$program" --device cpu --quiet --checkpoint "$work/cpu" "$@" </dev/null 2>"$work/err-cpu" |
        sed -E 's/"(seconds|images_per_second)": [^,}]*//g' >"$work/use-cpu"
    "$device/f2b-$program" --device cuda:0 --quiet --checkpoint "$work/cpu" "$@" </dev/null 2>"$work/err-cuda" |
        sed -E 's/"(seconds|images_per_second)": [^,}]*//g' >"$work/use-cuda"
    [ -s "$work/use-cpu" ] && cmp -s "$work/use-cpu" "$work/use-cuda" && return
    fail "$program: $(diff "$work/use-cpu" "$work/use-cuda" | head -n 4) $(tail -n 1 "$work/err-cuda")"
}
use answer --image "$image" --max-new-tokens 6 'What colour is it?'
use answer --image "$image" --max-new-tokens 4 --tokens full --temperature 1 'What is it?'
use eval --task vqa --data "$work/val.json" --images "$work/images" --limit 2 --max-new-tokens 3
use eval --task retrieval --data "$work/captions_val.tsv" --images "$work/images" --use-tokens 0:3
for where in cpu cuda:0; do
    bin=$host
    [ $where = cpu ] || bin=$device
    "$bin/f2b-compress" --device $where --checkpoint "$work/cpu" --images "$work/images" --out "$work/store-$where" \
        --quiet >/dev/null 2>"$work/err" || fail "compress on $where: $(tail -n 1 "$work/err")"
done
use search --store "$work/store-cpu" 'a red circle'
use search --store "$work/store-cuda:0" 'a red circle'
use answer --store "$work/store-cuda:0" --id "$(basename "$image")" --max-new-tokens 4 'What is it?'

# Exports that are proven on the device are the host's to the byte; a picture of attention; likelihoods within
# rounding.
for where in cpu cuda:0; do
    bin=$host
    [ $where = cpu ] || bin=$device
    for format in peft merged; do
        "$bin/f2b-export" --device $where --quiet --checkpoint "$work/cpu" --format $format \
            --out "$work/$format-$where" >"$work/out" 2>"$work/err" ||
            fail "export of $format on $where: $(tail -n 1 "$work/err")"
    done
    "$bin/f2b-inspect" --device $where --quiet --attention "$work/seen-$where.svg" --checkpoint "$work/cpu" \
        --image "$image" --question 'What is it?' >"$work/out" 2>"$work/err" ||
        fail "attention on $where: $(tail -n 1 "$work/err")"
done
diff -r "$work/peft-cpu" "$work/peft-cuda:0" || fail 'exports differ'
diff -r "$work/merged-cpu" "$work/merged-cuda:0" || fail 'merged folders differ'
[ "$(grep -o '<[a-z]*' "$work/seen-cpu.svg" | sort | uniq -c)" = \
    "$(grep -o '<[a-z]*' "$work/seen-cuda:0.svg" | sort | uniq -c)" ] || fail 'pictures of attention differ'
printf 'A red circle.\nWhat colour is the square?\n' >"$work/text"
likelihood() {              # likelihood PROGRAMS DEVICE
    "$1/f2b-eval" --device "$2" --quiet --task nll --model "$work/merged-cpu" --text "$work/text" 2>"$work/err" |
        grep -oE '"[a-z_]+": [-0-9.e]+' | grep -v seconds
}
paste <(likelihood "$host" cpu) <(likelihood "$device" cuda:0) |
    awk '{ n++; d = $2 - $4; if (d < 0) d = -d; if ($1 != $3 || !(d <= 1e-4 * ($2 < 0 ? -$2 : $2))) bad = 1 }
         END { exit bad || n < 2 }' || fail "likelihoods: $(likelihood "$device" cuda:0) $(tail -n 1 "$work/err")"

# ---- Without a device ----
export F2B_EMULATED_DEVICES=0
bin=$device
train --device cuda:0 train.steps=1 run.dir="$work/none"
expect 4 'no usable NVIDIA driver or device' 'a device that is not there'
message 'no device'
train train.steps=1 run.dir="$work/none"
expect 0 'running on the CPU' 'auto without a device'
unset F2B_EMULATED_DEVICES
train train.steps=1 run.dir="$work/some"
[ "$code" = 0 ] || fail 'auto with a device'
grep -q 'running on the CPU' "$work/err" && fail 'auto passes over the device'
finish
