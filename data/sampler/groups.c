/*
 * Streams whose members come image by image (sampler.h, Groups). Nothing is kept between draws: where
 * a batch begins is found by walking over the images that its epoch has before it.
 */
#include <stdlib.h>

#include "autograd/core/alloc.h"
#include "data/sampler/stream.h"

typedef struct shown {
    uint64_t image;
    int64_t member;
} shown;

static int by_image(const void *a, const void *b)
{
    const shown *x = a, *y = b;
    if (x->image != y->image) return x->image < y->image ? -1 : 1;
    return (x->member > y->member) - (x->member < y->member);
}

f2b_status f2bi_grouped_init(f2bi_stream *s, const f2b_pool *pool)
{
    shown *all = f2b_calloc((size_t)s->n, sizeof *all, F2B_TAG_DATA);
    s->order = f2b_calloc((size_t)s->n, sizeof *s->order, F2B_TAG_DATA);
    s->start = f2b_calloc((size_t)s->n + 1, sizeof *s->start, F2B_TAG_DATA);
    if (all == NULL || s->order == NULL || s->start == NULL) {
        f2b_free(all);
        return F2B_ERR_MEMORY;
    }
    for (int64_t i = 0; i < s->n; i++)
        all[i] = (shown){ pool->images != NULL ? pool->images[i] : (uint64_t)i, i };
    qsort(all, (size_t)s->n, sizeof *all, by_image);
    s->grouped = true;
    s->rounds = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (i == 0 || all[i].image != all[i - 1].image) s->start[s->rounds++] = i;
        s->order[i] = all[i].member;
    }
    s->start[s->rounds] = s->n;
    f2b_free(all);
    return F2B_OK;
}

f2b_status f2bi_grouped_draw(const f2bi_stream *s, int64_t index, f2b_draw *draws)
{
    int64_t epoch = index * s->batch / s->n, skip = index * s->batch % s->n;
    for (int64_t done = 0; done < s->batch; epoch++) {
        const f2bi_permutation p =
            f2bi_permutation_new(s->rounds, s->seed, s->number, epoch, 0);
        for (int64_t g = 0; g < s->rounds && done < s->batch; g++) {
            const int64_t image = f2bi_permutation_at(&p, g), first = s->start[image];
            const int64_t size = s->start[image + 1] - first;
            for (int64_t i = skip; i < size && done < s->batch; i++)
                draws[done++] = (f2b_draw){ s->order[first + i], epoch };
            skip = skip > size ? skip - size : 0;
        }
    }
    return F2B_OK;
}
