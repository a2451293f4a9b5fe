/* See alloc_internal.h. A block from MAP_FROM on is a map of its own; kept ones change their shape by moving pages. */
#include "autograd/core/alloc_internal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "autograd/device/device_memory.h"

enum { KEEP_OCTAVE = 16 };
#define KEEP_FROM ((size_t)1 << KEEP_OCTAVE)    /* smaller blocks are malloc's business */
#define MAP_FROM ((size_t)1 << 20)          /* from here on blocks are maps of their own: what is given
                                               back leaves no hole in malloc's heap */
#define HUGE_PAGE ((size_t)1 << 21)
#define PAGE ((size_t)1 << 12)

static f2bi_header *kept[F2BI_SIZE_CLASSES];
static int64_t kept_bytes;

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
int f2bi_block_class(size_t *bytes)
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

static f2bi_header *system_block(size_t capacity)
{
    if (is_mapped(capacity)) return map_block(F2BI_HEADER + capacity);
    const size_t rounded = (F2BI_HEADER + capacity + 63) & ~(size_t)63;
    return aligned_alloc(64, rounded);
}

void f2bi_block_give_back(f2bi_header *h)
{
    if (is_mapped(h->capacity)) (void)munmap(h, mapped_bytes(F2BI_HEADER + h->capacity));
    else free(h);
}

/* A kept block with huge pages, the nearest in size, larger ones first; or NULL. */
static f2bi_header *pop_kept(int class)
{
    int c = class;
    while (c < F2BI_SIZE_CLASSES && kept[c] == NULL) c++;
    if (c == F2BI_SIZE_CLASSES) c = class - 1;
    while (c >= 0 && kept[c] == NULL) c--;
    if (c < 0 || kept[c]->capacity < HUGE_PAGE) return NULL;
    f2bi_header *from = kept[c];
    kept[c] = from->next;
    kept_bytes -= (int64_t)from->capacity;
    return from;
}

/* What is left of a kept block, kept as the largest that it can hold. */
static void keep_rest(char *rest, size_t bytes)
{
    size_t capacity = 0;
    if (bytes >= F2BI_HEADER + MAP_FROM) {
        capacity = bytes - F2BI_HEADER;
        capacity &= ~(((size_t)1 << (60 - __builtin_clzll(capacity))) - 1);     /* whole eighths of an octave */
        const int class = f2bi_block_class(&capacity);
        f2bi_header *h = (f2bi_header *)rest;
        *h = (f2bi_header){ .capacity = capacity, .size_class = class, .next = kept[class] };
        kept[class] = h;
        kept_bytes += (int64_t)capacity;
    }
    const size_t used = capacity > 0 ? mapped_bytes(F2BI_HEADER + capacity) : 0;
    if (bytes > used) (void)munmap(rest + used, bytes - used);
}

/* Fills `to` from *filled on, up to `most`, with whole huge pages of `from`, whose rest is kept; false where the system
 * refuses. They go one a call: a kept block may be made of several mappings, whose borders are between those, and a
 * call takes one mapping alone. */
static bool move_pages(f2bi_header *from, char *to, size_t most, size_t *filled)
{
    const size_t had = mapped_bytes(F2BI_HEADER + from->capacity);
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

/* Where kept blocks would have to go until `room` bytes of them stay: a new block out of
 * their pages. The system clears every page that it hands out, which for pages that are given back and asked for
 * again at once would be a few per cent of a step. NULL if there is none, or no memory. */
static f2bi_header *reshape(int class, size_t capacity, int64_t room)
{
    const size_t has = mapped_bytes(F2BI_HEADER + capacity), most = has & ~(HUGE_PAGE - 1);
    f2bi_header *from = most > 0 ? pop_kept(class) : NULL;
    char *to = from != NULL ? map_block(F2BI_HEADER + capacity) : NULL;
    if (to == NULL) {
        if (from != NULL) f2bi_block_give_back(from);
        return NULL;
    }
    for (size_t filled = 0; from != NULL; from = filled < most && kept_bytes > room ? pop_kept(class) : NULL) {
        if (move_pages(from, to, most, &filled)) continue;
        (void)munmap(to, filled);       /* the place of the call that failed may be somebody else's by now */
        (void)munmap(to + filled + HUGE_PAGE, has - filled - HUGE_PAGE);
        return NULL;
    }
    return (f2bi_header *)to;
}

void f2bi_blocks_trim(int64_t room)
{
    for (int c = F2BI_SIZE_CLASSES - 1; c >= 0 && kept_bytes > room; c--) {
        while (kept[c] != NULL && kept_bytes > room) {
            f2bi_header *h = kept[c];
            const size_t over = mapped_bytes((size_t)(kept_bytes - room)), has = mapped_bytes(F2BI_HEADER + h->capacity);
            kept[c] = h->next;
            kept_bytes -= (int64_t)h->capacity;
            if (!is_mapped(h->capacity) || over >= has) {
                f2bi_block_give_back(h);
                continue;
            }
            (void)munmap((char *)h + has - over, over);
            keep_rest((char *)h, has - over);
        }
    }
}

f2bi_header *f2bi_block_take(int class, size_t capacity, int64_t room)
{
    f2bi_header *h = NULL;
    if (class >= 0 && kept[class] != NULL) {
        h = kept[class];
        kept[class] = h->next;
        kept_bytes -= (int64_t)h->capacity;
        return h;
    }
    if (class >= 0 && is_mapped(capacity) && kept_bytes > room) h = reshape(class, capacity, room);
    if (h == NULL) h = system_block(capacity);
    if (h != NULL) return h;
    f2bi_blocks_trim(0);
    return system_block(capacity);
}

void f2bi_block_keep(f2bi_header *h)
{
    h->next = kept[h->size_class];
    kept[h->size_class] = h;
    kept_bytes += (int64_t)h->capacity;
}
