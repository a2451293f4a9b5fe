/* See checkpoint.h; the file format is checkpoints/state.h. */
#include "train/checkpoint.h"

#include "autograd/device/cpu/products.h"
#include "autograd/device/device.h"
#include "checkpoints/method_json.h"
#include "checkpoints/trained_tensors.h"
#include "train/config.h"

enum { MOST_ATTRIBUTES = 9 };

struct f2b_snapshot {
    const f2b_config *config;
    const char *base;
    const f2b_parameters *parameters;
    const f2b_optimizer *optimizer;
    f2b_device device;                  /* of the tensors */
    char *copy;                         /* of all values; NULL until one is wanted */
    bool pinned;                        /* the copy, for the device */
    f2b_moment *copied;                 /* it is there; NULL until one is wanted, and on the host */
    char *yaml, *json;
    f2b_state_tensor *tensors;          /* [parameters->n] */
    f2b_attribute attributes[MOST_ATTRIBUTES];
    f2b_state state;
};

static f2b_attribute text(const char *name, const char *value)
{
    return (f2b_attribute){ .name = name, .kind = F2B_ATTRIBUTE_TEXT, .text = value };
}

static f2b_attribute integer(const char *name, int64_t value)
{
    return (f2b_attribute){ .name = name, .kind = F2B_ATTRIBUTE_INTEGER, .integer = value };
}

/* "" where the question does not arise. */
static const char *products_of(const f2b_config *config, const f2b_parameters *parameters)
{
    const bool asked = config->train.precision == F2B_PRECISION_BF16 && parameters->n > 0 &&
                       parameters->items[0].tensor->device.kind == F2B_CPU;
    return asked ? f2b_products_name(f2b_cpu_products()) : "";
}

/* ---- Taking and writing ---- */

f2b_snapshot *f2b_snapshot_new(const f2b_config *config, const char *base,
                               const f2b_parameters *parameters, const f2b_optimizer *optimizer)
{
    f2b_snapshot *s = f2b_calloc(1, sizeof *s, F2B_TAG_FILES);
    if (s == NULL) return NULL;
    *s = (f2b_snapshot){ .config = config, .base = base, .parameters = parameters,
                         .optimizer = optimizer, .device = F2B_HOST };
    if (parameters->n > 0) s->device = parameters->items[0].tensor->device;
    const f2b_method method = f2b_config_method(config);
    s->tensors = f2b_calloc((size_t)parameters->n, sizeof *s->tensors, F2B_TAG_FILES);
    s->yaml = f2b_config_write(config), s->json = f2b_method_to_json(&method);
    if (s->tensors != NULL && s->yaml != NULL && s->json != NULL) return s;
    f2b_snapshot_free(s);
    return NULL;
}

void f2b_snapshot_free(f2b_snapshot *s)
{
    if (s == NULL) return;
    if (s->copied != NULL) (void)!f2b_moment_wait(s->copied);
    if (s->pinned) f2b_unpin(s->device, s->copy);
    f2b_moment_free(s->copied);
    f2b_free(s->copy);
    f2b_free(s->yaml);
    f2b_free(s->json);
    f2b_free(s->tensors);
    f2b_free(s);
}

int64_t f2b_snapshot_bytes(const f2b_parameters *parameters)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < parameters->n; i++)
        bytes += 3 * (int64_t)f2b_tensor_bytes(parameters->items[i].tensor);
    return bytes;
}

/* The values of t: copied to *free, which moves on, or where they are. */
static f2b_status take_values(const f2b_tensor *t, char **free, const void **values)
{
    *values = t->data;
    if (*free == NULL) return F2B_OK;
    const size_t bytes = f2b_tensor_bytes(t);
    *values = *free;
    *free += bytes;
    return f2b_copy_later((void *)*values, t->data, t->device, bytes);
}

static f2b_status take_tensor(f2b_snapshot *s, int64_t i, char **free)
{
    const f2b_tensor *t = s->parameters->items[i].tensor;
    const void *m, *v;
    f2b_state_tensor *out = &s->tensors[i];
    *out = (f2b_state_tensor){ .parameter = { t->name, t->dtype, t->ndim, { 0 }, NULL },
                               .updates = s->optimizer->updates[i] };
    memcpy(out->parameter.shape, t->shape, sizeof t->shape);
    F2B_TRY(take_values(t, free, &out->parameter.data));
    F2B_TRY(take_values(s->optimizer->m[i], free, &m));
    F2B_TRY(take_values(s->optimizer->v[i], free, &v));
    out->m = m, out->v = v;
    return F2B_OK;
}

static void take_attributes(f2b_snapshot *s, const f2b_run_position *position)
{
    const f2b_config *config = s->config;
    const f2b_attribute all[MOST_ATTRIBUTES] = {
        text("config", s->yaml), text("method", s->json), text("base_model", s->base),
        text(F2B_STATE_BASE_PATH, config->model.path),
        text(F2B_STATE_VISION_PATH, config->model.vision_path ? config->model.vision_path : ""),
        text("products", products_of(config, s->parameters)),
        integer(F2B_STATE_SEED, config->train.seed),
        integer("skipped", position->skipped),
        integer("skipped_in_a_row", position->skipped_in_a_row),
    };
    memcpy(s->attributes, all, sizeof all);
}

/* Room for a copy. A device copies to it beside its work if the system lets it be pinned. */
static f2b_status open_copy(f2b_snapshot *s)
{
    if (s->copy != NULL) return F2B_OK;
    const size_t bytes = (size_t)f2b_snapshot_bytes(s->parameters);
    s->copy = f2b_alloc_host(bytes, F2B_TAG_SNAPSHOT);
    if (s->copy == NULL) return F2B_ERR_MEMORY;
    if (s->device.kind == F2B_CPU) return F2B_OK;
    s->pinned = f2b_pin(s->device, s->copy, bytes) == F2B_OK;
    if (!s->pinned) f2b_clear_error();
    s->copied = f2b_moment_new(s->device);
    return s->copied != NULL ? F2B_OK : f2b_last_status();
}

f2b_status f2b_snapshot_take(f2b_snapshot *s, const f2b_run_position *position, bool apart)
{
    char *free = NULL;
    if (apart || s->device.kind != F2B_CPU) {
        F2B_TRY(open_copy(s));
        free = s->copy;
    }
    for (int64_t i = 0; i < s->parameters->n; i++) F2B_TRY(take_tensor(s, i, &free));
    take_attributes(s, position);
    s->state = (f2b_state){ position->step, s->tensors, s->parameters->n, s->attributes,
                            MOST_ATTRIBUTES };
    return s->copied != NULL ? f2b_moment_set(s->copied) : F2B_OK;
}

f2b_status f2b_snapshot_write(const f2b_snapshot *s, f2b_state_notify *notify, void *user)
{
    if (s->copied != NULL) F2B_TRY(f2b_moment_wait(s->copied));
    return f2b_state_save(s->config->run.dir, &s->state, (int)s->config->run.keep, notify, user);
}

/* ---- Going on ---- */

static f2b_status same_run(f2b_state_file *file, const f2b_config *config, const char *base)
{
    f2b_attribute saved;
    F2B_TRY(f2b_state_attribute(file, "base_model", F2B_ATTRIBUTE_TEXT, &saved));
    if (strcmp(saved.text, base) != 0)
        return f2b_fail(F2B_ERR_CONFIG, "%s was trained on another base model (%s) than %s (%s): "
                        "give its model.path, or another run.dir to start anew",
                        f2b_state_path(file), saved.text, config->model.path, base);
    F2B_TRY(f2b_state_attribute(file, "config", F2B_ATTRIBUTE_TEXT, &saved));
    f2b_config *before = f2b_config_parse(saved.text, f2b_state_path(file), "/", NULL, 0);
    if (before == NULL) return f2b_last_status();
    const f2b_status status = f2b_config_check_resume(before, config);
    f2b_config_free(before);
    return status;
}

static f2b_status read_to_device(f2b_state_file *file, int64_t at, const f2b_tensor *const to[3])
{
    const size_t bytes = f2b_tensor_bytes(to[0]);
    char *host = f2b_alloc_host(3 * bytes, F2B_TAG_FILES);
    if (host == NULL) return F2B_ERR_MEMORY;
    f2b_status status = f2b_state_read(file, at, (float *)host, (float *)(host + bytes),
                                       (float *)(host + 2 * bytes));
    for (size_t k = 0; k < 3 && status == F2B_OK; k++)
        status = f2b_copy(to[k]->data, to[k]->device, host + k * bytes, F2B_HOST, bytes);
    f2b_free(host);
    return status;
}

static f2b_status read_tensor(f2b_state_file *file, const f2b_parameters *parameters,
                              f2b_optimizer *optimizer, int64_t i)
{
    const f2b_tensor *t = parameters->items[i].tensor;
    const int64_t at = f2b_state_find(file, t->name);
    if (at < 0)
        return f2b_fail(F2B_ERR_FORMAT, "%s lacks the tensor %s", f2b_state_path(file), t->name);
    const f2b_state_tensor *saved = f2b_state_at(file, at);
    char theirs[F2B_SHAPE_TEXT], ours[F2B_SHAPE_TEXT];
    if (!f2b_shape_equal(saved->parameter.ndim, saved->parameter.shape, t->ndim, t->shape))
        return f2b_fail(F2B_ERR_FORMAT, "%s: %s is %s there and %s here", f2b_state_path(file),
                        t->name,
                        f2b_shape_text(saved->parameter.ndim, saved->parameter.shape, theirs),
                        f2b_shape_text(t->ndim, t->shape, ours));
    optimizer->updates[i] = saved->updates;
    const f2b_tensor *to[3] = { t, optimizer->m[i], optimizer->v[i] };
    return t->device.kind == F2B_CPU
           ? f2b_state_read(file, at, to[0]->data, to[1]->data, to[2]->data)
           : read_to_device(file, at, to);
}

f2b_status f2b_checkpoint_resume(f2b_state_file *file, const f2b_config *config, const char *base,
                                 const f2b_parameters *parameters, f2b_optimizer *optimizer,
                                 f2b_run_position *position)
{
    F2B_TRY(same_run(file, config, base));
    if (f2b_state_count(file) != parameters->n)
        return f2b_fail(F2B_ERR_FORMAT, "%s has %lld tensors, this run trains %lld",
                        f2b_state_path(file), (long long)f2b_state_count(file),
                        (long long)parameters->n);
    for (int64_t i = 0; i < parameters->n; i++)
        F2B_TRY(read_tensor(file, parameters, optimizer, i));
    f2b_attribute skipped, in_a_row;
    F2B_TRY(f2b_state_attribute(file, "skipped", F2B_ATTRIBUTE_INTEGER, &skipped));
    F2B_TRY(f2b_state_attribute(file, "skipped_in_a_row", F2B_ATTRIBUTE_INTEGER, &in_a_row));
    *position = (f2b_run_position){ f2b_state_step(file), skipped.integer, in_a_row.integer };
    return F2B_OK;
}

const char *f2b_checkpoint_other_products(const f2b_state_file *file, const f2b_config *config,
                                          const f2b_parameters *parameters)
{
    const char *ours = products_of(config, parameters);
    int64_t n;
    const f2b_attribute *a = f2b_state_attributes(file, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(a[i].name, "products") == 0 && a[i].kind == F2B_ATTRIBUTE_TEXT)
            return a[i].text[0] != '\0' && ours[0] != '\0' && strcmp(a[i].text, ours) != 0
                   ? a[i].text : NULL;
    return NULL;
}
