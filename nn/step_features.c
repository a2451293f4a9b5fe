/*
 * The images of a micro-batch where the tower's rows are kept between steps: only those that nobody
 * has seen yet go through the tower. A row's values do not depend on what else goes with it, so that
 * the step has the same bits either way.
 */
#include "nn/step_internal.h"

#include <string.h>

static size_t feature_bytes(const f2b_model *m)
{
    return (size_t)(f2b_image_tokens(&m->config) * m->config.vision.hidden) *
           f2b_dtype_size(m->compute);
}

/* In a rehearsal, without the bytes. */
static void *room(size_t bytes, bool rehearse)
{
    return rehearse ? f2b_alloc_counted(F2B_HOST, bytes, F2B_TAG_IMAGES)
                    : f2b_alloc_host(bytes, F2B_TAG_IMAGES);
}

/* Take what is at hand into features [n]; missing [n] receives the others' numbers. */
static f2b_status load(const f2b_model *m, const f2b_step_input *in, const int64_t *samples,
                       int64_t n, char *features, int64_t *missing, int64_t *n_missing)
{
    for (int64_t k = 0; k < n; k++) {
        bool found = false;
        F2B_TRY(in->load_features(in->context, samples[k],
                                  features + (size_t)k * feature_bytes(m), &found));
        if (!found) missing[(*n_missing)++] = k;
    }
    return F2B_OK;
}

/* The missing ones through the tower, into their places and to whoever keeps them. */
static f2b_status make(f2b_tape *tape, const f2b_model *m, const f2b_step_input *in,
                       const int64_t *samples, const int64_t *missing, int64_t n,
                       float *pixels, char *made, char *features, bool rehearse,
                       f2b_pass_frame *frame)
{
    const int64_t S = m->config.vision.image_size, size = 3 * S * S;
    const size_t bytes = feature_bytes(m);
    for (int64_t k = 0; k < n && !rehearse; k++)
        F2B_TRY(in->image(in->context, samples[missing[k]], pixels + k * size));
    f2b_tensor *rows = f2b_pass_features(tape, m, pixels, n, NULL, &in->settings, frame);
    if (rows == NULL) return f2b_last_status();
    const f2b_status status = rehearse ? F2B_OK : f2b_tensor_read(rows, made);
    f2b_tape_release(rows);
    F2B_TRY(status);
    for (int64_t k = 0; k < n && !rehearse; k++) {
        memcpy(features + (size_t)missing[k] * bytes, made + (size_t)k * bytes, bytes);
        in->store_features(in->context, samples[missing[k]], made + (size_t)k * bytes);
    }
    return F2B_OK;
}

static f2b_status make_missing(f2b_tape *tape, const f2b_model *m, const f2b_step_input *in,
                               const int64_t *samples, const int64_t *missing, int64_t n,
                               char *features, bool rehearse, f2b_pass_frame *frame)
{
    if (n == 0) return F2B_OK;
    const int64_t S = m->config.vision.image_size;
    float *pixels = room((size_t)(n * 3 * S * S) * sizeof *pixels, rehearse);
    char *made = room((size_t)n * feature_bytes(m), rehearse);
    const f2b_status status = pixels != NULL && made != NULL
        ? make(tape, m, in, samples, missing, n, pixels, made, features, rehearse, frame)
        : F2B_ERR_MEMORY;
    f2b_free(pixels);
    f2b_free(made);
    return status;
}

f2b_tensor *f2bi_step_features(f2b_tape *tape, const f2b_model *m, const f2b_step_input *in,
                               const int64_t *samples, int64_t n, bool rehearse,
                               f2b_pass_frame *frame)
{
    F2B_CHECK(!m->train_vision && m->method.forward != F2B_FORWARD_SINGLE);
    const int64_t shape[] = { n * f2b_image_tokens(&m->config), m->config.vision.hidden };
    char *features = room((size_t)n * feature_bytes(m), rehearse);
    int64_t *missing = f2b_calloc((size_t)n, sizeof *missing, F2B_TAG_OTHER), n_missing = 0;
    f2b_status status = features != NULL && missing != NULL ? F2B_OK : F2B_ERR_MEMORY;
    if (status == F2B_OK) status = load(m, in, samples, n, features, missing, &n_missing);
    if (status == F2B_OK)
        status = make_missing(tape, m, in, samples, missing, n_missing, features, rehearse, frame);
    f2b_tensor *rows = status == F2B_OK
        ? f2b_tape_tensor_from(tape, m->compute, 2, shape, features) : NULL;
    f2b_free(features);
    f2b_free(missing);
    return rows != NULL ? f2b_pass_project(tape, m, rows) : NULL;
}
