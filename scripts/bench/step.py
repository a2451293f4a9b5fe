#!/usr/bin/env python3
"""One training step of the mini model, ours against PyTorch, alternating in one run; what each of our ops
takes, and the floor. Prints Markdown for docs/benchmarks.md.

    scripts/bench/step.py [BUILD_DIR] [--precision f32|bf16]... [--rounds N] [--threads N] [--batch N]
                          [--also f32|bf16] [--only-tuned] [--size NAME=N]... [--quick]

The peer (transformers' Llama, peft's LoRA) runs as it comes, and tuned: glibc told to keep freed memory,
OpenMP threads told not to spin, OpenBLAS told to use the AVX-512 kernels where the processor has AVX-512
(it does not know every one). All samples begin with the same 35 words, as LLaVA's do with the system's; ours
computes their rows once a pass, and so runs a second time with samples that have no word in common. With --also
ours runs in a further precision: bf16 beside f32 on a processor whose PyTorch cannot use bf16.
PEER_PYTHON in the environment names the python of another environment with torch, transformers and peft: a
further peer, with eager attention and with PyTorch's own (sdpa). A size is one that both programs know
(tests/bench/mini_step_program.c): --size r=128 --size dropout=5 is the LoRA of configs/."""
from pathlib import Path

from machine import product_rate, rates
from measure import QUICK, median, options_for, pythons, run, table, version
from step_env import tuned

PEER = Path(__file__).resolve().parent / "peer_step.py"
IS_DEBIANS = "import json, torch; print(json.dumps(torch.__file__.startswith('/usr/lib/')))"
NOTHING_ALIKE = "fwd2bot, samples with no word in common"
STEPS = 4                               # a process, the first of which warms it up
PRODUCTS = ("linear", "gated_linear", "attention", "head_cross_entropy")      # ops that are matrix products


def check_blas():
    """Debian's PyTorch multiplies with whatever BLAS the system has chosen."""
    for library in map(Path.resolve, Path("/usr/lib").glob("*/libblas.so.3")):
        if library.parent.name == "blas":
            raise SystemExit(f"step.py: Debian's PyTorch would multiply with the reference BLAS ({library}), some twenty "
                             "times too slowly to compare with: scripts/setup.sh installs OpenBLAS")


def also(o):
    return f"fwd2bot in {o.also}"


def contenders(o, precision, sizes):
    """{name: (command, environment)}, ours first."""
    ours = [f"{o.build}/tests/mini_step", o.batch, precision, STEPS, *sizes]
    found = {"fwd2bot": (ours, {}), NOTHING_ALIKE: ([*ours, "system=0"], {})}
    if o.also:
        found[also(o)] = ([o.also if part == precision else part for part in ours], {})
    for python in pythons("torch", "transformers", "peft"):
        name = "PyTorch " + version(python, "torch")
        if name.startswith("PyTorch 1.") and run([python, "-c", IS_DEBIANS]):
            check_blas()
        for attention in ["eager"] if name.startswith("PyTorch 1.") else ["eager", "sdpa"]:
            peer = [python, PEER, o.batch, precision, STEPS, attention, *sizes]
            if not o.only_tuned:
                found[f"{name} {attention}, as it comes"] = (peer, {})
            found[f"{name} {attention}, tuned"] = (peer, tuned())
    return found


def compare(o, precision, sizes, threads):
    """The table of all contenders; returns the fastest peer (or None)."""
    every = contenders(o, precision, sizes)
    results = {name: [] for name in every}
    for _ in range(o.rounds):
        for name, (command, env) in every.items():
            results[name].append(run(command, **env, **threads))
    steps = {name: [s for r in rs for s in r["seconds"][1:]] for name, rs in results.items()}
    busy = {name: median([s for r in rs for s in r["processor_seconds"][1:]]) for name, rs in results.items()}
    resident = {name: max(r["resident_bytes"] for r in rs) for name, rs in results.items()}
    table([f"{precision}, batch {o.batch}, {o.threads} threads", "best s", "median s", "samples/s (best)",
           "samples/s (median)", "processors' s", "resident GiB"],
          [[name, f"{min(s):.3g}", f"{median(s):.3g}", f"{o.batch / min(s):.2f}", f"{o.batch / median(s):.2f}",
            f"{busy[name]:.3g}", f"{resident[name] / 2**30:.2f}"] for name, s in steps.items()])
    ours, alone, *peers = (name for name in every if not o.also or name != also(o))
    if not peers:
        print("\nNo peer: torch, transformers and peft are not installed (scripts/setup.sh brings them).")
        return None
    fastest, typical, leanest = (min(peers, key=key) for key in (
        lambda p: min(steps[p]), lambda p: median(steps[p]), resident.get))
    least = min(peers, key=busy.get)
    print(f"\nAgainst the fastest peer: {min(steps[fastest]) / min(steps[ours]):.2f} (best, {fastest}), "
          f"{median(steps[typical]) / median(steps[ours]):.2f} (median, {typical}) times as fast "
          f"({min(steps[fastest]) / min(steps[alone]):.2f}, {median(steps[typical]) / median(steps[alone]):.2f} with no "
          f"word in common), {busy[least] / busy[ours]:.2f} by the processors' seconds; {resident[ours] / resident[leanest]:.2f} of "
          f"the memory of the leanest ({leanest}).")
    if o.also:
        print(f"In {o.also}: {min(steps[fastest]) / min(steps[also(o)]):.2f} (best), "
              f"{median(steps[typical]) / median(steps[also(o)]):.2f} (median) times as fast, "
              f"{resident[also(o)] / resident[leanest]:.2f} of the memory.")
    return fastest, every[fastest]


def ops(o, precision, sizes, threads, rate):
    """Where our step goes, and the floor."""
    found = run([f"{o.build}/tests/mini_step", o.batch, precision, 4, "profile", *sizes], **threads)
    step, busy = (sum(found[k][1:]) / len(found[k][1:]) for k in ("seconds", "processor_seconds"))
    rows, sums = {}, {}
    for op in found["ops"]:
        rows.setdefault(op["op"], {})[op["backward"]] = op
        for key in ("seconds", "flops"):
            sums[key] = sums.get(key, 0) + op[key]
    print()
    table(["op", "forward s", "backward s", "GFLOP/s forward", "backward", "share of the step"],
          [[name, *(f"{op[side]['seconds']:.4f}" if side in op else "-" for side in (False, True)),
            *(f"{op[side]['flops'] / op[side]['seconds'] / 1e9:.0f}" if side in op and op[side]["flops"] else "-"
              for side in (False, True)), f"{sum(r['seconds'] for r in op.values()) / step:.1%}"]
           for name, op in rows.items() if sum(r["seconds"] for r in op.values()) >= 0.002 * step])
    products = sum(op["seconds"] for op in found["ops"] if op["op"] in PRODUCTS)
    floor = sums["flops"] / rate[1] / 1e9
    print(f"\n{products / step:.0%} of the step is in ops that are matrix products (linear layers, attention, head). Its "
          f"{sums['flops'] / 1e9:,.0f} GFLOP at the best rate of a plain product in this run ({rate[1]:.0f} GFLOP/s "
          f"of the processors, {rate[0]:.0f} by the clock) take {floor:.3g} s: the floor, {floor / step:.0%} of this step by the "
          f"clock and {floor * o.threads / busy:.0%} by the processors' seconds.")


def main():
    options = options_for(__doc__, rounds=5)
    options.add_argument("--precision", action="append", choices=["f32", "bf16"])
    options.add_argument("--batch", type=int)
    options.add_argument("--also", choices=["f32", "bf16"])
    options.add_argument("--only-tuned", action="store_true")
    options.add_argument("--size", action="append", default=[], metavar="NAME=N")
    o = options.parse_args()
    o.batch, o.only_tuned = o.batch or (2 if o.quick else 8), o.only_tuned or o.quick
    sizes, threads = [*(QUICK if o.quick else []), *o.size], {"OMP_NUM_THREADS": str(o.threads), "HF_HUB_OFFLINE": "1"}
    speed = rates(o)
    for i, precision in enumerate(o.precision or (["bf16"] if o.quick else ["f32", "bf16"])):
        if i > 0:
            print()
        peer = compare(o, precision, sizes, threads)
        ops(o, precision, sizes, threads, product_rate(speed, precision))
        if peer is not None:
            name, (command, env) = peer
            share = run([*command, "profile"], **env, **threads)["products"]
            print(f"{name} has {share:.0%} of its time in matrix products (PyTorch's profiler).")


main()
