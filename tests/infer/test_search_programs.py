"""f2b-search as a person runs it, on a toy model and store: against NumPy over the stored tokens, with
several shards and threads; texts, images, ids, captions, the contact sheet, and what is refused."""
import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
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


def search(*args):
    return run(BIN / "f2b-search", *args)


def compress(folder, checkpoint, store):
    return run(BIN / "f2b-compress", "--checkpoint", checkpoint, "--images", folder / "images",
               "--out", store, "--shard-images", 4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    assert run(BIN / "f2b-data", "toy", "--out", folder, "--train", 4, "--val", 6).returncode == 0
    SHAPES["vocab832"] = dict(SHAPES["gqa"],
                              language=dict(SHAPES["gqa"]["language"], vocab_size=832))
    write_llava(folder / "base", "vocab832")
    del SHAPES["vocab832"]
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (folder / "base" / file).write_bytes((folder / "model" / file).read_bytes())
    for name, seed, method in (("run", 5, METHOD), ("other", 6, METHOD),
                               ("single", 5, dict(METHOD, forward="single"))):
        done = run(TESTS / "make_run", folder / "base", folder / name, json.dumps(method), seed)
        assert done.returncode == 0, done.stderr
        if name != "other":
            done = compress(folder, folder / name, folder / f"store_{name}")
            assert done.returncode == 0, done.stderr
    return folder


def stored(store):
    """Ids, and means [N, d] of length 1 as f16, from the shards as h5py reads them."""
    ids, tokens = [], []
    for name in sorted(store.glob("*.h5")):
        with h5py.File(name) as shard:
            ids += [i.decode() for i in shard["ids"][()]]
            tokens.append(shard["tokens"][()])
    mean = np.concatenate(tokens).astype(np.float64).sum(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return ids, mean.astype(np.float32).astype(np.float16).astype(np.float64)


def by_hand(queries, items):
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = queries @ items.T
    return [sorted(range(len(items)), key=lambda i: (-row[i], i)) for row in scores], scores


@pytest.mark.parametrize("threads", [1, 2])
def test_stored_images(world, threads):
    store = world / "store_run"
    ids, items = stored(store)
    assert len(list(store.glob("*.h5"))) >= 2
    order, scores = by_hand(items, items)
    for q, name in enumerate(ids):
        done = search("--store", store, "--id", name, "-k", 6, "--json", "--threads", threads)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["id"] == name and found["of"] == len(ids)
        assert [r["rank"] for r in found["results"]] == [1, 2, 3, 4, 5, 6]
        for place, r in enumerate(found["results"]):
            assert ids[r["row"]] == r["id"]
            assert abs(r["score"] - scores[q, r["row"]]) < 1e-3
            assert abs(r["score"] - scores[q, order[q][place]]) < 1e-3
        assert abs(found["results"][0]["score"] - 1) < 1e-6


def test_texts(world, tmp_path):
    """What a text finds is what f2b-eval's embeddings say; many at once find what each one finds."""
    texts = [line.split("\t")[0] for line in
             (world / "captions_val.tsv").read_text().splitlines()][:5]
    (tmp_path / "queries.txt").write_text("\n".join(f"  {t} " for t in texts) + "\n")
    shutil.copy(world / "captions_val.tsv", tmp_path / "queries.tsv")
    common = ["--store", world / "store_run", "--checkpoint", world / "run", "-k", 4]
    done = search(*common, "--queries", tmp_path / "queries.txt", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["text"] for f in found] == texts
    for text, together in zip(texts[:2], found):
        alone = search(*common, "--json", text)
        assert [r["id"] for r in json.loads(alone.stdout)["results"]] == \
               [r["id"] for r in together["results"]]
    lines = search(*common, *texts[:2]).stdout.splitlines()
    assert lines[0] == f"# {texts[0]}" and lines[5] == "" and len(lines) == 11
    rank, score, name = lines[1].split("\t")
    assert rank == "1" and name == found[0]["results"][0]["id"]
    assert abs(float(score) - found[0]["results"][0]["score"]) < 1e-4
    tsv = search(*common, "--queries", tmp_path / "queries.tsv", "--json")
    assert json.loads(tsv.stdout.splitlines()[4]) == found[4]


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_small_weights(world, tmp_path, weights):
    """A store made with small weights is searched with the same, and says what it was made with."""
    store = tmp_path / "store"
    done = run(BIN / "f2b-compress", "--checkpoint", world / "run", "--images", world / "images",
               "--out", store, "--weights", weights)
    assert done.returncode == 0, done.stderr
    assert json.loads((store / "store.json").read_text())["weights"] == weights
    picture = world / "images" / stored(store)[0][3]
    scores = {}
    for kind in (weights, "auto"):
        done = search("--store", store, "--checkpoint", world / "run", "--image", picture, "-k", 1,
                      "--json", "--weights", kind)
        assert done.returncode == 0, done.stderr
        scores[kind] = json.loads(done.stdout)["results"][0]["score"]
    assert scores[weights] > 1 - 1e-5 and scores["auto"] < scores[weights]
    again = run(BIN / "f2b-compress", "--checkpoint", world / "run", "--images", world / "images",
                "--out", store)
    assert again.returncode == 2 and f"weights in {weights}" in again.stderr


def test_image_file(world):
    """A file that the store has finds itself; its captions are ordered alike from file and store."""
    ids, _ = stored(world / "store_run")
    picture = world / "images" / ids[3]
    done = search("--store", world / "store_run", "--checkpoint", world / "run", "--image", picture,
                  "-k", 1, "--json")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["results"][0]
    assert best["id"] == ids[3] and best["score"] > 0.999
    orders = []
    for query in (["--image", picture], ["--store", world / "store_run", "--id", ids[3]]):
        done = search(*query, "--checkpoint", world / "run", "--captions",
                      world / "captions_val.tsv", "-k", 3, "--json")
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)["results"]
        lines = (world / "captions_val.tsv").read_text().splitlines()
        assert all(lines[r["line"] - 1].split("\t")[0] == r["text"] for r in results)
        orders.append([round(r["score"], 3) for r in results])
    assert np.allclose(orders[0], orders[1], atol=3e-3)


class Sheet(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_sheet(world, tmp_path):
    out = tmp_path / "out.html"
    text = 'a <b>"red"</b> & round & thing'
    common = ["--store", world / "store_run", "--checkpoint", world / "run", "--html", out]
    done = search(*common, "--images", world / "images", "-k", 3, text, "two squares")
    assert done.returncode == 0, done.stderr
    sheet = Sheet(out.read_text())
    assert text in sheet.texts and "two squares" in sheet.texts
    assert len(sheet.sources) == 6
    assert all(re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+=*", s) for s in sheet.sources)
    names = [line.split("\t")[2] for line in done.stdout.splitlines() if "\t" in line]
    assert [t for t in sheet.texts if t in names] == names

    missing = shutil.copytree(world / "images", tmp_path / "some")
    (missing / names[0]).unlink()
    (missing / names[1]).write_bytes(b"no picture")
    done = search(*common, "--images", missing, "-k", 3, text)
    assert done.returncode == 0, done.stderr
    sheet = Sheet(out.read_text())
    assert len(sheet.sources) == 1 and sheet.texts.count("image not found") == 2
    done = search(*common, "--images", world / "images", "--id", names[0], "-k", 2)
    assert done.returncode == 0 and len(Sheet(out.read_text()).sources) == 3
    done = search(*common, "--id", names[0], "--captions", world / "captions_val.tsv", "-k", 2)
    assert done.returncode == 0 and Sheet(out.read_text()).sources == []


def test_refusals(world, tmp_path):
    ids, _ = stored(world / "store_run")
    (tmp_path / "gap.txt").write_text("one\n\nthree\n")
    (tmp_path / "bytes.txt").write_bytes(b"one\n\xff\xfe\n")
    (tmp_path / "zero.txt").write_bytes(b"a\0b\n")
    (tmp_path / "none.txt").write_bytes(b"")
    (tmp_path / "image.png").write_bytes(b"none")
    cut = shutil.copytree(world / "store_run", tmp_path / "cut")
    with open(cut / "shard-00000.h5", "r+b") as shard:
        shard.truncate(200)
    store, model = ["--store", world / "store_run"], ["--checkpoint", world / "run"]
    for code, words, options in (
            (2, "what shall be searched for", store),
            (2, "one at a time", [*store, "--id", ids[0], "text"]),
            (2, "--store STORE is missing", ["text"]),
            (2, "--checkpoint DIR is missing", [*store, "text"]),
            (2, "to search for is empty", [*store, *model, " \t "]),
            (2, "--captions are searched for an image", [*store, *model, "a", "--captions", "x"]),
            (2, "--images are for --html", [*store, *model, "a", "--images", "x"]),
            (2, "--k is from 1", [*store, *model, "a", "-k", 0]),
            (3, "gap.txt:2: the line is empty", [*store, *model, "--queries", tmp_path / "gap.txt"]),
            (3, "bytes.txt:2: the line is not UTF-8",
             [*store, *model, "--queries", tmp_path / "bytes.txt"]),
            (3, "zero byte", [*store, *model, "--queries", tmp_path / "zero.txt"]),
            (3, "holds no text", [*store, *model, "--queries", tmp_path / "none.txt"]),
            (3, "holds no image \"nothing.png\"", [*store, "--id", "nothing.png"]),
            (3, "image.png", [*store, *model, "--image", tmp_path / "image.png"]),
            (3, "store.json", ["--store", tmp_path, "--id", "x"]),
            (3, "cut off", ["--store", cut, "--id", ids[0]]),
            (2, "method.forward single", ["--store", world / "store_single", "--id", ids[0]])):
        done = search(*options)
        assert done.returncode == code, (words, done.stderr)
        assert words in done.stderr and done.stdout == "", done.stderr
    done = search(*store, "--checkpoint", world / "other", "text")
    assert done.returncode == 3 and len(set(re.findall(r"xxh3:\w{32}", done.stderr))) == 3
    assert "name the checkpoint that it was made with" in done.stderr


def test_more_than_there_are(world):
    ids, _ = stored(world / "store_run")
    done = search("--store", world / "store_run", "--id", ids[0], "-k", 1000, "--json")
    assert done.returncode == 0 and f"there are only {len(ids)} images" in done.stderr
    assert sorted(r["row"] for r in json.loads(done.stdout)["results"]) == list(range(len(ids)))


def test_read_only_store(world, tmp_path):
    """Where means cannot be kept the same is found."""
    ids, _ = stored(world / "store_run")
    copy = tmp_path / "copy"
    shutil.copytree(world / "store_run", copy, ignore=shutil.ignore_patterns("*.means"))
    for shard in copy.glob("*.h5"):
        (copy / f"{shard.name}.means").mkdir()
    options = ["--id", ids[1], "--json"]
    there = search("--store", world / "store_run", *options)
    done = search("--store", copy, *options)
    assert done.returncode == 0 and "cannot be kept" in done.stderr
    assert done.stdout == there.stdout
