/* Matrix products through cuBLASLt (matmul.h). How it is told of them: matmul_plan.c. */
#include "autograd/device/cuda/matmul.h"

#include <pthread.h>

#include "autograd/device/cuda/cuda_device.h"
#include "autograd/device/cuda/matmul_plan.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* *refused, where it is given: cuBLASLt does not do this, and has done nothing. */
static f2b_status run(int index, const f2bi_plans *plans, const f2bi_plan *p, const f2bi_matmul *m,
                      bool *refused)
{
    void *workspace = NULL;
    if (p->workspace > 0) {
        workspace = f2b_alloc((f2b_device){ F2B_CUDA, index }, p->workspace, F2B_TAG_SCRATCH);
        if (workspace == NULL) return F2B_ERR_MEMORY;
    }
    const cublasStatus_t status =
        f2bi_lt.cublasLtMatmul(f2bi_plans_handle(plans), p->desc, &m->alpha, m->b, p->b, m->a, p->a,
                               &m->beta, f2bi_matmul_from(m), p->c, m->c, p->c, &p->algo, workspace, p->workspace,
                               f2bi_cuda_stream(index));
    f2b_free(workspace);                        /* its next user comes later on the stream */
    if (refused != NULL)
        *refused = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
    if (status == CUBLAS_STATUS_SUCCESS || (refused != NULL && *refused)) return F2B_OK;
    return f2bi_matmul_refused(m, "cublasLtMatmul", status);
}

static f2b_status multiply(int index, f2bi_plans *plans, const f2bi_matmul *m)
{
    f2bi_plan *p;
    F2B_TRY(f2bi_plan_of(plans, m, false, &p));
    return run(index, plans, p, m, NULL);
}

/* ---- fp8 ---- */

/* The codes' product first, in C itself unless what it holds is added; then scales, what is added and bias. */
static f2b_status multiply_then_scale(int index, f2bi_plans *plans, const f2bi_matmul *m)
{
    f2bi_matmul bare = *m;
    void *scratch = NULL;
    bare.alpha = 1, bare.beta = 0, bare.from = bare.bias = NULL;
    if (m->beta != 0 && f2bi_matmul_from(m) == m->c) {
        scratch = f2b_alloc((f2b_device){ F2B_CUDA, index },
                            (size_t)(m->M * m->N) * f2b_dtype_size(m->c_type), F2B_TAG_SCRATCH);
        if (scratch == NULL) return F2B_ERR_MEMORY;
        bare.c = scratch, bare.ldc = m->N;
    }
    f2b_status status = multiply(index, plans, &bare);
    if (status == F2B_OK) status = f2bi_scale_product_cuda_bf16(index, m, bare.c, bare.ldc);
    f2b_free(scratch);
    return status;
}

/* cuBLASLt may find an algorithm and still refuse to run it: that is remembered as well. */
static f2b_status multiply_fp8(int index, f2bi_plans *plans, const f2bi_matmul *m)
{
    F2B_CHECK(!m->a_transposed && m->b_transposed && m->c_type == F2B_BF16);
    F2B_CHECK(m->a_scales != NULL && m->b_scales != NULL);
    f2bi_plan *p;
    F2B_TRY(f2bi_plan_of(plans, m, true, &p));
    if (!p->refused) F2B_TRY(run(index, plans, p, m, &p->refused));
    return p->refused ? multiply_then_scale(index, plans, m) : F2B_OK;
}

bool f2bi_cuda_scales_fp8(int index)
{
    enum { SIDE = 128 };
    static const float scales[SIDE];            /* of which only the place is asked for */
    const f2bi_matmul m = { .M = SIDE, .N = SIDE, .K = SIDE, .type = F2B_FP8, .lda = SIDE, .ldb = SIDE,
                            .b_transposed = true, .ldc = SIDE, .c_type = F2B_BF16, .alpha = 1, .beta = 1,
                            .a_scales = scales, .b_scales = scales };
    f2bi_plans *plans;
    f2bi_plan *p = NULL;
    pthread_mutex_lock(&lock);
    f2b_status status = f2bi_cuda_select(index);
    if (status == F2B_OK) status = f2bi_plans_open(index, &m, &plans);
    if (status == F2B_OK) status = f2bi_plan_of(plans, &m, true, &p);
    const bool does = status == F2B_OK && !p->refused;
    pthread_mutex_unlock(&lock);
    if (status != F2B_OK) f2b_clear_error();    /* the first product says it */
    return does;
}

/* ---- The product ---- */

/* An empty sum. */
static f2b_status no_products(int index, const f2bi_matmul *m)
{
    const char *from = f2bi_matmul_from(m);
    F2B_CHECK(m->bias == NULL && (m->beta == 0 || m->beta == 1));
    if (m->beta == 1 && from == m->c) return F2B_OK;
    const size_t size = f2b_dtype_size(m->c_type), bytes = (size_t)m->N * size;
    for (int64_t r = 0; r < m->M; r++) {
        const size_t at = (size_t)(r * m->ldc) * size;
        F2B_TRY(m->beta == 0 ? f2bi_cuda_zero(index, (char *)m->c + at, bytes)
                             : f2bi_cuda_copy_within(index, (char *)m->c + at, from + at, bytes));
    }
    return F2B_OK;
}

f2b_status f2bi_cuda_matmul(int index, const f2bi_matmul *m)
{
    F2B_TRY(f2bi_cuda_select(index));
    if (m->M == 0 || m->N == 0) return F2B_OK;
    if (m->K == 0) return no_products(index, m);
    f2bi_plans *plans = NULL;
    pthread_mutex_lock(&lock);
    f2b_status status = f2bi_plans_open(index, m, &plans);
    if (status == F2B_OK)
        status = m->type == F2B_FP8 ? multiply_fp8(index, plans, m) : multiply(index, plans, m);
    pthread_mutex_unlock(&lock);
    return status;
}
