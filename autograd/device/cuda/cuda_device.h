/*
 * A CUDA device as the kernels' launchers see it: its stream, its errors, memory for one op, and the
 * word in which kernels report an index that points nowhere. All work of a device is on one stream,
 * so that it runs in the order in which ops were called.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_CUDA_DEVICE_H
#define F2B_AUTOGRAD_DEVICE_CUDA_CUDA_DEVICE_H

#include <cuda_runtime.h>

#include "autograd/core/op.h"
#include "autograd/device/device_memory.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { F2BI_CUDA_DEVICES = 16 };            /* of one machine; a process uses one */

/** The stream of an open device. */
cudaStream_t f2bi_cuda_stream(int index);
/** The stream on which node n's kernels go. */
static inline cudaStream_t f2bi_stream(const f2b_node *n)
{
    return f2bi_cuda_stream(f2b_tape_device(n->tape).index);
}

/** F2B_ERR_DEVICE (F2B_ERR_MEMORY when that is what is missing) with the call that failed, the
 *  device, what CUDA says and what to do. */
f2b_status f2bi_cuda_fail(int index, cudaError_t error, const char *call);
#define F2BI_CUDA_TRY(index, call)                                                                \
    do {                                                                                          \
        const cudaError_t f2bi_error_ = (call);                                                   \
        if (f2bi_error_ != cudaSuccess) return f2bi_cuda_fail((index), f2bi_error_, #call);       \
    } while (0)

/** At the end of a launcher: the launches' errors. F2B_SYNC=1 in the environment waits here too, so
 *  that a kernel that fails is named, not one that comes after it. */
f2b_status f2bi_cuda_launched(int index, const char *what);
static inline f2b_status f2bi_launched(const f2b_node *n)
{
    return f2bi_cuda_launched(f2b_tape_device(n->tape).index, n->op->name);
}

/** Memory of node n's device for the time of one op; free with f2b_free, at once after the last
 *  launch: who gets it next comes later on the same stream. */
static inline void *f2bi_scratch(const f2b_node *n, size_t bytes)
{
    return f2b_alloc(f2b_tape_device(n->tape), bytes, F2B_TAG_SCRATCH);
}

/**
 * What a kernel needs to report entry number `where` of an index as bad: the first op and the first
 * of its entries win, whatever order threads run in. The host learns of it, as F2B_ERR_DATA, when it
 * next waits for the device.
 */
typedef struct f2bi_fault {
    unsigned long long *word, op;   /* the op's number, which orders ops */
} f2bi_fault;
/** what: whose entries they are, "rope: positions"; static. */
f2bi_fault f2bi_cuda_fault(int index, const char *what);
static inline f2bi_fault f2bi_fault_of(const f2b_node *n, const char *what)
{
    return f2bi_cuda_fault(f2b_tape_device(n->tape).index, what);
}

/* ---- Between the files of this folder ---- */

f2b_status f2bi_cuda_open(int index);
f2b_status f2bi_cuda_select(int index);     /* this thread's calls go to the device; opens it */
f2b_status f2bi_cuda_check_fault(int index);

f2b_status f2bi_cuda_available(int index, int64_t *bytes);
void *f2bi_cuda_alloc(int index, size_t bytes, f2b_tag tag);
bool f2bi_cuda_free(void *block);
void f2bi_cuda_trim(void);

f2b_status f2bi_cuda_copy_in(int index, void *dst, const void *host, size_t bytes);
f2b_status f2bi_cuda_copy_out(int index, void *host, const void *src, size_t bytes);
f2b_status f2bi_cuda_copy_within(int index, void *dst, const void *src, size_t bytes);
f2b_status f2bi_cuda_zero(int index, void *dst, size_t bytes);
f2b_status f2bi_cuda_copy_later(int index, void *host, const void *src, size_t bytes);
f2b_status f2bi_cuda_pin(int index, void *block, size_t bytes);
void f2bi_cuda_unpin(void *block);
f2b_status f2bi_cuda_wait(int index);
f2b_status f2bi_cuda_event_new(int index, void **event);
void f2bi_cuda_event_free(void *event);
f2b_status f2bi_cuda_event_set(int index, void *event);
bool f2bi_cuda_event_passed(void *event);
f2b_status f2bi_cuda_event_wait(int index, void *event);
f2b_status f2bi_cuda_event_seconds(int index, void *from, void *to, double *seconds);
f2b_status f2bi_cuda_add_into(int index, f2b_dtype dtype, void *dst, const void *src, int64_t n);
f2b_status f2bi_cuda_widen(int index, double *dst, const void *src, f2b_dtype dtype);
f2b_status f2bi_cuda_widen_f32(int index, double *dst, const void *src);
f2b_status f2bi_add_into_cuda_f32(int index, void *dst, const void *src, int64_t n);
f2b_status f2bi_add_into_cuda_bf16(int index, void *dst, const void *src, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
