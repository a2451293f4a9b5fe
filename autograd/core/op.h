/*
 * How an op is made. An op's folder has a contract (<op>.h), checks and shape rule (<op>.c) and its
 * kernels (<op>_cpu.c, <op>_cuda.cu). The constructor that callers see does
 *
 *     f2b_node *n = f2b_node_new(tape, &op, x->dtype, inputs, n_in, &attr, sizeof attr);
 *     f2b_tensor *y = f2b_node_out(n, dtype, ndim, shape);
 *     return f2b_node_run(n) == F2B_OK ? y : NULL;
 *
 * Each step passes NULL through, so one check at the end is enough.
 *
 * A descriptor names its kernels for every device with F2B_KERNELS. Those of a device that is not
 * linked into the program, or that the op lacks, are weak names that stay NULL: an empty slot, which
 * is an error by name when the op runs there. docs/cuda.md says how to add them.
 */
#ifndef F2B_AUTOGRAD_CORE_OP_H
#define F2B_AUTOGRAD_CORE_OP_H

#include "autograd/core/tape.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { F2B_MAX_IN = 24, F2B_MAX_OUT = 4, F2B_MAX_SAVED = 4 };

struct f2b_node;
typedef f2b_status f2b_kernel(struct f2b_node *node);

/** Kernels of one direction: by device, then by compute type. An empty slot is an error by name. */
typedef f2b_kernel *f2b_kernels[F2B_DEVICE_KINDS][F2B_COMPUTE_DTYPES];

typedef struct f2b_op {
    const char *name;
    bool composite;                 /* runs other ops, which the profile counts already */
    bool cheap;                     /* costs no more than reading and writing: an output that only backward
                                       still reads is freed, and made again there (where all inputs are) */
    uint32_t backward_reads_in;     /* bit i: backward reads in[i]->data */
    uint32_t backward_reads_out;    /* bit i: backward reads out[i]->data */
    f2b_kernels forward, backward;
} f2b_op;

/* Declares the compilations of a kernel, one a type and device; names them in a descriptor. (C++ is
 * the language of files that define those for CUDA.) */
#ifdef __cplusplus
#define F2B_DECLARE_KERNELS(fn) extern "C" f2b_kernel fn##_cuda_f32, fn##_cuda_bf16
#else
#define F2B_DECLARE_KERNELS(fn)                                                                   \
    f2b_kernel fn##_f32, fn##_f64, fn##_bf16, fn##_cuda_f32 F2B_WEAK, fn##_cuda_bf16 F2B_WEAK
#endif
#define F2B_KERNELS(fn)                                                                           \
    [F2B_CPU] = { [F2B_F32] = fn##_f32, [F2B_F64] = fn##_f64, [F2B_BF16] = fn##_bf16 },           \
    [F2B_CUDA] = { [F2B_F32] = fn##_cuda_f32, [F2B_BF16] = fn##_cuda_bf16 }

typedef struct f2b_node {
    const f2b_op *op;
    f2b_tape *tape;
    f2b_dtype dtype;                /* compute type: which kernel runs */
    int n_in, n_out;
    f2b_tensor *in[F2B_MAX_IN];     /* optional inputs may be NULL */
    f2b_tensor *out[F2B_MAX_OUT];
    uint32_t hands_on[F2B_MAX_OUT]; /* bit i: out[o] = in[i] + ... (f2b_node_hands_on) */
    void *saved[F2B_MAX_SAVED];
    void *attr;                     /* the node's own copy */
    bool recorded;                  /* backward will come: save what it needs */
    bool again;                     /* forward runs again in backward: what it saved is there */
    uint32_t wants;                 /* backward: bit i: in[i] wants one of the kernel (in[i]->grad is there) */
    uint32_t fresh;                 /* backward: bit i: that gradient is uninitialised: write, don't add */
    bool grad_failed;               /* backward: a gradient could not be zeroed */
    double flops;                   /* set by kernels for the profile */
} f2b_node;

/** A node, unattached until it has run. An input that is NULL is "not given": constructors check
  * for earlier errors (a required input that is NULL) before they come here. */
f2b_node *f2b_node_new(f2b_tape *tape, const f2b_op *op, f2b_dtype dtype, f2b_tensor *const *in,
                       int n_in, const void *attr, size_t attr_bytes);

/** Add an output to the node. NULL if n is NULL or on error. */
f2b_tensor *f2b_node_out(f2b_node *n, f2b_dtype dtype, int ndim, const int64_t *shape);

/** out[o] = in[i] + ..., of one shape and type; NULL as in[i]: nothing to do. The gradient of in[i] is that of
 *  out[o] then: after the backward kernel the tape hands the buffer on to in[i], which costs nothing, or adds it
 *  where in[i] has a gradient already. The kernel is given none for in[i], and isn't run if it has no other. */
void f2b_node_hands_on(f2b_node *n, int o, int i);

/** Run forward, record if an input requires a gradient. Frees the node otherwise. */
f2b_status f2b_node_run(f2b_node *n) F2B_MUST_USE;

/** In forward kernels: a buffer that lives until the node's backward; NULL with F2B_OK as last
 *  status if the node is not recorded (nothing to save), NULL with an error if out of memory. It is the
 *  same buffer when a cheap op's forward runs again. */
f2b_status f2b_node_save(f2b_node *n, int slot, size_t bytes, void **buffer) F2B_MUST_USE;

/** In backward kernels: pointer to the gradient of input i, or NULL if it wants none; if `fresh` is
 *  NULL the buffer is zeroed where it was uninitialised, else *fresh tells whether to write (true)
 *  or to add (false). Process inputs in order: one tensor may be two inputs. */
void *f2b_node_grad(f2b_node *n, int i, bool *fresh);

/** In backward kernels: the rows of input i's gradient that are wanted, on the node's device, and how many;
 *  NULL: all rows. */
static inline const int32_t *f2b_node_grad_rows(const f2b_node *n, int i, int64_t *count)
{
    const f2b_tensor *rows = n->in[i]->grad_rows;
    *count = rows != NULL ? rows->shape[0] : f2b_rows(n->in[i]);
    return rows != NULL ? (const int32_t *)rows->data : NULL;
}

/** The rule of a tape that rehearses (tape.h), else NULL: for composites that make tapes. */
f2b_space_rule *f2bi_tape_rule(const f2b_tape *tape);

#ifdef __cplusplus
}
#endif
#endif
