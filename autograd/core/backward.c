/*
 * The way back over the tape: gradients are set where the caller wants to begin, then each node's kernel
 * adds to the gradients of its inputs, last node first. What is freed when: tape.h.
 */
#include "autograd/core/tape_internal.h"
#include "autograd/device/device.h"

static f2b_status grad_alloc(f2b_tape *tape, f2b_tensor *x)
{
    x->grad = f2bi_take(tape, f2b_tensor_bytes(x), x->tape != NULL ? F2B_TAG_ACT_GRADS : F2B_TAG_GRADIENTS);
    return x->grad != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

/* The gradient of x becomes, or grows by, one of its shape and type on a device. */
static f2b_status add_grad(f2b_tape *tape, f2b_tensor *x, const void *grad, f2b_device from)
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
    return add_grad(tape, x, grad, F2B_HOST);
}

f2b_status f2b_tape_seed_device(f2b_tape *tape, f2b_tensor *x, const void *grad)
{
    return add_grad(tape, x, grad, x->device);
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
    uint32_t handed = 0;
    for (int o = 0; o < n->n_out; o++) handed |= n->hands_on[o];
    n->wants = n->fresh = 0;
    for (int i = 0; i < n->n_in; i++) {
        f2b_tensor *x = n->in[i];
        if (x == NULL || !x->requires_grad || (handed >> i & 1)) continue;
        n->wants |= 1u << i;
        if (x->grad != NULL) continue;
        if (x->tape == NULL && tape->rule == NULL) {
            F2B_TRY(f2b_tensor_zero_grad(x));
        } else {
            F2B_TRY(grad_alloc(tape, x));
            if (x->tape != NULL) n->fresh |= 1u << i;
        }
    }
    return F2B_OK;
}

/* The data of a tensor whose maker was cheap enough not to keep it. */
static f2b_status make_again(f2b_tensor *x)
{
    f2b_node *n = x->maker;
    if (x->data != NULL || n == NULL) return F2B_OK;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != NULL) F2B_TRY(make_again(n->in[i]));
    x->data = f2bi_take(n->tape, f2b_tensor_bytes(x), F2B_TAG_ACTIVATIONS);
    if (x->data == NULL) return F2B_ERR_MEMORY;
    n->again = true;
    return f2bi_run_kernel(n, false);
}

/* The gradient of output o, added to that of each input which it is a sum with. The first that has none gets
 * the buffer itself, when all others have read it: where y does not keep it, and to a tensor of the tape (a
 * leaf's gradient outlives the tape). */
static f2b_status hand_on(f2b_node *n, int o)
{
    f2b_tensor *y = n->out[o], *heir = NULL;
    for (int i = 0; i < n->n_in; i++) {
        f2b_tensor *x = n->in[i];
        if (!(n->hands_on[o] >> i & 1) || !x->requires_grad) continue;
        if (heir == NULL && !y->keep && x->tape != NULL && x->grad == NULL) heir = x;
        else F2B_TRY(add_grad(n->tape, x, y->grad, y->device));
    }
    if (heir == NULL) return F2B_OK;
    if (heir->grad != NULL) return add_grad(n->tape, heir, y->grad, y->device);     /* added to itself */
    heir->grad = y->grad, y->grad = NULL;
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
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != NULL && (n->op->backward_reads_in >> i & 1)) F2B_TRY(make_again(n->in[i]));
    F2B_TRY(prepare_grads(n));
    if (n->wants != 0) F2B_TRY(f2bi_run_kernel(n, true));
    F2B_CHECK(n->fresh == 0);                           /* a gradient was left uninitialised */
    if (n->grad_failed) return F2B_ERR_DEVICE;
    for (int o = 0; o < n->n_out; o++) F2B_TRY(hand_on(n, o));
    return F2B_OK;
}

static void let_go(f2b_tensor *x)
{
    F2B_CHECK(x->holds > 0);
    x->holds--;
    f2bi_free_if_unneeded(x);
}

static void after_backward(f2b_node *n)
{
    f2bi_for_held(n, let_go);
    for (int i = 0; i < n->n_out; i++) {
        f2b_tensor *y = n->out[i];
        if (!y->keep) {
            f2b_free(y->grad);
            y->grad = NULL;
        }
        y->released = true, y->maker = NULL;
        f2bi_free_if_unneeded(y);
    }
    f2bi_node_free(n);
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
