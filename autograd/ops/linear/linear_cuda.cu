/*
 * CUDA kernels of linear: products of cuBLASLt. Legend: M rows, I in, O out, r rank of one LoRA, R sum
 * of the ranks of the group. Everything that is multiplied is of the rows' type; weights stored in
 * another are decoded before their product, but for fp8 (device/cuda/fp8.cuh).
 *
 * A LoRA's small products come first and the weight's is added to them with beta = 1: the large product
 * reads the result while it multiplies, where a LoRA that is added afterwards would wait for it. The first of
 * these products adds the residual.
 */
#include "autograd/device/cuda/column_sums.cuh"
#include "autograd/device/cuda/fp8.cuh"
#include "autograd/ops/dropout/dropout_cuda.cuh"
#include "autograd/ops/linear/linear_internal.h"
#include "autograd/ops/linear/picked_rows.cuh"

F2B_DECLARE_KERNELS(f2bi_linear_forward);
F2B_DECLARE_KERNELS(f2bi_linear_backward);

static const linear_attr *attr_of(const f2b_node *n) { return (const linear_attr *)n->attr; }

/* ---- What both directions need of the LoRAs ---- */

/* The A_i below each other, [R,I], each B_i, and room for rows [M,I] behind the mask. */
typedef struct lora_space {
    const T *a, *b[F2B_MAX_PROJECTIONS];
    T *made, *xd;
} lora_space;

/* All that must be converted in one launch. */
static f2b_status convert_loras(const f2b_node *n, lora_space *s)
{
    int64_t count = 0;
    for (int i = 0; i < attr_of(n)->n; i++)
        for (int half = LINEAR_A; half <= LINEAR_B; half++)
            if (n->in[linear_slot(i, half)] != NULL) count += f2b_numel(n->in[linear_slot(i, half)]);
    s->made = (T *)f2bi_scratch(n, (size_t)count * sizeof(T));
    if (s->made == NULL) return F2B_ERR_MEMORY;
    T *next = s->made;
    f2bi_pieces pieces;
    memset(&pieces, 0, sizeof pieces);
    for (int half = LINEAR_A; half <= LINEAR_B; half++)
        for (int i = 0; i < attr_of(n)->n; i++) {
            const f2b_tensor *t = n->in[linear_slot(i, half)];
            if (t == NULL) continue;
            if (half == LINEAR_B) s->b[i] = next;
            f2bi_add_piece(&pieces, t, next);
            next += f2b_numel(t);
        }
    s->a = s->made;
    f2bi_convert_pieces(n, &pieces);
    return F2B_OK;
}

static f2b_status open_space(const f2b_node *n, lora_space *s, int64_t M, int64_t I, int64_t R)
{
    memset(s, 0, sizeof *s);
    if (R == 0) return F2B_OK;
    F2B_TRY(convert_loras(n, s));
    if (attr_of(n)->has_dropout) {
        s->xd = (T *)f2bi_scratch(n, (size_t)(M * I + 1) * sizeof(T));
        if (s->xd == NULL) return F2B_ERR_MEMORY;
    }
    return F2B_OK;
}

static void close_space(lora_space *s)
{
    f2b_free(s->made);
    f2b_free(s->xd);
}

/* *rows = dropout(x), in space, or x itself where there is no dropout. */
static f2b_status dropped(const f2b_node *n, const T *x, T *space, int64_t M, int64_t I, const T **rows)
{
    *rows = x;
    if (!attr_of(n)->has_dropout) return F2B_OK;
    *rows = space;
    return f2bi_drop_rows(n, &attr_of(n)->dropout, space, true, x, NULL, M, I);
}

/* ---- Forward ---- */

/* h [M,R] = dropout(x) A^T */
static f2b_status skinny(const f2b_node *n, const lora_space *s, T *h, int64_t M, int64_t I, int64_t R)
{
    const T *rows;
    F2B_TRY(dropped(n, (const T *)n->in[LINEAR_X]->data, s->xd, M, I, &rows));
    return f2bi_product(n, M, R, I, f2bi_plain(rows, I), f2bi_turned(s->a, I), 1, 0, h,
                        F2B_KERNEL_DTYPE, R);
}

/* What the first of the products that make y adds, or NULL. */
static const T *residual_of(const f2b_node *n, int i)
{
    const f2b_tensor *residual = n->in[linear_slot(i, LINEAR_RESIDUAL)];
    return residual != NULL ? (const T *)residual->data : NULL;
}

/* y = scale * h B^T + residual */
static f2b_status through_lora(const f2b_node *n, int i, const lora_space *s, const T *h, int64_t M,
                               int64_t R)
{
    const int64_t O = f2b_dim(n->out[i], -1), r = linear_rank(n, i);
    const T *residual = residual_of(n, i);
    return f2bi_full_product(n, M, O, r, f2bi_plain(h, R), f2bi_turned(s->b[i], r), attr_of(n)->scale,
                             residual != NULL ? 1 : 0, residual, (T *)n->out[i]->data, NULL);
}

static f2b_status lora_forward(f2b_node *n, T *h, int64_t M, int64_t I, int64_t R)
{
    lora_space s;
    f2b_status status = open_space(n, &s, M, I, R);
    if (status == F2B_OK) status = skinny(n, &s, h, M, I, R);
    for (int i = 0; i < attr_of(n)->n && status == F2B_OK; i++) {
        if (linear_rank(n, i) == 0) continue;
        status = through_lora(n, i, &s, h, M, R);
        h += linear_rank(n, i);
    }
    close_space(&s);
    return status;
}

/* y = x W^T + bias, and what a LoRA has put there, or else the residual; x8: the rows of x, for an fp8 weight. */
static f2b_status through_weight(const f2b_node *n, int i, const f2bi_fp8_rows *x8, int64_t M, int64_t I)
{
    const f2b_tensor *w = n->in[linear_slot(i, LINEAR_WEIGHT)];
    const f2b_tensor *bias = n->in[linear_slot(i, LINEAR_BIAS)];
    T *y = (T *)n->out[i]->data;
    const T *from = linear_rank(n, i) > 0 ? y : residual_of(n, i);
    const double beta = from != NULL ? 1 : 0;
    const T *bias_row = NULL, *operand = NULL;
    void *w_scratch = NULL, *bias_scratch = NULL;
    const bool fp8 = f2bi_fp8_is_multiplied(w);
    if (bias != NULL) bias_row = f2bi_operand(n, bias, &bias_scratch);
    if (!fp8) operand = f2bi_operand(n, w, &w_scratch);
    f2b_status status = F2B_ERR_MEMORY;
    if ((bias == NULL || bias_row != NULL) && (fp8 || operand != NULL))
        status = fp8 ? f2bi_fp8_forward(n, y, x8, w, beta, from, bias_row, M)
                     : f2bi_full_product(n, M, w->shape[0], I,
                                         f2bi_plain((const T *)n->in[LINEAR_X]->data, I),
                                         f2bi_turned(operand, I), 1, beta, from, y, bias_row);
    f2b_free(bias_scratch);
    f2b_free(w_scratch);
    return status;
}

static f2b_status through_weights(const f2b_node *n, int64_t M, int64_t I)
{
    f2bi_fp8_rows x8 = { NULL, NULL };
    f2b_status status = F2B_OK;
    for (int i = 0; i < attr_of(n)->n && status == F2B_OK; i++) {
        if (x8.codes == NULL && f2bi_fp8_is_multiplied(n->in[linear_slot(i, LINEAR_WEIGHT)]))
            status = f2bi_fp8_rows_of(n, (const T *)n->in[LINEAR_X]->data, M, I, &x8);
        if (status == F2B_OK) status = through_weight(n, i, &x8, M, I);
    }
    f2b_free(x8.codes);
    return status;
}

f2b_status KERNEL(f2bi_linear_forward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), R = linear_rank_sum(n);
    void *saved = NULL, *scratch = NULL;
    if (R > 0) F2B_TRY(f2b_node_save(n, 0, (size_t)(M * R) * sizeof(T), &saved));
    if (M == 0) return F2B_OK;
    if (R > 0) {
        if (saved == NULL) scratch = f2bi_scratch(n, (size_t)(M * R) * sizeof(T));
        if (saved == NULL && scratch == NULL) return F2B_ERR_MEMORY;
        const f2b_status status = lora_forward(n, (T *)(saved != NULL ? saved : scratch), M, I, R);
        f2b_free(scratch);
        F2B_TRY(status);
    }
    F2B_TRY(through_weights(n, M, I));
    linear_add_flops(n, true, 0);
    return f2bi_launched(n);
}

/* ---- Backward ---- */

static __global__ void bias_partials(real *partial, int64_t R, int64_t D, int64_t chunk_rows,
                                     const T *dy)
{
    F2BI_COLUMN_PARTIALS(LOAD(dy[r * D + c]));
}

static f2b_status bias_gradient(const f2b_node *n, int i, void *db, const T *dy, int64_t M, int64_t O)
{
    real *partial = (real *)f2bi_scratch(n, (size_t)(f2bi_chunks(M) * O) * sizeof(real));
    if (partial == NULL) return F2B_ERR_MEMORY;
    F2B_LAUNCH(bias_partials, f2bi_column_grid(M, O), F2BI_BLOCK, 0, f2bi_stream(n), partial, M, O,
               f2bi_chunk_rows(M), dy);
    f2bi_add_partials(n, db, n->in[linear_slot(i, LINEAR_BIAS)]->dtype, partial, M, O);
    f2b_free(partial);
    return F2B_OK;
}

/* Trained weight and bias: dW [O,I] += dy^T x, db += column sums of dy. */
static f2b_status weight_gradients(f2b_node *n, int i, int64_t M, int64_t I)
{
    const int64_t O = f2b_dim(n->out[i], -1);
    const T *dy = (const T *)n->out[i]->grad;
    void *dw = f2b_node_grad(n, linear_slot(i, LINEAR_WEIGHT), NULL);
    void *db = f2b_node_grad(n, linear_slot(i, LINEAR_BIAS), NULL);
    if (db != NULL && M * O > 0) F2B_TRY(bias_gradient(n, i, db, dy, M, O));
    if (dw == NULL) return F2B_OK;
    n->flops += 2.0 * (double)M * (double)I * (double)O;
    return f2bi_product(n, O, I, M, f2bi_turned(dy, O),
                        f2bi_plain((const T *)n->in[LINEAR_X]->data, I), 1, 1, dw, F2B_F32, I);
}

/* dh [M,R] = scale * dy B, and dB [O,r] += scale * dy^T h. */
static f2b_status lora_b_gradients(f2b_node *n, const lora_space *s, T *dh, int64_t M, int64_t R)
{
    const double scale = attr_of(n)->scale;
    const T *h = (const T *)n->saved[0];
    for (int i = 0; i < attr_of(n)->n; i++) {
        const int64_t O = f2b_dim(n->out[i], -1), r = linear_rank(n, i);
        if (r == 0) continue;
        const T *dy = (const T *)n->out[i]->grad;
        F2B_TRY(f2bi_product(n, M, r, O, f2bi_plain(dy, O), f2bi_plain(s->b[i], r), scale, 0, dh,
                             F2B_KERNEL_DTYPE, R));
        void *db = f2b_node_grad(n, linear_slot(i, LINEAR_B), NULL);
        if (db != NULL)
            F2B_TRY(f2bi_product(n, O, r, M, f2bi_turned(dy, O), f2bi_plain(h, R), scale, 1, db,
                                 F2B_F32, r));
        h += r, dh += r;
    }
    return F2B_OK;
}

/* dA_i [r,I] += dh_i^T dropout(x) */
static f2b_status lora_a_gradients(f2b_node *n, const T *dh, T *space, int64_t M, int64_t I, int64_t R)
{
    bool wanted = false;
    for (int i = 0; i < attr_of(n)->n; i++) wanted |= n->wants >> linear_slot(i, LINEAR_A) & 1;
    if (!wanted) return F2B_OK;
    const T *rows;
    F2B_TRY(dropped(n, (const T *)n->in[LINEAR_X]->data, space, M, I, &rows));
    for (int i = 0; i < attr_of(n)->n; i++) {
        const int64_t r = linear_rank(n, i);
        void *da = f2b_node_grad(n, linear_slot(i, LINEAR_A), NULL);
        if (da != NULL)
            F2B_TRY(f2bi_product(n, r, I, M, f2bi_turned(dh, R), f2bi_plain(rows, I), 1, 1, da,
                                 F2B_F32, I));
        dh += r;
    }
    return F2B_OK;
}

/* Rows of x whose gradient is wanted: all M of them where they lie, or some of them together. */
typedef struct wanted_rows {
    int64_t M;
    const int32_t *picked;      /* [M] which rows; NULL: all */
    const T *dy[F2B_MAX_PROJECTIONS], *dh;
    T *dx;
} wanted_rows;

/* dx (+)= mask * (dh A) */
static f2b_status input_gradient_of_loras(const f2b_node *n, const wanted_rows *w, bool fresh,
                                          const lora_space *s, int64_t I, int64_t R)
{
    const bool masked = attr_of(n)->has_dropout;
    F2B_TRY(f2bi_product(n, w->M, I, R, f2bi_plain(w->dh, R), f2bi_plain(s->a, I), 1,
                         masked || fresh ? 0 : 1, masked ? s->xd : w->dx, F2B_KERNEL_DTYPE, I));
    return !masked ? F2B_OK : f2bi_drop_rows(n, &attr_of(n)->dropout, w->dx, fresh, s->xd, w->picked, w->M, I);
}

/* dx (+)= dy W */
static f2b_status input_gradient_of_weight(const f2b_node *n, int i, const wanted_rows *rows, double beta,
                                           int64_t I)
{
    const f2b_tensor *w = n->in[linear_slot(i, LINEAR_WEIGHT)];
    const int64_t O = w->shape[0];
    f2b_status status;
    if (f2bi_fp8_is_multiplied(w)) {
        f2bi_fp8_rows dy8;
        F2B_TRY(f2bi_fp8_rows_of(n, rows->dy[i], rows->M, O, &dy8));
        status = f2bi_fp8_backward(n, rows->dx, &dy8, w, beta, rows->M);
        f2b_free(dy8.codes);
        return status;
    }
    void *scratch;
    const T *operand = f2bi_operand(n, w, &scratch);
    if (operand == NULL) return F2B_ERR_MEMORY;
    status = f2bi_product(n, rows->M, I, O, f2bi_plain(rows->dy[i], O), f2bi_plain(operand, I), 1, beta,
                          rows->dx, F2B_KERNEL_DTYPE, I);
    f2b_free(scratch);
    return status;
}

static f2b_status multiply_back(const f2b_node *n, const wanted_rows *w, bool fresh, const lora_space *s,
                                int64_t I, int64_t R)
{
    if (R > 0) F2B_TRY(input_gradient_of_loras(n, w, fresh, s, I, R));
    for (int i = 0; i < attr_of(n)->n; i++)
        F2B_TRY(input_gradient_of_weight(n, i, w, fresh && R == 0 && i == 0 ? 0 : 1, I));
    return F2B_OK;
}

/* The picked rows of from [., D], put at *to, which moves on; where they are. */
static const T *pick(const f2b_node *n, const wanted_rows *w, const T *from, int64_t D, T **to)
{
    const T *at = *to;
    f2bi_pick_rows(n, *to, from, w->picked, w->M, D);
    *to += w->M * D;
    return at;
}

/* Few rows are wanted: they are picked together, and put back where they belong. */
static f2b_status multiply_picked(const f2b_node *n, wanted_rows *w, bool fresh, const lora_space *s,
                                  int64_t I, int64_t R)
{
    int64_t width = I + R;
    for (int i = 0; i < attr_of(n)->n; i++) width += f2b_dim(n->out[i], -1);
    T *const rows = (T *)f2bi_scratch(n, (size_t)(w->M * width) * sizeof(T)), *const dx = w->dx, *next = rows;
    if (rows == NULL) return F2B_ERR_MEMORY;
    if (fresh) next += w->M * I;
    else pick(n, w, dx, I, &next);
    for (int i = 0; i < attr_of(n)->n; i++) w->dy[i] = pick(n, w, w->dy[i], f2b_dim(n->out[i], -1), &next);
    if (R > 0) w->dh = pick(n, w, w->dh, R, &next);
    w->dx = rows;
    const f2b_status status = multiply_back(n, w, fresh, s, I, R);
    f2bi_put_rows(n, dx, rows, w->picked, w->M, I);
    f2b_free(rows);
    return status;
}

static f2b_status input_gradient(f2b_node *n, const T *dh, const lora_space *s, int64_t I, int64_t R)
{
    bool fresh;
    wanted_rows w;
    memset(&w, 0, sizeof w);
    w.dh = dh, w.dx = (T *)f2b_node_grad(n, LINEAR_X, &fresh);
    w.picked = f2b_node_grad_rows(n, LINEAR_X, &w.M);
    if (w.dx == NULL || w.M == 0) return F2B_OK;
    for (int i = 0; i < attr_of(n)->n; i++) w.dy[i] = (const T *)n->out[i]->grad;
    return w.picked != NULL ? multiply_picked(n, &w, fresh, s, I, R) : multiply_back(n, &w, fresh, s, I, R);
}

f2b_status KERNEL(f2bi_linear_backward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), R = linear_rank_sum(n);
    for (int i = 0; i < attr_of(n)->n; i++) F2B_TRY(weight_gradients(n, i, M, I));
    int64_t back;
    (void)f2b_node_grad_rows(n, LINEAR_X, &back);
    linear_add_flops(n, false, n->wants & 1 ? back : 0);
    lora_space s;
    f2b_status status = open_space(n, &s, M, I, R);
    T *dh = (T *)f2bi_scratch(n, (size_t)(M * R + 1) * sizeof(T));
    if (status == F2B_OK && dh == NULL) status = F2B_ERR_MEMORY;
    if (status == F2B_OK && R > 0) status = lora_b_gradients(n, &s, dh, M, R);
    if (status == F2B_OK && R > 0) status = lora_a_gradients(n, dh, s.xd, M, I, R);
    if (status == F2B_OK) status = input_gradient(n, dh, &s, I, R);
    f2b_free(dh);
    close_space(&s);
    F2B_TRY(status);
    return f2bi_launched(n);
}
