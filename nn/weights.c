/* See weights.h. */
#include "nn/weights.h"

#include "autograd/core/rng.h"

void f2b_init_fill(f2b_tensor *x, f2b_init init, uint64_t seed, const char *name)
{
    f2b_rng r = f2b_rng_new(seed, F2B_RNG_INIT, f2b_hash_text(name), 0, 0);
    const int64_t n = f2b_numel(x);
    const size_t size = f2b_dtype_size(x->dtype);
    for (int64_t i = 0; i < n; i++) {
        double v = init.value;
        if (init.kind == F2B_INIT_NORMAL) v = init.value * f2b_rng_normal(&r);
        if (init.kind == F2B_INIT_UNIFORM) v = init.value * (2.0 * (double)f2b_rng_uniform(&r) - 1.0);
        const float f = (float)v;       /* every storage type rounds the same f32 */
        f2b_convert((char *)x->data + (size_t)i * size, x->dtype, &f, F2B_F32, 1);
    }
}

static void frozen_free(f2b_tensor *t)
{
    f2b_free((char *)(uintptr_t)t->name);
    f2b_tensor_free(t);
}

static f2b_tensor *own(f2b_weight_builder *w, f2b_tensor *t, const char *name)
{
    if (t == NULL) return NULL;
    t->name = f2b_strdup(name, F2B_TAG_OTHER);
    if (t->name == NULL) {
        f2b_tensor_free(t);
        return NULL;
    }
    if (w->n_frozen == w->capacity) {
        const int64_t capacity = w->capacity ? 2 * w->capacity : 256;
        f2b_tensor **grown = f2b_realloc(w->frozen, (size_t)capacity * sizeof *grown, F2B_TAG_OTHER);
        if (grown == NULL) {
            frozen_free(t);
            return NULL;
        }
        w->frozen = grown, w->capacity = capacity;
    }
    return w->frozen[w->n_frozen++] = t;
}

static f2b_tensor *trained_copy(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                                f2b_init init, const void *data, f2b_dtype dtype, bool decay,
                                f2b_parameter_group group)
{
    f2b_tensor *t = f2b_tensor_new(w->device, w->master, ndim, shape, F2B_TAG_PARAMETERS);
    if (t == NULL) return NULL;
    if (data != NULL) f2b_convert(t->data, t->dtype, data, dtype, (size_t)f2b_numel(t));
    else f2b_init_fill(t, init, w->seed, name);
    return f2b_parameters_add(w->parameters, t, name, group, decay) == F2B_OK ? t : NULL;
}

f2b_tensor *f2b_weights_get(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                            f2b_init init, bool trained, f2b_parameter_group group)
{
    f2b_dtype dtype = w->storage;
    const void *data = NULL;
    if (w->file != NULL &&
        w->file->find(w->file->context, name, ndim, shape, &dtype, &data) != F2B_OK)
        return NULL;
    if (trained) return trained_copy(w, name, ndim, shape, init, data, dtype, ndim >= 2, group);
    if (data != NULL && dtype == w->storage)
        return own(w, f2b_tensor_borrow(w->device, dtype, ndim, shape, data), name);
    f2b_tensor *t = own(w, f2b_tensor_new(w->device, w->storage, ndim, shape, F2B_TAG_WEIGHTS), name);
    if (t == NULL) return NULL;
    if (data != NULL) f2b_convert(t->data, t->dtype, data, dtype, (size_t)f2b_numel(t));
    else f2b_init_fill(t, init, w->seed, name);
    return t;
}

f2b_tensor *f2b_weights_new(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                            f2b_init init, bool decay, f2b_parameter_group group)
{
    return trained_copy(w, name, ndim, shape, init, NULL, w->master, decay, group);
}

void f2b_weights_clear(f2b_weight_builder *w)
{
    for (int64_t i = 0; i < w->n_frozen; i++) frozen_free(w->frozen[i]);
    f2b_free(w->frozen);
    w->frozen = NULL, w->n_frozen = w->capacity = 0;
}
