"""The peer of answer.py: scripts/examples/peft_consumer.py compressing and answering.

    peer_answer.py WORK IMAGES NEW_TOKENS QUESTION

Prints a JSON object: seconds an image of compressing, seconds an answer from K and from all tokens.
The first of each is a warm-up and not counted."""
import json
import sys
import time
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from peft_consumer import Fwd2Bot  # noqa: E402


def timed(function, items):
    function(items[0])
    begin = time.perf_counter()
    results = [function(item) for item in items]
    return results, (time.perf_counter() - begin) / len(items)


@torch.no_grad()
def main():
    work, count, new, question = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    model = Fwd2Bot(work / "base", work / "export")
    paths = sorted((work / "images").glob("v*.png"))[:count]
    tokens, compress = timed(lambda path: model.compress(Image.open(path).convert("RGB")), paths)
    _, few = timed(lambda rows: model.answer(rows, question, max_new_tokens=new), tokens)
    with model.model.disable_adapter():             # all visual tokens and the base alone
        visual = [model.model.get_image_features(
            model.pixels(Image.open(path).convert("RGB")), vision_feature_layer=model.layer,
            vision_feature_select_strategy="default")[0] for path in paths]
        _, full = timed(lambda rows: model.answer(rows, question, max_new_tokens=new), visual)
    print(json.dumps({"compress": compress, "K tokens": few, "all tokens": full}))


main()
