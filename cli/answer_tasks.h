/* What the files of f2b-answer share: settings, images, printing, and its two ways of asking. */
#ifndef F2B_CLI_ANSWER_TASKS_H
#define F2B_CLI_ANSWER_TASKS_H

#include <jansson.h>

#include "checkpoints/store.h"
#include "cli/model_choice.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "infer/answer.h"

/** Seconds of each stage, and what was read and written meanwhile. */
typedef struct f2b_answer_costs {
    double model, image, prompt, answer;
    int64_t questions, visual_rows, other_rows, tokens;
} f2b_answer_costs;

/** What the command line asked for (texts are NULL where nothing was given), and what it opened. */
typedef struct f2b_answer_settings {
    f2b_model_choice choice;
    const char *image, *store_path, *id, *question, *questions, *images, *tokens;
    bool chat, json;
    double temperature, top_p;
    int64_t seed, batch, max_new_tokens;
    f2b_arguments arguments;
    f2b_progress progress;
    f2b_trained_model *model;
    f2b_store *store;           /* of store_path */
    f2b_answerer answerer;
    f2b_answer_costs costs;
} f2b_answer_settings;

/** Open what was asked for: model, answerer and, where one is named, store. */
f2b_status f2b_answer_open(f2b_answer_settings *s) F2B_MUST_USE;

/** One question, or those of a file, in groups of `batch`. */
f2b_status f2b_answer_questions(f2b_answer_settings *s) F2B_MUST_USE;

/** Questions from the terminal, or line by line from stdin, each with what was said before. */
f2b_status f2b_answer_conversation(f2b_answer_settings *s) F2B_MUST_USE;

/**
 * What stands for n images, named by files or, with a store, by ids: one leaf for f2b_tensor_free.
 * *rows is NULL where no image is read (--tokens none) or n is 0.
 * failed  receives the number of the image that an error is about.
 */
f2b_status f2b_answer_images(f2b_answer_settings *s, const char *const *names, int64_t n,
                             f2b_tensor **rows, int64_t *failed) F2B_MUST_USE;

/**
 * Watches answers while they are made, as `token` of the generate options: counts, notes the first
 * token's time and which answers ended by themselves, and writes one answer out as it comes.
 */
typedef struct f2b_answer_watch {
    f2b_answer_settings *settings;
    bool *ended;                /* [n] */
    bool stream;                /* there is one answer: write its text to stdout */
    double started, first;      /* first: 0 before the first token */
    int64_t tokens;
    f2b_decoder decoder;        /* of the stream, */
    f2b_text text;              /* what came so far, */
    size_t shown;               /* how much of it is written or was white space at the beginning */
} f2b_answer_watch;

f2b_answer_watch f2b_answer_watch_start(f2b_answer_settings *s, bool *ended, bool stream);
/** Add the stages' times to the costs, end the streamed line, free. */
f2b_status f2b_answer_watch_end(f2b_answer_watch *watch) F2B_MUST_USE;

/** The generate options that were asked for, with the watch. */
f2b_generate_options f2b_answer_options(f2b_answer_watch *watch);

/** One answered question; borrowed. */
typedef struct f2b_answered {
    json_t *question_id;        /* NULL: none */
    const char *question, *image, *text;        /* image NULL: without */
    const f2b_ids *ids;
    int64_t image_rows, prompt_rows;
    bool ended;                 /* by eos */
    const f2b_answer_costs *costs;      /* NULL: not told */
} f2b_answered;

/** Write it as a JSON object on a line of stdout. */
f2b_status f2b_answer_print_json(const f2b_answer_settings *s, const f2b_answered *a) F2B_MUST_USE;

/** A line on stderr: visual tokens read, and the time of each stage. */
void f2b_answer_tell_costs(f2b_answer_settings *s, const f2b_answer_costs *costs);

#endif
