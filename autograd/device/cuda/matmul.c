/*
 * Matrix products through cuBLASLt (matmul.h). cuBLASLt counts columns first: what is row-major to
 * us is its transpose to it, so that it computes C^T = B^T A^T with the operands as they lie.
 */
#include "autograd/device/cuda/matmul.h"

#include <pthread.h>
#include <string.h>

#include "autograd/device/cuda/cublaslt.h"
#include "autograd/device/cuda/cuda_device.h"

enum { REMEMBERED = 1024, WORKSPACE_BYTES = 32 << 20, BEST_ALIGNMENT = 256 };

/* All that decides which algorithm serves. No padding: compared as bytes. */
typedef struct shape {
    int64_t M, N, K, lda, ldb, ldc;
    uint32_t type, c_type, a_transposed, b_transposed, adds, has_bias;
    uint32_t align_a, align_b, align_c, align_bias;
} shape;

typedef struct choice {
    shape of;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    bool there;
} choice;

typedef struct context {
    cublasLtHandle_t handle;
    choice choices[REMEMBERED];
    int n_choices;
} context;

/* What a call to cuBLASLt needs of a product. */
typedef struct call {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;         /* of our A, B and C */
} call;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static f2bi_cublaslt lt;
static context *contexts[F2BI_CUDA_DEVICES];

static f2b_status refused(const f2bi_matmul *m, const char *what, cublasStatus_t status)
{
    return f2b_fail(F2B_ERR_DEVICE, "%s of [%lld, %lld] times [%lld, %lld] %s failed with status %d",
                    what, (long long)m->M, (long long)m->K, (long long)m->K, (long long)m->N,
                    f2b_dtype_name(m->type), (int)status);
}
#define TRY_LT(m, name, ...)                                                                      \
    do {                                                                                          \
        const cublasStatus_t status_ = lt.name(__VA_ARGS__);                                      \
        if (status_ != CUBLAS_STATUS_SUCCESS) return refused((m), #name, status_);                \
    } while (0)

static cudaDataType_t lt_type(f2b_dtype type)
{
    return type == F2B_F32 ? CUDA_R_32F : type == F2B_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static f2b_status open_context(int index, const f2bi_matmul *m, context **result)
{
    *result = contexts[index];
    if (*result != NULL) return F2B_OK;
    if (lt.cublasLtMatmul == NULL) F2B_TRY(f2bi_cublaslt_load(&lt));
    static context all[F2BI_CUDA_DEVICES];
    TRY_LT(m, cublasLtCreate, &all[index].handle);
    *result = contexts[index] = &all[index];
    return F2B_OK;
}

static uint32_t alignment(const void *place)
{
    const uintptr_t at = (uintptr_t)place | BEST_ALIGNMENT;
    return (uint32_t)(at & -at);
}

static shape shape_of(const f2bi_matmul *m)
{
    shape s;
    memset(&s, 0, sizeof s);
    s.M = m->M, s.N = m->N, s.K = m->K, s.lda = m->lda, s.ldb = m->ldb, s.ldc = m->ldc;
    s.type = m->type, s.c_type = m->c_type;
    s.a_transposed = m->a_transposed, s.b_transposed = m->b_transposed;
    s.adds = m->beta != 0, s.has_bias = m->bias != NULL;
    s.align_a = alignment(m->a), s.align_b = alignment(m->b), s.align_c = alignment(m->c);
    s.align_bias = alignment(m->bias);
    return s;
}

/* ---- The description of a product ---- */

static f2b_status describe(const f2bi_matmul *m, call *c)
{
    const cublasOperation_t a_op = m->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b_op = m->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint64_t M = (uint64_t)m->M, N = (uint64_t)m->N, K = (uint64_t)m->K;
    TRY_LT(m, cublasLtMatmulDescCreate, &c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    TRY_LT(m, cublasLtMatmulDescSetAttribute, c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &b_op,
           sizeof b_op);
    TRY_LT(m, cublasLtMatmulDescSetAttribute, c->desc, CUBLASLT_MATMUL_DESC_TRANSB, &a_op,
           sizeof a_op);
    if (m->bias != NULL) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        const cudaDataType_t type = lt_type(m->c_type);
        TRY_LT(m, cublasLtMatmulDescSetAttribute, c->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
               sizeof epilogue);
        TRY_LT(m, cublasLtMatmulDescSetAttribute, c->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
               &type, sizeof type);
        TRY_LT(m, cublasLtMatmulDescSetAttribute, c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
               &m->bias, sizeof m->bias);
    }
    TRY_LT(m, cublasLtMatrixLayoutCreate, &c->a, lt_type(m->type), m->a_transposed ? M : K,
           m->a_transposed ? K : M, m->lda);
    TRY_LT(m, cublasLtMatrixLayoutCreate, &c->b, lt_type(m->type), m->b_transposed ? K : N,
           m->b_transposed ? N : K, m->ldb);
    TRY_LT(m, cublasLtMatrixLayoutCreate, &c->c, lt_type(m->c_type), N, M, m->ldc);
    return F2B_OK;
}

static void forget(call *c)
{
    if (c->desc != NULL) (void)lt.cublasLtMatmulDescDestroy(c->desc);
    if (c->a != NULL) (void)lt.cublasLtMatrixLayoutDestroy(c->a);
    if (c->b != NULL) (void)lt.cublasLtMatrixLayoutDestroy(c->b);
    if (c->c != NULL) (void)lt.cublasLtMatrixLayoutDestroy(c->c);
}

/* ---- Which algorithm ---- */

static f2b_status set_preference(const f2bi_matmul *m, const shape *s,
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

static f2b_status ask(const context *x, const f2bi_matmul *m, const shape *s, const call *c,
                      cublasLtMatmulPreference_t preference, choice *answer)
{
    F2B_TRY(set_preference(m, s, preference));
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    TRY_LT(m, cublasLtMatmulAlgoGetHeuristic, x->handle, c->desc, c->b, c->a, c->c, c->c, preference,
           1, &best, &found);
    if (found == 0) return refused(m, "cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_NOT_SUPPORTED);
    *answer = (choice){ *s, best.algo, best.workspaceSize, true };
    return F2B_OK;
}

static f2b_status choose(context *x, const f2bi_matmul *m, const call *c, choice *result)
{
    const shape s = shape_of(m);
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < sizeof s; i++) h = (h ^ ((const unsigned char *)&s)[i]) * 0x100000001B3u;
    if (x->n_choices > REMEMBERED / 2) {        /* more shapes than any model has: start again */
        memset(x->choices, 0, sizeof x->choices);
        x->n_choices = 0;
    }
    size_t at = h % REMEMBERED;
    while (x->choices[at].there && memcmp(&x->choices[at].of, &s, sizeof s) != 0)
        at = (at + 1) % REMEMBERED;
    if (!x->choices[at].there) {
        cublasLtMatmulPreference_t preference;
        TRY_LT(m, cublasLtMatmulPreferenceCreate, &preference);
        const f2b_status status = ask(x, m, &s, c, preference, &x->choices[at]);
        (void)lt.cublasLtMatmulPreferenceDestroy(preference);
        F2B_TRY(status);
        x->n_choices++;
    }
    *result = x->choices[at];
    return F2B_OK;
}

/* ---- The product ---- */

static f2b_status multiply(int index, context *x, const f2bi_matmul *m, const call *c)
{
    choice best;
    F2B_TRY(choose(x, m, c, &best));
    void *workspace = NULL;
    if (best.workspace > 0) {
        workspace = f2b_alloc((f2b_device){ F2B_CUDA, index }, best.workspace, F2B_TAG_SCRATCH);
        if (workspace == NULL) return F2B_ERR_MEMORY;
    }
    const cublasStatus_t status =
        lt.cublasLtMatmul(x->handle, c->desc, &m->alpha, m->b, c->b, m->a, c->a, &m->beta, m->c, c->c,
                          m->c, c->c, &best.algo, workspace, best.workspace, f2bi_cuda_stream(index));
    f2b_free(workspace);                        /* its next user comes later on the stream */
    return status == CUBLAS_STATUS_SUCCESS ? F2B_OK : refused(m, "cublasLtMatmul", status);
}

/* An empty sum. */
static f2b_status no_products(int index, const f2bi_matmul *m)
{
    F2B_CHECK(m->bias == NULL);
    for (int64_t r = 0; m->beta == 0 && r < m->M; r++)
        F2B_TRY(f2bi_cuda_zero(index, (char *)m->c + (size_t)(r * m->ldc) * f2b_dtype_size(m->c_type),
                               (size_t)m->N * f2b_dtype_size(m->c_type)));
    return F2B_OK;
}

f2b_status f2bi_cuda_matmul(int index, const f2bi_matmul *m)
{
    F2B_TRY(f2bi_cuda_select(index));
    if (m->M == 0 || m->N == 0) return F2B_OK;
    if (m->K == 0) return no_products(index, m);
    context *x = NULL;
    call c = { NULL, NULL, NULL, NULL };
    pthread_mutex_lock(&lock);
    f2b_status status = open_context(index, m, &x);
    if (status == F2B_OK) status = describe(m, &c);
    if (status == F2B_OK) status = multiply(index, x, m, &c);
    forget(&c);
    pthread_mutex_unlock(&lock);
    return status;
}
