"""tests/golden/llama is what the script makes, and the oracle's decoder agrees with it."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from oracle.compare import compare
from oracle.folder import read_config, read_weights
from oracle.llama_text import LLAMAS, write_golden
from oracle.model import Model

GOLDEN = Path(__file__).parent.parent / "golden" / "llama"


@pytest.mark.parametrize("name", LLAMAS)
def test_committed_golden_is_reproduced(tmp_path, name):
    folder = write_golden(tmp_path, name)
    for file in ("config.json", "model.safetensors"):
        assert (folder / file).read_bytes() == (GOLDEN / name / file).read_bytes(), file
    errors = compare(load_file(folder / "expected.safetensors"),
                     load_file(GOLDEN / name / "expected.safetensors"))
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("name", LLAMAS)
def test_oracle_agrees(name):
    model = Model(read_config(GOLDEN / name), read_weights(GOLDEN / name, torch.float64))
    expected = load_file(GOLDEN / name / "expected.safetensors")
    ids = expected["ids"].long()
    logits = model.logits(model.decode(model.embed(ids))[1])
    assert (logits - expected["logits"]).norm() / logits.norm() < 1e-6
    assert F.cross_entropy(logits[:-1], ids[1:]).item() == pytest.approx(
        expected["nll"].item(), rel=1e-6)
