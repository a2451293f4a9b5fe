"""scripts/ablations/report.py: verdicts are computed from the seeds; a section of which a row was not run
stays as the page has it."""
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs/ablations/toy"
PAGE = "# Ablations\n\nThe head.\n\n## Table 5: the losses\n\nkept\n\n## Numbers: f32, bf16, int8, nf4\n\nold\n"


def run(folder, name, accuracies):
    for seed, accuracy in enumerate(accuracies, 1):
        run = folder / f"runs/{name}-seed{seed}"
        run.mkdir(parents=True)
        (run / "all.vqa.json").write_text(json.dumps({"accuracy": accuracy}))
        (run / "all.retrieval.json").write_text(json.dumps(
            {"text_to_image": {"r@1": 0.9}, "image_to_text": {"r@1": 0.9}}))


def report(folder):
    done = subprocess.run([sys.executable, ROOT / "scripts/ablations/report.py", folder / "runs", CONFIGS,
                           folder / "page.md"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "page.md").read_text()


def test_sections(tmp_path):
    (tmp_path / "runs/world").mkdir(parents=True)
    (tmp_path / "runs/world/README.txt").write_text("f2b-data toy --seed 1\n")
    for tokens in ("full", "none"):
        (tmp_path / f"runs/base-{tokens}.vqa.json").write_text(json.dumps({"accuracy": 0.25}))
    run(tmp_path, "reference", [0.60, 0.62, 0.64])
    run(tmp_path, "p_bf16", [0.61, 0.62, 0.65])
    run(tmp_path, "p_int8", [0.60, 0.62, 0.64])
    (tmp_path / "page.md").write_text(PAGE)
    assert report(tmp_path).startswith(PAGE[:PAGE.index("## Numbers")]), "rows that were not run"
    assert "old" in report(tmp_path), "nf4 was not run"
    run(tmp_path, "p_nf4", [0.50, 0.51, 0.52])
    page = report(tmp_path)
    assert page.startswith(PAGE[:PAGE.index("## Numbers")]) and "\nold\n" not in page
    assert "| bf16 | 3 | 62.7 ± 2.0 |" in page
    assert "*bf16* against *f32*: accuracy +0.7, within the seeds' spread of 2.0;" in page
    assert "*nf4* against *bf16*: accuracy -11.7, more than the seeds' spread of 2.0;" in page
    assert "it answers 25.0 %, without the image 25.0 %" in page
    assert report(tmp_path) == page, "written again it is the same"
