#!/usr/bin/env bash
# ablations.sh: the paper's ablations on the toy world, from nothing to docs/ablations.md.
#
# Draws a world harder than the quickstart's, trains a language model on text, makes it see (the base),
# then trains every row of configs/ablations/toy with each seed, evaluates it and writes the tables.
# Unattended and resumable: a second call goes on where the first one stopped, run by run. Rows that are
# the same configuration share a run.
#
#   scripts/ablations.sh                     all rows, seeds 1 2 3
#   SEEDS="1" scripts/ablations.sh t05 k     rows whose names begin so, one seed
#   JOBS=2                                   runs side by side, a thread each (default: all processors)
set -euo pipefail
cd "$(dirname "$0")/.."

bin=build/release/bin root=runs/ablations configs=configs/ablations/toy
seeds=${SEEDS:-1 2 3} jobs=${JOBS:-$(nproc)}

say() { printf '== %s\n' "$*"; }

# once FILE COMMAND...: the command's output becomes FILE, unless it is there; never half a file.
once() {
    local file=$1
    shift
    if [ -s "$file" ]; then return; fi
    "$@" >"$file.partial"
    mv "$file.partial" "$file"
}

# evaluate DIR OUT OPTIONS...: accuracy on the validation questions as OUT.vqa.json, and recall of its
# captions as OUT.retrieval.json.
evaluate() {
    local dir=$1 out=$2
    shift 2
    once "$out.vqa.json" "$bin/f2b-eval" --task vqa --checkpoint "$dir" --data $root/world/val.json \
        --images $root/world/images --quiet --threads 1 "$@"
    once "$out.retrieval.json" "$bin/f2b-eval" --task retrieval --checkpoint "$dir" \
        --data $root/world/captions_val.tsv --images $root/world/images --quiet --threads 1 "$@"
}

# value KEY FILE: a configuration's value, which may have a comment behind it.
value() { sed -n "s/^  $1: \([^ ]*\).*/\1/p" "$2"; }

# one CONFIG SEED: train a row with a seed, evaluate it.
one() {
    local config=$1 seed=$2 name dir tokens
    name=$(sed -n 's#^  dir: .*/##p' "$config")
    dir=$root/$name-seed$seed
    say "$name, seed $seed"
    "$bin/f2b-train" --config "$config" --quiet --threads 1 train.seed="$seed" run.dir="$dir" run.keep=1
    evaluate "$dir" "$dir/all" --precision "$(value precision "$config")" \
        --weights "$(value weights "$config")"
    tokens=$(value tokens "$config")
    if [ "$tokens" = 16 ]; then         # Figures 5 and 6: a part of the tokens
        for part in 0:1 0:2 0:4 0:8 0:12; do evaluate "$dir" "$dir/use-$part" --use-tokens $part; done
        for part in 0:4 4:8 8:12 12:16 0:8 8:16; do
            evaluate "$dir" "$dir/mask-$part" --mask-tokens $part
        done
    fi
}

if [ "${1:-}" = --one ]; then one "$2" "$3"; exit; fi

cmake --preset release >/dev/null
cmake --build --preset release --target programs >/dev/null
mkdir -p $root

if [ ! -f $root/world/README.txt ]; then
    say "drawing the world"
    "$bin/f2b-data" toy --out $root/world --train 12000 --val 500 --objects 4 --colors 8 --shapes 6 --quiet
fi
for stage in vicuna llava; do
    say "$stage: the start"
    "$bin/f2b-train" --config $configs/$stage.yaml --quiet
    if [ ! -f $root/$stage-model/config.json ]; then
        "$bin/f2b-export" --checkpoint $root/$stage --format merged --out $root/$stage-model --quiet >/dev/null
    fi
done
if [ ! -f $root/vicuna-start/model.safetensors ]; then
    python3 scripts/ablations/start_from_language.py $root/vicuna-model $root/llava-model $root/vicuna-start
fi
for tokens in full none; do
    once $root/base-$tokens.vqa.json "$bin/f2b-eval" --task vqa --checkpoint $root/llava --tokens $tokens \
        --data $root/world/val.json --images $root/world/images --quiet
done

# One line a run: the first row with a run.dir stands for all that share it; seed after seed.
rows=()
for config in $configs/*.yaml; do
    row=$(basename "$config" .yaml)
    if [ "$row" = vicuna ] || [ "$row" = llava ]; then continue; fi
    if [ $# -gt 0 ]; then
        wanted=
        for prefix in "$@"; do if [[ $row == "$prefix"* ]]; then wanted=1; fi; done
        if [ -z "$wanted" ]; then continue; fi
    fi
    rows+=("$(sed -n 's#^  dir: .*/##p' "$config") $config")
done
for seed in $seeds; do
    printf '%s\n' "${rows[@]}" | sort -u -k1,1 | sed "s/\$/ $seed/"
done | cut -d' ' -f2,3 | xargs -P "$jobs" -L 1 "$0" --one

python3 scripts/ablations/report.py $root configs/ablations/toy docs/ablations.md
say "docs/ablations.md is written"
