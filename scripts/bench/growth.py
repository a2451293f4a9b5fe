#!/usr/bin/env python3
"""What a training step costs as sequences and layers grow, beside the floor. Prints Markdown for
docs/benchmarks.md.

    scripts/bench/growth.py [BUILD_DIR] [--precision f32|bf16]... [--rounds N] [--threads N] [--quick]

The mini model (d 512, 8 layers), one sample: pass 1 has T rows (an image of T - 60, a prompt of 44 tokens,
K = 16), pass 2 about as many, of which half have a label. Floor: the operations of all products at the best
rate of a plain product in this run, and the bytes of norms, sums and SwiGLU at the rate of the caches."""
from machine import product_rate, rates
from measure import QUICK, median, options_for, run, table

SIDES = (6, 12, 21, 31, 44)             # of the image: about 100, 200, 500, 1,000 and 2,000 rows in all
LAYERS = (2, 4, 8, 16)
STREAMS = ("gated_linear", "rms_norm")      # ops that are bytes, too; of the others the floor counts none


def rows(side):
    return side * side + 44 + 16


def sizes(side, layers):
    talk = side * side + 44
    return [f"image={side * side}", f"talk={talk}", f"labelled={talk // 2}", f"layers={layers}"]


def measure(o, precision, settings, speed):
    """{what: figure}; seconds are medians, those of ops included."""
    found = [run([f"{o.build}/tests/mini_step", 1, precision, 4, "profile", *settings],
                 OMP_NUM_THREADS=str(o.threads)) for _ in range(o.rounds)]
    busy = median([s for f in found for s in f["processor_seconds"][1:]]) / o.threads
    ops = found[0]["ops"]
    flops = sum(op["flops"] for op in ops)
    attention = sum(op["flops"] for op in ops if op["op"] == "attention")
    spent = median([sum(op["seconds"] for op in f["ops"] if op["op"] == "attention")
                    / sum(op["seconds"] for op in f["ops"]) for f in found])
    streamed = sum(op["bytes"] for op in ops if op["op"] in STREAMS)
    return {"best": min(s for f in found for s in f["seconds"][1:]), "busy": busy, "flops": flops,
            "attention": attention / flops, "spent": spent,
            "floor": (flops / product_rate(speed, precision)[1] + streamed / speed["cache"][1]) / 1e9}


def cells(m):
    return [f"{1e3 * m['best']:.1f}", f"{1e3 * m['busy']:.1f}", f"{m['flops'] / 1e9:.1f}",
            f"{1e3 * m['floor']:.1f}", f"{m['floor'] / m['busy']:.0%}", f"{m['attention']:.0%}", f"{m['spent']:.0%}"]


def main():
    options = options_for(__doc__, rounds=3)
    options.add_argument("--precision", action="append", choices=["f32", "bf16"])
    o = options.parse_args()
    speed = rates(o)
    head = ["ms (best)", "ms of each processor", "GFLOP", "floor ms", "floor / processors",
            "attention, of the operations", "of the time"]
    for i, precision in enumerate(o.precision or (["bf16"] if o.quick else ["f32", "bf16"])):
        if i > 0:
            print()
        if o.quick:
            tokens = {"tiny": QUICK}
        else:
            tokens = {f"{rows(side):,}": sizes(side, 8) for side in SIDES}
        table([f"{precision}: rows of a pass", *head],
              [[name, *cells(measure(o, precision, s, speed))] for name, s in tokens.items()])
        print()
        layers = {n: [*QUICK, f"layers={n}"] if o.quick else sizes(24, n) for n in ((1, 2) if o.quick else LAYERS)}
        table([f"{precision}: layers, {'few' if o.quick else rows(24)} rows", *head],
              [[n, *cells(measure(o, precision, s, speed))] for n, s in layers.items()])


main()
