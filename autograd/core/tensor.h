/*
 * Tensors: a shape, a type, a place in memory. Always contiguous, outermost dimension first.
 */
#ifndef F2B_AUTOGRAD_CORE_TENSOR_H
#define F2B_AUTOGRAD_CORE_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/alloc.h"
#include "autograd/core/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { F2B_MAX_DIMS = 4 };

struct f2b_tape;
struct f2b_node;

/*
 * Fields are public to read; only the functions of tensor.h, tape.h and op.h change them.
 *
 * A leaf (made with f2b_tensor_new or f2b_tensor_borrow) belongs to its maker and outlives tapes; its
 * gradient, once there, stays and accumulates until f2b_tensor_zero_grad or f2b_tensor_free. Every
 * other tensor belongs to the tape on which its op ran.
 */
typedef struct f2b_tensor {
    f2b_dtype dtype;
    f2b_device device;
    int ndim;
    int64_t shape[F2B_MAX_DIMS];
    void *data;                 /* NULL once nobody needs it any more, or while its maker can make it */
    void *grad;                 /* same type and shape; NULL while nothing arrived */
    bool requires_grad;
    const struct f2b_tensor *grad_rows; /* [n] i32: rows of grad that anybody reads; NULL: all (tape.h) */
    const char *name;           /* parameters: their one name (borrowed); else NULL */
    struct f2b_packed_weight *packed;   /* on the host: as products read it (packed_weight.h); or NULL */

    /* Lifetime, kept by the tape. */
    struct f2b_tape *tape;      /* owner; NULL for a leaf */
    bool borrowed;              /* data is not ours to free */
    bool keep;                  /* stays until the tape is reset */
    bool released;              /* no more ops will read it */
    int holds;                  /* recorded nodes whose backward reads data */
    struct f2b_node *maker;     /* a cheap op's node, which can make data again; else NULL */
} f2b_tensor;

/**
 * A leaf with uninitialised data of its own, accounted under `tag`; free with f2b_tensor_free.
 * return  NULL with F2B_ERR_MEMORY, or F2B_ERR_SHAPE for a negative or overflowing shape.
 */
f2b_tensor *f2b_tensor_new(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                           f2b_tag tag);

/** The same, its data being no more than counted (f2b_alloc_counted): for rehearsals. */
f2b_tensor *f2b_tensor_counted(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                               f2b_tag tag);

/** A leaf over memory that somebody else owns and keeps alive (a mapped file, a host array). */
f2b_tensor *f2b_tensor_borrow(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                              const void *data);

void f2b_tensor_free(f2b_tensor *leaf);

/** Give the leaf a gradient of zeros (allocating it if needed). No-op unless it requires one. */
f2b_status f2b_tensor_zero_grad(f2b_tensor *leaf) F2B_MUST_USE;

/** Copy a tensor's data to, or from, host memory of f2b_tensor_bytes(x) bytes; x may live on any
 *  device. Reading waits for the ops that make x, and reports what they found wrong. */
f2b_status f2b_tensor_read(const f2b_tensor *x, void *host) F2B_MUST_USE;
f2b_status f2b_tensor_write(f2b_tensor *x, const void *host) F2B_MUST_USE;
/** A leaf on the host with the data of x, borrowed where it is there already; the caller frees it.
 *  NULL on error, or if x is NULL. Otherwise as f2b_tensor_read. */
f2b_tensor *f2b_tensor_on_host(const f2b_tensor *x);
/** Write n elements of any float type, converted on the way, into x from its element `first` on. */
f2b_status f2b_tensor_write_as(f2b_tensor *x, int64_t first, const void *host, f2b_dtype dtype,
                               int64_t n) F2B_MUST_USE;
/** Reading the gradient, which must be there. */
f2b_status f2b_tensor_read_grad(const f2b_tensor *x, void *host) F2B_MUST_USE;

int64_t f2b_numel(const f2b_tensor *x);
size_t f2b_tensor_bytes(const f2b_tensor *x);
/** Size of dimension i; negative i counts from the end. */
int64_t f2b_dim(const f2b_tensor *x, int i);
/** Product of all dimensions but the last: the rows of a [..., D] tensor. */
int64_t f2b_rows(const f2b_tensor *x);
bool f2b_same_shape(const f2b_tensor *a, const f2b_tensor *b);
/** "[3, 4] f32", for messages; in a ring of thread-local buffers, valid for the next 4 calls. */
const char *f2b_tensor_describe(const f2b_tensor *x);

#ifdef __cplusplus
}
#endif
#endif
