/*
 * Copies. What comes from the host goes through pinned staging, so that the caller may change it at
 * once and nothing waits: a ring of slots, each free again when the stream has passed its event.
 */
#include <pthread.h>
#include <string.h>

#include "autograd/device/cuda/cuda_device.h"

enum { SLOTS = 4, SLOT_BYTES = 4 << 20, ALIGN = 64 };

typedef struct staging {
    char *slot[SLOTS];              /* pinned; NULL until first used */
    cudaEvent_t passed[SLOTS];      /* after the last copy out of a slot */
    int current;
    size_t used;                    /* of the current slot */
} staging;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static staging stages[F2BI_CUDA_DEVICES];

static f2b_status open_staging(int index, staging *s)
{
    for (int i = 0; i < SLOTS; i++) {
        if (s->slot[i] != NULL) continue;
        F2BI_CUDA_TRY(index, cudaEventCreateWithFlags(&s->passed[i], cudaEventDisableTiming));
        F2BI_CUDA_TRY(index, cudaHostAlloc((void **)&s->slot[i], SLOT_BYTES, cudaHostAllocDefault));
    }
    return F2B_OK;
}

/* The next slot, once the device has read what was in it. */
static f2b_status turn_ring(int index, staging *s)
{
    F2BI_CUDA_TRY(index, cudaEventRecord(s->passed[s->current], f2bi_cuda_stream(index)));
    s->current = (s->current + 1) % SLOTS;
    s->used = 0;
    F2BI_CUDA_TRY(index, cudaEventSynchronize(s->passed[s->current]));
    return F2B_OK;
}

static f2b_status stage(int index, staging *s, char *dst, const char *host, size_t bytes)
{
    F2B_TRY(open_staging(index, s));
    while (bytes > 0) {
        if (s->used >= SLOT_BYTES) F2B_TRY(turn_ring(index, s));
        const size_t room = SLOT_BYTES - s->used, n = bytes < room ? bytes : room;
        char *place = s->slot[s->current] + s->used;
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

f2b_status f2bi_cuda_copy_out(int index, void *host, const void *src, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost,
                                         f2bi_cuda_stream(index)));
    return f2bi_cuda_wait(index);
}

f2b_status f2bi_cuda_copy_later(int index, void *host, const void *src, size_t bytes)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost,
                                         f2bi_cuda_stream(index)));
    return F2B_OK;
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
