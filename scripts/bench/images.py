#!/usr/bin/env python3
"""From a picture's file to the vision tower's input (decode, pad, resize to S x S, normalise) on one
core: ours beside Pillow with NumPy, and beside transformers' CLIPImageProcessor, the way LLaVA does
it. Alternating in one run; prints a Markdown table for docs/benchmarks.md, and whether all values
are the same.

    scripts/bench/images.py [BUILD_DIR] [--images DIR] [--size S] [--rounds N] [--quick]

Takes every JPEG below DIR; without DIR the photographs of ../shared where they are, else 100 drawn
pictures of 640 x 480.
"""
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import numpy as np
from PIL import Image

from measure import SHARED, options_for

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
BACKGROUND = (122, 116, 104)


def drawn(folder, n=100):
    """Soft shapes with some noise, about as many bytes a pixel as photographs have."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[0:480, 0:640] / 64.0
    for i in range(n):
        a, b, c = random.uniform(0.5, 3, (3, 3))
        planes = [np.sin(a[k] * x + i) * np.cos(b[k] * y) + np.sin(c[k] * x * y) for k in range(3)]
        image = np.stack(planes, 2) * 60 + 128 + random.normal(0, 12, (480, 640, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def square(path):
    image = Image.open(path).convert("RGB")
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), BACKGROUND)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def pillow(path, size):
    rgb = np.asarray(square(path).resize((size, size), Image.BICUBIC))
    table = (np.arange(256) * (1 / 255)).astype(np.float32)     # rescaling in f64, as transformers
    return np.ascontiguousarray(((table[rgb] - MEAN) / STD).transpose(2, 0, 1))


def clip_processor(size):
    from transformers import CLIPImageProcessor
    processor = CLIPImageProcessor(size={"shortest_edge": size},
                                   crop_size={"height": size, "width": size})
    return lambda path, _: processor(square(path), return_tensors="np")["pixel_values"][0]


def digest(arrays):
    h = 0xCBF29CE484222325
    for array in arrays:
        for word in array.view(np.uint32).ravel().tolist():
            h = ((h ^ word) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def ours(build, size, paths):
    done = subprocess.run([f"{build}/tests/image_bench", str(size), "1", *map(str, paths)],
                          stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def seconds_of(prepare, size, paths):
    start = time.perf_counter()
    for path in paths:
        prepare(path, size)
    return time.perf_counter() - start


def main():
    options = options_for(__doc__, rounds=7)
    options.add_argument("--images", type=pathlib.Path)
    options.add_argument("--size", type=int, default=336)
    o = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photographs = SHARED / "coco-images"
        where = o.images or (photographs if photographs.is_dir() and not o.quick else None)
        paths = sorted(where.rglob("*.jpg")) if where else drawn(pathlib.Path(folder), 2 if o.quick else 100)
        contenders = {"Pillow and NumPy": pillow}
        try:
            contenders["CLIPImageProcessor"] = clip_processor(o.size)
        except ImportError:
            print("transformers is not there: left out\n")
        seconds = {name: [] for name in ("fwd2bot", *contenders)}
        parts = []
        for _ in range(o.rounds):
            parts.append(ours(o.build, o.size, paths))
            seconds["fwd2bot"].append(parts[-1]["seconds"])
            for name, prepare in contenders.items():
                seconds[name].append(seconds_of(prepare, o.size, paths))
        few = paths[:8]
        same = {name: digest(prepare(path, o.size) for path in few) == ours(o.build, o.size, few)["hash"]
                for name, prepare in contenders.items()}
    n, mine = len(paths), seconds["fwd2bot"]
    print(f"| {n} JPEGs to {o.size} x {o.size} | images/s/core (best) | (median) | fwd2bot is faster by "
          "(best, median) | values |\n| --- | --- | --- | --- | --- |")
    for name, values in seconds.items():
        best, median = min(values), statistics.median(values)
        faster = (f"{best / min(mine):.2f}, {median / statistics.median(mine):.2f} | "
                  f"{'the same' if same[name] else 'DIFFER'}" if name != "fwd2bot" else "- | -")
        print(f"| {name} | {n / best:.0f} | {n / median:.0f} | {faster} |")
    best = min(parts, key=lambda part: part["seconds"])
    print("\nOurs, milliseconds a picture: "
          + ", ".join(f"{part} {1e3 * best[part] / n:.2f}" for part in ("decode", "resize", "normalise")))


main()
