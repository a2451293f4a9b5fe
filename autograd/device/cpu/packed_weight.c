/* See packed_weight.h. */
#include "autograd/device/cpu/packed_weight.h"

#include "autograd/device/cpu/gemm.h"

static int64_t elements(f2b_dtype compute, int64_t k, int64_t N)
{
    return compute == F2B_F64 ? f2bi_gemm_packed_elements_f64(k, N)
         : compute == F2B_BF16 ? f2bi_gemm_packed_elements_bf16(k, N) : f2bi_gemm_packed_elements_f32(k, N);
}

static void pack(f2b_dtype compute, void *packed, const f2b_gemm_term *t, int64_t first, int64_t n)
{
    switch (compute) {
    case F2B_F64: f2bi_gemm_pack_f64(packed, t, first, n); break;
    case F2B_BF16: f2bi_gemm_pack_bf16(packed, t, first, n); break;
    default: f2bi_gemm_pack_f32(packed, t, first, n);
    }
}

/* B [t->k, N] in a block of its own; columns are shared out in whole panels. NULL: no memory. */
static void *packed_b(f2b_dtype compute, const f2b_gemm_term *t, int64_t N)
{
    enum { PART = 128 };                /* columns: whole panels of every type */
    const int64_t size = (int64_t)f2b_dtype_size(compute);
    char *packed = f2b_alloc_host((size_t)(elements(compute, t->k, N) * size), F2B_TAG_WEIGHTS);
    if (packed == NULL) return NULL;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n += PART)
        pack(compute, packed + elements(compute, t->k, n) * size, t, n, N - n < PART ? N - n : PART);
    return packed;
}

int64_t f2b_packed_weight_bytes(const f2b_tensor *w, f2b_dtype compute)
{
    if (w->ndim != 2 || w->requires_grad || w->device.kind != F2B_CPU || !f2b_dtype_is_float(w->dtype)) return 0;
    return (elements(compute, w->shape[1], w->shape[0]) + elements(compute, w->shape[0], w->shape[1])) *
           (int64_t)f2b_dtype_size(compute);
}

f2b_status f2b_packed_weight_plan(f2b_tensor *w, f2b_dtype compute)
{
    if (f2b_packed_weight_bytes(w, compute) == 0 || w->packed != NULL) return F2B_OK;
    w->packed = f2b_calloc(1, sizeof *w->packed, F2B_TAG_OTHER);
    if (w->packed == NULL) return F2B_ERR_MEMORY;
    w->packed->compute = compute;
    return F2B_OK;
}

f2b_status f2b_packed_weight_make(f2b_tensor *w, f2b_dtype compute)
{
    if (w->packed != NULL && w->packed->forward != NULL) return F2B_OK;
    F2B_TRY(f2b_packed_weight_plan(w, compute));
    if (w->packed == NULL) return F2B_OK;
    const int64_t O = w->shape[0], I = w->shape[1];
    const f2b_gemm_term forward = { .b = w->data, .b_type = w->dtype, .b_row = 1, .b_col = I, .k = I };
    const f2b_gemm_term backward = { .b = w->data, .b_type = w->dtype, .b_row = I, .b_col = 1, .k = O };
    w->packed->compute = compute;
    w->packed->forward = packed_b(compute, &forward, O);
    w->packed->backward = packed_b(compute, &backward, I);
    if (w->packed->forward != NULL && w->packed->backward != NULL) return F2B_OK;
    f2b_packed_weight_free(w);
    return F2B_ERR_MEMORY;
}

void f2b_packed_weight_free(f2b_tensor *w)
{
    if (w->packed == NULL) return;
    f2b_free(w->packed->forward);
    f2b_free(w->packed->backward);
    f2b_free(w->packed);
    w->packed = NULL;
}
