/*
 * Copies. What comes from the host goes through pinned staging, so that the caller may change it at
 * once and nothing waits: a ring of slots, each free again when the stream has passed its event. The
 * stream reads a slot when it comes there, which may be a micro-batch later: the ring grows while its
 * next slot is not free, up to MOST_SLOTS, and waits only then.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/device/cuda/cuda_device.h"

enum { MOST_SLOTS = 32, SLOT_BYTES = 4 << 20, ALIGN = 64 };

typedef struct slot {
    char *data;                     /* pinned */
    void *passed;                   /* after the last copy out of it */
    struct slot *next;              /* around the ring */
} slot;
typedef struct staging {
    slot *current;                  /* NULL until first used */
    size_t used;                    /* of it */
    int slots;
} staging;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static staging stages[F2BI_CUDA_DEVICES];

static f2b_status fill_slot(int index, slot *s)
{
    F2B_TRY(f2bi_cuda_event_new(index, &s->passed));
    F2BI_CUDA_TRY(index, cudaHostAlloc((void **)&s->data, SLOT_BYTES, cudaHostAllocDefault));
    return F2B_OK;
}

/* A new slot behind the current one, which it becomes. */
static f2b_status add_slot(int index, staging *s)
{
    slot *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return f2b_fail(F2B_ERR_MEMORY, "cuda:%d: no memory for a copy", index);
    const f2b_status status = fill_slot(index, fresh);
    if (status != F2B_OK) {
        if (fresh->passed != NULL) f2bi_cuda_event_free(fresh->passed);
        free(fresh);
        return status;
    }
    fresh->next = s->current != NULL ? s->current->next : fresh;
    if (s->current != NULL) s->current->next = fresh;
    s->current = fresh;
    s->used = 0;
    s->slots++;
    return F2B_OK;
}

/* The next slot, once the device has read what was in it. */
static f2b_status turn_ring(int index, staging *s)
{
    F2B_TRY(f2bi_cuda_event_set(index, s->current->passed));
    slot *next = s->current->next;
    const bool is_free = f2bi_cuda_event_passed(next->passed);
    if (!is_free && s->slots < MOST_SLOTS) return add_slot(index, s);
    s->current = next;
    s->used = 0;
    return is_free ? F2B_OK : f2bi_cuda_event_wait(index, next->passed);
}

static f2b_status stage(int index, staging *s, char *dst, const char *host, size_t bytes)
{
    if (s->current == NULL) F2B_TRY(add_slot(index, s));
    while (bytes > 0) {
        if (s->used >= SLOT_BYTES) F2B_TRY(turn_ring(index, s));
        const size_t room = SLOT_BYTES - s->used, n = bytes < room ? bytes : room;
        char *place = s->current->data + s->used;
        memcpy(place, host, n);
        F2BI_CUDA_TRY(index, cudaMemcpyAsync(dst, place, n, cudaMemcpyHostToDevice,
                                             f2bi_cuda_stream(index)));
        s->used += (n + ALIGN - 1) / ALIGN * ALIGN;
        dst += n, host += n, bytes -= n;
    }
    return F2B_OK;
}

f2b_status f2bi_cuda_copy_in(int index, void *dst, const void *host, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    pthread_mutex_lock(&lock);
    const f2b_status status = stage(index, &stages[index], dst, host, bytes);
    pthread_mutex_unlock(&lock);
    return status;
}

f2b_status f2bi_cuda_copy_later(int index, void *host, const void *src, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost,
                                         f2bi_cuda_stream(index)));
    return F2B_OK;
}

f2b_status f2bi_cuda_copy_out(int index, void *host, const void *src, size_t bytes)
{
    F2B_TRY(f2bi_cuda_copy_later(index, host, src, bytes));
    return f2bi_cuda_wait(index);
}

f2b_status f2bi_cuda_pin(int index, void *block, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaHostRegister(block, bytes, cudaHostRegisterDefault));
    return F2B_OK;
}

void f2bi_cuda_unpin(void *block) { (void)cudaHostUnregister(block); }

f2b_status f2bi_cuda_copy_within(int index, void *dst, const void *src, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice,
                                         f2bi_cuda_stream(index)));
    return F2B_OK;
}

f2b_status f2bi_cuda_zero(int index, void *dst, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaMemsetAsync(dst, 0, bytes, f2bi_cuda_stream(index)));
    return F2B_OK;
}
