/* The means of a shard: made, kept, read. See search_means.h. */
#include "infer/search_means.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL              /* compiled for this processor: every byte that is read is hashed */
#include <xxhash.h>

#include "autograd/core/alloc.h"
#include "autograd/device/cpu/threads.h"
#include "checkpoints/atomic_file.h"

enum { CHUNK_BYTES = 8 << 20, CHECKSUM = 32 };
static const char magic[8] = "f2bmean1";

typedef struct means_header {
    char magic[8];
    char checksum[CHECKSUM];        /* of the shard, as store.json has it */
    int64_t images, width, block;
} means_header;

/* A shard whose tokens or means are read, block by block. */
typedef struct open_shard {
    const char *path;
    int fd;
    int64_t at;                     /* where the values begin */
    int64_t K, d, block;
    const uint64_t *hashes;         /* of means: [blocks]; of tokens: NULL */
    int64_t first;                  /* row */
} open_shard;

static int64_t blocks_of(const means_header *h) { return (h->images + h->block - 1) / h->block; }

static means_header header_of(const f2b_store *store, const f2b_store_shard *s)
{
    means_header h = { .images = s->images, .width = f2b_store_get_identity(store)->width };
    h.block = f2b_search_block(h.width);
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.checksum, s->checksum, CHECKSUM);
    return h;
}

/* ---- Reading ----
 *
 * By pread into a buffer that stays in the cache, not from a mapped file: no page faults, twice the
 * speed, and a file that is cut off meanwhile is an error instead of a signal. */

static f2b_status read_at(const char *path, int fd, int64_t at, void *out, int64_t bytes)
{
    for (int64_t done = 0; done < bytes;) {
        const ssize_t n = pread(fd, (char *)out + done, (size_t)(bytes - done), at + done);
        if (n == 0) return f2b_fail(F2B_ERR_IO, "%s became shorter while in use", path);
        if (n < 0 && errno != EINTR) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
        if (n > 0) done += n;
    }
    return F2B_OK;
}

static f2b_status fetch_means(const void *context, int64_t row, int64_t n, void *scratch,
                              float *out)
{
    const open_shard *s = context;
    const int64_t bytes = n * s->d * (int64_t)sizeof(f2b_f16);
    F2B_TRY(read_at(s->path, s->fd, s->at + row * s->d * (int64_t)sizeof(f2b_f16), scratch, bytes));
    if (XXH3_64bits(scratch, (size_t)bytes) != s->hashes[row / s->block])
        return f2b_fail(F2B_ERR_FORMAT, "%s is damaged", s->path);
    f2b_convert(out, F2B_F32, scratch, F2B_F16, (size_t)(n * s->d));
    return F2B_OK;
}

bool f2b_search_mean(const uint16_t *tokens, int64_t K, int64_t d, double *sum, uint16_t *out)
{
    double squares = 0;
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t k = 0; k < K; k++)
        for (int64_t j = 0; j < d; j++) sum[j] += (double)f2b_f16_to_f32(tokens[k * d + j]);
    for (int64_t j = 0; j < d; j++) squares += sum[j] * sum[j];
    if (!isfinite(squares)) return false;
    const double scale = squares > 0 ? 1 / sqrt(squares) : 0;
    for (int64_t j = 0; j < d; j++) out[j] = f2b_f32_to_f16((float)(sum[j] * scale));
    return true;
}

/* Of the tokens of an image in scratch, behind its sum. */
static int64_t token_scratch(const open_shard *s)
{
    return s->d * (int64_t)sizeof(double) + s->K * s->d * (int64_t)sizeof(f2b_f16);
}

static f2b_status mean_of_row(const open_shard *s, int64_t row, void *scratch, uint16_t *out)
{
    double *sum = scratch;
    uint16_t *tokens = (uint16_t *)(sum + s->d);
    const int64_t bytes = s->K * s->d * (int64_t)sizeof *tokens;
    F2B_TRY(read_at(s->path, s->fd, s->at + row * bytes, tokens, bytes));
    if (f2b_search_mean(tokens, s->K, s->d, sum, out)) return F2B_OK;
    return f2b_fail(F2B_ERR_NUMBERS, "%s: the tokens of row %lld are not finite", s->path,
                    (long long)(s->first + row));
}

/* The same values as from a file of means, through the same rounding. */
static f2b_status fetch_tokens(const void *context, int64_t row, int64_t n, void *scratch,
                               float *out)
{
    const open_shard *s = context;
    uint16_t *mean = (uint16_t *)((char *)scratch + token_scratch(s));
    for (int64_t i = 0; i < n; i++) {
        F2B_TRY(mean_of_row(s, row + i, scratch, mean));
        f2b_convert(out + i * s->d, F2B_F32, mean, F2B_F16, (size_t)s->d);
    }
    return F2B_OK;
}

/* Open a regular file; *size is its length. */
static int open_file(const char *path, int64_t *size)
{
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        *size = info.st_size;
        return fd;
    }
    (void)f2b_fail_errno(F2B_ERR_IO, "cannot open %s", path);
    if (fd >= 0) close(fd);
    return -1;
}

/* ---- Making ---- */

/* Means of rows [row, row + n), on all threads; scratch[threads] of token_scratch each. */
static f2b_status make_rows(const open_shard *s, int64_t row, int64_t n, char *scratch,
                            uint16_t *means)
{
    f2b_error error = { .code = F2B_OK };
    const int64_t stride = token_scratch(s);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        char *mine = scratch + omp_get_thread_num() * stride;
        if (mean_of_row(s, row + i, mine, means + i * s->d) == F2B_OK) continue;
#pragma omp critical(f2b_search_means)
        f2b_error_take(&error);
    }
    return error.code == F2B_OK ? F2B_OK : f2b_fail(error.code, "%s", error.text);
}

static f2b_status write_rows(const open_shard *s, const means_header *h, f2b_atomic_file *file,
                             char *scratch, uint16_t *means, uint64_t *hashes)
{
    const int64_t row_bytes = h->width * (int64_t)sizeof *means;
    int64_t step = CHUNK_BYTES / (h->block * row_bytes) * h->block;     /* whole blocks */
    if (step < h->block) step = h->block;
    F2B_TRY(f2b_atomic_file_write(file, h, sizeof *h));
    for (int64_t row = 0; row < h->images; row += step) {
        const int64_t n = h->images - row < step ? h->images - row : step;
        F2B_TRY(make_rows(s, row, n, scratch, means));
        F2B_TRY(f2b_atomic_file_write(file, means, (size_t)(n * row_bytes)));
        for (int64_t i = 0; i < n; i += h->block) {
            const int64_t rows = n - i < h->block ? n - i : h->block;
            hashes[(row + i) / h->block] =
                XXH3_64bits(means + i * h->width, (size_t)(rows * row_bytes));
        }
    }
    return F2B_OK;
}

/* The table and what guards it: hash of header and table. */
static uint64_t guard_of(const means_header *h, const uint64_t *hashes)
{
    const uint64_t of_header = XXH3_64bits(h, sizeof *h);
    return XXH3_64bits_withSeed(hashes, (size_t)blocks_of(h) * sizeof *hashes, of_header);
}

static f2b_status make_file(const open_shard *s, const means_header *h, const char *path)
{
    const int64_t blocks = blocks_of(h), row_bytes = h->width * (int64_t)sizeof(uint16_t);
    const int64_t chunk = h->block * row_bytes > CHUNK_BYTES ? h->block * row_bytes : CHUNK_BYTES;
    uint64_t *hashes = f2b_calloc((size_t)blocks + 1, sizeof *hashes, F2B_TAG_FILES);
    uint16_t *means = f2b_alloc_host((size_t)chunk, F2B_TAG_FILES);
    char *scratch = f2b_calloc((size_t)f2b_threads(), (size_t)token_scratch(s), F2B_TAG_FILES);
    f2b_atomic_file *file =
        hashes != NULL && means != NULL && scratch != NULL ? f2b_atomic_file_open(path) : NULL;
    f2b_status status = file != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) status = write_rows(s, h, file, scratch, means, hashes);
    if (status == F2B_OK) {
        hashes[blocks] = guard_of(h, hashes);
        status = f2b_atomic_file_write(file, hashes, (size_t)(blocks + 1) * sizeof *hashes);
    }
    if (status == F2B_OK) status = f2b_atomic_file_commit(file);
    else f2b_atomic_file_abort(file);
    f2b_free(scratch);
    f2b_free(means);
    f2b_free(hashes);
    return status;
}

/* ---- Searching ---- */

/* The table of a file of means that is of this shard, whole and sound (f2b_free), or NULL. */
static uint64_t *read_table(const char *path, int fd, int64_t size, const means_header *want)
{
    means_header have;
    const int64_t blocks = blocks_of(want);
    const int64_t table = (blocks + 1) * (int64_t)sizeof(uint64_t);
    const int64_t at = (int64_t)sizeof have + want->images * want->width * (int64_t)sizeof(f2b_f16);
    if (size != at + table || read_at(path, fd, 0, &have, sizeof have) != F2B_OK ||
        memcmp(&have, want, sizeof have) != 0)
        return NULL;
    uint64_t *hashes = f2b_alloc_host((size_t)table, F2B_TAG_FILES);
    if (hashes != NULL && read_at(path, fd, at, hashes, table) == F2B_OK &&
        hashes[blocks] == guard_of(want, hashes))
        return hashes;
    f2b_free(hashes);
    return NULL;
}

/* F2B_ERR_NOT_FOUND, F2B_ERR_FORMAT or F2B_ERR_IO: the file is of no use. */
static f2b_status search_means(f2b_search *search, const means_header *h, const char *path,
                               int64_t first)
{
    int64_t size;
    const int fd = open_file(path, &size);
    if (fd < 0) return f2b_fail(F2B_ERR_NOT_FOUND, "%s is not there", path);
    uint64_t *hashes = read_table(path, fd, size, h);
    f2b_status status = F2B_ERR_FORMAT;
    if (hashes != NULL) {
        const open_shard s = { .path = path, .fd = fd, .at = (int64_t)sizeof *h, .d = h->width,
                               .block = h->block, .hashes = hashes };
        const f2b_search_items items = {
            .n = h->images, .first = first, .fetch = fetch_means, .context = &s,
            .scratch_bytes = h->block * h->width * (int64_t)sizeof(f2b_f16) };
        status = f2b_search_scan(search, &items);
    } else {
        status = f2b_fail(F2B_ERR_FORMAT, "%s is not of this shard", path);
    }
    f2b_free(hashes);
    close(fd);
    return status;
}

static bool is_useless(f2b_status status)
{
    return status == F2B_ERR_NOT_FOUND || status == F2B_ERR_FORMAT || status == F2B_ERR_IO;
}

static f2b_status search_tokens(f2b_search *search, const open_shard *s, int64_t images)
{
    const f2b_search_items items = {
        .n = images, .first = s->first, .fetch = fetch_tokens, .context = s,
        .scratch_bytes = token_scratch(s) + s->d * (int64_t)sizeof(f2b_f16) };
    return f2b_search_scan(search, &items);
}

/* The means are not there: make them, and if they cannot be kept, do without. */
static f2b_status search_anew(f2b_search *search, const open_shard *s, const means_header *h,
                              const char *path, const f2b_search_hooks *hooks)
{
    f2b_status status = make_file(s, h, path);
    if (status == F2B_OK) status = search_means(search, h, path, s->first);
    if (!is_useless(status)) return status;
    char *text = f2b_sprintf(F2B_TAG_OTHER, "the means of %s cannot be kept, so this search reads "
                             "all its tokens (%s)", s->path, f2b_last_error());
    if (text != NULL && hooks->note != NULL) hooks->note(hooks->user, text);
    f2b_free(text);
    return search_tokens(search, s, h->images);
}

static f2b_status search_sound(f2b_search *search, const f2b_store *store,
                               const f2b_store_shard *shard, const means_header *h,
                               const char *path, const f2b_search_hooks *hooks)
{
    int64_t size;
    const int fd = open_file(shard->path, &size);
    if (fd < 0) return f2b_last_status();
    const open_shard s = { .path = shard->path, .fd = fd, .at = shard->offset,
                           .K = f2b_store_get_identity(store)->tokens, .d = h->width,
                           .block = h->block, .first = shard->first };
    const f2b_status status = search_anew(search, &s, h, path, hooks);
    close(fd);
    return status;
}

f2b_status f2b_search_shard(f2b_search *search, const f2b_store *store, int64_t number,
                            const f2b_search_hooks *hooks)
{
    const f2b_store_shard *shard = f2b_store_shard_at(store, number);
    if (shard->images == 0) return F2B_OK;
    const means_header h = header_of(store, shard);
    char *path = f2b_sprintf(F2B_TAG_FILES, "%s" F2B_MEANS_SUFFIX, shard->path);
    if (path == NULL) return f2b_last_status();
    f2b_status status = search_means(search, &h, path, shard->first);
    if (is_useless(status)) {
        status = f2b_store_check_shard(store, number);
        if (status == F2B_OK) status = search_sound(search, store, shard, &h, path, hooks);
    }
    f2b_free(path);
    return status;
}
