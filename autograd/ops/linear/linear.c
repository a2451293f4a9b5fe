/* Checks, shape rule and descriptors of linear and gated_linear. */
#include "autograd/ops/linear/linear_internal.h"
#include "autograd/ops/checks.h"
#include "autograd/ops/silu_mul/silu_mul.h"

F2B_DECLARE_KERNELS(f2bi_linear_forward);
F2B_DECLARE_KERNELS(f2bi_linear_backward);
F2B_DECLARE_KERNELS(f2bi_gated_linear_forward);
F2B_DECLARE_KERNELS(f2bi_gated_linear_backward);

/* Without anything trained that multiplies x, backward does not need x: it may be freed early. */
static const f2b_op op_linear = {
    .name = "linear", .backward_reads_in = 1u << LINEAR_X,
    .forward = { F2B_KERNELS(f2bi_linear_forward) },
    .backward = { F2B_KERNELS(f2bi_linear_backward) },
};
static const f2b_op op_linear_frozen = {
    .name = "linear",
    .forward = { F2B_KERNELS(f2bi_linear_forward) },
    .backward = { F2B_KERNELS(f2bi_linear_backward) },
};

/* On the host; a device makes it of silu_mul and linear. */
static const f2b_op op_gated = {
    .name = "gated_linear", .backward_reads_in = 1u << LINEAR_X | 1u << LINEAR_UP,
    .forward = { F2B_KERNELS(f2bi_gated_linear_forward) },
    .backward = { F2B_KERNELS(f2bi_gated_linear_backward) },
};

static const char *name_of(const f2b_projection *p)
{
    return p->weight->name ? p->weight->name : "weight";
}

static f2b_status check_residual(const f2b_tensor *x, const f2b_projection *p, int i)
{
    f2b_tensor y = *x;
    y.shape[y.ndim - 1] = p->weight->shape[0];
    const f2b_tensor *r = p->residual;
    if (r == NULL || (f2b_same_shape(r, &y) && r->dtype == y.dtype)) return F2B_OK;
    return f2b_fail(f2b_same_shape(r, &y) ? F2B_ERR_DTYPE : F2B_ERR_SHAPE,
                    "linear: projection %d: residual of %s is %s, not %s", i, name_of(p),
                    f2b_tensor_describe(r), f2b_tensor_describe(&y));
}

static f2b_status check(const f2b_tensor *x, const f2b_projection *p, int i)
{
    const f2b_tensor *w = p->weight, *a = p->lora_a, *b = p->lora_b;
    const char *name = name_of(p);
    if (w->ndim != 2 || w->shape[1] != f2b_dim(x, -1))
        return f2b_fail(F2B_ERR_SHAPE, "linear: projection %d: %s is %s, x is %s", i, name,
                        f2b_tensor_describe(w), f2b_tensor_describe(x));
    if (p->bias != NULL && (p->bias->ndim != 1 || p->bias->shape[0] != w->shape[0]))
        return f2b_fail(F2B_ERR_SHAPE, "linear: projection %d: bias of %s is %s, not [%lld]", i, name,
                        f2b_tensor_describe(p->bias), (long long)w->shape[0]);
    if ((a == NULL) != (b == NULL))
        return f2b_fail(F2B_ERR_INVALID, "linear: projection %d: LoRA of %s has only one half", i, name);
    if (a != NULL && (a->ndim != 2 || b->ndim != 2 || a->shape[1] != w->shape[1] ||
                      b->shape[0] != w->shape[0] || a->shape[0] != b->shape[1]))
        return f2b_fail(F2B_ERR_SHAPE, "linear: projection %d: LoRA A %s and B %s do not fit %s", i,
                        f2b_tensor_describe(a), f2b_tensor_describe(b), f2b_tensor_describe(w));
    F2B_TRY(check_residual(x, p, i));
    const f2b_dtype trained = x->dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    const f2b_tensor *all[] = { w, p->bias, a, b };
    for (int j = 0; j < 4; j++) {
        if (all[j] == NULL) continue;
        const bool stored = f2b_dtype_is_float(all[j]->dtype)
                            || (all[j] == w && f2b_dtype_is_quantised(w->dtype));
        if (!stored || (all[j]->requires_grad && all[j]->dtype != trained))
            return f2b_fail(F2B_ERR_DTYPE, "linear: projection %d: %s cannot be %s here", i,
                            all[j]->name ? all[j]->name : name, f2b_tensor_describe(all[j]));
    }
    return F2B_OK;
}

/* Checks the projections of x and puts their tensors into a node's slots. */
static f2b_status fill(f2b_tensor *x, const f2b_projection *p, int n, const f2b_dropout *dropout, f2b_tensor **in,
                       linear_attr *attr)
{
    for (int i = 0; i < n; i++) {
        F2B_TRY(check(x, &p[i], i));
        in[linear_slot(i, LINEAR_WEIGHT)] = p[i].weight;
        in[linear_slot(i, LINEAR_BIAS)] = p[i].bias;
        in[linear_slot(i, LINEAR_A)] = p[i].lora_a;
        in[linear_slot(i, LINEAR_B)] = p[i].lora_b;
        in[linear_slot(i, LINEAR_RESIDUAL)] = p[i].residual;
        attr->has_dropout |= p[i].lora_a != NULL && dropout != NULL && dropout->p > 0;
    }
    if (attr->has_dropout) attr->dropout = *dropout;
    return F2B_OK;
}

/* The outputs of a node for the projections of x. */
static f2b_status run(f2b_node *node, const f2b_tensor *x, const f2b_projection *p, int n, f2b_tensor **out)
{
    int64_t shape[F2B_MAX_DIMS];
    for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
    for (int i = 0; i < n; i++) {
        shape[x->ndim - 1] = p[i].weight->shape[0];
        out[i] = f2b_node_out(node, x->dtype, x->ndim, shape);
        f2b_node_hands_on(node, i, linear_slot(i, LINEAR_RESIDUAL));
    }
    return f2b_node_run(node);
}

f2b_status f2b_linear_group(f2b_tape *tape, f2b_tensor *x, const f2b_projection *p, int n,
                            double scale, const f2b_dropout *dropout, f2b_tensor **out)
{
    for (int i = 0; i < n; i++) out[i] = NULL;
    if (x == NULL) return f2b_last_status();
    F2B_CHECK(n >= 1 && n <= F2B_MAX_PROJECTIONS && x->ndim >= 1);
    linear_attr attr = { .n = n, .scale = scale };
    f2b_tensor *in[1 + F2B_MAX_PROJECTIONS * LINEAR_STEP] = { x };
    F2B_TRY(fill(x, p, n, dropout, in, &attr));
    bool reads_x = false;
    for (int i = 0; i < n; i++)
        reads_x |= p[i].weight->requires_grad || (p[i].lora_a && p[i].lora_a->requires_grad);
    return run(f2b_node_new(tape, reads_x ? &op_linear : &op_linear_frozen, x->dtype, in, 1 + n * LINEAR_STEP,
                            &attr, sizeof attr), x, p, n, out);
}

f2b_tensor *f2b_gated_linear(f2b_tape *tape, f2b_tensor *gate, f2b_tensor *up, const f2b_projection *p,
                             double scale, const f2b_dropout *dropout)
{
    f2b_tensor *y = NULL;
    if (gate == NULL || up == NULL) return NULL;
    if (!f2bi_check_activation("gated_linear", "gate", gate) || !f2bi_check_same("gated_linear", gate, up))
        return NULL;
    if (f2b_tape_device(tape).kind != F2B_CPU) {
        f2b_tensor *x = f2b_silu_mul(tape, gate, up);
        (void)!f2b_linear_group(tape, x, p, 1, scale, dropout, &y);
        if (x != NULL) f2b_tape_release(x);
        return y;
    }
    linear_attr attr = { .n = 1, .scale = scale };
    f2b_tensor *in[LINEAR_UP + 1] = { [LINEAR_X] = gate, [LINEAR_UP] = up };
    if (fill(gate, p, 1, dropout, in, &attr) != F2B_OK) return NULL;
    f2b_node *node = f2b_node_new(tape, &op_gated, gate->dtype, in, LINEAR_UP + 1, &attr, sizeof attr);
    return run(node, gate, p, 1, &y) == F2B_OK ? y : NULL;
}

f2b_tensor *f2b_linear(f2b_tape *tape, f2b_tensor *x, f2b_tensor *weight, f2b_tensor *bias)
{
    if (x == NULL || weight == NULL) return NULL;
    f2b_tensor *y;
    return f2b_linear_group(tape, x, &(f2b_projection){ .weight = weight, .bias = bias }, 1, 0, NULL, &y)
           == F2B_OK ? y : NULL;
}
