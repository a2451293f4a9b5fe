"""Uses an export of f2b-export (--format peft) with Hugging Face transformers and peft: compresses
an image, answers questions from its K tokens, compares it with captions. Copy what you need.

    python peft_consumer.py --base models/llava-1.5-7b-hf --export exports/lora_k16 \
        --image cat.jpg --question "What color is the cat?" --caption "a cat" --caption "a bus"

For the method's default settings (forward double, template vicuna_v1, attention causal, hidden
state after the final norm). Tested with transformers 4.49 and peft 0.21. Two things to keep: set
the adapter before each pass, and tokenise part by part with the slow tokenizer, as LLaVA does.
"""
import argparse
import json
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPImageProcessor, LlavaForConditionalGeneration

SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. The assistant "
          "gives helpful, detailed, and polite answers to the user's questions.")


class Fwd2Bot:
    """A base model with both adapters of an export; their regular expression keeps to the language
    model, so the vision tower is the base's own."""

    def __init__(self, base, export, dtype=torch.float32):
        export = Path(export)
        self.method = json.loads((export / "f2b.json").read_text())["method"]
        settings = [self.method[k] for k in ("forward", "template", "attention", "hidden_state")]
        if settings != ["double", "vicuna_v1", "causal", "final_norm"]:
            raise SystemExit(f"{export}: this example does not know the settings {settings}")
        llava = LlavaForConditionalGeneration.from_pretrained(base, torch_dtype=dtype)
        if (export / "trained.safetensors").exists():       # a projector or tower that was trained
            llava.load_state_dict(load_file(export / "trained.safetensors"), strict=False)
        self.layer = llava.config.vision_feature_layer
        self.model = PeftModel.from_pretrained(llava, export / "compression",
                                               adapter_name="compression")
        loaded = self.model.load_adapter(export / "generation", adapter_name="generation")
        if loaded.missing_keys:     # peft warns for the first adapter only; this one would do nothing
            raise SystemExit(f"{export}: its keys do not fit this version of transformers; export "
                             "with f2b-export --names llava-4.52")
        self.model.to(dtype).eval()
        self.summary = load_file(export / "summary_tokens.safetensors")["summary_tokens"].to(dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(base, use_fast=False)
        self.processor = CLIPImageProcessor.from_pretrained(base)

    @torch.no_grad()
    def compress(self, image):
        """Pass 1: an image to its K tokens [K, d]. They are what to store."""
        self.model.set_adapter("compression")
        visual = self.model.get_image_features(
            self.pixels(image), vision_feature_layer=self.layer,
            vision_feature_select_strategy="default")[0]
        prompt = self.method["prompt"]
        return self.summarise([self.embed(f"{SYSTEM} USER: ", start=True), visual,
                               self.embed(f"\n{prompt} ASSISTANT:")])

    @torch.no_grad()
    def embed_caption(self, caption):
        """A text to the vector [d] that compress(image).mean(0) is compared with, by cosine."""
        self.model.set_adapter("compression")
        prompt = self.method["prompt"]
        text = f"{SYSTEM} USER: {caption.strip()}\n{prompt} ASSISTANT:"
        return self.summarise([self.embed(text, start=True)]).mean(0)

    @torch.no_grad()
    def answer(self, tokens, question, history=(), max_new_tokens=128):
        """Pass 2: (text, ids) of the answer to a question about an image's tokens. `tokens` None: a
        question without image. `history`: pairs of earlier questions and answers."""
        self.model.set_adapter("generation")
        rows = torch.cat(self.conversation(tokens, [*history, (question, None)]))[None]
        ids, cache = [], None
        while len(ids) < max_new_tokens:
            out = self.model(inputs_embeds=rows, past_key_values=cache, use_cache=True,
                             logits_to_keep=1)
            best, cache = int(out.logits[0, -1].argmax()), out.past_key_values
            if best == self.tokenizer.eos_token_id:
                break
            ids.append(best)
            rows = self.model.get_input_embeddings()(torch.tensor([[best]]))
        known = [i for i in ids if i < self.tokenizer.vocab_size]   # a model may have more rows
        return self.tokenizer.decode(known, skip_special_tokens=True,
                                     clean_up_tokenization_spaces=False).strip(), ids

    # ---- the parts of the prompts ----

    def conversation(self, tokens, rounds):
        """SYS USER: tokens, a new line, question ASSISTANT: answer</s>USER: ... ASSISTANT:"""
        parts, text = [], f"{SYSTEM} USER: "
        if tokens is not None:
            parts, text = [self.embed(text, start=True), tokens], "\n"
        for i, (question, answer) in enumerate(rounds):
            text += question if i == 0 else f"USER: {question}"
            text += " ASSISTANT:" if answer is None else f" ASSISTANT: {answer}</s>"
        return parts + [self.embed(text, start=not parts)]

    def embed(self, text, start=False):
        """Rows of a text; the start token only before the first part."""
        ids = self.tokenizer(text, add_special_tokens=start).input_ids
        return self.model.get_input_embeddings()(torch.tensor(ids))

    def pixels(self, image):
        """Padded to a square with the mean colour, as LLaVA-1.5 was trained."""
        if self.method["image_aspect_ratio"] == "pad":
            side = max(image.size)
            mean = tuple(int(m * 255) for m in self.processor.image_mean)
            square = Image.new("RGB", (side, side), mean)
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = square
        return self.processor(image, return_tensors="pt").pixel_values.to(self.summary.dtype)

    def summarise(self, parts):
        """What the summary tokens become behind these rows [K, d], after the final norm."""
        rows = torch.cat([*parts, self.summary])[None]
        out = self.model(inputs_embeds=rows, output_hidden_states=True, logits_to_keep=1)
        return out.hidden_states[-1][0, -len(self.summary):]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--base", required=True, help="Hugging Face folder of the base model")
    parser.add_argument("--export", required=True, help="folder that f2b-export wrote")
    parser.add_argument("--image", required=True)
    parser.add_argument("--question", action="append", default=[])
    parser.add_argument("--caption", action="append", default=[])
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    model = Fwd2Bot(args.base, args.export, torch.bfloat16 if args.bf16 else torch.float32)
    tokens = model.compress(Image.open(args.image).convert("RGB"))
    print(f"{args.image}: {len(tokens)} tokens, {2 * tokens.numel()} bytes to store")
    for question in args.question:
        print(f"{question} {model.answer(tokens, question)[0]}")
    for caption in args.caption:
        same = torch.cosine_similarity(tokens.mean(0), model.embed_caption(caption), dim=0)
        print(f"{same:.4f} {caption}")


if __name__ == "__main__":
    main()
