"""The training step once more, on transformers' LLaVA class and peft's adapters. It exists to judge
step.py: the two share no model code, only the reading of a case."""
from types import SimpleNamespace

import peft
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from .folder import read_weights
from .settings import adapter_of, added_parameters, is_trained
from .step import IMAGE, NO_LABEL

LANGUAGE_TARGETS = r".*language_model.*\.({})"
TOWER_TARGETS = r".*vision_tower.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def load_llava(folder, dtype=torch.float64):
    """transformers' model of a folder in any layout, eager attention."""
    config = LlavaConfig.from_pretrained(folder, attn_implementation="eager")
    model = LlavaForConditionalGeneration(config).to(dtype).eval()
    model.load_state_dict(read_weights(folder, dtype))
    return model


class FixedMask(torch.nn.Module):
    """Takes the place of a LoRA layer's dropout."""

    def __init__(self):
        super().__init__()
        self.mask = None

    def forward(self, x):
        return x if self.mask is None else x * self.mask.to(x.dtype)


GROUPS = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "o_proj": "o", "out_proj": "o",
          "gate_proj": "gate_up", "up_proj": "gate_up", "down_proj": "down", "fc1": "fc1",
          "fc2": "fc2"}


class HfStep:
    def __init__(self, folder, settings, batch, dtype=torch.float64):
        self.settings, self.batch, self.dtype = settings, batch, dtype
        # What is trained has f32 masters where the arithmetic is coarser.
        self.master = dtype if dtype == torch.float64 else torch.float32
        self.base = load_llava(folder, dtype)
        self.names = {id(p): name for name, p in self.base.named_parameters()}
        config = SimpleNamespace(language=self.text_config(), vision=self.vision_config(),
                                 feature_layer=self.base.config.vision_feature_layer)
        self.added = added_parameters(settings, config)
        self.tokens = batch.initial.get("summary_tokens")
        if self.tokens is not None:
            self.tokens = self.tokens.to(self.master).requires_grad_()
        self.log_temperature = batch.initial.get("log_temperature")
        if self.log_temperature is not None:
            self.log_temperature = self.log_temperature.to(self.master).requires_grad_()
        self.peft, self.lora, self.sites = None, {}, []
        for adapter in sorted({n.split(".")[-2] for n in self.added if ".lora_" in n}):
            self.add_adapter(adapter)

    def text_config(self):
        config = self.base.config.text_config
        config.head_dim = config.hidden_size // config.num_attention_heads
        return config

    def vision_config(self):
        return self.base.config.vision_config

    def add_adapter(self, adapter):
        lora, in_tower = self.settings.lora, any(
            n.startswith("vision_tower") and f".{adapter}." in n for n in self.added)
        targets = TOWER_TARGETS if in_tower else LANGUAGE_TARGETS.format("|".join(lora.targets))
        config = peft.LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0,
                                 target_modules=targets)
        if self.peft is None:
            self.peft = peft.get_peft_model(self.base, config, adapter_name=adapter)
        else:
            self.peft.add_adapter(adapter, config)
        for name, module in self.base.named_modules():
            if adapter not in getattr(module, "lora_A", {}):
                continue
            dropout = module.lora_dropout[adapter] = FixedMask()
            self.sites.append((adapter, name, dropout))
            for side in ("lora_A", "lora_B"):
                key = f"{name}.{adapter}.{side}"
                weight = getattr(module, side)[adapter].weight
                if key not in self.added:     # a layer past the feature layer: never run
                    continue
                with torch.no_grad():
                    weight.copy_(self.batch.initial[key])
                self.lora[key] = weight

    def use(self, stage, place, sample):
        """Make the stage's adapter (or none) the active one and lay out the place's masks."""
        adapter = adapter_of(self.settings, stage)
        if adapter is None:
            return
        self.peft.set_adapter(adapter)
        for owner, name, dropout in self.sites:
            layer, module = name.split(".layers.")[1].split(".", 1)
            key = f"{place}.{sample}.{layer}.{GROUPS[module.split('.')[-1]]}"
            dropout.mask = self.batch.masks.get(key) if owner == adapter else None

    def run_language(self, embeddings, causal=True):
        """(before, after) the final norm."""
        kept = []
        decoder = self.base.language_model.model
        hook = decoder.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        n = embeddings.shape[0]
        mask = None if causal else torch.zeros(1, 1, n, n, dtype=embeddings.dtype)
        out = decoder(inputs_embeds=embeddings[None], attention_mask=mask, use_cache=False)
        hook.remove()
        return kept[0][0], out.last_hidden_state[0]

    def visual(self, i, sample):
        pixels, tower = sample["image"].to(self.dtype)[None], self.base.vision_tower.vision_model
        layer = self.base.config.vision_feature_layer
        if self.settings.method.forward == "single":
            self.use("compression", "tower", i)
            x = torch.cat([tower.embeddings(pixels), self.tokens.to(self.dtype)[None]], 1)
            states = tower.encoder(inputs_embeds=tower.pre_layrnorm(x), output_hidden_states=True)
            return self.base.multi_modal_projector(states[1][layer][0, -len(self.tokens):])
        if self.peft is not None:
            with self.peft.disable_adapter():
                return self.base.get_image_features(pixels, layer, "default")[0]
        return self.base.get_image_features(pixels, layer, "default")[0]

    def embeddings(self, ids, image):
        ids = torch.tensor(ids)
        rows = self.base.get_input_embeddings()(ids.clamp(min=0))
        if IMAGE not in ids:
            return rows
        at = ids.tolist().index(IMAGE)
        return torch.cat([rows[:at], image.to(rows.dtype), rows[at + 1:]])

    def summarise(self, place, i, ids, image=None):
        method, summary = self.settings.method, self.settings.summary
        if method.forward == "single":
            self.use("generation", place, i)
            return self.run_language(self.embeddings(ids, image))[1][-1:]
        self.use("compression", place, i)
        rows = torch.cat([self.embeddings(ids, image), self.tokens.to(self.dtype)])
        states = self.run_language(rows, summary.attention == "causal")
        return states[summary.hidden_state == "final_norm"][-len(self.tokens):]

    def token_loss(self, i, conversation, image):
        """(sum of the cross-entropy, number of labelled tokens)"""
        self.use("generation", "conversation", i)
        x = self.embeddings(conversation["ids"], image)
        labels = torch.tensor(conversation["labels"])
        if IMAGE in conversation["ids"]:
            at = conversation["ids"].index(IMAGE)
            labels = torch.cat([labels[:at], labels.new_full((len(image),), NO_LABEL),
                                labels[at + 1:]])
        logits = self.base.language_model.lm_head(self.run_language(x)[1]).to(self.master)
        loss = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=NO_LABEL,
                                                 reduction="sum")
        return loss, int((labels[1:] != NO_LABEL).sum())

    def run(self):
        method, kind = self.settings.method, self.batch.kind
        with_ar = kind != "caption" and method.loss != "contrastive"
        with_disc = kind != "conversation" and method.loss != "autoregressive"
        ar, labelled, images, captions = 0.0, 0, [], []
        for i, sample in enumerate(self.batch.samples):
            rows = self.visual(i, sample) if sample["image"] is not None else None
            summary = None
            if rows is not None and (method.forward == "double" or with_disc):
                summary = self.summarise("image", i, sample["image_prompt"]["ids"], rows)
            if rows is not None and method.forward == "double":
                rows = summary
            if with_disc:
                images.append(summary.mean(0))
                captions.append(
                    self.summarise("caption", i, sample["caption_prompt"]["ids"]).mean(0))
            if with_ar:
                loss, n = self.token_loss(i, sample["conversation"], rows)
                ar, labelled = ar + loss, labelled + n
        loss_ar = ar / labelled if with_ar else None
        loss_disc = self.contrastive(images, captions) if with_disc else None
        return loss_ar, loss_disc

    def contrastive(self, images, captions):
        """Written as Eq. 3 is printed, with loops."""
        temperature = self.settings.method.temperature
        if temperature == "learned":
            temperature = self.log_temperature.exp()[0]
        images, captions = ([x.to(self.master) for x in xs] for xs in (images, captions))
        s = torch.stack([torch.stack([torch.cosine_similarity(v, t, 0) for t in captions])
                         for v in images]) / temperature
        total = 0.0
        for k in range(len(images)):
            total = total - (s[k, k] - s[k, :].logsumexp(0)) - (s[k, k] - s[:, k].logsumexp(0))
        return total / len(images)

    def gradients(self):
        """Backward must find every trained tensor marked, whichever adapter was active last."""
        trained = dict(self.lora)
        for name, tensor in (("summary_tokens", self.tokens),
                             ("log_temperature", self.log_temperature)):
            if tensor is not None:
                trained[name] = tensor
        for p in self.base.parameters():
            name = self.names.get(id(p))
            if name is not None and is_trained(self.settings, self.added, name):
                trained[name] = p
        return trained


def run_hf_step(folder, settings, batch, dtype=torch.float64):
    """As step.run_step, without activations. In bf16 as one trains in PyTorch: frozen weights are
    bf16, trained ones f32, autocast chooses."""
    step = HfStep(folder, settings, batch, dtype)
    trained = step.gradients()
    for p in step.base.parameters():
        p.requires_grad_(False)
    for p in trained.values():
        p.requires_grad_(True)
        p.data = p.data.to(step.master)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss_ar, loss_disc = step.run()
    for p in trained.values():                # set_adapter() switches the other adapters off
        p.requires_grad_(True)
    sum(loss for loss in (loss_ar, loss_disc) if loss is not None).backward()
    return SimpleNamespace(
        loss_ar=None if loss_ar is None else loss_ar.item(),
        loss_disc=None if loss_disc is None else loss_disc.item(),
        gradients={name: p.grad for name, p in trained.items() if p.grad is not None})
