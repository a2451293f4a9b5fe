#!/usr/bin/env python3
"""How long training stands still at a save: written between two steps, and beside training from a copy,
alternating in one process. Prints a Markdown table for docs/benchmarks.md.

    scripts/bench/saving.py [BUILD_DIR] [--megabytes N] [--rounds N] [--dir DIR]
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
options = argparse.ArgumentParser(description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("build", nargs="?", default=ROOT / "build/release")
options.add_argument("--megabytes", type=int, default=240)
options.add_argument("--rounds", type=int, default=7)
options.add_argument("--dir", default=ROOT, help="where the files go, on the disk to be measured")
o = options.parse_args()
with tempfile.TemporaryDirectory(prefix="f2b-bench-", dir=o.dir) as folder:
    done = subprocess.run([f"{o.build}/tests/saving_bench", folder, str(o.megabytes), str(o.rounds)],
                          stdout=subprocess.PIPE, text=True, check=True)
result = json.loads(done.stdout)
between, goes_on, written, processor = zip(*result["rounds"])
print(f"| {result['bytes'] / 1e6:.0f} MB | best s | median s | most s |\n| --- | --- | --- | --- |")
for name, values in (("saving between two steps", between), ("saving beside: until training goes on", goes_on),
                     ("until it is on disk", written), ("the processor's seconds of it", processor)):
    print(f"| {name} | {min(values):.3f} | {statistics.median(values):.3f} | {max(values):.3f} |")
