#!/usr/bin/env bash
# scripts/cuda_resources.sh with an nvcc that only says what ptxas would: the table's numbers are those,
# and a kernel that spills makes it fail, by name. With the real one it runs as cuda/resources.
set -uo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}

cat >"$work/nvcc" <<'FAKE'
#!/usr/bin/env bash
[ "$1" = --version ] && { echo "Cuda compilation tools, release 99.9"; exit; }
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && out=$2
    shift
done
: >"$out"
case "$out" in
    */add_cuda.BF16.*) spills=$SPILLS ;;
    *) spills=0 ;;
esac
case "$out" in *.80.*) registers=37 ;; *) registers=41 ;; esac
cat >&2 <<LOG
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3addPfPKfl' for 'sm_90'
ptxas info    : Function properties for _Z3addPfPKfl
    0 bytes stack frame, $spills bytes spill stores, 0 bytes spill loads
ptxas info    : Used $registers registers, used 1 barriers, 768 bytes smem, 496 bytes cmem[0]
LOG
FAKE
chmod +x "$work/nvcc"

# run CODE SPILLS ARGUMENT...
run() {
    local want=$1
    SPILLS=$2 F2B_NVCC=$work/nvcc scripts/cuda_resources.sh "${@:3}" >"$work/out" 2>"$work/errors"
    local code=$?
    [ $code = "$want" ] || fail "exit code $code instead of $want: $(cat "$work/errors")"
}

run 0 0
grep -qF '| add_cuda | bf16 | add | 41 | 768 | 0 | 0 |' "$work/out" || fail "no line of add: $(cat "$work/out")"
[ "$(grep -c '^| [a-z_]*_cuda |' "$work/out")" -gt 40 ] || fail "not a line a file and type"
run 1 12 --arch 80,90 --keep "$work/kept"
grep -qF 'add_cuda bf16 add spills 12 bytes on sm_80' "$work/errors" || fail "the spill has no name: $(cat "$work/errors")"
grep -qF '| add_cuda | f32 | add | 37 / 41 | 768 | 0 | 0 |' "$work/out" || fail "two devices: $(cat "$work/out")"
run 2 0 --what
mv "$work/nvcc" "$work/gone"
run 4 0
exit $((failures > 0))
