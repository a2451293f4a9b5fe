/* f2b-answer: answers questions on an image file or a stored image: one, many, or as a chat. */
#include <string.h>
#include <unistd.h>

#include "cli/answer_tasks.h"
#include "cli/exit_codes.h"

static f2b_status usage(const char *text)
{
    return f2b_fail(F2B_ERR_USAGE, "%s", text);
}

/* What does not go together is refused, not ignored. */
static f2b_status check_usage(f2b_answer_settings *s)
{
    if (s->arguments.n_operands > 0 && s->question != NULL)
        return usage("the question is given twice, with --question and without");
    if (s->arguments.n_operands > 0) s->question = s->arguments.operands[0];
    const int ways = (s->question != NULL) + (s->questions != NULL) + s->chat;
    if (ways > 1) return usage("one question, --questions FILE or --chat: choose one of them");
    if (ways == 0 && !isatty(STDIN_FILENO))
        return usage("no question is given: name one, or --questions FILE; --chat reads them line "
                     "by line from the standard input");
    s->chat = s->question == NULL && s->questions == NULL;
    if (s->image != NULL && s->store_path != NULL)
        return usage("--image and --store: choose one of them");
    if (s->id != NULL && s->store_path == NULL) return usage("--id needs --store");
    if (s->store_path != NULL && s->id == NULL && s->questions == NULL)
        return usage("--store needs --id, the image's name in the store");
    if (s->images != NULL && s->questions == NULL)
        return usage("--images is the folder for the images of --questions");
    if (s->store_path != NULL && s->tokens != NULL && strcmp(s->tokens, "compressed") != 0)
        return usage("a store holds compressed tokens; --tokens full and none need --image");
    if (s->temperature == 0 && (s->top_p != 1 || s->seed != 0))
        return usage("--top-p and --seed need a --temperature above 0, else answers are greedy");
    return F2B_OK;
}

static f2b_status run(f2b_answer_settings *s)
{
    F2B_TRY(check_usage(s));
    s->progress = f2b_progress_start(s->arguments.quiet);
    const f2b_status status = s->chat ? f2b_answer_conversation(s) : f2b_answer_questions(s);
    f2b_progress_end(&s->progress);
    f2b_store_close(s->store);
    f2b_trained_model_close(s->model);
    return status;
}

int main(int argc, char **argv)
{
    f2b_answer_settings s = { .choice = { .precision = "f32", .weights = "auto" },
                              .top_p = 1, .batch = 8, .max_new_tokens = 128 };
    const f2b_option options[] = {
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &s.choice.checkpoint,
          "what was trained: a run, one of its checkpoints, or an export (with --model)" },
        { "model", "DIR", F2B_OPTION_TEXT, &s.choice.model,
          "base model; a run knows its own, without --checkpoint the base alone answers" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &s.choice.vision,
          "CLIP folder of a base that lacks the tower" },
        { "image", "FILE", F2B_OPTION_TEXT, &s.image,
          "the image; without one the question stands alone" },
        { "store", "DIR", F2B_OPTION_TEXT, &s.store_path,
          "a store of f2b-compress, of the same checkpoint, in place of image files" },
        { "id", "ID", F2B_OPTION_TEXT, &s.id, "the image's name in the store" },
        { "question", "TEXT", F2B_OPTION_TEXT, &s.question, "the question, if not an operand" },
        { "questions", "FILE", F2B_OPTION_TEXT, &s.questions,
          "many questions, a JSON object a line (see below); - is the standard input" },
        { "images", "DIR", F2B_OPTION_TEXT, &s.images,
          "folder of the images that --questions names (where FILE lies)" },
        { "chat", NULL, F2B_OPTION_FLAG, &s.chat,
          "a conversation, a question a line; so too without question on a terminal" },
        { "tokens", "compressed|full|none", F2B_OPTION_CHOICE, &s.tokens,
          "what stands for the image: the K tokens (full for a base); all tokens and the base "
          "alone; nothing" },
        { "max-new-tokens", "N", F2B_OPTION_INT, &s.max_new_tokens, "length of an answer", 1, 1e6 },
        { "temperature", "T", F2B_OPTION_REAL, &s.temperature,
          "0: greedy; else answers are drawn", 0, 100 },
        { "top-p", "P", F2B_OPTION_REAL, &s.top_p,
          "draw from the likeliest tokens that together reach P", 1e-6, 1 },
        { "seed", "N", F2B_OPTION_INT, &s.seed,
          "of the draws: the same seed gives the same answers, whatever the batch", 0, 9e15 },
        { "batch", "N", F2B_OPTION_INT, &s.batch, "questions a forward pass", 1, 65536 },
        { "json", NULL, F2B_OPTION_FLAG, &s.json,
          "answers as JSON objects, as those of --questions always are" },
        { "precision", "f32|bf16", F2B_OPTION_CHOICE, &s.choice.precision, "arithmetic" },
        { "weights", "auto|f32|bf16|f16|int8|nf4", F2B_OPTION_CHOICE, &s.choice.weights,
          "storage of frozen weights; auto: as the files have them" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-answer",
        .options = options,
        .operands = "QUESTION",
        .max_operands = 1,
        .summary = "Answers questions on an image: one, a file of them, or as a chat.",
        .notes =
            "A line of --questions: {\"question\": \"What?\", \"image\": \"cat.jpg\"}; `text` may stand\n"
            "for `question`, `id` (with --store) for `image`. Without one that of the command line is asked about; null: none.\n"
            "Also question_id (else the question's number, from 0), history ([[question, answer],\n"
            "...], what was said before), category (not read). Answers come in order, in LLaVA's\n"
            "format.\n"
            "In a chat: /reset forgets what was said, /quit or Ctrl-D leaves, Ctrl-C stops the\n"
            "answer.\n",
    };
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &s.arguments, &exit_code)) return exit_code;
    return f2b_exit_with(command.name, run(&s));
}
