#!/usr/bin/env python3
"""What this machine can do: multiply-adds in registers, our matrix products, memory. Prints Markdown for
docs/benchmarks.md.

    scripts/bench/machine.py [BUILD_DIR] [--rounds N] [--threads N] [--quick]
"""
from measure import options_for, run, table


def rates(o):
    """The object that machine_bench prints; `o` has build, rounds, threads, quick."""
    quick = ["quick"] if o.quick else []
    return run([f"{o.build}/tests/machine_bench", o.rounds, *quick], OMP_NUM_THREADS=str(o.threads))


def product_rate(found, precision):
    """(by the clock, by processors): the best GFLOP/s of a product in a precision."""
    both = [p["gflops"] for p in found["products"] if p["precision"] == precision]
    return tuple(max(values) for values in zip(*both))


def main():
    o = options_for(__doc__, rounds=10).parse_args()
    found = rates(o)
    print(f"{found['threads']} threads, {o.rounds} rounds: the best by the clock. *Of the processors*: all rounds by the "
          "seconds that the threads had a processor, which other work does not lengthen.\n")
    rows = [["multiply-adds in registers, f32, GFLOP/s", *found["f32_peak"]]]
    if found["bf16_peak"][0] > 0:
        rows.append(["the same in bf16 (VDPBF16PS)", *found["bf16_peak"]])
    rows += [["`a[i] = b[i] + c[i]`, from memory, GB/s", *found["memory"]],
             ["the same out of the caches", *found["cache"]]]
    table(["", "by the clock", "of the processors"], rows)
    print()
    shapes = {}
    for p in found["products"]:
        shapes.setdefault(f"{p['m']:,} x {p['n']:,} x {p['k']:,}", []).extend(p["gflops"])
    table(["product, GFLOP/s: rows x columns x k", "f32", "of the processors", "bf16", "of the processors"],
          [[name, *values] for name, values in shapes.items()])


if __name__ == "__main__":
    main()
