/* Fingerprints of base models and of trained tensors. See fingerprint.h and model_folder.h. */
#include "checkpoints/fingerprint_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "autograd/core/alloc.h"

enum { WHOLE_BYTES = 64 << 10, BLOCKS = 8, BLOCK_BYTES = 4 << 10 };

struct f2bi_fingerprint {
    XXH3_state_t *state;
};

f2bi_fingerprint *f2bi_fingerprint_new(void)
{
    f2bi_fingerprint *hash = f2b_alloc_host(sizeof *hash, F2B_TAG_FILES);
    if (!hash) return NULL;
    hash->state = XXH3_createState();
    if (hash->state) {
        XXH3_128bits_reset(hash->state);
        return hash;
    }
    f2b_free(hash);
    (void)f2b_fail(F2B_ERR_MEMORY, "out of memory for a fingerprint");
    return NULL;
}

/* With its end, so that two texts in a row cannot be read as one. */
static void add_text(f2bi_fingerprint *hash, const char *text)
{
    XXH3_128bits_update(hash->state, text, strlen(text) + 1);
}

void f2bi_fingerprint_config(f2bi_fingerprint *hash, const f2b_model_config *c)
{
    const f2b_text_config *t = &c->text;
    const f2b_vision_config *v = &c->vision;
    char line[512];
    snprintf(line, sizeof line,
             "text %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
             " eps %.9g theta %.9g tied %d",
             t->hidden, t->intermediate, t->layers, t->heads, t->kv_heads, t->head_dim, t->vocab,
             t->rms_eps, t->rope_theta, t->tied_head);
    add_text(hash, line);
    if (!c->has_vision) return;
    snprintf(line, sizeof line,
             "vision %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
             " eps %.9g act %d features %" PRId64 " cls %d",
             v->hidden, v->intermediate, v->layers, v->heads, v->patch, v->image_size,
             v->layer_norm_eps, (int)v->activation, c->feature_layer, c->keep_cls);
    add_text(hash, line);
}

void f2bi_fingerprint_tensor(f2bi_fingerprint *hash, const char *name, const f2b_safetensor *tensor)
{
    char shape[F2B_SHAPE_TEXT];
    add_text(hash, name);
    add_text(hash, tensor->type);
    add_text(hash, f2b_shape_text(tensor->ndim, tensor->shape, shape));
    const uint8_t *data = tensor->data;
    if (tensor->bytes <= WHOLE_BYTES) {
        XXH3_128bits_update(hash->state, data, (size_t)tensor->bytes);
        return;
    }
    const int64_t last = tensor->bytes - BLOCK_BYTES;
    for (int64_t i = 0; i < BLOCKS; ++i)
        XXH3_128bits_update(hash->state, data + last / (BLOCKS - 1) * i + last % (BLOCKS - 1) * i
                                                  / (BLOCKS - 1), BLOCK_BYTES);
}

void f2bi_fingerprint_end(f2bi_fingerprint *hash, char text[F2B_FINGERPRINT_BYTES])
{
    const XXH128_hash_t h = XXH3_128bits_digest(hash->state);
    XXH3_freeState(hash->state);
    snprintf(text, F2B_FINGERPRINT_BYTES, "xxh3:%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64,
             (uint64_t)h.low64);
    f2b_free(hash);
}

static int compare_names(const void *a, const void *b)
{
    const f2b_named_array *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

f2b_status f2b_fingerprint_tensors(const f2b_named_array *tensors, int64_t n,
                                   char text[F2B_FINGERPRINT_BYTES])
{
    const f2b_named_array **sorted = f2b_calloc((size_t)n, sizeof *sorted, F2B_TAG_FILES);
    f2bi_fingerprint *hash = sorted ? f2bi_fingerprint_new() : NULL;
    if (!hash) {
        f2b_free(sorted);
        return f2b_last_status();
    }
    for (int64_t i = 0; i < n; ++i) sorted[i] = &tensors[i];
    qsort(sorted, (size_t)n, sizeof *sorted, compare_names);
    for (int64_t i = 0; i < n; ++i) {
        const f2b_named_array *t = sorted[i];
        char shape[F2B_SHAPE_TEXT];
        add_text(hash, t->name);
        add_text(hash, f2b_dtype_name(t->dtype));
        add_text(hash, f2b_shape_text(t->ndim, t->shape, shape));
        XXH3_128bits_update(hash->state, t->data, (size_t)f2b_named_array_bytes(t));
    }
    f2bi_fingerprint_end(hash, text);
    f2b_free(sorted);
    return F2B_OK;
}
