#!/usr/bin/env bash
# Installs what building fwd2bot needs (Debian packages) and, for the tests only, the Python
# oracles: Debian's PyTorch and, in .venv, versions of transformers, peft, ... that suit it.
#
#   scripts/setup.sh                 everything
#   scripts/setup.sh --build-only    no oracles
#   scripts/setup.sh --with-llama-cpp  llama.cpp too, for the test of GGUF exports; it is built from
#                                    source, which takes 7 minutes of processor time
#
# Installs only what is missing, asks nothing, and takes a second when there is nothing to do.
# The oracles are optional: without them it says so and ends well, and the tests use the golden
# values that are committed.
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(
    build-essential cmake ninja-build pkg-config git
    libhdf5-dev libyaml-dev libjansson-dev libxxhash-dev libstb-dev libjpeg62-turbo-dev
    libcmocka-dev
)
oracle_packages=(
    python3-venv python3-torch python3-numpy python3-h5py python3-sentencepiece python3-pil
    python3-pytest libopenblas0-pthread
)

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        say "needs root or sudo to run: $*" >&2
        return 1
    fi
}

# Prints those of its arguments that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            echo "$package"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || {
        say "this is not Debian; install by hand what gives: ${missing[*]}" >&2
        return 1
    }
    say "installing Debian packages: ${missing[*]}"
    local log
    log=$(mktemp)
    if as_root apt-get -qq update >"$log" 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
            install "${missing[@]}" >>"$log" 2>&1; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# .venv sees Debian's torch; pip adds the pinned rest, never a torch of its own (--no-deps).
install_venv() {
    local stamp=.venv/oracles.txt
    if cmp -s scripts/oracles.txt "$stamp" && .venv/bin/python -c '' 2>/dev/null; then
        return 0
    fi
    say "installing the oracles of scripts/oracles.txt into .venv"
    rm -rf .venv
    /usr/bin/python3 -m venv --system-site-packages .venv &&
        .venv/bin/python -m pip install --quiet --no-deps --disable-pip-version-check \
            --requirement scripts/oracles.txt &&
        .venv/bin/python -c 'import torch, transformers, peft, safetensors, gguf' &&
        cp scripts/oracles.txt "$stamp"
}

# llama.cpp as a library, without what its own programs need.
llama_cpp=(llama-cpp-python==0.3.36 diskcache==5.6.3)
install_llama_cpp() {
    .venv/bin/python -c 'import llama_cpp' 2>/dev/null && return 0
    say "building llama.cpp (some minutes)"
    local off="" part
    for part in GGML_OPENMP GGML_BLAS GGML_LLAMAFILE LLAVA_BUILD LLAMA_CURL \
        LLAMA_BUILD_{TESTS,EXAMPLES,TOOLS,SERVER}; do
        off="$off -D$part=OFF"
    done
    CMAKE_ARGS="$off" CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-2} nice -n 10 \
        .venv/bin/python -m pip install --quiet --no-deps --disable-pip-version-check \
        --no-binary llama-cpp-python "${llama_cpp[@]}"
}

oracles=yes
with_llama_cpp=no
case "${1:-}" in
    "") ;;
    --build-only) oracles=no ;;
    --with-llama-cpp) with_llama_cpp=yes ;;
    *)
        say "usage: scripts/setup.sh [--build-only | --with-llama-cpp]" >&2
        exit 2
        ;;
esac

install_packages "${build_packages[@]}" || {
    say "the build packages could not be installed (see above)" >&2
    exit 1
}
if [ $oracles = yes ]; then
    if install_packages "${oracle_packages[@]}" && install_venv; then
        say "ready, with the oracles"
    else
        rm -rf .venv
        say "ready, but without the Python oracles (see above): tests that need them are skipped," \
            "the others use the committed golden values"
    fi
else
    say "ready to build"
fi
if [ $with_llama_cpp = yes ]; then
    install_llama_cpp || {
        say "llama.cpp could not be built (see above): its test is skipped" >&2
        exit 1
    }
    say "llama.cpp is there: tests/infer/test_llama_cpp.py runs"
fi
