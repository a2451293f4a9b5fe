"""A small Hugging Face LLaVA or Llama folder as a base model for llama.cpp: the language model alone,
as llama.cpp's own converter writes it (names, order of rows, metadata, SentencePiece vocabulary)."""

import gguf
import numpy as np
import sentencepiece
import torch

from .folder import read_config, read_weights

NORMAL, CONTROL, UNUSED = 1, 3, 5


def interleave(weight, heads):
    """Rows i and i + head_dim / 2 of a head, which are rotated together, become neighbours."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def add_vocabulary(writer, folder, rows):
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    tokens, scores, kinds = [], [], []
    for i in range(rows):
        known = i < pieces.vocab_size()
        tokens.append(pieces.id_to_piece(i) if known else f"[PAD{i}]")
        scores.append(pieces.get_score(i) if known else -1e4)
        kinds.append(UNUSED if not known else 2 if pieces.is_unknown(i) else
                     CONTROL if pieces.is_control(i) else 6 if pieces.is_byte(i) else NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t.encode() for t in tokens])
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_add_space_prefix(True)


def write_base(folder, path):
    config = read_config(folder).language
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(0)
    add_vocabulary(writer, folder, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, weight in read_weights(folder, torch.float32).items():
        if not key.startswith("language_model."):
            continue
        name = names.get_name(key.removeprefix("language_model."), try_suffixes=(".weight",))
        weight = weight.numpy()
        if name.endswith("attn_q.weight"):
            weight = interleave(weight, config.num_attention_heads)
        if name.endswith("attn_k.weight"):
            weight = interleave(weight, config.num_key_value_heads)
        writer.add_tensor(name, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
