#!/usr/bin/env python3
"""What this machine can do: multiply-adds in registers, our matrix products (beside those of every PyTorch that
is here: oneDNN's), memory. Prints Markdown for docs/benchmarks.md.

    scripts/bench/machine.py [BUILD_DIR] [--rounds N] [--threads N] [--quick]
"""
from pathlib import Path

from measure import options_for, pythons, run, table


def rates(o):
    """The object that machine_bench prints; `o` has build, rounds, threads, quick."""
    quick = ["quick"] if o.quick else []
    return run([f"{o.build}/tests/machine_bench", o.rounds, *quick], OMP_NUM_THREADS=str(o.threads))


def product_rate(found, precision):
    """(by the clock, by processors): the best GFLOP/s of a product in a precision."""
    both = [p["gflops"] for p in found["products"] if p["precision"] == precision]
    return tuple(max(values) for values in zip(*both))


def peers(o, found):
    """What PyTorch's products reach on the same shapes, one table a library."""
    shapes = list(dict.fromkeys((p["m"], p["n"], p["k"]) for p in found["products"]))
    for python in pythons("torch"):
        got = run([python, Path(__file__).with_name("peer_products.py"), o.rounds,
                   *(",".join(map(str, shape)) for shape in shapes)], OMP_NUM_THREADS=str(o.threads))
        print()
        columns = [p + how for p in ("f32", "bf16") for how in ("", ", weight packed before")]
        table([f"the same by {got['library']}", *columns],
              [[f"{m:,} x {n:,} x {k:,}",
                *("-" if p[how] is None else p[how] for p in got["products"] if (p["m"], p["n"], p["k"]) == (m, n, k)
                  for how in ("plain", "packed"))] for m, n, k in shapes])


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
        shapes.setdefault(f"{p['m']:,} x {p['n']:,} x {p['k']:,}", []).extend([*p["gflops"], p["packed"][0]])
    columns = [p + how for p in ("f32", "bf16") for how in ("", ", of the processors", ", weight packed before")]
    table(["product, GFLOP/s: rows x columns x k", *columns], [[name, *values] for name, values in shapes.items()])
    peers(o, found)


if __name__ == "__main__":
    main()
