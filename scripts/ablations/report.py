#!/usr/bin/env python3
"""report.py RUNS CONFIGS OUT.md: the ablations' tables, beside the paper's, from the evaluations that
scripts/ablations.sh left. Whether the order of two rows agrees is computed, not judged. A section of which
a row was not run stays as OUT.md has it, so that some rows can be run again alone. Standard library only.
"""
import glob
import json
import os
import re
import statistics
import sys

# The paper's own figures (arXiv 2503.21757v1): MMB, MME, TextVQA; Flickr30K and MS-COCO R@1, text to
# image and image to text.
PUBLISHED = (64.4, 1470.0, 54.2, 83.8, 94.4, 56.8, 70.2)
TABLES = [
    ("Table 5: the losses", "t05", [
        ("t05_discriminative", "discriminative", (46.2, 624.3, 13.5, 84.3, 94.8, 56.3, 73.2)),
        ("t05_generative", "generative", (64.1, 1420.1, 54.2, 61.3, 76.0, 33.9, 47.0)),
        ("t05_both", "both", (64.4, 1470.0, 54.2, 83.8, 94.4, 56.8, 70.2))]),
    ("Table 6: adapters", "t06", [
        ("t06_full", "full fine-tuning", (64.3, 1413.1, 52.9, 83.1, 94.0, 56.2, 70.4)),
        ("t06_single", "single LoRA", (64.3, 1410.5, 51.8, 83.8, 94.1, 56.5, 69.9)),
        ("t06_stage", "stage LoRA", PUBLISHED)]),
    ("Table 7: forward passes", "t07", [
        ("t07_single_forward", "single forward", (61.3, 1305.0, 42.1, 80.8, 92.1, 53.1, 66.2)),
        ("t07_double_forward", "double forward", PUBLISHED)]),
    ("Table 12: attention while compressing", "t12", [
        ("t12_bidirectional", "bidirectional", (60.2, 1310.1, 48.4, 83.6, 94.8, 57.9, 72.2)),
        ("t12_causal", "causal", PUBLISHED)]),
    ("Table 13: the start", "t13", [
        ("t13_vicuna", "Vicuna", (60.3, 1296.3, 48.2, 81.2, 92.5, 54.3, 67.4)),
        ("t13_llava", "LLaVA", PUBLISHED)]),
]
SWEEP = [("k%02d" % k, "K = %d" % k) for k in (1, 2, 4, 8, 16)]
NUMBERS = [("t05_both", "f32"), ("p_bf16", "bf16"), ("p_int8", "int8 weights, bf16 arithmetic"),
           ("p_nf4", "nf4 weights, bf16 arithmetic")]
METRICS = ("accuracy", "text to image", "image to text")


def run_name(configs, row):
    """The run a row uses: rows of the same configuration share one."""
    text = open(os.path.join(configs, row + ".yaml")).read()
    return re.search(r"^  dir: .*/(.*)$", text, re.M).group(1)


def measures(stem):
    """(accuracy, T2I R@1, I2T R@1) in per cent of one evaluated run, or None."""
    try:
        vqa = json.load(open(stem + ".vqa.json"))
        found = json.load(open(stem + ".retrieval.json"))
    except FileNotFoundError:
        return None
    return (100 * vqa["accuracy"], 100 * found["text_to_image"]["r@1"],
            100 * found["image_to_text"]["r@1"])


def seeds_of(runs, name, part="all"):
    """One triple a seed."""
    found = []
    for folder in sorted(glob.glob(os.path.join(runs, name + "-seed*"))):
        triple = measures(os.path.join(folder, part))
        if triple is not None:
            found.append(triple)
    return found


def mean_spread(triples, i):
    values = [t[i] for t in triples]
    return statistics.mean(values), (max(values) - min(values)) / 2


def cells(triples):
    if not triples:
        return ["not run"] * 3
    if len(triples) == 1:
        return ["%.1f" % value for value in triples[0]]
    return ["%.1f ± %.1f" % mean_spread(triples, i) for i in range(3)]


def mark(difference, spread):
    """Which way a difference points, where it is more than the seeds' own spread."""
    return 0 if abs(difference) <= spread else 1 if difference > 0 else -1


def agreement(rows, runs, configs):
    """One sentence a row against the published method, the last row."""
    method = rows[-1]
    ours = seeds_of(runs, run_name(configs, method[0]))
    sentences = []
    for row, label, paper in rows[:-1]:
        theirs = seeds_of(runs, run_name(configs, row))
        if not ours or not theirs:
            continue
        parts = []
        # The paper's answers: TextVQA, the finest of its three; its retrieval: the mean of two sets.
        paper_by = (method[2][2] - paper[2],
                    (method[2][3] + method[2][5] - paper[3] - paper[5]) / 2,
                    (method[2][4] + method[2][6] - paper[4] - paper[6]) / 2)
        for i, metric in enumerate(METRICS):
            a, sa = mean_spread(ours, i)
            b, sb = mean_spread(theirs, i)
            here, there = mark(a - b, max(sa, sb)), mark(paper_by[i], 0.5)
            verdict = ("agrees" if here == there else "disagrees" if here == -there
                       else "no difference beyond the seeds here" if here == 0
                       else "a difference here where the paper has hardly any")
            parts.append("%s %+.1f here, %+.1f in the paper (%s)"
                         % (metric, a - b, paper_by[i], verdict))
        sentences.append("- *%s* against *%s*: %s." % (method[1], label, "; ".join(parts)))
    return sentences


def table(out, rows, runs, configs):
    out.append("| row | seeds | answers right | T2I R@1 | I2T R@1 | paper: MMB | MME | TextVQA | "
               "Flickr T2I | I2T | COCO T2I | I2T |")
    out.append("| --- " * 12 + "|")
    for row, label, paper in rows:
        triples = seeds_of(runs, run_name(configs, row))
        out.append("| " + " | ".join([label, str(len(triples))] + cells(triples)
                                     + ["%.1f" % p for p in paper]) + " |")
    out.append("")


def plain_table(rows, runs, configs):
    out = ["| row | seeds | answers right | T2I R@1 | I2T R@1 |", "| --- | --- | --- | --- | --- |"]
    for row, label in rows:
        triples = seeds_of(runs, run_name(configs, row))
        out.append("| " + " | ".join([label, str(len(triples))] + cells(triples)) + " |")
    return out + [""]


def numbers_verdicts(runs, configs):
    """Each kind of number against the one it must not be worse than: f32, then bf16."""
    found = {row: seeds_of(runs, run_name(configs, row)) for row, _ in NUMBERS}
    sentences = []
    for row, against, text in (("p_bf16", "t05_both", "*bf16* against *f32*"),
                               ("p_int8", "p_bf16", "*int8* against *bf16*"),
                               ("p_nf4", "p_bf16", "*nf4* against *bf16*")):
        if len(found[row]) < 2 or len(found[against]) < 2:
            continue
        parts = []
        for i, metric in enumerate(METRICS):
            (a, sa), (b, sb) = mean_spread(found[row], i), mean_spread(found[against], i)
            parts.append("%s %+.1f, %s" % (metric, a - b, "within the seeds' spread of %.1f" % max(sa, sb)
                                           if mark(a - b, max(sa, sb)) == 0
                                           else "more than the seeds' spread of %.1f" % max(sa, sb)))
        sentences.append("- %s: %s." % (text, "; ".join(parts)))
    return sentences + [""] if sentences else []


def parts_table(runs, configs):
    """Figures 5 and 6: the K = 16 model with a part of its tokens."""
    name = run_name(configs, "k16")
    out = ["The K = 16 models, read with a part of their tokens (`f2b-eval --use-tokens`, "
           "`--mask-tokens`).", "",
           "| tokens | answers right | T2I R@1 | I2T R@1 |", "| --- | --- | --- | --- |"]
    parts = [("all", "all 16")]
    parts += [("use-0:%d" % n, "the first %d" % n) for n in (1, 2, 4, 8, 12)]
    parts += [("mask-%d:%d" % (a, b), "without %d to %d" % (a, b - 1))
              for a, b in ((0, 4), (4, 8), (8, 12), (12, 16), (0, 8), (8, 16))]
    for part, label in parts:
        out.append("| " + " | ".join([label] + cells(seeds_of(runs, name, part))) + " |")
    early, late = seeds_of(runs, name, "mask-0:8"), seeds_of(runs, name, "mask-8:16")
    out.append("")
    if early and late:
        a, b = mean_spread(early, 0), mean_spread(late, 0)
        worse = mark(b[0] - a[0], max(a[1], b[1]))
        out += ["The paper: masking earlier tokens costs more. Here: without the first eight %.1f %%, "
                "without the last eight %.1f %% of the answers are right: %s." % (
                    a[0], b[0], "agrees" if worse > 0 else "disagrees" if worse < 0
                    else "no difference beyond the seeds"), ""]
    return out


def single(path):
    try:
        return "%.1f %%" % (100 * json.load(open(path))["accuracy"])
    except FileNotFoundError:
        return "not run"


def main(runs, configs, path):
    text = open(os.path.join(runs, "world", "README.txt")).read()
    world = re.search(r"f2b-data toy .*", text).group(0)
    out = ["# Ablations on the toy world", "",
           "Written by `scripts/ablations.sh` (it trains whatever is missing, then writes this page); "
           "the rows are the files of `configs/ablations/toy`, the same rows for LLaVA-1.5-7B are in "
           "`configs/ablations/7b`. The world is harder than the quickstart's: `%s`: up to four "
           "objects of eight colors, six shapes, two sizes, at four places, on three backgrounds; 64 "
           "image tokens, d = 128, four layers. The published method here is K = 4, r = 32, 600 steps "
           "of 32 images; every row has the same batches." % world, "",
           "Figures are per cent: the mean over the seeds, ± half the distance between the best and "
           "the worst seed. *Answers right* is exact match on 2,000 questions about 500 images that "
           "were never trained on; retrieval is R@1 among those 500 images and their captions (chance "
           "0.2). The base itself, with all 64 image tokens, answers %s; without the image %s."
           % (single(os.path.join(runs, "base-full.vqa.json")),
              single(os.path.join(runs, "base-none.vqa.json"))), "",
           "What the figures can say: whether a switch works and which way it points on a small "
           "problem that it was not made for. They are no reproduction of the paper's numbers. A "
           "verdict `agrees` means the same sign, where our difference is larger than the spread of "
           "the seeds and the paper's larger than 0.5; the paper's answers are judged by TextVQA, its "
           "retrieval by the mean of Flickr30K and MS-COCO.", ""]
    sections = []                       # (heading, lines, every row was run)
    ran = lambda rows: all(seeds_of(runs, run_name(configs, row[0])) for row in rows)
    for title, _, rows in TABLES:
        lines = []
        table(lines, rows, runs, configs)
        lines += agreement(rows, runs, configs) + [""]
        sections.append((title, lines + NOTES.get(title[:8].rstrip(":"), []), ran(rows)))
    for title, lines, complete in (
            ("K: tokens an image", plain_table(SWEEP, runs, configs), ran(SWEEP)),
            ("Figures 5 and 6: a part of the tokens", parts_table(runs, configs), ran([("k16", "")])),
            ("Numbers: f32, bf16, int8, nf4",
             plain_table(NUMBERS, runs, configs) + numbers_verdicts(runs, configs)
             + ["The published method, trained and read with each kind of number: evaluated with the "
                "arithmetic it was trained with.", ""], ran(NUMBERS))):
        sections.append((title, lines, complete))
    old = old_sections(path)
    if old and not all(complete for _, _, complete in sections):
        base = ("From a base that was trained with this section's runs: with all 64 image tokens it answers %s, "
                "without the image %s." % tuple(single(os.path.join(runs, "base-%s.vqa.json" % tokens))
                                                for tokens in ("full", "none")))
        sections = [(title, lines + [base, ""], True) if complete else (title, old.get(title, lines), False)
                    for title, lines, complete in sections]
        out = old[""]
    for title, lines, _ in sections:
        out += ["## " + title, ""] + lines
    with open(path + ".partial", "w") as file:
        file.write("\n".join(out).rstrip() + "\n")
    os.replace(path + ".partial", path)


def old_sections(path):
    """{heading: lines} of the page as it is, "" before the first heading; {} where there is none."""
    if not os.path.exists(path):
        return {}
    found, heading = {"": []}, ""
    for line in open(path).read().split("\n"):
        if line.startswith("## "):
            heading = line[3:]
            found[heading] = []
        else:
            found[heading].append(line)
    return {title: ("\n".join(lines).strip("\n") + "\n").split("\n") for title, lines in found.items()}


# What a reader must know about a row here to judge it.
NOTES = {
    "Table 6": ["Full fine-tuning runs at 3e-4 where LoRA has 1e-3; LLaVA's own recipes are 2e-5 and "
                "2e-4.", ""],
    "Table 7": ["Single forward: the tower's LoRA has the rank of the others. Both retrieval sides "
                "are the last position's output, as the paper's section 3.1 has it for LLMs.", ""],
    "Table 13": ["*Vicuna* is a language model trained on text alone, where the caption describes the "
                 "scene that is asked about; *LLaVA* is that model after it learned to see. Both have "
                 "LLaVA's vision tower; Vicuna's projector is new and trained.", ""],
}

if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
