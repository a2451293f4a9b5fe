/* Checkpoint or export, one face. See trained_tensors.h for the contract. */
#include "checkpoints/trained_tensors.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/method_json.h"

struct f2b_trained {
    f2b_state_file *state; /* one of the two */
    f2b_export *export;
    char *path;
    int64_t step, n;
    f2b_method method;
    const char *base, *base_path, *vision_path;
    bool has_seed;
    uint64_t seed;
    float **values; /* [n] of a state's tensors, once read */
    bool *used;     /* [n] */
    const f2b_weight_file *under;
};

static f2b_status state_text(const f2b_state_file *state, const char *name, const char **out)
{
    f2b_attribute value;
    F2B_TRY(f2b_state_attribute(state, name, F2B_ATTRIBUTE_TEXT, &value));
    *out = value.text;
    return F2B_OK;
}

/* An attribute that need not be there. */
static const char *state_text_or_null(const f2b_state_file *state, const char *name)
{
    int64_t n;
    const f2b_attribute *all = f2b_state_attributes(state, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(all[i].name, name) == 0 && all[i].kind == F2B_ATTRIBUTE_TEXT &&
            all[i].text[0] != '\0')
            return all[i].text;
    return NULL;
}

static void read_seed(f2b_trained *f)
{
    int64_t n;
    const f2b_attribute *all = f2b_state_attributes(f->state, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(all[i].name, F2B_STATE_SEED) == 0 && all[i].kind == F2B_ATTRIBUTE_INTEGER)
            f->has_seed = true, f->seed = (uint64_t)all[i].integer;
}

static f2b_status open_state(f2b_trained *f, const char *path, f2b_state_notify *notify,
                             void *user)
{
    const char *method;
    f->state = f2b_state_open(path, notify, user);
    if (f->state == NULL) return f2b_last_status();
    f->path = f2b_strdup(f2b_state_path(f->state), F2B_TAG_FILES);
    if (f->path == NULL) return f2b_last_status();
    f->step = f2b_state_step(f->state);
    f->n = f2b_state_count(f->state);
    F2B_TRY(state_text(f->state, "method", &method));
    F2B_TRY(f2b_method_from_json(&f->method, method, f->path));
    f->base_path = state_text_or_null(f->state, F2B_STATE_BASE_PATH);
    f->vision_path = state_text_or_null(f->state, F2B_STATE_VISION_PATH);
    read_seed(f);
    return state_text(f->state, "base_model", &f->base);
}

static f2b_status open_export(f2b_trained *f, const char *path, const f2b_model_config *config)
{
    if (config == NULL)
        return f2b_fail(F2B_ERR_USAGE,
                        "%s is an export: name the folder of its base model with "
                        "--model DIR",
                        path);
    f->export = f2b_export_open(path, config);
    f->path = f->export != NULL ? f2b_strdup(path, F2B_TAG_FILES) : NULL;
    if (f->path == NULL) return f2b_last_status();
    const f2b_export_info *info = f2b_export_get_info(f->export);
    f->step = info->step;
    f->n = f2b_export_count(f->export);
    f->method = info->method;
    f->base = info->base_fingerprint;
    f->base_path = info->base_path;
    f->has_seed = info->base_drawn;
    f->seed = (uint64_t)info->base_seed;
    return F2B_OK;
}

f2b_trained *f2b_trained_open(const char *path, const f2b_model_config *config,
                                        f2b_state_notify *notify, void *user)
{
    f2b_trained *f = f2b_calloc(1, sizeof *f, F2B_TAG_FILES);
    if (f == NULL) return NULL;
    f2b_status status =
        f2b_export_is_one(path) ? open_export(f, path, config) : open_state(f, path, notify, user);
    if (status == F2B_OK) {
        f->values = f2b_calloc((size_t)f->n, sizeof *f->values, F2B_TAG_FILES);
        f->used = f2b_calloc((size_t)f->n, sizeof *f->used, F2B_TAG_FILES);
        if (f->values != NULL && f->used != NULL) return f;
    }
    f2b_trained_close(f);
    return NULL;
}

void f2b_trained_close(f2b_trained *f)
{
    if (f == NULL) return;
    for (int64_t i = 0; f->values != NULL && i < f->n; i++) f2b_free(f->values[i]);
    f2b_free(f->values);
    f2b_free(f->used);
    f2b_state_close(f->state);
    f2b_export_close(f->export);
    f2b_free(f->path);
    f2b_free(f);
}

const char *f2b_trained_path(const f2b_trained *f) { return f->path; }
int64_t f2b_trained_step(const f2b_trained *f) { return f->step; }
const f2b_method *f2b_trained_method(const f2b_trained *f) { return &f->method; }
const char *f2b_trained_base_fingerprint(const f2b_trained *f) { return f->base; }
const char *f2b_trained_base_path(const f2b_trained *f) { return f->base_path; }
const char *f2b_trained_vision_path(const f2b_trained *f) { return f->vision_path; }
int64_t f2b_trained_count(const f2b_trained *f) { return f->n; }

bool f2b_trained_seed(const f2b_trained *f, uint64_t *seed)
{
    *seed = f->seed;
    return f->has_seed;
}

static const f2b_named_array *entry(const f2b_trained *f, int64_t i)
{
    F2B_CHECK(i >= 0 && i < f->n);
    return f->state != NULL ? &f2b_state_at(f->state, i)->parameter : f2b_export_at(f->export, i);
}

const char *f2b_trained_name(const f2b_trained *f, int64_t i)
{
    return entry(f, i)->name;
}

static int64_t find(const f2b_trained *f, const char *name)
{
    if (f->state != NULL) return f2b_state_find(f->state, name);
    for (int64_t i = 0; i < f->n; i++)
        if (strcmp(entry(f, i)->name, name) == 0) return i;
    return -1;
}

bool f2b_trained_contains(const f2b_trained *f, const char *name)
{
    return find(f, name) >= 0;
}

f2b_status f2b_trained_at(f2b_trained *f, int64_t i, f2b_named_array *out)
{
    *out = *entry(f, i);
    if (f->state == NULL) return F2B_OK;
    if (f->values[i] == NULL) {
        float *values = f2b_alloc_host((size_t)f2b_named_array_bytes(out), F2B_TAG_FILES);
        if (values == NULL) return f2b_last_status();
        f->values[i] = values;
        const f2b_status status = f2b_state_read(f->state, i, values, NULL, NULL);
        if (status != F2B_OK) {
            f2b_free(values);
            f->values[i] = NULL;
            return status;
        }
    }
    out->data = f->values[i];
    return F2B_OK;
}

/* The i-th tensor, which the model wants in this shape. */
static f2b_status take(f2b_trained *f, int64_t i, int ndim, const int64_t *shape,
                       f2b_named_array *out)
{
    F2B_TRY(f2b_trained_at(f, i, out));
    if (!f2b_shape_equal(ndim, shape, out->ndim, out->shape)) {
        char have[F2B_SHAPE_TEXT], want[F2B_SHAPE_TEXT];
        return f2b_fail(F2B_ERR_FORMAT, "%s: %s has the shape %s, but the model's is %s", f->path,
                        out->name, f2b_shape_text(out->ndim, out->shape, have),
                        f2b_shape_text(ndim, shape, want));
    }
    f->used[i] = true;
    return F2B_OK;
}

/* ---- In the base's place ---- */

static f2b_status find_weight(void *context, const char *name, int ndim, const int64_t *shape,
                              f2b_dtype *dtype, const void **data)
{
    f2b_trained *f = context;
    const int64_t i = find(f, name);
    if (i >= 0) {
        f2b_named_array array;
        F2B_TRY(take(f, i, ndim, shape, &array));
        *dtype = array.dtype, *data = array.data;
        return F2B_OK;
    }
    if (f->under != NULL) return f->under->find(f->under->context, name, ndim, shape, dtype, data);
    *data = NULL;
    if (f->has_seed) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT,
                    "%s has no tensor %s, its base model has no weights, and the seed that they were "
                    "drawn from is not known; name a base with weights by --model DIR",
                    f->path, name);
}

static bool contains_weight(void *context, const char *name)
{
    const f2b_trained *f = context;
    return find(f, name) >= 0 || (f->under != NULL && f->under->contains(f->under->context, name));
}

static void release_weight(void *context, const void *data, int64_t bytes)
{
    const f2b_weight_file *under = ((f2b_trained *)context)->under;
    if (under != NULL && under->release != NULL) under->release(under->context, data, bytes);
}

f2b_weight_file f2b_trained_weights(f2b_trained *f, const f2b_weight_file *under)
{
    f->under = under;
    return (f2b_weight_file){ .find = find_weight, .contains = contains_weight,
                              .release = release_weight, .context = f };
}

/* ---- Into the registry ---- */

f2b_status f2b_trained_load(f2b_trained *f, f2b_parameters *parameters, bool complete)
{
    for (int64_t p = 0; p < parameters->n; p++) {
        f2b_tensor *t = parameters->items[p].tensor;
        const int64_t i = find(f, t->name);
        if (i < 0 && complete)
            return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is missing", f->path, t->name);
        if (i < 0) continue;
        f2b_named_array array;
        F2B_TRY(take(f, i, t->ndim, t->shape, &array));
        F2B_TRY(f2b_tensor_write_as(t, 0, array.data, array.dtype, f2b_numel(t)));
    }
    return F2B_OK;
}

f2b_status f2b_trained_check_used(const f2b_trained *f)
{
    for (int64_t i = 0; i < f->n; i++)
        if (!f->used[i])
            return f2b_fail(F2B_ERR_FORMAT,
                            "%s: tensor %s has no place in this model; where it is of the base, "
                            "export it with --format merged and use that folder as the base",
                            f->path, entry(f, i)->name);
    return F2B_OK;
}
