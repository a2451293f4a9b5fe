"""Our tokenizer against the sentencepiece library and Hugging Face's slow LlamaTokenizer.

Models: LLaVA's own (where it is), one that our writer wrote, and two that sentencepiece trained
(its default squeezes spaces; one has no byte pieces).
"""
import json
import os
import random
import shutil
import subprocess

import pytest

spm = pytest.importorskip("sentencepiece")

TOOL = os.path.join(os.environ["F2B_BUILD_DIR"], "tests", "test_tokenizer")
DATA = os.path.join(os.environ["F2B_BUILD_DIR"], "bin", "f2b-data")
LLAVA = "../shared/data/llava-1.5-7b-metadata/tokenizer.model"
PLAIN, CONTINUE, CONTROL = 0, 1, 2
PARTS = ["a", "b", "e", "th", "the ", "hello", " world", "  ", " ", "\n", "\t", "\u2581", "\u00e9",
         "\u65e5", "\U0001f917", "\u2028", "\0", "<unk>", "</s>", "<s>", "</s", "<0x0A>", "1", "23",
         ".", "USER:", " ASSISTANT:", "ing", "\ufffd", "\ufb01", "\u0301", "aaaa"]


def random_texts(n, seed):
    rng = random.Random(seed)
    return ["".join(rng.choice(PARTS) for _ in range(rng.randint(0, 25))) for _ in range(n)]


def run(command, values):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run(command, input=lines.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def trained(folder, **options):
    text = ["hello world, the theme of the aaaa there", "a b  e th ing the then 23 1.",
            "caf\u00e9 \u65e5"] * 3
    spm.SentencePieceTrainer.train(sentence_iterator=iter(text), model_prefix=str(folder / "m"),
                                   model_type="bpe", normalization_rule_name="identity",
                                   hard_vocab_limit=False, minloglevel=2, **options)
    return str(folder / "m.model")


@pytest.fixture(params=["llava", "written", "squeezed", "without bytes"])
def model(request, tmp_path):
    if request.param == "llava":
        if not os.path.exists(LLAVA):
            pytest.skip(f"{LLAVA} is not there")
        return LLAVA
    if request.param == "written":
        path = str(tmp_path / "tokenizer.model")
        subprocess.run([TOOL, "write", path], check=True)
        return path
    if request.param == "squeezed":
        return trained(tmp_path, vocab_size=300, byte_fallback=True)
    return trained(tmp_path, vocab_size=60, remove_extra_whitespaces=False)


def test_same_pieces_ids_and_texts(model):
    theirs = spm.SentencePieceProcessor(model_file=model)
    texts = random_texts(1500, 1)
    expected = theirs.encode(texts)
    assert run([DATA, "tokenize", "--json", "--model", model], texts) == expected
    rng = random.Random(2)
    n = theirs.get_piece_size()
    ids = expected + [[rng.randrange(n) for _ in range(10)] for _ in range(1500)]
    ids = [i for i in ids if "\0" not in theirs.decode(i)]      # the tool's texts end at a NUL
    assert run([TOOL, "decode", model, "0"], ids) == [theirs.decode(i) for i in ids]


def test_written_settings(tmp_path):
    path = str(tmp_path / "tokenizer.model")
    subprocess.run([TOOL, "write", path], check=True)
    t = spm.SentencePieceProcessor(model_file=path)
    assert (t.unk_id(), t.bos_id(), t.eos_id(), t.pad_id()) == (0, 1, 2, -1)
    assert t.is_control(1) and t.is_control(2) and t.is_unknown(0)
    assert all(t.is_byte(3 + i) and t.id_to_piece(3 + i) == f"<0x{i:02X}>" for i in range(256))
    assert t.id_to_piece(259) == "he" and t.get_score(260) == -1


@pytest.mark.parametrize("legacy", [True, False])
def test_control_words_as_hugging_face(legacy, tmp_path, monkeypatch):
    if not os.path.exists(LLAVA):
        pytest.skip(f"{LLAVA} is not there")
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    transformers = pytest.importorskip("transformers")
    shutil.copy(LLAVA, tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    theirs = transformers.LlamaTokenizer(str(tmp_path / "tokenizer.model"), legacy=legacy)
    texts = random_texts(800, 3)
    expected = [theirs(t, add_special_tokens=False).input_ids for t in texts]
    assert run([TOOL, "encode", str(tmp_path), str(CONTROL)], texts) == expected
