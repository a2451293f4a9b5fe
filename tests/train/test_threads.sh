#!/usr/bin/env bash
# A whole training run has the same bits with one thread and with two, in every kind of number: the toy
# world's own model (d 128, 4 layers, 64 image tokens, wide enough that threads share every product),
# all kinds of batch, dropout, a trained projector, layers computed again on one side alone.
. "$(dirname "$0")/tiny_runs.sh"
"$bin/f2b-data" toy --out "$work/toy" --train 24 --val 4 --turns 4 --quiet >/dev/null 2>&1 ||
    fail 'no toy world'
cat >"$work/run.yaml" <<EOF
model: {path: toy/model}
summary: {tokens: 4}
lora: {r: 8, alpha: 16, dropout: 0.1}
trainable: {projector: true}
data:
  conversations: [{path: toy/train.json, images: toy/images}]
  captions: [{path: toy/captions_train.tsv, images: toy/images}]
  conversation_captions: [{path: toy/conversation_captions.json}]
sampler: {conversation_batch: 3, contrastive_batch: 4, ratio: 1.5}
train: {steps: 12, learning_rate: 1.0e-3, micro_batch_tokens: 400}
run: {dir: run}
EOF

for numbers in "f32 f32" "bf16 bf16" "int8 bf16" "nf4 bf16"; do
    set -- $numbers
    what="model.weights=$1 train.precision=$2"
    for threads in 1 2; do
        train --quiet --threads $threads $what run.dir="$work/threads-$threads" \
            train.activation_checkpointing=$([ $threads = 1 ] && echo none || echo layer)
        expect 0 '' "$what, $threads threads" || finish
    done
    same "$work/threads-1" "$work/threads-2" || fail "$what: other bits with two threads"
    cp -r "$work/threads-1" "$work/$1-$2"
    rm -rf "$work"/threads-*
done

# The test can see differences, and the four runs were of different numbers.
for other in bf16-bf16 int8-bf16 nf4-bf16; do
    "$tools/state_compare" "$work/f32-f32" "$work/$other" >/dev/null && fail "$other has f32's bits"
done
[ "$(grep -o '"kind": "[a-z]*"' "$work/f32-f32/metrics.jsonl" | sort -u | wc -l)" = 3 ] ||
    fail "the run has not all three kinds of batch"
finish
