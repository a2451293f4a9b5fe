#!/usr/bin/env python3
"""Runs the benches and writes what they print into a page: between the section's marks where the page has
them, else at its end under the section's title. A page that is not there yet is begun. `scripts/bench.sh`
calls this; see there."""
import argparse
import datetime
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from measure import ROOT

HERE = Path(__file__).resolve().parent
# name: (title, programs to build, what must be importable)
SECTIONS = {
    "machine": ("What the machine can do", ["machine_bench"], []),
    "step": ("A training step", ["mini_step", "machine_bench"], []),
    "growth": ("As sequences and layers grow", ["mini_step", "machine_bench"], []),
    "start": ("Start to first step", ["programs"], ["numpy"]),
    "plan": ("Memory: what --check says and what comes", ["programs"], ["numpy"]),
    "images": ("Pictures", ["image_bench"], ["numpy", "PIL"]),
    "tokenizer": ("Tokenizer", ["tokenizer_bench", "programs"], ["sentencepiece"]),
    "checkpoint": ("Writing a checkpoint", ["checkpoint_bench"], []),
    "index": ("Opening and checking a large JSON", ["programs"], []),
}


def machine():
    """One line about the processor and the memory."""
    info = Path("/proc/cpuinfo").read_text()
    field = lambda key: (re.search(rf"^{key}\s*: (.*)$", info, re.M) or ["", "?"])[1]
    flags = field("flags").split()
    known = [name for name, flag in (("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AVX512-BF16", "avx512_bf16"),
                                     ("AMX-BF16", "amx_bf16")) if flag in flags]
    total = int(re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[1]) / 2 ** 20
    return (f"{field('model name')} (family {field('cpu family')}, model {field('model')}; "
            f"{', '.join(known) or 'none of AVX2, AVX-512, AMX'}), {len(os.sched_getaffinity(0))} cores, "
            f"{total:.0f} GiB")


def commit():
    git = lambda *arguments: subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs").strip()
    return (git("rev-parse", "--short", "HEAD").strip() or "unknown") + (" with changes" if changed else "")


def busy():
    """(seconds that all processors worked, seconds of our children) so far."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), children.ru_utime + children.ru_stime


def measure(name, o):
    """The section's Markdown, or None if its bench failed."""
    command = [sys.executable, HERE / f"{name}.py", o.build]
    command += ["--threads", str(o.threads)] if o.threads else []
    command += ["--rounds", str(o.rounds)] if o.rounds else []
    command += ["--quick"] if o.quick else []
    start, (all_before, ours_before) = datetime.datetime.now(), busy()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = (datetime.datetime.now() - start).total_seconds()
    everything, ours = busy()
    if done.returncode != 0:
        print(f"{name}: exit {done.returncode}\n{done.stdout}", file=sys.stderr)
        return None
    others = max(0, (everything - all_before) - (ours - ours_before)) / seconds / os.cpu_count()
    how = " ".join(["scripts/bench.sh --only", name] + (["--quick"] if o.quick else [])
                   + ([f"--rounds {o.rounds}"] if o.rounds else []) + ([f"--threads {o.threads}"] if o.threads else []))
    return (f"*{machine()}; commit {commit()}, {start:%Y-%m-%d}; `{how}`, {seconds:.0f} s, in which other work took "
            f"{others:.0%} of the processors.*\n\n{done.stdout.strip()}")


def put(page, name, text):
    """The page with the section's text in its place."""
    begin, end = f"<!-- bench.sh: {name} -->", f"<!-- bench.sh: end of {name} -->"
    block = f"{begin}\n{text}\n{end}"
    if begin in page:
        head, rest = page.split(begin, 1)
        if end not in rest:
            raise SystemExit(f"the page has `{begin}` but not `{end}` behind it: put that line in")
        return head + block + rest.split(end, 1)[1]
    return f"{page.rstrip()}\n\n## {SECTIONS[name][0]}\n\n{block}\n"


def write(path, page):
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page)
    partial.replace(path)


def can_import(modules):
    return subprocess.run([sys.executable, "-c", "".join(f"import {m}\n" for m in modules)],
                          capture_output=True).returncode == 0


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--build", type=Path, default=ROOT / "build/release")
    options.add_argument("--only", default=",".join(SECTIONS))
    options.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    options.add_argument("--rounds", type=int)
    options.add_argument("--threads", type=int)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--list", action="store_true", help="names and titles of the sections")
    options.add_argument("--targets", action="store_true", help="what the sections need built")
    o = options.parse_args()
    chosen = [name for name in o.only.split(",") if name]
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown or not chosen:
        options.error(f"--only: no section {', '.join(unknown) or 'is named'}; there are {', '.join(SECTIONS)}")
    if o.list or o.targets:
        for name in chosen:
            title, targets, _ = SECTIONS[name]
            print(f"{name:12}{title}" if o.list else "\n".join(targets))
        return
    failed = []
    for name in chosen:
        _, _, modules = SECTIONS[name]
        if not can_import(modules):
            print(f"{name}: needs Python's {', '.join(modules)} (scripts/setup.sh brings them)", file=sys.stderr)
            text = None
        else:
            print(f"{name} ...", file=sys.stderr)
            text = measure(name, o)
        if text is None:
            failed.append(name)
            continue
        page = o.out.read_text() if o.out.exists() else f"# fwd2bot, measured\n\n{machine()}.\n"
        write(o.out, put(page, name, text))
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}; the page is as it was there")


if __name__ == "__main__":
    main()
