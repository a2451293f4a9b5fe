/*
 * CPU kernels of gated_linear; linear_parts.h has the legend. The product's rows x = silu(gate) * up are made by the
 * thread that multiplies them, the LoRA's h from them while they are in its cache; they are never all there.
 * Backward makes them together with the gradients of gate and up, in one pass over dx.
 */
#include <omp.h>

#include "autograd/device/cpu/threads.h"
#include "autograd/ops/linear/linear_parts.h"
#include "autograd/ops/silu_mul/silu_mul_rows.h"

f2b_kernel KERNEL(f2bi_gated_linear_forward), KERNEL(f2bi_gated_linear_backward);

/* ---- Forward ---- */

enum { GROUP = 64 };                /* rows whose h is computed together: whole tiles (gemm_amx.c), in the cache */

/* What makes rows of x and, with them, of h [M,R] = scale * dropout(x) A^T. */
typedef struct row_maker {
    const T *gate, *up;
    int64_t I, R;
    const linear_attr *attr;
    const T *a_packed;              /* A as the right side of a product */
    T *h;
    uint16_t *stays;                /* [M, f2bi_dropout_words(I)] dropout's mask */
    char *space;                    /* per_thread bytes for each: sums [GROUP,R], dropped rows [GROUP,ld_of(I)] */
    int64_t per_thread;
} row_maker;

/* From row to row of a left operand: pairs end with it. */
static int64_t ld_of(int64_t I) { return (I + 1) / 2 * 2; }

static int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static int64_t sums_bytes(int64_t R) { return lines(GROUP * R * (int64_t)sizeof(real)); }

static int64_t thread_bytes(const linear_attr *attr, int64_t I, int64_t R)
{
    return sums_bytes(R) + (attr->has_dropout ? lines(GROUP * ld_of(I) * (int64_t)sizeof(T)) : 0);
}

static int64_t a_bytes(int64_t I, int64_t R)
{
    return lines(KERNEL(f2bi_gemm_packed_elements)(I, R) * (int64_t)sizeof(T));
}

/* For A, for the threads, and for h and the mask where they are not saved. */
int64_t KERNEL(f2bi_gated_linear_room)(const f2b_node *n)
{
    const int64_t M = f2b_rows(n->in[LINEAR_X]), I = f2b_dim(n->in[LINEAR_X], -1), R = linear_rank_sum(n);
    const int64_t saved = lines(M * R * (int64_t)sizeof(T)) + mask_bytes(n->attr, M, I);
    return R == 0 ? 0 : a_bytes(I, R) + f2b_threads() * thread_bytes(n->attr, I, R) + (n->recorded ? 0 : saved);
}

/* h of rows [first, first + rows), rows <= GROUP, from x (rows ld apart). */
static void make_h(const row_maker *m, int64_t first, int64_t rows, const T *x, int64_t ld)
{
    char *space = m->space + omp_get_thread_num() * m->per_thread;
    real *sums = (real *)space;
    if (m->attr->has_dropout) {
        T *xd = (T *)(space + sums_bytes(m->R));
        const int64_t ldd = ld_of(m->I);
        for (int64_t i = 0; i < rows; i++) {
            uint16_t *stays = m->stays + (first + i) * f2bi_dropout_words(m->I);
            KERNEL(f2bi_dropout_mask)(&m->attr->dropout, first + i, m->I, stays);
            KERNEL(f2bi_dropout_row)(&m->attr->dropout, stays, m->I, x + i * ld, xd + i * ldd);
            if (m->I < ldd) STORE(xd[i * ldd + m->I], 0);
        }
        x = xd, ld = ldd;
    }
    KERNEL(f2bi_gemm_block)(rows, m->R, m->I, (real)m->attr->scale, x, ld, m->a_packed, m->I, 0, sums, m->R);
    T *h = m->h + first * m->R;
    for (int64_t i = 0; i < rows * m->R; i++) STORE(h[i], sums[i]);
}

static void make_rows(const void *user, int64_t first, int64_t rows, void *to, int64_t ld)
{
    const row_maker *m = user;
    const int64_t I = m->I;
    T *x = to;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = (first + i) * I;
        KERNEL(f2bi_silu_row)(I, m->gate + at, m->up + at, x + i * ld);
        if (I < ld_of(I)) STORE(x[i * ld + I], 0);
    }
    for (int64_t i = 0; m->R > 0 && i < rows; i += GROUP)
        make_h(m, first + i, rows - i < GROUP ? rows - i : GROUP, x + i * ld, ld);
}

/* Where there is a LoRA: packs A, and finds room for h, the mask and the threads. */
static f2b_status prepare(f2b_node *n, row_maker *m, int64_t M, char **scratch)
{
    const f2b_tensor *a = n->in[linear_slot(0, LINEAR_A)];
    if (m->R == 0) return F2B_OK;
    void *h, *mask = NULL;
    F2B_TRY(f2b_node_save(n, 0, (size_t)(M * m->R) * sizeof(T), &h));
    if (m->attr->has_dropout) F2B_TRY(f2b_node_save(n, 1, (size_t)mask_bytes(m->attr, M, m->I), &mask));
    *scratch = f2b_alloc_host((size_t)KERNEL(f2bi_gated_linear_room)(n), F2B_TAG_SCRATCH);
    if (*scratch == NULL) return F2B_ERR_MEMORY;
    const f2b_gemm_term t = { .b = a->data, .b_type = a->dtype, .b_row = 1, .b_col = m->I, .k = m->I };
    KERNEL(f2bi_gemm_pack)((T *)*scratch, &t, 0, m->R);
    m->a_packed = (const T *)*scratch, m->space = *scratch + a_bytes(m->I, m->R);
    m->per_thread = thread_bytes(m->attr, m->I, m->R);
    char *unsaved = m->space + f2b_threads() * m->per_thread;
    m->h = h != NULL ? h : (T *)unsaved;
    m->stays = mask != NULL ? mask : (uint16_t *)(unsaved + lines(M * m->R * (int64_t)sizeof(T)));
    return F2B_OK;
}

f2b_status KERNEL(f2bi_gated_linear_forward)(f2b_node *n)
{
    const f2b_tensor *gate = n->in[LINEAR_X];
    const int64_t M = f2b_rows(gate), I = f2b_dim(gate, -1), R = linear_rank_sum(n);
    row_maker maker = { .gate = gate->data, .up = n->in[LINEAR_UP]->data, .I = I, .R = R, .attr = n->attr };
    char *scratch = NULL;
    F2B_TRY(prepare(n, &maker, M, &scratch));
    f2b_gemm_term x = weight_term(n, 0, NULL, I);
    x.make = make_rows, x.user = &maker;
    const f2b_status status = project(n, 0, &x, maker.h, M, R);
    f2b_free(scratch);
    linear_add_flops(n, true, 0);
    return status;
}

/* ---- Backward ---- */

/* The room of backward: A and dA, dh [M,R], then parts [M,I] of which only those in use are there. */
typedef struct back_room {
    char *all;
    real *a, *da;
    T *dh, *dropped, *x;
    T *dx;                      /* NULL: the gradient of gate's place, which replaces it */
} back_room;

static int64_t room_bytes(const f2b_node *n, int64_t M, int64_t I, int64_t R)
{
    const gated_room parts = gated_room_of(n);
    return lines(2 * R * I * (int64_t)sizeof(real)) + lines(M * R * (int64_t)sizeof(T))
           + (parts.dropped + parts.x + parts.dx) * lines(M * I * (int64_t)sizeof(T));
}

static void *take(char **next, int64_t bytes)
{
    void *part = *next;
    *next += lines(bytes);
    return part;
}

static f2b_status make_room(const f2b_node *n, int64_t M, int64_t I, int64_t R, back_room *r)
{
    const gated_room parts = gated_room_of(n);
    const int64_t rows = M * I * (int64_t)sizeof(T);
    char *next = f2b_alloc_host((size_t)room_bytes(n, M, I, R), F2B_TAG_SCRATCH);
    if (next == NULL) return F2B_ERR_MEMORY;
    *r = (back_room){ .all = next };
    r->a = take(&next, 2 * R * I * (int64_t)sizeof(real)), r->da = r->a + R * I;
    r->dh = take(&next, M * R * (int64_t)sizeof(T));
    if (parts.dropped) r->dropped = take(&next, rows);
    if (parts.x) r->x = take(&next, rows);
    if (parts.dx) r->dx = take(&next, rows);
    return F2B_OK;
}

/* dx, and in one pass over it the gradients of gate and up, and x where it is read. */
static f2b_status input_gradients(const f2b_node *n, const f2bi_silu_slopes *s, const back_room *r, int64_t M,
                                  int64_t I, int64_t R)
{
    T *dx = r->dx != NULL ? r->dx : s->dg;
    if (dx != NULL) {
        const wanted_rows all = { .M = M, .dy = { n->out[0]->grad }, .dh = r->dh, .dx = dx };
        F2B_TRY(multiply_back(n, &all, true, r->a, r->dropped, I, R));
    }
    if (dx == NULL && r->x == NULL) return F2B_OK;
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; m++)
        if (dx != NULL) KERNEL(f2bi_silu_back)(s, dx, m * I, I);
        else KERNEL(f2bi_silu_row)(I, s->gate + m * I, s->up + m * I, r->x + m * I);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_gated_linear_backward)(f2b_node *n)
{
    const int64_t M = f2b_rows(n->in[LINEAR_X]), I = f2b_dim(n->in[LINEAR_X], -1), R = linear_rank_sum(n);
    back_room r;
    F2B_TRY(make_room(n, M, I, R, &r));
    f2bi_silu_slopes s = { .gate = n->in[LINEAR_X]->data, .up = n->in[LINEAR_UP]->data, .y = r.x };
    s.dg = f2b_node_grad(n, LINEAR_X, &s.fresh_gate);
    s.du = f2b_node_grad(n, LINEAR_UP, &s.fresh_up);
    stack_a(n, r.a);
    f2b_status status = lora_b_gradients(n, r.dh, M, R);
    if (status == F2B_OK) status = input_gradients(n, &s, &r, M, I, R);
    if (status == F2B_OK) status = weight_gradients(n, 0, r.x, M, I);
    if (status == F2B_OK && R > 0) status = lora_a_gradients(n, r.x, r.dh, r.dropped, r.da, M, I, R);
    f2b_free(r.all);
    linear_add_flops(n, false, n->wants & (1u << LINEAR_X | 1u << LINEAR_UP) ? M : 0);
    return status;
}

/* Bytes of backward's own room, for the gradients that are asked for now. */
int64_t KERNEL(f2bi_gated_linear_back_room)(const f2b_node *n)
{
    return room_bytes(n, f2b_rows(n->in[LINEAR_X]), f2b_dim(n->in[LINEAR_X], -1), linear_rank_sum(n));
}
