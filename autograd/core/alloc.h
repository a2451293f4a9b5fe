/*
 * The one allocator. Every block has a tag that says what it is for, so that bytes in use and their
 * peak can be shown per tag, and a leak has a name. Thread-safe.
 *
 * Large freed blocks are kept and reused by size class: a training step repeats its sizes, so that
 * little is asked of the system in steady state. In use and kept together are never more than the peak
 * in use was and a sixteenth of it: a block of another size that would exceed that is made of the pages of
 * kept ones. Builds with AddressSanitizer keep nothing, so that use after free is found.
 */
#ifndef F2B_AUTOGRAD_CORE_ALLOC_H
#define F2B_AUTOGRAD_CORE_ALLOC_H

#include <stdint.h>

#include "autograd/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* tag, name in reports */
#define F2B_TAG_LIST(X)                                                                           \
    X(F2B_TAG_WEIGHTS,     "weights")       /* frozen weights held in memory (mapped files apart) */ \
    X(F2B_TAG_PARAMETERS,  "parameters")    /* f32 master copies of what is trained */             \
    X(F2B_TAG_GRADIENTS,   "gradients")     /* gradients of parameters */                          \
    X(F2B_TAG_OPTIMIZER,   "optimizer")     /* moments */                                          \
    X(F2B_TAG_SNAPSHOT,    "snapshot")      /* copy of a state that is being written */            \
    X(F2B_TAG_ACTIVATIONS, "activations")   /* results of ops and what backward saves */           \
    X(F2B_TAG_ACT_GRADS,   "activation_gradients")                                                \
    X(F2B_TAG_SCRATCH,     "scratch")       /* work space inside one op */                         \
    X(F2B_TAG_CACHE,       "kv_cache")                                                            \
    X(F2B_TAG_DATA,        "data")          /* indices, records, batches, tokenizer */             \
    X(F2B_TAG_IMAGES,      "images")                                                              \
    X(F2B_TAG_FILES,       "files")         /* buffers of readers and writers */                   \
    X(F2B_TAG_OTHER,       "other")

typedef enum f2b_tag {
#define F2B_X(tag, name) tag,
    F2B_TAG_LIST(F2B_X)
#undef F2B_X
    F2B_TAG_COUNT
} f2b_tag;

/** Where memory lives and ops run. Copied by value. */
typedef enum f2b_device_kind { F2B_CPU, F2B_CUDA, F2B_DEVICE_KINDS } f2b_device_kind;
typedef struct f2b_device {
    f2b_device_kind kind;
    int index;
} f2b_device;
#define F2B_HOST ((f2b_device){ F2B_CPU, 0 })

/**
 * A block of `bytes` (0 gives a valid block too), aligned to 64 bytes, contents undefined; or NULL
 * with F2B_ERR_MEMORY that names bytes and tag. Free with f2b_free (NULL is allowed).
 */
void *f2b_alloc(f2b_device device, size_t bytes, f2b_tag tag);
void f2b_free(void *block);

/** Host memory: as f2b_alloc; zeroed, with count*size checked for overflow; grown or shrunk in size
 *  (block may be NULL; on failure it stays valid); a copy of a text. */
void *f2b_alloc_host(size_t bytes, f2b_tag tag);
void *f2b_calloc(size_t count, size_t size, f2b_tag tag);
void *f2b_realloc(void *block, size_t bytes, f2b_tag tag);
char *f2b_strdup(const char *text, f2b_tag tag);
char *f2b_sprintf(f2b_tag tag, const char *format, ...) F2B_PRINTF(2, 3);

/** Bytes now in use, and the peak since start or the last reset; tag F2B_TAG_COUNT is the sum. */
int64_t f2b_bytes_in_use(f2b_tag tag);
int64_t f2b_bytes_peak(f2b_tag tag);
void f2b_bytes_peak_reset(void);
const char *f2b_tag_name(f2b_tag tag);

/** The same of one kind of memory: the host's, or that of devices. */
int64_t f2b_bytes_in_use_of(f2b_device_kind kind, f2b_tag tag);
int64_t f2b_bytes_peak_of(f2b_device_kind kind, f2b_tag tag);

/**
 * Books apart from the process's own, to find what a stretch of work takes. What this thread
 * allocates while a ledger is in use is counted there, and taken off there when it is freed, by
 * whichever thread and whenever; so the ledger must outlive its blocks. Start with all zeros.
 * Memory of a device is counted there only where it is no more than counted (f2b_alloc_counted).
 */
typedef struct f2b_books {
    int64_t in_use[F2B_TAG_COUNT + 1], peak[F2B_TAG_COUNT + 1];     /* the last: the sum */
} f2b_books;
typedef struct f2b_ledger {
    f2b_books all, of[F2B_DEVICE_KINDS];
} f2b_ledger;

/** Count in `ledger` from now on; NULL: in the process's books. Returns the earlier one; restore it. */
f2b_ledger *f2b_ledger_use(f2b_ledger *ledger);

/** A block that is counted as `bytes` of the device under `tag`, but of which only 64 (zeros, on the
 *  host) are there: to find what work would take without doing it. NULL as f2b_alloc. */
void *f2b_alloc_counted(f2b_device device, size_t bytes, f2b_tag tag);

/** Give all kept blocks back to the system. */
void f2b_alloc_trim(void);

#ifdef __cplusplus
}
#endif
#endif
