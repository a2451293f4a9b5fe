/*
 * Opening a dataset: sources, the joining of captions to conversations, pools, sampler.
 * See dataset.h.
 */
#include "data/loader/dataset_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"

f2bi_place f2bi_place_of(const f2b_dataset *d, int64_t global)
{
    int source = 0;
    while (global >= d->first[source + 1]) source++;
    return (f2bi_place){ source, global - d->first[source] };
}

int64_t f2bi_member(const f2bi_members *pool, int64_t member)
{
    return member < pool->in_range ? pool->first + member : pool->list[member - pool->in_range];
}

uint64_t f2bi_image_of(const f2b_dataset *d, int64_t global)
{
    const f2bi_place p = f2bi_place_of(d, global);
    const uint64_t key = f2b_source_image_key(d->sources[p.source], p.record);
    return key != 0 ? key : f2b_hash_mix((uint64_t)global + 1);
}

static f2b_status open_list(f2b_dataset *d, const f2b_data_list *list, f2b_source_role role,
                            const char *key)
{
    for (int i = 0; i < list->n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s[%d]", key, i);
        const f2b_source_options o = { .role = role, .name = name, .path = list->entries[i].path,
                                       .images = list->entries[i].images,
                                       .cache = d->options.cache };
        f2b_source *s = f2b_source_open(&o);
        if (s == NULL) return f2b_fail_context("data.%s", name);
        d->sources[d->n_sources] = s;
        d->first[d->n_sources + 1] = d->first[d->n_sources] + f2b_source_count(s);
        d->n_sources++;
        if (f2b_fault_log_source(d->faults, name, f2b_source_count(s)) < 0) return F2B_ERR_MEMORY;
    }
    return F2B_OK;
}

static bool wants_captions(const f2b_dataset *d)
{
    return !d->options.base && d->options.loss != F2B_DATA_AUTOREGRESSIVE;
}

static f2b_status open_sources(f2b_dataset *d)
{
    const f2b_dataset_options *o = &d->options;
    const bool captions = wants_captions(d);
    const bool joined = captions && o->conversation_captions.n > 0;
    const bool conversations = o->base || o->loss != F2B_DATA_CONTRASTIVE || joined;
    const size_t n = (size_t)o->conversations.n + (size_t)o->captions.n +
                     (size_t)o->conversation_captions.n;
    d->sources = f2b_calloc(n + 1, sizeof *d->sources, F2B_TAG_DATA);
    d->first = f2b_calloc(n + 2, sizeof *d->first, F2B_TAG_DATA);
    if (d->sources == NULL || d->first == NULL) return F2B_ERR_MEMORY;
    if (conversations)
        F2B_TRY(open_list(d, &o->conversations, F2B_SOURCE_CONVERSATIONS, "conversations"));
    d->n_conversations = d->n_sources;
    if (captions) F2B_TRY(open_list(d, &o->captions, F2B_SOURCE_CAPTIONS, "captions"));
    d->n_captions = d->n_sources - d->n_conversations;
    if (joined)
        F2B_TRY(open_list(d, &o->conversation_captions, F2B_SOURCE_CONVERSATION_CAPTIONS,
                          "conversation_captions"));
    return F2B_OK;
}

static int by_stem(const void *a, const void *b)
{
    const f2bi_join *x = a, *y = b;
    if (x->stem != y->stem) return x->stem < y->stem ? -1 : 1;
    return (x->global > y->global) - (x->global < y->global);
}

static f2b_status index_joins(f2b_dataset *d)
{
    const int begin = d->n_conversations + d->n_captions;
    const int64_t from = d->first[begin], all = d->first[d->n_sources] - from;
    if (all == 0) return F2B_OK;
    d->joins = f2b_calloc((size_t)all, sizeof *d->joins, F2B_TAG_DATA);
    if (d->joins == NULL) return F2B_ERR_MEMORY;
    for (int k = begin; k < d->n_sources; k++)
        for (int64_t i = 0; i < f2b_source_count(d->sources[k]); i++) {
            const uint64_t stem = f2b_source_stem_key(d->sources[k], i);
            if (stem != 0) d->joins[d->n_joins++] = (f2bi_join){ stem, d->first[k] + i };
        }
    qsort(d->joins, (size_t)d->n_joins, sizeof *d->joins, by_stem);
    return F2B_OK;
}

int64_t f2bi_joined(const f2b_dataset *d, f2bi_place p, int64_t *first)
{
    const uint64_t stem = f2b_source_stem_key(d->sources[p.source], p.record);
    int64_t low = 0, high = d->n_joins;         /* the first that is not smaller */
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (d->joins[middle].stem < stem) low = middle + 1;
        else high = middle;
    }
    *first = low;
    while (stem != 0 && low < d->n_joins && d->joins[low].stem == stem) low++;
    return low - *first;
}

/* Divide the conversations: those with a caption and those without. */
static f2b_status divide_conversations(f2b_dataset *d, f2bi_members *with, f2bi_members *without)
{
    const int64_t n = d->first[d->n_conversations];
    with->list = f2b_calloc((size_t)n + 1, sizeof *with->list, F2B_TAG_DATA);
    without->list = f2b_calloc((size_t)n + 1, sizeof *without->list, F2B_TAG_DATA);
    if (with->list == NULL || without->list == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        int64_t first;
        f2bi_members *pool = f2bi_joined(d, f2bi_place_of(d, i), &first) > 0 ? with : without;
        pool->list[pool->n++] = i;
    }
    if (with->n > 0) return F2B_OK;
    return f2b_fail(F2B_ERR_CONFIG, "data.conversation_captions: none of the %lld conversations "
                    "has a caption there; they are joined where image and caption have the same "
                    "file name without folder and extension", (long long)n);
}

static f2b_status form_pools(f2b_dataset *d)
{
    const int64_t conversations = d->first[d->n_conversations];
    const int64_t captions = d->first[d->n_conversations + d->n_captions] - conversations;
    f2bi_members *pools = d->pools, *both = &pools[F2B_BATCH_BOTH];
    f2bi_members *caption = &pools[F2B_BATCH_CAPTION];
    *caption = (f2bi_members){ .n = captions, .first = conversations, .in_range = captions };
    if (d->n_joins > 0)
        F2B_TRY(divide_conversations(d, both, &pools[F2B_BATCH_CONVERSATION]));
    else
        pools[F2B_BATCH_CONVERSATION] = (f2bi_members){ .n = conversations,
                                                        .in_range = conversations };
    if (!d->options.base && d->options.loss == F2B_DATA_CONTRASTIVE) {
        caption->list = both->list, caption->n += both->n;      /* they serve as captions */
        f2b_free(pools[F2B_BATCH_CONVERSATION].list);
        *both = pools[F2B_BATCH_CONVERSATION] = (f2bi_members){ 0 };
    }
    const bool disc = caption->n + both->n > 0;
    const bool ar = both->n + pools[F2B_BATCH_CONVERSATION].n > 0;
    if (wants_captions(d) && !disc)
        return f2b_fail(F2B_ERR_CONFIG, "the contrastive loss needs data.captions or "
                        "data.conversation_captions (or set method.loss to autoregressive)");
    if (!ar && (d->options.base || d->options.loss != F2B_DATA_CONTRASTIVE))
        return f2b_fail(F2B_ERR_CONFIG, "the autoregressive loss needs data.conversations (or set "
                        "method.loss to contrastive)");
    return F2B_OK;
}

/* A member and what its image is known by. */
typedef struct shown {
    uint64_t image;
    int64_t member;
} shown;

static int by_image(const void *a, const void *b)
{
    const shown *x = a, *y = b;
    if (x->image != y->image) return x->image < y->image ? -1 : 1;
    return x->member < y->member ? -1 : 1;
}

/* Images by number: that of the first member that shows it. A source knows its images by their paths,
 * and where the data lie must not change which samples a step has. */
static f2b_status number_images(const f2b_dataset *d, const f2bi_members *pool,
                                uint64_t *images)
{
    shown *all = f2b_calloc((size_t)pool->n, sizeof *all, F2B_TAG_DATA);
    if (all == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < pool->n; i++)
        all[i] = (shown){ f2bi_image_of(d, f2bi_member(pool, i)), i };
    qsort(all, (size_t)pool->n, sizeof *all, by_image);
    for (int64_t i = 0, first = 0; i < pool->n; i++) {
        if (all[i].image != all[first].image) first = i;
        images[all[i].member] = (uint64_t)all[first].member;
    }
    f2b_free(all);
    return F2B_OK;
}

/* Images of a pool, for the sampler; NULL where they differ by their nature or do not matter. */
static f2b_status pool_images(const f2b_dataset *d, f2b_batch_kind kind, uint64_t **images)
{
    const f2bi_members *pool = &d->pools[kind];
    bool differ = kind == F2B_BATCH_CONVERSATION ? !d->options.group_images
                                                 : pool->list == NULL && d->n_captions == 1;
    if (kind == F2B_BATCH_CAPTION && differ)
        differ = f2b_source_images_differ(d->sources[d->n_conversations]);
    *images = NULL;
    if (differ || pool->n == 0) return F2B_OK;
    *images = f2b_calloc((size_t)pool->n, sizeof **images, F2B_TAG_DATA);
    if (*images == NULL) return F2B_ERR_MEMORY;
    return number_images(d, pool, *images);
}

static f2b_status make_sampler(f2b_dataset *d)
{
    f2b_sampler_options o = { .conversation_batch = d->options.conversation_batch,
                              .contrastive_batch = d->options.contrastive_batch,
                              .ratio = d->options.ratio, .seed = d->options.seed,
                              .group_images = d->options.group_images };
    uint64_t *images[F2B_BATCH_KINDS] = { NULL };
    f2b_status status = F2B_OK;
    for (int k = 0; k < F2B_BATCH_KINDS && status == F2B_OK; k++) {
        status = pool_images(d, (f2b_batch_kind)k, &images[k]);
        o.pools[k] = (f2b_pool){ d->pools[k].n, images[k] };
    }
    if (status == F2B_OK && (d->sampler = f2b_sampler_new(&o)) == NULL) status = f2b_last_status();
    for (int k = 0; k < F2B_BATCH_KINDS; k++) f2b_free(images[k]);
    return status;
}

/* Pass 1 of an image is as long for all of them, and never cut. */
static f2b_status make_image_prompt(f2b_dataset *d)
{
    const f2b_dataset_options *o = &d->options;
    F2B_TRY(f2b_prompt_image(d->tokenizer, o->form, d->prompt, &d->image_prompt));
    const int64_t rows = d->image_prompt.n - 1 + o->compress.image + o->compress.summary;
    if (o->base || o->compress.context == 0 || rows <= o->compress.context) return F2B_OK;
    return f2b_fail(F2B_ERR_CONFIG, "an image with summary.prompt and summary.tokens takes %lld rows, and "
                    "the model was made for %lld (max_position_embeddings); take fewer tokens or a "
                    "shorter prompt", (long long)rows, (long long)o->compress.context);
}

static f2b_status open_dataset(f2b_dataset *d)
{
    const f2b_dataset_options *o = &d->options;
    d->faults = f2b_fault_log_new(o->faults);
    d->prompt = f2b_strdup(o->prompt, F2B_TAG_DATA);
    if (d->faults == NULL || d->prompt == NULL) return F2B_ERR_MEMORY;
    d->tokenizer = f2b_tokenizer_open(o->tokenizer);
    if (d->tokenizer == NULL) return f2b_last_status();
    F2B_TRY(make_image_prompt(d));
    F2B_TRY(open_sources(d));
    F2B_TRY(index_joins(d));
    F2B_TRY(form_pools(d));
    return make_sampler(d);
}

f2b_dataset *f2b_dataset_open(const f2b_dataset_options *options)
{
    f2b_dataset *d = f2b_calloc(1, sizeof *d, F2B_TAG_DATA);
    if (d == NULL) return NULL;
    d->options = *options;
    const f2b_status status = open_dataset(d);
    d->options.prompt = d->prompt;
    d->options.conversations = d->options.captions = (f2b_data_list){ 0 };     /* the caller's */
    d->options.conversation_captions = (f2b_data_list){ 0 };
    d->options.tokenizer = d->options.cache = NULL;
    if (status == F2B_OK) return d;
    f2b_dataset_free(d);
    return NULL;
}

void f2b_dataset_free(f2b_dataset *d)
{
    if (d == NULL) return;
    f2b_sampler_free(d->sampler);
    for (int k = 0; k < F2B_BATCH_KINDS; k++) f2b_free(d->pools[k].list);
    f2b_free(d->joins);
    for (int i = 0; i < d->n_sources; i++) f2b_source_free(d->sources[i]);
    f2b_free(d->sources);
    f2b_free(d->first);
    f2b_fault_log_free(d->faults);
    f2b_free(d->image_prompt.ids);
    f2b_free(d->image_prompt.labels);
    f2b_tokenizer_free(d->tokenizer);
    f2b_free(d->prompt);
    f2b_free(d);
}

int f2b_dataset_sources(const f2b_dataset *d) { return d->n_sources; }

const f2b_source *f2b_dataset_source(const f2b_dataset *d, int source)
{
    F2B_CHECK(source >= 0 && source < d->n_sources);
    return d->sources[source];
}

const f2b_tokenizer *f2b_dataset_tokenizer(const f2b_dataset *d) { return d->tokenizer; }
const f2b_sampler *f2b_dataset_sampler(const f2b_dataset *d) { return d->sampler; }
f2b_fault_log *f2b_dataset_faults(f2b_dataset *d) { return d->faults; }
const f2b_dataset_options *f2b_dataset_settings(const f2b_dataset *d) { return &d->options; }
int64_t f2b_dataset_pool(const f2b_dataset *d, f2b_batch_kind kind) { return d->pools[kind].n; }

static int by_key(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int64_t f2b_dataset_images(const f2b_dataset *d)
{
    int64_t members = 0, n = 0, images = 0;
    for (int k = 0; k < F2B_BATCH_KINDS; k++) members += d->pools[k].n;
    uint64_t *keys = f2b_calloc((size_t)members, sizeof *keys, F2B_TAG_DATA);
    if (keys == NULL) return -1;
    for (int k = 0; k < F2B_BATCH_KINDS; k++)
        for (int64_t i = 0; i < d->pools[k].n; i++) {
            const f2bi_place p = f2bi_place_of(d, f2bi_member(&d->pools[k], i));
            keys[n] = f2b_source_image_key(d->sources[p.source], p.record);
            n += keys[n] != 0;
        }
    qsort(keys, (size_t)n, sizeof *keys, by_key);
    for (int64_t i = 0; i < n; i++) images += i == 0 || keys[i] != keys[i - 1];
    f2b_free(keys);
    return images;
}

void f2b_dataset_set_known(f2b_dataset *d, f2b_known_image *known, void *user)
{
    d->known = known;
    d->known_user = user;
}
