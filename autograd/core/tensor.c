/* Leaves and shape helpers. See tensor.h. */
#include "autograd/core/tensor.h"

#include <stdio.h>
#include <string.h>

#include "autograd/core/quant.h"
#include "autograd/device/cpu/packed_weight.h"
#include "autograd/device/device.h"

static f2b_tensor *leaf_new(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape)
{
    F2B_CHECK(ndim >= 0 && ndim <= F2B_MAX_DIMS);
    const bool quantised = f2b_dtype_is_quantised(dtype);
    int64_t bytes = quantised ? 16 : (int64_t)f2b_dtype_size(dtype);
    F2B_RETURN_NULL_IF(quantised && ndim != 2, F2B_ERR_SHAPE, "a tensor of %d dimensions cannot be %s",
                       ndim, f2b_dtype_name(dtype));
    for (int i = 0; i < ndim; i++)
        F2B_RETURN_NULL_IF(shape[i] < 0 || __builtin_mul_overflow(bytes, shape[i], &bytes),
                           F2B_ERR_SHAPE, "dimension %d of a tensor is %lld", i, (long long)shape[i]);
    f2b_tensor *t = f2b_calloc(1, sizeof *t, F2B_TAG_OTHER);
    if (t == NULL) return NULL;
    t->dtype = dtype, t->device = device, t->ndim = ndim;
    if (ndim > 0) memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    return t;
}

static f2b_tensor *with_data(f2b_tensor *t, void *data)
{
    t->data = data;
    if (data != NULL) return t;
    f2b_tensor_free(t);
    return NULL;
}

f2b_tensor *f2b_tensor_new(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                           f2b_tag tag)
{
    f2b_tensor *t = leaf_new(device, dtype, ndim, shape);
    return t != NULL ? with_data(t, f2b_alloc(device, f2b_tensor_bytes(t), tag)) : NULL;
}

f2b_tensor *f2b_tensor_counted(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                               f2b_tag tag)
{
    f2b_tensor *t = leaf_new(device, dtype, ndim, shape);
    return t != NULL ? with_data(t, f2b_alloc_counted(device, f2b_tensor_bytes(t), tag)) : NULL;
}

f2b_tensor *f2b_tensor_borrow(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                              const void *data)
{
    f2b_tensor *t = leaf_new(device, dtype, ndim, shape);
    if (t == NULL) return NULL;
    t->data = (void *)(uintptr_t)data;      /* frozen data is never written through */
    t->borrowed = true;
    return t;
}

void f2b_tensor_free(f2b_tensor *leaf)
{
    if (leaf == NULL) return;
    F2B_CHECK(leaf->tape == NULL);
    f2b_packed_weight_free(leaf);
    if (!leaf->borrowed) f2b_free(leaf->data);
    f2b_free(leaf->grad);
    f2b_free(leaf);
}

f2b_status f2b_tensor_zero_grad(f2b_tensor *leaf)
{
    if (!leaf->requires_grad) return F2B_OK;
    const size_t bytes = f2b_tensor_bytes(leaf);
    if (leaf->grad == NULL) leaf->grad = f2b_alloc(leaf->device, bytes, F2B_TAG_GRADIENTS);
    if (leaf->grad == NULL) return F2B_ERR_MEMORY;
    return f2b_zero(leaf->grad, leaf->device, bytes);
}

f2b_status f2b_tensor_read(const f2b_tensor *x, void *host)
{
    F2B_CHECK(x->data != NULL);
    return f2b_copy(host, F2B_HOST, x->data, x->device, f2b_tensor_bytes(x));
}

f2b_tensor *f2b_tensor_on_host(const f2b_tensor *x)
{
    if (x == NULL) return NULL;
    if (x->device.kind == F2B_CPU)
        return f2b_tensor_borrow(F2B_HOST, x->dtype, x->ndim, x->shape, x->data);
    f2b_tensor *y = f2b_tensor_new(F2B_HOST, x->dtype, x->ndim, x->shape, F2B_TAG_ACTIVATIONS);
    if (y == NULL || f2b_tensor_read(x, y->data) == F2B_OK) return y;
    f2b_tensor_free(y);
    return NULL;
}

f2b_status f2b_tensor_write(f2b_tensor *x, const void *host)
{
    F2B_CHECK(x->data != NULL && !x->borrowed && x->packed == NULL);
    return f2b_copy(x->data, x->device, host, F2B_HOST, f2b_tensor_bytes(x));
}

/* To a device a piece at a time: there is never a second copy of a large tensor. */
f2b_status f2b_tensor_write_as(f2b_tensor *x, int64_t first, const void *host, f2b_dtype dtype, int64_t n)
{
    enum { PIECE = 1 << 20 };
    const size_t to = f2b_dtype_size(x->dtype), from = f2b_dtype_size(dtype);
    char *place = (char *)x->data + (size_t)first * to;
    F2B_CHECK(x->data != NULL && !x->borrowed && x->packed == NULL && first >= 0 && n <= f2b_numel(x) - first);
    if (x->device.kind == F2B_CPU) {
        f2b_convert(place, x->dtype, host, dtype, (size_t)n);
        return F2B_OK;
    }
    if (x->dtype == dtype) return f2b_copy(place, x->device, host, F2B_HOST, (size_t)n * to);
    void *piece = f2b_alloc_host((size_t)(n < PIECE ? n : PIECE) * to, F2B_TAG_SCRATCH);
    f2b_status status = piece != NULL ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t i = 0; i < n && status == F2B_OK; i += PIECE) {
        const size_t count = (size_t)(n - i < PIECE ? n - i : PIECE);
        f2b_convert(piece, x->dtype, (const char *)host + (size_t)i * from, dtype, count);
        status = f2b_copy(place + (size_t)i * to, x->device, piece, F2B_HOST, count * to);
    }
    f2b_free(piece);
    return status;
}

f2b_status f2b_tensor_read_grad(const f2b_tensor *x, void *host)
{
    F2B_CHECK(x->grad != NULL);
    return f2b_copy(host, F2B_HOST, x->grad, x->device, f2b_tensor_bytes(x));
}

int64_t f2b_numel(const f2b_tensor *x)
{
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++) n *= x->shape[i];
    return n;
}

size_t f2b_tensor_bytes(const f2b_tensor *x)
{
    if (f2b_dtype_is_quantised(x->dtype))
        return (size_t)f2b_quant_bytes(x->dtype, x->shape[0], x->shape[1]);
    return (size_t)f2b_numel(x) * f2b_dtype_size(x->dtype);
}

int64_t f2b_dim(const f2b_tensor *x, int i)
{
    const int at = i < 0 ? x->ndim + i : i;
    F2B_CHECK(at >= 0 && at < x->ndim);
    return x->shape[at];
}

int64_t f2b_rows(const f2b_tensor *x)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < x->ndim; i++) n *= x->shape[i];
    return n;
}

bool f2b_same_shape(const f2b_tensor *a, const f2b_tensor *b)
{
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

const char *f2b_tensor_describe(const f2b_tensor *x)
{
    static _Thread_local char ring[4][96];
    static _Thread_local int next;
    char *text = ring[next++ % 4];
    int n = snprintf(text, sizeof ring[0], "[");
    for (int i = 0; i < x->ndim; i++)
        n += snprintf(text + n, sizeof ring[0] - (size_t)n, "%s%lld", i ? ", " : "",
                      (long long)x->shape[i]);
    snprintf(text + n, sizeof ring[0] - (size_t)n, "] %s", f2b_dtype_name(x->dtype));
    return text;
}
