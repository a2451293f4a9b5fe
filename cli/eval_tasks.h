/* The tasks of f2b-eval: each has its file, cli/eval_<task>.c. */
#ifndef F2B_CLI_EVAL_TASKS_H
#define F2B_CLI_EVAL_TASKS_H

#include <jansson.h>
#include <stdio.h>

#include "cli/options.h"
#include "cli/progress.h"
#include "infer/evaluate.h"
#include "infer/trained_model.h"

/** What the command line asked for. Texts are NULL where nothing was given. */
typedef struct f2b_eval_settings {
    const char *task, *checkpoint, *model, *vision, *data, *images, *tokens, *out, *text, *logits;
    const char *use_tokens, *mask_tokens;       /* "FROM:TO" */
    f2b_token_choice choice;                    /* what they say */
    const char *precision, *weights;
    int64_t limit, batch, max_new_tokens, max_caption_length;
    f2b_arguments arguments;
    f2b_progress progress;
    int64_t notes;              /* records left out that were shown */
    FILE *answers;              /* of --out, while vqa runs */
    const char *model_id;       /* likewise */
} f2b_eval_settings;

/** Run the task and return its results, a new reference; NULL on error. */
json_t *f2b_eval_vqa(f2b_eval_settings *s);
json_t *f2b_eval_retrieval(f2b_eval_settings *s);
json_t *f2b_eval_nll(f2b_eval_settings *s);

/** Open the model that was asked for. NULL on error. */
f2b_trained_model *f2b_eval_open_model(f2b_eval_settings *s, bool text_only);

/** Open --data, with its images. NULL on error. */
f2b_source *f2b_eval_open_data(const f2b_eval_settings *s, f2b_source_role role);

/** Read --use-tokens and --mask-tokens into s->choice. F2B_ERR_USAGE. */
f2b_status f2b_eval_read_choice(f2b_eval_settings *s) F2B_MUST_USE;

/** Put both into the results, as they were given. `results` may be NULL. */
void f2b_eval_tell_choice(const f2b_eval_settings *s, json_t *results);

/** Hooks that show progress and the first records that were left out. */
f2b_evaluate_hooks f2b_eval_hooks(f2b_eval_settings *s);

/** The object as it is, or NULL with F2B_ERR_MEMORY where jansson could not make it. */
json_t *f2b_eval_object(json_t *object);

#endif
