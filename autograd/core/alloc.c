/*
 * Host blocks carry a 64-byte header with size, tag and class. Device blocks come from the device's
 * own memory functions (autograd/device/), which report here through f2bi_alloc_account.
 */
#include "autograd/core/alloc_internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "autograd/device/device_memory.h"

#define MAGIC 0xF2B0A110C8EADE12u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static f2b_ledger process;
static _Thread_local f2b_ledger *current;       /* NULL: the process's */
static int64_t capacity_in_use, capacity_peak;

static const char *const tag_names[] = {
#define F2B_X(tag, name) name,
    F2B_TAG_LIST(F2B_X)
#undef F2B_X
    "total",
};

const char *f2b_tag_name(f2b_tag tag) { return tag_names[tag]; }

static void enter(f2b_books *b, int slot, int64_t bytes)
{
    b->in_use[slot] += bytes;
    if (b->in_use[slot] > b->peak[slot]) b->peak[slot] = b->in_use[slot];
}

/* Called with the lock held. */
static void account(f2b_ledger *l, f2b_device_kind kind, f2b_tag tag, int64_t bytes)
{
    f2b_books *const books[2] = { &l->all, &l->of[kind] };
    for (int i = 0; i < 2; i++) {
        enter(books[i], (int)tag, bytes);
        enter(books[i], F2B_TAG_COUNT, bytes);
    }
}

f2b_ledger *f2b_ledger_use(f2b_ledger *ledger)
{
    f2b_ledger *before = current;
    current = ledger;
    return before;
}

void f2bi_alloc_account(f2b_device_kind kind, f2b_tag tag, int64_t bytes)
{
    pthread_mutex_lock(&lock);
    account(&process, kind, tag, bytes);
    pthread_mutex_unlock(&lock);
}

/* Bytes that may be kept beside so many in use. The sixteenth saves the moving of pages, and clearing those that went
 * back too early: 1 % of a step (docs/benchmarks.md). */
static int64_t room_beside(int64_t in_use)
{
    const int64_t room = capacity_peak + capacity_peak / 16 - in_use;
    return room > 0 ? room : 0;
}

void f2b_alloc_trim(void)
{
    pthread_mutex_lock(&lock);
    f2bi_blocks_trim(0);
    pthread_mutex_unlock(&lock);
    f2bi_device_trim();
}

static void *memory_error(size_t bytes, f2b_tag tag)
{
    (void)f2b_fail(F2B_ERR_MEMORY, "out of memory: no %zu bytes for %s (%lld bytes are in use)",
                   bytes, tag_names[tag], (long long)f2b_bytes_in_use(F2B_TAG_COUNT));
    return NULL;
}

void *f2b_alloc_host(size_t bytes, f2b_tag tag)
{
    size_t capacity = bytes == 0 ? 64 : bytes;
    if (bytes > SIZE_MAX / 2) return memory_error(bytes, tag);
    const int class = f2bi_block_class(&capacity);
    pthread_mutex_lock(&lock);
    f2bi_header *h = f2bi_block_take(class, capacity, room_beside(capacity_in_use + (int64_t)capacity));
    if (h != NULL) {
        *h = (f2bi_header){ .magic = MAGIC, .bytes = bytes, .capacity = capacity, .tag = tag,
                       .size_class = class, .ledger = current != NULL ? current : &process };
        account(h->ledger, F2B_CPU, tag, (int64_t)bytes);
        capacity_in_use += (int64_t)capacity;
        if (capacity_in_use > capacity_peak) capacity_peak = capacity_in_use;
        f2bi_blocks_trim(room_beside(capacity_in_use));
    }
    pthread_mutex_unlock(&lock);
    return h != NULL ? (char *)h + F2BI_HEADER : memory_error(bytes, tag);
}

void *f2b_alloc_counted(f2b_device device, size_t bytes, f2b_tag tag)
{
    char *block = f2b_calloc(1, 64, tag);
    if (block == NULL || bytes > SIZE_MAX / 2) {
        f2b_free(block);
        return memory_error(bytes, tag);
    }
    f2bi_header *h = (f2bi_header *)(block - F2BI_HEADER);
    pthread_mutex_lock(&lock);
    account(h->ledger, h->kind, tag, -(int64_t)h->bytes);
    h->bytes = bytes, h->kind = device.kind;
    account(h->ledger, h->kind, tag, (int64_t)bytes);
    pthread_mutex_unlock(&lock);
    return block;
}

void *f2b_alloc(f2b_device device, size_t bytes, f2b_tag tag)
{
    return device.kind == F2B_CPU ? f2b_alloc_host(bytes, tag)
                                  : f2bi_device_alloc(device, bytes, tag);
}

static f2bi_header *header_of(void *block)
{
    f2bi_header *h = (f2bi_header *)((char *)block - F2BI_HEADER);
    F2B_CHECK(h->magic == MAGIC);       /* freed twice, or not ours */
    return h;
}

void f2b_free(void *block)
{
    if (block == NULL || f2bi_device_free(block)) return;
    f2bi_header *h = header_of(block);
    pthread_mutex_lock(&lock);
    account(h->ledger, h->kind, h->tag, -(int64_t)h->bytes);
    capacity_in_use -= (int64_t)h->capacity;
    if (h->size_class >= 0) {
        h->magic = ~MAGIC;
        f2bi_block_keep(h);
        h = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (h != NULL) {
        h->magic = 0;
        f2bi_block_give_back(h);
    }
}

void *f2b_calloc(size_t count, size_t size, f2b_tag tag)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return memory_error(SIZE_MAX, tag);
    void *block = f2b_alloc_host(bytes, tag);
    if (block != NULL) memset(block, 0, bytes);
    return block;
}

void *f2b_realloc(void *block, size_t bytes, f2b_tag tag)
{
    if (block == NULL) return f2b_alloc_host(bytes, tag);
    f2bi_header *h = header_of(block);
    if (bytes <= h->capacity && bytes >= h->capacity / 2) {
        pthread_mutex_lock(&lock);
        account(h->ledger, h->kind, h->tag, (int64_t)bytes - (int64_t)h->bytes);
        h->bytes = bytes;
        pthread_mutex_unlock(&lock);
        return block;
    }
    void *larger = f2b_alloc_host(bytes, tag);
    if (larger == NULL) return NULL;
    memcpy(larger, block, h->bytes < bytes ? h->bytes : bytes);
    f2b_free(block);
    return larger;
}

char *f2b_strdup(const char *text, f2b_tag tag)
{
    const size_t n = strlen(text) + 1;
    char *copy = f2b_alloc_host(n, tag);
    if (copy != NULL) memcpy(copy, text, n);
    return copy;
}

char *f2b_sprintf(f2b_tag tag, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) return NULL;
    char *text = f2b_alloc_host((size_t)n + 1, tag);
    if (text == NULL) return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

static int64_t read_locked(const int64_t *value)
{
    pthread_mutex_lock(&lock);
    const int64_t v = *value;
    pthread_mutex_unlock(&lock);
    return v;
}

int64_t f2b_bytes_in_use(f2b_tag tag) { return read_locked(&process.all.in_use[tag]); }
int64_t f2b_bytes_peak(f2b_tag tag) { return read_locked(&process.all.peak[tag]); }

int64_t f2b_bytes_in_use_of(f2b_device_kind kind, f2b_tag tag)
{
    return read_locked(&process.of[kind].in_use[tag]);
}

int64_t f2b_bytes_peak_of(f2b_device_kind kind, f2b_tag tag)
{
    return read_locked(&process.of[kind].peak[tag]);
}

void f2b_bytes_peak_reset(void)
{
    pthread_mutex_lock(&lock);
    memcpy(process.all.peak, process.all.in_use, sizeof process.all.peak);
    for (int kind = 0; kind < F2B_DEVICE_KINDS; kind++)
        memcpy(process.of[kind].peak, process.of[kind].in_use, sizeof process.all.peak);
    capacity_peak = capacity_in_use;
    pthread_mutex_unlock(&lock);
}
