#!/usr/bin/env bash
# gpu-check.sh: qualifies a CUDA device with one command. Runs every section, also after one that failed,
# each within its own time limit, and writes one report. Lies in a bundle that scripts/bundle.sh makes.
#
#   ./gpu-check.sh [--quick] [--section NAME]... [--device cuda:N] [--shape 7b|tiny]
#                  [--limit SECONDS] [--out DIR]
#
#   --quick          about 3 minutes instead of 10: less of everything, no comparison, no sanitizer
#   --section NAME   only this one (may be repeated): card ops training resume rates step peer sanitizer
#   --device cuda:N  which device (cuda:0)
#   --shape 7b|tiny  what is measured: LLaVA-1.5-7B's shapes with drawn weights (7b), or a model of two
#                    small layers, which only shows that measuring works
#   --limit SECONDS  a time limit for each section in place of its own
#   --out DIR        for report.md and logs (f2b-gpu-report in the current folder)
#
# Environment: PEER_PYTHON (python with torch, transformers and peft), LD_LIBRARY_PATH (cuBLASLt where
# it is in no usual place). Exit codes: 0 all sections passed or were skipped; 1 one failed; 2 usage; 4 there
# is no CUDA device here; 130 interrupted. Progress goes to stderr.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

sections=(card ops training resume rates step peer sanitizer)
# Seconds: of the default, and with --quick. Together less than ten minutes, and three.
declare -A limit=([card]=20 [ops]=60 [training]=90 [resume]=45 [rates]=40 [step]=150
    [peer]=120 [sanitizer]=70)
declare -A quick_limit=([card]=20 [ops]=60 [training]=25 [resume]=25 [rates]=20 [step]=30)
declare -A title=([card]="The card" [ops]="Ops against the processor"
    [training]="Training against the processor" [resume]="Killed and resumed"
    [rates]="Rates of single ops" [step]="Training steps" [peer]="Beside PyTorch"
    [sanitizer]="compute-sanitizer")

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; }

quick=no chosen=() device=cuda:0 shape=7b given_limit="" out=f2b-gpu-report
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage && exit 0 ;;
    --quick) quick=yes ;;
    --section | --device | --shape | --limit | --out)
        [ $# -ge 2 ] || { echo "gpu-check: $1 needs a value; see --help" >&2 && exit 2; }
        case $1 in
        --section) chosen+=("$2") ;;
        --device) device=$2 ;;
        --shape) shape=$2 ;;
        --limit) given_limit=$2 ;;
        --out) out=$2 ;;
        esac
        shift
        ;;
    *) echo "gpu-check: unknown option $1; see --help" >&2 && exit 2 ;;
    esac
    shift
done
for name in "${chosen[@]}"; do
    [ -n "${title[$name]:-}" ] || { echo "gpu-check: there is no section $name; see --help" >&2 && exit 2; }
done
case $given_limit in *[!0-9]*) echo "gpu-check: --limit is a number of seconds" >&2 && exit 2 ;; esac
case $shape in 7b | tiny) ;; *) echo "gpu-check: --shape is 7b or tiny" >&2 && exit 2 ;; esac
for tool in awk grep sed timeout; do
    command -v $tool >/dev/null || { echo "gpu-check: $tool is not here" >&2 && exit 2; }
done
[ -x "$here/bin/f2b-train" ] || {
    echo "gpu-check: there is no bin/f2b-train beside it; scripts/bundle.sh makes a folder that has one" >&2
    exit 2
}

mkdir -p "$out/logs" && out=$(cd "$out" && pwd) || exit 2
export CHECK_HERE=$here CHECK_OUT=$out CHECK_QUICK=$quick CHECK_DEVICE=$device CHECK_SHAPE=$shape
export OMP_WAIT_POLICY=passive
. "$here/gpu/common.sh"
find_cublaslt
export CHECK_LIBRARIES

if ! devices=$(ours bin/f2b-train --version 2>&1); then
    echo "gpu-check: bin/f2b-train does not start here (README.md says what it needs): $devices" >&2
    exit 1
fi
if ! grep -qF "$device (" <<<"$devices"; then
    why=$(ours bin/f2b-train --device "$device" --config none 2>&1 | tail -n 1)
    echo "gpu-check: no CUDA device: ${why#f2b-train: }" >&2
    exit 4
fi

# ---- Sections ----

rm -rf "$out/work" "$out"/logs/* "$out"/sections
mkdir -p "$out/work" "$out/sections"
declare -A verdict seconds
pid=0 interrupted=no
trap 'interrupted=yes; [ $pid = 0 ] || kill $pid 2>/dev/null' INT TERM

run_section() { # NAME SECONDS
    local name=$1 start=$SECONDS status
    echo starting >"$out/logs/current"
    timeout -k 5 "$2" "${BASH:-bash}" -c '. "$CHECK_HERE/gpu/common.sh" && . "$CHECK_HERE/gpu/sections.sh" &&
        section=$0 && section_"$0"' "$name" >"$out/sections/$name.md" 2>"$out/logs/$name.errors" &
    pid=$!
    tail -f --pid=$pid -n +1 "$out/logs/progress" >&2 2>/dev/null &
    wait $pid
    status=$?
    wait
    pid=0 seconds[$name]=$((SECONDS - start))
    case $status in
    0) verdict[$name]=passed ;;
    77) verdict[$name]="skipped: $(cat "$out/logs/$name.reason")" ;;
    124 | 137) verdict[$name]="failed: time limit of $2 s, at: $(cat "$out/logs/current")" ;;
    *) verdict[$name]="failed: $(cat "$out/logs/$name.reason" 2>/dev/null ||
        echo "exit code $status at: $(cat "$out/logs/current")")" ;;
    esac
    [ $interrupted = no ] || verdict[$name]="failed: interrupted at: $(cat "$out/logs/current")"
}

write_report() {
    local name failed=0 skipped=0 word=passed
    for name in "${ran[@]}"; do
        case ${verdict[$name]} in failed*) failed=$((failed + 1)) ;; skipped*) skipped=$((skipped + 1)) ;; esac
    done
    [ $failed = 0 ] || word=FAILED
    {
        echo "# Report of gpu-check"
        echo
        echo "**Verdict: $word** (${#ran[@]} sections, $failed failed, $skipped skipped)"
        echo
        printf '%s\n' "$devices" | sed 's/^/    /'
        echo "    $(date -u '+%Y-%m-%d %H:%M UTC'), $device, quick: $quick, shape: $shape, $SECONDS s"
        echo
        echo "| section | verdict | seconds |"
        echo "| --- | --- | --- |"
        for name in "${ran[@]}"; do
            echo "| [${title[$name]}](#$name) | ${verdict[$name]} | ${seconds[$name]} |"
        done
        for name in "${ran[@]}"; do
            printf '\n## <a id="%s"></a>%s\n\n%s\n\n' "$name" "${title[$name]}" "${verdict[$name]}"
            cat "$out/sections/$name.md"
            case ${verdict[$name]} in
            failed*) [ ! -s "$out/logs/$name.errors" ] ||
                { echo && echo '```' && tail -n 20 "$out/logs/$name.errors" && echo '```'; } ;;
            esac
        done
    } >"$out/report.md"
    echo "gpu-check: $word; $out/report.md" >&2
    return $failed
}

ran=()
: >"$out/logs/progress"
for name in "${sections[@]}"; do
    if [ ${#chosen[@]} -gt 0 ]; then
        case " ${chosen[*]} " in *" $name "*) ;; *) continue ;; esac
    fi
    [ $interrupted = no ] || break
    ran+=("$name") seconds[$name]=0
    : >"$out/logs/progress"
    seconds_allowed=${limit[$name]}
    [ $quick = no ] || seconds_allowed=${quick_limit[$name]:-}
    if [ -z "$seconds_allowed" ]; then
        verdict[$name]="skipped: --quick"
        : >"$out/sections/$name.md"
    else
        run_section "$name" "${given_limit:-$seconds_allowed}"
    fi
    echo "gpu-check: $name: ${verdict[$name]} (${seconds[$name]} s)" >&2
done
write_report
status=$?
rm -rf "$out/work"
[ $interrupted = no ] || exit 130
[ $status = 0 ] || exit 1
