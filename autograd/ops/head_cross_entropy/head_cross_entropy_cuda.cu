/*
 * CUDA kernels of head_cross_entropy: chunks of rows, their logits by a product into f32, of which a
 * kernel makes losses and, in the same place, the gradient of the logits as rows are typed. Legend: R
 * rows, V tokens, d width, z logits.
 */
#include <math.h>

#include "autograd/device/cuda/operand.cuh"

F2B_DECLARE_KERNELS(f2bi_head_cross_entropy_forward);
F2B_DECLARE_KERNELS(f2bi_head_cross_entropy_backward);

/* Logits of one chunk; it changes no value. */
enum { LOGITS_BYTES = 256 << 20 };

typedef struct head {
    const T *x, *w;
    void *w_scratch;
    real *z;                    /* [chunk, V] */
    const int *label;
    int64_t R, V, d, chunk;
} head;

static void close_head(head *h)
{
    f2b_free(h->z);
    f2b_free(h->w_scratch);
}

static f2b_status open_head(const f2b_node *n, head *h)
{
    h->x = (const T *)n->in[0]->data, h->label = (const int *)n->in[2]->data;
    h->R = n->in[0]->shape[0], h->V = n->in[1]->shape[0], h->d = n->in[1]->shape[1];
    h->chunk = LOGITS_BYTES / (int64_t)sizeof(real) / (h->V > 0 ? h->V : 1);
    if (h->chunk < 16) h->chunk = 16;
    if (h->chunk > h->R) h->chunk = h->R;
    h->w = f2bi_operand(n, n->in[1], &h->w_scratch);
    h->z = (real *)f2bi_scratch(n, (size_t)(h->chunk * h->V + 1) * sizeof(real));
    if (h->w != NULL && h->z != NULL) return F2B_OK;
    close_head(h);
    return F2B_ERR_MEMORY;
}

/*
 * A block a row: its loss, and z becomes g * (softmax(z) - onehot(label)), as T from the row's start on.
 * T is not wider than z: what a stretch is written over has been read, once all have read it. Logits
 * are read twice: a thread's sum shrinks when it meets a larger one.
 */
static __global__ void softmax(real *z, int64_t V, const int *label, int64_t r0, const real *g,
                               real *loss, f2bi_fault fault)
{
    const int64_t stretch = F2BI_BLOCK * WIDE, start = (int64_t)threadIdx.x * WIDE;
    z += blockIdx.x * V;
    int mine = label[r0 + blockIdx.x];
    if (mine < 0 || mine >= V) {
        if (threadIdx.x == 0) f2bi_report(fault, r0 + blockIdx.x);
        mine = 0;
    }
    const real at_label = z[mine];
    real my_top = -INFINITY, my_sum = 0, v[WIDE];
    for (int64_t first = start; first < V; first += stretch) {
        real top = my_top;
        f2bi_read_as(v, z, F2B_F32, first, V);
        for (int i = 0; i < WIDE; i++)
            if (first + i < V) top = fmaxf(top, v[i]);
        if (top > my_top) my_sum *= expf(my_top - top);
        my_top = top;
        const real shift = top == -INFINITY ? 0 : top;
        for (int i = 0; i < WIDE; i++)
            if (first + i < V) my_sum += expf(v[i] - shift);
    }
    const real top = f2bi_block_most(my_top);
    const real sum = f2bi_block_sum(start < V ? my_sum * expf(my_top - top) : 0);
    if (loss != NULL && threadIdx.x == 0) loss[r0 + blockIdx.x] = logf(sum) + (top - at_label);
    const real factor = g != NULL ? *g : 1, inverse = 1 / sum;
    __syncthreads();                        /* at_label is read everywhere */
    for (int64_t from = 0; from < V; from += stretch) {
        const int64_t first = from + start;
        if (first < V) f2bi_read_as(v, z, F2B_F32, first, V);
        __syncthreads();
        if (first >= V) continue;
        for (int i = 0; i < WIDE; i++) v[i] = factor * (expf(v[i] - top) * inverse - (first + i == mine ? 1 : 0));
        f2bi_write((T *)z, first, V, v);
    }
}

/* One block: the threads' shares, then these in their order. */
static __global__ void add_losses(real *total, const real *loss, int64_t R)
{
    __shared__ double part[F2BI_BLOCK];
    double sum = 0;
    for (int64_t r = threadIdx.x; r < R; r += F2BI_BLOCK) sum += (double)loss[r];
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < F2BI_BLOCK; i++) sum += part[i];
    *total = (real)sum;
}

/* Rows [r0, r0 + rows): logits, then what `softmax` makes of them. */
static f2b_status softmax_chunk(const f2b_node *n, const head *h, int64_t r0, int64_t rows,
                                const real *g, real *loss)
{
    F2B_TRY(f2bi_product(n, rows, h->V, h->d, f2bi_plain(h->x + r0 * h->d, h->d),
                         f2bi_turned(h->w, h->d), 1, 0, h->z, F2B_F32, h->V));
    F2B_LAUNCH(softmax, (unsigned)rows, F2BI_BLOCK, 0, f2bi_stream(n), h->z, h->V, h->label, r0, g,
               loss, f2bi_fault_of(n, "head_cross_entropy: labels"));
    return F2B_OK;
}

/* Elements of T from one row of a chunk to the next. */
static int64_t row_step(const head *h) { return h->V * (int64_t)(sizeof(real) / sizeof(T)); }

static f2b_status all_chunks(const f2b_node *n, const head *h, real *loss, T *dx)
{
    for (int64_t r0 = 0; r0 < h->R; r0 += h->chunk) {
        const int64_t rows = h->R - r0 < h->chunk ? h->R - r0 : h->chunk;
        F2B_TRY(softmax_chunk(n, h, r0, rows, NULL, loss));
        if (dx != NULL)
            F2B_TRY(f2bi_product(n, rows, h->d, h->V, f2bi_plain((const T *)h->z, row_step(h)),
                                 f2bi_plain(h->w, h->d), 1, 0, dx + r0 * h->d, F2B_KERNEL_DTYPE,
                                 h->d));
    }
    return F2B_OK;
}

f2b_status KERNEL(f2bi_head_cross_entropy_forward)(f2b_node *n)
{
    void *dx = NULL;
    const int64_t R = n->in[0]->shape[0], d = n->in[0]->shape[1], V = n->in[1]->shape[0];
    if (n->in[0]->requires_grad)
        F2B_TRY(f2b_node_save(n, 0, (size_t)(R * d) * sizeof(T), &dx));
    head h;
    F2B_TRY(open_head(n, &h));
    real *loss = (real *)f2bi_scratch(n, (size_t)(R + 1) * sizeof(real));
    f2b_status status = loss != NULL ? all_chunks(n, &h, loss, (T *)dx) : F2B_ERR_MEMORY;
    if (status == F2B_OK)
        F2B_LAUNCH(add_losses, 1, F2BI_BLOCK, 0, f2bi_stream(n), (real *)n->out[0]->data,
                   (const real *)loss, R);
    f2b_free(loss);
    close_head(&h);
    n->flops = 2.0 * (dx != NULL ? 2 : 1) * (double)R * (double)V * (double)d;
    F2B_TRY(status);
    return f2bi_launched(n);
}

/* dx (+)= g * saved */
static __global__ void scale_saved(T *dx, bool fresh, const T *saved, const real *g, int64_t count)
{
    const int64_t first = f2bi_first();
    if (first >= count) return;
    real v[WIDE];
    f2bi_read(v, saved, first, count);
    for (int i = 0; i < WIDE; i++) v[i] *= *g;
    f2bi_accumulate(dx, first, count, v, fresh);
}

/* dW [V,d] += (g * (softmax - onehot))^T x, chunk after chunk. */
static f2b_status weight_gradient(const f2b_node *n, const head *h, const real *g, void *dw)
{
    for (int64_t r0 = 0; r0 < h->R; r0 += h->chunk) {
        const int64_t rows = h->R - r0 < h->chunk ? h->R - r0 : h->chunk;
        F2B_TRY(softmax_chunk(n, h, r0, rows, g, NULL));
        F2B_TRY(f2bi_product(n, h->V, h->d, rows, f2bi_turned((const T *)h->z, row_step(h)),
                             f2bi_plain(h->x + r0 * h->d, h->d), 1, 1, dw, F2B_F32, h->d));
    }
    return F2B_OK;
}

f2b_status KERNEL(f2bi_head_cross_entropy_backward)(f2b_node *n)
{
    const real *g = (const real *)n->out[0]->grad;
    const int64_t count = f2b_numel(n->in[0]);
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    if (dx != NULL && count > 0)
        F2B_LAUNCH(scale_saved, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), dx, fresh,
                   (const T *)n->saved[0], g, count);
    void *dw = f2b_node_grad(n, 1, NULL);
    if (dw != NULL) {
        head h;
        F2B_TRY(open_head(n, &h));
        const f2b_status status = weight_gradient(n, &h, g, dw);
        close_head(&h);
        F2B_TRY(status);
        n->flops += 4.0 * (double)h.R * (double)h.V * (double)h.d;
    }
    return f2bi_launched(n);
}
