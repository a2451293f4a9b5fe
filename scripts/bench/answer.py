"""Compressing and answering with a mini model, ours against scripts/examples/peft_consumer.py,
alternating in one run; and what an image costs as all its tokens and as K. Prints Markdown tables for
docs/benchmarks.md.

    answer.py BUILD_DIR WORK [--rounds N] [--threads N] [--images N] [--new-tokens N]
        [--prefix COMMAND]

WORK is a folder for the model and its images (d 512, 8 layers, K = 16, 576 visual tokens, random
weights), made if it is not there. The peer runs as it comes, and tuned as in step.py."""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from step_env import tuned

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LANGUAGE = dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=8,
                num_attention_heads=8, vocab_size=32000, rms_norm_eps=1e-5)
VISION = dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4,
              image_size=336, patch_size=14, projection_dim=256)
K = 16
METHOD = {
    "tokens": K, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 16, "alpha": 32, "dropout": 0.0,
             "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                         "down_proj"]},
}
QUESTION = "What color is it?\nAnswer the question using a single word or phrase."


PREFIX = []                                         # of every program: chrt, taskset, ...


def run(command, threads, env=()):
    env = {**os.environ, **dict(env), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
           "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(PREFIX + [str(c) for c in command], capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr}")
    return done


def make_work(build, work, threads):
    import torch
    sys.path.insert(0, str(ROOT / "tests"))
    from oracle import random_model
    run([build / "bin/f2b-data", "toy", "--out", work, "--train", 1, "--val", 32], threads)
    random_model.SHAPES["mini"] = dict(language=LANGUAGE, vision=VISION, dtype=torch.float32,
                                       shards=1, layout="disk")
    base = random_model.write_llava(work / "base", "mini")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((work / "model" / file).read_bytes())
    processor = json.loads((work / "model/preprocessor_config.json").read_text())
    processor.update(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    (base / "preprocessor_config.json").write_text(json.dumps(processor))
    run([build / "tests/make_run", base, work / "run", json.dumps(METHOD), 5], threads)
    run([build / "bin/f2b-export", "--checkpoint", work / "run", "--format", "peft", "--out",
         work / "export"], threads)


def ours(build, work, o):
    """{what: seconds an image or a question}: a run over N + 1 less a run over the first, so that
    opening the model is left out, as it is for the peer."""
    images = sorted((work / "images").glob("v*.png"))[:o.images + 1]
    listed, store, lines = work / "list.txt", work / "store", work / "questions.jsonl"
    model = ["--checkpoint", work / "run"]

    def compress(n):
        listed.write_text("".join(f"{image.name}\n" for image in images[:n]))
        run(["rm", "-rf", store], 1)
        done = run([build / "bin/f2b-compress", *model, "--images", listed, "--image-folder",
                    work / "images", "--out", store, "--batch", 1], o.threads)
        return {"compress": json.loads(done.stdout)["seconds"]}

    def ask(n, what, key, *options):
        lines.write_text("".join(json.dumps({"question": QUESTION, key: image.name}) + "\n"
                                 for image in images[:n]))
        done = run([build / "bin/f2b-answer", *model, "--questions", lines, "--max-new-tokens",
                    o.new_tokens, *options], o.threads)
        return {what + ", image": float(re.findall(r"image ([\d.]+) s", done.stderr)[0]),
                what: float(re.findall(r"tokens in ([\d.]+) s", done.stderr)[0])}

    def difference(measure, *arguments):
        first, all_of_them = measure(1, *arguments), measure(o.images + 1, *arguments)
        return {k: (all_of_them[k] - first[k]) / o.images for k in first}

    result = difference(compress)
    stored = ("id", "--store", store)
    result.update(difference(ask, "K tokens", *stored, "--batch", 1))
    result.update(difference(ask, "K tokens, batch 8", *stored, "--batch", 8))
    result.update(difference(ask, "all tokens", "image", "--images", work / "images", "--tokens",
                             "full", "--batch", 1))
    return result


def peer(work, o, env):
    done = run([sys.executable, HERE / "peer_answer.py", work, o.images, o.new_tokens, QUESTION],
               o.threads, env)
    return json.loads(done.stdout.splitlines()[-1])


def operations(rows, new_tokens, tower):
    """Multiplications and additions of linears and attention, as the paper counts; the head on
    rows that are read out alone."""
    d, m, layers = (LANGUAGE[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    rows += max(new_tokens - 1, 0)
    linear = 2 * rows * layers * (4 * d * d + 3 * d * m)
    total = linear + layers * 2 * d * rows * rows + 2 * new_tokens * LANGUAGE["vocab_size"] * d
    if tower:
        v, mlp, depth = (VISION[k] for k in ("hidden_size", "intermediate_size",
                                             "num_hidden_layers"))
        depth -= 1                                  # the last layer is never used
        total += 2 * 577 * depth * (4 * v * v + 2 * v * mlp) + depth * 4 * v * 577 * 577
        total += 2 * 576 * (588 * v + v * d + d * d)
    return total


def main():
    options = argparse.ArgumentParser()
    options.add_argument("build", type=Path)
    options.add_argument("work", type=Path)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--images", type=int, default=8)
    options.add_argument("--new-tokens", type=int, default=16)
    options.add_argument("--prefix", default="", help="run programs under it: \"taskset -c 0,1\"")
    options.add_argument("--prepare", action="store_true", help="make WORK and stop")
    o = options.parse_args()
    if not (o.work / "export").exists():
        make_work(o.build, o.work, o.threads)
    if o.prepare:
        return
    PREFIX.extend(o.prefix.split())
    contenders = {"fwd2bot": lambda: ours(o.build, o.work, o),
                  "Python example": lambda: peer(o.work, o, {}),
                  "Python example, tuned": lambda: peer(o.work, o, tuned())}
    found = {name: [] for name in contenders}
    for _ in range(o.rounds):
        for name, measure in contenders.items():
            found[name].append(measure())

    def best(name, what):
        return min(r[what] for r in found[name])

    columns = ["compress", "K tokens", "K tokens, batch 8", "all tokens"]
    print(f"| f32, {o.threads} threads, best of {o.rounds} (median) | images/s, compressing "
          "| answers/s, K tokens | the same, batch 8 | answers/s, all tokens |\n"
          "| --- | --- | --- | --- | --- |")
    for name, results in found.items():
        cells = [f"{1 / best(name, c):.2f} ({1 / statistics.median(r[c] for r in results):.2f})"
                 if c in results[0] else "-" for c in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    d, words = LANGUAGE["hidden_size"], 15      # ids beside the image in the toy tokenizer
    print("\n| an image as | operations | milliseconds | bytes stored |\n| --- | --- | --- | --- |")
    for what, rows, ms, stored in (
            ("all 576 tokens: tower", 0, best("fwd2bot", "all tokens, image"), 2 * 576 * d),
            ("all 576 tokens: a question", 576 + words, best("fwd2bot", "all tokens"), ""),
            (f"{K} tokens: compressing, once", 576 + words + K, best("fwd2bot", "compress"),
             2 * K * d),
            (f"{K} tokens: a question", K + words, best("fwd2bot", "K tokens"), "")):
        new = o.new_tokens if "question" in what else 0
        tower = "tower" in what or "once" in what
        print(f"| {what} | {operations(rows, new, tower) / 1e9:.1f} G | {1000 * ms:.1f} | {stored} |")


main()
