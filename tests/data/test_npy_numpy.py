"""What f2b-data image writes, numpy reads: type, shape, values."""
import json
import os
import pathlib
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release")) / "bin" / "f2b-data"


def test_numpy_reads_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"image_size": 2}}))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    (tmp_path / "x.ppm").write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
    subprocess.run([PROGRAM, "image", str(tmp_path / "x.ppm"), "--model", str(tmp_path), "--out",
                    str(tmp_path / "x.npy")], check=True, timeout=60)
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert array.dtype == np.dtype("<f4") and array.flags.c_contiguous
    expected = np.arange(12).reshape(2, 2, 3).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(array, expected, rtol=1e-6)
