/*
 * cuBLASLt by plain loops, holding its callers to the library's rules: operands of one type, leading
 * dimensions, alignment as promised, a bias of the result's type. Of 8-bit floats: devices from sm_89,
 * A turned and B not, sides and places in sixteens, scales a row on sm_90 alone (cuBLAS documentation,
 * cublasLtMatmul and "Outer Vector Scaling").
 */
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/dtype.h"
#include "autograd/core/e4m3.h"
#include "autograd/device/cuda/cublaslt.h"
#include "tests/emulation/emulation_internal.h"

struct cublasLtContext { int open; };
struct cublasLtMatmulDesc {
    cublasOperation_t transpose[2];
    cublasLtEpilogue_t epilogue;
    const void *bias;
    cudaDataType_t bias_type;
    int8_t fast;
    int32_t scale_mode[2];
    const float *scale[2];
};
struct cublasLtMatrixLayout {
    cudaDataType_t type;
    int64_t rows, columns, ld;
};
struct cublasLtMatmulPreference { uint32_t reductions, align[4]; };

/* What a heuristic promises of pointers, kept where the real library keeps its algorithm. */
enum { MARK = 0xF2B0, WORKSPACE = 1024 };

int f2b_emu_capability = 90;
static int refuses_late;
void f2b_emulation_set_capability(int capability) { f2b_emu_capability = capability; }
void f2b_emulation_refuse_late(int on) { refuses_late = on; }

static cublasStatus_t make(void **object, size_t bytes)
{
    *object = calloc(1, bytes);
    return *object != NULL ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

static cublasStatus_t destroy(void *object)
{
    free(object);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    static struct cublasLtContext only;
    *handle = &only;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    return make((void **)desc, sizeof **desc);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: memcpy(&desc->transpose[0], value, bytes); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: memcpy(&desc->transpose[1], value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: memcpy(&desc->epilogue, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: memcpy(&desc->bias, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: memcpy(&desc->bias_type, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM: memcpy(&desc->fast, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: memcpy(&desc->scale_mode[0], value, bytes); break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: memcpy(&desc->scale_mode[1], value, bytes); break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: memcpy(&desc->scale[0], value, bytes); break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: memcpy(&desc->scale[1], value, bytes); break;
    default: return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    if (rows == 0 || columns == 0 || ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = make((void **)layout, sizeof **layout);
    if (status == CUBLAS_STATUS_SUCCESS)
        **layout = (struct cublasLtMatrixLayout){ type, (int64_t)rows, (int64_t)columns, ld };
    return status;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return make((void **)preference, sizeof **preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return destroy(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return CUBLAS_STATUS_SUCCESS;
    if (bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t *place = attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK
                          ? &preference->reductions
                          : &preference->align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES];
    memcpy(place, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static bool outer(const struct cublasLtMatmulDesc *desc)
{
    return desc->scale_mode[0] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
           && desc->scale_mode[1] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
}

static bool takes_fp8(const struct cublasLtMatmulDesc *desc, const struct cublasLtMatrixLayout *a,
                      const struct cublasLtMatrixLayout *b, const struct cublasLtMatrixLayout *d,
                      const uint32_t align[4])
{
    const bool scaled = desc->scale_mode[0] != 0 || desc->scale_mode[1] != 0;
    if (f2b_emu_capability < 89 || (scaled && (f2b_emu_capability != 90 || !outer(desc)))) return false;
    return desc->transpose[0] == CUBLAS_OP_T && desc->transpose[1] == CUBLAS_OP_N
           && a->rows % 16 == 0 && a->columns % 16 == 0 && a->ld % 16 == 0 && b->ld % 16 == 0
           && d->ld % 8 == 0 && d->type == CUDA_R_16BF && align[0] % 16 == 0 && align[1] % 16 == 0
           && align[2] % 16 == 0;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
    cublasLtMatmulHeuristicResult_t results[], int *found)
{
    (void)handle, (void)c, (void)wanted;
    *found = 0;
    f2b_emu_counts.heuristics++;
    const bool fp8 = a->type == CUDA_R_8F_E4M3;
    if (a->type != b->type || (!fp8 && (d->type != a->type && d->type != CUDA_R_32F))
        || (fp8 && !takes_fp8(desc, a, b, d, preference->align)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (preference->reductions & CUBLASLT_REDUCTION_SCHEME_INPLACE)
        f2b_emu_fault("cuBLASLt may add in order of arrival");
    memset(results, 0, sizeof *results);
    results->algo.data[0] = MARK;
    for (int i = 0; i < 4; i++) results->algo.data[1 + i] = preference->align[i];
    results->workspaceSize = WORKSPACE;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

typedef struct product {
    struct cublasLtMatmulDesc desc;
    struct cublasLtMatrixLayout la, lb, lc;     /* lc: of C and D */
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
} product;

static double element(const void *x, cudaDataType_t type, int64_t i)
{
    if (type == CUDA_R_32F) return (double)((const float *)x)[i];
    if (type == CUDA_R_8F_E4M3) return (double)f2b_e4m3_to_f32(((const f2b_e4m3 *)x)[i]);
    const uint16_t bits = ((const uint16_t *)x)[i];
    return (double)(type == CUDA_R_16BF ? f2b_bf16_to_f32(bits) : f2b_f16_to_f32(bits));
}

static void put_element(void *x, cudaDataType_t type, int64_t i, float value)
{
    if (type == CUDA_R_32F) ((float *)x)[i] = value;
    else ((uint16_t *)x)[i] = type == CUDA_R_16BF ? f2b_f32_to_bf16(value) : f2b_f32_to_f16(value);
}

/* Runs as a kernel of one thread, in the stream's order. */
static void compute(const void *arguments)
{
    const product *p = arguments;
    const bool ta = p->desc.transpose[0] == CUBLAS_OP_T, tb = p->desc.transpose[1] == CUBLAS_OP_T;
    const int64_t K = ta ? p->la.rows : p->la.columns;
    for (int64_t n = 0; n < p->lc.columns; n++)
        for (int64_t m = 0; m < p->lc.rows; m++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum += element(p->a, p->la.type, ta ? k + m * p->la.ld : m + k * p->la.ld)
                       * element(p->b, p->lb.type, tb ? n + k * p->lb.ld : k + n * p->lb.ld);
            const int64_t at = m + n * p->lc.ld;
            sum *= (double)p->alpha;
            if (outer(&p->desc)) sum *= (double)p->desc.scale[0][m] * (double)p->desc.scale[1][n];
            if (p->beta != 0) sum += (double)p->beta * element(p->c, p->lc.type, at);
            if (p->desc.epilogue == CUBLASLT_EPILOGUE_BIAS)
                sum += element(p->desc.bias, p->desc.bias_type, m);
            put_element(p->d, p->lc.type, at, (float)sum);
        }
}

static void check(const product *p, const cublasLtMatmulAlgo_t *algo)
{
    const void *places[] = { p->a, p->b, p->c, p->d };
    if (algo == NULL || algo->data[0] != MARK) f2b_emu_fault("cublasLtMatmul without an algorithm");
    for (int i = 0; i < 4; i++) {
        if (!f2b_emulation_owns(places[i])) f2b_emu_fault("cublasLtMatmul got memory of the host");
        if (algo->data[1 + i] == 0 || (uintptr_t)places[i] % algo->data[1 + i] != 0)
            f2b_emu_fault("cublasLtMatmul: operand %d is less aligned than was promised", i);
    }
    if (p->desc.epilogue == CUBLASLT_EPILOGUE_BIAS
        && (!f2b_emulation_owns(p->desc.bias) || p->desc.bias_type != p->lc.type))
        f2b_emu_fault("cublasLtMatmul: the bias is not of the result's type, or not on the device");
    for (int i = 0; i < 2; i++)
        if (p->desc.scale_mode[i] != 0 && !f2b_emulation_owns(p->desc.scale[i]))
            f2b_emu_fault("cublasLtMatmul: a scale is not on the device");
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
    const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
    cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
    cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
    const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    (void)handle;
    product p = { *desc, *a_layout, *b_layout, *d_layout, a, b, c, d, *(const float *)alpha,
                  *(const float *)beta };
    const bool ta = desc->transpose[0] == CUBLAS_OP_T, tb = desc->transpose[1] == CUBLAS_OP_T;
    const int64_t m = ta ? p.la.columns : p.la.rows, k = ta ? p.la.rows : p.la.columns;
    const int64_t n = tb ? p.lb.rows : p.lb.columns, k_of_b = tb ? p.lb.columns : p.lb.rows;
    if (k != k_of_b || m != p.lc.rows || n != p.lc.columns || c_layout->ld != p.lc.ld
        || c_layout->type != p.lc.type)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (outer(desc) && refuses_late) return CUBLAS_STATUS_INVALID_VALUE;
    if (outer(desc) && f2b_emu_capability != 90) f2b_emu_fault("cublasLtMatmul: scales a row are for sm_90");
    check(&p, algo);
    if (workspace_bytes < WORKSPACE || !f2b_emulation_owns(workspace))
        f2b_emu_fault("cublasLtMatmul: the workspace is too small");
    const f2b_emu_launch launch = { .name = "cublasLtMatmul", .grid = { 1, 1, 1 },
                                    .block = { 1, 1, 1 }, .body = compute };
    f2b_emu_enqueue(&launch, &p, sizeof p, stream);
    return CUBLAS_STATUS_SUCCESS;
}

f2b_status f2bi_cublaslt_load(f2bi_cublaslt *functions)
{
#define F2BI_X(name) functions->name = name;
    F2BI_CUBLASLT_FUNCTIONS(F2BI_X)
#undef F2BI_X
    return F2B_OK;
}
