#!/usr/bin/env python3
"""Fwd2Bot on llama.cpp, through its library: what its own programs cannot do, because they take no
rows of numbers in place of tokens. It reads an export of `f2b-export --format gguf` and a base that
llama.cpp converted (docs/llama-cpp.md), and does what the method asks for:

  caption   a text to its embedding              --text "a red circle" --out embedding.npy
  compress  an image's rows to its K tokens      --image-rows rows.npy --out tokens.npy
  answer    a question about an image's tokens   --tokens tokens.npy --question "What color is it?"

    llama_cpp_consumer.py --base llava-f16.gguf --export exports/gguf answer --tokens ...

Image rows [576, d] are what the vision tower and the projector make of an image; tokens [K, d] are
what `compress` wrote, or come out of a store of f2b-compress. Needs llama-cpp-python, gguf, numpy.
"""
import argparse
import ctypes
import json
from pathlib import Path

import gguf
import llama_cpp as lib
import numpy as np

SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. The assistant "
          "gives helpful, detailed, and polite answers to the user's questions.")
F32 = 0     # ggml's number of the type


class Model:
    def __init__(self, base, export, context=2048, threads=2):
        self.method = json.loads((Path(export) / "f2b.json").read_text())["method"]
        lib.llama_backend_init()
        settings = lib.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(str(base).encode(), settings)
        assert self.model, f"llama.cpp cannot load {base}"
        settings = lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = context
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = F32     # as f2b computes; the default is f16
        settings.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = lib.llama_init_from_model(self.model, settings)
        assert self.context, "llama.cpp cannot make a context"
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.width = lib.llama_model_n_embd(self.model)
        self.adapters = {stage: self.load(Path(export) / f"{stage}.gguf")
                         for stage in ("compression", "generation")}
        (summary,) = gguf.GGUFReader(Path(export) / "summary_tokens.gguf").tensors
        self.summary = np.array(summary.data)       # H_r [K, d]

    def load(self, path):
        adapter = lib.llama_adapter_lora_init(self.model, str(path).encode())
        assert adapter, f"llama.cpp cannot load {path}"
        return adapter

    def forget(self):
        """Throw the cache away: what is in it was computed with the adapter of its time."""
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)

    def begin(self, stage):
        """A new sequence with a stage's adapter (None: with none)."""
        self.forget()
        chosen = [] if stage is None else [self.adapters[stage]]
        adapters = (lib.llama_adapter_lora_p_ctypes * 1)(*chosen)
        scales = (ctypes.c_float * 1)(1.0)
        assert lib.llama_set_adapters_lora(self.context, adapters, len(chosen), scales) == 0
        self.at = 0

    def feed(self, part, outputs=0, embeddings=False):
        """Go on with ids or rows [n, d]; logits [outputs, vocab] of its last rows, or what the
        final norm makes of them [outputs, d]. A batch holds ids or rows, never both."""
        n, rows = len(part), isinstance(part, np.ndarray)
        lib.llama_set_embeddings(self.context, embeddings)
        batch = lib.llama_batch_init(n, self.width if rows else 0, 1)
        batch.n_tokens = n
        if rows:
            part = np.ascontiguousarray(part, dtype=np.float32)
            ctypes.memmove(batch.embd, part.ctypes.data, part.nbytes)
        for i in range(n):
            if not rows:
                batch.token[i] = int(part[i])
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = self.at + i, 1, 0
            batch.logits[i] = i >= n - outputs
        status = lib.llama_decode(self.context, batch)
        lib.llama_batch_free(batch)
        assert status == 0, f"llama_decode: {status}"
        self.at += n
        get = lib.llama_get_embeddings_ith if embeddings else lib.llama_get_logits_ith
        size = self.width if embeddings else lib.llama_vocab_n_tokens(self.vocab)
        return np.array([np.ctypeslib.as_array(get(self.context, i), (size,))
                         for i in range(n - outputs, n)])

    def ids(self, text, start):
        """Ids of a text; the start token only before the first part."""
        raw = text.encode()
        room = (lib.llama_token * (len(raw) + 8))()
        n = lib.llama_tokenize(self.vocab, raw, len(raw), room, len(room), start, False)
        return list(room[:n])

    def around(self, rows, text):
        """SYS USER: rows, a new line, the text, ASSISTANT:; part by part, as LLaVA does."""
        return [self.ids(f"{SYSTEM} USER: ", True), rows, self.ids(f"\n{text} ASSISTANT:", False)]

    def summarise(self, parts):
        """Pass 1: what becomes of the summary tokens after these rows."""
        assert (self.method["forward"], self.method["template"], self.method["attention"],
                self.method["hidden_state"]) == ("double", "vicuna_v1", "causal", "final_norm")
        self.begin("compression")
        for part in parts:
            self.feed(part)
        return self.feed(self.summary, len(self.summary), embeddings=True)

    def compress(self, image_rows):
        """An image to its K tokens [K, d]. They are what to store."""
        return self.summarise(self.around(image_rows, self.method["prompt"]))

    def caption_tokens(self, caption):
        """A text the same way; the mean of it is compared with an image's by cosine."""
        text = f"{SYSTEM} USER: {caption}\n{self.method['prompt']} ASSISTANT:"
        return self.summarise([self.ids(text, True)])

    def answer(self, tokens, question, most=64):
        """Pass 2: ids of the greedy answer to a question about an image's tokens."""
        self.begin("generation")
        *parts, last = self.around(tokens, question)
        for part in parts:
            self.feed(part)
        out, logits = [], self.feed(last, 1)
        while len(out) < most and int(logits[0].argmax()) != lib.llama_vocab_eos(self.vocab):
            out.append(int(logits[0].argmax()))
            logits = self.feed(out[-1:], 1)
        return out

    def text(self, ids):
        room, out = ctypes.create_string_buffer(256), b""
        for i in ids:
            out += room.raw[:lib.llama_token_to_piece(self.vocab, i, room, len(room), 0, False)]
        return out.decode(errors="replace").strip()


def main():
    parser = argparse.ArgumentParser(description="Fwd2Bot on llama.cpp, through its library.")
    parser.add_argument("--base", required=True, help="the base model as a GGUF file")
    parser.add_argument("--export", required=True, help="a folder of f2b-export --format gguf")
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, options in (("caption", ("text", "out")), ("compress", ("image-rows", "out")),
                          ("answer", ("tokens", "question"))):
        task = tasks.add_parser(name)
        for option in options:
            task.add_argument(f"--{option}", required=True)
    args = parser.parse_args()
    lib.llama_log_set(quiet, None)
    model = Model(args.base, args.export)
    if args.task == "caption":
        np.save(args.out, model.caption_tokens(args.text).mean(0))
    elif args.task == "compress":
        np.save(args.out, model.compress(np.load(args.image_rows)))
    else:
        tokens = np.load(args.tokens).astype(np.float32)
        print(model.text(model.answer(tokens, args.question)))


@lib.llama_log_callback
def quiet(level, text, user):
    """llama.cpp says much while it loads."""


if __name__ == "__main__":
    main()
