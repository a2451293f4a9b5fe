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
# (Not "ldd | grep -q": with pipefail, a writer that grep does not hear to its end has failed.)
grep -qF "=> $bundle/tests/../lib/libcmocka" <<<"$(ldd "$bundle/tests/gpu_tests")" ||
    fail "gpu_tests takes the system's libraries, not the bundle's"

# check ARGUMENT...: gpu-check.sh, small; exit code in $code, what it said in $work/said.
check() {
    rm -rf "$work/report"
    (cd / && env -i PATH=/usr/bin:/bin OMP_NUM_THREADS=2 "$bundle/gpu-check.sh" --shape tiny \
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

# All sections. Sanitizers make the emulation slow, and what they would find the tests of ops and of the
# step find already: two ops and no training there.
chosen="" sections=(card ops training resume rates step) least=23
if grep -q '^F2B_SANITIZE:BOOL=ON' "$build/CMakeCache.txt"; then
    sections=(card ops rates) least=2
    plant tests/gpu_tests '[ $# -gt 0 ] || { printf "test_rope\ntest_rms_norm\n" && exit; }'
    chosen=$(printf -- '--section %s ' "${sections[@]}")
fi
check --quick --limit 400 $chosen
expect 0 '**Verdict: passed**' 'the whole of it'
for section in "${sections[@]}"; do
    grep -q "](#$section) | passed" "$report" || fail "section $section is not passed"
done
[ "$(grep -c '^| test_[a-z_]* .*| passed' "$report")" -ge $least ] || fail 'ops are missing'
[ ! -e "$bundle/tests/gpu_tests.real" ] || restore tests/gpu_tests

check --section peer --section sanitizer
if [ ! -e /usr/bin/compute-sanitizer ] && ! compgen -G '/usr/local/cuda*/bin/compute-sanitizer' >/dev/null
then expect 0 'skipped: compute-sanitizer is not here' 'no sanitizer'; fi
grep -q '](#peer) | skipped: .*python3' "$report" || fail 'no PyTorch'

# What must be found. (Training on the processor in the device's place is quicker than emulated.)
plant tests/gpu_tests '[ $# = 0 ] || { [ "$1" != test_rope ] && exit; echo "rope: cuda: planted" && exit 1; }'
check --quick --section ops --section card
expect 1 'these failed: test_rope' 'a failing op'
grep -q '](#card) | passed' "$report" || fail 'it does not go on after a failing section'
grep -q 'Verdict: FAILED' "$report" || fail 'the verdict of a failing op'
restore tests/gpu_tests

plant bin/f2b-train 'case "$*" in
    *tiny-bf16*) set -- "${@/cuda:0/cpu}" train.learning_rate=1e-2 ;;
    *killed*) set -- "${@/cuda:0/cpu}" train.seed=7 ;;
    *tiny-fp8*) set -- "${@/cuda:0/cpu}" train.precision=bf16 ;;
    *) set -- "${@/cuda:0/cpu}" ;;
esac'
check --quick --limit 200 --section training --section resume
expect 1 'losses leave their band: tiny-bf16' 'training that differs'
grep -q '](#resume) | failed: .* differs' "$report" || fail 'a resume that differs'
restore bin/f2b-train

plant tests/gpu_rates 'sleep 60'
check --quick --section rates --limit 2
expect 1 'time limit of 2 s, at: bf16' 'a hang'
restore tests/gpu_rates

cp "$build/bin/f2b-train" "$bundle/bin/"
check --quick
if grep -q 'cuda:0' <<<"$("$build/bin/f2b-train" --version)"; then
    echo "there is a device here: not tested without"
else
    expect 4 'no CUDA device' 'a machine without a device'
fi

check --section nothing
expect 2 'there is no section nothing' 'an unknown section'
[ $failures = 0 ] && echo "all as it should be"
exit $((failures > 0))
