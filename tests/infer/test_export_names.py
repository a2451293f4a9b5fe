"""Exports with the other ways to name the base's modules, in the real peft on the class of
transformers that has those names: logits of pass 2 and compressed captions against ours.

`llama` is for a class with the language model alone, which takes what we computed for the image as
rows. `llava-4.52` needs transformers 4.52 or later. `llava` is tested by test_export_oracle.py."""
import json
import os
import subprocess
import warnings
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from oracle.random_model import SHAPES, write_llava

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
IMAGE = -200
QUESTION = "What color is the object at the top left?"
METHOD = {
    "tokens": 3, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0,
             "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                         "down_proj"]},
}
NEW = tuple(int(x) for x in transformers.__version__.split(".")[:2]) >= (4, 52)

pytestmark = pytest.mark.skipif(not (TESTS / "infer_dump").exists(),
                                reason="infer_dump is not built")
from_4_52 = pytest.mark.skipif(not NEW, reason="needs transformers 4.52 or later; this is "
                                               f"{transformers.__version__}")


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base, a run on it, and what our programs compute from the run."""
    folder = tmp_path_factory.mktemp("trained")
    world = folder / "world"
    run(BIN / "f2b-data", "toy", "--out", world, "--train", 1, "--val", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, "vocab832", dict(
            SHAPES["gqa"], language=dict(SHAPES["gqa"]["language"], vocab_size=832)))
        base = write_llava(folder / "base", "vocab832")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (base / file).write_bytes((world / "model" / file).read_bytes())
    run(TESTS / "make_run", base, folder / "run", json.dumps(METHOD), 7)
    run(TESTS / "infer_dump", folder / "run", base, world / "images" / "v000000.png", QUESTION,
        folder / "ours.safetensors")
    return base, folder / "run", load_file(folder / "ours.safetensors")


def llama_alone(base):
    """The language model of a LLaVA folder, as a plain LlamaForCausalLM."""
    prefix = "language_model."
    weights = {name[len(prefix):]: value for name, value in
               load_file(base / "model.safetensors").items() if name.startswith(prefix)}
    model = LlamaForCausalLM(AutoConfig.from_pretrained(base).text_config)
    model.load_state_dict(weights)
    return model


def llava(base):
    model, info = LlavaForConditionalGeneration.from_pretrained(base, output_loading_info=True)
    assert not any(info.values()), info
    return model


def rows(model, ids, *more):
    """Embeddings of the ids; rows of the image take its place, others come behind."""
    ids = ids.long()
    x = model.get_input_embeddings()(ids.clamp(min=0))
    if IMAGE in ids:
        at = ids.tolist().index(IMAGE)
        return torch.cat([x[:at], more[0].double(), x[at + 1:]])[None]
    return torch.cat([x, *[m.double() for m in more]])[None]


def error(a, b):
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("names,load", [
    ("llama", llama_alone), pytest.param("llava-4.52", llava, marks=from_4_52)])
def test_names(tmp_path, trained, names, load):
    base, run_folder, ours = trained
    run(BIN / "f2b-export", "--checkpoint", run_folder, "--format", "peft", "--names", names,
        "--out", tmp_path / "export")
    summary = load_file(tmp_path / "export" / "summary_tokens.safetensors")["summary_tokens"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")      # peft warns of keys that found no module
        model = peft.PeftModel.from_pretrained(load(base), tmp_path / "export" / "compression",
                                               adapter_name="compression")
        loaded = model.load_adapter(tmp_path / "export" / "generation", "generation")
        assert not loaded.missing_keys and not loaded.unexpected_keys
    model.double().eval()
    assert not [name for name, _ in model.named_modules()
                if "vision_tower" in name and "lora" in name]

    def compress():
        states = model(inputs_embeds=rows(model, ours["caption_prompt"], summary),
                       output_hidden_states=True).hidden_states[-1]
        return states[0, -len(summary):]

    def logits():
        return model(inputs_embeds=rows(model, ours["question_prompt"], ours["tokens"])).logits[0]

    for stage, compute, want in (("compression", compress, ours["caption_tokens"]),
                                 ("generation", logits, ours["logits"])):
        model.set_adapter(stage)
        with torch.no_grad():
            got = compute()
            with model.disable_adapter():
                without = compute()
        assert error(want, got) < 1e-4
        assert error(without, got) > 1e-2       # the adapter matters in this comparison
