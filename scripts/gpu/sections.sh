# The sections of gpu-check.sh, to be sourced after common.sh: each writes its part of the report on stdout
# and ends as common.sh says. `section` is the one that runs.

section_card() {
    step "asking the driver"
    echo '```'
    if command -v nvidia-smi >/dev/null; then
        local facts=index,name,driver_version,vbios_version,compute_cap,memory.total,memory.used
        facts=$facts,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu
        nvidia-smi --query-gpu=$facts,ecc.mode.current,mig.mode.current --format=csv 2>&1 || true
        nvidia-smi 2>&1 | grep -o 'CUDA Version: [0-9.]*' || true
    else
        echo "nvidia-smi is not here"
    fi
    echo '```'
    echo
    find_cublaslt
    echo "- cuBLASLt: $CHECK_CUBLASLT"
    echo "- processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads," \
        "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
    echo "- system: $(uname -sr), $(getconf GNU_LIBC_VERSION)"
    step "opening the device"
    ours tests/gpu_step --device "$CHECK_DEVICE" --version >"$logs/card.log" 2>&1 ||
        fail "$(said "$logs/card.log")"
}

# Every op's test: values and gradients on the device against the processor's, in f32 and bf16.
section_ops() {
    local name setting file bad="" started
    echo "| test | verdict | seconds |"
    echo "| --- | --- | --- |"
    ours tests/gpu_tests >"$work/tests" || fail "tests/gpu_tests does not start"
    [ -s "$work/tests" ] || fail "tests/gpu_tests has no tests"
    ! grep -q test_attention "$work/tests" || echo test_attention F2B_CUDA_ATTENTION=plain >>"$work/tests"
    while read -r name setting; do
        step "$name $setting"
        started=$SECONDS file="$logs/$name$setting.log"
        if ! (export ${setting:-NONE=} && ours tests/gpu_tests "$name") >"$file" 2>&1 </dev/null; then
            echo "| $name $setting | **failed**: $(grep -m 1 cuda "$file" || said "$file") |" \
                "$((SECONDS - started)) |"
            bad="$bad $name"
        elif grep -q "there is no CUDA device here" "$file"; then
            echo "| $name $setting | **failed**: it found no device | $((SECONDS - started)) |"
            bad="$bad $name"
        else
            echo "| $name $setting | passed | $((SECONDS - started)) |"
        fi
    done <"$work/tests"
    [ -z "$bad" ] || fail "these failed:$bad"
}

# try_train DEVICE RUN CONFIG OVERRIDE...: a run in $work/RUN; train: one that must do.
try_train() {
    local device=$1 run=$2 config=$3
    shift 3
    step "$run on $device"
    ours bin/f2b-train --device "$device" --config "$config" --quiet --resume none \
        run.dir="$work/$run" "$@" >"$logs/train-$run.log" 2>&1 </dev/null
}
train() { try_train "$@" || fail "$2: $(said "$logs/train-$2.log")"; }

losses() { sed -E 's/.*"loss": ([^,]*),.*/\1/' "$work/$1/metrics.jsonl"; }

# curve NAME RUN REFERENCE MOST MEAN: a row of the table; false where RUN's losses leave the band.
curve() {
    paste <(losses "$3") <(losses "$2") | awk -v name="$1" -v most="$4" -v mean="$5" '
        NF != 2 || $1 + 0 != $1 || $2 + 0 != $2 { bad = 1 }
        { d = ($2 - $1) / ($1 > 1 ? $1 : 1); if (d < 0) d = -d
          if (!(d <= worst)) worst = d
          if (NR == 1) first = $2
          sum += d; last = $2; reference = $1 }
        END { good = !bad && NR > 0 && worst <= most && sum / NR <= mean
              printf "| %s | %d | %.5f | %.5f | %.5f | %.1e of %.1e | %.1e of %.1e | %s |\n", name, NR,
                  first, last, reference, worst, most, NR ? sum / NR : 0, mean,
                  good ? "passed" : "**failed**"
              exit !good }'
}

# The tiny run has every kind of batch, dropout and micro-batches; the toy base trains every tensor.
section_training() {
    local bad="" tiny="train.learning_rate=3e-3 method.temperature=0.1 train.steps=16"
    step "writing the tiny world"
    mkdir -p "$work/tiny" && ours tests/tiny_world "$work/tiny" || fail "the tiny world cannot be written"
    train cpu tiny-cpu "$work/tiny/run.yaml" $tiny
    train "$CHECK_DEVICE" tiny-f32 "$work/tiny/run.yaml" $tiny
    train "$CHECK_DEVICE" tiny-bf16 "$work/tiny/run.yaml" $tiny train.precision=bf16 model.weights=bf16
    echo "Losses of each step on the device against the processor's in f32: difference, relative where they"
    echo "are above 1, and what is allowed."
    echo
    echo "| run | steps | first | last | the processor's last | largest difference | mean |  |"
    echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
    curve "tiny, f32" tiny-f32 tiny-cpu 1e-4 2e-5 || bad="$bad tiny-f32"
    curve "tiny, bf16" tiny-bf16 tiny-cpu 3e-2 5e-3 || bad="$bad tiny-bf16"
    if try_train "$CHECK_DEVICE" tiny-fp8 "$work/tiny/run.yaml" $tiny train.precision=fp8 model.weights=bf16
    then curve "tiny, fp8" tiny-fp8 tiny-cpu 1.5e-1 2.5e-2 || bad="$bad tiny-fp8"
    elif grep -q 'needs sm_89' "$logs/train-tiny-fp8.log"; then echo "| tiny, fp8 | not for this card |"
    else fail "tiny-fp8: $(said "$logs/train-tiny-fp8.log")"; fi
    if ! quick; then
        step "drawing the toy world"
        mkdir -p "$work/runs/toy" && cp -r "$CHECK_HERE/configs" "$work/configs"
        ours bin/f2b-data toy --out "$work/runs/toy/world" --train 400 --quiet >"$logs/toy.log" 2>&1 ||
            fail "$(said "$logs/toy.log")"
        train cpu base-cpu "$work/configs/toy/base.yaml" train.steps=40
        train "$CHECK_DEVICE" base-f32 "$work/configs/toy/base.yaml" train.steps=40
        train "$CHECK_DEVICE" base-bf16 "$work/configs/toy/base.yaml" train.steps=40 train.precision=bf16
        curve "toy base, f32" base-f32 base-cpu 5e-3 1e-3 || bad="$bad base-f32"
        curve "toy base, bf16" base-bf16 base-cpu 5e-2 1e-2 || bad="$bad base-bf16"
    fi
    [ -z "$bad" ] || fail "losses leave their band:$bad"
}

# A run that is killed (kill -9) twice and resumed each time, against one that never stopped.
section_resume() {
    local settings="run.save_every=2 run.keep=2 train.steps=12" kills=0 code want saved
    step "writing the tiny world"
    mkdir -p "$work/kill" && ours tests/tiny_world "$work/kill" || fail "the tiny world cannot be written"
    train "$CHECK_DEVICE" never-stopped "$work/kill/run.yaml" $settings
    for want in 04 08 99; do        # killed once a checkpoint of that step is there
        step "killed $kills times so far"
        env LD_LIBRARY_PATH="$CHECK_LIBRARIES" "$CHECK_HERE/bin/f2b-train" --device "$CHECK_DEVICE" \
            --config "$work/kill/run.yaml" --quiet --resume auto run.dir="$work/killed" $settings \
            >"$logs/killed.log" 2>&1 </dev/null &
        while kill -0 $! 2>/dev/null && [ ! -e "$work/killed/checkpoints/step-000000$want" ]; do sleep 0.005; done
        saved=$(cat "$work/killed/latest" 2>/dev/null)
        [ "$want" = 99 ] || { kill -9 $! && kills=$((kills + 1)); } 2>/dev/null
        wait $! 2>/dev/null
        code=$?
        [ $code = 0 ] || [ $code = 137 ] || fail "$(said "$logs/killed.log")"
        echo "- stopped with exit code $code after ${saved#checkpoints/}"
    done
    [ $kills -ge 1 ] || fail "no run could be killed before its end"
    step "comparing"
    ours tests/state_compare "$work/never-stopped" "$work/killed" >"$logs/state.log" 2>&1 ||
        fail "$(said "$logs/state.log")"
    [ "$(losses never-stopped)" = "$(losses killed)" ] || fail "the losses differ after a resume"
    echo "- tensors, moments, counts and losses are equal to the bit after $kills kills"
}

# ---- Measurements ----

# The shapes that are measured, and options of gpu_step for them.
shape() {
    if [ "$CHECK_SHAPE" = tiny ]; then
        model=$work/shape/model sizes="--talk 20 --labelled 10 lora.r=4 summary.tokens=4"
        mkdir -p "$work/shape" && ours tests/tiny_world "$work/shape" || fail "the tiny world cannot be written"
    else
        model=$CHECK_HERE/configs/shapes/llava-1.5-7b sizes=""
    fi
}

# rates NAME OPTION...: a table of gpu_rates.
rates() {
    step "$1"
    shift
    ours tests/gpu_rates --device "$CHECK_DEVICE" --model "$model" "$@" 2>"$logs/rates.log" </dev/null ||
        fail "$(said "$logs/rates.log")"
    echo
}

section_rates() {
    local options="--rows 4832 --length 604" seconds=0.15
    step "opening"
    shape
    [ "$CHECK_SHAPE" = 7b ] || options="--rows 40 --length 20 --rank 4"
    quick && seconds=0.02
    rates "bf16" $options --seconds $seconds
    quick && return
    rates "f32" $options --seconds $seconds --precision f32
}

# row NAME FILE: of a table of steps. A peer does not count its operations, nor when it waits.
row() {
    local seconds tflops
    seconds=$(number median_seconds "$2") tflops=$(number median_tflops "$2")
    printf '| %s | %s | %s | %s | %s | %s |\n' "$1" "$(number best_samples_per_second "$2")" \
        "$(number median_samples_per_second "$2")" "$seconds" \
        "$(awk -v rate="$tflops" -v all="$seconds" -v waits="$(number median_wait_seconds "$2")" 'BEGIN {
            if (rate == "") print "| |"
            else printf "%.1f | %.0f %% | %.0f %%", rate, 100 * rate / 790, 100 * waits / all }')" \
        "$(awk -v x="$(number peak_bytes "$2")" 'BEGIN { printf "%.2f", x / 1073741824 }')"
}

# measured NAME ARGUMENT...: gpu_step with these settings into $logs/step-NAME.json; a row of the table.
# What does not fit the card's memory, or is not for it, is a row that says so.
measured() {
    local name=$1 file="$logs/step-${1//[^a-z0-9]/-}"
    shift
    step "$name"
    if ours tests/gpu_step --device "$CHECK_DEVICE" --model "$model" $sizes "$@" \
        >"$file.json" 2>"$file.log" </dev/null; then
        row "$name" "$file.json"
        rows=$((rows + 1))
    elif grep -qE 'out of memory|needs sm_89' "$file.log"; then
        echo "| $name | $(said "$file.log") | | | | | | |"
    else
        echo "| $name | **failed**: $(said "$file.log") | | | | | | |"
        bad="$bad '$name'"
    fi
}

header() {
    echo "| $1 | samples/s, best | median | s a step | TFLOP/s | of 790 | host waits | peak GiB |"
    echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
}

section_step() {
    local bad="" rows=0 eight="--batch 8 --steps 6" layer=train.activation_checkpointing=layer
    step "opening"
    shape
    quick && eight="--batch 8 --steps 4"
    [ "$CHECK_SHAPE" = 7b ] || eight="--batch 2 --steps 3"
    header "drawn weights, one micro-batch a step"
    measured "conversation, bf16" $eight
    measured "conversation, bf16, layers computed again" $eight $layer
    measured "conversation, fp8" $eight train.precision=fp8
    measured "captions, bf16" $eight --kind caption
    measured "both, bf16" $eight --kind both
    if ! quick; then
        measured "conversation, bf16, 1 sample" --batch 1 --steps 6
        measured "conversation, bf16, 4 samples" --batch 4 --steps 6
        measured "conversation, bf16, 16 samples" --batch 16 --steps 4
        measured "conversation, bf16, 16 samples, layers computed again" --batch 16 --steps 4 $layer
    fi
    [ $rows -gt 0 ] || [ -n "$bad" ] || skip "nothing of this shape fits the card"
    local first="$logs/step-conversation--bf16.json"
    if [ -s "$first" ]; then
        echo
        echo "A conversation sample is $(number sample_tflop "$first") TFLOP of useful work:" \
            "$(number rows_image "$first") rows in pass 1, $(number rows_conversation "$first") in pass 2," \
            "$(number labelled "$first") labels: $(awk -v x="$(number sample_tflop "$first")" 'BEGIN {
                printf "%.2f ms", x / 790 * 1000 }') at 790 TFLOP/s. Opening the model took" \
            "$(number opening_seconds "$first") s. Host waits: the share of a step that the program spends" \
            "waiting for the device; near 0, launches are what the step waits for."
        [ "$CHECK_SHAPE" != 7b ] || { echo && echo "Aims, on an H100: 24 conversation samples/s in bf16 (15 at" \
            "least), 35 in fp8, less than 40 GiB with 8 samples a micro-batch."; }
        echo
        step "profile"
        echo '```'
        ours tests/gpu_step --device "$CHECK_DEVICE" --model "$model" $sizes $eight --quiet --profile \
            2>&1 >/dev/null </dev/null
        echo '```'
    fi
    [ -z "$bad" ] || fail "these failed:$bad"
}

# The same step in PyTorch, transformers and peft on the same card: same sizes, rows, labels and adapters.
section_peer() {
    local bad="" rows=0 python round name options="--batch 8 --steps 4"
    python=$(command -v "${PEER_PYTHON:-python3}") || skip "there is no ${PEER_PYTHON:-python3}"
    step "looking for torch, transformers and peft"
    "$python" -c 'import torch, transformers, peft
assert torch.cuda.is_available(), "torch sees no CUDA device"
print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)' \
        >"$logs/peer.log" 2>&1 || skip "$python: $(said "$logs/peer.log")"
    cat "$logs/peer.log"
    echo
    shape
    header "conversation, bf16, 8 samples"
    for round in 1 2; do
        measured "fwd2bot, round $round" $options
        for name in "sdpa" "sdpa checkpointing"; do
            step "PyTorch $name, round $round"
            local file="$logs/peer-${name// /-}-$round"
            if "$python" "$CHECK_HERE/gpu/peer_step.py" --device "$CHECK_DEVICE" --model "$model" \
                $options --attention ${name/ / --} >"$file.json" 2>"$file.log" </dev/null; then
                row "PyTorch, $name, round $round" "$file.json"
            else
                echo "| PyTorch, $name, round $round |" \
                    "$(said "$file.log" | cut -c 1-200) | | | | | | |"
            fi
        done
    done
    [ -z "$bad" ] || fail "these failed:$bad"
}

# The device's own checkers on the tests of ops whose kernels share memory between threads.
section_sanitizer() {
    local tool name bad="" done=0 path
    path=$(command -v compute-sanitizer ||
        compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | sed -n 1p)
    [ -n "$path" ] || skip "compute-sanitizer is not here"
    for name in test_rms_norm test_attention test_head_cross_entropy test_rows; do
        for tool in memcheck racecheck synccheck; do
            step "$tool of $name"
            LD_LIBRARY_PATH=$CHECK_LIBRARIES timeout 20 "$path" --tool $tool --error-exitcode 9 \
                "$CHECK_HERE/tests/gpu_tests" "$name" >"$logs/$tool-$name.log" 2>&1 </dev/null
            case $? in
            0) echo "- $tool, $name: passed" && done=$((done + 1)) ;;
            124) echo "- $tool, $name: not finished within 20 s" ;;
            *) echo "- $tool, $name: **failed** ($tool-$name.log)" && bad="$bad $tool-$name" ;;
            esac
        done
    done
    [ -z "$bad" ] || fail "these failed:$bad"
    [ $done -gt 0 ] || fail "nothing finished"
}
