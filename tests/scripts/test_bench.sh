#!/usr/bin/env bash
# scripts/bench.sh with tiny sizes: every section measures, and the page that it writes keeps what is not
# its own.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${F2B_BUILD_DIR:-build/debug}")
if ! .venv/bin/python -c 'import torch, transformers, peft, sentencepiece, PIL' 2>/dev/null; then
    echo "skipped: the Python oracles are not installed (scripts/setup.sh brings them)"
    exit 77
fi
export OMP_WAIT_POLICY=passive
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() { failures=$((failures + 1)); echo "FAILED: $*"; }
bench() { scripts/bench.sh --build "$build" --quick --rounds 1 --threads 1 "$@" >"$work/out" 2>&1; }
block() { sed -n "/<!-- bench.sh: $1 -->/,/<!-- bench.sh: end of $1 -->/p" "$2"; }

bench --out "$work/page.md" || { cat "$work/out"; fail "the sections"; }
sections=$(scripts/bench.sh --list | cut -d' ' -f1)
for section in $sections; do
    [ "$(block "$section" "$work/page.md" | grep -c '^| ---')" -ge 1 ] || fail "$section: no table"
    # Where the figures are kept, they have their place.
    [ "$(grep -cF -e "<!-- bench.sh: $section -->" -e "<!-- bench.sh: end of $section -->" docs/benchmarks.md)" = 2 ] ||
        fail "docs/benchmarks.md has no marks for $section"
done
grep -q 'PyTorch .* eager, tuned' "$work/page.md" || fail "no peer of the step"
HF_HUB_OFFLINE=1 .venv/bin/python scripts/bench/step.py "$build" --quick --rounds 1 --threads 1 --precision f32 \
    --also bf16 >"$work/out" 2>&1 || { cat "$work/out"; fail "the step in a further precision"; }
grep -q '^| fwd2bot in bf16 ' "$work/out" && grep -q '^In bf16: [0-9.]* (best)' "$work/out" || fail "no bf16 beside f32"
grep -q 'all give the same ids' "$work/page.md" || fail "the tokenizers' ids were not compared"

# A section is replaced; what stands around it stays.
printf '# Mine\n\nbefore\n<!-- bench.sh: start -->\nold\n<!-- bench.sh: end of start -->\nafter\n' >"$work/mine.md"
bench --only start --out "$work/mine.md" || fail "one section"
sed '/<!-- bench.sh: start/,/<!-- bench.sh: end/d' "$work/mine.md" | diff - <(printf '# Mine\n\nbefore\nafter\n') ||
    fail "the page around the section changed"
grep -q '^old$' "$work/mine.md" && fail "old figures stay"

# What fails leaves the page alone, and is said.
cp "$work/mine.md" "$work/kept.md"
scripts/bench.sh --build "$work/nothing" --quick --only start --out "$work/mine.md" >"$work/out" 2>&1 &&
    fail "programs that are missing: no failure"
grep -q 'not measured: start' "$work/out" || fail "which section failed is not said"
cmp "$work/kept.md" "$work/mine.md" || fail "a failed section changed the page"
bench --only nonsense --out "$work/mine.md" && fail "a section that does not exist"
grep -q 'no section nonsense' "$work/out" || fail "the section's name is not said"
[ $failures = 0 ] && echo "all as it should be"
exit $((failures > 0))
