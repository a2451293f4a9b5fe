"""f2b-data image against Pillow: the same pixels give the same bytes, on real photographs."""
import hashlib
import json
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
PROGRAM = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release")) / "bin" / "f2b-data"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

OTHER_THAN_PILLOW = {
    "pillow/hopper.webp": "refused: no decoder of WebP here",
}


def prepare(image, size, crop):
    """LLaVA's expand2square or llava-hf's crop, then CLIP's resize."""
    if not crop:
        side = max(image.size)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    w, h = image.size
    full = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    left, top = (full[0] - size) // 2, (full[1] - size) // 2
    image = image.resize(full, Image.BICUBIC).crop((left, top, left + size, top + size))
    return np.asarray(image)


def normalise(rgb):
    scaled = (rgb.astype(np.float64) * (1 / 255)).astype(np.float32)
    return ((scaled - MEAN) / STD).transpose(2, 0, 1)


def pixels(array):
    """Back from the normalised array to uint8 [S, S, 3]."""
    return np.rint((array.transpose(1, 2, 0) * STD + MEAN) * 255).astype(np.uint8)


def run(path, out, size, *options, check=True):
    model = out.parent / f"model{size}"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps({"vision_config": {"image_size": size}}))
    done = subprocess.run([PROGRAM, "image", str(path), "--model", str(model), "--out", str(out), *options],
                          capture_output=True, text=True, timeout=60)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def photographs():
    return sorted((SHARED / "coco-images" / "train").glob("*.jpg"))[::12]


@pytest.mark.parametrize("crop", [False, True])
def test_resize_is_pillow_to_the_byte(tmp_path, crop):
    if not photographs():
        pytest.skip("../shared/data/coco-images is missing")
    for photograph in photographs():
        image = Image.open(photograph).convert("RGB")
        image.save(tmp_path / "same.png", compress_level=1)
        run(tmp_path / "same.png", tmp_path / "x.npy", 336, *(["--crop"] if crop else []))
        ours = np.load(tmp_path / "x.npy")
        assert ours.dtype == np.float32 and ours.shape == (3, 336, 336)
        np.testing.assert_array_equal(ours, normalise(prepare(image, 336, crop)))


def test_photographs_are_pillow_to_the_byte(tmp_path):
    if not photographs():
        pytest.skip("../shared/data/coco-images is missing")
    for photograph in photographs():
        run(photograph, tmp_path / "x.npy", 336)
        theirs = normalise(prepare(Image.open(photograph).convert("RGB"), 336, False))
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), theirs, photograph.name)


@pytest.mark.parametrize("mode, options", [
    ("RGB", {}), ("RGB", {"subsampling": 0}), ("RGB", {"subsampling": 1}),
    ("RGB", {"progressive": True}), ("RGB", {"quality": 5}), ("RGB", {"quality": 100}),
    ("L", {}), ("L", {"progressive": True}), ("CMYK", {}), ("CMYK", {"progressive": True}),
    ("RGB", {"optimize": True}),
])
def test_kinds_of_jpeg_are_pillow_to_the_byte(tmp_path, mode, options):
    random = np.random.default_rng(5)
    rgb = random.integers(0, 256, (75, 101, 3)).astype(np.uint8)
    rgb[20:50, 30:80] = (250, 10, 120)
    path = tmp_path / "x.jpg"
    Image.fromarray(rgb).convert(mode).save(path, **options)
    run(path, tmp_path / "x.npy", 64)
    theirs = normalise(prepare(Image.open(path).convert("RGB"), 64, False))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), theirs)


def test_damaged_jpegs_are_refused(tmp_path):
    path = tmp_path / "x.jpg"
    random = np.random.default_rng(5)
    Image.fromarray(random.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(
        path, progressive=True, quality=50)
    whole = path.read_bytes()
    assert whole[-2:] == b"\xff\xd9"
    # The scan of the last bits of the means is sound however often it comes.
    scan = re.search(rb"\xff\xda\0\x0c\x03......\0\0\x10(?:[^\xff]|\xff\0)*", whole, re.DOTALL)[0]
    middle = len(whole) // 2
    for bytes_, says in ((whole[:-2], "truncated JPEG"), (whole[:middle], "truncated JPEG"),
                         (whole[:2] + whole[-2:], "damaged JPEG"),
                         (whole[:middle] + b"\xff\xd9", "damaged JPEG (Corrupt JPEG data"),
                         (whole[:-2] + scan * 120 + whole[-2:], "more than 100 scans")):
        path.write_bytes(bytes_)
        done = run(path, tmp_path / "x.npy", 64, check=False)
        assert done.returncode == 3 and "x.jpg" in done.stderr and says in done.stderr, done.stderr


def odd_images():
    table = SHARED / "odd-images" / "reference_decode.tsv"
    if not table.exists():
        return []
    return [line.split("\t") for line in table.read_text().splitlines()[1:]]


@pytest.mark.skipif(not odd_images(), reason="../shared/data/odd-images is missing")
def test_odd_images_decode_as_pillow_does(tmp_path):
    for row in odd_images():
        name, status, width, height = row[0], row[2], row[5], row[6]
        path = SHARED / "odd-images" / name
        if status != "ok" or name in OTHER_THAN_PILLOW:
            done = run(path, tmp_path / "x.npy", 336, check=False)
            assert done.returncode == 3 and name.split("/")[1] in done.stderr, done.stderr
            continue
        if int(width) > 1024:
            continue                # larger than any S that is worth the time here
        size = max(int(width), int(height))
        run(path, tmp_path / "x.npy", size)         # padded only: the pixels are as decoded
        top, left = (size - int(height)) // 2, (size - int(width)) // 2
        ours = pixels(np.load(tmp_path / "x.npy"))[top:top + int(height), left:left + int(width)]
        assert hashlib.sha256(ours.tobytes()).hexdigest() == row[7], name
