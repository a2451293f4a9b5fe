/*
 * What a kind of device other than the host brings, behind device.h, f2b_alloc and f2b_free. A
 * program into which the kind is not linked has a weak name here that stays NULL.
 */
#ifndef F2B_AUTOGRAD_DEVICE_DEVICE_MEMORY_H
#define F2B_AUTOGRAD_DEVICE_DEVICE_MEMORY_H

#include <stdbool.h>

#include "autograd/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* index is the device's number. All but free_block open the device first. */
typedef struct f2bi_device_functions {
    f2b_status (*open)(int index);
    f2b_status (*describe)(int index, char *text, size_t size);
    f2b_status (*takes_fp8)(int index);
    bool (*scales_fp8)(int index);
    f2b_status (*available)(int index, int64_t *bytes);
    void *(*alloc)(int index, size_t bytes, f2b_tag tag);
    bool (*free_block)(void *block);            /* false: not a block of such a device */
    void (*trim)(void);
    f2b_status (*copy_in)(int index, void *dst, const void *host, size_t bytes);
    f2b_status (*copy_out)(int index, void *host, const void *src, size_t bytes);
    f2b_status (*copy_within)(int index, void *dst, const void *src, size_t bytes);
    f2b_status (*zero)(int index, void *dst, size_t bytes);
    f2b_status (*add_into)(int index, f2b_dtype dtype, void *dst, const void *src, int64_t n);
    f2b_status (*widen)(int index, double *dst, const void *src, f2b_dtype dtype);
    f2b_status (*wait)(int index);
    /* Moments and what goes with them: device.h. An event is the device's own. */
    f2b_status (*event_new)(int index, void **event);
    void (*event_free)(void *event);
    f2b_status (*event_set)(int index, void *event);
    bool (*event_passed)(void *event);
    f2b_status (*event_wait)(int index, void *event);
    f2b_status (*event_seconds)(int index, void *from, void *to, double *seconds);
    f2b_status (*copy_later)(int index, void *host, const void *src, size_t bytes);
    f2b_status (*pin)(int index, void *block, size_t bytes);
    void (*unpin)(void *block);
} f2bi_device_functions;
extern const f2bi_device_functions f2bi_cuda_functions F2B_WEAK;

void *f2bi_device_alloc(f2b_device device, size_t bytes, f2b_tag tag);
bool f2bi_device_free(void *block);         /* false: not a block of a device */
void f2bi_device_trim(void);

/* What allocators share: counting, and the sizes that freed blocks are kept in for reuse, eight an
 * octave, so that at most 1/8 is wasted. Rounds up to one and returns its index, -1 beyond all. */
void f2bi_alloc_account(f2b_device_kind kind, f2b_tag tag, int64_t bytes);
enum { F2BI_SIZE_CLASSES = 8 * 48 };
int f2bi_size_class(size_t *bytes, int smallest_octave);
#if defined(__SANITIZE_ADDRESS__)
enum { F2BI_KEEP_BLOCKS = 0 };
#else
enum { F2BI_KEEP_BLOCKS = 1 };
#endif

#ifdef __cplusplus
}
#endif
#endif
