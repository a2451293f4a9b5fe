/* See space.h. Each rule says what the kernel of the same name allocates. */
#include "autograd/ops/space.h"

#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "autograd/ops/attention/attention_internal.h"
#include "autograd/ops/dropout/dropout_internal.h"
#include "autograd/ops/head_cross_entropy/head_cross_entropy_internal.h"
#include "autograd/ops/linear/linear_internal.h"
#include "autograd/ops/space_internal.h"

static int64_t size_of(const f2b_node *n) { return (int64_t)f2b_dtype_size(n->dtype); }

/* Of what sums and norms are kept in. */
static int64_t real_size(const f2b_node *n) { return n->dtype == F2B_F64 ? 8 : 4; }

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Rows by weights of which, together, k are summed over, and by `more` of a LoRA; the rows may be made on the way. */
static int64_t product_by(const f2b_node *n, int64_t M, int64_t N, int64_t k, bool packed, int64_t more, bool made)
{
    return f2bi_gemm_space(n->dtype, &(f2b_gemm_shape){ .M = M, .N = N, .k = k + more, .packed = packed ? k : 0,
                                                        .made = made ? k : 0, .c_type = n->dtype });
}

static int64_t product(const f2b_node *n, int64_t M, int64_t N, int64_t k)
{
    return product_by(n, M, N, k, false, 0, false);
}

/* A gradient [M,N] of what is trained: a sum over all rows. */
static int64_t over_rows(const f2b_node *n, int64_t M, int64_t N, int64_t rows)
{
    const f2b_dtype real = n->dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    return f2bi_gemm_space(n->dtype, &(f2b_gemm_shape){ .M = M, .N = N, .k = rows, .turned = true, .c_type = real });
}

static f2b_space norm(const f2b_node *n, int64_t kept)
{
    const int64_t R = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1) * real_size(n);
    return (f2b_space){ R * kept * real_size(n), 2 * D, 2 * D };
}

static f2b_space rms_norm(const f2b_node *n) { return norm(n, 1); }
static f2b_space layer_norm(const f2b_node *n) { return norm(n, 2); }

/* Bytes of dropout's mask: a bit an element. */
static int64_t mask_of(int64_t M, int64_t I) { return M * f2bi_dropout_words(I) * (int64_t)sizeof(uint16_t); }

static f2b_space dropout(const f2b_node *n)
{
    const int64_t bytes = mask_of(f2b_rows(n->in[0]), f2b_dim(n->in[0], -1));
    return (f2b_space){ .saved = bytes, .forward = n->recorded ? 0 : bytes };
}

static f2b_space linear(const f2b_node *n)
{
    const linear_attr *attr = n->attr;
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), T = size_of(n), real = real_size(n);
    int64_t R = 0, widest = 0, out = 0, beside = 0;
    bool packed = true;
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *a = n->in[linear_slot(i, LINEAR_A)], *w = n->in[linear_slot(i, LINEAR_WEIGHT)];
        const int64_t O = w->shape[0];
        R += a != NULL ? a->shape[0] : 0;
        out += O;
        widest = most(widest, O);
        packed &= w->packed != NULL;
        if (w->requires_grad) beside = most(beside, over_rows(n, O, I, M));
        if (a != NULL) beside = most(beside, over_rows(n, a->shape[0], O, M));
        if (a != NULL) beside = most(beside, product(n, M, a->shape[0], O));
    }
    if (R > 0) beside = most(beside, over_rows(n, R, I, M));
    const int64_t to_h = R > 0 ? product(n, M, R, I) : 0;
    const int64_t dropped = R > 0 && attr->has_dropout ? M * I * T : 0, mask = dropped > 0 ? mask_of(M, I) : 0;
    const int64_t few = x->grad_rows != NULL ? x->grad_rows->shape[0] : M;
    const int64_t picked = few < M ? few * (I + R + out) * T : 0;
    return (f2b_space){
        .saved = M * R * T + mask,
        .forward = R * I * real + dropped + (n->recorded ? 0 : M * R * T + mask) +
                   most(to_h, product_by(n, M, widest, I, packed, R, false)),
        .backward = M * R * T + 2 * R * I * real + dropped +
                    most(beside, x->requires_grad ? picked + product_by(n, few, I, out, packed, R, false) : 0),
    };
}

/* Backward's own room depends on the gradients that are asked for then. */
static f2b_space gated_linear(const f2b_node *n)
{
    const f2b_tensor *w = n->in[linear_slot(0, LINEAR_WEIGHT)];
    const int64_t M = f2b_rows(n->in[LINEAR_X]), I = w->shape[1], O = w->shape[0], R = linear_rank_sum(n);
    const bool packed = w->packed != NULL, drops = ((const linear_attr *)n->attr)->has_dropout;
    f2b_space s = { .saved = M * R * size_of(n) + (drops ? mask_of(M, I) : 0) };
    switch (n->dtype) {
    case F2B_F32:
        s.forward = f2bi_gated_linear_room_f32(n), s.backward = f2bi_gated_linear_back_room_f32(n);
        break;
    case F2B_F64:
        s.forward = f2bi_gated_linear_room_f64(n), s.backward = f2bi_gated_linear_back_room_f64(n);
        break;
    default:
        s.forward = f2bi_gated_linear_room_bf16(n), s.backward = f2bi_gated_linear_back_room_bf16(n);
    }
    int64_t beside = w->requires_grad ? over_rows(n, O, I, M) : 0;
    if (R > 0) beside = most(most(beside, over_rows(n, R, O, M)), most(product(n, M, R, O), over_rows(n, R, I, M)));
    if (n->wants & (1u << LINEAR_X | 1u << LINEAR_UP))
        beside = most(beside, product_by(n, M, I, O, packed, drops ? 0 : R, false));
    s.forward += product_by(n, M, O, I, packed, R, true);
    s.backward += beside;
    return s;
}

static f2b_space attention(const f2b_node *n)
{
    const attention_attr *attr = n->attr;
    const int64_t rows = f2b_dim(n->in[ATT_Q], 0) * (f2b_dim(n->in[ATT_Q], 1) / attr->head_dim);
    f2b_space s = { .saved = rows * real_size(n) };
    switch (n->dtype) {
    case F2B_F32:
        s.forward = f2bi_attention_forward_space_f32(n), s.backward = f2bi_attention_backward_space_f32(n);
        break;
    case F2B_F64:
        s.forward = f2bi_attention_forward_space_f64(n), s.backward = f2bi_attention_backward_space_f64(n);
        break;
    default:
        s.forward = f2bi_attention_forward_space_bf16(n), s.backward = f2bi_attention_backward_space_bf16(n);
    }
    return s;
}

static f2b_space head_cross_entropy(const f2b_node *n)
{
    const int64_t R = f2b_dim(n->in[0], 0), d = f2b_dim(n->in[0], 1), V = f2b_dim(n->in[1], 0);
    const bool packed = n->in[1]->packed != NULL;
    const int64_t chunk = f2bi_head_chunk(R, V, real_size(n), packed), room = chunk * (V + d + 1) * real_size(n);
    const int64_t logits = product_by(n, chunk, V, d, packed, 0, false);
    return (f2b_space){
        .saved = n->in[0]->requires_grad ? R * d * size_of(n) : 0,
        .forward = room + R * (int64_t)sizeof(double) + most(logits, product_by(n, chunk, d, V, packed, 0, false)),
        .backward = n->in[1]->requires_grad ? room + most(logits, over_rows(n, V, d, chunk)) : 0,
    };
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
    const int64_t laid_out = patches * K * real_size(n);    /* in f32, which bf16 packs to round it */
    const f2b_gemm_shape forward = { .M = patches, .N = kernel[0], .k = K, .turned = n->dtype == F2B_BF16,
                                     .c_type = n->dtype == F2B_BF16 ? F2B_F32 : n->dtype };
    return (f2b_space){
        .forward = laid_out + f2bi_gemm_space(n->dtype, &forward),
        .backward = laid_out + over_rows(n, kernel[0], K, patches),
    };
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
    { "attention", attention }, { "contrastive", contrastive }, { "dropout", dropout },
    { "gated_linear", gated_linear }, { "head_cross_entropy", head_cross_entropy },
    { "layer_norm", layer_norm }, { "linear", linear }, { "patch_embedding", patch_embedding },
    { "rms_norm", rms_norm }, { "rows_assemble", rows }, { "rows_gather", rows },
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
