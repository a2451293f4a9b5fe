/*
 * The tape of tape.h and the nodes of op.h. Tensors and nodes are listed in order of creation; both
 * lists only grow until reset, so that a mark is an index.
 */
#include <string.h>

#include "autograd/core/op.h"
#include "autograd/core/profile.h"
#include "autograd/device/device.h"

struct f2b_tape {
    f2b_device device;
    bool recording;
    f2b_space_rule *rule;       /* of a rehearsal; else NULL */
    f2b_backward_watch *watch;
    void *watcher;
    f2b_tensor **tensors;
    int64_t n_tensors, cap_tensors;
    f2b_node **nodes;
    int64_t n_nodes, cap_nodes;
};

/* ---- Lists and lifetime ---- */

static f2b_status push(void *list, int64_t *n, int64_t *cap, void *item)
{
    void ***items = list;
    if (*n == *cap) {
        const int64_t larger = *cap == 0 ? 64 : 2 * *cap;
        void **grown = f2b_realloc(*items, (size_t)larger * sizeof **items, F2B_TAG_OTHER);
        if (grown == NULL) return F2B_ERR_MEMORY;
        *items = grown, *cap = larger;
    }
    (*items)[(*n)++] = item;
    return F2B_OK;
}

static void free_data(f2b_tensor *x)
{
    if (!x->borrowed) f2b_free(x->data);
    x->data = NULL;
}

static void free_if_unneeded(f2b_tensor *x)
{
    if (x->tape != NULL && x->released && x->holds == 0 && !x->keep) free_data(x);
}

static void hold(f2b_tensor *x) { x->holds++; }

static void let_go(f2b_tensor *x)
{
    F2B_CHECK(x->holds > 0);
    x->holds--;
    free_if_unneeded(x);
}

static void node_free(f2b_node *n)
{
    if (n == NULL) return;
    for (int i = 0; i < F2B_MAX_SAVED; i++) f2b_free(n->saved[i]);
    f2b_free(n->attr);
    f2b_free(n);
}

/* Which of the node's tensors its backward reads. */
static void for_held(f2b_node *n, void (*apply)(f2b_tensor *))
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != NULL && (n->op->backward_reads_in >> i & 1)) apply(n->in[i]);
    for (int i = 0; i < n->n_out; i++)
        if (n->op->backward_reads_out >> i & 1) apply(n->out[i]);
}

f2b_tape *f2b_tape_new(f2b_device device)
{
    f2b_tape *tape = f2b_calloc(1, sizeof *tape, F2B_TAG_OTHER);
    if (tape != NULL) *tape = (f2b_tape){ .device = device, .recording = true };
    return tape;
}

void f2b_tape_reset(f2b_tape *tape)
{
    for (int64_t i = 0; i < tape->n_nodes; i++) node_free(tape->nodes[i]);
    for (int64_t i = 0; i < tape->n_tensors; i++) {
        free_data(tape->tensors[i]);
        f2b_free(tape->tensors[i]->grad);
        f2b_free(tape->tensors[i]);
    }
    tape->n_nodes = tape->n_tensors = 0;
}

void f2b_tape_free(f2b_tape *tape)
{
    if (tape == NULL) return;
    f2b_tape_reset(tape);
    f2b_free(tape->nodes);
    f2b_free(tape->tensors);
    f2b_free(tape);
}

f2b_device f2b_tape_device(const f2b_tape *tape) { return tape->device; }
bool f2b_tape_recording(const f2b_tape *tape) { return tape->recording; }
void f2b_tape_rehearse(f2b_tape *tape, f2b_space_rule *rule) { tape->rule = rule; }
f2b_space_rule *f2bi_tape_rule(const f2b_tape *tape) { return tape->rule; }

void f2b_tape_watch_backward(f2b_tape *tape, f2b_backward_watch *watch, void *user)
{
    tape->watch = watch, tape->watcher = user;
}

int64_t f2b_tape_nodes(const f2b_tape *tape) { return tape->n_nodes; }

bool f2b_tape_set_recording(f2b_tape *tape, bool on)
{
    const bool before = tape->recording;
    tape->recording = on;
    return before;
}

/* ---- Tensors of the tape ---- */

static f2b_tensor *own(f2b_tape *tape, f2b_tensor *x)
{
    if (x == NULL) return NULL;
    if (push(&tape->tensors, &tape->n_tensors, &tape->cap_tensors, x) != F2B_OK) {
        f2b_tensor_free(x);
        return NULL;
    }
    x->tape = tape;
    return x;
}

/* In a rehearsal, memory that is only counted. */
static void *take(const f2b_tape *tape, size_t bytes, f2b_tag tag)
{
    return tape->rule != NULL ? f2b_alloc_counted(tape->device, bytes, tag)
                              : f2b_alloc(tape->device, bytes, tag);
}

/* What the work gives back: in a rehearsal a tensor without its data. */
static f2b_tensor *result(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape)
{
    return own(tape, (tape->rule != NULL ? f2b_tensor_counted : f2b_tensor_new)(
                         tape->device, dtype, ndim, shape, F2B_TAG_ACTIVATIONS));
}

f2b_tensor *f2b_tape_tensor(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape)
{
    if (tape->device.kind != F2B_CPU) return result(tape, dtype, ndim, shape);
    return own(tape, f2b_tensor_new(tape->device, dtype, ndim, shape, F2B_TAG_ACTIVATIONS));
}

f2b_tensor *f2b_tape_tensor_from(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape,
                                 const void *host)
{
    f2b_tensor *x = result(tape, dtype, ndim, shape);
    if (x == NULL || tape->rule != NULL) return x;
    return f2b_tensor_write(x, host) == F2B_OK ? x : NULL;
}

f2b_tensor *f2b_tape_table(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape,
                           const void *host)
{
    f2b_tensor *x = f2b_tape_keep(f2b_tape_tensor(tape, dtype, ndim, shape));
    if (x == NULL || (tape->rule != NULL && tape->device.kind != F2B_CPU)) return x;
    return f2b_tensor_write(x, host) == F2B_OK ? x : NULL;
}

f2b_tensor *f2b_tape_detach(f2b_tape *tape, f2b_tensor *x)
{
    if (x == NULL) return NULL;
    f2b_tensor *d = own(tape, f2b_tensor_borrow(x->device, x->dtype, x->ndim, x->shape, x->data));
    if (d != NULL) d->requires_grad = true;
    return d;
}

f2b_tensor *f2b_tape_keep(f2b_tensor *x)
{
    if (x != NULL) x->keep = true;
    return x;
}

f2b_mark f2b_tape_mark(const f2b_tape *tape) { return tape->n_tensors; }

void f2b_tape_release_since(f2b_tape *tape, f2b_mark mark, f2b_tensor *const *except, int n)
{
    for (int64_t i = mark; i < tape->n_tensors; i++) {
        f2b_tensor *x = tape->tensors[i];
        bool keep = x->released;
        for (int j = 0; j < n && !keep; j++) keep = x == except[j];
        if (keep) continue;
        x->released = true;
        free_if_unneeded(x);
    }
}

void f2b_tape_release(f2b_tensor *x)
{
    if (x == NULL || x->tape == NULL) return;
    x->released = true;
    free_if_unneeded(x);
}

/* ---- Nodes ---- */

f2b_node *f2b_node_new(f2b_tape *tape, const f2b_op *op, f2b_dtype dtype, f2b_tensor *const *in,
                       int n_in, const void *attr, size_t attr_bytes)
{
    F2B_CHECK(n_in <= F2B_MAX_IN);
    F2B_RETURN_NULL_IF(dtype >= F2B_COMPUTE_DTYPES, F2B_ERR_DTYPE, "%s: cannot compute in %s",
                       op->name, f2b_dtype_name(dtype));
    f2b_node *n = f2b_calloc(1, sizeof *n, F2B_TAG_OTHER);
    if (n == NULL) return NULL;
    n->op = op, n->tape = tape, n->dtype = dtype, n->n_in = n_in;
    for (int i = 0; i < n_in; i++) {
        n->in[i] = in[i];
        if (in[i] == NULL) continue;
        F2B_CHECK(in[i]->data != NULL);     /* read after release */
        if (tape->recording && in[i]->requires_grad) n->recorded = true;
    }
    n->attr = f2b_alloc_host(attr_bytes, F2B_TAG_OTHER);
    if (n->attr == NULL) {
        node_free(n);
        return NULL;
    }
    if (attr_bytes > 0) memcpy(n->attr, attr, attr_bytes);
    return n;
}

f2b_tensor *f2b_node_out(f2b_node *n, f2b_dtype dtype, int ndim, const int64_t *shape)
{
    if (n == NULL) return NULL;
    F2B_CHECK(n->n_out < F2B_MAX_OUT);
    f2b_tensor *y = result(n->tape, dtype, ndim, shape);
    if (y == NULL) return NULL;
    y->requires_grad = n->recorded;
    n->out[n->n_out++] = y;
    return y;
}

static f2b_kernel *find_kernel(const f2b_node *n, const f2b_kernels table)
{
    f2b_kernel *k = table[n->tape->device.kind][n->dtype];
    if (k == NULL)
        (void)f2b_fail(F2B_ERR_UNSUPPORTED, "%s has no kernel for %s on %s", n->op->name,
                       f2b_dtype_name(n->dtype), f2b_device_name(n->tape->device));
    return k;
}

/* Bytes that the node must at least move: forward reads its inputs and writes its outputs; backward
 * reads the outputs' gradients and what it kept, and writes the inputs' gradients. */
static double node_bytes(const f2b_node *n, bool backward)
{
    double bytes = 0;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == NULL) continue;
        const double size = (double)f2b_tensor_bytes(n->in[i]);
        if (!backward || (n->op->backward_reads_in >> i & 1)) bytes += size;
        if (backward && (n->wants >> i & 1)) bytes += size;
    }
    for (int i = 0; i < n->n_out; i++) {
        const double size = (double)f2b_tensor_bytes(n->out[i]);
        bytes += backward && (n->op->backward_reads_out >> i & 1) ? 2 * size : size;
    }
    return bytes;
}

/* Composites run other ops, which are counted; a rehearsal takes no time. */
static f2b_profile_mark start_profile(const f2b_node *n)
{
    if (n->op->composite || n->tape->rule != NULL) return (f2b_profile_mark){ .on = false };
    return f2b_profile_start(n->tape->device);
}

/* A kernel, or in a rehearsal what it would take. Composites run other ops, which rehearse. */
static f2b_status run_kernel(f2b_kernel *kernel, f2b_node *n, bool backward)
{
    if (n->tape->rule == NULL || n->op->composite) return kernel(n);
    const f2b_space space = n->tape->rule(n);
    if (backward) n->fresh = 0;
    else if (n->recorded && space.saved > 0) {
        n->saved[0] = take(n->tape, (size_t)space.saved, F2B_TAG_ACTIVATIONS);
        if (n->saved[0] == NULL) return F2B_ERR_MEMORY;
    }
    void *work = take(n->tape, (size_t)(backward ? space.backward : space.forward), F2B_TAG_SCRATCH);
    f2b_free(work);
    return work != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

f2b_status f2b_node_run(f2b_node *n)
{
    if (n == NULL) return f2b_last_status();
    f2b_kernel *kernel = find_kernel(n, n->op->forward);
    f2b_status status = kernel == NULL ? F2B_ERR_UNSUPPORTED : F2B_OK;
    for (int i = 0; i < n->n_out && status == F2B_OK; i++)
        if (n->out[i] == NULL) status = f2b_last_status();
    if (status == F2B_OK) {
        const f2b_profile_mark start = start_profile(n);
        status = run_kernel(kernel, n, false);
        f2b_profile_stop(start, n->op->name, false, n->flops, node_bytes(n, false));
    }
    if (status == F2B_OK && n->recorded) {
        status = push(&n->tape->nodes, &n->tape->n_nodes, &n->tape->cap_nodes, n);
        if (status == F2B_OK) {
            for_held(n, hold);
            return F2B_OK;
        }
    }
    node_free(n);
    return status;
}

f2b_status f2b_node_save(f2b_node *n, int slot, size_t bytes, void **buffer)
{
    F2B_CHECK(slot < F2B_MAX_SAVED && n->saved[slot] == NULL);
    *buffer = NULL;
    if (!n->recorded) return F2B_OK;
    n->saved[slot] = *buffer = f2b_alloc(n->tape->device, bytes, F2B_TAG_ACTIVATIONS);
    return *buffer != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

void *f2b_node_grad(f2b_node *n, int i, bool *fresh)
{
    if (!(n->wants >> i & 1)) return NULL;
    f2b_tensor *x = n->in[i];
    const bool is_fresh = n->fresh >> i & 1;
    n->fresh &= ~(1u << i);
    if (fresh != NULL) *fresh = is_fresh;
    else if (is_fresh && n->tape->rule == NULL)
        n->grad_failed |= f2b_zero(x->grad, x->device, f2b_tensor_bytes(x)) != F2B_OK;
    return x->grad;
}

/* ---- Backward ---- */

static f2b_status grad_alloc(f2b_tape *tape, f2b_tensor *x)
{
    x->grad = take(tape, f2b_tensor_bytes(x), F2B_TAG_ACT_GRADS);
    return x->grad != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

static f2b_status seed(f2b_tape *tape, f2b_tensor *x, const void *grad, f2b_device from)
{
    if (!x->requires_grad) return F2B_OK;
    const size_t bytes = f2b_tensor_bytes(x);
    if (tape->rule != NULL) return x->grad != NULL ? F2B_OK : grad_alloc(tape, x);
    if (x->grad == NULL) {
        F2B_TRY(grad_alloc(tape, x));
        return f2b_copy(x->grad, x->device, grad, from, bytes);
    }
    if (from.kind == x->device.kind)
        return f2b_add_into(x->device, x->dtype, x->grad, grad, f2b_numel(x));
    void *copy = f2b_alloc(x->device, bytes, F2B_TAG_SCRATCH);
    if (copy == NULL) return F2B_ERR_MEMORY;
    f2b_status status = f2b_copy(copy, x->device, grad, from, bytes);
    if (status == F2B_OK)
        status = f2b_add_into(x->device, x->dtype, x->grad, copy, f2b_numel(x));
    f2b_free(copy);
    return status;
}

f2b_status f2b_tape_seed_from(f2b_tape *tape, f2b_tensor *x, const void *grad)
{
    return seed(tape, x, grad, F2B_HOST);
}

f2b_status f2b_tape_seed_device(f2b_tape *tape, f2b_tensor *x, const void *grad)
{
    return seed(tape, x, grad, x->device);
}

f2b_status f2b_tape_seed(f2b_tape *tape, f2b_tensor *x, double value)
{
    const int64_t n = f2b_numel(x);
    void *host = f2b_alloc_host(f2b_tensor_bytes(x), F2B_TAG_SCRATCH);
    if (host == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++)
        f2b_convert((char *)host + (size_t)i * f2b_dtype_size(x->dtype), x->dtype, &value, F2B_F64, 1);
    const f2b_status status = f2b_tape_seed_from(tape, x, host);
    f2b_free(host);
    return status;
}

/* Gradients of leaves start from zero and stay; those of the tape's tensors start uninitialised
 * and are written by the first node that reaches them. */
static f2b_status prepare_grads(f2b_node *n)
{
    f2b_tape *tape = n->tape;
    n->wants = n->fresh = 0;
    for (int i = 0; i < n->n_in; i++) {
        f2b_tensor *x = n->in[i];
        if (x == NULL || !x->requires_grad) continue;
        n->wants |= 1u << i;
        if (x->grad != NULL) continue;
        if (x->tape == NULL && tape->rule != NULL) {
            x->grad = take(tape, f2b_tensor_bytes(x), F2B_TAG_GRADIENTS);
            if (x->grad == NULL) return F2B_ERR_MEMORY;
        } else if (x->tape == NULL) {
            F2B_TRY(f2b_tensor_zero_grad(x));
        } else {
            F2B_TRY(grad_alloc(tape, x));
            n->fresh |= 1u << i;
        }
    }
    return F2B_OK;
}

static f2b_status node_backward(f2b_node *n)
{
    bool reached = false;
    for (int i = 0; i < n->n_out; i++) reached |= n->out[i]->grad != NULL;
    if (!reached) return F2B_OK;
    for (int i = 0; i < n->n_out; i++) {    /* an output that nobody used has gradient zero */
        if (n->out[i]->grad != NULL) continue;
        F2B_TRY(grad_alloc(n->tape, n->out[i]));
        if (n->tape->rule != NULL) continue;
        F2B_TRY(f2b_zero(n->out[i]->grad, n->out[i]->device, f2b_tensor_bytes(n->out[i])));
    }
    f2b_kernel *kernel = find_kernel(n, n->op->backward);
    if (kernel == NULL) return F2B_ERR_UNSUPPORTED;
    F2B_TRY(prepare_grads(n));
    n->flops = 0;
    const f2b_profile_mark start = start_profile(n);
    const f2b_status status = run_kernel(kernel, n, true);
    f2b_profile_stop(start, n->op->name, true, n->flops, node_bytes(n, true));
    F2B_CHECK(status != F2B_OK || n->fresh == 0);       /* a gradient was left uninitialised */
    return status == F2B_OK && n->grad_failed ? F2B_ERR_DEVICE : status;
}

static void after_backward(f2b_node *n)
{
    for_held(n, let_go);
    for (int i = 0; i < n->n_out; i++) {
        f2b_tensor *y = n->out[i];
        if (!y->keep) {
            f2b_free(y->grad);
            y->grad = NULL;
        }
        y->released = true;
        free_if_unneeded(y);
    }
    node_free(n);
}

f2b_status f2b_tape_backward(f2b_tape *tape)
{
    f2b_status status = F2B_OK;
    const int64_t nodes = tape->n_nodes;
    while (tape->n_nodes > 0 && status == F2B_OK) {
        f2b_node *n = tape->nodes[tape->n_nodes - 1];
        status = node_backward(n);
        tape->n_nodes--;
        after_backward(n);
        if (tape->watch != NULL) tape->watch(tape->watcher, nodes - tape->n_nodes, nodes);
    }
    return status;
}
