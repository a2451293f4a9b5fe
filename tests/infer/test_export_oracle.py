"""What our programs compute from a run, against transformers and the real peft reading its export:
compressed tokens, embeddings of image and caption, logits of pass 2, ids of a greedy answer."""
import json
import os
import subprocess
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from oracle.hf_step import load_llava
from oracle.random_model import SHAPES, write_llava

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
IMAGE = -200
QUESTION = "What color is the object at the top left?"
METHOD = {
    "tokens": 5, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 4, "alpha": 8, "dropout": 0.05,
             "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                         "down_proj"]},
}
CASES = {
    "gqa-stage": ("gqa", {}),
    "gqa-projector": ("gqa", {}),
    "odd-single-adapter": ("odd", {"adapters": "single"}),
    "sharded-plain-pre-norm": ("sharded_f16", {"template": "plain", "hidden_state": "pre_norm"}),
    "gqa-bidirectional-few-targets": ("gqa", {
        "attention": "bidirectional",
        "lora": dict(METHOD["lora"], targets=["q_proj", "v_proj", "down_proj"])}),
}

pytestmark = pytest.mark.skipif(not (TESTS / "infer_dump").exists(),
                                reason="infer_dump is not built")


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    run(BIN / "f2b-data", "toy", "--out", folder, "--train", 1, "--val", 1)
    return folder


class Reference:
    """The reference consumer: base, both adapters, summary tokens."""

    def __init__(self, base, export, method):
        self.method = method
        self.base = load_llava(base)
        if (export / "trained.safetensors").exists():
            trained = {k: v.double() for k, v in load_file(export / "trained.safetensors").items()}
            assert not self.base.load_state_dict(trained, strict=False).unexpected_keys
        self.model = peft.PeftModel.from_pretrained(self.base, export / "compression",
                                                    adapter_name="compression")
        self.model.load_adapter(export / "generation", "generation")
        self.model.double().eval()
        self.summary = load_file(export / "summary_tokens.safetensors")["summary_tokens"].double()

    def visual(self, pixels):
        layer = self.base.config.vision_feature_layer
        with self.model.disable_adapter():
            return self.base.get_image_features(pixels.double()[None], layer, "default")[0]

    def rows(self, ids, image):
        ids = ids.long()
        rows = self.base.get_input_embeddings()(ids.clamp(min=0))
        if IMAGE not in ids:
            return rows
        at = ids.tolist().index(IMAGE)
        return torch.cat([rows[:at], image, rows[at + 1:]])

    def decode(self, x, causal=True):
        """(before, after) the final norm."""
        kept = []
        decoder = self.base.language_model.model
        hook = decoder.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        mask = None if causal else torch.zeros(1, 1, len(x), len(x), dtype=x.dtype)
        out = decoder(inputs_embeds=x[None], attention_mask=mask, use_cache=False)
        hook.remove()
        return kept[0][0], out.last_hidden_state[0]

    def compress(self, ids, image=None):
        self.model.set_adapter("compression")
        x = torch.cat([self.rows(ids, image), self.summary])
        states = self.decode(x, self.method["attention"] == "causal")
        return states[self.method["hidden_state"] == "final_norm"][-len(self.summary):]

    def logits(self, ids, tokens):
        self.model.set_adapter("generation")
        return self.base.language_model.lm_head(self.decode(self.rows(ids, tokens))[1])

    def answer(self, ids, tokens, n):
        out = []
        for _ in range(n):
            more = torch.tensor(out, dtype=torch.int32)
            out.append(int(self.logits(torch.cat([ids, more]), tokens)[-1].argmax()))
        return out


def error(a, b):
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("name", CASES)
def test_export(tmp_path, world, name, monkeypatch):
    shape, changes = CASES[name]
    spec = dict(SHAPES[shape], language=dict(SHAPES[shape]["language"], vocab_size=832))
    monkeypatch.setitem(SHAPES, "vocab832", spec)
    base = write_llava(tmp_path / "base", "vocab832")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    method = dict(METHOD, **changes)
    run_folder, export = tmp_path / "run", tmp_path / "export"
    run(TESTS / "make_run", base, run_folder, json.dumps(method), 11,
        "projector" if name == "gqa-projector" else "")
    proof = json.loads(run(BIN / "f2b-export", "--checkpoint", run_folder, "--format", "peft",
                           "--out", export))
    assert min(proof["changes"].values()) > 1e-3
    ours = {}
    for source in (run_folder, export):
        out = tmp_path / "out.safetensors"
        run(TESTS / "infer_dump", source, base, world / "images" / "v000000.png", QUESTION, out)
        ours[source] = load_file(out)
    for key, value in ours[run_folder].items():
        assert torch.equal(value, ours[export][key]), key
    got = ours[run_folder]

    with torch.no_grad():
        reference = Reference(base, export, method)
        tokens = reference.compress(got["image_prompt"], reference.visual(got["pixels"]))
        caption = reference.compress(got["caption_prompt"])
        logits = reference.logits(got["question_prompt"], tokens)
        plain = reference.base.language_model.lm_head
        with reference.model.disable_adapter():
            without = plain(reference.decode(reference.rows(got["question_prompt"], tokens))[1])
        answer = reference.answer(got["question_prompt"], tokens, len(got["answer"]))
    assert error(got["tokens"], tokens) < 1e-4
    assert error(got["caption_tokens"], caption) < 1e-4
    assert error(got["embedding"], tokens.mean(0, keepdim=True)) < 1e-4
    assert error(got["caption_embedding"], caption.mean(0, keepdim=True)) < 1e-4
    assert error(got["logits"], logits) < 1e-4
    assert error(without, logits) > 1e-2          # the adapter matters in this comparison
    assert got["answer"].tolist() == answer
