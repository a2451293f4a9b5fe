"""f2b-eval --task nll against transformers, on random Llama and LLaVA folders: logits of every row
and the mean likelihood, for texts within the context and beyond it."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from oracle.hf_step import load_llava
from oracle.random_model import SHAPES, write_llama, write_llava

BIN = Path(os.environ.get("F2B_BUILD_DIR", "build/release")) / "bin"
TEXT = ("The red circle is left of the blue square.\n\n"
        "What color is it?  Green, \tperhaps: café 日本.\n")
LANGUAGE = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
                num_key_value_heads=2, vocab_size=832, rms_norm_eps=1e-5)

pytestmark = pytest.mark.skipif(not (BIN / "f2b-eval").exists(), reason="f2b-eval is not built")


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120,
                          **kwargs)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """The toy world's tokenizer files; 832 rows hold its pieces."""
    world = tmp_path_factory.mktemp("world")
    done = run(BIN / "f2b-data", "toy", "--out", world, "--train", 1, "--val", 1)
    assert done.returncode == 0, done.stderr
    return {name: (world / "model" / name).read_bytes()
            for name in ("tokenizer.model", "tokenizer_config.json")}


def add_tokenizer(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def measure(folder, tmp_path, *options):
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 3, encoding="utf-8")
    ids = run(BIN / "f2b-data", "tokenize", "--model", folder, "--json", input=json.dumps(TEXT * 3))
    done = run(BIN / "f2b-eval", "--task", "nll", "--model", folder, "--text", text, "--logits",
               tmp_path / "logits.npy", "--quiet", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(ids.stdout), json.loads(done.stdout), np.load(tmp_path / "logits.npy")


def expected(language, ids, chunk):
    logits, loss = [], 0.0
    for i in range(0, len(ids), chunk):
        part = [1] + ids[i:i + chunk]
        logits.append(language(part))
        loss += F.cross_entropy(logits[-1][:-1], torch.tensor(part[1:]), reduction="sum").item()
    return torch.cat(logits), loss / len(ids)


def assert_agrees(language, measured, chunk):
    ids, result, logits = measured
    want, loss = expected(language, ids, chunk)
    assert logits.shape == tuple(want.shape) and logits.dtype == np.float32
    error = (torch.from_numpy(logits).double() - want).norm() / want.norm()
    assert error < 1e-4
    assert result["nll"] == pytest.approx(loss, rel=1e-4)
    assert result["tokens"] == len(ids)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("positions", [2048, 37])
def test_llama(tmp_path, tokenizer, tied, positions):
    folder = write_llama(tmp_path / "model", dict(LANGUAGE, max_position_embeddings=positions),
                         seed=3, tied=tied)
    add_tokenizer(folder, tokenizer)
    model = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float64).eval()
    measured = measure(folder, tmp_path)
    assert (measured[1]["chunks"] > 1) == (positions == 37)
    assert_agrees(lambda ids: logits_of(model, ids), measured, positions - 1)


@pytest.mark.parametrize("shape", ["gqa", "odd", "sharded_f16"])
def test_llava(tmp_path, tokenizer, shape, monkeypatch):
    """The language model alone of a LLaVA, in its file's type, in any layout."""
    spec = dict(SHAPES[shape], language=dict(SHAPES[shape]["language"], vocab_size=832))
    monkeypatch.setitem(SHAPES, "vocab832", spec)
    folder = add_tokenizer(write_llava(tmp_path / "model", "vocab832"), tokenizer)
    model = load_llava(folder).language_model
    assert_agrees(lambda ids: logits_of(model, ids), measure(folder, tmp_path), 2047)


def test_options_that_do_not_belong(tmp_path):
    for extra, word in ((["--checkpoint", tmp_path], "--checkpoint"), (["--tokens", "full"],
                                                                       "--tokens")):
        done = run(BIN / "f2b-eval", "--task", "nll", "--model", tmp_path, "--text", "x", *extra)
        assert done.returncode == 2 and word in done.stderr
    done = run(BIN / "f2b-eval", "--task", "nll", "--model", tmp_path)
    assert done.returncode == 2 and "--text" in done.stderr
    done = run(BIN / "f2b-eval", "--task", "vqa", "--model", tmp_path)
    assert done.returncode == 2 and "--data" in done.stderr
