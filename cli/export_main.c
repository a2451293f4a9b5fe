/* f2b-export: a checkpoint in the form of other tools, proven to work. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/exit_codes.h"
#include "cli/options.h"
#include "infer/export_merged.h"
#include "infer/export_model.h"

typedef struct export_options {
    const char *checkpoint, *format, *out, *model, *vision, *stage, *names;
} export_options;

static f2b_status print(json_t *results)
{
    if (results == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for the results");
    json_dumpf(results, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(results);
    return F2B_OK;
}

static f2b_export_names names_of(const char *word)
{
    static const char *const words[] = { [F2B_EXPORT_NAMES_LLAVA] = "llava",
                                         [F2B_EXPORT_NAMES_LLAVA_4_52] = "llava-4.52",
                                         [F2B_EXPORT_NAMES_LLAMA] = "llama" };
    for (int i = F2B_EXPORT_NAMES_LLAVA; word != NULL && i <= F2B_EXPORT_NAMES_LLAMA; i++)
        if (strcmp(word, words[i]) == 0) return (f2b_export_names)i;
    return F2B_EXPORT_NAMES_OF_BASE;
}

/* Where it lies, and by how much each stage's output changed with it. */
static f2b_status adapters(const export_options *o, const f2b_arguments *arguments)
{
    const f2b_export_model_options export = {
        .from = o->checkpoint, .to = o->out, .model = o->model, .vision = o->vision,
        .form = strcmp(o->format, "gguf") == 0 ? F2B_EXPORT_GGUF : F2B_EXPORT_PEFT,
        .names = names_of(o->names), .device = arguments->device,
    };
    f2b_export_proof proof;
    F2B_TRY(f2b_export_model(&export, &proof));
    if (export.form == F2B_EXPORT_GGUF && proof.pre_norm && !arguments->quiet)
        fputs("f2b-export: note: summary.hidden_state is pre_norm, and llama.cpp gives hidden "
              "states after the final norm only: it can answer with generation.gguf from tokens "
              "that f2b-compress stored, but not compress\n", stderr);
    return print(json_pack("{s:s, s:I, s:{s:f, s:f}}", "out", o->out, "tensors",
                           (json_int_t)proof.tensors, "changes", "compression", proof.compression,
                           "generation", proof.generation));
}

static f2b_status merged(const export_options *o)
{
    const f2b_stage stage = o->stage == NULL || strcmp(o->stage, "none") == 0 ? F2B_STAGE_NONE
                            : strcmp(o->stage, "compression") == 0 ? F2B_STAGE_COMPRESSION
                                                                   : F2B_STAGE_GENERATION;
    const f2b_merge_options merge = { .from = o->checkpoint, .to = o->out, .model = o->model,
                                      .vision = o->vision, .stage = stage };
    f2b_merge_result result;
    F2B_TRY(f2b_export_merged(&merge, &result));
    return print(json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "out", o->out, "tensors",
                           (json_int_t)result.tensors, "merged", (json_int_t)result.merged, "files",
                           (json_int_t)result.files, "change", result.change, "output",
                           result.output, "rounding", result.rounding));
}

static f2b_status run(const export_options *o, const f2b_arguments *arguments)
{
    if (o->stage != NULL && strcmp(o->format, "merged") != 0)
        return f2b_fail(F2B_ERR_USAGE, "--format %s has both stages and takes no --stage",
                        o->format);
    if (o->names != NULL && strcmp(o->format, "peft") != 0)
        return f2b_fail(F2B_ERR_USAGE, "--format %s has names of its own and takes no --names",
                        o->format);
    return strcmp(o->format, "merged") == 0 ? merged(o) : adapters(o, arguments);
}

int main(int argc, char **argv)
{
    export_options o = { 0 };
    const f2b_option options[] = {
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &o.checkpoint, "a run or one of its checkpoints",
          .required = true },
        { "format", "peft|gguf|merged", F2B_OPTION_CHOICE, &o.format,
          "adapters for Hugging Face PEFT or for llama.cpp, or a whole Hugging Face folder",
          .required = true },
        { "out", "DIR", F2B_OPTION_TEXT, &o.out, "folder to write; an earlier export is replaced",
          .required = true },
        { "stage", "none|compression|generation", F2B_OPTION_CHOICE, &o.stage,
          "merged: whose adapter goes into the weights (none)" },
        { "names", "llava|llava-4.52|llama", F2B_OPTION_CHOICE, &o.names,
          "peft: how keys name the base's modules: llava (transformers before 4.52), llava-4.52 "
          "(4.52 and later), llama (a base without tower, haotian-liu's LLaVA class)" },
        { "model", "DIR", F2B_OPTION_TEXT, &o.model, "base model, where the run's has moved" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &o.vision, "CLIP folder of a base without tower" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-export", .options = options,
        .summary = "Writes what was trained for other tools, reads it back, and proves that it "
                   "changes what the model computes.",
        .notes = "peft: DIR/compression and DIR/generation are PEFT folders; beside them lie f2b.json,\n"
                 "summary_tokens.safetensors and, where more was trained, trained.safetensors.\n"
                 "gguf: DIR/compression.gguf and DIR/generation.gguf are LoRA adapters for a base that\n"
                 "llama.cpp converted; summary_tokens.gguf and f2b.json lie beside them.\n"
                 "merged: DIR is a model folder (config, tokenizer, safetensors), for model.path of\n"
                 "another run or for other tools.\n"
                 "DIR is made, or takes the place of an earlier export (a merged one of a merged\n"
                 "one); a folder with anything else in it is refused. Nothing is put in place that\n"
                 "did not prove itself.\n",
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    return f2b_exit_with(command.name, run(&o, &arguments));
}
