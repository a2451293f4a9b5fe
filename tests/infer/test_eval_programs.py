"""f2b-eval as a person runs it: what it prints, the answers' file, exit codes with messages."""
import json
import os
import subprocess
from pathlib import Path

import pytest

from oracle.random_model import SHAPES, write_llava

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
METHOD = {
    "tokens": 3, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]},
}

pytestmark = pytest.mark.skipif(not (TESTS / "make_run").exists(), reason="make_run is not built")


def run(*args):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    assert run(BIN / "f2b-data", "toy", "--out", folder, "--train", 1, "--val", 6).returncode == 0
    SHAPES["vocab832"] = dict(SHAPES["gqa"],
                              language=dict(SHAPES["gqa"]["language"], vocab_size=832))
    write_llava(folder / "base", "vocab832")
    del SHAPES["vocab832"]
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (folder / "base" / file).write_bytes((folder / "model" / file).read_bytes())
    done = run(TESTS / "make_run", folder / "base", folder / "run", json.dumps(METHOD), 5)
    assert done.returncode == 0, done.stderr
    return folder


def evaluate(world, task, *options):
    data = "val.json" if task == "vqa" else "captions_val.tsv"
    return run(BIN / "f2b-eval", "--task", task, "--data", world / data, "--images",
               world / "images", *options)


@pytest.mark.parametrize("tokens,rows", [("compressed", 3), ("full", 16), ("none", 0)])
def test_vqa(world, tmp_path, tokens, rows):
    out = tmp_path / "answers.jsonl"
    done = evaluate(world, "vqa", "--checkpoint", world / "run", "--tokens", tokens, "--out", out,
                    "--max-new-tokens", 5, "--batch", 4)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    records = json.loads((world / "val.json").read_text())
    questions = sum(len(r["conversations"]) // 2 for r in records if "image" in r)
    assert result["questions"] == len(lines) == questions
    assert result["image_rows"] == rows and result["tokens"] == tokens and result["step"] == 7
    assert result["correct"] == sum(line["metadata"]["correct"] for line in lines)
    assert list(lines[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert len({line["question_id"] for line in lines}) == len(lines)
    assert "<image>" not in lines[0]["prompt"]


def test_retrieval(world):
    done = evaluate(world, "retrieval", "--checkpoint", world / "run", "--limit", 5)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["captions"] == result["records"] == 5
    for way in ("image_to_text", "text_to_image"):
        assert 0 <= result[way]["r@1"] <= result[way]["r@5"] <= result[way]["r@10"] <= 1
    assert result["text_to_image"]["r@10"] == 1


@pytest.mark.parametrize("options,rows", [
    (["--use-tokens", "0:2"], 2), (["--mask-tokens", "0:1"], 2),
    (["--use-tokens", "1:3", "--mask-tokens", "2:3"], 1), (["--use-tokens", "0:3"], 3)])
def test_some_tokens(world, tmp_path, options, rows):
    """Fewer tokens stand in the prompt; all of them, chosen by name, give the ordinary answers."""
    texts = []
    for chosen in ([], options):
        done = evaluate(world, "vqa", "--checkpoint", world / "run", "--max-new-tokens", 8,
                        "--limit", 4, "--out", tmp_path / "out", *chosen)
        assert done.returncode == 0, done.stderr
        texts.append((tmp_path / "out").read_text())
    assert (texts[0] == texts[1]) == (rows == 3)
    result = json.loads(done.stdout)
    assert result["image_rows"] == rows
    for name, value in zip(options[::2], options[1::2]):
        assert result[name[2:].replace("-", "_")] == value
    done = evaluate(world, "retrieval", "--checkpoint", world / "run", "--limit", 4, *options)
    assert done.returncode == 0, done.stderr


def test_tokens_that_cannot_be_chosen(world):
    for task, words, options in (
            ("vqa", "--use-tokens reads FROM:TO", ["--use-tokens", "0-2"]),
            ("vqa", "--mask-tokens reads FROM:TO", ["--mask-tokens", "3:1"]),
            ("vqa", "go beyond the model's 3", ["--use-tokens", "0:4"]),
            ("retrieval", "go beyond the model's 3", ["--mask-tokens", "2:9"]),
            ("retrieval", "left out too", ["--use-tokens", "0:1", "--mask-tokens", "0:2"]),
            ("vqa", "only compressed tokens", ["--tokens", "full", "--use-tokens", "0:2"])):
        done = evaluate(world, task, "--checkpoint", world / "run", *options)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    done = run(BIN / "f2b-eval", "--task", "nll", "--use-tokens", "0:1", "--model", "x", "--text",
               "y")
    assert done.returncode == 2 and "does not take --use-tokens" in done.stderr


def test_refusals(world, tmp_path):
    for code, words, options in (
            (2, ["compressed", "full"], ["--model", world / "base"]),
            (3, ["no weights"], ["--model", world / "model"]),
            (2, ["--checkpoint", "--model"], []),
            (3, ["no checkpoint"], ["--checkpoint", tmp_path]),
            (2, ["--text"], ["--checkpoint", world / "run", "--text", "x"])):
        done = evaluate(world, "vqa", *options)
        assert done.returncode == code, done.stderr
        assert done.stdout == "" and all(word in done.stderr for word in words), done.stderr


def test_base_alone(world):
    done = evaluate(world, "vqa", "--model", world / "base", "--tokens", "full", "--limit", 3,
                    "--max-new-tokens", 2, "--precision", "bf16", "--weights", "bf16")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["records"] == 3
