#!/usr/bin/env python3
"""Lays real data out for configs/real/: easy-VQA conversations (a tenth of the images held back),
COCO photographs with captions, and a small model folder around LLaVA's own tokenizer.

    scripts/real_input.py DATA OUT

DATA has easy-vqa/ (images.tar, questions.json, train_llava.json), coco-images/ (train/, val/,
captions_*.tsv) and llava-1.5-7b-metadata/ (tokenizer.model, tokenizer_config.json). OUT receives
train.json, val.json (one question a record), captions_*.tsv, images/, photographs/ and model/."""
import collections
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

SHORT = "\nAnswer the question using a single word or phrase."
CONFIG = {
    "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
    "image_token_index": 32000, "pad_token_id": 32001, "image_seq_length": 64,
    "projector_hidden_act": "gelu", "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
    "vocab_size": 32064, "torch_dtype": "float32",
    "text_config": {"model_type": "llama", "vocab_size": 32064, "hidden_size": 128,
                    "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4,
                    "num_key_value_heads": 4, "max_position_embeddings": 1024,
                    "rms_norm_eps": 1e-05, "rope_theta": 10000.0},
    "vision_config": {"model_type": "clip_vision_model", "hidden_size": 96, "image_size": 64,
                      "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 4,
                      "patch_size": 8, "projection_dim": 96},
}


def is_held_back(image):
    return image % 10 == 9


def main(data, out):
    easy, coco, meta = data / "easy-vqa", data / "coco-images", data / "llava-1.5-7b-metadata"
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "images").exists():
        with tarfile.open(easy / "images.tar") as tar:
            tar.extractall(out)
    (out / "photographs").mkdir(exist_ok=True)
    for part in "train", "val":
        for image in (coco / part).iterdir():
            shutil.copy(image, out / "photographs" / image.name)
        rows = (coco / f"captions_{part}.tsv").read_text().splitlines()
        names = [row.split("\t") for row in rows]
        (out / f"captions_{part}.tsv").write_text(
            "".join(f"{caption}\t{os.path.basename(image)}\n" for caption, image in names))

    records = json.loads((easy / "train_llava.json").read_text())
    train = [r for r in records if not is_held_back(int(Path(r["image"]).stem))]
    (out / "train.json").write_text(json.dumps(train))
    prefix = os.path.dirname(records[0]["image"])
    questions = [q for q in json.loads((easy / "questions.json").read_text()) if is_held_back(q[2])]
    val = [{"id": f"{image}-{i}", "image": os.path.join(prefix, f"{image}.png"), "conversations": [
                {"from": "human", "value": f"<image>\n{question[0].upper()}{question[1:]}{SHORT}"},
                {"from": "gpt", "value": answer}]}
           for i, (question, answer, image) in enumerate(questions)]
    (out / "val.json").write_text(json.dumps(val))

    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "config.json").write_text(json.dumps(CONFIG, indent=2))
    for name in "tokenizer.model", "tokenizer_config.json":
        shutil.copy(meta / name, out / "model" / name)
    top, n = collections.Counter(q[1] for q in questions).most_common(1)[0]
    print(json.dumps({"train_conversations": len(train), "val_questions": len(val),
                      "majority_answer": top, "majority_accuracy": n / len(val)}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
