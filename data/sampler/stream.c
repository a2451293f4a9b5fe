/*
 * Streams: rounds of distinct images, and the seams between them. See stream.h and sampler.h.
 *
 * The seam. Let a batch hold the last t members of one round and the first h = batch - t of the
 * next. Those of the h whose image is among the t are exchanged with the next members of their
 * round whose image is not. At most t images are to be avoided, so the exchange stays within the
 * round's first `batch` positions, and rounds of at least two batches keep their last `batch`
 * positions as the permutation gives them: a seam is known without knowing the seams before it.
 */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "data/sampler/stream.h"

typedef struct placed {
    uint64_t image, tie;        /* both hashed: a random order that does not depend on file order */
    int64_t member, round;
} placed;

static int by_image(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->image != y->image) return x->image < y->image ? -1 : 1;
    return (x->tie > y->tie) - (x->tie < y->tie);
}

/* Within a round by image, so that all rounds have their images in one order. */
static int by_round(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->round != y->round) return x->round < y->round ? -1 : 1;
    return by_image(a, b);
}

static int by_key(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int64_t end_of_image(const placed *all, int64_t n, int64_t i)
{
    int64_t end = i + 1;
    while (end < n && all[end].image == all[i].image) end++;
    return end;
}

static int64_t most_of_one_image(const placed *all, int64_t n)
{
    int64_t most = 0;
    for (int64_t i = 0, end; i < n; i = end) {
        end = end_of_image(all, n, i);
        most = end - i > most ? end - i : most;
    }
    return most;
}

/*
 * The c members of one image go to c of the rounds, evenly apart. The first of them goes by turns
 * (among the images that have c), in the order that rounds have: so rounds are of nearly one size,
 * and a fixed order leaves nearly one round's size between two members of an image.
 */
static f2b_status spread(placed *all, int64_t n, int64_t rounds)
{
    int64_t *turn = f2b_calloc((size_t)rounds + 1, sizeof *turn, F2B_TAG_DATA);
    if (turn == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0, end; i < n; i = end) {
        end = end_of_image(all, n, i);
        const int64_t c = end - i, first = turn[c]++ % rounds;
        for (int64_t j = 0; j < c; j++) all[i + j].round = (first + j * rounds / c) % rounds;
    }
    f2b_free(turn);
    return F2B_OK;
}

static f2b_status take_rounds(f2bi_stream *s, const placed *all, const uint64_t *images)
{
    s->order = f2b_calloc((size_t)s->n, sizeof *s->order, F2B_TAG_DATA);
    s->images = f2b_calloc((size_t)s->n, sizeof *s->images, F2B_TAG_DATA);
    s->start = f2b_calloc((size_t)s->rounds + 1, sizeof *s->start, F2B_TAG_DATA);
    if (s->order == NULL || s->images == NULL || s->start == NULL) return F2B_ERR_MEMORY;
    memcpy(s->images, images, (size_t)s->n * sizeof *images);
    for (int64_t i = 0; i < s->n; i++) {
        s->order[i] = all[i].member;
        s->start[all[i].round + 1]++;
    }
    for (int64_t r = 0; r < s->rounds; r++) s->start[r + 1] += s->start[r];
    return F2B_OK;
}

/* Most pools have no image twice; finding that out needs little memory. */
static f2b_status all_differ(const uint64_t *images, int64_t n, bool *differ)
{
    uint64_t *sorted = f2b_calloc((size_t)n, sizeof *sorted, F2B_TAG_DATA);
    if (sorted == NULL) return F2B_ERR_MEMORY;
    memcpy(sorted, images, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_key);
    *differ = true;
    for (int64_t i = 1; i < n && *differ; i++) *differ = sorted[i] != sorted[i - 1];
    f2b_free(sorted);
    return F2B_OK;
}

/* Rounds of distinct images. */
static f2b_status divide(f2bi_stream *s, const uint64_t *images)
{
    placed *all = f2b_calloc((size_t)s->n, sizeof *all, F2B_TAG_DATA);
    if (all == NULL) return F2B_ERR_MEMORY;
    const uint64_t salt = f2b_hash_mix(s->seed + (uint64_t)s->number);
    for (int64_t i = 0; i < s->n; i++)
        all[i] = (placed){ f2b_hash_mix(images[i] ^ salt), f2b_hash_mix((uint64_t)i ^ salt), i, 0 };
    qsort(all, (size_t)s->n, sizeof *all, by_image);
    s->rounds = most_of_one_image(all, s->n);
    f2b_status status = spread(all, s->n, s->rounds);
    qsort(all, (size_t)s->n, sizeof *all, by_round);
    if (status == F2B_OK) status = take_rounds(s, all, images);
    f2b_free(all);
    return status;
}

f2b_status f2bi_stream_init(f2bi_stream *s, const f2b_pool *pool, int64_t batch, uint64_t seed,
                            int number, f2bi_meeting meeting)
{
    const bool distinct = meeting == F2BI_APART;
    *s = (f2bi_stream){ .n = pool->n, .batch = batch, .rounds = 1, .seed = seed, .number = number,
                        .distinct = distinct };
    if (s->n == 0) return F2B_OK;
    if (meeting == F2BI_TOGETHER) return f2bi_grouped_init(s, pool);
    bool differ = true;
    if (distinct && pool->images != NULL) F2B_TRY(all_differ(pool->images, s->n, &differ));
    if (!differ) F2B_TRY(divide(s, pool->images));
    if (s->start == NULL) {
        s->start = f2b_calloc(2, sizeof *s->start, F2B_TAG_DATA);
        if (s->start == NULL) return F2B_ERR_MEMORY;
        s->start[1] = s->n;
    }
    for (int64_t r = 0; distinct && r < s->rounds; r++)
        if ((s->start[r + 1] - s->start[r]) / 2 < batch) s->fixed = true;
    return F2B_OK;
}

void f2bi_stream_clear(f2bi_stream *s)
{
    f2b_free(s->start);
    f2b_free(s->order);
    f2b_free(s->images);
    *s = (f2bi_stream){ 0 };
}

/* One round of one epoch, ready to be asked for members. */
typedef struct segment {
    int64_t epoch, round, first, size;  /* first: position within the epoch */
    bool shuffled;
    f2bi_permutation permutation;
} segment;

static segment segment_at(const f2bi_stream *s, int64_t epoch, int64_t round)
{
    segment g = { .epoch = epoch, .round = round, .first = s->start[round],
                  .size = s->start[round + 1] - s->start[round] };
    /* A fixed order with rounds is the order of the images' hashes, the same in every round. */
    g.shuffled = !(s->fixed && s->order != NULL) && g.size > 1;
    if (g.shuffled)
        g.permutation =
            f2bi_permutation_new(g.size, s->seed, s->number, s->fixed ? 0 : epoch, round);
    return g;
}

static int64_t member_at(const f2bi_stream *s, const segment *g, int64_t i)
{
    const int64_t at = g->first + (g->shuffled ? f2bi_permutation_at(&g->permutation, i) : i);
    return s->order != NULL ? s->order[at] : at;
}

static uint64_t image_at(const f2bi_stream *s, const segment *g, int64_t i)
{
    const int64_t member = member_at(s, g, i);
    return s->images != NULL ? s->images[member] : (uint64_t)member;
}

static bool among(const uint64_t *sorted, int64_t n, uint64_t key)
{
    return bsearch(&key, sorted, (size_t)n, sizeof *sorted, by_key) != NULL;
}

/*
 * The exchanges of a segment that follows t members of `before` within one batch:
 * to[i] (i < batch) is the position in the permutation that position i shows.
 */
static void seam(const f2bi_stream *s, const segment *g, const segment *before, int64_t t,
                 uint64_t *avoid, int64_t *to)
{
    for (int64_t i = 0; i < s->batch; i++) to[i] = i;
    for (int64_t i = 0; i < t; i++) avoid[i] = image_at(s, before, before->size - t + i);
    qsort(avoid, (size_t)t, sizeof *avoid, by_key);
    int64_t spare = s->batch - t;
    for (int64_t i = 0; i < s->batch - t; i++) {
        if (!among(avoid, t, image_at(s, g, i))) continue;
        while (among(avoid, t, image_at(s, g, spare))) spare++;
        F2B_CHECK(spare < s->batch);
        to[i] = spare, to[spare] = i;
        spare++;
    }
}

static segment segment_before(const f2bi_stream *s, const segment *g)
{
    return g->round > 0 ? segment_at(s, g->epoch, g->round - 1)
                        : segment_at(s, g->epoch - 1, s->rounds - 1);
}

static int64_t round_of(const f2bi_stream *s, int64_t position)
{
    int64_t low = 0, high = s->rounds;          /* start[low] <= position < start[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (s->start[middle] <= position) low = middle;
        else high = middle;
    }
    return low;
}

f2b_status f2bi_stream_draw(const f2bi_stream *s, int64_t index, f2b_draw *draws)
{
    if (s->grouped) return f2bi_grouped_draw(s, index, draws);
    const int64_t B = s->batch;
    uint64_t *avoid = f2b_calloc((size_t)B, sizeof *avoid, F2B_TAG_DATA);
    int64_t *to = f2b_calloc((size_t)B, sizeof *to, F2B_TAG_DATA);
    const bool ready = avoid != NULL && to != NULL;
    for (int64_t done = 0, taken; ready && done < B; done += taken) {
        const int64_t position = index * B + done, epoch = position / s->n, q = position % s->n;
        const segment g = segment_at(s, epoch, round_of(s, q));
        const int64_t offset = q - g.first;
        const int64_t t = (position - offset) % B; /* of the batch in which the segment begins */
        const bool sewn = s->distinct && !s->fixed && t > 0 && offset < B;
        if (sewn) {
            const segment before = segment_before(s, &g);
            seam(s, &g, &before, t, avoid, to);
        }
        taken = g.size - offset < B - done ? g.size - offset : B - done;
        for (int64_t i = 0; i < taken; i++) {
            const int64_t at = offset + i;
            draws[done + i] = (f2b_draw){ member_at(s, &g, sewn && at < B ? to[at] : at), epoch };
        }
    }
    f2b_free(avoid);
    f2b_free(to);
    return ready ? F2B_OK : F2B_ERR_MEMORY;
}
