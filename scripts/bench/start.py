#!/usr/bin/env python3
"""From the start of f2b-train to its first step: the mini model (d 512, 8 layers, a tower of 128), files
mapped, tokenizer read, plan made, a batch of 8 images decoded. Prints Markdown for docs/benchmarks.md.

    scripts/bench/start.py [BUILD_DIR] [--rounds N] [--threads N] [--quick]

The program is stopped when it reports the first step's first progress. Warm: its files are in the page
cache, and the first start is left out."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from measure import median, options_for, table

HERE = pathlib.Path(__file__).resolve().parent


def start(o, folder):
    """(seconds by the clock, of the processors, MiB resident) until the first step."""
    command = [f"{o.build}/bin/f2b-train", "--config", folder / "run.yaml", "--resume", "none", "--threads",
               str(o.threads), "sampler.conversation_batch=8", "sampler.contrastive_batch=8"]
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
    seen = []
    for line in child.stderr:
        seen.append(line)
        if line.startswith("step 1/"):
            break
    seconds = time.perf_counter() - begin
    child.kill()
    child.stderr.close()
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    if not seen or not seen[-1].startswith("step 1/"):
        sys.exit("f2b-train came to no step:\n" + "".join(seen))
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    o = options_for(__doc__, rounds=9).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        size = ["--divide", "32"] if o.quick else ["--divide", "8", "--layers", "8"]
        subprocess.run([sys.executable, HERE / "shape_7b.py", folder, *size, "--samples", "8"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        start(o, folder)
        found = [start(o, folder) for _ in range(o.rounds)]
    seconds, busy, resident = zip(*found)
    table(["start to first step, warm", "best s", "median s", "processors' s (median)", "resident MiB"],
          [["f2b-train", f"{min(seconds):.3f}", f"{median(seconds):.3f}", f"{median(busy):.3f}",
            f"{max(resident):.0f}"]])


main()
