#!/usr/bin/env bash
# scripts/check_includes.sh passes on this repository, and finds each kind of violation in a tree that
# is right but for it.
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/check_includes.sh

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# expect WHAT FILE CONTENT TEXT: with that file the check fails and says TEXT.
expect() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree/autograd/core" "$tree/data" "$tree/train" "$tree/tests" "$(dirname "$tree/$2")"
    echo '#include "autograd/core/a.h"' >"$tree/data/d.c"
    echo '#include <cuda_runtime.h>' >"$tree/autograd/core/sum_cuda.cu"
    if ! scripts/check_includes.sh "$tree"; then
        echo "FAILED: the tree of $1 is refused before the violation"
        exit 1
    fi
    printf '%s\n' "$3" >"$tree/$2"
    if output=$(scripts/check_includes.sh "$tree" 2>&1) || ! grep -qF "$4" <<<"$output"; then
        echo "FAILED: $1 was not found; the check printed: $output"
        exit 1
    fi
}

expect 'an arrow back' autograd/core/b.c '#include "data/d.h"' \
    'autograd/core/b.c:1:#include "data/d.h": autograd may not include data'
expect 'data knowing nn' data/e.h ' # include "nn/x.h"' 'data may not include nn'
expect 'infer knowing train' infer/i.c '#include "train/t.h"' 'infer may not include train'
expect 'a path that is not from the root' train/t.c '#include "t.h"' 'write the path from the root'
expect 'a CUDA header' train/t.c '#include <cublasLt.h>' 'CUDA outside'
expect 'a device switch' train/t.c '#ifdef HAVE_CUDA' 'CUDA outside'
expect 'a long file' tests/l.c "$(seq 1001)" 'tests/l.c:1001: longer than 1000 lines'
expect 'a name twice' train/d.c 'int x;' 'train/d.c: another file has the same name'
echo "all violations were found"
