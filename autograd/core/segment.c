/*
 * Checkpointed segments (tape.h): forward runs the body without recording; backward runs it again
 * on a tape of its own, with inputs cut from the outer graph whose gradient buffers are the outer
 * ones, so that nothing is copied. The segment's op works on every device: it launches no kernel.
 */
#include <string.h>

#include "autograd/core/op.h"

typedef struct segment {
    f2b_segment_body *body;
    max_align_t context[];      /* the caller's bytes */
} segment;

/* The body has already run when the node is made; see f2b_tape_segment. */
static f2b_status forward(f2b_node *n)
{
    (void)n;
    return F2B_OK;
}

static f2b_status replay(f2b_node *n, f2b_tape *inner)
{
    const segment *s = n->attr;
    f2b_tensor *in[F2B_MAX_IN] = { 0 }, *out[F2B_MAX_OUT] = { 0 };
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == NULL) continue;
        if ((in[i] = f2b_tape_detach(inner, n->in[i])) == NULL) return f2b_last_status();
        in[i]->requires_grad = n->in[i]->requires_grad;
        in[i]->grad_rows = n->in[i]->grad_rows;
        in[i]->keep = true;
    }
    F2B_TRY(s->body(inner, s->context, in, out));
    for (int i = 0; i < n->n_out; i++)
        F2B_TRY(f2b_tape_seed_device(inner, out[i], n->out[i]->grad));
    for (int i = 0; i < n->n_in; i++) {         /* lend the outer gradient; fresh ones start empty */
        if (!(n->wants >> i & 1) || (n->fresh >> i & 1)) continue;
        in[i]->grad = n->in[i]->grad;
        n->in[i]->grad = NULL;
    }
    const f2b_status status = f2b_tape_backward(inner);
    for (int i = 0; i < n->n_in; i++) {
        if (!(n->wants >> i & 1) || in[i]->grad == NULL) continue;
        if (n->in[i]->grad != NULL) f2b_free(n->in[i]->grad);
        n->in[i]->grad = in[i]->grad;
        in[i]->grad = NULL;
        n->fresh &= ~(1u << i);
    }
    for (int i = 0; i < n->n_in; i++) (void)f2b_node_grad(n, i, NULL);  /* unreached: zero */
    return status;
}

static f2b_status backward(f2b_node *n)
{
    f2b_tape *inner = f2b_tape_new(f2b_tape_device(n->tape));
    if (inner == NULL) return F2B_ERR_MEMORY;
    f2b_tape_rehearse(inner, f2bi_tape_rule(n->tape));
    const f2b_status status = replay(n, inner);
    f2b_tape_free(inner);
    return status;
}

#define EVERY_TYPE(fn) { fn, fn, fn }
static const f2b_op op_segment = {
    .name = "segment", .composite = true, .backward_reads_in = ~0u,
    .forward = { EVERY_TYPE(forward), EVERY_TYPE(forward) },
    .backward = { EVERY_TYPE(backward), EVERY_TYPE(backward) },
};

f2b_status f2b_tape_segment(f2b_tape *tape, f2b_segment_body *body, const void *context,
                            size_t context_bytes, f2b_tensor *const *in, int n_in,
                            f2b_tensor **out, int n_out)
{
    bool wanted = false;
    for (int i = 0; i < n_in; i++) wanted |= in[i] != NULL && in[i]->requires_grad;
    if (!wanted || !f2b_tape_recording(tape)) return body(tape, context, in, out);
    F2B_CHECK(n_out > 0 && n_out <= F2B_MAX_OUT);

    const f2b_mark mark = f2b_tape_mark(tape);
    const bool before = f2b_tape_set_recording(tape, false);
    const f2b_status status = body(tape, context, in, out);
    f2b_tape_set_recording(tape, before);
    F2B_TRY(status);
    f2b_tape_release_since(tape, mark, out, n_out);

    segment *s = f2b_alloc_host(sizeof *s + context_bytes, F2B_TAG_OTHER);
    if (s == NULL) return F2B_ERR_MEMORY;
    s->body = body;
    memcpy(s->context, context, context_bytes);
    f2b_node *n = f2b_node_new(tape, &op_segment, out[0]->dtype, in, n_in, s,
                               sizeof *s + context_bytes);
    f2b_free(s);
    for (int i = 0; i < n_out && n != NULL; i++) {      /* what the body made is the node's output */
        F2B_CHECK(out[i]->tape == tape && !out[i]->borrowed);
        out[i]->requires_grad = true;
        n->out[n->n_out++] = out[i];
    }
    return f2b_node_run(n);
}
