/*
 * The table of all configuration keys, grouped as in the file. Everything else about configuration
 * is derived from it. Its order is the order of the resolved file and of the reference page.
 */
#include <string.h>

#include "train/config_internal.h"

#define AT(member) offsetof(f2b_config, member)
#define BIG        1e15 /* no limit but that of exact integers in a double */

const f2bi_field f2bi_fields[] = {
    { "model.path", F2BI_PATH, AT(model.path), NULL, .may_change = true,
      .help =
          "Base model: a Hugging Face folder with config.json, safetensors and tokenizer.model. "
          "A folder without weights gives a random start. It may move between stop and resume: a "
          "checkpoint knows its base by fingerprint." },
    { "model.vision_path", F2BI_PATH, AT(model.vision_path), "null", .nullable = true,
      .may_change = true,
      .help = "CLIP folder, for LLaVA folders that lack the vision tower, and for a plain Llama "
              "(Vicuna), whose projector is then trained (`trainable.projector`)." },
    { "model.weights", F2BI_CHOICE, AT(model.weights), "bf16", "f32|bf16|f16|int8|nf4",
      .help = "Storage of the frozen weights. f32 is the reference, bf16 takes half of its memory. "
              "int8 (a scale per output channel) and nf4 (blocks of 64, double quantisation, as "
              "bitsandbytes) take a quarter and an eighth for the matrices of linear layers, all else "
              "being bf16 then; they cost some exactness and speed." },
    { "model.image_aspect_ratio", F2BI_CHOICE, AT(model.image_aspect_ratio), "pad", "pad|crop",
      .help = "Pad to a square with the mean colour (the paper's LLaVA), or crop the centre (the "
              "llava-hf processor). What the base was trained with is right." },

    { "summary.tokens", F2BI_INTEGER, AT(summary.tokens), "16", .min = 0, .max = 4096,
      .unit = "tokens",
      .help =
          "K, the tokens that an image is compressed to; 4, 16 and 32 in the paper. More keep "
          "more detail; stored, an image takes 2*K*d bytes. Not used by `method.forward: base`." },
    { "summary.prompt", F2BI_TEXT, AT(summary.prompt), "\"Summarize the image in a few words.\"",
      .max = F2B_METHOD_PROMPT_BYTES - 1,
      .help = "What the compression pass asks for, after the image or the caption." },
    { "summary.template", F2BI_CHOICE, AT(summary.template_), "vicuna_v1", "vicuna_v1|plain",
      .help = "Wrap image and prompt as LLaVA wraps conversations, or leave them bare, as Eq. 1 is "
              "written." },
    { "summary.attention", F2BI_CHOICE, AT(summary.attention), "causal", "causal|bidirectional",
      .help = "Attention of the compression pass (Table 12): bidirectional is slightly better at "
              "retrieval, clearly worse at generation." },
    { "summary.hidden_state", F2BI_CHOICE, AT(summary.hidden_state), "final_norm",
      "final_norm|pre_norm",
      .help = "Take the compressed tokens after or before the language model's final norm." },
    { "summary.init", F2BI_CHOICE, AT(summary.init), "normal", "normal|vocabulary",
      .help = "Start of the summary embeddings: normal random numbers of deviation 0.02, or copies "
              "of rows of the embedding table." },

    { "method.forward", F2BI_CHOICE, AT(method.forward), "double", "double|single|base",
      .help =
          "double: the language model compresses, then generates (the method). single: the "
          "vision tower compresses, one pass (Table 7). base: no compression, all image tokens, "
          "as LLaVA itself is trained." },
    { "method.loss", F2BI_CHOICE, AT(method.loss), "both", "both|autoregressive|contrastive",
      .help = "Which losses train (Table 5). Data that the loss does not use is not sampled. "
              "`forward: base` has the autoregressive loss alone, its default there." },
    { "method.adapters", F2BI_CHOICE, AT(method.adapters), "stage", "stage|single",
      .help = "An adapter for each pass, or one for both (Table 6), with half the parameters." },
    { "method.temperature", F2BI_NUMBER, AT(method.temperature), "0.02", "learned", .min = 0,
      .max = 100, .above = true,
      .help =
          "Divides the cosine similarities of the contrastive loss. `learned` starts at 0.07; 1.0 "
          "is Eq. 3 as printed, where the loss is almost flat." },

    { "trainable.language_model", F2BI_CHOICE, AT(trainable.language_model), "lora",
      "lora|full|frozen",
      .help =
          "LoRA adapters, the whole language model (16 bytes of memory a parameter), or nothing "
          "of it." },
    { "trainable.projector", F2BI_SWITCH, AT(trainable.projector), "false",
      .help = "Train the projector too, at its own rate, as LLaVA's LoRA recipe does." },
    { "trainable.vision_tower", F2BI_SWITCH, AT(trainable.vision_tower), "false",
      .help = "Train the vision tower too. Its activations are then kept for the backward pass." },
    { "trainable.start_from", F2BI_PATH, AT(trainable.start_from), "null", .nullable = true,
      .help = "An export, run or checkpoint whose trained tensors are the start, with a new "
              "optimiser." },

    { "lora.r", F2BI_INTEGER, AT(lora.r), "128", .min = 1, .max = 65536,
      .help =
          "Rank. For 7B an adapter has 320 million parameters at 128, 40 million at 16; each takes "
          "16 bytes in training." },
    { "lora.alpha", F2BI_NUMBER, AT(lora.alpha), "256", .min = 0, .max = BIG, .above = true,
      .help = "The adapter's output is scaled by alpha / r." },
    { "lora.dropout", F2BI_NUMBER, AT(lora.dropout), "0.05", .min = 0, .max = 0.99,
      .help = "Dropout of the adapter's input, in training only. 0 is a little faster." },
    { "lora.targets", F2BI_SUBSET, AT(lora.targets),
      "[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]",
      "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj",
      .help = "The linear layers of the language model that get an adapter." },

    { "data.conversations", F2BI_SOURCES, AT(data.conversations), "[]", .images = true,
      .help = "LLaVA conversation files (JSON), for the autoregressive loss: `path`, and `images`, "
              "the folder that their image names start from." },
    { "data.captions", F2BI_SOURCES, AT(data.captions), "[]", .images = true,
      .help = "Images with captions, for the contrastive loss: `path` names tar shards "
              "(`\"cc3m/{00000..00331}.tar\"`), or together with `images` a TSV (caption, tab, "
              "file), a "
              "LLaVA JSON or a COCO captions JSON." },
    { "data.conversation_captions", F2BI_SOURCES, AT(data.conversation_captions), "[]",
      .help = "COCO captions JSON files, joined to the conversations by image; these samples train "
              "both losses in one step." },
    { "data.max_length", F2BI_INTEGER, AT(data.max_length), "2048", .min = 8, .max = 1048576,
      .unit = "tokens",
      .help =
          "Most rows of a conversation in the generation pass, image rows included; the rest is "
          "cut. Where the model was made for fewer (`max_position_embeddings`), it is cut there." },
    { "data.max_caption_length", F2BI_INTEGER, AT(data.max_caption_length), "77", .min = 1,
      .max = 65536, .unit = "tokens",
      .help = "A caption is cut to its first tokens; the prompt around it is not counted." },
    { "data.bad_records", F2BI_CHOICE, AT(data.bad_records), "skip", "skip|error",
      .may_change = true,
      .help =
          "Skip records that cannot be used (counted, and listed in the run folder), or stop at "
          "the first." },
    { "data.max_bad_fraction", F2BI_NUMBER, AT(data.max_bad_fraction), "0.001", .min = 0, .max = 1,
      .may_change = true,
      .help = "The run stops when more than this share of the records was bad." },
    { "data.workers", F2BI_INTEGER, AT(data.workers), "2", .min = 0, .max = 256, .unit = "threads",
      .may_change = true,
      .help =
          "Threads that read and decode ahead; 0: each batch is made when it is asked for. More "
          "help where `data_wait_seconds` in the metrics is not near 0." },
    { "data.feature_cache", F2BI_PATH, AT(data.feature_cache), "null", .nullable = true,
      .may_change = true,
      .help =
          "Folder in which the frozen vision tower's output is kept, image by image as they are first "
          "seen, so that no image goes through the tower twice: the same bits, less time, much disk "
          "(1.2 MB an image of LLaVA-1.5 in bf16; `--check` says how much). What is there of another "
          "tower or other settings is not used. Not for a tower that is trained." },

    { "sampler.conversation_batch", F2BI_INTEGER, AT(sampler.conversation_batch), "128", .min = 1,
      .max = 1048576, .unit = "samples",
      .help = "Conversations of an optimiser step, whatever the micro-batches." },
    { "sampler.contrastive_batch", F2BI_INTEGER, AT(sampler.contrastive_batch), "1024", .min = 2,
      .max = 1048576, .unit = "samples",
      .help = "Images with captions of an optimiser step, each other's negatives. Time grows with "
              "it, memory hardly (GradCache)." },
    { "sampler.ratio", F2BI_NUMBER, AT(sampler.ratio), "1.0", .min = 0, .max = 1e6, .above = true,
      .help = "Samples under the contrastive loss for each sample under the autoregressive one." },
    { "sampler.group_images", F2BI_SWITCH, AT(sampler.group_images), "false",
      .help =
          "Conversation batches take all records of an image one after another, and samples of one "
          "image in a micro-batch share one compression pass: less time where images have several "
          "records, fewer images in a batch. Samples that share a pass share its dropout mask." },

    { "train.epochs", F2BI_NUMBER, AT(train.epochs), "1", .min = 0, .max = 1e6, .above = true,
      .nullable = true,
      .help = "Passes over the conversations. Either `epochs` or `steps` is given." },
    { "train.steps", F2BI_INTEGER, AT(train.steps), "null", .min = 1, .max = 1e12, .nullable = true,
      .unit = "optimiser steps", .help = "Length of the whole run, instead of `epochs`." },
    { "train.learning_rate", F2BI_NUMBER, AT(train.learning_rate), "2.0e-4", .min = 0, .max = 10,
      .help = "Peak rate of all that is trained but the projector." },
    { "train.projector_learning_rate", F2BI_NUMBER, AT(train.projector_learning_rate), "2.0e-5",
      .min = 0, .max = 10, .help = "Peak rate of the projector, where it is trained." },
    { "train.lr_scheduler", F2BI_CHOICE, AT(train.lr_scheduler), "cosine", "cosine|linear|constant",
      .help = "How the rate falls after the warm-up; cosine and linear reach 0 at the end." },
    { "train.warmup_ratio", F2BI_NUMBER, AT(train.warmup_ratio), "0.03", .min = 0, .max = 1,
      .help = "Share of the steps in which the rate rises from 0." },
    { "train.weight_decay", F2BI_NUMBER, AT(train.weight_decay), "0.0", .min = 0, .max = 10,
      .help =
          "Decoupled decay (AdamW) of matrices; summary embeddings, norms and biases have none." },
    { "train.adam.beta1", F2BI_NUMBER, AT(train.adam.beta1), "0.9", .min = 0, .max = 0.999999,
      .help = "Decay of the mean of the gradients." },
    { "train.adam.beta2", F2BI_NUMBER, AT(train.adam.beta2), "0.999", .min = 0, .max = 0.99999999,
      .help = "Decay of the mean of their squares." },
    { "train.adam.eps", F2BI_NUMBER, AT(train.adam.eps), "1.0e-8", .min = 0, .max = 1,
      .above = true, .help = "Added to the root of the mean square." },
    { "train.max_grad_norm", F2BI_NUMBER, AT(train.max_grad_norm), "1.0", .min = 0, .max = BIG,
      .help = "The gradients of a step are scaled down to this norm, taken over all of them; 0 is "
              "off." },
    { "train.precision", F2BI_CHOICE, AT(train.precision), "bf16", "bf16|f32|fp8",
      .help = "Type of the activations. Sums, norms, losses, and what is trained, are f32 either "
              "way. fp8, on CUDA devices from sm_89: as bf16, but frozen linear layers (not the "
              "embeddings and the head) are stored and multiplied as 8-bit floats, e4m3 with a scale a "
              "row; layers whose sides are no multiples of 16 stay as `model.weights` has them, which "
              "the run says when it starts." },
    { "train.micro_batch_tokens", F2BI_INTEGER, AT(train.micro_batch_tokens), "16384", .min = 1,
      .max = 1e9, .unit = "tokens",
      .help =
          "Rows that go through the model at a time: more is faster up to a point, and takes more "
          "memory. A sample that is longer goes alone." },
    { "train.activation_checkpointing", F2BI_CHOICE, AT(train.activation_checkpointing), "auto",
      "auto|none|layer", .may_change = true,
      .help =
          "Compute layers again in the backward pass instead of keeping their activations: about "
          "a third more time, much less memory, the same bits. auto: as few layers as the memory "
          "(`train.memory_limit`) needs, none where all fit; layer: all." },
    { "train.memory_limit", F2BI_BYTES, AT(train.memory_limit), "0", .may_change = true,
      .help = "What the run may take on the host, weights that are used from their files included: "
              "`20GiB`, `800MiB`. 0: what is there when it starts. A run that needs more does not "
              "start, and says what it needs; `--check` shows it too." },
    { "train.seed", F2BI_INTEGER, AT(train.seed), "42", .min = 0, .max = BIG,
      .help = "Of initial values, the order of the data, and dropout." },

    { "run.dir", F2BI_PATH, AT(run.dir), NULL, .may_change = true,
      .help = "The run's folder: checkpoints, metrics, the resolved configuration." },
    { "run.save_every", F2BI_INTEGER, AT(run.save_every), "500", .min = 0, .max = BIG,
      .unit = "optimiser steps", .may_change = true,
      .help = "A checkpoint every so many steps, and always at the end; 0: only then." },
    { "run.keep", F2BI_INTEGER, AT(run.keep), "3", .min = 0, .max = 1e6, .unit = "checkpoints",
      .may_change = true, .help = "The newest that stay; 0: all." },
    { "run.log_every", F2BI_INTEGER, AT(run.log_every), "1", .min = 1, .max = BIG,
      .unit = "optimiser steps", .may_change = true,
      .help = "A line in metrics.jsonl and a point in TensorBoard every so many steps." },
    { "run.eval_every", F2BI_INTEGER, AT(run.eval_every), "0", .min = 0, .max = BIG,
      .unit = "optimiser steps", .may_change = true,
      .help = "Evaluate every so many steps; 0: never." },
    { "run.log_sample_ids", F2BI_SWITCH, AT(run.log_sample_ids), "false", .may_change = true,
      .help = "Write each step's sample ids to metrics.jsonl: long lines, but they name the sample "
              "behind a bad step." },
};

const int f2bi_n_fields = (int)(sizeof f2bi_fields / sizeof f2bi_fields[0]);
_Static_assert(sizeof f2bi_fields / sizeof f2bi_fields[0] <= F2BI_MAX_FIELDS,
               "raise F2BI_MAX_FIELDS");

static const struct {
    const char *name, *help;
} sections[] = {
    { "model", "The base model. It stays frozen where `trainable` does not say otherwise." },
    { "summary", "The summary tokens and the compression pass." },
    { "method", "What is trained for. Each key is an ablation of the paper." },
    { "trainable", "What is trained beside the summary tokens." },
    { "lora", "The adapters, where `trainable.language_model` is `lora`." },
    { "data",
      "Where samples come from. A source is `{path: FILE}` or `{path: FILE, images: FOLDER}`." },
    { "sampler", "How batches are made." },
    { "train", "Optimiser, schedule, precision and memory." },
    { "run", "What a run writes, and where." },
};

const char *f2bi_section_help(const char *section)
{
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
        if (strcmp(sections[i].name, section) == 0) return sections[i].help;
    return NULL;
}

int f2bi_field_find(const char *name)
{
    for (int i = 0; i < f2bi_n_fields; i++)
        if (strcmp(f2bi_fields[i].name, name) == 0) return i;
    return -1;
}

int f2bi_section_find(const char *section)
{
    const size_t n = strlen(section);
    for (int i = 0; i < f2bi_n_fields; i++)
        if (strncmp(f2bi_fields[i].name, section, n) == 0 && f2bi_fields[i].name[n] == '.')
            return i;
    return -1;
}
