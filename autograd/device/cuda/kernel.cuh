/*
 * The language that CUDA kernels are written in: the CPU's (device/cpu/kernel.h) on a device. A
 * *_cuda.cu file is compiled twice; each time
 *   T      is the type that tensors hold (f32, bf16),
 *   real   is the type that arithmetic uses (f32),
 *   KERNEL(name) is the name of this compilation's function: name_cuda_f32, name_cuda_bf16.
 * Kernels read with LOAD and write with STORE, or WIDE elements at a time with f2bi_read and
 * f2bi_write. They are started with F2B_LAUNCH, and the launcher ends with f2bi_launched(n).
 *
 * Sums have one order, given by shapes alone: no atomics, no order of arrival.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_KERNEL_CUH
#define F2B_AUTOGRAD_DEVICE_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "autograd/device/cuda/cuda_device.h"

#if defined(F2B_KERNEL_F32)
typedef float T;
#define F2B_KERNEL_DTYPE F2B_F32
#define KERNEL(name) name##_cuda_f32
#elif defined(F2B_KERNEL_BF16)
typedef __nv_bfloat16 T;
#define F2B_KERNEL_DTYPE F2B_BF16
#define KERNEL(name) name##_cuda_bf16
#else
#error "compile kernels through CMake, which defines F2B_KERNEL_<TYPE>"
#endif
typedef float real;

/* F2B_LAUNCH(kernel, grid, block, bytes of dynamic shared memory, stream, arguments...);
 * F2BI_DYNAMIC_SHARED(type, name) declares that memory in a kernel. Elsewhere than under nvcc both
 * are the emulation's (tests/emulation/). */
#if defined(__CUDACC__)
#define F2B_LAUNCH(kernel, grid, block, shared, stream, ...)                                      \
    kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#define F2BI_DYNAMIC_SHARED(type, name)                                                           \
    extern __shared__ __align__(256) unsigned char f2bi_dynamic_shared[];                         \
    type *name = (type *)f2bi_dynamic_shared
#else
#define F2B_LAUNCH F2B_EMU_LAUNCH
#define F2BI_DYNAMIC_SHARED(type, name) type *name = (type *)f2b_emu_shared()
#endif

#define F2BI_ON_DEVICE static __device__ __forceinline__

/* ---- Elements ---- */

F2BI_ON_DEVICE real f2bi_load(float x) { return x; }
F2BI_ON_DEVICE real f2bi_load(__nv_bfloat16 x) { return __bfloat162float(x); }
#if defined(F2B_KERNEL_BF16)
F2BI_ON_DEVICE T f2bi_store(real x) { return __float2bfloat16_rn(x); }
#else
F2BI_ON_DEVICE T f2bi_store(real x) { return x; }
#endif
#define LOAD(place) f2bi_load(place)
#define STORE(place, value) ((place) = f2bi_store(value))

/** Element i of an array of any float type that parameters have; writing is for f32 and bf16. */
F2BI_ON_DEVICE real f2bi_get(const void *x, f2b_dtype type, int64_t i)
{
    if (type == F2B_F32) return ((const float *)x)[i];
    if (type == F2B_BF16) return __bfloat162float(((const __nv_bfloat16 *)x)[i]);
    return __half2float(((const __half *)x)[i]);
}
F2BI_ON_DEVICE void f2bi_put(void *x, f2b_dtype type, int64_t i, real value)
{
    if (type == F2B_F32) ((float *)x)[i] = value;
    else ((__nv_bfloat16 *)x)[i] = __float2bfloat16_rn(value);
}

/* ---- WIDE elements, 16 bytes, in one access ---- */

enum { WIDE = 16 / sizeof(T) };
typedef struct __align__(16) f2bi_pack { T v[WIDE]; } f2bi_pack;

/* One access where the place is aligned and within n, element by element elsewhere. */
F2BI_ON_DEVICE bool f2bi_whole(const T *x, int64_t first, int64_t n)
{
    return first + WIDE <= n && (uintptr_t)(x + first) % 16 == 0;
}

/** v[i] = x[first + i], 0 from n on. */
F2BI_ON_DEVICE void f2bi_read(real v[WIDE], const T *x, int64_t first, int64_t n)
{
    if (f2bi_whole(x, first, n)) {
        const f2bi_pack p = *(const f2bi_pack *)(x + first);
        for (int i = 0; i < WIDE; i++) v[i] = LOAD(p.v[i]);
    } else {
        for (int i = 0; i < WIDE; i++) v[i] = first + i < n ? LOAD(x[first + i]) : 0;
    }
}

/** The same of an array of any float type that parameters have, f32 also in 16 bytes at a time. */
F2BI_ON_DEVICE void f2bi_read_as(real v[WIDE], const void *x, f2b_dtype type, int64_t first, int64_t n)
{
    if (type == F2B_KERNEL_DTYPE) {
        f2bi_read(v, (const T *)x, first, n);
    } else if (type == F2B_F32 && first + WIDE <= n && (uintptr_t)((const float *)x + first) % 16 == 0) {
        const float4 *p = (const float4 *)((const float *)x + first);
        for (int i = 0; i < WIDE / 4; i++) {
            const float4 f = p[i];
            v[4 * i] = f.x, v[4 * i + 1] = f.y, v[4 * i + 2] = f.z, v[4 * i + 3] = f.w;
        }
    } else {
        for (int i = 0; i < WIDE; i++) v[i] = first + i < n ? f2bi_get(x, type, first + i) : 0;
    }
}

/** x[first + i] = v[i] below n. */
F2BI_ON_DEVICE void f2bi_write(T *x, int64_t first, int64_t n, const real v[WIDE])
{
    if (f2bi_whole(x, first, n)) {
        f2bi_pack p;
        for (int i = 0; i < WIDE; i++) p.v[i] = f2bi_store(v[i]);
        *(f2bi_pack *)(x + first) = p;
    } else {
        for (int i = 0; i < WIDE && first + i < n; i++) STORE(x[first + i], v[i]);
    }
}

/** x[first + i] += v[i], or = v[i] where the gradient is fresh. */
F2BI_ON_DEVICE void f2bi_accumulate(T *x, int64_t first, int64_t n, const real v[WIDE], bool fresh)
{
    if (fresh) {
        f2bi_write(x, first, n, v);
        return;
    }
    real sum[WIDE];
    f2bi_read(sum, x, first, n);
    for (int i = 0; i < WIDE; i++) sum[i] += v[i];
    f2bi_write(x, first, n, sum);
}

/* ---- Grids ---- */

enum { F2BI_BLOCK = 256, F2BI_WARP = 32 };

/** For elementwise kernels: a thread takes WIDE elements, the first being f2bi_first(). */
static inline unsigned f2bi_blocks(int64_t n)
{
    return (unsigned)((n + WIDE * F2BI_BLOCK - 1) / (WIDE * F2BI_BLOCK));
}
F2BI_ON_DEVICE int64_t f2bi_first(void)
{
    return ((int64_t)blockIdx.x * F2BI_BLOCK + threadIdx.x) * WIDE;
}

/** For kernels with a block a row: threads for D columns, WIDE at a time, in whole warps. */
static inline unsigned f2bi_row_threads(int64_t D)
{
    const int64_t warps = (D + WIDE * F2BI_WARP - 1) / (WIDE * F2BI_WARP);
    return (unsigned)(F2BI_WARP * (warps < 1 ? 1 : warps > 8 ? 8 : warps));
}

/* ---- Sums and maxima over a block ---- */

F2BI_ON_DEVICE real f2bi_warp_sum(real x)
{
    for (int step = F2BI_WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
    return x;
}

/** The sum of x over all threads of the block, which all call it; in each of them the same bits.
 *  The block is one-dimensional, of whole warps. */
F2BI_ON_DEVICE real f2bi_block_sum(real x)
{
    __shared__ real part[F2BI_WARP];
    const unsigned warps = blockDim.x / F2BI_WARP;
    x = f2bi_warp_sum(x);
    if (warps == 1) return x;
    if (threadIdx.x % F2BI_WARP == 0) part[threadIdx.x / F2BI_WARP] = x;
    __syncthreads();
    real sum = 0;
    for (unsigned w = 0; w < warps; w++) sum += part[w];
    __syncthreads();                        /* before the next sum overwrites part */
    return sum;
}

/** Likewise the largest x; NaN counts for nothing, unless all are. */
F2BI_ON_DEVICE real f2bi_block_most(real x)
{
    __shared__ real part[F2BI_WARP];
    const unsigned warps = blockDim.x / F2BI_WARP;
    for (int step = F2BI_WARP / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, step));
    if (warps == 1) return x;
    if (threadIdx.x % F2BI_WARP == 0) part[threadIdx.x / F2BI_WARP] = x;
    __syncthreads();
    for (unsigned w = 0; w < warps; w++) x = fmaxf(x, part[w]);
    __syncthreads();                        /* before the next one overwrites part */
    return x;
}

F2BI_ON_DEVICE void f2bi_report(f2bi_fault fault, int64_t where)
{
    (void)atomicMin(fault.word, fault.op << 32 | (unsigned long long)where);
}

/** Whether work before this kernel has reported anything that the host has not heard of yet. */
F2BI_ON_DEVICE bool f2bi_any_fault(f2bi_fault fault) { return *fault.word != ~0ull; }

#endif
