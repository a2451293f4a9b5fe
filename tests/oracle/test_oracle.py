"""The oracle itself, judged by transformers and peft, by itself in f32, and by golden files."""
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from oracle.compare import compare
from oracle.folder import read_config, read_weights
from oracle.hf_step import load_llava, run_hf_step
from oracle.make_case import CASES, write_case
from oracle.model import Model
from oracle.random_model import SHAPES, write_llava
from oracle.settings import read_settings
from oracle.step import IMAGE, read_batch, run_step

GOLDEN = Path(__file__).parent.parent / "golden" / "step"


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("cases")


def load_case(work, name):
    folder = write_case(work, name)
    return (work / "models" / CASES[name]["model"], read_settings(folder / "config.yaml"),
            read_batch(folder / "batch.json"))


def test_compare_finds_differences():
    a = {"x": torch.ones(4), "y": torch.ones(2)}
    assert max(compare(a, a).values()) == 0
    assert compare({"x": torch.ones(4)}, a)["y"] == float("inf")
    assert compare({**a, "z": torch.ones(1)}, a)["z"] == float("inf")
    assert compare({**a, "y": torch.ones(3)}, a)["y"] == float("inf")
    assert compare({**a, "y": torch.tensor([1.0, float("nan")])}, a)["y"] == float("inf")
    assert abs(compare({**a, "x": 1.01 * torch.ones(4)}, a)["x"] - 0.01) < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_of_llava(work, shape):
    """All image tokens in the prompt: logits of transformers' LLaVA forward."""
    folder = write_llava(work / f"llava_{shape}", shape)
    hf, config = load_llava(folder), read_config(folder)
    model = Model(config, read_weights(folder, torch.float64))
    pixels = torch.randn(3, *[config.vision.image_size] * 2, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(3))
    prompt = [1, 5, IMAGE, 9, 11, 3, 8]
    image = hf.config.image_token_index
    patches = hf.config.image_seq_length
    expanded = [t for token in prompt for t in ([image] * patches if token == IMAGE else [token])]
    theirs = hf(input_ids=torch.tensor([expanded]), pixel_values=pixels[None],
                attention_mask=torch.ones(1, len(expanded), dtype=torch.long)).logits[0]
    rows = [model.project(model.tower(pixels)) if token == IMAGE
            else model.embed(torch.tensor([token])) for token in prompt]
    ours = model.logits(model.decode(torch.cat(rows))[1])
    assert (ours - theirs).norm() / theirs.norm() < 1e-6


def test_folder_loads_in_transformers(work):
    """The sharded folder is a folder that transformers itself opens, with equal tensors."""
    folder = write_llava(work / "opens", "sharded_f16")
    model = LlavaForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float32)
    ours = read_weights(folder, torch.float32)
    theirs = model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", CASES)
def test_step_equals_transformers_and_peft(work, name):
    model, settings, batch = load_case(work, name)
    ours, theirs = run_step(model, settings, batch), run_hf_step(model, settings, batch)
    for loss in ("loss_ar", "loss_disc"):
        assert getattr(ours, loss) == pytest.approx(getattr(theirs, loss), rel=1e-6)
    errors = compare(ours.gradients, theirs.gradients)
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-5, f"{worst}: {errors[worst]}"


@pytest.mark.parametrize("name", CASES)
def test_case_is_well_conditioned(work, name):
    """f32 agrees with f64 to a tenth of what the C implementation is allowed."""
    model, settings, batch = load_case(work, name)
    exact = run_step(model, settings, batch)
    single = run_step(model, settings, batch, torch.float32)
    errors = compare(single.gradients, exact.gradients)
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-5, f"{worst}: {errors[worst]}"


def test_text_only_batch_and_caption_batch_leave_tensors_alone(work):
    """No gradient is not a zero gradient: the optimiser treats them differently."""
    model, settings, batch = load_case(work, "gqa_caption")
    names = run_step(model, settings, batch).gradients
    assert names and not any(".generation." in name for name in names)
    model, settings, batch = load_case(work, "gqa_conversation")
    batch.samples = [s for s in batch.samples if s["image"] is None]
    names = run_step(model, settings, batch).gradients
    assert names and all(".generation." in name for name in names)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["committed"]])
def test_committed_case_is_reproduced(work, name):
    """tests/golden/step is what the scripts make, byte for byte but for the last bits of f32."""
    folder, golden = write_case(work, name), GOLDEN / "cases" / name
    for file in ("batch.json", "config.yaml", "initial.safetensors", "pixels.safetensors"):
        assert (folder / file).read_bytes() == (golden / file).read_bytes(), file
    shape = CASES[name]["model"]
    for file in (GOLDEN / "models" / shape).iterdir():
        assert file.read_bytes() == (work / "models" / shape / file.name).read_bytes(), file
    for file in ("expected.safetensors", "activations.safetensors"):
        errors = compare(load_file(folder / file), load_file(golden / file))
        assert max(errors.values()) < 1e-6, file
