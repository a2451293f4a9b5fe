/* Worker threads over a ring of images. See image_stream.h. */
#include "data/loader/image_stream.h"

#include <pthread.h>
#include <time.h>

#include "autograd/core/alloc.h"

/* An image in the making. */
typedef struct slot {
    f2b_stream_image image;
    f2b_error error;            /* code F2B_OK: none */
    bool done;
} slot;

struct f2b_image_stream {
    const f2b_source *source;
    f2b_image_stream_options options;
    int64_t *records, n;        /* [n] which records come */
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    pthread_t *threads;
    int n_threads;
    slot *ring;                 /* the i-th image is in ring[i % ahead] */
    int64_t taken, out;
    bool stop;
    double waited;
};

void f2b_stream_image_clear(f2b_stream_image *image)
{
    f2b_free(image->id);
    f2b_free(image->detail);
    f2b_free(image->pixels);
    *image = (f2b_stream_image){ 0 };
}

/* ---- Which records ---- */

/* The first record of each image, and all that name none (key 0): those may be faults. */
static f2b_status choose_records(f2b_image_stream *s)
{
    const int64_t total = f2b_source_count(s->source);
    int64_t size = 16;
    while (size < 2 * total) size *= 2;
    s->records = f2b_alloc_host((size_t)total * sizeof *s->records, F2B_TAG_DATA);
    uint64_t *seen = f2b_calloc((size_t)size, sizeof *seen, F2B_TAG_DATA);
    if (s->records == NULL || seen == NULL) {
        f2b_free(seen);
        return F2B_ERR_MEMORY;
    }
    const uint64_t mask = (uint64_t)size - 1;
    for (int64_t i = 0; i < total; i++) {
        const uint64_t key = f2b_source_image_key(s->source, i);
        uint64_t at = key & mask;
        while (key != 0 && seen[at] != 0 && seen[at] != key) at = (at + 1) & mask;
        if (key != 0 && seen[at] == key) continue;
        if (key != 0) seen[at] = key;
        s->records[s->n++] = i;
    }
    f2b_free(seen);
    return F2B_OK;
}

/* ---- One image ---- */

static f2b_status decode(const f2b_image_stream *s, f2b_record *r, const uint8_t *bytes, int64_t n,
                         f2b_stream_image *out)
{
    const int size = s->options.image.size;
    f2b_image image = { 0 };
    f2b_status status = f2b_image_decode(bytes, n, r->image, &image);
    if (status == F2B_ERR_FORMAT) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_BROKEN, "%s", f2b_last_error());
        f2b_clear_error();
        return F2B_OK;
    }
    if (status == F2B_OK) {
        out->pixels = f2b_alloc_host((size_t)size * (size_t)size * 3, F2B_TAG_IMAGES);
        status = out->pixels == NULL ? F2B_ERR_MEMORY
                                     : f2b_image_prepare(&image, s->options.aspect, size,
                                                         s->options.image.background, out->pixels);
    }
    f2b_image_free(&image);
    return status;
}

static f2b_status take_file(const f2b_image_stream *s, f2b_record *r, f2b_stream_image *out)
{
    out->id = f2b_source_image_id(s->source, r);
    if (out->id == NULL) return F2B_ERR_MEMORY;
    uint8_t *bytes;
    int64_t n;
    F2B_TRY(f2b_source_image(s->source, r, &bytes, &n));
    if (r->fault != F2B_FAULT_NONE) return F2B_OK;
    f2b_content_hash(bytes, n, out->hash);
    out->hashed = true;
    const bool known = s->options.known != NULL && s->options.known(s->options.user, out->hash);
    const f2b_status status = known ? F2B_OK : decode(s, r, bytes, n, out);
    f2b_free(bytes);
    return status;
}

static f2b_status make_image(const f2b_image_stream *s, int64_t record, f2b_stream_image *out)
{
    f2b_record r = { 0 };
    out->record = record;
    f2b_status status = f2b_source_read(s->source, record, &r);
    if (status == F2B_OK && r.fault == F2B_FAULT_NONE && r.image != NULL)
        status = take_file(s, &r, out);
    out->fault = r.fault;
    out->detail = r.detail;
    r.detail = NULL;
    f2b_record_clear(&r);
    return status;
}

/* ---- Threads ---- */

static void *worker(void *argument)
{
    f2b_image_stream *s = argument;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        if (s->taken == s->n || s->taken - s->out >= s->options.ahead) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        const int64_t i = s->taken++;
        pthread_mutex_unlock(&s->lock);
        slot made = { .done = true };
        if (make_image(s, s->records[i], &made.image) != F2B_OK) f2b_error_take(&made.error);
        pthread_mutex_lock(&s->lock);
        s->ring[i % s->options.ahead] = made;
        if (i == s->out) pthread_cond_signal(&s->ready);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static f2b_status start(f2b_image_stream *s)
{
    const f2b_image_stream_options *o = &s->options;
    if (o->workers < 1 || o->ahead < 1)
        return f2b_fail(F2B_ERR_INVALID, "image stream: %d workers, %lld ahead", o->workers,
                        (long long)o->ahead);
    F2B_TRY(choose_records(s));
    s->ring = f2b_calloc((size_t)o->ahead, sizeof *s->ring, F2B_TAG_DATA);
    s->threads = f2b_calloc((size_t)o->workers, sizeof *s->threads, F2B_TAG_DATA);
    if (s->ring == NULL || s->threads == NULL) return F2B_ERR_MEMORY;
    for (; s->n_threads < o->workers; s->n_threads++)
        if (pthread_create(&s->threads[s->n_threads], NULL, worker, s) != 0)
            return f2b_fail(F2B_ERR_IO, "image stream: %d threads could not be started",
                            o->workers);
    return F2B_OK;
}

f2b_image_stream *f2b_image_stream_new(const f2b_source *source,
                                       const f2b_image_stream_options *options)
{
    f2b_image_stream *s = f2b_calloc(1, sizeof *s, F2B_TAG_DATA);
    if (s == NULL) return NULL;
    s->source = source;
    s->options = *options;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->ready, NULL);
    if (start(s) == F2B_OK) return s;
    f2b_image_stream_free(s);
    return NULL;
}

void f2b_image_stream_free(f2b_image_stream *s)
{
    if (s == NULL) return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->n_threads; i++) pthread_join(s->threads[i], NULL);
    for (int64_t i = 0; s->ring != NULL && i < s->options.ahead; i++)
        f2b_stream_image_clear(&s->ring[i].image);
    pthread_cond_destroy(&s->ready);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    f2b_free(s->threads);
    f2b_free(s->ring);
    f2b_free(s->records);
    f2b_free(s);
}

int64_t f2b_image_stream_count(const f2b_image_stream *s) { return s->n; }
double f2b_image_stream_wait_seconds(const f2b_image_stream *s) { return s->waited; }

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

f2b_status f2b_image_stream_next(f2b_image_stream *s, f2b_stream_image *image, bool *more)
{
    f2b_stream_image_clear(image);
    *more = s->out < s->n;
    if (!*more) return F2B_OK;
    const double start = seconds();
    pthread_mutex_lock(&s->lock);
    slot *next = &s->ring[s->out % s->options.ahead];
    while (!next->done) pthread_cond_wait(&s->ready, &s->lock);
    const slot made = *next;
    *next = (slot){ 0 };
    s->out++;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    s->waited += seconds() - start;
    *image = made.image;
    return made.error.code == F2B_OK ? F2B_OK : f2b_fail(made.error.code, "%s", made.error.text);
}
