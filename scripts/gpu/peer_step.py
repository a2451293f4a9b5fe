"""The peer of tests/gpu/gpu_step.c: the same training step in PyTorch, with transformers' Llama and CLIP
tower and peft's LoRA, an adapter a stage. The same sizes (from a config.json), rows, labels, dropout
and precision; drawn weights.

    peer_step.py --model DIR [--device cuda:0|cpu] [--precision bf16|f32] [--kind conversation|caption|both]
        [--batch N] [--steps N] [--prompt N] [--talk N] [--labelled N] [--caption N] [--rank N] [--tokens K]
        [--attention sdpa|eager] [--checkpointing]

Prints a JSON object with the keys of gpu_step's that are its own too."""
import argparse
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEMPERATURE = 0.02


def arguments():
    o = argparse.ArgumentParser()
    o.add_argument("--model", type=Path, required=True)
    o.add_argument("--device", default="cuda:0")
    o.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    o.add_argument("--kind", choices=("conversation", "caption", "both"), default="conversation")
    for name, value in [("batch", 8), ("steps", 6), ("prompt", 12), ("talk", 200), ("labelled", 100),
                        ("caption", 20), ("rank", 128), ("tokens", 16)]:
        o.add_argument("--" + name, type=int, default=value)
    o.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    o.add_argument("--checkpointing", action="store_true")
    return o.parse_args()


class Step:
    def __init__(self, o):
        self.o, self.device = o, torch.device(o.device)
        self.dtype = torch.bfloat16 if o.precision == "bf16" else torch.float32
        config = json.loads((o.model / "config.json").read_text())
        text = LlamaConfig(**config["text_config"], use_cache=False, attn_implementation=o.attention)
        vision = CLIPVisionConfig(**config["vision_config"], attn_implementation=o.attention)
        layers = config.get("vision_feature_layer", -2)
        vision.num_hidden_layers += 1 + layers if layers < 0 else layers - vision.num_hidden_layers
        torch.set_default_dtype(self.dtype)
        # PyTorch before 2 cannot draw on a device at once: such a one is for the processor alone.
        with self.device if hasattr(self.device, "__enter__") else nullcontext():
            llama = LlamaForCausalLM(text)
            self.tower = CLIPVisionModel(vision).requires_grad_(False)
            self.projector = torch.nn.Sequential(
                torch.nn.Linear(vision.hidden_size, text.hidden_size), torch.nn.GELU(),
                torch.nn.Linear(text.hidden_size, text.hidden_size)).requires_grad_(False)
            torch.set_default_dtype(torch.float32)
            self.summary = torch.nn.Parameter(torch.randn(1, o.tokens, text.hidden_size) * 0.02)
            lora = LoraConfig(r=o.rank, lora_alpha=2 * o.rank, lora_dropout=0.05, target_modules=TARGETS,
                              task_type="CAUSAL_LM")
            self.model = get_peft_model(llama, lora, adapter_name="compression")
            self.model.add_adapter("generation", lora)
        for name, p in self.model.named_parameters():
            p.requires_grad = "lora_" in name
            if p.requires_grad:
                p.data = p.data.float()
        if o.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad] + [self.summary]
        self.optimizer = torch.optim.AdamW(self.trained, lr=2e-4, weight_decay=0)
        self.draw(text.vocab_size, vision)

    def draw(self, vocabulary, vision):
        o = self.o
        ids = lambda n: torch.randint(0, vocabulary, (o.batch, n), device=self.device)
        self.prompt, self.talk, self.words = ids(o.prompt), ids(o.talk), ids(o.prompt + o.caption)
        side = vision.image_size
        self.pixels = torch.randn(o.batch, 3, side, side, device=self.device, dtype=self.dtype)
        self.patches = (side // vision.patch_size) ** 2

    def use(self, adapter):
        """Switch the adapter but keep both trained (set_adapter freezes the other)."""
        for module in self.model.modules():
            if hasattr(module, "_active_adapter"):
                module._active_adapter = [adapter]

    def compress(self, rows):
        n = len(rows)
        rows = torch.cat([rows, self.summary.to(self.dtype).expand(n, -1, -1)], 1)
        hidden = self.model.base_model.model.model(inputs_embeds=rows).last_hidden_state
        return hidden[:, -self.o.tokens:]

    def loss(self):
        o, inner = self.o, self.model.base_model.model
        embed = inner.model.embed_tokens
        with torch.no_grad():
            images = self.projector(self.tower(self.pixels).last_hidden_state[:, 1:])
        self.use("compression")
        at = o.prompt // 2
        rows = torch.cat([embed(self.prompt[:, :at]), images, embed(self.prompt[:, at:])], 1)
        compressed = self.compress(rows)
        total = 0
        if o.kind != "conversation":
            texts = self.compress(embed(self.words))
            a, b = (F.normalize(x.float().mean(1), dim=-1) for x in (compressed, texts))
            scores, own = a @ b.T / TEMPERATURE, torch.arange(o.batch, device=self.device)
            total = total + F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)
        if o.kind != "caption":
            self.use("generation")
            at = (o.talk - o.labelled) // 2
            rows = torch.cat([embed(self.talk[:, :at]), compressed.to(self.dtype),
                              embed(self.talk[:, at:])], 1)
            hidden = inner.model(inputs_embeds=rows).last_hidden_state[:, -o.labelled - 1:-1]
            logits = inner.lm_head(hidden).float()
            total = total + F.cross_entropy(logits.flatten(0, 1), self.talk[:, -o.labelled:].flatten())
        return total

    def __call__(self):
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def main():
    o = arguments()
    torch.manual_seed(1)
    step = Step(o)
    cuda = step.device.type == "cuda"
    seconds = []
    for _ in range(o.steps):
        start = time.monotonic()
        loss = step()
        if cuda:
            torch.cuda.synchronize(step.device)
        seconds.append(time.monotonic() - start)
    timed = seconds[1:] or seconds
    best, median = min(timed), statistics.median(timed)
    print(json.dumps({
        "device": o.device, "kind": o.kind, "batch": o.batch,
        "rows_image": o.prompt + step.patches + o.tokens,
        "rows_caption": 0 if o.kind == "conversation" else o.prompt + o.caption + o.tokens,
        "rows_conversation": 0 if o.kind == "caption" else o.talk + o.tokens,
        "first_seconds": round(seconds[0], 4), "best_seconds": round(best, 6),
        "median_seconds": round(median, 6), "best_samples_per_second": round(o.batch / best, 4),
        "median_samples_per_second": round(o.batch / median, 4), "loss": loss,
        "peak_bytes": torch.cuda.max_memory_allocated(step.device) if cuda else 0}))


main()
