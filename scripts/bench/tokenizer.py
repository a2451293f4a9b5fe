#!/usr/bin/env python3
"""Text to token ids, MB/s on one thread: ours beside the SentencePiece library (its batch call,
num_threads=1; that of PEER_PYTHON too), the same lines, alternating in one run. Prints a Markdown table
for docs/benchmarks.md; exit code 1 if ids differ.

    scripts/bench/tokenizer.py [BUILD_DIR] [--model tokenizer.model --text FILE] [--rounds N] [--quick]

TEXT has a text a line. Without --model and --text: LLaVA's tokenizer, CC3M captions and LLaVA
conversations of ../shared where they are, else the toy world's tokenizer and texts.
"""
import json
import pathlib
import subprocess
import tempfile

from measure import SHARED, median, options_for, pythons, run, table, version

HERE = pathlib.Path(__file__).resolve().parent
MODEL = SHARED / "llava-1.5-7b-metadata/tokenizer.model"


def turns(path):
    return [turn["value"].replace("\n", " ") for record in json.loads(path.read_text())
            for turn in record["conversations"]]


def real_lines():
    captions = (SHARED / "cc3m-validation/gcc_validation_first10000.tsv").read_text().splitlines()
    return ([line.split("\t")[0] for line in captions]
            + turns(SHARED / "llava-conversations/llava_instruct_first60.json"))


def toy(build, folder, train):
    """The toy world's tokenizer and lines."""
    subprocess.run([f"{build}/bin/f2b-data", "toy", "--out", folder / "toy", "--train", str(train),
                    "--val", "1", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return folder / "toy/model/tokenizer.model", turns(folder / "toy/train.json")


def choose(o, folder):
    """(model, file of lines, what it is)"""
    if o.model is not None:
        return o.model, o.text, o.text.name
    if MODEL.exists() and not o.quick:
        model, lines, what = MODEL, real_lines(), "LLaVA's tokenizer, CC3M captions and LLaVA conversations"
    else:
        model, lines = toy(o.build, folder, 16 if o.quick else 2000)
        what = "the toy world's tokenizer and texts"
    text = folder / "lines"
    text.write_text("\n".join(lines))
    return model, text, what


def main():
    options = options_for(__doc__, rounds=7)
    options.add_argument("--model", type=pathlib.Path)
    options.add_argument("--text", type=pathlib.Path)
    o = options.parse_args()
    if (o.model is None) != (o.text is None):
        options.error("--model and --text go together")
    with tempfile.TemporaryDirectory() as folder:
        model, text, what = choose(o, pathlib.Path(folder))
        contenders = {"fwd2bot": [f"{o.build}/tests/tokenizer_bench", model, text, 3]}
        for python in pythons("sentencepiece"):
            contenders[f"SentencePiece {version(python, 'sentencepiece')}"] = [
                python, HERE / "peer_tokenizer.py", model, text, 3]
        rounds, results = {name: [] for name in contenders}, {}
        for _ in range(o.rounds):
            for name, command in contenders.items():
                results[name] = run(command)
                rounds[name] += results[name]["rounds"][1:]     # the first one warms up
    ours, *peers = results.values()
    same = all(peer["hash"] == ours["hash"] for peer in peers)
    megabytes = ours["bytes"] / 1e6
    print(f"{what}: {megabytes:.2f} MB, {ours['ids']:,} ids"
          f"{'; all give the same ids' if same and peers else '' if same else '; THE IDS DIFFER'}.\n")
    rows = []
    for name, values in rounds.items():
        clock, busy = zip(*values)
        rows.append([name, *(f"{megabytes / s:.1f}" for s in (min(clock), median(clock), median(busy)))])
    table(["", "MB/s (best)", "MB/s (median)", "MB a second of the processor (median)"], rows)
    raise SystemExit(not same)


main()
