/* See trained_tensors.h. */
#include "checkpoints/trained_tensors.h"

#include "checkpoints/method_json.h"

struct f2b_trained {
    char *path;
    f2b_state_file *state;      /* one of the two */
    f2b_export *export_;
    f2b_method method;
    const char *fingerprint, *base_path;
};

static f2b_status text_attribute(const f2b_state_file *state, const char *name, const char **text)
{
    f2b_attribute a;
    F2B_TRY(f2b_state_attribute(state, name, F2B_ATTRIBUTE_TEXT, &a));
    *text = a.text;
    return F2B_OK;
}

static f2b_status open_state(f2b_trained *t, f2b_state_notify *notify, void *user)
{
    const char *method;
    t->state = f2b_state_open(t->path, notify, user);
    if (t->state == NULL) return f2b_last_status();
    F2B_TRY(text_attribute(t->state, "method", &method));
    F2B_TRY(text_attribute(t->state, "base_model", &t->fingerprint));
    F2B_TRY(text_attribute(t->state, "base_path", &t->base_path));
    return f2b_method_from_json(&t->method, method, f2b_state_path(t->state));
}

static f2b_status open_export(f2b_trained *t, const f2b_model_config *sizes)
{
    t->export_ = f2b_export_open(t->path, sizes);
    if (t->export_ == NULL) return f2b_last_status();
    const f2b_export_info *info = f2b_export_get_info(t->export_);
    t->method = info->method;
    t->fingerprint = info->base_fingerprint, t->base_path = info->base_path;
    return F2B_OK;
}

f2b_trained *f2b_trained_open(const char *path, const f2b_model_config *sizes,
                              f2b_state_notify *notify, void *user)
{
    f2b_trained *t = f2b_calloc(1, sizeof *t, F2B_TAG_FILES);
    if (t == NULL) return NULL;
    t->path = f2b_strdup(path, F2B_TAG_FILES);
    const f2b_status status = t->path == NULL ? F2B_ERR_MEMORY
                              : f2b_export_is_one(path) ? open_export(t, sizes)
                                                        : open_state(t, notify, user);
    if (status == F2B_OK) return t;
    f2b_trained_close(t);
    return NULL;
}

void f2b_trained_close(f2b_trained *t)
{
    if (t == NULL) return;
    if (t->state != NULL) f2b_state_close(t->state);
    if (t->export_ != NULL) f2b_export_close(t->export_);
    f2b_free(t->path);
    f2b_free(t);
}

const f2b_method *f2b_trained_method(const f2b_trained *t) { return &t->method; }
const char *f2b_trained_base_fingerprint(const f2b_trained *t) { return t->fingerprint; }
const char *f2b_trained_base_path(const f2b_trained *t) { return t->base_path; }

int64_t f2b_trained_step(const f2b_trained *t)
{
    return t->state != NULL ? f2b_state_step(t->state) : f2b_export_get_info(t->export_)->step;
}

static const f2b_named_array *array_at(const f2b_trained *t, int64_t i)
{
    return t->state != NULL ? &f2b_state_at(t->state, i)->parameter : f2b_export_at(t->export_, i);
}

static f2b_status load_one(f2b_trained *t, int64_t i, const f2b_parameters *parameters)
{
    const f2b_named_array *array = array_at(t, i);
    const f2b_parameter *p = f2b_parameters_find(parameters, array->name);
    char theirs[F2B_SHAPE_TEXT], ours[F2B_SHAPE_TEXT];
    if (p == NULL)
        return f2b_fail(F2B_ERR_CONFIG, "%s has a trained %s, which this configuration does not train: "
                        "export it with --format merged and use that folder as model.path, or train "
                        "the same tensors", t->path, array->name);
    if (!f2b_shape_equal(array->ndim, array->shape, p->tensor->ndim, p->tensor->shape))
        return f2b_fail(F2B_ERR_FORMAT, "%s: %s is %s there and %s here", t->path, array->name,
                        f2b_shape_text(array->ndim, array->shape, theirs),
                        f2b_shape_text(p->tensor->ndim, p->tensor->shape, ours));
    F2B_CHECK(p->tensor->dtype == F2B_F32);
    if (t->state != NULL) return f2b_state_read(t->state, i, p->tensor->data, NULL, NULL);
    memcpy(p->tensor->data, array->data, f2b_tensor_bytes(p->tensor));
    return F2B_OK;
}

f2b_status f2b_trained_load(f2b_trained *t, const f2b_parameters *parameters, bool complete)
{
    const int64_t n = t->state != NULL ? f2b_state_count(t->state) : f2b_export_count(t->export_);
    for (int64_t i = 0; i < n; i++) F2B_TRY(load_one(t, i, parameters));
    if (!complete || n == parameters->n) return F2B_OK;
    for (int64_t j = 0; j < parameters->n; j++) {
        const char *name = parameters->items[j].tensor->name;
        bool there = false;
        for (int64_t i = 0; i < n && !there; i++) there = strcmp(array_at(t, i)->name, name) == 0;
        if (!there) return f2b_fail(F2B_ERR_FORMAT, "%s lacks the trained tensor %s", t->path, name);
    }
    return F2B_OK;
}
