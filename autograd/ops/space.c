/* See space.h. Each rule says what the kernel of the same name allocates. */
#include "autograd/ops/space.h"

#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/threads.h"
#include "autograd/ops/attention/attention_internal.h"
#include "autograd/ops/linear/linear_internal.h"
#include "autograd/ops/space_internal.h"

static int64_t size_of(const f2b_node *n) { return (int64_t)f2b_dtype_size(n->dtype); }

/* Of what sums and norms are kept in. */
static int64_t real_size(const f2b_node *n) { return n->dtype == F2B_F64 ? 8 : 4; }

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A product of M rows with k rows of B and N columns: packed panels, and a block and a tile a thread. Few
 * rows over a large B have panels and a tile of 128 columns a thread instead. */
static int64_t product(const f2b_node *n, int64_t M, int64_t N, int64_t k)
{
    enum { SLAB = 8 << 20, NARROWEST = 128, BLOCK = 512 << 10, PASS = 2816 };
    const int64_t all = N * k * size_of(n), narrow = NARROWEST * k * size_of(n);
    if (M <= F2BI_GEMM_FEW_ROWS && all > F2BI_GEMM_LARGE_B)
        return (NARROWEST * (PASS + M * real_size(n))) * f2b_threads() + N * real_size(n);
    const int64_t packed = all < SLAB ? all : most(SLAB, narrow);
    return packed + BLOCK * f2b_threads() + N * real_size(n);
}

static f2b_space norm(const f2b_node *n, int64_t kept)
{
    const int64_t R = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1) * real_size(n);
    return (f2b_space){ R * kept * real_size(n), 2 * D, 2 * D };
}

static f2b_space rms_norm(const f2b_node *n) { return norm(n, 1); }
static f2b_space layer_norm(const f2b_node *n) { return norm(n, 2); }

static f2b_space linear(const f2b_node *n)
{
    const linear_attr *attr = n->attr;
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), T = size_of(n), real = real_size(n);
    int64_t R = 0, widest = 0, out = 0;
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *a = n->in[linear_slot(i, LINEAR_A)];
        R += a != NULL ? a->shape[0] : 0;
        out += f2b_dim(n->out[i], -1);
        widest = most(widest, f2b_dim(n->out[i], -1));
    }
    const int64_t dropped = R > 0 && attr->has_dropout ? M * I * T : 0;
    const int64_t picked = x->grad_rows != NULL ? x->grad_rows->shape[0] * (I + R + out) * T : 0;
    return (f2b_space){
        .saved = M * R * T,
        .forward = R * I * real + dropped + M * R * T + product(n, M, widest, I),
        .backward = (M * R + 2 * R * I) * real + dropped + picked + product(n, M, I, out),
    };
}

/* Keys and values of one sequence a thread, packed and as sums. */
static f2b_space attention(const f2b_node *n)
{
    const attention_attr *attr = n->attr;
    const int64_t D = attr->head_dim, Tq = f2b_dim(n->in[ATT_Q], 0);
    const int64_t heads = f2b_dim(n->in[ATT_Q], 1) / D;
    const int32_t *count = n->in[ATT_K_COUNT]->data;
    int64_t longest = 0;
    for (int64_t s = 0; s < f2b_numel(n->in[ATT_K_COUNT]); s++) longest = most(longest, count[s]);
    const int64_t column = f2b_threads() * longest * real_size(n);
    return (f2b_space){ heads * Tq * real_size(n), column * (2 * D + 64), column * (5 * D + 128) };
}

static f2b_space head_cross_entropy(const f2b_node *n)
{
    enum { LOGITS = 64 << 20, FEWEST = 16 };
    const int64_t R = f2b_dim(n->in[0], 0), d = f2b_dim(n->in[0], 1), V = f2b_dim(n->in[1], 0);
    const int64_t fit = most(LOGITS / real_size(n) / most(V, 1), FEWEST);
    const int64_t forward = (R < fit ? R : fit) * (V + d + 1) * real_size(n) +
                            R * (int64_t)sizeof(double) + product(n, R < fit ? R : fit, V, d);
    return (f2b_space){ .saved = n->in[0]->requires_grad ? R * d * size_of(n) : 0,
                        .forward = forward,
                        .backward = n->in[1]->requires_grad ? forward : 0 };
}

static f2b_space contrastive(const f2b_node *n)
{
    const int64_t B = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1), real = real_size(n);
    const int64_t work = 2 * B * (int64_t)sizeof(double) + B * (2 * D + 4 + B) * real;
    return (f2b_space){ .saved = work,
                        .forward = product(n, B, B, D) + (n->recorded ? 0 : work),
                        .backward = B * (int64_t)sizeof(double) + B * D * real + product(n, B, D, B) };
}

static f2b_space patch_embedding(const f2b_node *n)
{
    enum { AT_A_TIME = 8 };
    const int64_t *image = n->in[0]->shape, *kernel = n->in[1]->shape;
    const int64_t N = image[0] < AT_A_TIME ? image[0] : AT_A_TIME;
    const int64_t K = kernel[1] * kernel[2] * kernel[3];
    const int64_t patches = N * (image[2] / kernel[2]) * (image[3] / kernel[3]);
    const int64_t work = patches * K * real_size(n) + product(n, patches, kernel[0], K);
    return (f2b_space){ 0, work, work };
}

/* Which rows of the result come from each row of the sources. */
static f2b_space rows(const f2b_node *n)
{
    int64_t longest = 0;
    for (int i = 0; i + 1 < n->n_in; i++)
        if (n->in[i] != NULL) longest = most(longest, f2b_dim(n->in[i], 0));
    return (f2b_space){ 0, 0, (longest + 2 + f2b_dim(n->out[0], 0)) * (int64_t)sizeof(int64_t) };
}

static const f2bi_space_rule rules[] = {
    { "attention", attention }, { "contrastive", contrastive },
    { "head_cross_entropy", head_cross_entropy }, { "layer_norm", layer_norm },
    { "linear", linear }, { "patch_embedding", patch_embedding }, { "rms_norm", rms_norm },
    { "rows_assemble", rows }, { "rows_gather", rows },
};

f2b_space f2bi_space_by(const f2bi_space_rule *all, size_t n_rules, const f2b_node *n)
{
    for (size_t i = 0; i < n_rules; i++)
        if (strcmp(n->op->name, all[i].op) == 0) return all[i].rule(n);
    return (f2b_space){ 0 };
}

f2b_space f2b_op_space(const f2b_node *n)
{
    if (f2b_tape_device(n->tape).kind != F2B_CPU) return f2bi_device_op_space(n);
    return f2bi_space_by(rules, sizeof rules / sizeof *rules, n);
}
