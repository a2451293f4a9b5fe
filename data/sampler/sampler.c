/*
 * Kinds of steps: everything is floor(step * share), so that the past need not be visited.
 * See sampler.h.
 */
#include "data/sampler/sampler.h"

#include <math.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "data/sampler/stream.h"

/* Products of counts, batch sizes and ratio need more than 64 bits. */
__extension__ typedef unsigned __int128 wide;

struct f2b_sampler {
    f2bi_stream streams[F2B_BATCH_KINDS];
    int64_t caption_share, share_of;    /* caption batches / all batches */
    int64_t conversation_batch, contrastive_batch;
    uint64_t seed;
};

enum { RATIO_UNIT = 1000000, RATIO_MAX = 1000000 };
#define MAX_STEPS (INT64_C(1) << 38)

/* floor(n * share / of) */
static int64_t part(int64_t n, int64_t share, int64_t of)
{
    return (int64_t)((wide)(uint64_t)n * (uint64_t)share / (uint64_t)of);
}

static int64_t conversations(const f2b_sampler *s)
{
    return s->streams[F2B_BATCH_CONVERSATION].n + s->streams[F2B_BATCH_BOTH].n;
}

static int64_t captions_before(const f2b_sampler *s, int64_t step)
{
    return part(step, s->caption_share, s->share_of);
}

/*
 * Let f = both / (both + conversation). One batch of conversations has b samples under L_AR and on
 * average f b under L_disc; with x caption batches of c samples beside it the ratio is
 * (x c + f b) / b, hence x = b (ratio - f) / c, and x / (1 + x) of all batches are of captions.
 */
static void set_share(f2b_sampler *s, double ratio)
{
    const int64_t both = s->streams[F2B_BATCH_BOTH].n, all = conversations(s);
    const int64_t captions = s->streams[F2B_BATCH_CAPTION].n;
    s->caption_share = all == 0, s->share_of = 1;
    if (all == 0 || captions == 0) return;
    const wide wanted = (wide)(uint64_t)llround(ratio * RATIO_UNIT) * (uint64_t)all;
    const wide there = (wide)RATIO_UNIT * (uint64_t)both;
    if (wanted <= there) return;                /* `both` alone is the ratio or more */
    wide x = (wanted - there) * (uint64_t)s->conversation_batch;
    wide of = x + (wide)RATIO_UNIT * (uint64_t)all * (uint64_t)s->contrastive_batch;
    while (of >> 62 != 0) x >>= 1, of >>= 1;
    s->caption_share = (int64_t)x, s->share_of = (int64_t)of;
}

static f2b_status check(const f2b_sampler_options *o)
{
    const int64_t limit = INT64_C(1) << 24;
    if (o->conversation_batch < 1 || o->conversation_batch > limit || o->contrastive_batch < 1 ||
        o->contrastive_batch > limit)
        return f2b_fail(F2B_ERR_CONFIG, "sampler: batch sizes are 1 to %lld, got "
                        "conversation_batch %lld and contrastive_batch %lld", (long long)limit,
                        (long long)o->conversation_batch, (long long)o->contrastive_batch);
    if (!(o->ratio >= 0 && o->ratio <= RATIO_MAX))
        return f2b_fail(F2B_ERR_CONFIG, "sampler.ratio: 0 to %d, got %g", RATIO_MAX, o->ratio);
    int64_t members = 0;
    for (int k = 0; k < F2B_BATCH_KINDS; k++) {
        F2B_CHECK(o->pools[k].n >= 0 && o->pools[k].n < INT64_C(1) << 48);
        members += o->pools[k].n;
    }
    return members > 0 ? F2B_OK : f2b_fail(F2B_ERR_CONFIG, "sampler: there are no samples to draw");
}

static f2b_status start(f2b_sampler *s, const f2b_sampler_options *o)
{
    F2B_TRY(check(o));
    s->conversation_batch = o->conversation_batch;
    s->contrastive_batch = o->contrastive_batch;
    s->seed = o->seed;
    for (int k = 0; k < F2B_BATCH_KINDS; k++) {
        const f2bi_meeting meeting = k != F2B_BATCH_CONVERSATION ? F2BI_APART
                                     : o->group_images ? F2BI_TOGETHER : F2BI_BY_CHANCE;
        F2B_TRY(f2bi_stream_init(&s->streams[k], &o->pools[k],
                                 k == F2B_BATCH_CAPTION ? o->contrastive_batch
                                                        : o->conversation_batch,
                                 o->seed, k, meeting));
    }
    set_share(s, o->ratio);
    return F2B_OK;
}

f2b_sampler *f2b_sampler_new(const f2b_sampler_options *options)
{
    f2b_sampler *s = f2b_calloc(1, sizeof *s, F2B_TAG_DATA);
    if (s == NULL) return NULL;
    if (start(s, options) == F2B_OK) return s;
    f2b_sampler_free(s);
    return NULL;
}

void f2b_sampler_free(f2b_sampler *sampler)
{
    if (sampler == NULL) return;
    for (int k = 0; k < F2B_BATCH_KINDS; k++) f2bi_stream_clear(&sampler->streams[k]);
    f2b_free(sampler);
}

double f2b_sampler_share(const f2b_sampler *s, f2b_batch_kind kind)
{
    const double captions = (double)s->caption_share / (double)s->share_of;
    const int64_t all = conversations(s);
    if (kind == F2B_BATCH_CAPTION || all == 0) return kind == F2B_BATCH_CAPTION ? captions : 0;
    return (1 - captions) * (double)s->streams[kind].n / (double)all;
}

f2b_plan f2b_sampler_plan(const f2b_sampler *s, int64_t step)
{
    F2B_CHECK(step >= 0 && step < MAX_STEPS);
    const int64_t captions = captions_before(s, step);
    if (captions_before(s, step + 1) > captions)
        return (f2b_plan){ F2B_BATCH_CAPTION, s->contrastive_batch, captions };
    const int64_t a = step - captions, both = s->streams[F2B_BATCH_BOTH].n, all = conversations(s);
    const int64_t boths = part(a, both, all);
    if (part(a + 1, both, all) > boths)
        return (f2b_plan){ F2B_BATCH_BOTH, s->conversation_batch, boths };
    return (f2b_plan){ F2B_BATCH_CONVERSATION, s->conversation_batch, a - boths };
}

f2b_status f2b_sampler_draw(const f2b_sampler *s, int64_t step, f2b_draw *draws)
{
    const f2b_plan plan = f2b_sampler_plan(s, step);
    return f2bi_stream_draw(&s->streams[plan.kind], plan.index, draws);
}

int64_t f2b_sampler_substitute(const f2b_sampler *s, f2b_batch_kind kind, f2b_draw draw,
                               int64_t attempt)
{
    const f2b_rng rng = f2b_rng_new(s->seed, F2B_RNG_SAMPLER, (uint64_t)(F2B_BATCH_KINDS + kind),
                                    (uint64_t)draw.member, (uint64_t)draw.epoch);
    const uint64_t high = f2b_rng_at(&rng, 2 * (uint64_t)attempt);
    const uint64_t word = high << 32 | f2b_rng_at(&rng, 2 * (uint64_t)attempt + 1);
    return (int64_t)((wide)word * (uint64_t)s->streams[kind].n >> 64);
}

int64_t f2b_sampler_steps(const f2b_sampler *s, double epochs)
{
    const int64_t all = conversations(s);
    const bool only_captions = all == 0;
    const int64_t n = only_captions ? s->streams[F2B_BATCH_CAPTION].n : all;
    const int64_t batch = only_captions ? s->contrastive_batch : s->conversation_batch;
    const double needed = ceil(epochs * (double)n / (double)batch);
    const int64_t batches = needed < 1 ? 1 : needed < MAX_STEPS ? (int64_t)needed : MAX_STEPS;
    if (only_captions) return batches;
    /* The fewest steps of which `batches` are not of captions. */
    int64_t low = batches - 1, high = batches;
    while (high < MAX_STEPS && high - captions_before(s, high) < batches) high *= 2;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (middle - captions_before(s, middle) < batches) low = middle;
        else high = middle;
    }
    return high < MAX_STEPS ? high : MAX_STEPS;
}

void f2b_sampler_slice(int64_t rows, int rank, int ranks, int64_t *begin, int64_t *end)
{
    F2B_CHECK(ranks > 0 && rank >= 0 && rank < ranks);
    *begin = rows * rank / ranks;
    *end = rows * (rank + 1) / ranks;
}
