/* f2b-eval: measures a trained model, or its base. Results are one JSON object on stdout. */
#include <stdio.h>
#include <string.h>

#include "cli/eval_tasks.h"
#include "cli/exit_codes.h"

/* Which task takes an option, and which needs it: what a task would ignore is refused. */
enum { VQA = 1, RETRIEVAL = 2, NLL = 4 };

static f2b_status check_options(f2b_eval_settings *s, int task)
{
    const struct {
        const char *name, *value;
        int takes, needs;
    } rules[] = {
        { "checkpoint", s->checkpoint, VQA | RETRIEVAL, 0 },
        { "model", s->model, VQA | RETRIEVAL | NLL, NLL },
        { "data", s->data, VQA | RETRIEVAL, VQA | RETRIEVAL },
        { "images", s->images, VQA | RETRIEVAL, 0 },
        { "tokens", s->tokens, VQA, 0 },
        { "use-tokens", s->use_tokens, VQA | RETRIEVAL, 0 },
        { "mask-tokens", s->mask_tokens, VQA | RETRIEVAL, 0 },
        { "out", s->out, VQA, 0 },
        { "text", s->text, NLL, NLL },
        { "logits", s->logits, NLL, 0 },
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].value != NULL && !(rules[i].takes & task))
            return f2b_fail(F2B_ERR_USAGE, "--task %s does not take --%s", s->task, rules[i].name);
        if (rules[i].value == NULL && (rules[i].needs & task))
            return f2b_fail(F2B_ERR_USAGE, "--task %s needs --%s", s->task, rules[i].name);
    }
    return f2b_eval_read_choice(s);
}

static f2b_status run(f2b_eval_settings *s)
{
    static const struct {
        const char *name;
        int task;
        json_t *(*run)(f2b_eval_settings *);
    } tasks[] = {
        { "vqa", VQA, f2b_eval_vqa },
        { "retrieval", RETRIEVAL, f2b_eval_retrieval },
        { "nll", NLL, f2b_eval_nll },
    };
    size_t i = 0;
    while (strcmp(tasks[i].name, s->task) != 0) i++; /* the parser let only these through */
    F2B_TRY(check_options(s, tasks[i].task));
    s->progress = f2b_progress_start(s->arguments.quiet);
    json_t *results = tasks[i].run(s);
    f2b_progress_end(&s->progress);
    if (results == NULL) return f2b_last_status();
    json_dumpf(results, stdout, JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(results);
    return F2B_OK;
}

int main(int argc, char **argv)
{
    f2b_eval_settings s = { .batch = 16,
                            .max_new_tokens = 128,
                            .max_caption_length = 77,
                            .precision = "f32",
                            .weights = "auto" };
    const f2b_option options[] = {
        { "task", "vqa|retrieval|nll", F2B_OPTION_CHOICE, &s.task,
          "answers to questions on images; recall between images and captions; likelihood of text",
          .required = true },
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &s.checkpoint,
          "what was trained: a run, one of its checkpoints, or an export (with --model)" },
        { "model", "DIR", F2B_OPTION_TEXT, &s.model,
          "base model; a run knows its own, without --checkpoint the base alone is measured" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &s.vision,
          "CLIP folder of a base that lacks the tower" },
        { "data", "FILE", F2B_OPTION_TEXT, &s.data,
          "vqa: LLaVA JSON; retrieval: TSV, LLaVA JSON, COCO captions, tar shards" },
        { "images", "DIR", F2B_OPTION_TEXT, &s.images, "folder of the images (where FILE lies)" },
        { "tokens", "compressed|full|none", F2B_OPTION_CHOICE, &s.tokens,
          "vqa: the K tokens (default); all tokens and the base alone; no image" },
        { "use-tokens", "FROM:TO", F2B_OPTION_TEXT, &s.use_tokens,
          "vqa, retrieval: only these of the K tokens, TO not included: 0:8 is the first eight" },
        { "mask-tokens", "FROM:TO", F2B_OPTION_TEXT, &s.mask_tokens,
          "vqa, retrieval: leave these of the K tokens out" },
        { "out", "FILE", F2B_OPTION_TEXT, &s.out, "vqa: answers, a JSON object a line" },
        { "text", "FILE", F2B_OPTION_TEXT, &s.text, "nll: the text" },
        { "logits", "FILE.npy", F2B_OPTION_TEXT, &s.logits,
          "nll: write the logits of every row, the start token's first" },
        { "limit", "N", F2B_OPTION_INT, &s.limit, "only the first N records; 0: all", 0, 1e15 },
        { "batch", "N", F2B_OPTION_INT, &s.batch, "images, captions or questions a forward pass", 1,
          65536 },
        { "max-new-tokens", "N", F2B_OPTION_INT, &s.max_new_tokens, "vqa: length of an answer", 1,
          1e6 },
        { "max-caption-length", "N", F2B_OPTION_INT, &s.max_caption_length,
          "retrieval: ids of a caption, as data.max_caption_length", 1, 1e6 },
        { "precision", "f32|bf16", F2B_OPTION_CHOICE, &s.precision, "arithmetic" },
        { "weights", "auto|f32|bf16|f16|int8|nf4", F2B_OPTION_CHOICE, &s.weights,
          "storage of frozen weights; auto: as the files have them" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-eval",
        .options = options,
        .summary = "Measures a trained model or its base; prints one JSON object.",
        .notes = "vqa: an answer is right if it equals the file's after white space around and\n"
                 "dots at the end are removed, whatever the case of its letters.\n"
                 "nll: text longer than the model's context is cut into chunks of\n"
                 "max_positions - 1 ids, each behind a start token of its own.\n",
    };
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &s.arguments, &exit_code)) return exit_code;
    return f2b_exit_with(command.name, run(&s));
}
