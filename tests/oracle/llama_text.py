"""Tiny text-only Llamas with the logits and the mean negative log-likelihood of transformers."""
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from .random_model import write_llama

LLAMAS = {
    "gqa": dict(tied=False, language=dict(
        hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, vocab_size=71, rms_norm_eps=1e-5)),
    "tied": dict(tied=True, language=dict(
        hidden_size=16, intermediate_size=28, num_hidden_layers=3, num_attention_heads=2,
        vocab_size=67, rope_theta=500000.0)),
}
IDS = [1, 40, 17, 3, 66, 2, 5, 5, 31, 29, 60, 12, 8, 4, 4, 19, 33, 21]


def write_golden(out, name):
    """Write the folder `out/name` with expected.safetensors: ids i32 [n] (the first is the start
    token), logits f32 [n, vocab], nll f32 [1] = mean over the n - 1 predicted ids."""
    spec = LLAMAS[name]
    folder = write_llama(out / name, spec["language"], seed=7, tied=spec["tied"])
    model = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float64).eval()
    ids = torch.tensor([IDS])
    with torch.no_grad():
        result = model(input_ids=ids, labels=ids)
    save_file({"ids": ids[0].int(), "logits": result.logits[0].float().contiguous(),
               "nll": result.loss.float()[None]}, folder / "expected.safetensors")
    return folder
