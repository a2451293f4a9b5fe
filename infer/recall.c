/* Recall from embeddings: f2b_retrieval_recall of evaluate.h. */
#include <inttypes.h>

#include "autograd/core/alloc.h"
#include "autograd/core/tape.h"
#include "autograd/ops/linear/linear.h"
#include "infer/evaluate.h"
#include "infer/unit_row.h"

enum { BLOCK = 256 }; /* queries whose similarities are there at a time */

typedef struct recall_run {
    const int64_t *image_of; /* [captions] */
    bool to_images;          /* queries are captions, items images; or the other way round */
    int64_t hits[3];
} recall_run;

/* Rows scaled to length 1, so that products are cosines; a row of zeros stays one. */
static f2b_tensor *normalised(const f2b_tensor *x)
{
    const int64_t rows = x->shape[0], d = x->shape[1];
    f2b_tensor *y = f2b_tensor_new(F2B_HOST, F2B_F32, 2, x->shape, F2B_TAG_ACTIVATIONS);
    if (y == NULL) return NULL;
    f2b_convert(y->data, F2B_F32, x->data, x->dtype, (size_t)(rows * d));
    for (int64_t i = 0; i < rows; i++)
        if (!f2b_unit_row((float *)y->data + i * d, d)) {
            f2b_tensor_free(y);
            (void)f2b_fail(F2B_ERR_NUMBERS, "embedding %" PRId64 " is not finite", i);
            return NULL;
        }
    return y;
}

static bool is_right(const recall_run *r, int64_t query, int64_t item)
{
    return r->to_images ? r->image_of[query] == item : r->image_of[item] == query;
}

/* How many of n items come before the best right one; of equal ones the lower index comes first. */
static int64_t rank_of_right(const recall_run *r, int64_t query, const float *similarity, int64_t n)
{
    int64_t best = -1, before = 0;
    for (int64_t i = 0; i < n; i++)
        if (is_right(r, query, i) && (best < 0 || similarity[i] > similarity[best])) best = i;
    for (int64_t i = 0; i < n; i++)
        before +=
            similarity[i] > similarity[best] || (similarity[i] == similarity[best] && i < best);
    return before;
}

static f2b_status score_block(recall_run *r, f2b_tape *tape, f2b_tensor *queries, f2b_tensor *items,
                              int64_t first, int64_t n)
{
    static const int64_t depths[] = { 1, 5, 10 };
    const int64_t d = queries->shape[1], N = items->shape[0];
    f2b_tensor *x = f2b_tape_tensor_from(tape, F2B_F32, 2, (int64_t[]){ n, d },
                                         (const float *)queries->data + first * d);
    f2b_tensor *s = f2b_linear(tape, x, items, NULL);
    if (s == NULL) return f2b_last_status();
    for (int64_t i = 0; i < n; i++) {
        const int64_t rank = rank_of_right(r, first + i, (const float *)s->data + i * N, N);
        for (int k = 0; k < 3; k++) r->hits[k] += rank < depths[k];
    }
    f2b_tape_reset(tape);
    return F2B_OK;
}

static f2b_status score(const int64_t *image_of, bool to_images, f2b_tensor *queries,
                        f2b_tensor *items, f2b_recall *recall)
{
    recall_run r = { .image_of = image_of, .to_images = to_images };
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_status status = tape != NULL ? F2B_OK : f2b_last_status();
    const int64_t Q = queries->shape[0];
    for (int64_t i = 0; status == F2B_OK && i < Q; i += BLOCK)
        status = score_block(&r, tape, queries, items, i, Q - i < BLOCK ? Q - i : BLOCK);
    f2b_tape_free(tape);
    *recall = (f2b_recall){ (double)r.hits[0] / (double)Q, (double)r.hits[1] / (double)Q,
                            (double)r.hits[2] / (double)Q };
    return status;
}

static f2b_status check_pairs(const f2b_tensor *images, const f2b_tensor *captions,
                              const int64_t *image_of)
{
    if (images->ndim != 2 || captions->ndim != 2 || images->shape[1] != captions->shape[1] ||
        images->shape[0] < 1 || captions->shape[0] < 1)
        return f2b_fail(F2B_ERR_SHAPE, "retrieval: images %s and captions %s do not fit",
                        f2b_tensor_describe(images), f2b_tensor_describe(captions));
    const int64_t n = images->shape[0];
    bool *seen = f2b_calloc((size_t)n, sizeof *seen, F2B_TAG_OTHER);
    f2b_status status = seen != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < captions->shape[0]; i++) {
        if (image_of[i] >= 0 && image_of[i] < n) seen[image_of[i]] = true;
        else
            status =
                f2b_fail(F2B_ERR_DATA, "caption %" PRId64 " is of image %" PRId64 " of %" PRId64, i,
                         image_of[i], n);
    }
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        if (!seen[i]) status = f2b_fail(F2B_ERR_DATA, "image %" PRId64 " has no caption", i);
    f2b_free(seen);
    return status;
}

f2b_status f2b_retrieval_recall(f2b_tensor *images, f2b_tensor *captions, const int64_t *image_of,
                                f2b_retrieval_result *result)
{
    F2B_TRY(check_pairs(images, captions, image_of));
    f2b_tensor *e = normalised(images), *t = e != NULL ? normalised(captions) : NULL;
    f2b_status status = t != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) status = score(image_of, false, e, t, &result->image_to_text);
    if (status == F2B_OK) status = score(image_of, true, t, e, &result->text_to_image);
    result->images = images->shape[0], result->captions = captions->shape[0];
    f2b_tensor_free(e);
    f2b_tensor_free(t);
    return status;
}
