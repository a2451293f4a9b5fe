#!/usr/bin/env bash
# quickstart.sh: from a fresh clone to a trained compressor, on any processor, in minutes.
#
# Installs what the build needs, builds, draws the toy world, trains a base on it from nothing, trains
# Fwd2Bot (K = 4) on that, evaluates both, exports the adapters, and prints one table. Everything
# lands in runs/toy. A second call goes on where the first one stopped; remove runs/toy to start anew.
set -euo pipefail
cd "$(dirname "$0")/.."

world=runs/toy/world base=runs/toy/base model=runs/toy/model before=runs/toy/k4-before k4=runs/toy/k4
bin=build/release/bin
stages=()               # "name<TAB>seconds<TAB>peak KiB"

say() { printf '\n== %s\n' "$*"; }

# stage NAME COMMAND...: runs it, remembers its wall time and its peak of resident memory. The
# command's output goes where the caller sends it.
stage() {
    local name=$1 start=$SECONDS peak=0 now pid status=0
    shift
    "$@" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        now=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || true
        if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
        sleep 0.2
    done
    wait "$pid" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "quickstart: $name failed with exit code $status" >&2
        exit "$status"
    fi
    stages+=("$name"$'\t'"$((SECONDS - start))"$'\t'"$peak")
}

# number KEY FILE [N]: the N-th value (default the first) of a key in a program's JSON.
number() { grep -o "\"$1\": [0-9.e+-]*" "$2" | sed -n "${3:-1}s/.*: //p"; }
percent() { awk -v x="$1" 'BEGIN { printf "%.1f %%", 100 * x }'; }

say "installing what the build needs"
scripts/setup.sh --build-only

say "building"
cmake --preset release >/dev/null
stage "build" cmake --build --preset release --target programs

mkdir -p runs/toy
say "drawing the toy world into $world"
if [ ! -f "$world/README.txt" ]; then
    stage "toy world" "$bin/f2b-data" toy --out "$world" --quiet
fi

say "training the base from nothing, with all image tokens"
stage "train base" "$bin/f2b-train" --config configs/toy/base.yaml
stage "export base" "$bin/f2b-export" --checkpoint "$base" --format merged --out "$model" --quiet

say "training Fwd2Bot: K = 4 summary tokens"
# One step at learning rate 0: the compressor as it starts, for the comparison.
"$bin/f2b-train" --config configs/toy/k4.yaml --quiet train.steps=1 run.dir=$before
stage "train Fwd2Bot" "$bin/f2b-train" --config configs/toy/k4.yaml

say "evaluating on the validation part"
vqa=(--task vqa --data "$world/val.json" --images "$world/images" --quiet)
retrieval=(--task retrieval --data "$world/captions_val.tsv" --images "$world/images" --quiet)
stage "answer, all tokens" "$bin/f2b-eval" "${vqa[@]}" --checkpoint "$base" --tokens full >runs/toy/full.json
stage "answer, K = 4" "$bin/f2b-eval" "${vqa[@]}" --checkpoint "$k4" --tokens compressed >runs/toy/k4.json
stage "answer, no image" "$bin/f2b-eval" "${vqa[@]}" --checkpoint "$base" --tokens none >runs/toy/none.json
stage "retrieval before" "$bin/f2b-eval" "${retrieval[@]}" --checkpoint "$before" >runs/toy/retrieval-before.json
stage "retrieval after" "$bin/f2b-eval" "${retrieval[@]}" --checkpoint "$k4" >runs/toy/retrieval.json

say "exporting the adapters"
stage "export adapters" "$bin/f2b-export" --checkpoint "$k4" --format peft --out runs/toy/export --quiet

images=$(number images runs/toy/retrieval.json)
chance=$(awk -v n="$images" 'BEGIN { print 1 / n }')
cat <<TABLE

answers right           all image tokens (64)   $(percent "$(number accuracy runs/toy/full.json)")
                        K = 4 summary tokens    $(percent "$(number accuracy runs/toy/k4.json)")
                        no image                $(percent "$(number accuracy runs/toy/none.json)")
text to image, R@1      before training         $(percent "$(number 'r@1' runs/toy/retrieval-before.json 2)")
                        after                   $(percent "$(number 'r@1' runs/toy/retrieval.json 2)")
image to text, R@1      before training         $(percent "$(number 'r@1' runs/toy/retrieval-before.json)")
                        after                   $(percent "$(number 'r@1' runs/toy/retrieval.json)")
                        by chance ($images images)    $(percent "$chance")

TABLE
printf '%-22s %10s %12s\n' stage seconds 'peak memory'
for row in "${stages[@]}"; do
    IFS=$'\t' read -r name seconds peak <<<"$row"
    printf '%-22s %10s %8s MiB\n' "$name" "$seconds" "$((peak / 1024))"
done
printf '%-22s %10s\n\n' total "$SECONDS"
echo "adapters for Hugging Face PEFT: runs/toy/export/{compression,generation}, summary tokens beside"
echo "the base they belong to:        runs/toy/model"
echo "the run, to resume or inspect:  runs/toy/k4"
