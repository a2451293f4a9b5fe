#!/usr/bin/env bash
# f2b-compress as a person runs it: every kind of source, names and copies, bad images, and the same
# bytes whatever the batch, the threads, or how often it was killed.
# KILLS=20 IMAGES=1000 is the long form; SEED chooses the moments.
. "$(dirname "$0")/../train/tiny_runs.sh"
kills=${KILLS:-3}
images=${IMAGES:-120}
RANDOM=${SEED:-1}

train --quiet train.steps=3
expect 0 '' 'a run to compress with' || finish

# compress STORE ARGUMENT...: with that run; its exit code in $code, its output in out and err.
compress() {
    local store=$1
    shift
    "$bin/f2b-compress" --checkpoint "$work/run" --out "$work/$store" "$@" \
        >"$work/out" 2>"$work/err" </dev/null
    code=$?
}

# has NAME VALUE WHAT: a number of the summary.
has() { grep -q "\"$1\": $2[,}]" "$work/out" || fail "$3: no \"$1\": $2 in $(cat "$work/out")"; }

# equal STORE STORE WHAT: all files of both, to the byte.
equal() { diff -r "$work/$1" "$work/$2" >"$work/diff" || fail "$3: $(head -n 1 "$work/diff")"; }

# ---- A folder with copies, damage and things that are no images ----
folder=$work/folder
mkdir -p "$folder/sub/.hidden"
"$bin/f2b-data" toy --out "$work/more" --train "$images" --val 1 --image-size 16 --quiet >/dev/null ||
    fail 'no toy world'
cp "$work/more/images/"t*.png "$folder"
first=t000000.png
cp "$folder/$first" "$folder/copy.png"
cp "$folder/$first" "$folder/sub/zz.JPG"
cp "$folder/$first" "$folder/sub/.hidden/x.png"
echo 'no image' >"$folder/sub/bad.jpg"
head -c 60 "$folder/$first" >"$folder/cut.png"
: >"$folder/empty.png"
echo text >"$folder/notes.txt"
ln -s /etc/hostname "$folder/link.png"
distinct=$(md5sum "$folder"/t*.png | cut -d' ' -f1 | sort -u | wc -l)
copies=$((images + 2 - distinct))

options="--images $folder --shard-images 16 --quiet"
compress ref $options
expect 0 '' 'a folder'
has images "$distinct" 'a folder'
has duplicates "$copies" 'a folder'
has bad 4 'a folder'
[ "$(wc -l <"$work/ref/bad_images.jsonl")" = 4 ] || fail 'the list of bad images'
for fault in '"sub/bad.jpg", "fault": "broken_image"' '"cut.png", "fault": "broken_image"' \
    '"empty.png", "fault": "broken_image"' '"link.png", "fault": "unsafe_image_name"'; do
    grep -qF "$fault" "$work/ref/bad_images.jsonl" || fail "not listed: $fault"
done
"$bin/f2b-inspect" --verify "$work/ref" >"$work/out" || fail 'a sound store does not verify'
grep -q "images  *$distinct" "$work/out" || fail "f2b-inspect: $(head -n 3 "$work/out")"

# The same bytes whatever the batch and the threads; nothing to do the second time.
compress other $options --batch 1 --workers 1 --threads 1
equal ref other 'batches of one'
compress other $options
expect 0 '' 'again'
has compressed 0 'again'
has known "$((images + 2))" 'again'
equal ref other 'again'
rm -rf "$work/other"
compress other $options --batch 7 --workers 3 --threads 3
equal ref other 'batches of seven'

# A standard stream that is closed is not a file's: progress would be written into it.
"$bin/f2b-compress" --checkpoint "$work/run" --out "$work/closed" --images "$folder" --shard-images 16 \
    <&- >&- 2>&-
[ $? = 3 ] || fail 'closed streams: results that nobody gets are no failure'
equal ref closed 'closed streams'

# ---- Killed at random moments, and stopped ----
start=$(date +%s%3N)
compress timed $options --batch 4
span=$(($(date +%s%3N) - start))
rm -rf "$work/timed" "$work/other"
done_kills=0 rounds=0 grew=0 on_this=0 most=0
while [ $done_kills -lt "$kills" ] && [ $rounds -lt $((20 * kills)) ]; do
    rounds=$((rounds + 1))
    "$bin/f2b-compress" --checkpoint "$work/run" --out "$work/other" $options --batch 4 \
        >/dev/null 2>"$work/err" </dev/null &
    pid=$!
    sleep "$(awk -v s=$span -v r=$RANDOM -v k="$kills" \
        'BEGIN { print s / 1000 * (0.05 + r / 32768 * 1.6 / k) }')"
    signal=KILL
    [ $((RANDOM % 3)) = 0 ] && signal=TERM
    kill -$signal $pid 2>/dev/null && stopped=yes || stopped=no
    wait $pid
    code=$?
    [ $stopped = yes ] && [ $code != 0 ] && done_kills=$((done_kills + 1))
    if [ $signal = TERM ] && [ $code != 75 ] && [ $code != 143 ] && [ $code != 0 ]; then
        fail "SIGTERM: exit $code: $(tail -n 1 "$work/err")"
    fi
    shards=$(grep -c '"file"' "$work/other/store.json" 2>/dev/null)
    [ "${shards:-0}" -ge "$grew" ] || fail "a shard was lost: $grew, then $shards"
    grew=${shards:-0}
    [ $code != 0 ] && on_this=$((on_this + 1)) && [ $on_this -gt $most ] && most=$on_this
    [ $code = 0 ] || continue
    equal ref other "done after $on_this kills"
    rm -rf "$work/other"
    grew=0 on_this=0
done 2>/dev/null    # the shell tells of every kill
compress other $options
expect 0 '' 'the last run'
equal ref other "killed $done_kills times"
[ $done_kills -ge "$kills" ] || fail "only $done_kills kills of $rounds rounds came in time"
echo "killed $done_kills times in $rounds rounds, $most times in one store; $images images"

# A first signal stops with 75 and says how to go on.
for round in 1 2 3 4 5; do      # on a busy machine the run may end before the signal
    rm -rf "$work/stopped"
    "$bin/f2b-compress" --checkpoint "$work/run" --out "$work/stopped" --images "$folder" \
        --batch 1 >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    until [ -s "$work/err" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
    kill -TERM $pid 2>/dev/null
    wait $pid
    code=$?
    [ $code = 0 ] || break
done
expect 75 'stopped by SIGTERM' 'SIGTERM'
message 'a stop'

# ---- Damage is named; others' stores are refused ----
cp -r "$work/ref" "$work/hurt"
printf '\xff' | dd of="$work/hurt/shard-00001.h5" bs=1 seek=2500 conv=notrunc status=none
"$bin/f2b-inspect" --verify "$work/hurt" >"$work/out" 2>"$work/err"
code=$?
expect 3 'shard-00001.h5' 'a flipped bit'
grep -q 'DAMAGED.*shard-00001.h5' "$work/out" || fail 'f2b-inspect shows no damage'
message 'a flipped bit'
truncate -s 3000 "$work/hurt/shard-00000.h5"
compress hurt $options
expect 3 'shard-00000.h5 has 3000 bytes' 'a truncated shard'
message 'a truncated shard'
"$bin/f2b-inspect" "$work/hurt" >"$work/out" 2>"$work/err"
code=$?
expect 3 'shard-00000.h5 has 3000 bytes' 'f2b-inspect of a truncated shard'

compress ref $options --precision bf16
expect 2 '--precision f32' 'another precision'
mv "$work/run" "$work/run-1"
train --quiet train.steps=1 train.seed=5
expect 0 '' 'another run'
compress ref $options
expect 3 'another model' 'another model'
[ "$(grep -o 'xxh3:[0-9a-f]*' "$work/err" | sort -u | wc -l)" = 3 ] || fail 'not both fingerprints'
message 'another model'
rm -rf "$work/run" && mv "$work/run-1" "$work/run"

# An export makes the same tokens, and goes on with the run's store.
"$bin/f2b-export" --checkpoint "$work/run" --format peft --out "$work/export" >/dev/null ||
    fail 'no export'
"$bin/f2b-compress" --checkpoint "$work/export" --model "$work/model" $options --out "$work/ref" \
    >"$work/out" 2>"$work/err"
code=$?
expect 0 '' 'an export goes on with its store'
has compressed 0 'an export'

# ---- Other sources ----
ls "$folder"/t*.png | head -n 3 >"$work/list.txt"
echo sub/zz.JPG >>"$work/list.txt"
compress listed --images "$work/list.txt" --image-folder "$folder" --quiet
expect 0 '' 'a list'
has images 3 'a list'
has duplicates 1 'a list'
printf 'a caption\tt000000.png\n\xff\xfe\tt000001.png\nno such\tnone.png\n' >"$work/x.tsv"
compress tsv --images "$work/x.tsv" --image-folder "$work/images" --quiet
has images 2 'TSV'
has bad 1 'TSV'
compress json --images "$work/train.json" --image-folder "$work/images" --quiet
expect 0 '' 'LLaVA JSON'
has bad 0 'LLaVA JSON'
[ "$(grep -o '"without_image": [0-9]*' "$work/out" | cut -d' ' -f2)" -ge 1 ] || fail 'no text-only'
compress coco --images "$work/conversation_captions.json" --image-folder "$work/images" --quiet
expect 0 '' 'COCO JSON'
for i in 0 1; do
    tar -C "$folder" -cf "$work/0000$i.tar" "t00000$i.png" "t00000$((i + 2)).png"
done
compress tar --images "$work/{00000..00001}.tar" --quiet
expect 0 '' 'tar shards without captions'
has images 4 'tar'
grep -qaF '00001.tar/t000003.png' "$work/tar/shard-00000.h5" || fail 'the id of a tar sample'

# A changed file is told, and its tokens stay.
compress grow --images "$work/images" --quiet
cp "$folder/t000007.png" "$work/images/t000001.png"
compress grow --images "$work/images" --quiet
grep -q '"t000001.png", "fault": "changed_image"' "$work/grow/bad_images.jsonl" || fail 'a change'
for f in "$folder"/t00002?.png; do cp "$f" "$work/images/new-${f##*/}"; done
compress grow --images "$work/images" --quiet
has compressed 10 'new images'
"$bin/f2b-inspect" --verify "$work/grow" >/dev/null || fail 'a store that grew'

# ---- Methods and numbers ----
for setting in method.forward=single method.adapters=single summary.tokens=7; do
    rm -rf "$work/run"
    train --quiet train.steps=1 "$setting"
    expect 0 '' "a run with $setting"
    compress "m-$setting" --images "$work/images" --quiet
    expect 0 '' "$setting"
    "$bin/f2b-inspect" --verify "$work/m-$setting" >/dev/null || fail "$setting"
done
for numbers in '--precision bf16' '--weights f16' '--precision bf16 --weights bf16'; do
    rm -rf "$work/a" "$work/b"
    compress a --images "$work/images" --quiet $numbers --batch 1
    expect 0 '' "$numbers"
    compress b --images "$work/images" --quiet $numbers --batch 5
    equal a b "$numbers in other batches"
done

# ---- A full disk ----
mkdir "$work/small"
if mount -t tmpfs -o size=1m none "$work/small" 2>/dev/null; then
    trap 'umount -l "$work/small"; rm -rf "$work"' EXIT
    rm -rf "$work/run" "$work/whole"
    train --quiet train.steps=1
    compress whole --images "$folder" --shard-images 16 --quiet
    dd if=/dev/zero of="$work/small/filler" bs=1k count=900 status=none
    compress small/store --images "$folder" --shard-images 16 --quiet
    expect 3 'No space left on device' 'a full disk'
    message 'a full disk'
    shards=$(grep -c '"file"' "$work/small/store/store.json")
    [ "$shards" -ge 1 ] || fail 'a full disk: no shard came before it'
    "$bin/f2b-inspect" --verify "$work/small/store" >/dev/null || fail 'a full disk: damage'
    rm "$work/small/filler"
    compress small/store --images "$folder" --shard-images 16 --quiet
    expect 0 '' 'room again'
    equal small/store whole 'a disk that was full'
else
    echo 'not tried: a full disk (no right to mount one)'
fi

# ---- Refusals ----
compress x --images "$work/none"
expect 3 "$work/none" 'no such source'
mkdir "$work/nothing"
compress x --images "$work/nothing"
expect 3 'has no images' 'an empty folder'
[ ! -e "$work/x" ] || fail 'a store was begun for nothing'
echo none >"$work/nothing/a.jpg"
compress x --images "$work/nothing"
expect 3 'none of 1 images could be used' 'no usable image'
message 'no usable image'
compress folder --images "$folder"
expect 1 'holds other files' 'a folder that is no store'
"$bin/f2b-compress" --checkpoint "$work/model" --images "$folder" --out "$work/x" 2>"$work/err"
code=$?
expect 3 'checkpoint' 'a base model'
compress x --images "$folder" --image-folder "$work"
expect 2 'takes no other' 'a folder and a folder'
finish
