#!/usr/bin/env python3
"""What `f2b-train --check` says a run will need, beside what the run then needs, by tag. Prints Markdown
for docs/benchmarks.md; exit code 1 if a total is further off than 5 % and 8 MiB.

    scripts/bench/plan.py [BUILD_DIR] [--threads N] [--quick]

The mini model (d 512, 8 layers, a tower of 128, 576 image tokens), four steps of all kinds of batch."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from measure import options_for, table

HERE = pathlib.Path(__file__).resolve().parent
RUNS = {
    "f32, no layer computed again":
        "model.weights=f32 train.precision=f32 train.activation_checkpointing=none",
    "bf16, projector trained": "train.activation_checkpointing=none trainable.projector=true",
    "int8, some layers (a limit of 550 MiB)": "model.weights=int8 train.memory_limit=550MiB",
    "nf4, all layers": "model.weights=nf4 train.activation_checkpointing=layer",
    "captions alone, GradCache":
        "method.loss=contrastive sampler.contrastive_batch=12 train.micro_batch_tokens=2000",
    "images grouped, the language model full": "sampler.group_images=true trainable.language_model=full",
}
QUICK = ("bf16, projector trained", "captions alone, GradCache")
UNITS = {"B": 1, "KiB": 2 ** 10, "MiB": 2 ** 20, "GiB": 2 ** 30}


def train(o, folder, settings, *more):
    command = [f"{o.build}/bin/f2b-train", "--config", folder / "run.yaml", "--resume", "none", "--threads",
               str(o.threads), *more, f"run.dir={folder}/run", *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
    return done


def planned(text):
    """{tag: bytes} of --check, and how many layers are computed again."""
    tags = re.findall(r"^#   (\w+) +[\d.]+ [KMGi]*B  (\d+)$", text, re.M)
    layers = re.search(r"activation checkpointing: (\d+) of", text).group(1)
    return {tag: int(n) for tag, n in tags}, layers


def needed(text, metrics):
    """{tag: bytes} of a run's last lines, as exact as they are printed; the total to the byte."""
    tags = re.findall(r"^peak (\w+) +([\d.]+) ([KMG]?i?B)$", text, re.M)
    found = {tag: float(n) * UNITS[unit] for tag, n, unit in tags}
    found["total"] = max(json.loads(line)["peak_bytes"] for line in metrics.read_text().splitlines())
    return found


def repeat_images(folder):
    """Three conversations an image, so that there is something to group."""
    records = json.loads((folder / "data/train.json").read_text())
    again = [{**record, "id": f"{record['id']}-{i}"} for record in records for i in range(3)]
    (folder / "data/train.json").write_text(json.dumps(again))


def main():
    o = options_for(__doc__, rounds=1).parse_args()
    rows, far = [], False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        size = ["--divide", "32"] if o.quick else ["--divide", "8", "--layers", "8"]
        subprocess.run([sys.executable, HERE / "shape_7b.py", folder, *size, "--samples", "6"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        repeat_images(folder)
        for name in QUICK if o.quick else RUNS:
            settings = ["sampler.conversation_batch=3", "sampler.contrastive_batch=3", *RUNS[name].split()]
            plan, layers = planned(train(o, folder, settings, "--check").stdout)
            fact = needed(train(o, folder, settings).stderr, folder / "run/metrics.jsonl")
            missing = [tag for tag in plan if tag not in fact and plan[tag] > 2 ** 20]
            if missing or not plan:
                sys.exit(f"{name}: no figures of {', '.join(missing) or 'the plan'}")
            off = {tag: plan[tag] / fact[tag] - 1 for tag in plan if fact.get(tag, 0) >= 2 ** 20}
            worst = max((tag for tag in off if tag != "total"), key=lambda tag: abs(plan[tag] - fact[tag]))
            far = far or (abs(off["total"]) > 0.05 and abs(plan["total"] - fact["total"]) > 8 * 2 ** 20)
            rows.append([name, layers, f"{plan['total'] / 2**20:,.1f}", f"{fact['total'] / 2**20:,.1f}",
                         f"{off['total']:+.1%}", f"{worst} {plan[worst] / 2**20:,.1f}, {fact[worst] / 2**20:,.1f} "
                         f"({off[worst]:+.1%})"])
    table(["run", "layers computed again", "planned MiB", "needed MiB", "off", "the tag that is furthest off"], rows)
    raise SystemExit(far)


main()
