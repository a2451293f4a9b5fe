/*
 * Not a test by itself: what this machine can do, for scripts/bench/machine.py: the rate of fused
 * multiply-adds in registers, of our matrix products, and of memory.
 *
 *   machine_bench ROUNDS [quick]
 *
 * Prints a JSON object: GFLOP/s `f32_peak` and `bf16_peak` (0 where the processor has no FMA, no VDPBF16PS), a
 * list `products` of {precision, m, n, k, gflops, packed: the same with a weight packed before}, and GB/s of a[i] = b[i] + c[i] counted as three
 * streams, from memory (`memory`) and from the caches (`cache`). Each is two numbers: the best of
 * ROUNDS by the clock, and that of all rounds by the seconds that the threads had a processor, which
 * other work on the machine does not lengthen. The system counts those of a thread on another processor
 * in ticks of some milliseconds, so that a round takes several of them.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __FMA__
#include <immintrin.h>
#endif

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/packed_weight.h"

enum { CHAINS = 12 };               /* independent sums: enough to hide a latency, few enough for 16 registers */

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The best rate so far by the clock, that of all rounds by processors. */
typedef struct rate {
    double clock, processor, start, busy, all_work, all_busy;
} rate;

static void begin(rate *r)
{
    r->busy = now(CLOCK_PROCESS_CPUTIME_ID);
    r->start = now(CLOCK_MONOTONIC);
}

static void end(rate *r, double work)
{
    const double clock = work / (now(CLOCK_MONOTONIC) - r->start);
    if (clock > r->clock) r->clock = clock;
    r->all_work += work;
    r->all_busy += now(CLOCK_PROCESS_CPUTIME_ID) - r->busy;
    r->processor = r->all_work * omp_get_max_threads() / r->all_busy;
}

#ifdef __AVX512F__
typedef __m512 vector;
#define SPREAD _mm512_set1_ps
#define MULTIPLY_ADD _mm512_fmadd_ps
#elif defined __FMA__
typedef __m256 vector;
#define SPREAD _mm256_set1_ps
#define MULTIPLY_ADD _mm256_fmadd_ps
#else
typedef float vector;
#endif
enum { LANES = sizeof(vector) / sizeof(float) };

/* Chains of vectors with starts of their own; what comes out depends on all, so that none is left out. */
static float multiply_adds_f32(long turns)
{
#ifdef __FMA__
    vector sum[CHAINS];
    const vector a = SPREAD(0.5f), b = SPREAD(0.25f);
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; c++) sum[c] = SPREAD((float)c);
    for (long t = 0; t < turns; t++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = MULTIPLY_ADD(sum[c], a, b);
    }
#pragma GCC unroll 16
    for (int c = 1; c < CHAINS; c++) sum[0] = MULTIPLY_ADD(sum[0], a, sum[c]);
    return sum[0][0];
#else
    (void)turns;
    return 0;
#endif
}

static float multiply_adds_bf16(long turns)
{
#if defined __AVX512F__ && defined __AVX512BF16__
    __m512 sum[CHAINS];
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps((float)c);
    const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3F00), b = (__m512bh)_mm512_set1_epi16(0x3C00);
    for (long t = 0; t < turns; t++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_dpbf16_ps(sum[c], a, b);
    }
#pragma GCC unroll 16
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
    return _mm512_cvtss_f32(sum[0]);
#else
    (void)turns;
    return 0;
#endif
}

/* GFLOP/s of all threads together. */
static rate peak(float (*work)(long), double flops_a_turn, long turns, int rounds)
{
    rate best = { 0 };
    volatile float sink = 0;
    for (int r = 0; r < 20 * rounds; r++) {
        begin(&best);
#pragma omp parallel
        {
            const float got = work(turns);
#pragma omp critical
            sink += got;
        }
        end(&best, flops_a_turn * (double)turns * omp_get_max_threads() * 1e-9);
    }
    return best;
}

static f2b_tensor *zeros(f2b_dtype type, int64_t rows, int64_t cols)
{
    f2b_tensor *t = f2b_tensor_new(F2B_HOST, type, 2, (int64_t[]){ rows, cols }, F2B_TAG_OTHER);
    if (t == NULL) exit(1);
    memset(t->data, 0, f2b_tensor_bytes(t));
    return t;
}

/* GFLOP/s of C = A B^T in a precision, as a linear layer has it. */
static rate product(f2b_dtype type, int64_t m, int64_t n, int64_t k, bool packed, int rounds, double flops_a_round)
{
    f2b_tensor *a = zeros(type, m, k), *b = zeros(type, n, k), *c = zeros(type, m, n);
    if (packed && f2b_packed_weight_make(b, type) != F2B_OK) exit(1);
    const f2b_gemm_term term = { .a = a->data, .a_type = type, .a_row = k, .a_col = 1, .b = b->data, .b_type = type,
                                 .b_row = 1, .b_col = k, .k = k, .alpha = 1,
                                 .packed = f2b_packed_forward(b, type) };
    const double flops = 2.0 * (double)m * (double)n * (double)k;
    const int turns = 1 + (int)(flops_a_round / flops);
    rate best = { 0 };
    for (int r = 0; r < rounds; r++) {
        begin(&best);
        for (int t = 0; t < turns; t++)
            if (f2bi_gemm(type, m, n, &term, 1, f2b_gemm_rows(c->data, type, n, 0)) != F2B_OK) exit(1);
        end(&best, 1e-9 * flops * turns);
    }
    f2b_tensor_free(a), f2b_tensor_free(b), f2b_tensor_free(c);
    return best;
}

/* GB/s over arrays of `count` floats. */
static rate bandwidth(int64_t count, int rounds, int64_t floats_a_round)
{
    float *a = aligned_alloc(64, (size_t)count * 4), *b = aligned_alloc(64, (size_t)count * 4),
          *c = aligned_alloc(64, (size_t)count * 4);
    if (a == NULL || b == NULL || c == NULL) exit(1);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) a[i] = 0, b[i] = 1, c[i] = 2;
    const int turns = (int)(floats_a_round / count) + 1;
    rate best = { 0 };
    for (int r = 0; r < rounds; r++) {
        begin(&best);
#pragma omp parallel
        for (int t = 0; t < turns; t++) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < count; i++) a[i] = b[i] + c[i];
        }
        end(&best, 12e-9 * (double)count * turns);
    }
    free(a), free(b), free(c);
    return best;
}

static void print(const char *name, rate r)
{
    printf(", \"%s\": [%.1f, %.1f]", name, r.clock, r.processor);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    const int rounds = atoi(argv[1]);
    const bool quick = argc > 2, has_fma = multiply_adds_f32(1) != 0,
               has_bf16 = multiply_adds_bf16(1) != 0;
    const long turns = 1 << (quick ? 10 : 19);
    const int64_t floats = quick ? 1 << 20 : 1 << 29;
    const double numbers = (double)LANES * CHAINS;
    printf("{\"threads\": %d", omp_get_max_threads());
    print("f32_peak", has_fma ? peak(multiply_adds_f32, 2 * numbers, turns, rounds) : (rate){ 0 });
    print("bf16_peak", has_bf16 ? peak(multiply_adds_bf16, 4 * numbers, turns, rounds) : (rate){ 0 });
    print("memory", bandwidth(quick ? 1 << 16 : 1 << 25, rounds, floats));
    print("cache", bandwidth(1 << 16, rounds, floats));
    printf(", \"products\": [");
    static const int64_t shapes[][3] = {
        { 5088, 512, 512 }, { 5088, 1376, 512 }, { 5088, 512, 1376 }, { 5088, 16, 512 },
        { 800, 32000, 512 }, { 620, 4096, 4096 },
    };
    static const int64_t small[3] = { 64, 96, 64 };
    const int n = quick ? 1 : (int)(sizeof shapes / sizeof *shapes);
    for (int i = 0; i < 2 * n; i++) {
        const int64_t *s = quick ? small : shapes[i / 2];
        const f2b_dtype type = i % 2 == 0 ? F2B_F32 : F2B_BF16;
        printf("%s{\"precision\": \"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld", i ? ", " : "",
               type == F2B_F32 ? "f32" : "bf16", (long long)s[0], (long long)s[1], (long long)s[2]);
        print("gflops", product(type, s[0], s[1], s[2], false, rounds, quick ? 1 : 4e10));
        print("packed", product(type, s[0], s[1], s[2], true, rounds, quick ? 1 : 4e10));
        printf("}");
    }
    printf("]}\n");
    return 0;
}
