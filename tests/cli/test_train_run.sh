#!/usr/bin/env bash
# f2b-train as a person meets it: --check, progress, logs, the run folder, --resume, signals.
. "$(dirname "$0")/../train/tiny_runs.sh"
run=$work/run

has() { grep -qE -- "$2" "$work/$1" || { fail "$3: no '$2' in $1"; head -n 3 "$work/$1"; }; }
steps_of() { sed -E 's/^\{"step": ([0-9]+),.*/\1/' "$1" | paste -sd ' '; }
settled() { [ "$(steps_of "$run/metrics.jsonl")" = "$1" ] || fail "$2: steps $(steps_of "$run/metrics.jsonl")"; }

# --check: what would happen, on stdout, and nothing is made.
train --check
expect 0 '' '--check'
has out '^  path: "/.*/model"$' 'resolved configuration'
has out '^#   conversations\[0\]: [0-9]+ records$' 'counts of data'
has out '^#   samples for both batches: [0-9]+$' 'counts of samples'
has out '^#   activations +[0-9.]+ [KMG]iB  [0-9]+$' 'memory estimate'
for kind in conversation caption both; do has out "^#   step [0-9]+: $kind, " 'preview'; done
has out '^#     pass 2: [0-9]+ ids, [1-9][0-9]* labelled: <s>.*<image>.*</s>' 'preview of tokens'
[ -e "$run" ] && fail '--check makes a run folder'
train --check sampler.ratio=0.1
has out '^#   warning: sampler.ratio is 0.1, the data give' 'a ratio that cannot be met'
train --check data.captions=[] sampler.ratio=9
has out '^#   warning: sampler.ratio is 9, .*: give data.captions$' 'a ratio that cannot be met'

train --check sampler.contrastive_batch=17 sampler.conversation_batch=26
has out '^#   warning: sampler.contrastive_batch is 17, and there are 16 captions' 'a batch of more than there is'
grep -q 'sampler.conversation_batch is' "$work/out" && fail 'a warning of a batch that the data fill'
train --check sampler.conversation_batch=27
has out '^#   warning: sampler.conversation_batch is 27, and there are 26 conv' 'a batch of more than there is'

# A run: every file, in its form.
train train.epochs=1.5 run.log_sample_ids=true run.eval_every=5
expect 0 'done: ' 'a run'
has err '^step [0-9]+/[0-9]+ \| ar [0-9.]+ \| disc [0-9.]+ \| grad [0-9.]+ \| lr [0-9.]+e-[1-9][0-9]* \| [0-9]+ tok/s \| [0-9.]+ [KMG]iB( \| saving [0-9]+)? \| ETA 0:00$' progress
[ -s "$work/out" ] && fail 'a run writes on stdout'
keys='step kind loss loss_ar loss_disc lr grad_norm samples tokens labelled_tokens seconds'
keys+=' tokens_per_second data_wait_seconds peak_bytes skipped sample_ids'
[ "$(grep -oE '"[a-z_]+": ' "$run/metrics.jsonl" | tr -d '": ' | sort -u | paste -sd ' ')" = \
    "$(tr ' ' '\n' <<<"$keys" | sort | paste -sd ' ')" ] || fail 'keys of metrics.jsonl'
[ "$(head -n 1 "$run/metrics.jsonl" | grep -oE '"[a-z_]+": ' | tr -d '": ' | paste -sd ' ')" = "$keys" ] ||
    fail 'order of keys in metrics.jsonl'
lines() { grep -F "\"kind\": \"$1\"" "$run/metrics.jsonl"; }
lines conversation | head -n 1 >"$work/line"
has line '"loss_disc": null, .*"sample_ids": \["conversations\[[01]\]:[0-9]+"(, "conversations\[[01]\]:[0-9]+"){3}\]\}$' 'ids of conversations'
lines caption | head -n 1 >"$work/line"
has line '"loss_ar": null, .*"tokens": [1-9].*"sample_ids": \["captions\[0\]:[0-9]+"(, "captions\[0\]:[0-9]+"){4}\]\}$' 'ids of captions'
lines both | head -n 1 >"$work/line"
has line '"sample_ids": \["conversations\[0\]:[0-9]+\+conversation_captions\[0\]:[0-9]+", ' 'ids of both'
cp "$run/config.yaml" "$work/config.yaml"
has config.yaml '^  steps: [0-9]+$' 'config.yaml'
has config.yaml '^  epochs: null$' 'config.yaml'
has config.yaml '^  conversations: \[\{path: "/.*/train.json", images: "/.*/images"\}' 'config.yaml'
grep -E '(path|dir|images): "[^/]' "$run/config.yaml" && fail 'a relative path in config.yaml'
n=$(sed -nE 's/^  steps: //p' "$run/config.yaml")
settled "$(seq -s ' ' "$n")" 'metrics.jsonl'
[ "$(steps_of "$run/evaluations.jsonl")" = "$(seq -s ' ' 5 5 "$n")" ] || fail 'evaluations.jsonl'
grep -vE '^\{"step": [0-9]+, "loss_ar": [0-9.]+, "loss_disc": [0-9.]+\}$' "$run/evaluations.jsonl" &&
    fail 'lines of evaluations.jsonl'
[ -s "$(compgen -G "$run/events.out.tfevents.*")" ] || fail 'no TensorBoard file'
[ -d "$run/$(cat "$run/latest")" ] || fail 'latest'
[ "$(ls "$run/checkpoints" | wc -l)" = 3 ] || fail 'run.keep: 3'
[ ! -s "$run/bad_records.tsv" ] || fail 'bad_records.tsv is not empty'

# The configuration of a run is one to train from.
cp -r "$run" "$work/copy"
"$bin/f2b-train" --config "$run/config.yaml" --quiet || fail 'config.yaml as a configuration'
same "$run" "$work/copy" || fail 'a finished run changes when it is resumed'

# --resume none keeps the earlier run whole; --resume PATH goes on from one.
train --resume none run.log_every=5 --quiet --profile
expect 0 '' '--resume none'
same "$run/before-1" "$work/copy" || fail '--resume none: the earlier run'
settled '5 10 15 16' 'run.log_every'
has out '^linear +forward +[0-9]+ +[0-9.]+ +[0-9.]+%' '--profile'
train --resume "$run" run.dir="$work/elsewhere"
expect 0 "resumed from $run/checkpoints/step-00000016" '--resume RUN'
train --resume "$run/checkpoints/step-00000014" run.dir="$work/elsewhere"
expect 0 'moved the earlier run in' '--resume CHECKPOINT'
"$tools/state_compare" "$run" "$work/elsewhere" || fail '--resume CHECKPOINT: other bits'
train --resume "$work/nowhere"
expect 3 "$work/nowhere holds no checkpoint" '--resume of nothing'
message 'nothing to resume'

# A base with weights, a run on it, and new runs from what that trained: from the run and from its
# export, which is the same start.
train --quiet train.steps=2 run.dir="$work/base-run" method.forward=base method.loss=autoregressive \
    trainable.language_model=full trainable.projector=true trainable.vision_tower=true
expect 0 '' 'a base from nothing'
"$bin/f2b-export" --checkpoint "$work/base-run" --format merged --out "$work/base" --quiet >"$work/out" ||
    fail 'f2b-export --format merged'
train --quiet model.path="$work/base" run.dir="$work/first" train.steps=4
"$bin/f2b-export" --checkpoint "$work/first" --format peft --out "$work/export" --quiet >"$work/out" ||
    fail 'f2b-export --format peft'
(ulimit -f 4; exec "$bin/f2b-export" --checkpoint "$work/first" --format peft --out "$work/limited" --quiet) \
    >"$work/out" 2>"$work/err"
code=$?
expect 3 'File too large' 'f2b-export beyond the limit on files'
[ -e "$work/limited" ] && fail 'f2b-export beyond the limit on files leaves something in place'
for from in "$work/first" "$work/export"; do
    train --quiet model.path="$work/base" run.dir="$work/from-$(basename "$from")" train.steps=3 \
        trainable.start_from="$from"
    expect 0 '' "trainable.start_from=$from"
done
"$tools/state_compare" "$work/from-first" "$work/from-export" ||
    fail 'start_from an export: other bits'
train --check train.steps=3 trainable.start_from="$work/first"
expect 0 "warning: trainable.start_from $work/first was trained on another base model" \
    'start_from on another base'

# Signals: each saves and ends with 75, and the run goes on where it was.
start() {
    "$bin/f2b-train" --config "$work/run.yaml" train.steps=100000 run.save_every=0 "$@" \
        >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
}
await() { # until a command holds; a minute at most
    for ((i = 0; i < 600; i++)); do
        "$@" 2>/dev/null && return
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    fail "nothing happens: $*"
    tail -n 2 "$work/err"
}
steps_beyond() { [ "$(wc -l <"$run/metrics.jsonl")" -gt "$1" ]; }
rm -rf "$run"
done=1
for signal in INT TERM USR1; do
    start
    await steps_beyond $done
    kill -$signal $pid
    wait $pid
    code=$?
    expect 75 'the state is saved in' "SIG$signal"
    message "SIG$signal"
    done=$(wc -l <"$run/metrics.jsonl")
    [ "$(cat "$run/latest")" = "checkpoints/step-$(printf %08d "$done")" ] ||
        fail "SIG$signal: $done steps logged, latest is $(cat "$run/latest")"
done
settled "$(seq -s ' ' "$done")" 'a run of three parts'

# A second SIGINT does not wait for the micro-batch, here one of seconds. A first one that comes before
# that micro-batch has begun ends the run by itself: then once more.
for ((try = 0; try < 8; try++)); do
    rm -rf "$run"
    start sampler.conversation_batch=1500 sampler.contrastive_batch=1500 \
        train.micro_batch_tokens=1000000
    await test -e "$run/metrics.jsonl"
    sleep 0.$((5 + try))
    kill -INT $pid
    sleep 0.2
    kill -INT $pid 2>/dev/null
    wait $pid 2>/dev/null
    code=$?
    [ $code = 75 ] || break
done
[ $code = 130 ] || fail "a second SIGINT: exit $code"
[ -e "$run/latest" ] && fail 'a second SIGINT waits for a save'
finish
