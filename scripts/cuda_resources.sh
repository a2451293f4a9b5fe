#!/usr/bin/env bash
# What every CUDA kernel takes of a multiprocessor, as a table: registers a thread, shared memory that is
# declared (what a launch asks for comes on top), bytes that registers spill to memory, and instructions
# for tensor cores (HMMA). Needs nvcc, not a GPU. Exit code 1 if a kernel spills.
#
#   scripts/cuda_resources.sh [--arch LIST] [--keep FOLDER]
#
#   --arch LIST      sm_NN of each, as 80,89,90 (90)
#   --keep FOLDER    compiled kernels stay there; those newer than all their sources are used again
#
# The page: scripts/cuda_resources.sh --arch 80,89,90 > docs/cuda-resources.md
set -euo pipefail
archs=90 kept=
while [ $# -gt 0 ]; do
    case "$1" in
        --arch) archs=${2:?"--arch needs a list"} && shift 2 ;;
        --keep) kept=$(realpath -m "${2:?"--keep needs a folder"}") && shift 2 ;;
        --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
        *) echo "cuda_resources.sh: \"$1\" is no option; see --help" >&2 && exit 2 ;;
    esac
done
cd "$(dirname "$0")/.."
nvcc=${F2B_NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "cuda_resources.sh: no nvcc; install the CUDA toolkit, or name it in F2B_NVCC" >&2; exit 4; }
if [ -z "$kept" ]; then
    kept=$(mktemp -d)
    trap 'rm -rf "$kept"' EXIT
fi
mkdir -p "$kept"
newest_header=$(find autograd \( -name '*.h' -o -name '*.cuh' \) -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)

# One file for one type and architecture: NAME.cubin, and NAME.log with what ptxas says of its kernels.
compile() { # source type arch
    local name
    name=$kept/$(basename "$1" .cu).$2.$3
    [ "$name.cubin" -nt "$1" ] && [ "$name.cubin" -nt "$newest_header" ] && return 0
    "$nvcc" -std=c++17 -O3 -DNDEBUG -D_GNU_SOURCE -I. "-DF2B_KERNEL_$2" "-arch=sm_$3" -Xptxas -v -cubin "$1" \
        -o "$name.part" 2>"$name.log" || { cat "$name.log" >&2; return 1; }
    mv "$name.part" "$name.cubin"
}

running=0 failed=0
for arch in ${archs//,/ }; do
    for source in $(find autograd -name '*.cu' | sort); do
        for type in F32 BF16; do
            if [ $running -ge 2 ]; then
                wait -n || failed=1
                running=$((running - 1))
            fi
            compile "$source" "$type" "$arch" &
            running=$((running + 1))
        done
    done
done
while [ $running -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ $failed = 0 ] || exit 3

# Instructions for tensor cores of each kernel, "mangled count": an instruction is 16 bytes, a line of
# readelf's dump; its opcode is the low 12 bits, HMMA's 0x23C.
tensor_instructions() { # cubin
    readelf -SW "$1" 2>/dev/null | grep -o '\.text\.[A-Za-z0-9_]*' | while read -r section; do
        echo "${section#.text.} $(readelf -x "$section" "$1" 2>/dev/null | grep -cE '^ +0x[0-9a-f]+ 3c.2' || true)"
    done || true
}

rows() { # of one cubin: "file type kernel arch registers shared spilled hmma"
    local name=$1 file type arch
    IFS=. read -r file type arch <<<"$(basename "$name")"
    tensor_instructions "$name.cubin" >"$name.hmma"
    awk -v file="$file" -v type="$type" -v arch="$arch" -v counts="$name.hmma" '
        BEGIN { while ((getline line < counts) > 0) { split(line, part, " "); hmma[part[1]] = part[2] } }
        /Compiling entry function/ { split($0, part, "\047"); kernel = part[2] }
        /bytes spill stores/ { for (i = 2; i <= NF; i++) if ($i == "bytes" && $(i + 1) == "spill") spilled += $(i - 1) }
        /Used [0-9]+ registers/ {
            registers = shared = 0
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^registers/) registers = $(i - 1)
                if ($i == "bytes" && $(i + 1) ~ /^smem/) shared = $(i - 1)
            }
            print file, tolower(type), kernel, "sm_" arch, registers, shared, spilled + 0, hmma[kernel] + 0
            spilled = 0
        }' "$name.log" | c++filt | sed -E 's/\([^)]*\)//'
}

table=$(for arch in ${archs//,/ }; do
    for cubin in "$kept"/*."$arch".cubin; do rows "${cubin%.cubin}" | sort; done
done)
cat <<TEXT
# What CUDA kernels take

Written by \`scripts/cuda_resources.sh\` ($("$nvcc" --version | grep -o 'release [0-9.]*')). Registers a
thread; shared memory that a kernel declares, in bytes (what a launch asks for comes on top); bytes of
registers that spill to memory and come back; HMMA, the instructions for tensor cores. Where devices
differ, in the order sm_${archs//,/, sm_}.

| file | type | kernel | registers | shared | spilled | HMMA |
| --- | --- | --- | ---: | ---: | ---: | ---: |
TEXT
# One line a kernel: a column's numbers are joined where they differ.
awk '
    function add(column, value) {
        joined[key, column] = key in seen ? joined[key, column] " / " value : value
        if (key in seen && value != first[key, column]) differ[key, column] = 1
        if (!(key in seen)) first[key, column] = value
    }
    {
        key = "| " $1 " | " $2 " | " $3 " |"
        if (!(key in seen)) order[++n] = key
        for (c = 5; c <= 8; c++) add(c, $c)
        seen[key] = 1
    }
    END {
        for (i = 1; i <= n; i++) {
            key = order[i]
            line = key
            for (c = 5; c <= 8; c++) line = line " " (differ[key, c] ? joined[key, c] : first[key, c]) " |"
            print line
        }
    }' <<<"$table"
awk '$7 > 0 { print "cuda_resources.sh: " $1 " " $2 " " $3 " spills " $7 " bytes on " $4 > "/dev/stderr"; bad = 1 }
     END { exit bad }' <<<"$table"
