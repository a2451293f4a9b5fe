/*
 * Worker threads over a ring of batches. The unit of work is a row: threads take the rows of the
 * earliest unfinished batch first, so that even a single large batch is decoded by all of them.
 * See loader.h.
 */
#include "data/loader/loader.h"

#include <pthread.h>
#include <time.h>

#include "autograd/core/alloc.h"
#include "data/loader/dataset_internal.h"

/* A batch in the making. Rows are those of this rank; draws are the whole step's. */
typedef struct slot {
    f2b_batch *batch;
    f2b_draw *draws;
    f2b_plan plan;
    int64_t begin;              /* row of the step that is row 0 of the batch */
    int64_t taken, done;        /* rows */
    f2b_error error;            /* code F2B_OK: none */
} slot;

struct f2b_loader {
    f2b_dataset *dataset;
    f2b_loader_options options;
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    pthread_t *threads;
    int n_threads;
    slot *ring;                 /* step s is in ring[s % ahead] */
    int64_t next_start, next_out;       /* steps */
    bool stop, failed;
    f2b_error failure;          /* what every later call gives */
    double waited;
};

static slot *slot_of(f2b_loader *l, int64_t step) { return &l->ring[step % l->options.ahead]; }

static void slot_clear(slot *s)
{
    f2b_batch_free(s->batch);
    f2b_free(s->draws);
    *s = (slot){ 0 };
}

static void slot_fail(slot *s)
{
    if (s->error.code == F2B_OK) f2b_error_take(&s->error);
    s->done += s->batch != NULL ? s->batch->n - s->taken : 0;   /* rows that nobody will begin */
    s->taken = s->batch != NULL ? s->batch->n : 0;
}

static f2b_status slot_start(f2b_loader *l, slot *s, int64_t step)
{
    const f2b_sampler *sampler = f2b_dataset_sampler(l->dataset);
    s->plan = f2b_sampler_plan(sampler, step);
    int64_t end;
    f2b_sampler_slice(s->plan.n, l->options.rank, l->options.ranks, &s->begin, &end);
    const int64_t n = end - s->begin;
    s->draws = f2b_calloc((size_t)s->plan.n, sizeof *s->draws, F2B_TAG_DATA);
    s->batch = f2b_calloc(1, sizeof *s->batch, F2B_TAG_DATA);
    if (s->draws == NULL || s->batch == NULL) return F2B_ERR_MEMORY;
    *s->batch = (f2b_batch){ .kind = s->plan.kind, .step = step,
                             .image_size = f2b_dataset_settings(l->dataset)->image.size };
    s->batch->samples = f2b_calloc((size_t)n, sizeof *s->batch->samples, F2B_TAG_DATA);
    if (s->batch->samples == NULL) return F2B_ERR_MEMORY;
    s->batch->n = n;
    return f2b_sampler_draw(sampler, step, s->draws);
}

/* The earliest row to be made, starting a new batch if there is room; NULL: nothing to do now. */
static slot *next_row(f2b_loader *l, int64_t *row)
{
    for (;;) {
        for (int64_t step = l->next_out; step < l->next_start; step++) {
            slot *s = slot_of(l, step);
            if (s->batch == NULL || s->taken >= s->batch->n) continue;
            *row = s->taken++;
            return s;
        }
        if (l->failed || l->next_start >= l->options.end_step ||
            l->next_start - l->next_out >= l->options.ahead)
            return NULL;
        slot *s = slot_of(l, l->next_start);
        const int64_t step = l->next_start++;
        if (slot_start(l, s, step) != F2B_OK) {
            slot_fail(s);
            l->failed = true;
        }
        pthread_cond_broadcast(&l->ready);      /* it may have failed, or have no rows */
    }
}

/* Make one row; called and left with the lock held. */
static void make_row(f2b_loader *l, slot *s, int64_t row)
{
    pthread_mutex_unlock(&l->lock);
    f2b_sample sample = { 0 };
    const f2b_status status = f2b_dataset_row(l->dataset, s->plan.kind, s->draws, s->plan.n,
                                              s->begin + row, &sample);
    pthread_mutex_lock(&l->lock);
    s->batch->samples[row] = sample;
    s->done++;
    if (status != F2B_OK) {
        slot_fail(s);
        l->failed = true;
    }
    if (s->done == s->batch->n) pthread_cond_broadcast(&l->ready);
}

static void *worker(void *argument)
{
    f2b_loader *l = argument;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        int64_t row;
        slot *s = next_row(l, &row);
        if (s != NULL) make_row(l, s, row);
        else pthread_cond_wait(&l->work, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static f2b_status start(f2b_loader *l)
{
    const f2b_loader_options *o = &l->options;
    if (o->first_step < 0 || o->end_step < o->first_step || o->workers < 0 || o->ahead < 0 ||
        o->rank < 0 || o->rank >= o->ranks)
        return f2b_fail(F2B_ERR_INVALID,
                        "loader: steps %lld to %lld, %d workers, %d ahead, rank %d "
                        "of %d",
                        (long long)o->first_step, (long long)o->end_step, o->workers, o->ahead,
                        o->rank, o->ranks);
    l->ring = f2b_calloc((size_t)o->ahead, sizeof *l->ring, F2B_TAG_DATA);
    l->threads = f2b_calloc((size_t)o->workers, sizeof *l->threads, F2B_TAG_DATA);
    if (l->ring == NULL || l->threads == NULL) return F2B_ERR_MEMORY;
    for (; l->n_threads < o->workers; l->n_threads++)
        if (pthread_create(&l->threads[l->n_threads], NULL, worker, l) != 0)
            return f2b_fail(F2B_ERR_IO, "loader: no thread could be started; set data.workers "
                            "lower than %d", o->workers);
    return F2B_OK;
}

f2b_loader *f2b_loader_new(f2b_dataset *dataset, const f2b_loader_options *options)
{
    f2b_loader *l = f2b_calloc(1, sizeof *l, F2B_TAG_DATA);
    if (l == NULL) return NULL;
    l->dataset = dataset;
    l->options = *options;
    if (l->options.ahead == 0) l->options.ahead = 2;
    if (l->options.ranks == 0) l->options.ranks = 1;
    l->next_start = l->next_out = options->first_step;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    if (start(l) == F2B_OK) return l;
    f2b_loader_free(l);
    return NULL;
}

void f2b_loader_free(f2b_loader *l)
{
    if (l == NULL) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_threads; i++) pthread_join(l->threads[i], NULL);
    for (int64_t i = 0; l->ring != NULL && i < l->options.ahead; i++) slot_clear(&l->ring[i]);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->ready);
    f2b_free(l->ring);
    f2b_free(l->threads);
    f2b_free(l);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Whether the next batch is complete or has failed with no row still being made. */
static bool is_ready(f2b_loader *l)
{
    const slot *s = slot_of(l, l->next_out);
    if (l->next_out >= l->next_start) return false;
    return s->error.code != F2B_OK && s->batch == NULL ? true
                                                       : s->batch != NULL && s->done == s->batch->n;
}

/* With the lock held: wait for the batch of step next_out, or make it here without workers. */
static void await(f2b_loader *l)
{
    while (!is_ready(l)) {
        int64_t row;
        if (l->n_threads > 0) {
            pthread_cond_wait(&l->ready, &l->lock);
            continue;
        }
        slot *s = next_row(l, &row);
        if (s != NULL) make_row(l, s, row);
    }
}

f2b_status f2b_loader_next(f2b_loader *l, f2b_batch **batch)
{
    *batch = NULL;
    l->waited = 0;
    if (l->failure.code != F2B_OK) return f2b_fail(l->failure.code, "%s", l->failure.text);
    if (l->next_out >= l->options.end_step) return F2B_OK;
    const double begin = now();
    pthread_mutex_lock(&l->lock);
    if (l->n_threads > 0) pthread_cond_broadcast(&l->work);
    await(l);
    slot *s = slot_of(l, l->next_out);
    l->failure = s->error;
    if (s->error.code == F2B_OK) {
        *batch = s->batch;
        s->batch = NULL;
        slot_clear(s);
        l->next_out++;
        pthread_cond_broadcast(&l->work);
    }
    pthread_mutex_unlock(&l->lock);
    l->waited = now() - begin;
    return l->failure.code == F2B_OK ? F2B_OK : f2b_fail(l->failure.code, "%s", l->failure.text);
}

double f2b_loader_wait_seconds(const f2b_loader *loader) { return loader->waited; }
