#!/usr/bin/env bash
# The whole suite, as CI runs it: set-up, the debug build (ASan, UBSan, warnings are errors) and
# its tests, the release build and its tests with the comparisons against the Python oracles.
# The exit code is the verdict; the last line counts.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

passed=0
failed=0
skipped=0

# Adds ctest's own counts (JUnit: tests, failures, skipped, disabled) to ours.
count() {
    local header tests failures skips
    header=$(grep -m1 -A8 '<testsuite' "$1")
    tests=$(sed -n 's/.*[[:space:]]tests="\([0-9]*\)".*/\1/p' <<<"$header" | head -n1)
    failures=$(sed -n 's/.*failures="\([0-9]*\)".*/\1/p' <<<"$header" | head -n1)
    skips=$(sed -n 's/.*skipped="\([0-9]*\)".*/\1/p' <<<"$header" | head -n1)
    passed=$((passed + tests - failures - skips))
    failed=$((failed + failures))
    skipped=$((skipped + skips))
}

# build PRESET: quiet unless it fails.
build() {
    say "build $1"
    local log=build/$1.log
    mkdir -p build
    if ! { cmake --preset "$1" && cmake --build --preset "$1"; } >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "the $1 build failed; all of its output is in $log"
        echo "0 passed, 1 failed"
        exit 1
    fi
}

# run PRESET [ctest options]
run() {
    local preset=$1 report=build/$1.xml
    shift
    say "test $preset"
    rm -f "$report"
    ctest --preset "$preset" --parallel 2 --output-junit "$PWD/$report" --no-tests=error \
        --no-label-summary "$@" || true
    [ -s "$report" ] || {
        echo "0 passed, 1 failed"
        exit 1
    }
    count "$report"
}

say "set-up"
scripts/setup.sh
build debug
run debug --label-exclude oracle
build release
run release

printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed = 0 ]
