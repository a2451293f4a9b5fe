"""One training step: both passes, both losses, every gradient (docs: the method section of the
design). Run on one case it prints the losses and writes the gradients:

    python -m oracle.step MODEL_DIR CONFIG.yaml BATCH.json OUT.safetensors [--float32]
"""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from .folder import read_config, read_weights
from .model import Model, no_dropout
from .settings import adapter_of, added_parameters, is_trained, read_settings

IMAGE, NO_LABEL = -200, -100


def read_batch(path):
    """BATCH.json (see README.md) with its tensor files loaded."""
    path = Path(path)
    batch = json.loads(path.read_text())

    def tensors(key):
        return load_file(path.parent / batch[key]) if batch.get(key) else {}

    pixels = tensors("pixels")
    for sample in batch["samples"]:
        name = sample.get("pixels")
        sample["image"] = pixels[name] if name is not None else None
    return SimpleNamespace(kind=batch["kind"], samples=batch["samples"],
                           initial=tensors("initial"), masks=tensors("masks"))


def build_model(folder, settings, initial, dtype):
    """The model with the added parameters; what is trained is marked by requires_grad."""
    config = read_config(folder)
    added = added_parameters(settings, config)
    shapes = {name: tuple(tensor.shape) for name, tensor in initial.items()}
    if shapes != added:
        raise ValueError(f"initial tensors do not fit: {set(shapes.items()) ^ set(added.items())}")
    parameters = read_weights(folder, dtype)
    parameters.update({name: tensor.to(dtype) for name, tensor in initial.items()})
    for name, tensor in parameters.items():
        tensor.requires_grad_(is_trained(settings, added, name))
    return Model(config, parameters, settings.lora.alpha / settings.lora.r)


class Step:
    """The forward half; a Step belongs to one batch."""

    def __init__(self, model, settings, batch):
        self.model, self.settings, self.batch = model, settings, batch
        self.dtype = next(iter(model.parameters.values())).dtype
        self.activations = {}
        if settings.lora.dropout and settings.trainable.language_model == "lora":
            if not batch.masks:
                raise ValueError("lora.dropout is not 0, so the batch must name its masks")

    def mask(self, place, sample):
        """Masks `<place>.<sample>.<layer>.<group>`, place: tower, image, caption, conversation."""
        if not self.settings.lora.dropout:
            return no_dropout
        return lambda layer, group: self.batch.masks[f"{place}.{sample}.{layer}.{group}"].to(
            self.dtype)

    def rows(self, ids, image, summary=None):
        """Embeddings of ids with `image` rows at the image's place and `summary` at the end, and
        the start and length of the image rows."""
        parts = []
        for token in ids:
            parts.append(image if token == IMAGE else self.model.embed(torch.tensor([token])))
        if summary is not None:
            parts.append(summary)
        return torch.cat(parts)

    def remember(self, name, i, tensor):
        self.activations[f"{name}.{i}"] = tensor.detach()

    def visual(self, i, sample):
        """Image rows in the language model's input space: all patches, or in `single` K rows."""
        model, pixels = self.model, sample["image"].to(self.dtype)
        if self.settings.method.forward == "single":
            tokens = model.parameters["summary_tokens"]
            out = model.tower(pixels, tokens, adapter_of(self.settings, "compression"),
                              self.mask("tower", i))
            rows = model.project(out[-len(tokens):])
        else:
            rows = model.project(model.tower(pixels))
        self.remember("visual", i, rows)
        return rows

    def compress(self, place, i, ids, image=None):
        """Pass 1 of the double forward: the K rows at the summary tokens."""
        s, tokens = self.settings, self.model.parameters["summary_tokens"]
        before, after = self.model.decode(
            self.rows(ids, image, tokens), adapter_of(s, "compression"),
            s.summary.attention == "causal", self.mask(place, i))
        out = (after if s.summary.hidden_state == "final_norm" else before)[-len(tokens):]
        self.remember("compressed_" + place, i, out)
        return out

    def last_row(self, place, i, ids, image=None):
        """Embedding of `single`: the final-norm output at the last position of the prompt."""
        _, after = self.model.decode(self.rows(ids, image), adapter_of(self.settings, "generation"),
                                     True, self.mask(place, i))
        self.remember("embedding_" + place, i, after[-1])
        return after[-1]

    def token_losses(self, i, conversation, image):
        """Cross-entropy of every labelled token; row j predicts the label of row j + 1."""
        ids, labels = conversation["ids"], []
        for token, label in zip(ids, conversation["labels"]):
            labels += [NO_LABEL] * len(image) if token == IMAGE else [label]
        _, after = self.model.decode(self.rows(ids, image), adapter_of(self.settings, "generation"),
                                     True, self.mask("conversation", i))
        target = torch.tensor(labels[1:])
        kept = target != NO_LABEL
        return F.cross_entropy(self.model.logits(after[:-1][kept]), target[kept], reduction="none")

    def contrastive(self, images, captions):
        """Eq. 3: cosine over temperature, both directions added, mean over the batch."""
        temperature = self.settings.method.temperature
        if temperature == "learned":
            temperature = self.model.parameters["log_temperature"].exp()
        a = F.normalize(torch.stack(images), dim=-1, eps=0)
        b = F.normalize(torch.stack(captions), dim=-1, eps=0)
        scores = a @ b.T / temperature
        diagonal = torch.arange(len(images))
        return F.cross_entropy(scores, diagonal) + F.cross_entropy(scores.T, diagonal)

    def losses(self):
        """(L_AR, L_disc); None where a loss does not apply."""
        method, kind = self.settings.method, self.batch.kind
        with_ar = kind != "caption" and method.loss != "contrastive"
        with_disc = kind != "conversation" and method.loss != "autoregressive"
        if method.forward == "base" and with_disc:
            raise ValueError("the base forward has no contrastive loss")
        tokens, images, captions = [], [], []
        for i, sample in enumerate(self.batch.samples):
            rows = self.visual(i, sample) if sample["image"] is not None else None
            if rows is not None and method.forward == "double":
                rows = self.compress("image", i, sample["image_prompt"]["ids"], rows)
            if with_disc:
                caption = sample["caption_prompt"]["ids"]
                if method.forward == "double":
                    images.append(rows.mean(0))
                    captions.append(self.compress("caption", i, caption).mean(0))
                else:
                    images.append(self.last_row("image", i, sample["image_prompt"]["ids"], rows))
                    captions.append(self.last_row("caption", i, caption))
            if with_ar:
                tokens.append(self.token_losses(i, sample["conversation"], rows))
        return (torch.cat(tokens).mean() if with_ar else None,
                self.contrastive(images, captions) if with_disc else None)


def run_step(folder, settings, batch, dtype=torch.float64):
    """Returns .loss_ar, .loss_disc (floats or None), .gradients {name: tensor} of every trained
    parameter that has one, .activations {name: tensor}."""
    model = build_model(folder, settings, batch.initial, dtype)
    step = Step(model, settings, batch)
    loss_ar, loss_disc = step.losses()
    sum(loss for loss in (loss_ar, loss_disc) if loss is not None).backward()
    return SimpleNamespace(
        loss_ar=None if loss_ar is None else loss_ar.item(),
        loss_disc=None if loss_disc is None else loss_disc.item(),
        gradients={name: p.grad for name, p in model.parameters.items() if p.grad is not None},
        activations=step.activations)


def write_result(result, path):
    """Losses (shape [1]) and gradients as f32, by name; an absent name is a loss or a gradient
    that the batch does not have."""
    tensors = {name: tensor.float().contiguous() for name, tensor in result.gradients.items()}
    for name in ("loss_ar", "loss_disc"):
        if getattr(result, name) is not None:
            tensors[name] = torch.tensor([getattr(result, name)], dtype=torch.float32)
    save_file(tensors, path)


def main():
    folder, config, batch, out = sys.argv[1:5]
    dtype = torch.float32 if "--float32" in sys.argv else torch.float64
    result = run_step(folder, read_settings(config), read_batch(batch), dtype)
    write_result(result, out)
    print(json.dumps({"loss_ar": result.loss_ar, "loss_disc": result.loss_disc}))


if __name__ == "__main__":
    main()
