#!/usr/bin/env bash
# Coverage-guided fuzzing of one reader with clang's libFuzzer, under ASan and UBSan.
#
#   scripts/fuzz.sh FORMAT [SECONDS]    llava coco tsv tar image tokenizer config safetensors gguf
#                                       model method; 600 seconds
#
# It starts from the kept corpus, tests/fuzz/corpus/FORMAT.tar, and from the files in
# build/fuzz/seeds/FORMAT if you put any there, works in build/fuzz, and at its end replaces the
# kept corpus by the smallest set of inputs that reaches the same code. The ordinary form, without
# clang, is the test fuzz/test_fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
format=${1:?usage: scripts/fuzz.sh FORMAT [SECONDS]}
seconds=${2:-600}
work=build/fuzz
kept=tests/fuzz/corpus/$format.tar
packages="jansson libxxhash hdf5 yaml-0.1"
flags="-std=c11 -D_GNU_SOURCE -I. -O1 -g1 -march=native -fno-omit-frame-pointer -w
    -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
    $(pkg-config --cflags $packages)"
# clang has no OpenMP of its own here: gcc's header and library; the pragmas are not seen.
gcc=$(dirname "$(gcc -print-libgcc-file-name)")
flags+=" -idirafter $gcc/include"
mkdir -p $work/objects $work/corpus/"$format" $work/seeds/"$format" tests/fuzz/corpus

compile() {
    local object=$work/objects/${1//\//_}.o
    [ "$object" -nt "$1" ] || clang $flags -c "$1" -o "$object"
}
export -f compile
export work flags
sources=$(find data checkpoints train nn autograd/core autograd/device \
    -name '*.c' ! -name '*_cpu.c')
# A changed header is not seen by `compile`: everything anew then.
if [ -n "$(find data checkpoints train nn autograd tests -name '*.h' -newer $work/objects)" ]; then
    rm -f $work/objects/*
fi
printf '%s\n' $sources tests/support/fuzz_formats.c tests/fuzz/libfuzzer.c |
    xargs -P "$(nproc)" -I{} bash -c 'compile {}'
touch $work/objects
rm -f $work/readers.a
ar rcs $work/readers.a $(ls $work/objects/*.o | grep -v libfuzzer)
clang -fsanitize=fuzzer,address,undefined $work/objects/tests_fuzz_libfuzzer.c.o $work/readers.a \
    -o $work/fuzz $(pkg-config --libs $packages) -lpthread -lm -L"$gcc" -lgomp

[ -e "$kept" ] && tar -xf "$kept" -C $work/corpus/"$format"
export F2B_FUZZ_FORMAT=$format OMP_NUM_THREADS=1 ASAN_OPTIONS=max_allocation_size_mb=2048
limits="-timeout=60 -rss_limit_mb=3000 -malloc_limit_mb=1024 -max_len=16384"
$work/fuzz $work/corpus/"$format" $work/seeds/"$format" $limits -max_total_time="$seconds" \
    -artifact_prefix=$work/failure-"$format"- -print_final_stats=1

# The smallest set of inputs.
rm -rf $work/small
mkdir $work/small
$work/fuzz -merge=1 $limits $work/small $work/corpus/"$format" $work/seeds/"$format" 2>/dev/null
tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=644 \
    -cf "$kept" -C $work/small $(cd $work/small && ls)
echo "$kept: $(ls $work/small | wc -l) inputs, $(stat -c %s "$kept") bytes"
