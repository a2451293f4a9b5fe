"""The published data sets' own forms, made small: LLaVA-665k with its five image trees and
text-only records, LLaVA-CC3M-Pretrain-595K, img2dataset's shards; pictures of every kind under the
names that they have there. Needs nothing from elsewhere but Pillow."""
import io
import json
import os
import pathlib
import subprocess
import tarfile

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("F2B_BUILD_DIR", ROOT / "build/release")) / "bin" / "f2b-data"


def run(*arguments, cwd, code=0):
    done = subprocess.run([str(PROGRAM), *map(str, arguments)], cwd=cwd, timeout=120,
                          capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    run("toy", "--out", folder, "--train", 2, "--val", 1, "--quiet", cwd=folder)
    return folder / "model"


def config(folder, model, loss, **data):
    path = folder / "config.yaml"
    path.write_text(json.dumps({"model": {"path": str(model)}, "method": {"loss": loss},
                                "data": data, "run": {"dir": str(folder / "run")}}))
    return path


def picture(mode="RGB", size=(24, 16)):
    """A smooth picture, so that JPEG loses little; the left upper corner is bright."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    rgb = np.stack([255 - x * 8, 255 - y * 12, x * 4 + y * 6], 2).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(rgb, "RGB")
    if mode == "I;16":
        return Image.fromarray((x * 20 + y).astype(np.uint16))
    return image.convert(mode)


def save(path, image, kind, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6                    # turn by 90 degrees, which LLaVA does not do
    return exif


# file in LLaVA-665k's layout, picture, format that it really has
PICTURES = [
    ("coco/train2017/000000033471.jpg", picture(), "JPEG", {}),
    ("coco/train2017/000000052846.jpg", picture("L"), "JPEG", {}),
    ("coco/train2017/000000334872.jpg", picture("CMYK"), "JPEG", {}),
    ("gqa/images/2354786.jpg", picture(), "JPEG", {"progressive": True}),
    ("gqa/images/2354787.jpg", picture(), "JPEG", {"exif": turned()}),
    ("ocr_vqa/images/0060730337.jpg", picture("P"), "GIF", {}),
    ("ocr_vqa/images/006080645X.jpg", picture("RGBA"), "PNG", {}),
    ("ocr_vqa/images/0060838581.jpg", picture("P"), "PNG", {}),
    ("ocr_vqa/images/0060838582.jpg", picture("1"), "PNG", {}),
    ("ocr_vqa/images/0060838583.jpg", picture("LA"), "PNG", {}),
    ("textvqa/train_images/0054c91397f2fe05.jpg", picture("I;16"), "PNG", {}),
    ("textvqa/train_images/0054c91397f2fe06.jpg", picture(), "BMP", {}),
    ("vg/VG_100K/2.jpg", picture("L"), "PNG", {}),
    ("vg/VG_100K_2/1.jpg", picture(), "JPEG", {"subsampling": 0, "quality": 95}),
]


def turns(first, *rest):
    return [{"from": "human" if i % 2 == 0 else "gpt", "value": value}
            for i, value in enumerate((first, *rest))]


@pytest.fixture()
def llava(tmp_path, model):
    records = []
    for name, image, kind, options in PICTURES:
        save(tmp_path / "trees" / name, image, kind, **options)
        stem = pathlib.Path(name).stem
        records.append({"id": int(stem) if stem.isdigit() else stem, "image": name,
                        "conversations": turns("<image>\nWhat is it?", "A picture.", "Why?",
                                               "So.")})
    # At the end of the question too, and text alone, as ShareGPT's part has it.
    records[1]["conversations"] = turns("What is it?\n<image>", "A picture.")
    records += [{"id": "wgByO4Y_0", "model": "", "conversations": turns("Hello.", "Hello to you.")},
                {"id": 17, "conversations": turns("What is 1 < 2?", "True.", "More?", "No.")}]
    (tmp_path / "mix.json").write_text(json.dumps(records))
    return config(tmp_path, model, "autoregressive",
                  conversations=[{"path": str(tmp_path / "mix.json"),
                                  "images": str(tmp_path / "trees")}])


def test_llava_665k(tmp_path, llava):
    done = run("check", "--config", llava, cwd=tmp_path)
    assert f"{len(PICTURES) + 2} records" in done.stdout and " 0 bad" in done.stdout
    for i in (0, 1, len(PICTURES), len(PICTURES) + 1):
        shown = json.loads(run("preview", "--config", llava, "--json", "--sample",
                               f"conversations[0]:{i}", cwd=tmp_path).stdout)
        assert (-200 in shown["ids"]) == (i < len(PICTURES))
        assert shown["image"] == (PICTURES[i][0] if i < len(PICTURES) else None)
        assert any(label != -100 for label in shown["labels"])


@pytest.mark.parametrize("name,image,kind,options", PICTURES, ids=[p[0] for p in PICTURES])
def test_pictures_are_seen_as_pillow_sees_them(tmp_path, model, llava, name, image, kind, options):
    run("preview", "--config", llava, "--image", tmp_path / "seen.png", "--sample",
        f"conversations[0]:{[p[0] for p in PICTURES].index(name)}", cwd=tmp_path)
    theirs = Image.open(tmp_path / "trees" / name)
    assert theirs.format == kind
    theirs = theirs.convert("RGB")
    side = max(theirs.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(theirs, ((side - theirs.width) // 2, (side - theirs.height) // 2))
    size = json.loads((model / "config.json").read_text())["vision_config"]["image_size"]
    wanted = np.asarray(square.resize((size, size), Image.BICUBIC)).astype(int)
    seen = np.asarray(Image.open(tmp_path / "seen.png")).astype(int)
    assert seen.shape == (size, size, 3)
    if kind == "JPEG":
        assert np.abs(seen - wanted).max() <= 8
    else:
        np.testing.assert_array_equal(seen, wanted)


def test_llava_cc3m_595k(tmp_path, model):
    records = []
    for i in range(3):
        name = f"GCC_train_{i:09d}.jpg"
        save(tmp_path / "images" / name, picture(), "JPEG")
        asks = ("Write a terse but informative summary of the picture.\n<image>",
                "<image>\nGive a brief description of the image.")
        records.append({"id": name[:-4], "image": name,
                        "conversations": turns(asks[i % 2], f"olive oil is a healthy thing {i}")})
    (tmp_path / "chat.json").write_text(json.dumps(records))
    path = config(tmp_path, model, "contrastive",
                  captions=[{"path": str(tmp_path / "chat.json"),
                             "images": str(tmp_path / "images")}])
    assert " 0 bad" in run("check", "--config", path, cwd=tmp_path).stdout
    shown = json.loads(run("preview", "--config", path, "--json", "--sample", "captions[0]:2",
                           cwd=tmp_path).stdout)
    assert "olive oil is a healthy thing 2\n" in shown["prompt"]


def shard(path, samples):
    """As img2dataset's WebDatasetSampleWriter: key.jpg, key.txt, key.json, PAX for the time."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for key, members in samples:
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size, member.mtime = len(data), 1700000000.5
                tar.addfile(member, io.BytesIO(data))
    path.with_suffix(".parquet").write_bytes(b"PAR1 beside every shard")
    pathlib.Path(f"{path.with_suffix('')}_stats.json").write_text("{}")


def test_img2dataset(tmp_path, model):
    jpg = io.BytesIO()
    picture().save(jpg, "JPEG")

    def sample(i, **without):
        caption = f"a caption of {i}"
        members = {"jpg": jpg.getvalue(), "txt": caption.encode(),
                   "json": json.dumps({"caption": caption, "url": "http://x/y.jpg",
                                       "key": f"{i:09d}", "status": "success",
                                       "error_message": None, "width": 24, "exif": "{}",
                                       "original_width": 24}).encode()}
        return f"{i:09d}", {k: v for k, v in members.items() if k not in without}

    (tmp_path / "cc3m").mkdir()
    shard(tmp_path / "cc3m/00000.tar", [sample(0), sample(1, txt=0), sample(2, json=0),
                                        sample(3, jpg=0)])
    shard(tmp_path / "cc3m/00001.tar", [sample(10000), sample(10001, txt=0, json=0)])
    shard(tmp_path / "cc3m/00002.tar", [])
    path = config(tmp_path, model, "contrastive",
                  captions=[{"path": str(tmp_path / "cc3m/{00000..00002}.tar")}])
    done = run("check", "--config", path, "--list", tmp_path / "list", cwd=tmp_path, code=3)
    assert "6 records" in done.stdout and "4 good" in done.stdout
    listed = [json.loads(line) for line in (tmp_path / "list").read_text().splitlines()]
    assert [(x["record"], x["fault"]) for x in listed] == [(3, "missing_member"),
                                                           (5, "missing_member")]
    assert [x["file"] for x in listed] == [str(tmp_path / f"cc3m/0000{i}.tar") for i in (0, 1)]
    assert "000000003" in listed[0]["detail"] and "000010001" in listed[1]["detail"]
    for record, key in ((0, 0), (1, 1), (2, 2), (4, 10000)):
        shown = json.loads(run("preview", "--config", path, "--json", "--sample",
                               f"captions[0]:{record}", cwd=tmp_path).stdout)
        assert f"a caption of {key}\n" in shown["prompt"]
    # A shard of the range that is not there is named, before anything is trained.
    path = config(tmp_path, model, "contrastive",
                  captions=[{"path": str(tmp_path / "cc3m/{00000..00003}.tar")}])
    assert "00003.tar" in run("check", "--config", path, cwd=tmp_path, code=3).stderr
