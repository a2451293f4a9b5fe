"""A trained model: stories260K, converted from llama2.c's format. Greedy decoding gives the text that
its authors publish, logits agree with transformers, and the likelihood of a story is that of a model
that learned."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from oracle.llama2c import convert

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
STORIES = ROOT.parent / "shared" / "data" / "stories260K"

pytestmark = [
    pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/data/stories260K is not there"),
    pytest.mark.skipif(not (BUILD / "tests" / "greedy_text").exists(),
                       reason="greedy_text is not built"),
]


def run(program, *args, **kwargs):
    done = subprocess.run([BUILD / program, *map(str, args)], capture_output=True, text=True,
                          timeout=120, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert(STORIES / "stories260K.bin", STORIES / "tok512.bin",
                   tmp_path_factory.mktemp("stories"))


def test_greedy_text(folder):
    published = (STORIES / "greedy_256.txt").read_text(encoding="utf-8")
    assert run("tests/greedy_text", folder, 256).rstrip("\n") == published.rstrip("\n")


@pytest.mark.parametrize("text", [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    (STORIES / "greedy_256.txt").read_text(encoding="utf-8") if STORIES.is_dir() else "",
    "2+2=5, caf\u00e9 \u65e5\u672c!\n\n"])
def test_logits_and_likelihood(folder, tmp_path, text):
    (tmp_path / "text").write_text(text, encoding="utf-8")
    ids = json.loads(run("bin/f2b-data", "tokenize", "--model", folder, "--json",
                         input=json.dumps(text)))
    result = json.loads(run("bin/f2b-eval", "--task", "nll", "--model", folder, "--text",
                            tmp_path / "text", "--logits", tmp_path / "logits.npy"))
    model = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float64).eval()
    ids = torch.tensor([1] + ids)
    with torch.no_grad():
        want = model(ids[None]).logits[0]
    got = torch.from_numpy(np.load(tmp_path / "logits.npy")).double()
    assert got.shape == want.shape == (len(ids), 512)
    assert (got - want).norm() / want.norm() < 1e-4
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    assert result["tokens"] == len(ids) - 1
    assert result["nll"] == pytest.approx(F.cross_entropy(want[:-1], ids[1:]).item(), rel=1e-4)
    if "Lily" in text:
        assert result["nll"] < 1.3          # as trained; 6.2 = ln 512 would be chance
