"""CLIP tower, projector and Llama, one sequence at a time, in plain PyTorch and any float type.

A sequence is `[rows, width]`; there is no batch, no padding and no packing, so that nothing here
shares a trick with the implementation that it judges. LoRA is looked up by name: an adapter applies
to a linear layer exactly if `<module>.<adapter>.lora_A` is a parameter.
"""
import torch
import torch.nn.functional as F

LANGUAGE = "language_model.model"
TOWER = "vision_tower.vision_model"


def no_dropout(layer, group):
    """The mask of a pass without dropout; `group` is qkv, o, gate_up, down (tower: fc1, fc2)."""
    return None


class Model:
    def __init__(self, config, parameters, lora_scale=0.0):
        self.config = config
        self.parameters = parameters
        self.lora_scale = lora_scale

    def linear(self, name, x, adapter=None, mask=None):
        """y = x W^T + b + s B(A(mask * x)); masks hold 0 or 1/(1-p)."""
        p = self.parameters
        y = F.linear(x, p[name + ".weight"], p.get(name + ".bias"))
        a = p.get(f"{name}.{adapter}.lora_A")
        if a is None:
            return y
        x = x if mask is None else x * mask
        return y + self.lora_scale * F.linear(F.linear(x, a), p[f"{name}.{adapter}.lora_B"])

    # Vision ---------------------------------------------------------------------------------

    def layer_norm(self, name, x):
        p = self.parameters
        return F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"],
                            self.config.vision.layer_norm_eps)

    def tower(self, pixels, extra=None, adapter=None, mask=no_dropout):
        """pixels [3,S,S] -> features [patches, width] of the feature layer, CLS dropped; `extra`
        [K, width] joins after the patches without position, and comes out as rows patches.. ."""
        v, p = self.config.vision, self.parameters
        name = TOWER + ".embeddings"
        patches = F.conv2d(pixels[None], p[name + ".patch_embedding.weight"], stride=v.patch_size)
        x = torch.cat([p[name + ".class_embedding"][None], patches[0].flatten(1).T])
        x = x + p[name + ".position_embedding.weight"]
        if extra is not None:
            x = torch.cat([x, extra])
        x = self.layer_norm(TOWER + ".pre_layrnorm", x)
        # hidden_states[0] is the input of layer 0, so index -2 of L+1 entries is L-1 layers deep
        depth = self.config.feature_layer % (v.num_hidden_layers + 1)
        for i in range(depth):
            layer = f"{TOWER}.encoder.layers.{i}"
            h = self.layer_norm(layer + ".layer_norm1", x)
            x = x + self.tower_attention(layer + ".self_attn", h, adapter,
                                         lambda group, i=i: mask(i, group))
            h = self.layer_norm(layer + ".layer_norm2", x)
            h = self.linear(layer + ".mlp.fc1", h, adapter, mask(i, "fc1"))
            h = h * torch.sigmoid(1.702 * h)
            x = x + self.linear(layer + ".mlp.fc2", h, adapter, mask(i, "fc2"))
        return x[1:]

    def tower_attention(self, name, x, adapter, mask):
        heads = self.config.vision.num_attention_heads
        q, k, v = (self.linear(f"{name}.{part}_proj", x, adapter, mask("qkv"))
                   .unflatten(-1, (heads, -1)).transpose(0, 1) for part in "qkv")
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        out = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        return self.linear(name + ".out_proj", out, adapter, mask("o"))

    def project(self, features):
        h = self.linear("multi_modal_projector.linear_1", features)
        return self.linear("multi_modal_projector.linear_2", F.gelu(h))

    # Language -------------------------------------------------------------------------------

    def embed(self, ids):
        return self.parameters[LANGUAGE + ".embed_tokens.weight"][ids]

    def rms_norm(self, name, x):
        scale = (x.pow(2).mean(-1, keepdim=True) + self.config.language.rms_norm_eps).rsqrt()
        return x * scale * self.parameters[name + ".weight"]

    def rotate(self, x):
        """Half rotation of [heads, rows, d]: the pair of element i is i + d/2."""
        half = x.shape[-1] // 2
        steps = torch.arange(half, dtype=torch.float64) / half
        frequency = self.config.language.rope_theta ** -steps
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, name, x, adapter, causal, mask):
        c = self.config.language
        q, k, v = (self.linear(f"{name}.{part}_proj", x, adapter, mask("qkv"))
                   .unflatten(-1, (-1, c.head_dim)).transpose(0, 1) for part in "qkv")
        group = c.num_attention_heads // c.num_key_value_heads
        q, k = self.rotate(q), self.rotate(k)
        k, v = (t.repeat_interleave(group, 0) for t in (k, v))
        scores = q @ k.transpose(1, 2) / c.head_dim ** 0.5
        if causal:
            future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        out = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        return self.linear(name + ".o_proj", out, adapter, mask("o"))

    def decode(self, x, adapter=None, causal=True, mask=no_dropout):
        """Embeddings [rows, d] -> (before, after) the final norm."""
        for i in range(self.config.language.num_hidden_layers):
            layer = f"{LANGUAGE}.layers.{i}"
            h = self.rms_norm(layer + ".input_layernorm", x)
            x = x + self.attention(layer + ".self_attn", h, adapter, causal,
                                   lambda group, i=i: mask(i, group))
            h = self.rms_norm(layer + ".post_attention_layernorm", x)
            gate = self.linear(layer + ".mlp.gate_proj", h, adapter, mask(i, "gate_up"))
            up = self.linear(layer + ".mlp.up_proj", h, adapter, mask(i, "gate_up"))
            x = x + self.linear(layer + ".mlp.down_proj", F.silu(gate) * up, adapter,
                                mask(i, "down"))
        return x, self.rms_norm(LANGUAGE + ".norm", x)

    def logits(self, normed):
        head = (LANGUAGE + ".embed_tokens" if self.config.tied else "language_model.lm_head")
        return F.linear(normed, self.parameters[head + ".weight"])
