/*
 * The tape: runs ops at once, remembers what backward needs, and owns what ops return.
 *
 * Memory. A tensor's data is freed as soon as nobody can need it: forward code says with
 * f2b_tape_release_since that no more ops will read a stretch of tensors; what no recorded node's
 * backward reads is then freed at once; so is what a cheap op made (norms, activation functions: op.h),
 * which backward makes again, with the same bits, where it is read. Backward frees each node's saved
 * buffers, the gradients of its outputs and its outputs' data right after the node; the gradient of a sum
 * becomes that of a summand instead, where that has none.
 *
 * One tape is used by one thread; ops use all threads inside.
 */
#ifndef F2B_AUTOGRAD_CORE_TAPE_H
#define F2B_AUTOGRAD_CORE_TAPE_H

#include "autograd/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct f2b_tape f2b_tape;

f2b_tape *f2b_tape_new(f2b_device device);
void f2b_tape_free(f2b_tape *tape);

/** Forget all nodes and free all tensors of the tape; pointers to them are dead afterwards. */
void f2b_tape_reset(f2b_tape *tape);

f2b_device f2b_tape_device(const f2b_tape *tape);

/** While off, ops run but nothing is recorded. Returns the earlier setting; restore it. */
bool f2b_tape_set_recording(f2b_tape *tape, bool on);
bool f2b_tape_recording(const f2b_tape *tape);

/** What an op's kernels take beside inputs and outputs: bytes kept for backward, and bytes of work
 *  space in each direction. */
typedef struct f2b_space {
    int64_t saved, forward, backward;
} f2b_space;
struct f2b_node;
typedef f2b_space f2b_space_rule(const struct f2b_node *node);

/**
 * A rehearsal: from now on the tape does all it does but the arithmetic. No kernel runs, and what ops
 * return has no data (f2b_alloc_counted): only tables and f2b_tape_tensor's are really there, and on
 * the host alone. The
 * allocator's books show what the work would take; `rule` says what no tape can know. Gradients that
 * leaves get have no data either: who rehearses frees them. Before the tape's first op.
 */
void f2b_tape_rehearse(f2b_tape *tape, f2b_space_rule *rule);

/** Told after each node of a backward pass, of how many; NULL: nobody. */
typedef void f2b_backward_watch(void *user, int64_t done, int64_t nodes);
void f2b_tape_watch_backward(f2b_tape *tape, f2b_backward_watch *watch, void *user);

/** A tensor that the tape owns, data uninitialised (inputs of a pass). NULL on error. */
f2b_tensor *f2b_tape_tensor(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape);
/** The same with the data copied from host memory. */
f2b_tensor *f2b_tape_tensor_from(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape,
                                 const void *host);
/** The same for what the host makes for ops to read (indices, layouts, keys of rows), kept until the
 *  tape is reset. In a rehearsal on the host it is really there. */
f2b_tensor *f2b_tape_table(f2b_tape *tape, f2b_dtype dtype, int ndim, const int64_t *shape,
                           const void *host);

/** A tensor with x's data (borrowed) that gathers a gradient of its own: graphs are cut here. */
f2b_tensor *f2b_tape_detach(f2b_tape *tape, f2b_tensor *x);

/** Only these rows of the gradient of x [R, D] will be read: a table [n] i32 of distinct rows, kept as long
 *  as x. Ops that could save work (linear, rms_norm) leave the other rows of grad undefined. */
void f2b_tape_want_grad_rows(f2b_tensor *x, const f2b_tensor *rows);

/** Keep data and gradient of x until the tape is reset (results that are read after backward). */
f2b_tensor *f2b_tape_keep(f2b_tensor *x);

/** A place in the stream of tensors; release_since: no more ops will read the tensors made since
 *  `mark`, apart from `except` (n pointers; NULL entries are allowed). */
typedef int64_t f2b_mark;
f2b_mark f2b_tape_mark(const f2b_tape *tape);
void f2b_tape_release_since(f2b_tape *tape, f2b_mark mark, f2b_tensor *const *except, int n);

/** No more ops will read x: free its data now if no backward needs it. NULL and leaves are allowed. */
void f2b_tape_release(f2b_tensor *x);

/** Set (or add to) the gradient of x before backward: `value` everywhere, or the host array `grad`
 *  of x's type and shape. */
f2b_status f2b_tape_seed(f2b_tape *tape, f2b_tensor *x, double value) F2B_MUST_USE;
f2b_status f2b_tape_seed_from(f2b_tape *tape, f2b_tensor *x, const void *grad) F2B_MUST_USE;
/** As seed_from, with `grad` on x's own device. */
f2b_status f2b_tape_seed_device(f2b_tape *tape, f2b_tensor *x, const void *grad) F2B_MUST_USE;

/** Run backward over all nodes, last to first; a node none of whose outputs has a gradient is
 *  skipped. The tape then holds only kept tensors; call f2b_tape_reset before the next pass. */
f2b_status f2b_tape_backward(f2b_tape *tape) F2B_MUST_USE;

/**
 * A segment that keeps only its inputs and is computed again in backward. `body` must be a pure
 * function of its inputs, of `context` (copied, context_bytes) and of what that points to, which
 * must stay as it is until backward; it may call any op and nest further segments.
 * in [n_in], out [n_out]: borrowed from the tape. Without recording, body simply runs.
 */
typedef f2b_status f2b_segment_body(f2b_tape *tape, const void *context, f2b_tensor *const *in,
                                    f2b_tensor **out);
f2b_status f2b_tape_segment(f2b_tape *tape, f2b_segment_body *body, const void *context,
                            size_t context_bytes, f2b_tensor *const *in, int n_in,
                            f2b_tensor **out, int n_out) F2B_MUST_USE;

/** Number of recorded nodes, for tests and reports. */
int64_t f2b_tape_nodes(const f2b_tape *tape);

#ifdef __cplusplus
}
#endif
#endif
