"""The toy world read by the reference libraries: SentencePiece, Pillow, transformers."""
import csv
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release")) / "bin" / "f2b-data"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    subprocess.run([PROGRAM, "toy", "--out", str(folder), "--train", "60", "--val", "20", "--quiet"],
                   check=True, timeout=60)
    return folder


def texts(world):
    out = set()
    for part in ("train", "val"):
        for record in json.loads((world / f"{part}.json").read_text()):
            out.update(turn["value"] for turn in record["conversations"])
        with open(world / f"captions_{part}.tsv", newline="") as file:
            out.update(row[0] for row in csv.reader(file, delimiter="\t"))
    return sorted(out)


def test_sentencepiece_gives_the_same_ids(world):
    sentencepiece = pytest.importorskip("sentencepiece")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(world / "model/tokenizer.model"))
    lines = texts(world)
    assert len(lines) > 100
    done = subprocess.run([PROGRAM, "tokenize", "--model", str(world / "model"), "--json"], check=True,
                          input="".join(json.dumps(t) + "\n" for t in lines), capture_output=True,
                          text=True, timeout=60)
    ours = [json.loads(line) for line in done.stdout.splitlines()]
    assert ours == [reference.encode(t) for t in lines]


def test_pillow_reads_the_images(world):
    image = pytest.importorskip("PIL.Image")
    coco = json.loads((world / "conversation_captions.json").read_text())
    for entry in coco["images"]:
        with image.open(world / "images" / entry["file_name"]) as picture:
            picture.load()
            assert picture.size == (entry["width"], entry["height"]) and picture.mode == "RGB"
    names = {entry["id"] for entry in coco["images"]}
    assert {a["image_id"] for a in coco["annotations"]} == names


def test_transformers_reads_the_configuration(world):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlavaConfig.from_pretrained(world / "model")
    assert config.vision_config.image_size == 64 and config.text_config.hidden_size == 128
    sentencepiece = pytest.importorskip("sentencepiece")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(world / "model/tokenizer.model"))
    assert config.image_token_index == reference.vocab_size() < config.text_config.vocab_size
    assert config.text_config.vocab_size % 64 == 0
