#!/usr/bin/env python3
"""What opening and checking a large LLaVA JSON costs: seconds and peak memory of f2b-data.

    scripts/bench/index.py [BUILD_DIR] [--bytes 1e9] [--no-python] [--quick]

Writes a file of that size in LLaVA-665k's form into a temporary folder (records of about 1.4 KB,
one in ten with an image, one in ten thousand bad), then measures
  open, cold    f2b-data preview of the last record: index made (and cached), tokenizer, one record
  open, cached  the same again
  check         f2b-data check of all records
beside `cat FILE >/dev/null` and Python's json.load, which is how LLaVA opens it. The file is in
the page cache in all of them. Prints a Markdown table for docs/benchmarks.md.
"""
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib

from measure import options_for, table

WORDS = ("the a dog cat person table street red green small large is on under beside what color "
         "how many").split()


def png(path, shade):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    rows = b"".join(b"\0" + bytes([shade, i, 99] * 64) for i in range(64))
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write_records(path, wanted):
    random.seed(1)
    texts = [" ".join(random.choices(WORDS, k=random.randint(8, 40))) for _ in range(997)]
    n = size = 0
    with open(path, "w") as file:
        size += file.write("[")
        while size < wanted:
            turns = [{"from": "human" if t % 2 == 0 else "gpt", "value": texts[(n * 7 + t) % 997]}
                     for t in range(2 * (1 + n % 8))]
            record = {"id": n if n % 2 else f"{n:012d}", "conversations": turns}
            if n % 10 == 0:
                record["image"] = f"{n % 16}.png"
                turns[0]["value"] = "<image>\n" + turns[0]["value"]
            if n % 10000 == 9999:
                turns.pop()
            size += file.write((",\n" if n else "") + json.dumps(record))
            n += 1
        file.write("]")
    return n


def measure(command, env=None):
    """Seconds, peak resident MiB, seconds of processors, and output of a command."""
    begin = time.time()
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command}: exit {child.returncode}\n{output}")
    return time.time() - begin, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, output


def main():
    options = options_for(__doc__, rounds=1)
    options.add_argument("--bytes", type=float)
    options.add_argument("--no-python", action="store_true", help="leave json.load out")
    options = options.parse_args()
    options.bytes = options.bytes or (2e5 if options.quick else 1e9)
    program = options.build / "bin/f2b-data"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run([program, "toy", "--out", folder / "toy", "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        for shade in range(16):
            png(folder / f"{shade}.png", shade)
        file = folder / "large.json"
        n = write_records(file, options.bytes)
        config = folder / "config.yaml"
        config.write_text(json.dumps({
            "model": {"path": str(folder / "toy/model")}, "method": {"loss": "autoregressive"},
            "run": {"dir": str(folder / "run")},
            "data": {"conversations": [{"path": str(file), "images": str(folder)}]}}))
        env = dict(os.environ, XDG_CACHE_HOME=str(folder / "cache"))
        preview = [program, "preview", "--config", config, "--json", "--sample",
                   f"conversations[0]:{n - 2}"]
        check = [program, "check", "--config", config, "--list", folder / "bad.jsonl", "--quiet",
                 "data.max_bad_fraction=1"]
        # `cat` to a pipe would measure this script.
        rows = [("`cat` of the file", ["sh", "-c", f"cat {file} >/dev/null"], None),
                ("open, index made", preview, env), ("open, index from the cache", preview, env),
                ("`f2b-data check`, all records", check, env)]
        if not options.no_python:
            load = f"import json; json.load(open({str(file)!r}))"
            rows.append(("Python's `json.load`, as LLaVA opens it", [sys.executable, "-c", load], None))
        print(f"{file.stat().st_size / 1e9:.3g} GB, {n:,} records; ", end="")
        measured = []
        for name, command, environment in rows:
            seconds, memory, cpu, _ = measure([str(part) for part in command], environment)
            measured.append([name, f"{seconds:.2f}", f"{cpu:.2f}", f"{memory:.0f}"])
        index = sum(f.stat().st_size for f in (folder / "cache").rglob("*") if f.is_file())
        bad = sum(1 for _ in open(folder / "bad.jsonl"))
        print(f"the index has {index / 1e6:.1f} MB on disk; `check` found {bad} bad records.\n")
        table(["", "seconds", "seconds of processors", "peak memory, MiB"], measured)


if __name__ == "__main__":
    main()
