#!/usr/bin/env bash
# The bundle (scripts/bundle.sh) made of programs with the emulated device, moved elsewhere and run with an
# empty environment: gpu-check.sh passes, its report has every section; and what is wrong is found and named:
# a failing op, training that differs, a resume that differs, a hang, a machine without a device.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${F2B_BUILD_DIR:-build/debug}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}

scripts/bundle.sh --build "$build" --emulated --out "$work/made" || exit 1
mkdir "$work/else where" && mv "$work/made" "$work/else where/bundle"
bundle="$work/else where/bundle"
report="$work/report/report.md"

# check ARGUMENT...: gpu-check.sh, small; exit code in $code, what it said in $work/said.
check() {
    rm -rf "$work/report"
    (cd / && env -i PATH=/usr/bin:/bin OMP_NUM_THREADS=2 "$bundle/gpu-check.sh" --quick --shape tiny \
        --out "$work/report" "$@") >"$work/said" 2>&1
    code=$?
}

# expect CODE TEXT WHAT: of the last check.
expect() {
    [ "$code" = "$1" ] && grep -qsF -- "$2" "$work/said" "$report" && return
    fail "$3: exit code $code instead of $1, or no '$2'"
    sed 's/^/  | /' "$work/said"
    [ ! -e "$report" ] || tail -n 60 "$report" | sed 's/^/  > /'
}

# plant PROGRAM TEXT: in its place a script, which has the program as "$0.real".
plant() {
    mv "$bundle/$1" "$bundle/$1.real"
    printf '#!/bin/bash\n%s\nexec "$0.real" "$@"\n' "$2" >"$bundle/$1"
    chmod +x "$bundle/$1"
}
restore() { mv "$bundle/$1.real" "$bundle/$1"; }

# Sanitizers make ops slow, and their own tests run with them already: two are enough.
sanitized=$(grep -c '^F2B_SANITIZE:BOOL=ON' "$build/CMakeCache.txt")
least=23
if [ "$sanitized" = 1 ]; then
    least=2
    plant tests/gpu_tests '[ $# -gt 0 ] || { printf "test_rope\ntest_rms_norm\n" && exit; }'
fi
sections=(card ops rates)
check $(printf -- '--section %s ' "${sections[@]}") --limit 250
expect 0 '**Verdict: passed**' 'the whole of it'
for section in "${sections[@]}"; do
    grep -q "](#$section) | passed" "$report" || fail "section $section is not passed"
done
[ "$(grep -c '^| test_[a-z_]* | passed' "$report")" -ge $least ] || fail 'ops are missing'

[ "$sanitized" = 0 ] || restore tests/gpu_tests

plant tests/gpu_tests '[ $# = 0 ] || { [ "$1" != test_rope ] && exit; echo "rope: cuda against cpu: planted"; exit 1; }'
check --section ops --section card
expect 1 'these failed: test_rope' 'a failing op'
grep -q '](#card) | passed' "$report" || fail 'it does not go on after a failing section'
grep -q 'Verdict: FAILED' "$report" || fail 'the verdict of a failing op'
restore tests/gpu_tests

plant tests/gpu_rates 'sleep 60'
check --section rates --limit 2
expect 1 'time limit of 2 s, at: bf16' 'a hang'
restore tests/gpu_rates

mkdir "$work/emulated" && mv "$bundle"/bin/f2b-train "$work/emulated/"
cp "$build/bin/f2b-train" "$bundle/bin/"
check
if "$build/bin/f2b-train" --version | grep -q 'cuda:0'; then
    echo "there is a device here: not tested without"
else
    expect 4 'no CUDA device' 'a machine without a device'
fi

check --section nothing
expect 2 'there is no section nothing' 'an unknown section'
[ $failures = 0 ] && echo "all as it should be"
exit $((failures > 0))
