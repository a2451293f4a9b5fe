"""What the benches share: their options, running a contender, tables, the peers' pythons."""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"            # real data, not part of the repository
# Sizes of a mini step that takes milliseconds: to see that a bench works, not to measure.
QUICK = "d=64 ff=96 heads=2 layers=2 vocab=256 image=16 prompt=8 talk=24 labelled=10".split()


def options_for(description, rounds):
    """The options that all benches have."""
    options = argparse.ArgumentParser(description=description,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("build", nargs="?", type=Path, default=ROOT / "build/release")
    options.add_argument("--rounds", type=int, default=rounds)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--quick", action="store_true", help="tiny sizes, seconds: a test, no measurement")
    return options


def run(command, **env):
    """The JSON object of the last line of a program's output."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def pythons(*modules):
    """This python, and the one of PEER_PYTHON where that is set, as far as they have the modules."""
    found = []
    for python in [sys.executable, *filter(None, [os.environ.get("PEER_PYTHON")])]:
        test = subprocess.run([python, "-c", "import " + ", ".join(modules)], capture_output=True)
        if test.returncode == 0 and python not in found:
            found.append(python)
    return found


def version(python, module):
    code = f"import importlib.metadata as m; print(m.version('{module}'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("a0")[0].split("+")[0].strip()


def table(head, rows):
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def median(values):
    return statistics.median(values)
