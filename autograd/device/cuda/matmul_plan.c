/*
 * Plans of products (matmul_plan.h). cuBLASLt counts columns first: what is row-major to us is its
 * transpose to it, so that it computes C^T = B^T A^T with the operands as they lie. Its A is our B.
 */
#include "autograd/device/cuda/matmul_plan.h"

#include <string.h>

#include "autograd/device/cuda/cuda_device.h"

enum { REMEMBERED = 1024, WORKSPACE_BYTES = 32 << 20, BEST_ALIGNMENT = 256 };

struct f2bi_plans {
    cublasLtHandle_t handle;
    f2bi_plan plan[REMEMBERED];
    int n;
};

f2bi_cublaslt f2bi_lt;

f2b_status f2bi_matmul_refused(const f2bi_matmul *m, const char *what, cublasStatus_t status)
{
    return f2b_fail(F2B_ERR_DEVICE, "%s of [%lld, %lld] times [%lld, %lld] %s failed with status %d",
                    what, (long long)m->M, (long long)m->K, (long long)m->K, (long long)m->N,
                    f2b_dtype_name(m->type), (int)status);
}
#define TRY_LT(m, name, ...)                                                                      \
    do {                                                                                          \
        const cublasStatus_t status_ = f2bi_lt.name(__VA_ARGS__);                                 \
        if (status_ != CUBLAS_STATUS_SUCCESS) return f2bi_matmul_refused((m), #name, status_);    \
    } while (0)
#define SET(m, desc, name, value)                                                                 \
    TRY_LT(m, cublasLtMatmulDescSetAttribute, desc, CUBLASLT_MATMUL_DESC_##name, &(value), sizeof(value))

f2b_status f2bi_plans_open(int index, const f2bi_matmul *m, f2bi_plans **plans)
{
    static f2bi_plans *all[F2BI_CUDA_DEVICES];
    if (f2bi_lt.cublasLtMatmul == NULL) F2B_TRY(f2bi_cublaslt_load(&f2bi_lt));
    if (all[index] == NULL) {
        static f2bi_plans storage[F2BI_CUDA_DEVICES];
        TRY_LT(m, cublasLtCreate, &storage[index].handle);
        all[index] = &storage[index];
    }
    *plans = all[index];
    return F2B_OK;
}

cublasLtHandle_t f2bi_plans_handle(const f2bi_plans *plans) { return plans->handle; }

static cudaDataType_t lt_type(f2b_dtype type)
{
    switch (type) {
    case F2B_F32: return CUDA_R_32F;
    case F2B_BF16: return CUDA_R_16BF;
    case F2B_F16: return CUDA_R_16F;
    default: F2B_CHECK(type == F2B_FP8); return CUDA_R_8F_E4M3;
    }
}

/* ---- Shapes ---- */

/* Of a place, or of two, their bits together. */
static uint32_t alignment(uintptr_t places)
{
    const uintptr_t at = places | BEST_ALIGNMENT;
    return (uint32_t)(at & -at);
}

static f2bi_shape shape_of(const f2bi_matmul *m, bool outer)
{
    return (f2bi_shape){
        .M = m->M, .N = m->N, .K = m->K, .lda = m->lda, .ldb = m->ldb, .ldc = m->ldc,
        .type = m->type, .c_type = m->c_type, .a_transposed = m->a_transposed,
        .b_transposed = m->b_transposed, .adds = m->beta != 0, .has_bias = m->bias != NULL,
        .outer = outer, .fast = m->fast, .align_a = alignment((uintptr_t)m->a),
        .align_b = alignment((uintptr_t)m->b), .align_c = alignment((uintptr_t)m->c | (uintptr_t)m->from),
        .align_bias = alignment((uintptr_t)m->bias),
    };
}

static size_t place_of(const f2bi_shape *s)
{
    _Static_assert(sizeof *s % 8 == 0 && sizeof *s == 6 * 8 + 12 * 4, "a shape has no padding");
    uint64_t words[sizeof *s / 8], h = 0xCBF29CE484222325u;
    memcpy(words, s, sizeof *s);
    for (size_t i = 0; i < sizeof *s / 8; i++) h = (h ^ words[i] ^ h >> 32) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 32) % REMEMBERED;
}

/* ---- The description of a product ---- */

/* What differs between two products of one shape. */
static f2b_status point(const f2bi_matmul *m, const f2bi_plan *p)
{
    if (m->bias != NULL) SET(m, p->desc, BIAS_POINTER, m->bias);
    if (p->of.outer) {
        SET(m, p->desc, A_SCALE_POINTER, m->b_scales);
        SET(m, p->desc, B_SCALE_POINTER, m->a_scales);
    }
    return F2B_OK;
}

static f2b_status describe(const f2bi_matmul *m, f2bi_plan *p)
{
    const cublasOperation_t a_op = m->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b_op = m->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint64_t M = (uint64_t)m->M, N = (uint64_t)m->N, K = (uint64_t)m->K;
    TRY_LT(m, cublasLtMatmulDescCreate, &p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    SET(m, p->desc, TRANSA, b_op);
    SET(m, p->desc, TRANSB, a_op);
    if (m->bias != NULL) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        const cudaDataType_t type = lt_type(m->c_type);
        SET(m, p->desc, EPILOGUE, epilogue);
        SET(m, p->desc, BIAS_DATA_TYPE, type);
    }
    if (m->fast) {
        const int8_t fast = 1;
        SET(m, p->desc, FAST_ACCUM, fast);
    }
    if (p->of.outer) {
        const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
        SET(m, p->desc, A_SCALE_MODE, mode);
        SET(m, p->desc, B_SCALE_MODE, mode);
    }
    TRY_LT(m, cublasLtMatrixLayoutCreate, &p->a, lt_type(m->type), m->a_transposed ? M : K,
           m->a_transposed ? K : M, m->lda);
    TRY_LT(m, cublasLtMatrixLayoutCreate, &p->b, lt_type(m->type), m->b_transposed ? K : N,
           m->b_transposed ? N : K, m->ldb);
    TRY_LT(m, cublasLtMatrixLayoutCreate, &p->c, lt_type(m->c_type), N, M, m->ldc);
    return point(m, p);
}

static void forget(f2bi_plan *p)
{
    if (p->desc != NULL) (void)f2bi_lt.cublasLtMatmulDescDestroy(p->desc);
    if (p->a != NULL) (void)f2bi_lt.cublasLtMatrixLayoutDestroy(p->a);
    if (p->b != NULL) (void)f2bi_lt.cublasLtMatrixLayoutDestroy(p->b);
    if (p->c != NULL) (void)f2bi_lt.cublasLtMatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

/* ---- Which algorithm ---- */

static f2b_status set_preference(const f2bi_matmul *m, const f2bi_shape *s,
                                 cublasLtMatmulPreference_t preference)
{
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;    /* never in place */
    const struct { cublasLtMatmulPreferenceAttributes_t name; uint32_t value; } all[] = {
        { CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s->align_b },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s->align_a },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s->align_c },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s->align_c },
    };
    TRY_LT(m, cublasLtMatmulPreferenceSetAttribute, preference,
           CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        TRY_LT(m, cublasLtMatmulPreferenceSetAttribute, preference, all[i].name, &all[i].value,
               sizeof all[i].value);
    return F2B_OK;
}

static f2b_status ask(const f2bi_plans *all, const f2bi_matmul *m, f2bi_plan *p,
                      cublasLtMatmulPreference_t preference)
{
    F2B_TRY(set_preference(m, &p->of, preference));
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    TRY_LT(m, cublasLtMatmulAlgoGetHeuristic, all->handle, p->desc, p->b, p->a, p->c, p->c, preference,
           1, &best, &found);
    if (found == 0)
        return f2bi_matmul_refused(m, "cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_NOT_SUPPORTED);
    p->algo = best.algo, p->workspace = best.workspaceSize;
    return F2B_OK;
}

static f2b_status make(const f2bi_plans *all, const f2bi_matmul *m, f2bi_plan *p)
{
    cublasLtMatmulPreference_t preference;
    F2B_TRY(describe(m, p));
    TRY_LT(m, cublasLtMatmulPreferenceCreate, &preference);
    const f2b_status status = ask(all, m, p, preference);
    (void)f2bi_lt.cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

f2b_status f2bi_plan_of(f2bi_plans *all, const f2bi_matmul *m, bool outer, f2bi_plan **plan)
{
    const f2bi_shape s = shape_of(m, outer);
    if (all->n > REMEMBERED / 2) {      /* tokens a batch differ, so new shapes go on coming */
        for (int i = 0; i < REMEMBERED; i++) forget(&all->plan[i]);
        all->n = 0;
    }
    f2bi_plan *p = &all->plan[place_of(&s)];
    while (p->there && memcmp(&p->of, &s, sizeof s) != 0)
        p = p + 1 < all->plan + REMEMBERED ? p + 1 : all->plan;
    *plan = p;
    if (p->there) return p->refused ? F2B_OK : point(m, p);
    p->of = s;
    const f2b_status status = make(all, m, p);
    if (status != F2B_OK) forget(p);
    if (status != F2B_OK && !outer) return status;
    if (status != F2B_OK) f2b_clear_error();
    p->of = s, p->there = true, p->refused = status != F2B_OK;
    all->n++;
    return F2B_OK;
}
