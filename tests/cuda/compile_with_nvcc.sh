#!/usr/bin/env bash
# Compiles every .cu of the tree with nvcc, for each type, and the device's C files with CUDA's own
# headers. Warnings are errors. Run by ctest (cuda/nvcc), which sets F2B_NVCC, F2B_NVCC_FLAGS and
# F2B_CUDA_TYPES.
#
#   compile_with_nvcc.sh FOLDER      for the objects; those newer than all sources are kept
set -euo pipefail
objects=$1
mkdir -p "$objects"
IFS=';' read -ra flags <<<"$F2B_NVCC_FLAGS"
IFS=';' read -ra types <<<"$F2B_CUDA_TYPES"
headers=$(find autograd -name '*.h' -o -name '*.cuh')
newest_header=$(ls -t $headers | sed -n 1p)
toolkit=$(dirname "$(dirname "$(readlink -f "$F2B_NVCC")")")

compile() { # object source command...
    local object=$1 source=$2
    shift 2
    if [ "$object" -nt "$source" ] && [ "$object" -nt "$newest_header" ]; then return 0; fi
    "$@" -D_GNU_SOURCE -I. -c "$source" -o "$object.part" || {
        echo "does not compile: $source" >&2
        return 1
    }
    mv "$object.part" "$object"
}

failed=0 running=0
start() {
    if [ $running -ge 2 ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    compile "$@" &
    running=$((running + 1))
}
while read -r source; do
    for type in "${types[@]}"; do
        start "$objects/$(basename "$source").$type.o" "$source" "$F2B_NVCC" -std=c++17 -O3 -arch=sm_80 \
            "${flags[@]}" "-DF2B_KERNEL_$type"
    done
done < <(find autograd -name '*.cu' | sort)
for source in autograd/device/cuda/*.c; do
    start "$objects/$(basename "$source").o" "$source" cc -std=c11 -Wall -Wextra -Werror \
        -isystem "$toolkit/include"
done
while [ $running -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit $failed
