/*
 * A conversation about an image, question by question. Keys and values of what was read stay: a
 * question costs only its own rows, as far as the new prompt begins with the same ids as what was
 * read (where decoding and tokenising an answer again gives other ids, the rest is read anew). So
 * an answer has the same ids as the whole conversation asked at once.
 */
#ifndef F2B_INFER_CHAT_H
#define F2B_INFER_CHAT_H

#include "infer/answer.h"

typedef struct f2b_chat f2b_chat;

/** rows: of one image, by f2b_answerer_images; NULL: a chat without image. Both are borrowed. */
f2b_chat *f2b_chat_new(const f2b_answerer *answerer, f2b_tensor *rows);
void f2b_chat_free(f2b_chat *chat);

/** Forget what was said. */
void f2b_chat_reset(f2b_chat *chat);

/** What came of a question. {0} is empty. */
typedef struct f2b_chat_reply {
    f2b_ids ids;                /* without eos */
    char *text;                 /* stripped */
    int64_t prompt_rows, image_rows;    /* of the conversation up to here; of them the image's */
    int64_t read_rows, read_image_rows; /* of them those that were read for this answer */
    bool stopped;               /* options->stop ended it */
} f2b_chat_reply;
void f2b_chat_reply_clear(f2b_chat_reply *reply);

/**
 * Ask, with all that was said before. Question and answer become part of the conversation, also
 * where `stop` cut the answer short (F2B_OK, reply->stopped); not where the answer is blank, or on
 * an error. options: stage is not read; sampling draws by the number of the question.
 *
 * errors  F2B_ERR_DATA: a blank question, or one that no prompt can hold (prompt.h); the
 *         conversation does not fit the model's context; those of f2b_generate.
 */
f2b_status f2b_chat_ask(f2b_chat *chat, const char *question, const f2b_generate_options *options,
                        f2b_chat_reply *reply) F2B_MUST_USE;

#endif
