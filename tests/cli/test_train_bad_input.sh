#!/usr/bin/env bash
# What f2b-train says of bad configurations, files, records and disks, and that nothing is lost by them.
# The messages are printed, so that they can be read and quoted.
. "$(dirname "$0")/../train/tiny_runs.sh"
run=$work/run

# refused CODE TEXT WHAT ARGUMENT...: the run ends so, and says so in its last line.
refused() {
    local want=$1 text=$2 what=$3
    shift 3
    train "$@"
    expect "$want" "f2b-train: " "$what" && expect "$want" "$text" "$what"
    message "$what"
}
listed() { grep -qE "^$1" "$run/bad_records.tsv" || { fail "not in bad_records.tsv: $1"; cat "$run/bad_records.tsv"; }; }
flip() { # a bit of the middle byte of a file
    local at=$(($(stat -c %s "$1") / 2)) byte
    byte=$(od -An -tu1 -j $at -N 1 "$1" | tr -d ' ')
    printf "\\$(printf %o $((byte ^ 16)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}

# ---- Memory ----
refused 4 'may take 1 MiB (train.memory_limit)' 'too little memory' train.memory_limit=1MiB
train --check train.memory_limit=1MiB
expect 4 'needs' '--check of too little memory'
grep -q '^# memory (peaks' "$work/out" || fail '--check says what is needed before it refuses'

# ---- Configuration and model ----
printf 'run: {dir: run}\nmodel: {path: model}\nlora:\n  r: 4\n  alhpa: 8\n' >"$work/wrong.yaml"
"$bin/f2b-train" --config "$work/wrong.yaml" >"$work/out" 2>"$work/err"
code=$?
expect 2 'wrong.yaml:5: unknown key lora.alhpa; did you mean lora.alpha?' 'unknown key'
message 'unknown key'
refused 2 'train.stesp' 'unknown key in an override' train.stesp=3
refused 2 'fp8 needs a CUDA device from sm_89' 'fp8 on the processor' train.precision=fp8 model.weights=bf16
refused 2 'summary.prompt has <image> in it' 'an image mark in the prompt' summary.prompt='"What is <image>?"'
refused 2 'takes 2024 rows, and the model was made for 1024' 'more summary tokens than context' \
    summary.tokens=2000
refused 2 '{0..1000000}.tar: names more than 1000000 files' 'a range of too many shards' \
    data.captions='[{path: "{0..1000000}.tar"}]'
: >"$work/empty.tsv"
refused 3 "f2b-train: data.captions[0]: $work/empty.tsv has no records" 'a source without records' \
    data.captions="[{path: $work/empty.tsv, images: $work/images}]"
refused 3 "$work/model-none" 'missing model folder' model.path="$work/model-none"
mv "$work/model/tokenizer.model" "$work/tokenizer.model"
refused 3 tokenizer.model 'missing model file'
mv "$work/tokenizer.model" "$work/model"
header='{"language_model.model.norm.weight":{"dtype":"F32","shape":[32],"data_offsets":[0,128]}}'
printf '\130\0\0\0\0\0\0\0%s%64s' "$header" '' >"$work/model/model.safetensors"
refused 3 model.safetensors 'safetensors cut in its data'
printf '\130\0\0\0\0\0\0\0%.40s' "$header" >"$work/model/model.safetensors"
refused 3 model.safetensors 'safetensors cut in its header'
rm "$work/model/model.safetensors"
[ -e "$run" ] && fail 'a run folder is made for nothing'

# ---- Records ----
head -c 60 "$work/images/t000000.png" >"$work/images/cut.png"
printf '\377\330\377\340nothing of a JPEG' >"$work/images/broken.jpg"
ask='{"from": "human", "value": "<image>\nWhat?"}' answer='{"from": "gpt", "value": "a shape"}'
cat >"$work/bad.json" <<END
[{"id": "0", "image": "cut.png", "conversations": [$ask, $answer]},
 {"id": "1", "image": "broken.jpg", "conversations": [$ask, $answer]},
 {"id": "2", "image": "../run.yaml", "conversations": [$ask, $answer]},
 {"id": "3", "image": "t000001.png", "conversations": [$ask]},
 {"id": "4", "image": "none.png", "conversations": [$ask, $answer]},
 $(for i in {1..30}; do echo "{\"id\": \"$i\", \"conversations\": [${ask/<image>\\n/}, $answer]},"; done)
 {"id": "5", "image": "t000001.png", "conversations": [$ask, $answer]}]
END
bad="data.conversations=[{path: $work/train.json, images: $work/images}, {path: $work/bad.json, images: $work/images}]"
train "$bad" train.epochs=1 data.max_bad_fraction=1
expect 0 'done: ' 'bad records are skipped'
grep 'bad record' "$work/err" | sed "s#$work#DIR#g"
listed 'conversations\[1\]	0	broken_image	.*cut.png'
listed 'conversations\[1\]	1	broken_image	.*broken.jpg'
listed 'conversations\[1\]	2	unsafe_image_name	.*\.\./run.yaml'
listed 'conversations\[1\]	3	'
listed 'conversations\[1\]	4	missing_image	.*none.png'
[ "$(wc -l <"$run/bad_records.tsv")" = 5 ] || fail 'bad_records.tsv has not five lines'
sort "$run/bad_records.tsv" >"$work/before"
train "$bad" train.epochs=1 data.max_bad_fraction=1
expect 0 'done: ' 'resumed' && grep -q 'bad record' "$work/err" && fail 'known bad records are told again'
sort "$run/bad_records.tsv" | diff "$work/before" - || fail 'bad_records.tsv after a resume'
rm -rf "$run"
refused 3 'data.bad_records is `error`' 'bad_records: error' "$bad" data.bad_records=error
rm -rf "$run"
refused 3 'more than data.max_bad_fraction 0.1 allows' 'too many bad records' "$bad" train.epochs=2 \
    data.max_bad_fraction=0.1
grep -q 'saved checkpoint' "$work/err" || fail 'too many bad records: the state is not saved'
cp "$work/images/t000000.png" "$work/images/cut.png"
cp "$work/images/t000000.png" "$work/images/broken.jpg"
cp "$work/images/t000000.png" "$work/images/none.png"
train "$bad" train.epochs=2 data.max_bad_fraction=0.1
expect 0 'resumed from' 'mended records are used on resume'
[ "$(cut -f 2 "$run/bad_records.tsv" | sort | paste -sd ' ')" = '2 3' ] || fail 'mended records stay listed'
rm -rf "$run"

# More text than the model was made for: conversations are cut there, a caption is named.
words=$(printf 'a red circle %.0s' {1..600})
echo "[{\"id\": \"0\", \"conversations\": [${ask/<image>\\n/}, {\"from\": \"gpt\", \"value\": \"$words\"}]}]" \
    >"$work/long.json"
long="data.conversations=[{path: $work/train.json, images: $work/images}, {path: $work/long.json}]"
train "$long" data.conversation_captions=[] train.epochs=2
expect 0 'done: ' 'a conversation beyond the context'
rm -rf "$run"
printf '%s\tt000000.png\na blue square\tt000001.png\n' "$words" >"$work/long.tsv"
refused 3 'caption_beyond_context 1' 'a caption beyond the context' data.max_caption_length=5000 \
    data.captions="[{path: $work/long.tsv, images: $work/images}]" sampler.contrastive_batch=2
rm -rf "$run"

# ---- The run folder ----
train --quiet
expect 0 '' 'the reference'
mv "$run" "$work/ref"
"$bin/f2b-train" --config "$work/run.yaml" train.steps=100000 --quiet 2>/dev/null &
pid=$!
for ((i = 0; i < 600; i++)); do [ -s "$run/lock" ] && break; sleep 0.1; done
refused 1 "in use by another process (pid $pid on " 'a second process on the run folder'
kill -9 $pid
{ wait $pid; } 2>/dev/null
rm -rf "$run"

train --quiet
state=$run/checkpoints/step-000000
flip "${state}16/state.h5"
train
expect 0 "${state}16/state.h5 is damaged" 'a flipped bit: named'
expect 0 "resumed from ${state}14" 'a flipped bit: the one before is taken'
grep -m 1 'is damaged' "$work/err" | sed "s#$work#DIR#g"
same "$run" "$work/ref" || fail 'a flipped bit: other bits'
for step in 12 14 16; do flip "$state$step/state.h5"; done
refused 3 'none of the 3 checkpoints' 'all checkpoints are damaged'
[ "$(wc -l <"$run/metrics.jsonl")" = 16 ] || fail 'all checkpoints are damaged: the log was cut'
refused 2 'train.learning_rate was 0.01, is now 0.5' 'another setting' train.learning_rate=0.5 \
    --resume "$work/ref"
rm -rf "$run"
touch "$work/file"
refused 3 "$work/file" 'a run folder below a file' run.dir="$work/file/run"

# What a file does in the middle of a run costs no step: a source that changes, a log beyond the limit of
# the process.
cp "$work/train.json" "$work/whole.json"
"$bin/f2b-train" --config "$work/run.yaml" train.steps=100000 run.save_every=0 >"$work/out" 2>"$work/err" &
pid=$!
for ((i = 0; i < 600; i++)); do [ -s "$run/metrics.jsonl" ] && break; sleep 0.1; done
truncate -s 100 "$work/train.json"
wait $pid
code=$?
expect 3 'became shorter while in use' 'a source that is cut off while the run reads it'
last=$(sed -n '$s/^{"step": \([0-9]*\),.*/\1/p' "$run/metrics.jsonl")
expect 3 "saved checkpoint step-$(printf %08d "$last")" 'its steps are saved'
mv "$work/whole.json" "$work/train.json"
rm -rf "$run"
(ulimit -f 120; exec "$bin/f2b-train" --config "$work/run.yaml" train.steps=100000 run.save_every=0 lora.r=1 \
    run.log_sample_ids=true) >"$work/out" 2>/dev/null
[ $? = 3 ] || fail 'a file beyond the limit: no error of its own'
[ -s "$run/latest" ] || fail 'a file beyond the limit: its steps are lost'
rm -rf "$run"

# ---- Disks, as root ----
mkdir "$work/small"
if ! mount -t tmpfs -o size=8m none "$work/small" 2>/dev/null; then
    echo 'not tried: a full and a read-only disk (no right to mount one)'
    finish
fi
trap 'umount -l "$work/small"; rm -rf "$work"' EXIT
small=$work/small/run
fill() { # the small disk, but for so many KiB
    local room
    room=$(df -k --output=avail "$work/small" | tail -n 1)
    dd if=/dev/zero of="$work/small/filler" bs=1k count=$((room - $1)) status=none
}
# A run at step 12 with room for its logs, not for a checkpoint.
cp -r "$work/ref" "$small"
rm -rf "$small"/checkpoints/step-0000001[46]
fill 100
refused 3 'No space left on device' 'a full disk during a save' run.dir="$small"
[ "$(ls "$small/checkpoints")" = step-00000012 ] || fail "a full disk: $(ls "$small/checkpoints")"
rm "$work/small/filler"
train run.dir="$small"
expect 0 "resumed from $small/checkpoints/step-00000012" 'a disk with room again'
same "$small" "$work/ref" || fail 'a disk with room again: other bits'
rm -rf "$small"
fill 0
refused 3 'No space left on device' 'no space for a run folder' run.dir="$small"
rm "$work/small/filler"
mount -o remount,ro "$work/small"
refused 3 'Read-only file system' 'a read-only run folder' run.dir="$small"
finish
