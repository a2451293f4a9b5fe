/*
 * The CUDA runtime as far as fwd2bot uses it, answered by host memory and host threads' stacks: the
 * files of autograd/device/cuda/ and every *_cuda.cu compile against this instead of NVIDIA's header
 * and run in the ordinary tests. docs/cuda.md says what is found this way and what is not.
 *
 * The kernel language is for C++ (the .cu files), the functions for C as well.
 */
#ifndef F2B_TESTS_EMULATION_CUDA_RUNTIME_H
#define F2B_TESTS_EMULATION_CUDA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define F2B_EMULATED_CUDA 1
#define CUDART_VERSION 13000

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The runtime's functions ---- */

typedef enum cudaError {
    cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101, cudaErrorInvalidResourceHandle = 400, cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700, cudaErrorLaunchFailure = 719
} cudaError_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2,
       cudaHostAllocDefault = 0, cudaHostRegisterDefault = 0 };

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};
typedef struct f2b_emu_stream *cudaStream_t;
typedef struct f2b_emu_event *cudaEvent_t;

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);

cudaError_t cudaMalloc(void **pointer, size_t bytes);
cudaError_t cudaFree(void *pointer);
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *pointer);
cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *pointer);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to);

cudaError_t cudaGetLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value);

/* ---- Behind a launch ---- */

typedef struct f2b_emu_index { unsigned x, y, z; } f2b_emu_index;
typedef struct f2b_emu_launch {
    const char *name;
    const void *kernel;
    unsigned grid[3], block[3];
    size_t shared;
    void (*body)(const void *arguments);    /* one thread of the kernel */
} f2b_emu_launch;

/* `arguments` is copied. The result is what cudaGetLastError will say. */
void f2b_emu_enqueue(const f2b_emu_launch *launch, const void *arguments, size_t bytes,
                     cudaStream_t stream);
/* Aborts, naming kernel and argument, if a word of the argument points into host memory. */
void f2b_emu_check_argument(const char *kernel, int number, const void *argument, size_t bytes);

extern f2b_emu_index threadIdx, blockIdx;
void f2b_emu_barrier(const char *file, int line);
uint64_t f2b_emu_exchange(int kind, unsigned mask, uint64_t value, int lane, const char *file,
                          int line);
/* The lanes of a warp meet; the last to come answers for all. lanes[l] is what lane l brought, and
 * where it finds the answer; NULL where the mask lacks it. */
typedef void f2b_emu_answer(void *const lanes[]);
void f2b_emu_collective(f2b_emu_answer *answer, unsigned mask, void *lane, const char *file, int line);
void *f2b_emu_shared(void);
enum { F2B_EMU_SHUFFLE, F2B_EMU_BALLOT, F2B_EMU_SYNC };

#ifdef __cplusplus
}
#include "kernel_language.h"
#include "tensor_core_emulated.h"
#endif
#endif
