/*
 * The tape of tape.h and the nodes of op.h, forward; backward.c is the way back. Tensors and nodes are
 * listed in order of creation; both lists only grow until reset, so that a mark is an index.
 */
#include <string.h>

#include "autograd/core/profile.h"
#include "autograd/core/tape_internal.h"
#include "autograd/device/device.h"

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

void f2bi_free_if_unneeded(f2b_tensor *x)
{
    const bool held = x->holds > 0 && x->maker == NULL;
    if (x->tape != NULL && x->released && !held && !x->keep) free_data(x);
}

static void hold(f2b_tensor *x) { x->holds++; }

void f2bi_node_free(f2b_node *n)
{
    if (n == NULL) return;
    for (int i = 0; i < F2B_MAX_SAVED; i++) f2b_free(n->saved[i]);
    f2b_free(n->attr);
    f2b_free(n);
}

void f2bi_for_held(const f2b_node *n, void (*apply)(f2b_tensor *))
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
    for (int64_t i = 0; i < tape->n_nodes; i++) f2bi_node_free(tape->nodes[i]);
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
void *f2bi_take(const f2b_tape *tape, size_t bytes, f2b_tag tag)
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

void f2b_tape_want_grad_rows(f2b_tensor *x, const f2b_tensor *rows)
{
    F2B_CHECK(x->ndim == 2 && rows->dtype == F2B_I32 && rows->ndim == 1);
    x->grad_rows = rows;
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
        f2bi_free_if_unneeded(x);
    }
}

void f2b_tape_release(f2b_tensor *x)
{
    if (x == NULL || x->tape == NULL) return;
    x->released = true;
    f2bi_free_if_unneeded(x);
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
        f2bi_node_free(n);
        return NULL;
    }
    if (attr_bytes > 0) memcpy(n->attr, attr, attr_bytes);
    return n;
}

f2b_tensor *f2b_node_out(f2b_node *n, f2b_dtype dtype, int ndim, const int64_t *shape)
{
    if (n == NULL) return NULL;
    F2B_CHECK(n->n_out < F2B_MAX_OUT);
    f2b_tensor *y = n->out[n->n_out++] = result(n->tape, dtype, ndim, shape);
    if (y != NULL) y->requires_grad = n->recorded;
    return y;
}

void f2b_node_hands_on(f2b_node *n, int o, int i)
{
    if (n == NULL || n->in[i] == NULL || n->out[o] == NULL) return;
    F2B_CHECK(n->in[i]->dtype == n->out[o]->dtype && f2b_same_shape(n->in[i], n->out[o]));
    n->hands_on[o] |= 1u << i;
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

/* What a kernel takes beside inputs and outputs. What was saved is still there when an output is made again. */
static f2b_status rehearse(f2b_node *n, bool backward)
{
    const f2b_space space = n->tape->rule(n);
    if (backward) n->fresh = 0;
    else if (n->recorded && space.saved > 0 && n->saved[0] == NULL) {
        n->saved[0] = f2bi_take(n->tape, (size_t)space.saved, F2B_TAG_ACTIVATIONS);
        if (n->saved[0] == NULL) return F2B_ERR_MEMORY;
    }
    void *work = f2bi_take(n->tape, (size_t)(backward ? space.backward : space.forward), F2B_TAG_SCRATCH);
    f2b_free(work);
    return work != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

/* Composites run other ops, which are profiled or rehearse. */
f2b_status f2bi_run_kernel(f2b_node *n, bool backward)
{
    f2b_kernel *kernel = find_kernel(n, backward ? n->op->backward : n->op->forward);
    if (kernel == NULL) return F2B_ERR_UNSUPPORTED;
    if (n->op->composite) return kernel(n);
    if (n->tape->rule != NULL) return rehearse(n, backward);
    n->flops = 0;
    const f2b_profile_mark start = f2b_profile_start(n->tape->device);
    const f2b_status status = kernel(n);
    f2b_profile_stop(start, n->op->name, backward, n->flops, node_bytes(n, backward));
    return status;
}

/* An op's output can be made again if the op is cheap and its own backward holds all that it reads. */
static bool can_be_made_again(const f2b_node *n)
{
    bool all_held = n->op->cheap && n->n_out == 1;
    for (int i = 0; i < n->n_in; i++)
        all_held &= n->in[i] == NULL || n->in[i]->tape == NULL || (n->op->backward_reads_in >> i & 1);
    return all_held;
}

f2b_status f2b_node_run(f2b_node *n)
{
    if (n == NULL) return f2b_last_status();
    f2b_status status = F2B_OK;
    for (int i = 0; i < n->n_out && status == F2B_OK; i++)
        if (n->out[i] == NULL) status = f2b_last_status();
    if (status == F2B_OK) status = f2bi_run_kernel(n, false);
    if (status == F2B_OK && n->recorded) {
        status = push(&n->tape->nodes, &n->tape->n_nodes, &n->tape->cap_nodes, n);
        if (status == F2B_OK) {
            f2bi_for_held(n, hold);
            if (can_be_made_again(n)) n->out[0]->maker = n;
            return F2B_OK;
        }
    }
    f2bi_node_free(n);
    return status;
}

f2b_status f2b_node_save(f2b_node *n, int slot, size_t bytes, void **buffer)
{
    F2B_CHECK(slot < F2B_MAX_SAVED && (n->saved[slot] == NULL || n->again));
    *buffer = n->saved[slot];
    if (!n->recorded || n->again) return F2B_OK;
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
