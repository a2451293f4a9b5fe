/* Checks, descriptor and table of rope. */
#include "autograd/ops/rope/rope.h"

#include <math.h>

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_rope_forward);
F2B_DECLARE_KERNELS(f2bi_rope_backward);

static const f2b_op op_rope = {
    .name = "rope", .backward_reads_in = 6u,        /* table and positions */
    .forward = { F2B_KERNELS(f2bi_rope_forward) },
    .backward = { F2B_KERNELS(f2bi_rope_backward) },
};

f2b_tensor *f2b_rope(f2b_tape *tape, f2b_tensor *x, f2b_tensor *table, f2b_tensor *positions)
{
    if (x == NULL || table == NULL || positions == NULL) return NULL;
    if (!f2bi_check_activation("rope", "x", x)
        || !f2bi_check_shape("rope", "x", x, 2, (int64_t[]){ -1, -1 })
        || !f2bi_check_shape("rope", "table", table, 2, (int64_t[]){ -1, -1 })
        || !f2bi_check_index("rope", "positions", positions)
        || !f2bi_check_shape("rope", "positions", positions, 1, (int64_t[]){ f2b_dim(x, 0) }))
        return NULL;
    const f2b_dtype wanted = x->dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    F2B_RETURN_NULL_IF(table->dtype != wanted || table->requires_grad, F2B_ERR_DTYPE,
                       "rope: the table for %s must be %s without gradient, got %s",
                       f2b_dtype_name(x->dtype), f2b_dtype_name(wanted),
                       f2b_tensor_describe(table));
    const int64_t hd = f2b_dim(table, 1);
    F2B_RETURN_NULL_IF(hd < 2 || hd % 2 != 0 || f2b_dim(x, 1) % hd != 0, F2B_ERR_SHAPE,
                       "rope: x %s is not made of heads of %lld columns", f2b_tensor_describe(x),
                       (long long)hd);
    f2b_node *n = f2b_node_new(tape, &op_rope, x->dtype, (f2b_tensor *[]){ x, table, positions }, 3,
                               NULL, 0);
    f2b_tensor *y = f2b_node_out(n, x->dtype, x->ndim, x->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}

/* Angle of pair i at position p. In f32 each step rounds as in transformers: the exponent, the
 * power, its reciprocal, the product. */
static double angle(f2b_dtype dtype, double theta, int64_t hd, int64_t i, int64_t p)
{
    if (dtype == F2B_F64) return (double)p * pow(theta, -2.0 * (double)i / (double)hd);
    const float exponent = (float)(2 * i) / (float)hd;
    const float frequency = 1.0f / (float)pow(theta, (double)exponent);
    return (float)p * frequency;
}

f2b_tensor *f2b_rope_table(f2b_device device, f2b_dtype dtype, double theta, int64_t hd, int64_t P)
{
    F2B_RETURN_NULL_IF(hd < 2 || hd % 2 != 0 || P < 0 || !(theta > 0), F2B_ERR_INVALID,
                       "rope: no table for head size %lld, %lld positions, theta %g", (long long)hd,
                       (long long)P, theta);
    F2B_RETURN_NULL_IF(dtype != F2B_F32 && dtype != F2B_F64, F2B_ERR_DTYPE,
                       "rope: the table must be f32 or f64, not %s", f2b_dtype_name(dtype));
    f2b_tensor *table = f2b_tensor_new(device, dtype, 2, (int64_t[]){ P, hd }, F2B_TAG_WEIGHTS);
    if (table == NULL) return NULL;
    void *host = f2b_alloc_host(f2b_tensor_bytes(table), F2B_TAG_SCRATCH);
    if (host == NULL) {
        f2b_tensor_free(table);
        return NULL;
    }
    for (int64_t p = 0; p < P; p++)
        for (int64_t i = 0; i < hd / 2; i++) {
            const double a = angle(dtype, theta, hd, i, p);
            const int64_t at = p * hd + i;
            if (dtype == F2B_F64) {
                ((double *)host)[at] = cos(a), ((double *)host)[at + hd / 2] = sin(a);
            } else {
                ((float *)host)[at] = (float)cos(a), ((float *)host)[at + hd / 2] = (float)sin(a);
            }
        }
    const f2b_status status = f2b_tensor_write(table, host);
    f2b_free(host);
    if (status == F2B_OK) return table;
    f2b_tensor_free(table);
    return NULL;
}
