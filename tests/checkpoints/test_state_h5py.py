"""h5py reads a checkpoint: names, types, shapes, values, attributes, and nothing else is there."""
import json
import os
import pathlib
import subprocess

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release")) / "tests/test_state"
SHAPES = {"summary_tokens": (4, 16),
          "language_model.model.layers.0.self_attn.q_proj.compression.lora_A": (2, 8),
          "log_temperature": (), "frozen.but.saved": (5,)}


def values(kind, tensor):
    """As state_fixture.h fills step 120, operation by operation in f32."""
    f = np.float32
    return (f(120) + f(tensor) * f(0.1) + np.arange(64, dtype=f) * f(1e-3) + f(kind) * f(0.7))


def test_h5py_reads_it(tmp_path):
    subprocess.run([PROGRAM, "write", str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "latest").read_text() == "checkpoints/step-00000120\n"
    folder = tmp_path / "checkpoints" / "step-00000120"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"]["state.h5"]["size"] == (folder / "state.h5").stat().st_size
    with h5py.File(folder / "state.h5", "r") as file:
        assert set(file) == {"parameters", "adam"} and set(file["adam"]) == {"m", "v"}
        groups = [file["parameters"], file["adam/m"], file["adam/v"]]
        assert set(groups[0]) == set(SHAPES)
        assert set(groups[1]) == set(groups[2]) == set(SHAPES) - {"frozen.but.saved"}
        for kind, group in enumerate(groups):
            for tensor, (name, shape) in enumerate(SHAPES.items()):
                if name not in group:
                    continue
                data = group[name]
                assert data.shape == shape and data.dtype == np.dtype("<f4")
                assert data.chunks is None and data.compression is None
                expected = values(kind, tensor)[:max(1, int(np.prod(shape)))].reshape(shape)
                np.testing.assert_allclose(data[()], expected, rtol=3e-7)
        assert file["adam/m/summary_tokens"].attrs["updates"] == 120
        attributes = dict(file.attrs)
        assert attributes["step"] == 120 and attributes["skipped"] == -7
        assert attributes["seconds"] == 0.1
        assert attributes["config"].decode() == "summary:\n  tokens: 4\n"
        assert attributes["method"] == b"{}" and attributes["base_model"] == b"xxh3:0"
