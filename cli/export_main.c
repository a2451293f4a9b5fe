/* f2b-export: a checkpoint in the form of other tools, proven to work. */
#include <jansson.h>
#include <stdio.h>

#include "cli/exit_codes.h"
#include "cli/options.h"
#include "infer/export_model.h"

/* Where it lies, and by how much each stage's output changed with it. */
static f2b_status print(const char *out, const f2b_export_proof *proof)
{
    json_t *results = json_pack("{s:s, s:I, s:{s:f, s:f}}", "out", out, "tensors",
                                (json_int_t)proof->tensors, "changes", "compression",
                                proof->compression, "generation", proof->generation);
    if (results == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for the results");
    json_dumpf(results, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(results);
    return F2B_OK;
}

int main(int argc, char **argv)
{
    const char *checkpoint = NULL, *format = NULL, *out = NULL, *model = NULL, *vision = NULL;
    const f2b_option options[] = {
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &checkpoint, "a run or one of its checkpoints",
          .required = true },
        { "format", "peft", F2B_OPTION_CHOICE, &format, "adapters for Hugging Face PEFT",
          .required = true },
        { "out", "DIR", F2B_OPTION_TEXT, &out, "folder to write; an earlier export is replaced",
          .required = true },
        { "model", "DIR", F2B_OPTION_TEXT, &model, "base model, where the run's has moved" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &vision, "CLIP folder of a base without tower" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-export", .options = options,
        .summary = "Writes what was trained for other tools, reads it back, and proves that it "
                   "changes what the model computes.",
        .notes = "DIR/compression and DIR/generation are PEFT folders; beside them lie f2b.json,\n"
                 "summary_tokens.safetensors and, where more was trained, trained.safetensors.\n",
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    f2b_export_proof proof;
    const f2b_status status =
        f2b_export_model(checkpoint, out, model, vision, arguments.device, &proof);
    return f2b_exit_with(command.name, status == F2B_OK ? print(out, &proof) : status);
}
