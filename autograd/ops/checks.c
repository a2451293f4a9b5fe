/* See checks.h. */
#include "autograd/ops/checks.h"

#include <stdio.h>

#define FALSE_IF(condition, code, ...)                                                            \
    do {                                                                                          \
        if (condition) {                                                                          \
            (void)f2b_fail((code), __VA_ARGS__);                                                  \
            return false;                                                                         \
        }                                                                                         \
    } while (0)

bool f2bi_check_activation(const char *op, const char *what, const f2b_tensor *x)
{
    FALSE_IF(x->dtype >= F2B_COMPUTE_DTYPES, F2B_ERR_DTYPE,
             "%s: %s is %s, but must be f32, f64 or bf16", op, what, f2b_tensor_describe(x));
    FALSE_IF(x->ndim < 1, F2B_ERR_SHAPE, "%s: %s must have a dimension", op, what);
    return true;
}

bool f2bi_check_parameter(const char *op, const char *what, const f2b_tensor *w)
{
    FALSE_IF(!f2b_dtype_is_float(w->dtype), F2B_ERR_DTYPE,
             "%s: %s is %s, but must be of a float type", op, what, f2b_tensor_describe(w));
    FALSE_IF(w->requires_grad && w->dtype >= F2B_COMPUTE_DTYPES, F2B_ERR_DTYPE,
             "%s: %s is %s and requires a gradient; keep an f32 copy of what is trained", op, what,
             f2b_tensor_describe(w));
    return true;
}

bool f2bi_check_index(const char *op, const char *what, const f2b_tensor *index)
{
    FALSE_IF(index->dtype != F2B_I32 || index->requires_grad, F2B_ERR_DTYPE,
             "%s: %s is %s, but must be i32 without gradient", op, what,
             f2b_tensor_describe(index));
    return true;
}

bool f2bi_check_shape(const char *op, const char *what, const f2b_tensor *x, int ndim,
                      const int64_t *shape)
{
    bool fits = x->ndim == ndim;
    for (int i = 0; i < ndim && fits; i++) fits = shape[i] < 0 || x->shape[i] == shape[i];
    if (fits) return true;
    char want[96] = "";
    size_t used = 0;
    for (int i = 0; i < ndim && used < sizeof want; i++) {
        const char *comma = i > 0 ? ", " : "";
        const int n = shape[i] < 0 ? snprintf(want + used, sizeof want - used, "%s*", comma)
                                   : snprintf(want + used, sizeof want - used, "%s%lld", comma,
                                              (long long)shape[i]);
        used += (size_t)n;
    }
    FALSE_IF(true, F2B_ERR_SHAPE, "%s: %s is %s, but must be [%s]", op, what,
             f2b_tensor_describe(x), want);
}

bool f2bi_check_same(const char *op, const f2b_tensor *a, const f2b_tensor *b)
{
    FALSE_IF(!f2b_same_shape(a, b), F2B_ERR_SHAPE, "%s: %s and %s differ in shape", op,
             f2b_tensor_describe(a), f2b_tensor_describe(b));
    FALSE_IF(a->dtype != b->dtype, F2B_ERR_DTYPE, "%s: %s and %s differ in type", op,
             f2b_tensor_describe(a), f2b_tensor_describe(b));
    return true;
}
