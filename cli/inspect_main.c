/* f2b-inspect: what is in a file or folder, and pictures of what was learned. */
#include <string.h>

#include "cli/exit_codes.h"
#include "cli/inspect_tasks.h"

/* What the program is asked to do; each takes options of its own, and operands or none. */
enum { REPORT = 1, NORMS = 2, PLOT = 4, ATTENTION = 8 };

static int task_of(const f2b_inspect_settings *s)
{
    return s->attention != NULL ? ATTENTION : s->plot != NULL ? PLOT : s->lora_norms ? NORMS
                                                                                     : REPORT;
}

/* What the task would ignore is refused, and so is what it lacks. */
static f2b_status check(const f2b_inspect_settings *s, int task)
{
    const struct {
        const char *name;
        bool given;
        int takes, needs;
    } rules[] = {
        { "attention", s->attention != NULL, ATTENTION, 0 },
        { "plot", s->plot != NULL, PLOT, 0 },
        { "lora-norms", s->lora_norms, NORMS, 0 },
        { "json", s->json, REPORT | NORMS, 0 },
        { "verify", s->verify, REPORT, 0 },
        { "norms", s->norms, REPORT, 0 },
        { "limit", s->limit != 0, REPORT, 0 },
        { "svg", s->svg != NULL, NORMS, 0 },
        { "smooth", s->smooth != 1, PLOT, 0 },
        { "image", s->image != NULL, ATTENTION, ATTENTION },
        { "checkpoint", s->checkpoint != NULL, ATTENTION, 0 },
        { "model", s->model != NULL, ATTENTION, 0 },
        { "vision-path", s->vision != NULL, ATTENTION, 0 },
        { "question", s->question != NULL, ATTENTION, 0 },
        { "layer", s->layer != -1, ATTENTION, 0 },
    };
    static const char *const names[] = { [REPORT] = "a report", [NORMS] = "--lora-norms",
                                         [PLOT] = "--plot", [ATTENTION] = "--attention" };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].given && !(rules[i].takes & task))
            return f2b_fail(F2B_ERR_USAGE, "%s does not take --%s", names[task], rules[i].name);
        if (!rules[i].given && (rules[i].needs & task))
            return f2b_fail(F2B_ERR_USAGE, "%s needs --%s", names[task], rules[i].name);
    }
    const int n = s->arguments.n_operands;
    if (task == ATTENTION && n > 0)
        return f2b_fail(F2B_ERR_USAGE, "--attention takes no %s: name the run with --checkpoint",
                        s->arguments.operands[0]);
    if (task == PLOT && n == 0) return f2b_fail(F2B_ERR_USAGE, "--plot needs a run, or several");
    if (task & (REPORT | NORMS) && n != 1)
        return f2b_fail(F2B_ERR_USAGE, "name one file or folder to inspect, not %d", n);
    return F2B_OK;
}

static f2b_status run(const f2b_inspect_settings *s)
{
    const int task = task_of(s);
    F2B_TRY(check(s, task));
    switch (task) {
    case ATTENTION: return f2b_inspect_run_attention(s);
    case PLOT: return f2b_inspect_run_plot(s);
    case NORMS: return f2b_inspect_run_lora_norms(s);
    default: return f2b_inspect_run_report(s);
    }
}

int main(int argc, char **argv)
{
    f2b_inspect_settings s = { .layer = -1, .smooth = 1, .precision = "f32" };
    const f2b_option options[] = {
        { "json", NULL, F2B_OPTION_FLAG, &s.json, "one JSON object" },
        { "verify", NULL, F2B_OPTION_FLAG, &s.verify, "check every checksum; exit 3 names damage" },
        { "norms", NULL, F2B_OPTION_FLAG, &s.norms, "Frobenius norm of every tensor (reads all)" },
        { "limit", "N", F2B_OPTION_INT, &s.limit, "list only the first N tensors; 0: all", 0,
          1e15 },
        { "lora-norms", NULL, F2B_OPTION_FLAG, &s.lora_norms,
          "norm of s B A of each adapted linear in both stages, instead of the report" },
        { "svg", "FILE", F2B_OPTION_TEXT, &s.svg, "lora-norms: draw them, too" },
        { "plot", "OUT.svg", F2B_OPTION_TEXT, &s.plot, "draw the losses of the runs named" },
        { "smooth", "N", F2B_OPTION_INT, &s.smooth, "plot: mean over the last N values", 1, 1e9 },
        { "attention", "OUT.svg", F2B_OPTION_TEXT, &s.attention,
          "draw what summary tokens see of an image, and the answer of them" },
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &s.checkpoint,
          "attention: a run, one of its checkpoints, or an export (with --model)" },
        { "model", "DIR", F2B_OPTION_TEXT, &s.model,
          "attention: base model; a run knows its own, without --checkpoint the base alone" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &s.vision,
          "attention: CLIP folder of a base that lacks the tower" },
        { "image", "FILE", F2B_OPTION_TEXT, &s.image, "attention: the picture" },
        { "question", "TEXT", F2B_OPTION_TEXT, &s.question, "attention: what to ask about it" },
        { "layer", "N", F2B_OPTION_INT, &s.layer, "attention: layer from 0; -1 is the last", -1,
          1e6 },
        { "precision", "f32|bf16", F2B_OPTION_CHOICE, &s.precision, "attention: arithmetic" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-inspect", .options = options, .operands = "FILE|DIR",
        .summary = "What is in a run, checkpoint, export, store, PEFT or model folder, safetensors "
                   "or GGUF file; pictures of what was learned.",
        .notes = "f2b-inspect PATH                               the report\n"
                 "f2b-inspect --lora-norms [--svg FILE] PATH     norms of adapters\n"
                 "f2b-inspect --plot OUT.svg RUN...              losses over each other\n"
                 "f2b-inspect --attention OUT.svg --checkpoint DIR --image FILE "
                 "[--question TEXT]\n",
    };
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &s.arguments, &exit_code)) return exit_code;
    return f2b_exit_with(command.name, run(&s));
}
