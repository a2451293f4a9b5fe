/*
 * Two growing arrays that tokenizer and prompts fill: token ids and text. Zero-initialise, append,
 * free. Memory comes from the tagged allocator, so an array can be handed on and freed with
 * f2b_free.
 */
#ifndef F2B_DATA_TOKENIZER_BUFFERS_H
#define F2B_DATA_TOKENIZER_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

#include "autograd/core/status.h"

typedef struct f2b_ids {
    int32_t *ids;               /* [n], NULL while nothing was appended */
    int64_t n, capacity;
} f2b_ids;

typedef struct f2b_text {
    char *text;                 /* [n] bytes and a closing NUL; NULL while nothing was appended */
    size_t n, capacity;
} f2b_text;

/** Append one id; append n ids. F2B_ERR_MEMORY leaves the array as it was. */
F2B_MUST_USE f2b_status f2b_ids_push(f2b_ids *array, int32_t id);
F2B_MUST_USE f2b_status f2b_ids_append(f2b_ids *array, const int32_t *ids, int64_t n);

/** Append `bytes` bytes; append a NUL-terminated text. F2B_ERR_MEMORY leaves the text as it was. */
F2B_MUST_USE f2b_status f2b_text_append(f2b_text *text, const char *bytes, size_t n);
F2B_MUST_USE f2b_status f2b_text_add(f2b_text *text, const char *more);

/** Free what is held and make it empty again. */
void f2b_ids_free(f2b_ids *array);
void f2b_text_free(f2b_text *text);

#endif
