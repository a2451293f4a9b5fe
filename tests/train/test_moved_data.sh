#!/usr/bin/env bash
# Where the data lie does not change which samples a step has: the same world in two folders, the
# first samples of each kind of batch.
set -euo pipefail
bin=${F2B_BUILD_DIR:?}/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

first_samples() {
    local world=$work/$1
    "$bin/f2b-data" toy --out "$world" --train 60 --val 4 --image-size 32 --quiet
    cat >"$work/$1.yaml" <<YAML
model: {path: $world/model, weights: f32}
summary: {tokens: 2}
lora: {r: 2, alpha: 4}
data:
  conversations: [{path: $world/train.json, images: $world/images}]
  captions: [{path: $world/captions_train.tsv, images: $world/images}]
  conversation_captions: [{path: $world/conversation_captions.json}]
sampler: {conversation_batch: 8, contrastive_batch: 16, ratio: 2.0}
train: {steps: 40, precision: f32}
run: {dir: $world/run}
YAML
    "$bin/f2b-train" --config "$work/$1.yaml" --check --quiet | grep 'samples; the first'
}

first_samples here >"$work/here.txt"
first_samples "somewhere else entirely" >"$work/there.txt"
grep -q both "$work/here.txt"
cat "$work/here.txt"
diff "$work/here.txt" "$work/there.txt"
echo "moved data: the same samples"
