#!/usr/bin/env bash
# Holds the source tree to docs/design.md: which room may include which, where CUDA may be named, no
# file too long to live in, no two files of one name.
#
#   scripts/check_includes.sh [ROOT]     ROOT: the tree to check (this repository)
#
# Prints each violation as file:line: text; exit 1 if there is any.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

# What each room may include besides itself.
declare -A may=(
    [autograd]=""
    [nn]="autograd"
    [data]="autograd"
    [checkpoints]="autograd nn"
    [infer]="autograd nn data checkpoints"
    [train]="autograd nn data checkpoints infer"
    [cli]="autograd nn data checkpoints infer train"
)
longest=1000

sources=$(find "${!may[@]}" tests -type f \
    \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.py' \) 2>/dev/null |
    sort || true)
found=$(mktemp)
trap 'rm -f "$found"' EXIT

for room in "${!may[@]}"; do
    [ -d "$room" ] || continue
    grep -rnE --include='*.c' --include='*.h' --include='*.cu' --include='*.cuh' --include='*.def' \
        '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$room" |
        awk -F'"' -v room="$room" -v allowed=" $room ${may[$room]} " '
            $2 == "f2b_version.h" { next }      # generated
            $2 !~ "/" { print $1 "\"" $2 "\": write the path from the root"; next }
            { split($2, part, "/") }
            index(allowed, " " part[1] " ") == 0 {
                print $1 "\"" $2 "\": " room " may not include " part[1]
            }' >>"$found" || true
done

# CUDA belongs to the device and to the kernels; everyone else goes through autograd/device.
echo "$sources" | grep -vE '^(tests/|autograd/device/)|_cuda\.(c|cu|cuh|h)$' |
    xargs -r grep -nE -e '#[[:space:]]*include[[:space:]]*[<"](cuda|cublas|cudnn|nccl)' \
        -e '^[[:space:]]*#[[:space:]]*(el)?if.*CUDA' /dev/null | sed 's/$/: CUDA outside autograd\/device and *_cuda.cu/' >>"$found" || true

echo "$sources" | xargs -r wc -l |
    awk -v longest=$longest '$2 != "total" && $1 > longest {
        print $2 ":" $1 ": longer than " longest " lines"
    }' >>"$found"

names=$(echo "$sources" | grep -E '\.(c|h|cu|cuh)$' | sed 's|.*/||' | sort | uniq -d)
for name in $names; do
    echo "$sources" | grep -E "(^|/)$name\$" | sed 's/$/: another file has the same name/'
done >>"$found" || true

if [ -s "$found" ]; then
    cat "$found"
    echo "check_includes: $(wc -l <"$found") violations" >&2
    exit 1
fi
