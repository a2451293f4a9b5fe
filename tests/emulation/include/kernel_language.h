/* What CUDA C++ adds to the language, for a host compiler. Included by cuda_runtime.h alone. */
#ifndef F2B_TESTS_EMULATION_KERNEL_LANGUAGE_H
#define F2B_TESTS_EMULATION_KERNEL_LANGUAGE_H

#include <math.h>
#include <string.h>

#define __global__
#define __host__
#define __device__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* One copy for all threads of a block; blocks run one after another. The section is filled with NaN
 * before each block, so that nothing is ever found zeroed. */
#define __shared__ static __attribute__((section("f2b_shared")))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return { x, y }; }
static inline float4 make_float4(float x, float y, float z, float w) { return { x, y, z, w }; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return { x, y, z, w };
}

extern "C" f2b_emu_index f2b_emu_block_dim, f2b_emu_grid_dim;
#define blockDim f2b_emu_block_dim
#define gridDim f2b_emu_grid_dim
enum { warpSize = 32 };

#define __syncthreads() f2b_emu_barrier(__FILE__, __LINE__)
#define __syncwarp(...) ((void)f2b_emu_exchange(F2B_EMU_SYNC, f2b_emu_mask(__VA_ARGS__), 0, 0,      \
                                                __FILE__, __LINE__))
static inline unsigned f2b_emu_mask(unsigned mask = 0xFFFFFFFFu) { return mask; }
static inline int f2b_emu_lane(void)
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

template <typename V>
static inline V f2b_emu_shuffle(unsigned mask, V value, int source, const char *file, int line)
{
    static_assert(sizeof(V) <= 8, "shuffles take 32 and 64 bits");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = f2b_emu_exchange(F2B_EMU_SHUFFLE, mask, bits, source, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
/* Beyond the segment a thread gets its own value back, as on the device. */
static inline int f2b_emu_up(int delta, int width)
{
    const int lane = f2b_emu_lane(), first = lane / width * width;
    return lane - delta < first ? lane : lane - delta;
}
static inline int f2b_emu_down(int delta, int width)
{
    const int lane = f2b_emu_lane(), end = lane / width * width + width;
    return lane + delta >= end ? lane : lane + delta;
}
static inline int f2b_emu_width(int width = 32) { return width; }
#define F2B_EMU_SHUFFLE_FROM(mask, value, source)                                                 \
    f2b_emu_shuffle((mask), (value), (source), __FILE__, __LINE__)
#define __shfl_sync(mask, value, source, ...)                                                     \
    F2B_EMU_SHUFFLE_FROM(mask, value, f2b_emu_lane() / f2b_emu_width(__VA_ARGS__)                 \
        * f2b_emu_width(__VA_ARGS__) + (source) % f2b_emu_width(__VA_ARGS__))
#define __shfl_xor_sync(mask, value, bits, ...)                                                   \
    F2B_EMU_SHUFFLE_FROM(mask, value, f2b_emu_lane() ^ (bits))
#define __shfl_up_sync(mask, value, delta, ...)                                                   \
    F2B_EMU_SHUFFLE_FROM(mask, value, f2b_emu_up((int)(delta), f2b_emu_width(__VA_ARGS__)))
#define __shfl_down_sync(mask, value, delta, ...)                                                 \
    F2B_EMU_SHUFFLE_FROM(mask, value, f2b_emu_down((int)(delta), f2b_emu_width(__VA_ARGS__)))
#define __ballot_sync(mask, predicate)                                                            \
    ((unsigned)f2b_emu_exchange(F2B_EMU_BALLOT, (mask), (predicate) ? 1 : 0, 0, __FILE__, __LINE__))
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, predicate) == (mask))

/* Threads take turns only where they wait, so a plain read and write is atomic. */
template <typename V> static inline V atomicAdd(V *place, V value)
{
    const V old = *place;
    *place = old + value;
    return old;
}
template <typename V> static inline V atomicMin(V *place, V value)
{
    const V old = *place;
    if (value < old) *place = value;
    return old;
}
template <typename V> static inline V atomicMax(V *place, V value)
{
    const V old = *place;
    if (value > old) *place = value;
    return old;
}
template <typename V> static inline V atomicExch(V *place, V value)
{
    const V old = *place;
    *place = value;
    return old;
}
template <typename V> static inline V atomicCAS(V *place, V compare, V value)
{
    const V old = *place;
    if (old == compare) *place = value;
    return old;
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}
template <typename V> static inline V __ldg(const V *place) { return *place; }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define __expf(x) expf(x)               /* names that the C library has too */
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
static inline float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((unsigned long long)a * b >> 32);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
template <typename V> static inline V min(V a, V b) { return b < a ? b : a; }
template <typename V> static inline V max(V a, V b) { return a < b ? b : a; }

/* ---- Launching (autograd/device/cuda/kernel.cuh) ---- */

template <typename B> static void f2b_emu_call(const void *body) { (*(const B *)body)(); }

template <typename... P, typename... A>
static inline void f2b_emu_start(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                                 size_t shared, cudaStream_t stream, A... arguments)
{
    int number = 0;
    (void)number;
    auto prepare = [&](auto parameter) {
#if defined(__GNUC__) && !defined(__clang__)
        __builtin_clear_padding(&parameter);        /* what was on the stack there is no pointer */
#endif
        f2b_emu_check_argument(name, ++number, &parameter, sizeof parameter);
    };
    (prepare((P)arguments), ...);
    auto body = [=] { kernel((P)arguments...); };
    const f2b_emu_launch launch = { name, (const void *)kernel, { grid.x, grid.y, grid.z },
                                    { block.x, block.y, block.z }, shared,
                                    f2b_emu_call<decltype(body)> };
    f2b_emu_enqueue(&launch, &body, sizeof body, stream);
}

#define F2B_EMU_LAUNCH(kernel, grid, block, shared, stream, ...)                                  \
    f2b_emu_start(#kernel, kernel, (grid), (block), (shared), (stream), __VA_ARGS__)

#endif
