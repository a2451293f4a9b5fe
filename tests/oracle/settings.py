"""The keys of a training configuration that change what a step computes, and which parameters a
setting adds to the model and which it trains."""
from types import SimpleNamespace

import yaml

from .model import LANGUAGE, TOWER

DEFAULTS = {
    "summary": dict(tokens=16, attention="causal", hidden_state="final_norm"),
    "method": dict(forward="double", loss="both", adapters="stage", temperature=0.02),
    "trainable": dict(language_model="lora", projector=False, vision_tower=False),
    "lora": dict(r=128, alpha=256, dropout=0.05,
                 targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                          "down_proj"]),
}


def make_settings(given):
    """{section: {key: value}} over the defaults; sections and keys that a step does not depend on
    are ignored (the program judges them, not the oracle)."""
    return SimpleNamespace(**{
        section: SimpleNamespace(**{key: given.get(section, {}).get(key, value)
                                    for key, value in keys.items()})
        for section, keys in DEFAULTS.items()})


def read_settings(path):
    with open(path) as file:
        return make_settings(yaml.safe_load(file))


def adapter_of(settings, stage):
    """Name of the adapter that a stage (compression, generation) uses, None if it has none."""
    if settings.trainable.language_model != "lora":
        return None
    if settings.method.forward == "double" and settings.method.adapters == "single":
        return "shared"
    return stage


def language_linears(config, targets):
    c = config.language
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    d, m = c.hidden_size, c.intermediate_size
    shapes = {"self_attn.q_proj": (q, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d),
              "self_attn.o_proj": (d, q), "mlp.gate_proj": (m, d), "mlp.up_proj": (m, d),
              "mlp.down_proj": (d, m)}
    return {f"{LANGUAGE}.layers.{i}.{name}": shape for i in range(c.num_hidden_layers)
            for name, shape in shapes.items() if name.split(".")[1] in targets}


def tower_linears(config):
    v = config.vision
    d, m = v.hidden_size, v.intermediate_size
    shapes = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (d, d), "self_attn.v_proj": (d, d),
              "self_attn.out_proj": (d, d), "mlp.fc1": (m, d), "mlp.fc2": (d, m)}
    depth = config.feature_layer % (v.num_hidden_layers + 1)
    return {f"{TOWER}.encoder.layers.{i}.{name}": shape for i in range(depth)
            for name, shape in shapes.items()}


def added_parameters(settings, config):
    """{name: shape} of what the method adds to the base model."""
    method, added = settings.method, {}

    def add_adapter(linears, adapter):
        for name, (n_out, n_in) in linears.items():
            added[f"{name}.{adapter}.lora_A"] = (settings.lora.r, n_in)
            added[f"{name}.{adapter}.lora_B"] = (n_out, settings.lora.r)

    if settings.trainable.language_model == "lora":
        linears = language_linears(config, settings.lora.targets)
        if method.forward == "double":
            for stage in sorted({adapter_of(settings, "compression"),
                                 adapter_of(settings, "generation")}):
                add_adapter(linears, stage)
        else:
            add_adapter(linears, "generation")
        if method.forward == "single":
            add_adapter(tower_linears(config), "compression")
    if method.forward != "base":
        width = (config.vision if method.forward == "single" else config.language).hidden_size
        added["summary_tokens"] = (settings.summary.tokens, width)
    if method.temperature == "learned":
        added["log_temperature"] = (1,)
    return added


def is_trained(settings, added, name):
    if name in added:
        return True
    trainable = settings.trainable
    return ((trainable.language_model == "full" and name.startswith("language_model."))
            or (trainable.projector and name.startswith("multi_modal_projector."))
            or (trainable.vision_tower and name.startswith("vision_tower.")))
