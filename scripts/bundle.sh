#!/usr/bin/env bash
# bundle.sh: a folder that qualifies a CUDA device on another machine, which needs a driver and cuBLASLt
# and nothing else: programs, tests, the libraries they need, settings, and gpu-check.sh, the one command
# that is run there.
#
#   scripts/bundle.sh [--out DIR] [--archive] [--build DIR] [--emulated]
#
#   --out DIR     where it goes (build/f2b-gpu); an earlier bundle there is replaced
#   --archive     DIR.tar.gz beside it
#   --build DIR   take what is built there, for the processor it was built for, instead of building for
#                 x86-64-v3 in build/bundle (the cuda preset, which needs nvcc)
#   --emulated    take the programs whose device is the emulated one (with --build: for tests)
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/f2b-gpu build="" archive=no within=.
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2 && shift ;;
    --build) build=$2 && shift ;;
    --archive) archive=yes ;;
    --emulated) within=emulated ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d' >&2 && exit 2 ;;
    esac
    shift
done

march="the processor of the machine that built it"
if [ -z "$build" ]; then
    build=build/bundle march="any x86-64-v3 processor (AVX2, FMA: Intel since 2013, AMD since 2015)"
    cmake --preset cuda -B $build -DF2B_MARCH=x86-64-v3 -DF2B_PORTABLE=ON >/dev/null
    cmake --build $build --target programs real_gpu_tests real_gpu_step \
        real_gpu_rates tiny_world state_compare
fi

# Only a bundle is ever replaced.
if [ -e "$out" ] && [ ! -e "$out/gpu-check.sh" ]; then
    echo "bundle: $out is there and is no bundle; remove it or choose another --out" >&2
    exit 2
fi
rm -rf "$out"
mkdir -p "$out"/{bin,tests,lib,gpu}
cp scripts/gpu-check.sh "$out/"
for program in train data eval; do
    for from in "$build/$within/bin" "$build/bin"; do
        if [ -x "$from/f2b-$program" ]; then cp "$from/f2b-$program" "$out/bin/" && break; fi
    done
done
cp "$build/$within/tests"/{gpu_tests,gpu_step,gpu_rates} "$out/tests/"
cp "$build/tests"/{tiny_world,state_compare} "$out/tests/"
cp scripts/gpu/* "$out/gpu/"
cp -r configs "$out/"
strip --strip-unneeded "$out"/bin/* "$out"/tests/*

# Shared libraries that are not the C library's own; the programs look for them in ../lib.
ldd "$out"/bin/* "$out"/tests/* | awk '$2 == "=>" && $3 ~ "^/" { print $1, $3 }' | sort -u |
    { grep -vE '^(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^ ]*)\.so' || true; } |
    while read -r name path; do
        cp -L "$path" "$out/lib/$name"
    done
missing=$(ldd "$out"/bin/* "$out"/tests/* | grep 'not found' || true)
if [ -n "$missing" ]; then
    echo "bundle: libraries are missing: $missing" >&2
    exit 1
fi

glibc=$(objdump -T "$out"/bin/* "$out"/tests/* "$out"/lib/* 2>/dev/null |
    grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
toolkit=$("$(sed -n 's/^F2B_NVCC:[A-Z]*=//p' "$build/CMakeCache.txt")" --version 2>/dev/null |
    sed -n 's/.*release \([0-9.]*\).*/\1/p') || true
cat >"$out/README.md" <<README
# Qualifying a CUDA device for fwd2bot

    ./gpu-check.sh

runs all checks and benchmarks within ten minutes and writes one report, report.md; \`--help\` has the
choices. The folder may lie anywhere.

What it needs:

- a processor: $march
- the C library of GNU, ${glibc/GLIBC_/} or newer ($(getconf GNU_LIBC_VERSION) built it), bash,
  coreutils, grep, sed and awk
- an NVIDIA driver for CUDA ${toolkit:-12 or 13} or newer, and a device of compute capability 8.0 or above
- cuBLASLt: the CUDA toolkit's, or that of pip's nvidia-cublas; it is looked for in the usual places
  and in LD_LIBRARY_PATH
- for the comparison with PyTorch: PEER_PYTHON, the python of an environment with torch, transformers
  and peft (default: python3)
- for its section: compute-sanitizer, of the toolkit
README
echo "$out: $(du -sm "$out" | cut -f1) MiB" >&2
if [ $archive = yes ]; then
    tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
    echo "$out.tar.gz: $(du -sm "$out.tar.gz" | cut -f1) MiB" >&2
fi
