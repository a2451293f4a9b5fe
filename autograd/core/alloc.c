/*
 * Host blocks carry a 64-byte header with size, tag and class. Device blocks come from the device's
 * own memory functions (autograd/device/), which report here through f2bi_alloc_account.
 */
#include "autograd/core/alloc.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "autograd/device/device_memory.h"

#define HEADER ((size_t)64)
#define MAGIC 0xF2B0A110C8EADE12u
enum { KEEP_OCTAVE = 16 };
#define KEEP_FROM ((size_t)1 << KEEP_OCTAVE)    /* smaller blocks are malloc's business */
#define MAP_FROM ((size_t)1 << 20)          /* from here on blocks are maps of their own: what is given
                                               back leaves no hole in malloc's heap */
#define HUGE_PAGE ((size_t)1 << 21)
#define PAGE ((size_t)1 << 12)

typedef struct header {
    uint64_t magic;
    size_t bytes;               /* as asked for: what the reports count */
    size_t capacity;            /* usable bytes after the header */
    f2b_tag tag;
    int size_class;             /* -1: not kept */
    struct header *next;        /* in a list of kept blocks */
    f2b_ledger *ledger;         /* where it is counted */
    f2b_device_kind kind;       /* as memory of which */
} header;
_Static_assert(sizeof(header) <= HEADER, "a header has 64 bytes");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static f2b_ledger process;
static _Thread_local f2b_ledger *current;       /* NULL: the process's */
static header *kept[F2BI_SIZE_CLASSES];
static int64_t kept_bytes, capacity_in_use, capacity_peak;

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

int f2bi_size_class(size_t *bytes, int smallest_octave)
{
    if (*bytes < (size_t)1 << smallest_octave) *bytes = (size_t)1 << smallest_octave;
    const int octave = 63 - __builtin_clzll(*bytes);
    const size_t step = (size_t)1 << (octave - 3);
    *bytes = (*bytes + step - 1) & ~(step - 1);
    const int rounded = 63 - __builtin_clzll(*bytes);
    const int eighth = (int)((*bytes >> (rounded - 3)) & 7);
    const int index = (rounded - smallest_octave) * 8 + eighth;
    return index < F2BI_SIZE_CLASSES ? index : -1;
}

/* Blocks below KEEP_FROM have no class. */
static int size_class(size_t *bytes)
{
    return !F2BI_KEEP_BLOCKS || *bytes < KEEP_FROM ? -1 : f2bi_size_class(bytes, KEEP_OCTAVE);
}

static size_t mapped_bytes(size_t bytes) { return (bytes + PAGE - 1) & ~(PAGE - 1); }

/* Aligned to a huge page: map one page more and give the edges back. Only whole huge pages are asked
 * for: a block that ends a little into one would hold all of it. */
static void *map_block(size_t bytes)
{
    const size_t length = mapped_bytes(bytes);
    char *raw = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return NULL;
    char *block = (char *)(((uintptr_t)raw + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    if (block > raw) (void)munmap(raw, (size_t)(block - raw));
    const size_t after = (size_t)(raw + HUGE_PAGE - block);
    if (after > 0) (void)munmap(block + length, after);
    if (bytes >= 2 * HUGE_PAGE) (void)madvise(block, length & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
    return block;
}

/* `capacity` bytes behind a header. Builds that keep nothing leave all to malloc, which
 * AddressSanitizer watches. */
static bool is_mapped(size_t capacity) { return F2BI_KEEP_BLOCKS && capacity >= MAP_FROM; }

static header *system_block(size_t capacity)
{
    if (is_mapped(capacity)) return map_block(HEADER + capacity);
    const size_t rounded = (HEADER + capacity + 63) & ~(size_t)63;
    return aligned_alloc(64, rounded);
}

static void system_free(header *h)
{
    if (is_mapped(h->capacity)) (void)munmap(h, mapped_bytes(HEADER + h->capacity));
    else free(h);
}

/* Called with the lock held: a kept block with huge pages, the nearest in size, larger ones first; or NULL. */
static header *pop_kept(int class)
{
    int c = class;
    while (c < F2BI_SIZE_CLASSES && kept[c] == NULL) c++;
    if (c == F2BI_SIZE_CLASSES) c = class - 1;
    while (c >= 0 && kept[c] == NULL) c--;
    if (c < 0 || kept[c]->capacity < HUGE_PAGE) return NULL;
    header *from = kept[c];
    kept[c] = from->next;
    kept_bytes -= (int64_t)from->capacity;
    return from;
}

/* Called with the lock held: what is left of a kept block, kept as the largest that it can hold. */
static void keep_rest(char *rest, size_t bytes)
{
    size_t capacity = 0;
    if (bytes >= HEADER + MAP_FROM) {
        capacity = bytes - HEADER;
        capacity &= ~(((size_t)1 << (60 - __builtin_clzll(capacity))) - 1);     /* whole eighths of an octave */
        const int class = size_class(&capacity);
        header *h = (header *)rest;
        *h = (header){ .magic = ~MAGIC, .capacity = capacity, .size_class = class, .next = kept[class] };
        kept[class] = h;
        kept_bytes += (int64_t)capacity;
    }
    const size_t used = capacity > 0 ? mapped_bytes(HEADER + capacity) : 0;
    if (bytes > used) (void)munmap(rest + used, bytes - used);
}

/* Fills `to` from *filled on, up to `most`, with whole huge pages of `from`, whose rest is kept; false where the system
 * refuses. They go one a call: a kept block may be made of several mappings, whose borders are between those, and a
 * call takes one mapping alone. */
static bool move_pages(header *from, char *to, size_t most, size_t *filled)
{
    const size_t had = mapped_bytes(HEADER + from->capacity);
    size_t moved = 0;
    bool good = true;
    while (had - moved >= HUGE_PAGE && *filled < most) {
        good = mremap((char *)from + moved, HUGE_PAGE, HUGE_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + *filled)
               != MAP_FAILED;
        if (!good) break;
        moved += HUGE_PAGE, *filled += HUGE_PAGE;
    }
    if (had > moved) keep_rest((char *)from + moved, had - moved);
    return good;
}

/* Called with the lock held, where kept blocks would have to go until `room` bytes of them stay: a new block out of
 * their pages. The system clears every page that it hands out, which for pages that are given back and asked for
 * again at once would be a few per cent of a step. NULL if there is none, or no memory. */
static header *reshape(int class, size_t capacity, int64_t room)
{
    const size_t has = mapped_bytes(HEADER + capacity), most = has & ~(HUGE_PAGE - 1);
    header *from = most > 0 ? pop_kept(class) : NULL;
    char *to = from != NULL ? map_block(HEADER + capacity) : NULL;
    if (to == NULL) {
        if (from != NULL) system_free(from);
        return NULL;
    }
    for (size_t filled = 0; from != NULL; from = filled < most && kept_bytes > room ? pop_kept(class) : NULL) {
        if (move_pages(from, to, most, &filled)) continue;
        (void)munmap(to, filled);       /* the place of the call that failed may be somebody else's by now */
        (void)munmap(to + filled + HUGE_PAGE, has - filled - HUGE_PAGE);
        return NULL;
    }
    return (header *)to;
}

/* Called with the lock held: give back kept blocks until `room` bytes or fewer stay, of the largest first no more than
 * is too much. */
static void trim_to(int64_t room)
{
    for (int c = F2BI_SIZE_CLASSES - 1; c >= 0 && kept_bytes > room; c--) {
        while (kept[c] != NULL && kept_bytes > room) {
            header *h = kept[c];
            const size_t over = mapped_bytes((size_t)(kept_bytes - room)), has = mapped_bytes(HEADER + h->capacity);
            kept[c] = h->next;
            kept_bytes -= (int64_t)h->capacity;
            if (!is_mapped(h->capacity) || over >= has) {
                system_free(h);
                continue;
            }
            (void)munmap((char *)h + has - over, over);
            keep_rest((char *)h, has - over);
        }
    }
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
    trim_to(0);
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
    const int class = size_class(&capacity);
    header *h = NULL;

    pthread_mutex_lock(&lock);
    if (class >= 0 && kept[class] != NULL) {
        h = kept[class];
        kept[class] = h->next;
        kept_bytes -= (int64_t)h->capacity;
    }
    const int64_t room = room_beside(capacity_in_use + (int64_t)capacity);
    if (h == NULL && class >= 0 && is_mapped(capacity) && kept_bytes > room) h = reshape(class, capacity, room);
    if (h == NULL) h = system_block(capacity);
    if (h == NULL) {
        trim_to(0);
        h = system_block(capacity);
    }
    if (h != NULL) {
        *h = (header){ .magic = MAGIC, .bytes = bytes, .capacity = capacity, .tag = tag,
                       .size_class = class, .ledger = current != NULL ? current : &process };
        account(h->ledger, F2B_CPU, tag, (int64_t)bytes);
        capacity_in_use += (int64_t)capacity;
        if (capacity_in_use > capacity_peak) capacity_peak = capacity_in_use;
        trim_to(room_beside(capacity_in_use));
    }
    pthread_mutex_unlock(&lock);
    return h != NULL ? (char *)h + HEADER : memory_error(bytes, tag);
}

void *f2b_alloc_counted(f2b_device device, size_t bytes, f2b_tag tag)
{
    char *block = f2b_calloc(1, 64, tag);
    if (block == NULL || bytes > SIZE_MAX / 2) {
        f2b_free(block);
        return memory_error(bytes, tag);
    }
    header *h = (header *)(block - HEADER);
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

static header *header_of(void *block)
{
    header *h = (header *)((char *)block - HEADER);
    F2B_CHECK(h->magic == MAGIC);       /* freed twice, or not ours */
    return h;
}

void f2b_free(void *block)
{
    if (block == NULL || f2bi_device_free(block)) return;
    header *h = header_of(block);
    pthread_mutex_lock(&lock);
    account(h->ledger, h->kind, h->tag, -(int64_t)h->bytes);
    capacity_in_use -= (int64_t)h->capacity;
    if (h->size_class >= 0) {
        h->magic = ~MAGIC;
        h->next = kept[h->size_class];
        kept[h->size_class] = h;
        kept_bytes += (int64_t)h->capacity;
        h = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (h != NULL) {
        h->magic = 0;
        system_free(h);
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
    header *h = header_of(block);
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
