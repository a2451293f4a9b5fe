"""How the peer is tuned: glibc told to keep freed memory, OpenMP threads told not to spin, OpenBLAS
told to use the AVX-512 kernels where the processor has AVX-512 (it does not know every one)."""
from pathlib import Path


def tuned():
    env = {"MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_MMAP_THRESHOLD_": "100000000000",
           "MALLOC_TOP_PAD_": "1000000000", "GOMP_SPINCOUNT": "1000"}
    if " avx512f " in Path("/proc/cpuinfo").read_text():
        env["OPENBLAS_CORETYPE"] = "SkylakeX"
    return env
