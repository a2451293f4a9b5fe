#!/usr/bin/env python3
"""Makes tests/data/golden_image.inc: FNV-1a hashes of Pillow's own results on drawn pictures.

    /usr/bin/python3 scripts/golden/image_resize.py > tests/data/golden_image.inc

The pictures are drawn by a formula that tests/data/test_image.c repeats: smooth waves with noise and
hard edges, so that the bicubic filter over- and undershoots.
"""
import numpy as np
import PIL
from PIL import Image

CASES = [(640, 480, 336), (427, 640, 336), (500, 375, 64), (61, 47, 336), (336, 336, 336),
         (337, 335, 336), (336, 200, 336), (200, 336, 336), (1, 1, 16), (1, 300, 24), (300, 1, 24),
         (2, 3, 7), (1001, 13, 30), (17, 999, 31), (64, 64, 64), (128, 128, 64), (23, 29, 1)]


def picture(w, h):
    y, x = np.mgrid[0:h, 0:w].astype(np.uint32)
    out = np.empty((h, w, 3), np.uint8)
    for c in range(3):
        noise = (x * np.uint32(2654435761) ^ y * np.uint32(2246822519) ^ np.uint32(c * 3266489917 % 2**32))
        noise = (noise ^ (noise >> np.uint32(15))) * np.uint32(2246822519)
        edge = ((x // 7 + y // 5 + c) % 3 == 0) * np.uint32(150)
        out[..., c] = np.minimum(255, (noise >> np.uint32(25)) + edge)
    return Image.fromarray(out)


def pad(image, size):
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.BICUBIC)


def crop(image, size):
    w, h = image.size
    full = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    left, top = (full[0] - size) // 2, (full[1] - size) // 2
    return image.resize(full, Image.BICUBIC).crop((left, top, left + size, top + size))


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


print(f"/* Made by scripts/golden/image_resize.py with Pillow {PIL.__version__}: width, height, size,\n"
      " * hash of the padded result, hash of the cropped one. */")
for w, h, size in CASES:
    image = picture(w, h)
    print(f"{{ {w}, {h}, {size}, 0x{fnv(pad(image, size).tobytes()):016x}u, "
          f"0x{fnv(crop(image, size).tobytes()):016x}u }},")
