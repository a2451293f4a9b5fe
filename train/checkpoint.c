/* See checkpoint.h; the file format is checkpoints/state.h. */
#include "train/checkpoint.h"

#include "autograd/device/cpu/products.h"
#include "checkpoints/method_json.h"
#include "checkpoints/trained_tensors.h"
#include "train/config.h"

static f2b_state_tensor tensor_of(const f2b_parameters *p, const f2b_optimizer *o, int64_t i)
{
    const f2b_tensor *t = p->items[i].tensor;
    f2b_state_tensor s = { .parameter = { t->name, t->dtype, t->ndim, { 0 }, t->data },
                           .m = o->m[i]->data, .v = o->v[i]->data, .updates = o->updates[i] };
    memcpy(s.parameter.shape, t->shape, sizeof t->shape);
    return s;
}

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

f2b_status f2b_checkpoint_save(const f2b_config *config, const char *base,
                               const f2b_parameters *parameters, const f2b_optimizer *optimizer,
                               const f2b_run_position *position, f2b_state_notify *notify,
                               void *user)
{
    const f2b_method method = f2b_config_method(config);
    char *yaml = f2b_config_write(config), *json = f2b_method_to_json(&method);
    f2b_state_tensor *tensors = f2b_calloc((size_t)parameters->n, sizeof *tensors, F2B_TAG_FILES);
    f2b_status status = yaml && json && tensors ? F2B_OK : F2B_ERR_MEMORY;
    if (status == F2B_OK) {
        for (int64_t i = 0; i < parameters->n; i++)
            tensors[i] = tensor_of(parameters, optimizer, i);
        const f2b_attribute attributes[] = {
            text("config", yaml), text("method", json), text("base_model", base),
            text(F2B_STATE_BASE_PATH, config->model.path),
            text(F2B_STATE_VISION_PATH, config->model.vision_path ? config->model.vision_path : ""),
            text("products", products_of(config, parameters)),
            integer(F2B_STATE_SEED, config->train.seed),
            integer("skipped", position->skipped),
            integer("skipped_in_a_row", position->skipped_in_a_row),
        };
        const f2b_state state = { position->step, tensors, parameters->n, attributes,
                                  sizeof attributes / sizeof *attributes };
        status = f2b_state_save(config->run.dir, &state, (int)config->run.keep, notify, user);
    }
    f2b_free(yaml);
    f2b_free(json);
    f2b_free(tensors);
    return status;
}

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
    return f2b_state_read(file, at, t->data, optimizer->m[i]->data, optimizer->v[i]->data);
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
