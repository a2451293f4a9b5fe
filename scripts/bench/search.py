"""Search over a store of random tokens: seconds of a search, from the page cache and from the disk,
the seconds that reading the same bytes takes, and peak resident memory. Prints a Markdown table for
docs/benchmarks.md. The store is made in a temporary folder (4d bytes an image) and removed.

    search.py BUILD_DIR [--images N] [--width D] [--queries 1,100] [--rounds N] [--threads N] [--dir DIR]
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile

options = argparse.ArgumentParser()
options.add_argument("build")
options.add_argument("--images", type=int, default=1_000_000)
options.add_argument("--width", type=int, default=4096)
options.add_argument("--queries", default="1,100")
options.add_argument("--rounds", type=int, default=5)
options.add_argument("--threads", type=int, default=2)
options.add_argument("--dir", help="where the temporary folder is made")
o = options.parse_args()


def bench(*args):
    done = subprocess.run([f"{o.build}/tests/search_bench", *map(str, args)], text=True, check=True,
                          stdout=subprocess.PIPE,
                          env=dict(os.environ, OMP_NUM_THREADS=str(o.threads)))
    return done.stdout


folder = tempfile.mkdtemp(prefix="f2b-search-", dir=o.dir)
try:
    need = 5 * o.images * o.width
    if shutil.disk_usage(folder).free < need:
        raise SystemExit(f"{folder}: the store needs {need / 1e9:.0f} GB of room; see --dir")
    store = f"{folder}/store"
    bench("make", store, o.images, 1, o.width, 1024)
    first = json.loads(bench("search", store, 1, 10, 1))
    print(f"{o.images} images, d {o.width}: {first['bytes'] / 1e9:.2f} GB of means, made in "
          f"{first['seconds'][0]:.1f} s; opening the store {first['open_seconds']:.2f} s\n")
    print("| queries | means are | best s | median s | reading alone s | resident MB |\n"
          "| --- | --- | --- | --- | --- | --- |")
    for cold in (False, True):
        for n in map(int, o.queries.split(",")):
            r = json.loads(bench("search", store, n, 10, o.rounds, *(["cold"] if cold else [])))
            print(f"| {n} | {'on the disk' if cold else 'in memory'} | {min(r['seconds']):.2f} | "
                  f"{statistics.median(r['seconds']):.2f} | {r['read_seconds']:.2f} | "
                  f"{r['resident_bytes'] / 1e6:.0f} |", flush=True)
finally:
    shutil.rmtree(folder)
