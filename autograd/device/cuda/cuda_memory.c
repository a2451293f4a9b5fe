/*
 * Device memory. Blocks come from cudaMalloc in size classes and are kept when freed, so that a
 * training step that repeats its sizes asks CUDA for nothing; what is kept goes back only when CUDA
 * has no more. A freed block may be handed out at once: its next user comes later on the one stream.
 *
 * Records of blocks live on the host, found by address: device memory is never touched here.
 */
#include <pthread.h>
#include <stdlib.h>

#include "autograd/device/cuda/cuda_device.h"

enum { SMALLEST_OCTAVE = 9, BUCKETS = 1 << 12 };

typedef struct block {
    char *data;
    size_t bytes, capacity;         /* as asked for; of the class */
    f2b_tag tag;
    int device, size_class;         /* -1: never kept */
    struct block *next;             /* in its bucket, or among the kept of its class */
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *in_use[BUCKETS], *kept[F2BI_CUDA_DEVICES][F2BI_SIZE_CLASSES];
static size_t kept_bytes, used_bytes;
static uintptr_t lowest = UINTPTR_MAX, highest;     /* of all addresses ever handed out */

static block **bucket_of(const void *data) { return &in_use[(uintptr_t)data >> 9 & (BUCKETS - 1)]; }

/* Called with the lock held. Gives all kept blocks back to CUDA. */
static void trim(void)
{
    for (int d = 0; d < F2BI_CUDA_DEVICES; d++)
        for (int c = 0; c < F2BI_SIZE_CLASSES; c++)
            while (kept[d][c] != NULL) {
                block *b = kept[d][c];
                kept[d][c] = b->next;
                kept_bytes -= b->capacity;
                (void)cudaFree(b->data);
                free(b);
            }
}

void f2bi_cuda_trim(void)
{
    pthread_mutex_lock(&lock);
    trim();
    pthread_mutex_unlock(&lock);
}

/* Called with the lock held. A record with memory from CUDA, or NULL with *error. */
static block *fresh_block(size_t capacity, cudaError_t *error)
{
    block *b = calloc(1, sizeof *b);
    *error = cudaErrorMemoryAllocation;
    if (b == NULL) return NULL;
    *error = cudaMalloc((void **)&b->data, capacity);
    if (*error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        trim();
        *error = cudaMalloc((void **)&b->data, capacity);
    }
    if (*error == cudaSuccess) return b;
    free(b);
    return NULL;
}

/* Called with the lock held. */
static block *take(int index, size_t bytes, f2b_tag tag, cudaError_t *error)
{
    size_t capacity = bytes == 0 ? 1 : bytes;
    const int class = F2BI_KEEP_BLOCKS ? f2bi_size_class(&capacity, SMALLEST_OCTAVE) : -1;
    block *b = class >= 0 ? kept[index][class] : NULL;
    if (b != NULL) {
        kept[index][class] = b->next;
        kept_bytes -= capacity;
    } else if ((b = fresh_block(capacity, error)) == NULL) {
        return NULL;
    }
    *b = (block){ .data = b->data, .bytes = bytes, .capacity = capacity, .tag = tag,
                  .device = index, .size_class = class, .next = *bucket_of(b->data) };
    *bucket_of(b->data) = b;
    used_bytes += bytes;
    if ((uintptr_t)b->data < lowest) lowest = (uintptr_t)b->data;
    if ((uintptr_t)b->data > highest) highest = (uintptr_t)b->data;
    return b;
}

static void *memory_error(int index, size_t bytes, f2b_tag tag, cudaError_t error)
{
    size_t available = 0, total = 0;
    (void)cudaGetLastError();
    if (error != cudaErrorMemoryAllocation) {
        (void)f2bi_cuda_fail(index, error, "cudaMalloc");
        return NULL;
    }
    (void)cudaMemGetInfo(&available, &total);
    (void)f2b_fail(F2B_ERR_MEMORY, "out of memory on cuda:%d: no %zu bytes for %s (%zu are in use "
                   "here, %zu of %zu are free); lower train.micro_batch_tokens, or free the "
                   "device's memory", index, bytes, f2b_tag_name(tag), used_bytes, available, total);
    return NULL;
}

f2b_status f2bi_cuda_available(int index, int64_t *bytes)
{
    size_t available, total;
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaMemGetInfo(&available, &total));
    pthread_mutex_lock(&lock);
    *bytes = (int64_t)(available + kept_bytes);
    pthread_mutex_unlock(&lock);
    return F2B_OK;
}

void *f2bi_cuda_alloc(int index, size_t bytes, f2b_tag tag)
{
    if (f2bi_cuda_select(index) != F2B_OK) return NULL;
    cudaError_t error = cudaErrorMemoryAllocation;
    pthread_mutex_lock(&lock);
    block *b = bytes <= SIZE_MAX / 2 ? take(index, bytes, tag, &error) : NULL;
    pthread_mutex_unlock(&lock);
    if (b == NULL) return memory_error(index, bytes, tag, error);
    f2bi_alloc_account(F2B_CUDA, tag, (int64_t)bytes);
    return b->data;
}

bool f2bi_cuda_free(void *data)
{
    if ((uintptr_t)data < lowest || (uintptr_t)data > highest) return false;
    pthread_mutex_lock(&lock);
    block **at = bucket_of(data);
    while (*at != NULL && (*at)->data != data) at = &(*at)->next;
    block *b = *at;
    if (b == NULL) {
        pthread_mutex_unlock(&lock);
        return false;
    }
    *at = b->next;
    used_bytes -= b->bytes;
    const f2b_tag tag = b->tag;
    const int64_t bytes = (int64_t)b->bytes;
    if (b->size_class >= 0) {
        b->next = kept[b->device][b->size_class];
        kept[b->device][b->size_class] = b;
        kept_bytes += b->capacity;
    } else {
        (void)cudaFree(b->data);
        free(b);
    }
    pthread_mutex_unlock(&lock);
    f2bi_alloc_account(F2B_CUDA, tag, -bytes);
    return true;
}
