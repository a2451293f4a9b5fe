# For gpu-check.sh and its sections, to be sourced: where things are, and how commands of the bundle run.
# CHECK_HERE is the bundle, CHECK_OUT the report's folder.
work=$CHECK_OUT/work logs=$CHECK_OUT/logs

# Folders that may hold cuBLASLt: the toolkit's and those of pip's packages. CHECK_LIBRARIES is what the
# programs get as LD_LIBRARY_PATH; PyTorch does not.
find_cublaslt() {
    local folder python known given=${LD_LIBRARY_PATH:-}
    CHECK_LIBRARIES=$given CHECK_CUBLASLT="as the system finds it"
    known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null)
    case $known in *libcublasLt.so*) return ;; esac
    python=$(command -v "${PEER_PYTHON:-python3}" || true)
    for folder in ${given//:/ } "${CUDA_PATH:-/none}"/lib64 "${CUDA_HOME:-/none}"/lib64 \
        /usr/local/cuda/lib64 /usr/local/cuda/targets/*/lib /usr/local/cuda-*/lib64 \
        /usr/lib/x86_64-linux-gnu /usr/lib64 "${CONDA_PREFIX:-/none}"/lib \
        ${python:+$("$python" -c 'import site, sysconfig
for p in {sysconfig.get_paths()["purelib"], site.getusersitepackages(), *site.getsitepackages()}:
    print(p + "/nvidia/cu13/lib", p + "/nvidia/cublas/lib")' 2>/dev/null)}; do
        compgen -G "$folder/libcublasLt.so*" >/dev/null || continue
        CHECK_CUBLASLT=$folder CHECK_LIBRARIES=$folder${CHECK_LIBRARIES:+:$CHECK_LIBRARIES}
        return
    done
    CHECK_CUBLASLT="not found: put its folder into LD_LIBRARY_PATH"
}

# ours PROGRAM ARGUMENT...: a program of the bundle, from its folder.
ours() {
    local program=$1
    shift
    LD_LIBRARY_PATH=$CHECK_LIBRARIES "$CHECK_HERE/$program" "$@"
}

# step TEXT: what is done now; a hang is named by it.
step() {
    echo "$*" >"$logs/current"
    echo "gpu-check: $section: $*" >>"$logs/progress"
}

# End the section: passed is its end without any of these.
skip() { echo "$*" >"$logs/$section.reason" && exit 77; }
fail() { echo "$*" >"$logs/$section.reason" && exit 1; }

# said FILE: the last line of what a program said; where the shell tells of its end, that and the line before.
said() {
    awk '/common\.sh: line [0-9]+: +[0-9]+ / { sub(/.*line [0-9]+: +[0-9]+ +/, ""); sub(/ .*/, "")
            last = $0 ": " last; next }
        { last = $0 }
        END { print last }' "$1"
}

# number KEY FILE: the value of a key in a program's JSON.
number() { grep -o "\"$1\": [0-9.e+-]*" "$2" | sed -n '1s/.*: //p'; }

quick() { [ "$CHECK_QUICK" = yes ]; }
