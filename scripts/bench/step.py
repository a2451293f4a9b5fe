"""One training step of the mini model, ours against PyTorch, alternating in one run: best and median
seconds, samples/s, resident memory. Prints a Markdown table for docs/benchmarks.md.

    step.py BUILD_DIR [--rounds N] [--precision f32|bf16] [--threads N] [--batch N]
            [--peer-python PYTHON]... [--only-tuned]

The peer runs as it comes, and tuned: glibc told to keep freed memory, OpenMP threads told not to spin,
OpenBLAS told to use the AVX-512 kernels where the processor has AVX-512 (it does not know every one).
--peer-python (or PEER_PYTHON in the environment) names the python of another environment with torch,
transformers and peft: a further peer, with eager attention and with PyTorch's own (sdpa)."""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from step_env import tuned

HERE = Path(__file__).resolve().parent


def run(command, env, threads):
    env = {**os.environ, **env, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def version(python):
    done = subprocess.run([python, "-c", "import torch; print(torch.__version__)"],
                          capture_output=True, text=True, check=True)
    return done.stdout.split("a0")[0].split("+")[0].strip()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("build")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--precision", default="f32")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--peer-python", action="append", default=[])
    options.add_argument("--only-tuned", action="store_true")
    o = options.parse_args()
    steps = "3"                                     # of a process; the first one warms up
    ours = [f"{o.build}/tests/mini_step", str(o.batch), o.precision, steps]
    contenders = {"fwd2bot": (ours, {})}
    pythons = [sys.executable, *o.peer_python]
    if os.environ.get("PEER_PYTHON"):
        pythons.append(os.environ["PEER_PYTHON"])
    for python in pythons:
        name = "PyTorch " + version(python)
        attentions = ["eager"] if version(python).startswith("1.") else ["eager", "sdpa"]
        for attention in attentions:
            peer = [python, str(HERE / "peer_step.py"), str(o.batch), o.precision, steps, attention]
            if not o.only_tuned:
                contenders[f"{name} {attention}, as it comes"] = (peer, {})
            contenders[f"{name} {attention}, tuned"] = (peer, tuned())
    seconds = {name: [] for name in contenders}
    resident = dict.fromkeys(contenders, 0)
    for _ in range(o.rounds):
        for name, (command, env) in contenders.items():
            result = run(command, env, o.threads)
            seconds[name] += result["seconds"][1:]
            resident[name] = max(resident[name], result["resident_bytes"])
    print(f"| {o.precision}, batch {o.batch}, {o.threads} threads | best s | median s | samples/s (best) "
          "| samples/s (median) | resident GiB |\n| --- | --- | --- | --- | --- | --- |")
    for name, values in seconds.items():
        best, median = min(values), statistics.median(values)
        print(f"| {name} | {best:.2f} | {median:.2f} | {o.batch / best:.2f} | {o.batch / median:.2f} "
              f"| {resident[name] / 2**30:.2f} |")


main()
