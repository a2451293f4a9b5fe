/*
 * Blocks of host memory, as alloc.c counts them and alloc_blocks.c gets and keeps them. All of it is called with
 * alloc.c's lock held.
 */
#ifndef F2B_AUTOGRAD_CORE_ALLOC_INTERNAL_H
#define F2B_AUTOGRAD_CORE_ALLOC_INTERNAL_H

#include "autograd/core/alloc.h"

#define F2BI_HEADER ((size_t)64)

typedef struct f2bi_header {
    uint64_t magic;
    size_t bytes;               /* as asked for: what the reports count */
    size_t capacity;            /* usable bytes after the header */
    f2b_tag tag;
    int size_class;             /* -1: not kept */
    struct f2bi_header *next;        /* in a list of kept blocks */
    f2b_ledger *ledger;         /* where it is counted */
    f2b_device_kind kind;       /* as memory of which */
} f2bi_header;
_Static_assert(sizeof(f2bi_header) <= F2BI_HEADER, "a header has 64 bytes");

/** The class of blocks of so many bytes, which become what all of the class can hold; -1: they are not kept. */
int f2bi_block_class(size_t *capacity);

/** A block with room for `capacity` bytes behind its header, of which only the header is the caller's to fill in: one
 *  that was kept, or out of the pages of such where more than `room` bytes of them are kept, or the system's; NULL if
 *  there is no memory. */
f2bi_header *f2bi_block_take(int class, size_t capacity, int64_t room);

/** Keeps a block that has a class. */
void f2bi_block_keep(f2bi_header *h);

/** Gives one back that has none. */
void f2bi_block_give_back(f2bi_header *h);

/** Gives back kept blocks until `room` bytes or fewer stay, of the largest first no more than is too much. */
void f2bi_blocks_trim(int64_t room);

#endif
