#!/usr/bin/env python3
"""A checkpoint (written, synced, hashed, in place) beside a plain write and fsync of as many bytes on
the same disk, alternating in one process. Prints a Markdown table for docs/benchmarks.md.

    scripts/bench/checkpoint.py [BUILD_DIR] [--megabytes N] [--rounds N] [--dir DIR] [--quick]
"""
import json
import statistics
import subprocess
import tempfile

from measure import ROOT, options_for

options = options_for(__doc__, rounds=7)
options.add_argument("--megabytes", type=int)
options.add_argument("--dir", default=ROOT, help="where the files go, on the disk to be measured")
o = options.parse_args()
o.megabytes = o.megabytes or (2 if o.quick else 300)
with tempfile.TemporaryDirectory(prefix="f2b-bench-", dir=o.dir) as folder:
    done = subprocess.run([f"{o.build}/tests/checkpoint_bench", folder, str(o.megabytes),
                           str(o.rounds)], stdout=subprocess.PIPE, text=True, check=True)
result = json.loads(done.stdout)
ours, raw = zip(*result["rounds"])
megabytes = result["bytes"] / 1e6
print(f"| {megabytes:.0f} MB | best s | median s | MB/s (best) | MB/s (median) |\n"
      "| --- | --- | --- | --- | --- |")
for name, values in (("checkpoint", ours), ("write and fsync", raw)):
    best, median = min(values), statistics.median(values)
    print(f"| {name} | {best:.3f} | {median:.3f} | {megabytes / best:.0f} | {megabytes / median:.0f} |")
print(f"\nShare of the raw rate: {min(raw) / min(ours):.0%} (best), "
      f"{statistics.median(raw) / statistics.median(ours):.0%} (median), "
      f"{statistics.median(r / c for c, r in result['rounds']):.0%} (median of the rounds)")
