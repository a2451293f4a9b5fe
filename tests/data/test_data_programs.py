"""f2b-data check and preview on real files, and on archives that Python's tarfile writes."""
import io
import json
import os
import pathlib
import subprocess
import tarfile

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release")) / "bin" / "f2b-data"
SHARED = ROOT.parent / "shared" / "data"
MODEL = SHARED / "llava-1.5-7b-metadata"

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason="../shared/data is not there")


def run(*arguments, cwd):
    return subprocess.run([str(PROGRAM), *map(str, arguments)], cwd=cwd, timeout=300,
                          capture_output=True, text=True)


def config(tmp_path, *, model=MODEL, **data):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"model": {"path": str(model)}, "data": data,
                                "run": {"dir": str(tmp_path / "run")}}))
    return path


def source(path, images=None):
    return {"path": str(path), **({"images": str(images)} if images else {})}


def png(colour=(10, 20, 30)):
    out = io.BytesIO()
    Image.new("RGB", (5, 3), colour).save(out, "PNG")
    return out.getvalue()


def add(tar, name, data, **pax):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mtime = 1700000000.25        # a fraction: a PAX header before every member
    member.pax_headers = pax
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_shards_written_by_tarfile(tmp_path, form):
    long = "folder/" * 12 + "n" * (150 if form != tarfile.USTAR_FORMAT else 40)
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w", format=form) as tar:
            for i in range(3):
                key = f"{shard:05d}{i:04d}"
                add(tar, key + ".jpg", png())
                if (shard, i) != (1, 2):
                    add(tar, key + ".txt", f"a caption {shard} {i}".encode())
                add(tar, key + ".json", json.dumps({"caption": "c", "width": 5}).encode())
            add(tar, long + ".jpg", png())
            add(tar, long + ".txt", "a long name é".encode())
            add(tar, f"bad{shard}.jpg", b"no image")
            add(tar, f"bad{shard}.txt", b"text")
    path = config(tmp_path, captions=[source(tmp_path / "{00000..00001}.tar")])
    done = run("check", "--config", path, "method.loss=contrastive", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "webdataset" in done.stdout and "10 records" in done.stdout
    listed = [json.loads(line) for line in (tmp_path / "bad_records.jsonl").read_text().splitlines()]
    assert [(x["record"], x["fault"]) for x in listed] == [(4, "broken_image"), (9, "broken_image")]
    for record, caption in ((0, "a caption 0 0"), (3, "a long name é"), (7, "USER: c\n")):
        shown = run("preview", "--config", path, "--sample", f"captions[0]:{record}", "--json",
                    "method.loss=contrastive", cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert caption in json.loads(shown.stdout)["prompt"]


def test_coco_photographs_and_captions_are_all_good(tmp_path):
    coco = SHARED / "coco-images"
    path = config(tmp_path, conversations=[source(coco / "captions_train_llava.json", coco),
                                           source(coco / "captions_val_llava.json", coco)],
                  captions=[source(coco / "captions_val.tsv", coco)],
                  conversation_captions=[source(coco / "captions_train.json")])
    done = run("check", "--config", path, "--list", tmp_path / "list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "list").read_text() == ""
    assert " 0 bad" in done.stdout and " 1 bad" not in done.stdout
    assert not (tmp_path / "bad_records.jsonl").exists()


def test_easy_vqa_is_all_good(tmp_path):
    folder = SHARED / "easy-vqa"
    with tarfile.open(folder / "images.tar") as tar:
        tar.extractall(tmp_path / "images")
    path = config(tmp_path, conversations=[source(folder / "train_llava.json", tmp_path / "images")])
    done = run("check", "--config", path, "method.loss=autoregressive", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4000 good        0 bad" in done.stdout


@pytest.mark.parametrize("legacy", [True, False])
def test_published_conversations(tmp_path, legacy):
    folder = SHARED / "llava-conversations"
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (model / name).symlink_to(MODEL / name)
    (model / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    records = json.loads((folder / "llava_instruct_first60.json").read_text())
    for record in records[:5]:
        (tmp_path / record["image"]).write_bytes(png())
    path = config(tmp_path, model=model,
                  conversations=[source(folder / "llava_instruct_first60.json", tmp_path)])
    expected = [json.loads(line) for line in (folder / "expected_first5.jsonl").open()]
    for i, want in enumerate(expected):
        done = run("preview", "--config", path, "--json", "--sample", f"conversations[0]:{i}",
                   cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        form = want["legacy" if legacy else "non_legacy"]
        assert got["id"] == f"conversations[0]:{i}" and got["image"] == records[i]["image"]
        assert got["prompt"] == want["prompt"]
        assert (got["ids"], got["labels"]) == (form["input_ids"], form["labels"])
    done = run("preview", "--config", path, "--sample", "conversations[0]:5",
               "method.loss=autoregressive", cwd=tmp_path)
    assert done.returncode == 0 and "missing_image" in done.stderr
    assert "<image>" in done.stdout
    done = run("preview", "--config", path, "--sample", "conversations[0]:5", "--image",
               tmp_path / "x.png", cwd=tmp_path)
    assert done.returncode == 3 and "missing_image" in done.stderr
    done = run("preview", "--config", path, "--sample", "conversations[0]:60",
               "method.loss=autoregressive", cwd=tmp_path)
    assert done.returncode == 2 and "0 to 59" in done.stderr


def test_preview_for_people(tmp_path):
    coco = SHARED / "coco-images"
    path = config(tmp_path, captions=[source(coco / "captions_val.tsv", coco)],
                  conversations=[source(coco / "captions_train_llava.json", coco)])
    done = run("preview", "--config", path, "--image", tmp_path / "x.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pass 1, image" in done.stdout and "576 image" in done.stdout
    assert "[ a family is sitting down at a table to have cake</s>]" in done.stdout
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (336, 336)


def test_addresses_instead_of_files(tmp_path):
    tsv = SHARED / "cc3m-validation" / "gcc_validation_first10000.tsv"
    path = config(tmp_path, captions=[source(tsv)])
    done = run("check", "--config", path, "method.loss=contrastive", cwd=tmp_path)
    assert done.returncode == 3
    assert "10000 records" in done.stdout and "missing_image             10000" in done.stdout
