/* See silu_mul_rows.h. */
#include "autograd/ops/silu_mul/silu_mul_rows.h"

#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"
#include "autograd/device/cpu/wide_math.h"

/* ---- Plain loops ---- */

/* For loops in which no element needs one that was written before it. */
#define ELEMENTWISE _Pragma("GCC ivdep")

static inline real gated(real g, real u) { return g * f2bi_sigmoid(g) * u; }

F2BI_ROW_LOOP plain_row(int64_t D, const T *restrict gate, const T *restrict up, T *restrict y)
{
    int64_t c = 0;
#if defined(F2B_KERNEL_BF16)
    const f2bi_pair *restrict g = (const f2bi_pair *)gate, *restrict u = (const f2bi_pair *)up;
    f2bi_pair *restrict to = (f2bi_pair *)y;
    for (; c < D / 2; c++)
        to[c] = f2bi_pair_of(gated(f2bi_pair_first(g[c]), f2bi_pair_first(u[c])),
                             gated(f2bi_pair_second(g[c]), f2bi_pair_second(u[c])));
    c *= 2;
#endif
    for (; c < D; c++) STORE(y[c], gated(LOAD(gate[c]), LOAD(up[c])));
}

/* With s = sigmoid(g):  dg = dy * u * s (1 + g (1 - s)),  du = dy * g * s. */
typedef struct slope {
    real gate, up, y;
} slope;

static inline slope slope_at(real g, real u, real d)
{
    const real s = f2bi_sigmoid(g), h = g * s;
    return (slope){ d * u * (s * (1 + g * (1 - s))), d * h, h * u };
}

F2BI_ROW_LOOP gate_row(int64_t D, const T *restrict gate, const T *restrict up, const T *restrict dy,
                       T *restrict dg, const bool fresh)
{
    for (int64_t i = 0; i < D; i++) {
        const real d = slope_at(LOAD(gate[i]), LOAD(up[i]), LOAD(dy[i])).gate;
        STORE(dg[i], fresh ? d : LOAD(dg[i]) + d);
    }
}

F2BI_ROW_LOOP up_row(int64_t D, const T *restrict gate, const T *restrict dy, T *restrict du,
                     const bool fresh)
{
    for (int64_t i = 0; i < D; i++) {
        const real d = slope_at(LOAD(gate[i]), 0, LOAD(dy[i])).up;
        STORE(du[i], fresh ? d : LOAD(du[i]) + d);
    }
}

/* All at once where all are written: what a layer does. dy may be dg. */
F2BI_ROW_LOOP all_rows(int64_t D, const T *gate, const T *up, const T *dy, T *dg, T *du, T *y,
                       const bool makes_y)
{
    int64_t c = 0;
#if defined(F2B_KERNEL_BF16)
    const f2bi_pair *g = (const f2bi_pair *)gate, *u = (const f2bi_pair *)up, *d = (const f2bi_pair *)dy;
    f2bi_pair *to_g = (f2bi_pair *)dg, *to_u = (f2bi_pair *)du, *to_y = (f2bi_pair *)y;
    ELEMENTWISE
    for (; c < D / 2; c++) {
        const slope a = slope_at(f2bi_pair_first(g[c]), f2bi_pair_first(u[c]), f2bi_pair_first(d[c]));
        const slope b = slope_at(f2bi_pair_second(g[c]), f2bi_pair_second(u[c]), f2bi_pair_second(d[c]));
        to_g[c] = f2bi_pair_of(a.gate, b.gate);
        to_u[c] = f2bi_pair_of(a.up, b.up);
        if (makes_y) to_y[c] = f2bi_pair_of(a.y, b.y);
    }
    c *= 2;
#endif
    ELEMENTWISE
    for (; c < D; c++) {
        const slope a = slope_at(LOAD(gate[c]), LOAD(up[c]), LOAD(dy[c]));
        STORE(dg[c], a.gate);
        STORE(du[c], a.up);
        if (makes_y) STORE(y[c], a.y);
    }
}

/* Backward of elements [at, at + n). dy may be dg where both gradients are written. */
static void plain_back(const f2bi_silu_slopes *s, const T *dy, int64_t at, int64_t n)
{
    const T *gate = s->gate + at, *up = s->up + at;
    if (s->dg != NULL && s->du != NULL && s->fresh_gate && s->fresh_up) {
        if (s->y != NULL) all_rows(n, gate, up, dy + at, s->dg + at, s->du + at, s->y + at, true);
        else all_rows(n, gate, up, dy + at, s->dg + at, s->du + at, NULL, false);
        return;
    }
    if (s->dg != NULL && s->fresh_gate) gate_row(n, gate, up, dy + at, s->dg + at, true);
    if (s->dg != NULL && !s->fresh_gate) gate_row(n, gate, up, dy + at, s->dg + at, false);
    if (s->du != NULL && s->fresh_up) up_row(n, gate, dy + at, s->du + at, true);
    if (s->du != NULL && !s->fresh_up) up_row(n, gate, dy + at, s->du + at, false);
    if (s->y != NULL) plain_row(n, gate, up, s->y + at);
}

/* ---- AVX-512, in bf16 ---- */

#if defined(F2BI_WIDE) && defined(F2B_KERNEL_BF16)
#define SILU_IS_WIDE IS_WIDE

/* 1 / (1 + e^-x), relative error below 4e-6. Where the function goes to 0 it stays 2^-126, so that no infinity is
 * divided by; NaN passes through. */
WIDE_INLINE __m512 sigmoid(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1);
    const __m512 t = _mm512_min_ps(_mm512_set1_ps(126), _mm512_mul_ps(x, _mm512_set1_ps(-LOG2E)));
    const __m512 d = _mm512_add_ps(one, power_of_two(t)), r = _mm512_rcp14_ps(d);
    return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(d, r, one), r);
}

WIDE_INLINE __m512 wide_gated(__m512 g, __m512 u) { return _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), u); }

WIDE_TARGET static void wide_row(int64_t n, const T *gate, const T *up, T *y)
{
    int64_t c = 0;
    for (; c + 2 * VL <= n; c += 2 * VL)
        store_two(y + c, wide_gated(load_one(gate + c), load_one(up + c)),
                  wide_gated(load_one(gate + c + VL), load_one(up + c + VL)));
    for (; c < n; c += VL) {
        const __mmask16 in = within(c, n);
        store_some(in, y + c, wide_gated(load_some(in, gate + c), load_some(in, up + c)));
    }
}

typedef struct wide_slope {
    __m512 gate, up, y;
} wide_slope;

WIDE_INLINE wide_slope wide_slope_at(__m512 g, __m512 u, __m512 d)
{
    const __m512 s = sigmoid(g), h = _mm512_mul_ps(g, s);
    const __m512 bend = _mm512_fnmadd_ps(h, s, _mm512_add_ps(s, h));        /* s (1 + g (1 - s)) = s + h - h s */
    return (wide_slope){ _mm512_mul_ps(_mm512_mul_ps(d, u), bend), _mm512_mul_ps(d, h), _mm512_mul_ps(h, u) };
}

WIDE_INLINE void give(__mmask16 in, T *to, __m512 x, bool fresh)
{
    if (to != NULL) store_some(in, to, fresh ? x : _mm512_add_ps(load_some(in, to), x));
}

WIDE_TARGET static void wide_back(const f2bi_silu_slopes *s, const T *dy, int64_t at, int64_t n)
{
    const bool all = s->dg != NULL && s->du != NULL && s->fresh_gate && s->fresh_up && s->y != NULL;
    const int64_t end = at + n;
    int64_t c = at;
    for (; all && c + 2 * VL <= end; c += 2 * VL) {
        const wide_slope a = wide_slope_at(load_one(s->gate + c), load_one(s->up + c), load_one(dy + c));
        const wide_slope b = wide_slope_at(load_one(s->gate + c + VL), load_one(s->up + c + VL), load_one(dy + c + VL));
        store_two(s->dg + c, a.gate, b.gate);
        store_two(s->du + c, a.up, b.up);
        store_two(s->y + c, a.y, b.y);
    }
    for (; c < end; c += VL) {
        const __mmask16 in = within(c, end);
        const wide_slope a = wide_slope_at(load_some(in, s->gate + c), load_some(in, s->up + c), load_some(in, dy + c));
        give(in, s->dg != NULL ? s->dg + c : NULL, a.gate, s->fresh_gate);
        give(in, s->du != NULL ? s->du + c : NULL, a.up, s->fresh_up);
        give(in, s->y != NULL ? s->y + c : NULL, a.y, true);
    }
}

#else
#define SILU_IS_WIDE false
#define wide_row plain_row
#define wide_back plain_back
#endif

void KERNEL(f2bi_silu_row)(int64_t n, const T *gate, const T *up, T *y)
{
    if (SILU_IS_WIDE) wide_row(n, gate, up, y);
    else plain_row(n, gate, up, y);
}

void KERNEL(f2bi_silu_back)(const f2bi_silu_slopes *s, const T *dy, int64_t at, int64_t n)
{
    if (SILU_IS_WIDE) wide_back(s, dy, at, n);
    else plain_back(s, dy, at, n);
}
