"""The peer of tests/bench/mini_step_program.c: the same training step in PyTorch, transformers' Llama
and peft's LoRA with one adapter a stage. Same model, same numbers of rows and labels.

    peer_step.py BATCH f32|bf16 STEPS [eager|sdpa] [profile] [SIZE=N ...]

SIZE as there; r and dropout (per cent) are the LoRA's.

Prints a JSON object: seconds of each step by the clock and of the processors, resident bytes, loss of the
last; with `profile` also the share of the last step's time that its matrix products took."""
import json
import resource
import sys
import time
from types import SimpleNamespace

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = dict(d=512, ff=1376, layers=8, heads=8, vocab=32000, image=576, prompt=44, talk=200, labelled=100, r=16, dropout=0)
SIZES.update((name, int(value)) for name, value in (a.split("=") for a in sys.argv if "=" in a))
Z = SimpleNamespace(**SIZES)
K, IMAGE_AT = 16, 35 if SIZES["prompt"] >= 35 else SIZES["prompt"] // 2
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn", "mkldnn::", "onednn::",
            "aten::_scaled_dot_product")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_model(dtype):
    config = LlamaConfig(hidden_size=Z.d, intermediate_size=Z.ff, num_hidden_layers=Z.layers,
                         num_attention_heads=Z.heads, vocab_size=Z.vocab, max_position_embeddings=4096,
                         use_cache=False, attn_implementation="sdpa" if "sdpa" in sys.argv else "eager")
    lora = LoraConfig(r=Z.r, lora_alpha=2 * Z.r, lora_dropout=Z.dropout / 100, target_modules=TARGETS,
                      task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(config).to(dtype), lora, adapter_name="compression")
    model.add_adapter("generation", lora)
    for name, p in model.named_parameters():
        p.requires_grad = "lora_" in name
        if p.requires_grad:
            p.data = p.data.float()
    return model


def use(model, adapter):
    """Switch the adapter but keep both trained (set_adapter freezes the other)."""
    for module in model.modules():
        if hasattr(module, "_active_adapter"):
            module._active_adapter = [adapter]


def step(model, optimizer, summary, features, prompt, talk, dtype):
    n, llama = len(prompt), model.base_model.model.model
    embed = llama.embed_tokens
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        use(model, "compression")
        rows = torch.cat([embed(prompt[:, :IMAGE_AT]), features, embed(prompt[:, IMAGE_AT:]),
                          summary.to(dtype).expand(n, -1, -1)], 1)
        compressed = llama(inputs_embeds=rows).last_hidden_state[:, -K:]
        use(model, "generation")
        rows = torch.cat([embed(talk[:, :IMAGE_AT]), compressed.to(dtype), embed(talk[:, IMAGE_AT:])], 1)
        hidden = llama(inputs_embeds=rows).last_hidden_state[:, -Z.labelled - 1:-1]
        logits = model.base_model.model.lm_head(hidden).float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), talk[:, -Z.labelled:].flatten())
    loss.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def share(run):
    """Of the time of one step, as PyTorch's profiler sees it, the part of matrix products."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    rows = profile.key_averages()
    return (sum(row.self_cpu_time_total for row in rows if row.key.startswith(PRODUCTS))
            / sum(row.self_cpu_time_total for row in rows))


def main():
    n, steps = int(sys.argv[1]), int(sys.argv[3])
    dtype = torch.bfloat16 if sys.argv[2] == "bf16" else torch.float32
    torch.manual_seed(1)
    model = make_model(dtype)
    model.train()
    summary = torch.nn.Parameter(torch.randn(1, K, Z.d) * 0.02)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad] + [summary],
                                  lr=2e-4, weight_decay=0)
    features = (torch.rand(n, Z.image, Z.d) - 0.5).to(dtype)
    prompt = torch.randint(0, Z.vocab, (n, Z.prompt))
    talk = torch.randint(0, Z.vocab, (n, Z.talk))
    prompt[:, :IMAGE_AT] = talk[:, :IMAGE_AT] = prompt[0, :IMAGE_AT]    # the system's words
    seconds, busy, result = [], [], {}
    for _ in range(steps):
        start, before = time.monotonic(), time.process_time()
        loss = step(model, optimizer, summary, features, prompt, talk, dtype)
        seconds.append(round(time.monotonic() - start, 4))
        busy.append(round(time.process_time() - before, 4))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if "profile" in sys.argv:
        result["products"] = share(lambda: step(model, optimizer, summary, features, prompt, talk, dtype))
    print(json.dumps({"seconds": seconds, "processor_seconds": busy, "loss": loss,
                      "resident_bytes": resident, **result}))


main()
