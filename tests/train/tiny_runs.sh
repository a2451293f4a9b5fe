# For shell tests of f2b-train, to be sourced: a tiny world in $work, and helpers. Each check that does
# not hold is printed and counted; end with `finish`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$(realpath "${F2B_BUILD_DIR:-build/debug}")/bin
tools=$(realpath "${F2B_BUILD_DIR:-build/debug}")/tests
# The model is so small that threads only wait for each other; tests of threads say --threads.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
work=$(mktemp -d)
failures=0
trap 'rm -rf "$work"' EXIT
"$tools/tiny_world" "$work" || exit 1

# train ARGUMENT...: the program on the tiny run; its exit code in $code, its output in out and err.
train() {
    "$bin/f2b-train" --config "$work/run.yaml" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
}

fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}

# expect CODE TEXT WHAT: of the last `train`: exit code, and a text in err ('' = nothing there).
expect() {
    if [ "$code" != "$1" ]; then
        fail "$3: exit $code instead of $1"
    elif [ -z "$2" ] && [ -s "$work/err" ]; then
        fail "$3: output on stderr"
    elif [ -n "$2" ] && ! grep -qF -- "$2" "$work/err"; then
        fail "$3: no '$2'"
    else
        return 0
    fi
    tail -n 5 "$work/err" | sed 's/^/  err: /'
    return 1
}

# message WHAT: show the last line of err, which is what a person reads.
message() { echo "$1 (exit $code): $(tail -n 1 "$work/err" | sed "s#$work#DIR#g")"; }

# losses RUN: metrics.jsonl without what depends on the clock and the memory of the machine.
losses() {
    sed -E 's/"(seconds|tokens_per_second|data_wait_seconds|peak_bytes)": [^,]*, //g' \
        "$1/metrics.jsonl"
}

# same RUN RUN: tensors, moments, counts, losses and evaluations are equal to the bit.
same() {
    "$tools/state_compare" "$1" "$2" && diff <(losses "$1") <(losses "$2") &&
        { [ ! -e "$1/evaluations.jsonl" ] || cmp "$1/evaluations.jsonl" "$2/evaluations.jsonl"; }
}

finish() {
    [ $failures = 0 ] && echo "all as it should be"
    exit $((failures > 0))
}
