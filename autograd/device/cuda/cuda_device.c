/* Opening devices, their errors, and the word for bad indices. See cuda_device.h. */
#include "autograd/device/cuda/cuda_device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/device/cuda/matmul.h"

enum { OLDEST_MAJOR = 8, FIRST_WITH_FP8 = 89, FAULT_TEXTS = 4096 };
#define NO_FAULT (~0ull)

typedef struct cuda_device {
    bool open;
    cudaStream_t stream;
    unsigned long long *fault;              /* on the device: op number << 32 | entry, the least */
    unsigned long long *fault_seen;         /* pinned */
    unsigned long long op_number;
    const char *fault_text[FAULT_TEXTS];    /* by op number */
} cuda_device;

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static cuda_device devices[F2BI_CUDA_DEVICES];

cudaStream_t f2bi_cuda_stream(int index) { return devices[index].stream; }

/* ---- Errors ---- */

static const char *remedy(cudaError_t error)
{
    switch (error) {
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
        return "no usable NVIDIA driver or device; install or update the driver (nvidia-smi must "
               "work), or use --device cpu";
    case cudaErrorInvalidDevice: return "no such device; --version lists those there are";
    case cudaErrorMemoryAllocation:
        return "lower train.micro_batch_tokens, or free the device's memory";
    default:
        return "the program cannot go on with this device: start it again; F2B_SYNC=1 names the op "
               "that fails";
    }
}

f2b_status f2bi_cuda_fail(int index, cudaError_t error, const char *call)
{
    (void)cudaGetLastError();               /* errors that pass are told once */
    const int name = (int)strcspn(call, "(");
    return f2b_fail(error == cudaErrorMemoryAllocation ? F2B_ERR_MEMORY : F2B_ERR_DEVICE,
                    "cuda:%d: %.*s: %s (%s): %s", index, name, call, cudaGetErrorString(error),
                    cudaGetErrorName(error), remedy(error));
}

f2b_status f2bi_cuda_launched(int index, const char *what)
{
    static int wait = -1;
    if (wait < 0) {
        const char *text = getenv("F2B_SYNC");
        wait = text != NULL && strcmp(text, "1") == 0;
    }
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess && wait) error = cudaStreamSynchronize(devices[index].stream);
    return error == cudaSuccess ? F2B_OK : f2bi_cuda_fail(index, error, what);
}

/* ---- Opening ---- */

static f2b_status check_device(int index)
{
    int count = 0;
    F2BI_CUDA_TRY(index, cudaGetDeviceCount(&count));
    if (index < 0 || index >= count || index >= F2BI_CUDA_DEVICES)
        return f2b_fail(F2B_ERR_DEVICE, "cuda:%d: there is no such device: this machine has %d, "
                        "counted from cuda:0", index, count);
    struct cudaDeviceProp p;
    F2BI_CUDA_TRY(index, cudaGetDeviceProperties(&p, index));
    if (p.major < OLDEST_MAJOR)
        return f2b_fail(F2B_ERR_DEVICE, "cuda:%d: %s is sm_%d%d, but sm_80 or newer is needed; use "
                        "--device cpu", index, p.name, p.major, p.minor);
    return F2B_OK;
}

static f2b_status open_locked(int index)
{
    F2B_TRY(check_device(index));
    cuda_device *d = &devices[index];
    if (d->open) return F2B_OK;
    F2BI_CUDA_TRY(index, cudaSetDevice(index));
    F2BI_CUDA_TRY(index, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    F2BI_CUDA_TRY(index, cudaMalloc((void **)&d->fault, sizeof *d->fault));
    F2BI_CUDA_TRY(index, cudaHostAlloc((void **)&d->fault_seen, sizeof *d->fault_seen,
                                       cudaHostAllocDefault));
    F2BI_CUDA_TRY(index, cudaMemsetAsync(d->fault, 0xFF, sizeof *d->fault, d->stream));
    d->open = true;
    return F2B_OK;
}

f2b_status f2bi_cuda_open(int index)
{
    if (index >= 0 && index < F2BI_CUDA_DEVICES
        && __atomic_load_n(&devices[index].open, __ATOMIC_ACQUIRE))
        return F2B_OK;
    pthread_mutex_lock(&opening);
    const f2b_status status = open_locked(index);
    pthread_mutex_unlock(&opening);
    return status;
}

f2b_status f2bi_cuda_select(int index)
{
    static _Thread_local int selected = -1;
    if (selected == index) return F2B_OK;
    F2B_TRY(f2bi_cuda_open(index));
    F2BI_CUDA_TRY(index, cudaSetDevice(index));
    selected = index;
    return F2B_OK;
}

static f2b_status describe(int index, char *text, size_t size)
{
    F2B_TRY(check_device(index));
    struct cudaDeviceProp p;
    F2BI_CUDA_TRY(index, cudaGetDeviceProperties(&p, index));
    snprintf(text, size, "cuda:%d (%s, %.1f GiB, sm_%d%d)", index, p.name,
             (double)p.totalGlobalMem / (double)(1 << 30), p.major, p.minor);
    return F2B_OK;
}

static f2b_status takes_fp8(int index)
{
    F2B_TRY(check_device(index));
    struct cudaDeviceProp p;
    F2BI_CUDA_TRY(index, cudaGetDeviceProperties(&p, index));
    if (10 * p.major + p.minor >= FIRST_WITH_FP8) return F2B_OK;
    return f2b_fail(F2B_ERR_DEVICE, "cuda:%d: %s is sm_%d%d, a compute capability without products of "
                    "8-bit floats: train.precision fp8 needs sm_89 (Ada, Hopper) or newer; use bf16",
                    index, p.name, p.major, p.minor);
}

/* ---- Bad indices ---- */

f2bi_fault f2bi_cuda_fault(int index, const char *what)
{
    cuda_device *d = &devices[index];
    const unsigned long long number = d->op_number++ % 0xFFFFFFFFu;
    d->fault_text[number % FAULT_TEXTS] = what;
    return (f2bi_fault){ d->fault, number };
}

/* After a wait: the copy of the word was asked for before it. */
static f2b_status report_fault(int index)
{
    cuda_device *d = &devices[index];
    const unsigned long long seen = *d->fault_seen;
    if (seen == NO_FAULT) return F2B_OK;
    F2BI_CUDA_TRY(index, cudaMemsetAsync(d->fault, 0xFF, sizeof *d->fault, d->stream));
    return f2b_fail(F2B_ERR_DATA, "%s: entry %llu is out of range (found on cuda:%d)",
                    d->fault_text[(seen >> 32) % FAULT_TEXTS], seen & 0xFFFFFFFFu, index);
}

f2b_status f2bi_cuda_wait(int index)
{
    F2B_TRY(f2bi_cuda_select(index));
    const cuda_device *d = &devices[index];
    F2BI_CUDA_TRY(index, cudaMemcpyAsync(d->fault_seen, d->fault, sizeof *d->fault,
                                         cudaMemcpyDeviceToHost, d->stream));
    F2BI_CUDA_TRY(index, cudaStreamSynchronize(d->stream));
    return report_fault(index);
}

f2b_status f2bi_cuda_add_into(int index, f2b_dtype dtype, void *dst, const void *src, int64_t n)
{
    F2B_TRY(f2bi_cuda_select(index));
    if (dtype == F2B_F32) return f2bi_add_into_cuda_f32(index, dst, src, n);
    if (dtype == F2B_BF16) return f2bi_add_into_cuda_bf16(index, dst, src, n);
    return f2b_fail(F2B_ERR_UNSUPPORTED, "cuda:%d: nothing adds %s", index, f2b_dtype_name(dtype));
}

f2b_status f2bi_cuda_widen(int index, double *dst, const void *src, f2b_dtype dtype)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2B_CHECK(dtype == F2B_F32);
    return f2bi_cuda_widen_f32(index, dst, src);
}

const f2bi_device_functions f2bi_cuda_functions = {
    .open = f2bi_cuda_open, .describe = describe, .takes_fp8 = takes_fp8,
    .scales_fp8 = f2bi_cuda_scales_fp8,
    .available = f2bi_cuda_available, .alloc = f2bi_cuda_alloc,
    .free_block = f2bi_cuda_free, .trim = f2bi_cuda_trim, .copy_in = f2bi_cuda_copy_in,
    .copy_out = f2bi_cuda_copy_out, .copy_within = f2bi_cuda_copy_within, .zero = f2bi_cuda_zero,
    .add_into = f2bi_cuda_add_into, .widen = f2bi_cuda_widen, .wait = f2bi_cuda_wait,
    .event_new = f2bi_cuda_event_new, .event_free = f2bi_cuda_event_free,
    .event_set = f2bi_cuda_event_set, .event_passed = f2bi_cuda_event_passed,
    .event_wait = f2bi_cuda_event_wait, .event_seconds = f2bi_cuda_event_seconds,
    .copy_later = f2bi_cuda_copy_later, .pin = f2bi_cuda_pin, .unpin = f2bi_cuda_unpin,
};
