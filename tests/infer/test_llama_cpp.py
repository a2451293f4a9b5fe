"""Our adapters in a real llama.cpp, on small Llama bases converted as its own converter does: logits
of each stage against ours and against no adapter, texts and images compressed, answers from tokens.
What drives it is scripts/examples/llama_cpp_consumer.py."""
import importlib.util
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("llama_cpp", reason="no llama.cpp here: scripts/setup.sh --with-llama-cpp "
                                        "builds it (some minutes)")
pytest.importorskip("torch")
import torch  # noqa: E402

from oracle.folder import read_weights  # noqa: E402
from oracle.llama_cpp_base import write_base  # noqa: E402
from oracle.random_model import SHAPES, write_llava  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
IMAGE = -200
QUESTION = "What color is the object at the top left?"
METHOD = {
    "tokens": 5, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 4, "alpha": 6, "dropout": 0.0,
             "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                         "down_proj"]},
}
CASES = {
    "grouped-heads": ("gqa", {}),
    "odd-one-adapter": ("odd", {"adapters": "single"}),
    "sharded-few-targets": ("sharded_f16", {"lora": dict(METHOD["lora"],
                                                         targets=["q_proj", "k_proj", "o_proj"])}),
}

pytestmark = pytest.mark.skipif(not (TESTS / "infer_dump").exists(),
                                reason="infer_dump is not built")
spec = importlib.util.spec_from_file_location("consumer",
                                              ROOT / "scripts/examples/llama_cpp_consumer.py")
consumer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(consumer)


def run(*args, code=0):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    run(BIN / "f2b-data", "toy", "--out", folder, "--train", 1, "--val", 1)
    return folder


class Case:
    """A base in both forms, a run on it, its export for llama.cpp, and both opened."""

    def __init__(self, folder, world, shape, changes, monkeypatch):
        spec = dict(SHAPES[shape], language=dict(SHAPES[shape]["language"], vocab_size=832))
        monkeypatch.setitem(SHAPES, "vocab832", spec)
        self.world, self.folder = world, folder
        self.base, self.export = write_llava(folder / "base", "vocab832"), folder / "gguf"
        for file in ("tokenizer.model", "tokenizer_config.json"):
            (self.base / file).write_bytes((world / "model" / file).read_bytes())
        method = json.dumps(dict(METHOD, **changes))
        run(TESTS / "make_run", self.base, folder / "run", method, 11)
        self.proof = json.loads(run(BIN / "f2b-export", "--checkpoint", folder / "run", "--format",
                                    "gguf", "--out", self.export))
        write_base(self.base, folder / "base.gguf")
        self.model = consumer.Model(folder / "base.gguf", self.export, context=512, threads=1)

    def full_tokens(self, stage):
        """Ours: ids, image rows and the logits after them, from the export."""
        out = self.folder / "out.safetensors"
        run(TESTS / "full_tokens", self.export, self.base, stage,
            self.world / "images" / "v000000.png", QUESTION, out)
        return load_file(out)

    def dump(self):
        """Ours: everything of the method, from the export."""
        out = self.folder / "dump.safetensors"
        run(TESTS / "infer_dump", self.export, self.base, self.world / "images" / "v000000.png",
            QUESTION, out)
        return load_file(out)


def split(ids, rows):
    ids = ids.tolist()
    at = ids.index(IMAGE)
    return [ids[:at], rows, ids[at + 1:]]


def error(a, b):
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


@pytest.fixture(params=CASES)
def case(request, tmp_path, world, monkeypatch):
    return Case(tmp_path, world, *CASES[request.param], monkeypatch)


def logits_after(model, stage, parts):
    model.begin(stage)
    for part in parts[:-1]:
        model.feed(part)
    return model.feed(parts[-1], 1)[0]


def test_logits_of_each_stage(case):
    """A base's image rows and a question: with each adapter, and with none."""
    logits = {}
    for stage in ("compression", "generation", "none"):
        ours = case.full_tokens(stage)
        parts = split(ours["ids"], ours["image"])
        logits[stage] = logits_after(case.model, None if stage == "none" else stage, parts)
        assert error(logits[stage], ours["logits"]) < 1e-4
        np.testing.assert_allclose(logits[stage], ours["logits"], atol=1e-3)
    for stage in ("compression", "generation"):
        assert error(logits[stage], logits["none"]) > 1e-2
        assert case.proof["changes"][stage] > 1e-3


def test_the_method(case):
    """Compress, embed, answer, as llama.cpp alone does it, ids and all."""
    ours, model = case.dump(), case.model
    image = case.full_tokens("none")["image"]
    start, _, end = model.around(image, METHOD["prompt"])
    assert start + [IMAGE] + end == ours["image_prompt"].tolist()
    tokens, caption = model.compress(image), model.caption_tokens(QUESTION)
    assert error(tokens, ours["tokens"]) < 1e-4
    assert error(caption, ours["caption_tokens"]) < 1e-4
    assert error(tokens.mean(0, keepdims=True), ours["embedding"]) < 1e-4
    model.begin("generation")       # pass 2, every row of it, with what llama.cpp compressed
    rows = [model.feed(part, len(part)) for part in split(ours["question_prompt"], tokens)]
    assert error(np.concatenate(rows), ours["logits"]) < 1e-4
    np.testing.assert_allclose(np.concatenate(rows), ours["logits"], atol=1e-3)
    answer = ours["answer"].tolist()
    eos = consumer.lib.llama_vocab_eos(model.vocab)
    answer = answer[:answer.index(eos)] if eos in answer else answer
    assert model.answer(tokens, QUESTION, most=len(ours["answer"])) == answer


def test_bidirectional(tmp_path, world, monkeypatch):
    """summary.attention bidirectional: all rows in one batch, so ids go in as their rows, too."""
    case = Case(tmp_path, world, "gqa", {"attention": "bidirectional"}, monkeypatch)
    ours, lib = case.dump(), consumer.lib
    table = read_weights(case.base, torch.float32)["language_model.model.embed_tokens.weight"]
    rows = np.concatenate([table[ours["caption_prompt"].astype(np.int64)].numpy(),
                           case.model.summary])
    case.model.begin("compression")
    lib.llama_set_causal_attn(case.model.context, False)
    tokens = case.model.feed(rows, METHOD["tokens"], embeddings=True)
    assert error(tokens, ours["caption_tokens"]) < 1e-4
    case.model.begin("compression")
    lib.llama_set_causal_attn(case.model.context, True)
    assert error(case.model.feed(rows, METHOD["tokens"], embeddings=True),
                 ours["caption_tokens"]) > 1e-2


def test_the_cache_belongs_to_its_adapter(case, monkeypatch):
    """Why it is cleared between the stages: rows that another adapter cached change the answer."""
    ours, model = case.full_tokens("generation"), case.model
    parts = split(ours["ids"], ours["image"])
    right = logits_after(model, "generation", parts)
    model.begin("compression")
    model.feed(parts[0])
    at = model.at
    monkeypatch.setattr(model, "forget", lambda: None)
    model.begin(None)
    model.at = at
    model.feed(parts[1])
    assert error(model.feed(parts[2], 1)[0], right) > 1e-2


def test_as_a_program(tmp_path, world, monkeypatch):
    case = Case(tmp_path, world, "gqa", {}, monkeypatch)
    ours, python = case.dump(), ROOT / ".venv/bin/python"
    start = [python if python.exists() else "python3",
             ROOT / "scripts/examples/llama_cpp_consumer.py", "--base", tmp_path / "base.gguf",
             "--export", case.export]
    np.save(tmp_path / "rows.npy", case.full_tokens("none")["image"])
    run(*start, "caption", "--text", QUESTION, "--out", tmp_path / "caption.npy")
    run(*start, "compress", "--image-rows", tmp_path / "rows.npy", "--out", tmp_path / "t.npy")
    assert error(np.load(tmp_path / "caption.npy")[None], ours["caption_embedding"]) < 1e-4
    assert error(np.load(tmp_path / "t.npy"), ours["tokens"]) < 1e-4
    answer = run(*start, "answer", "--tokens", tmp_path / "t.npy", "--question", QUESTION)
    assert answer.strip() == case.model.text(case.model.answer(np.load(tmp_path / "t.npy"),
                                                               QUESTION))
