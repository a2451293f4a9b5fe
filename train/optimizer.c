/* See optimizer.h. The arithmetic is in autograd/ops/adamw and autograd/ops/grad_norm. */
#include "train/optimizer.h"

#include <math.h>

#include "autograd/device/device.h"
#include "autograd/ops/adamw/adamw.h"
#include "autograd/ops/grad_norm/grad_norm.h"

static f2b_tensor *zeros_like(const f2b_tensor *x)
{
    f2b_tensor *t = f2b_tensor_new(x->device, x->dtype, x->ndim, x->shape, F2B_TAG_OPTIMIZER);
    if (t == NULL || f2b_zero(t->data, t->device, f2b_tensor_bytes(t)) == F2B_OK) return t;
    f2b_tensor_free(t);
    return NULL;
}

f2b_optimizer *f2b_optimizer_new(const f2b_parameters *parameters)
{
    f2b_optimizer *o = f2b_calloc(1, sizeof *o, F2B_TAG_OTHER);
    if (o == NULL) return NULL;
    const size_t n = (size_t)parameters->n;
    o->parameters = parameters;
    o->m = f2b_calloc(n, sizeof *o->m, F2B_TAG_OTHER);
    o->v = f2b_calloc(n, sizeof *o->v, F2B_TAG_OTHER);
    o->updates = f2b_calloc(n, sizeof *o->updates, F2B_TAG_OTHER);
    bool good = o->m != NULL && o->v != NULL && o->updates != NULL;
    for (size_t i = 0; i < n && good; i++) {
        o->m[i] = zeros_like(parameters->items[i].tensor);
        o->v[i] = zeros_like(parameters->items[i].tensor);
        good = o->m[i] != NULL && o->v[i] != NULL;
    }
    if (good) return o;
    f2b_optimizer_free(o);
    return NULL;
}

void f2b_optimizer_free(f2b_optimizer *o)
{
    if (o == NULL) return;
    for (int64_t i = 0; i < o->parameters->n; i++) {
        if (o->m != NULL) f2b_tensor_free(o->m[i]);
        if (o->v != NULL) f2b_tensor_free(o->v[i]);
    }
    f2b_free(o->m);
    f2b_free(o->v);
    f2b_free(o->updates);
    f2b_free(o);
}

void f2b_optimizer_clear_gradients(const f2b_parameters *parameters)
{
    for (int64_t i = 0; i < parameters->n; i++) {
        f2b_free(parameters->items[i].tensor->grad);
        parameters->items[i].tensor->grad = NULL;
    }
}

double f2b_learning_rate_factor(f2b_lr_scheduler scheduler, double warmup_ratio, int64_t s,
                                int64_t T)
{
    const double warmup = ceil(warmup_ratio * (double)T);
    if ((double)s < warmup) return (double)s / warmup;
    const double rest = (double)T - warmup;
    const double progress = rest > 0 ? ((double)s - warmup) / rest : 1;
    switch (scheduler) {
    case F2B_LR_COSINE: return 0.5 * (1 + cos(3.14159265358979323846 * progress));
    case F2B_LR_LINEAR: return 1 - progress;
    case F2B_LR_CONSTANT: return 1;
    }
    return 1;
}

/* Into a place among the readings, all of which so far are watched. */
static f2b_status gradient_norm(const f2b_parameters *p, f2b_readings *r, const double **norm,
                                int64_t *number)
{
    double *place;
    F2B_TRY(f2b_readings_place(r, &place, number));
    f2b_tensor **tensors = f2b_calloc((size_t)p->n, sizeof *tensors, F2B_TAG_OTHER);
    if (tensors == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < p->n; i++) tensors[i] = p->items[i].tensor;
    const f2b_status status = f2b_grad_norm(r->device, tensors, p->n, r->there, *number, place);
    f2b_free(tensors);
    *norm = place;
    return status;
}

f2b_status f2b_optimizer_begin(f2b_optimizer *o, const f2b_config *config, int64_t s, int64_t steps,
                               f2b_readings *readings, f2b_update *out)
{
    const double factor = f2b_learning_rate_factor(config->train.lr_scheduler,
                                                   config->train.warmup_ratio, s, steps);
    const double *norm;
    *out = (f2b_update){ .learning_rate = factor * config->train.learning_rate };
    F2B_TRY(gradient_norm(o->parameters, readings, &norm, &out->number));
    for (int64_t i = 0; i < o->parameters->n; i++) {
        const f2b_parameter *p = &o->parameters->items[i];
        if (p->tensor->grad == NULL) continue;
        const f2b_adamw settings = {
            .learning_rate = p->group == F2B_GROUP_PROJECTOR
                             ? factor * config->train.projector_learning_rate : out->learning_rate,
            .beta1 = config->train.adam.beta1, .beta2 = config->train.adam.beta2,
            .eps = config->train.adam.eps,
            .weight_decay = p->decay ? config->train.weight_decay : 0,
            .norm = norm, .max_norm = config->train.max_grad_norm, .count = o->updates[i] + 1,
            .bounded = p->group == F2B_GROUP_TEMPERATURE, .least = log(0.01),
        };
        F2B_TRY(f2b_adamw_update(p->tensor, o->m[i], o->v[i], &settings));
    }
    return F2B_OK;
}

void f2b_optimizer_settle(f2b_optimizer *o, const f2b_readings *readings, f2b_update *out)
{
    out->grad_norm = f2b_readings_at(readings, out->number);
    out->finite = isfinite(out->grad_norm);
    for (int64_t i = 0; out->finite && i < o->parameters->n; i++)
        o->updates[i] += o->parameters->items[i].tensor->grad != NULL;
}

f2b_status f2b_optimizer_update(f2b_optimizer *o, const f2b_config *config, int64_t s, int64_t steps,
                                f2b_update *out)
{
    const f2b_parameters *p = o->parameters;
    f2b_readings *readings = f2b_readings_new(p->n > 0 ? p->items[0].tensor->device : F2B_HOST);
    if (readings == NULL) return F2B_ERR_MEMORY;
    f2b_status status = f2b_optimizer_begin(o, config, s, steps, readings, out);
    if (status == F2B_OK) status = f2b_readings_fetch(readings);
    if (status == F2B_OK) f2b_optimizer_settle(o, readings, out);
    f2b_readings_free(readings);
    return status;
}
