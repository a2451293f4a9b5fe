"""Files of the gguf package (llama.cpp's own writer) as f2b-inspect reads them."""
import json
import os
import subprocess
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
gguf = pytest.importorskip("gguf")

INSPECT = Path(os.environ.get("F2B_BUILD_DIR", "build/release")) / "bin" / "f2b-inspect"
pytestmark = pytest.mark.skipif(not INSPECT.exists(), reason="f2b-inspect is not built")


def inspect(path, *options):
    done = subprocess.run([INSPECT, "--json", *options, path], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("alignment", [None, 64])
def test_as_written(tmp_path, alignment):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_float32("adapter.lora.alpha", 256.0)
    writer.add_int64("negative", -5)
    writer.add_uint64("large", 2**62 + 1)
    writer.add_bool("yes", True)
    writer.add_string("text", "naïve \u2581 text")
    writer.add_array("words", ["a", "bc", ""])
    writer.add_array("numbers", list(range(100)))
    rng = np.random.default_rng(3)
    arrays = {
        "blk.0.attn_q.weight.lora_a": rng.standard_normal((3, 7)).astype(np.float32),
        "half": rng.standard_normal(33).astype(np.float16),
        "wide": rng.standard_normal((2, 3, 5)),
        "whole": np.arange(9, dtype=np.int32),
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    quantised = {}
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0,
                 gguf.GGMLQuantizationType.BF16):
        quantised[kind.name] = gguf.quantize(rng.standard_normal((4, 64)).astype(np.float32), kind)
        writer.add_tensor(f"t.{kind.name}", quantised[kind.name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    report = inspect(path, "--norms")
    assert report["kind"] == "gguf" and all(check["ok"] for check in report["checks"])
    facts = report["facts"]["metadata"]
    assert facts["general.architecture"] == "llama" and facts["adapter.lora.alpha"] == 256
    assert facts["negative"] == -5 and facts["large"] == 2**62 + 1 and facts["yes"] is True
    assert facts["text"] == "naïve \u2581 text" and facts["words"] == ["a", "bc", ""]
    assert facts["numbers"] == {"type": "i32", "count": 100, "first": list(range(16))}
    tensors = {t["name"]: t for t in report["tensors"]}
    for name, array in arrays.items():
        assert tensors[name]["shape"] == list(array.shape)
        assert tensors[name]["bytes"] == array.nbytes
        if array.dtype != np.int32:
            norm = np.linalg.norm(array.astype(np.float64))
            assert tensors[name]["norm"] == pytest.approx(norm, rel=1e-6)
    for name, array in quantised.items():
        t = tensors[f"t.{name}"]
        assert (t["type"], t["shape"], t["bytes"]) == (name, [4, 64], array.nbytes)
    assert tensors["t.Q8_0"]["norm"] is None and tensors["t.BF16"]["norm"] > 0
