/*
 * What the kernels of a device other than the host take from the allocator beside inputs and outputs
 * (space.h). Each rule says what the *_cuda.cu file of the op allocates. Not counted is the work space of
 * the library that multiplies, up to 32 MiB.
 */
#include <string.h>

#include "autograd/device/device.h"
#include "autograd/ops/attention/attention_internal.h"
#include "autograd/ops/linear/linear_internal.h"
#include "autograd/ops/space_internal.h"

enum { REAL = 4, FP8_SCALE = 4 };          /* bytes of what sums and norms are kept in */

static int64_t size_of(const f2b_node *n) { return (int64_t)f2b_dtype_size(n->dtype); }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A tensor as an operand of a product: where it is, or decoded. */
static int64_t operand(const f2b_node *n, const f2b_tensor *x)
{
    return x == NULL || x->dtype == n->dtype ? 0 : (f2b_numel(x) + 1) * size_of(n);
}

/* Column sums over R rows: a row of sums a chunk (device/cuda/column_sums.cuh). */
static int64_t column_sums(int64_t R, int64_t D)
{
    const int64_t rows = R > 64 * 64 ? (R + 63) / 64 : 64;
    return (R + rows - 1) / rows * D * REAL;
}

static bool wanted(const f2b_node *n, int i) { return n->in[i] != NULL && n->in[i]->requires_grad; }

static f2b_space norm(const f2b_node *n, int64_t kept, bool trained)
{
    const int64_t R = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1);
    return (f2b_space){ .saved = R * kept * REAL, .backward = trained ? column_sums(R, D) : 0 };
}

static f2b_space rms_norm(const f2b_node *n) { return norm(n, 1, wanted(n, 1)); }
static f2b_space layer_norm(const f2b_node *n) { return norm(n, 2, wanted(n, 1) || wanted(n, 2)); }

static f2b_space attention(const f2b_node *n)
{
    const f2b_tensor *q = n->in[ATT_Q];
    const int64_t head_dim = ((const attention_attr *)n->attr)->head_dim;
    const int64_t rows = f2b_dim(q, 0) * (f2b_dim(q, 1) / head_dim);
    return (f2b_space){ .saved = rows * REAL, .backward = rows * REAL };
}

/* The weight as an operand, or the M rows [width] that it is multiplied with as 8-bit floats; and the bare
 * product [M, into], where it is scaled before it is added to what is there. */
static int64_t through_weight(const f2b_node *n, const f2b_tensor *w, int64_t M, int64_t width, int64_t into,
                              bool adds)
{
    if (w->dtype != F2B_FP8) return operand(n, w);
    const bool bare = adds && !f2b_device_scales_fp8(f2b_tape_device(n->tape));
    return M * (width + FP8_SCALE) + (bare ? M * into * size_of(n) : 0);
}

static f2b_space linear(const f2b_node *n)
{
    const linear_attr *attr = n->attr;
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), T = size_of(n);
    int64_t R = 0, loras = 0, forward = 0, back = 0, sums = 0, picked = 0;
    const int64_t rows_back = x->grad_rows != NULL ? x->grad_rows->shape[0] : M;
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *a = n->in[linear_slot(i, LINEAR_A)], *b = n->in[linear_slot(i, LINEAR_B)];
        const f2b_tensor *w = n->in[linear_slot(i, LINEAR_WEIGHT)];
        const f2b_tensor *bias = n->in[linear_slot(i, LINEAR_BIAS)];
        if (a != NULL) R += a->shape[0], loras += (f2b_numel(a) + f2b_numel(b)) * T;
        const int64_t O = w->shape[0];
        forward = most(forward, through_weight(n, w, M, I, O, a != NULL) + operand(n, bias));
        if (wanted(n, LINEAR_X))
            back = most(back, through_weight(n, w, rows_back, O, I, a != NULL || attr->n > 1));
        if (x->grad_rows != NULL) picked += rows_back * O * T;
        if (wanted(n, linear_slot(i, LINEAR_BIAS))) sums = most(sums, column_sums(M, O));
    }
    if (x->grad_rows != NULL) picked += rows_back * (I + R) * T;
    if (R > 0 && attr->has_dropout) loras += M * I * T;
    const int64_t h = M * R * T;
    return (f2b_space){ .saved = h, .forward = most(loras + (n->recorded ? 0 : h), forward),
                        .backward = most(loras + h + picked + back, sums) };
}

static f2b_space head_cross_entropy(const f2b_node *n)
{
    enum { LOGITS = 256 << 20, FEWEST = 16 };
    const int64_t R = f2b_dim(n->in[0], 0), d = f2b_dim(n->in[0], 1), V = f2b_dim(n->in[1], 0);
    const int64_t fit = most(LOGITS / REAL / most(V, 1), FEWEST);
    const int64_t logits = operand(n, n->in[1]) + ((R < fit ? R : fit) * V + 1) * REAL;
    return (f2b_space){ .saved = wanted(n, 0) ? R * d * size_of(n) : 0,
                        .forward = logits + (R + 1) * REAL, .backward = wanted(n, 1) ? logits : 0 };
}

static f2b_space contrastive(const f2b_node *n)
{
    const int64_t B = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    const int64_t work = B * (2 * D + 6 + B) * REAL;
    return (f2b_space){ .saved = work, .forward = n->recorded ? 0 : work,
                        .backward = B * (B + D + 1) * REAL };
}

static f2b_space patch_embedding(const f2b_node *n)
{
    enum { AT_A_TIME = 8 };
    const int64_t *image = n->in[0]->shape, *kernel = n->in[1]->shape;
    const int64_t N = image[0] < AT_A_TIME ? image[0] : AT_A_TIME, K = kernel[1] * kernel[2] * kernel[3];
    const int64_t rows = (N * (image[2] / kernel[2]) * (image[3] / kernel[3]) * K + 1) * size_of(n);
    return (f2b_space){ .forward = rows + operand(n, n->in[1]), .backward = rows };
}

static f2b_space vision_embed(const f2b_node *n)
{
    const int64_t P = f2b_dim(n->in[2], 0), D = f2b_dim(n->in[0], 1), N = f2b_dim(n->out[0], 0) / P;
    return (f2b_space){ .backward = wanted(n, 2) ? column_sums(N, P * D)
                                  : wanted(n, 1) ? column_sums(N, D) : 0 };
}

static const f2bi_space_rule rules[] = {
    { "attention", attention }, { "contrastive", contrastive },
    { "head_cross_entropy", head_cross_entropy }, { "layer_norm", layer_norm },
    { "linear", linear }, { "patch_embedding", patch_embedding }, { "rms_norm", rms_norm },
    { "vision_embed", vision_embed },
};

f2b_space f2bi_device_op_space(const f2b_node *n)
{
    return f2bi_space_by(rules, sizeof rules / sizeof *rules, n);
}
