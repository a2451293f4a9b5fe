/* The next id from logits: the highest, or one drawn. See generate_internal.h. */
#include <math.h>
#include <stdlib.h>

#include "autograd/core/rng.h"
#include "infer/generate_internal.h"

typedef struct candidate {
    double p;           /* its logit, then its share */
    int32_t id;
} candidate;

static f2b_status not_finite(void)
{
    return f2b_fail(F2B_ERR_NUMBERS, "the logits are not finite");
}

static double logit(const f2b_tensor *logits, int64_t row, int64_t v)
{
    double z;
    const size_t at = (size_t)(row * logits->shape[1] + v) * f2b_dtype_size(logits->dtype);
    f2b_convert(&z, F2B_F64, (const char *)logits->data + at, logits->dtype, 1);
    return z;
}

static f2b_status highest(const f2b_tensor *logits, int64_t row, int32_t *id)
{
    double value = -INFINITY;
    *id = -1;
    for (int64_t v = 0; v < logits->shape[1]; v++) {
        const double z = logit(logits, row, v);
        if (isnan(z)) return not_finite();
        if (z > value) *id = (int32_t)v, value = z;
    }
    return *id >= 0 ? F2B_OK : not_finite();
}

/* The likeliest first, of equal ones the lower id. */
static int by_share(const void *x, const void *y)
{
    const candidate *a = x, *b = y;
    if (a->p != b->p) return a->p > b->p ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Shares, not yet divided by their sum, of all n ids; returns the sum. */
static double shares(candidate *c, int64_t n, double temperature)
{
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, c[i].p);
    for (int64_t i = 0; i < n; i++) sum += c[i].p = exp((c[i].p - top) / temperature);
    return sum;
}

/* Keep the likeliest that together reach top_p of the sum; returns their sum. */
static double nucleus(candidate *c, int64_t *n, double sum, double top_p)
{
    double kept = 0;
    int64_t i = 0;
    qsort(c, (size_t)*n, sizeof *c, by_share);
    while (i < *n && kept < top_p * sum) kept += c[i++].p;
    *n = i;
    return kept;
}

/* Uniform in [0, 1), with all 53 bits of a double. */
static double uniform(uint64_t seed, uint64_t key, int64_t place)
{
    const f2b_rng r = f2b_rng_new(seed, F2B_RNG_GENERATE, key, (uint64_t)place, 0);
    const uint64_t bits = (uint64_t)f2b_rng_at(&r, 0) << 32 | f2b_rng_at(&r, 1);
    return (double)(bits >> 11) * 0x1p-53;
}

static f2b_status draw(candidate *c, int64_t n, const f2b_sampling *s, double u, int32_t *id)
{
    double sum = shares(c, n, s->temperature);
    if (!isfinite(sum)) return not_finite();
    if (s->top_p > 0 && s->top_p < 1) sum = nucleus(c, &n, sum, s->top_p);
    double left = u * sum;
    int64_t i = 0;
    while (i + 1 < n && left >= c[i].p) left -= c[i++].p;
    while (i > 0 && c[i].p == 0) i--; /* rounding may run past the last that has a share */
    *id = c[i].id;
    return F2B_OK;
}

f2b_status f2bi_choose_id(const f2b_tensor *logits, int64_t row, const f2b_sampling *s,
                          uint64_t key, int64_t place, int32_t *id)
{
    if (s->temperature == 0) return highest(logits, row, id);
    const int64_t n = logits->shape[1];
    candidate *c = f2b_alloc_host((size_t)n * sizeof *c, F2B_TAG_SCRATCH);
    if (c == NULL) return f2b_last_status();
    for (int64_t v = 0; v < n; v++) c[v] = (candidate){ logit(logits, row, v), (int32_t)v };
    const f2b_status status = draw(c, n, s, uniform(s->seed, key, place), id);
    f2b_free(c);
    return status;
}
