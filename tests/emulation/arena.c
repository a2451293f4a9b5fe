/*
 * Device memory: blocks of one reserved stretch of addresses that the host cannot touch while no
 * copy or kernel runs. AddressSanitizer sees the end of each block to the byte.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/emulation/emulation_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(place, bytes) ((void)(place), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(place, bytes) ((void)(place), (void)(bytes))
#endif

#define RESERVED ((size_t)1 << 36)
enum { ALIGN = 512, GAP = 512, MOST_BLOCKS = 1 << 16, PAGE = 4096 };

typedef struct block { size_t at, bytes, span; } block;     /* span: with the gap after it */

f2b_emulation_counts f2b_emu_counts;
int f2b_emu_devices = 1;

static char *arena;
static block blocks[MOST_BLOCKS];               /* in order of address */
static int n_blocks, unlocked;
static size_t limit = (size_t)8 << 30, touched; /* touched: the highest end there ever was */

void f2b_emulation_set_devices(int count) { f2b_emu_devices = count; }

__attribute__((constructor)) static void read_environment(void)
{
    const char *count = getenv("F2B_EMULATED_DEVICES");
    if (count != NULL) f2b_emu_devices = atoi(count);
}
void f2b_emulation_set_memory(size_t bytes) { limit = bytes; }
f2b_emulation_counts f2b_emulation_read_counts(void) { return f2b_emu_counts; }

int f2b_emulation_owns(const void *pointer)
{
    return arena != NULL && (const char *)pointer >= arena
           && (const char *)pointer < arena + RESERVED;
}

static pthread_mutex_t turns;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_turns(void)
{
    pthread_mutexattr_t nests;
    pthread_mutexattr_init(&nests);
    pthread_mutexattr_settype(&nests, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&turns, &nests);
    pthread_mutexattr_destroy(&nests);
}

f2b_emu_turn f2b_emu_begin_turn(void)
{
    pthread_once(&once, make_turns);
    pthread_mutex_lock(&turns);
    return (f2b_emu_turn){ 0 };
}

void f2b_emu_end_turn(f2b_emu_turn *turn)
{
    (void)turn;
    pthread_mutex_unlock(&turns);
}

void f2b_emu_fault(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emulated CUDA: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

static void say_counts(void)
{
    const f2b_emulation_counts *c = &f2b_emu_counts;
    fprintf(stderr, "emulated CUDA: %lld launches, %lld copies, %lld fills, %lld waits, %lld mallocs, %lld "
            "frees, %lld host_mallocs\n", (long long)c->launches, (long long)c->copies,
            (long long)c->fills, (long long)c->waits, (long long)c->mallocs, (long long)c->frees,
            (long long)c->host_mallocs);
}

bool f2b_emu_idle(void)
{
    static int idle = -1;
    if (idle >= 0) return idle;
    const char *text = getenv("F2B_EMULATED_WORK");
    idle = text != NULL && strcmp(text, "none") == 0;
    if (!idle) return false;
    limit = RESERVED;               /* next to nothing of it is touched */
    (void)atexit(say_counts);
    return true;
}

static void protect(int how)
{
    if (f2b_emu_idle()) return;
    if (touched > 0 && mprotect(arena, (touched + PAGE - 1) / PAGE * PAGE, how) != 0)
        f2b_emu_fault("cannot protect the device's memory");
}

void f2b_emu_unlock(void) { if (unlocked++ == 0) protect(PROT_READ | PROT_WRITE); }
void f2b_emu_lock(void) { if (--unlocked == 0) protect(PROT_NONE); }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    (void)f2b_emu_idle();
    *total = limit;
    *available = limit > f2b_emu_counts.bytes ? limit - f2b_emu_counts.bytes : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    F2B_EMU_TURN;
    *pointer = NULL;
    if (bytes == 0) return cudaSuccess;
    if (f2b_emu_devices == 0) return cudaErrorNoDevice;
    (void)f2b_emu_idle();
    if (bytes > limit || f2b_emu_counts.bytes > limit - bytes || n_blocks == MOST_BLOCKS)
        return cudaErrorMemoryAllocation;
    if (arena == NULL) {
        const int access = f2b_emu_idle() ? PROT_READ | PROT_WRITE : PROT_NONE;
        arena = mmap(NULL, RESERVED, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED) f2b_emu_fault("no addresses for the device's memory");
    }
    const size_t span = (bytes + GAP + ALIGN - 1) / ALIGN * ALIGN;
    int i = 0;
    size_t at = 0;
    while (i < n_blocks && blocks[i].at - at < span) at = blocks[i].at + blocks[i].span, i++;
    if (at + span > RESERVED) return cudaErrorMemoryAllocation;
    memmove(&blocks[i + 1], &blocks[i], (size_t)(n_blocks - i) * sizeof *blocks);
    blocks[i] = (block){ at, bytes, span };
    n_blocks++;
    if (at + span > touched) touched = at + span;
    f2b_emu_counts.mallocs++, f2b_emu_counts.bytes += bytes;
    *pointer = arena + at;
    ASAN_UNPOISON_MEMORY_REGION(arena + at, bytes);
    ASAN_POISON_MEMORY_REGION(arena + at + bytes, span - bytes);
    if (f2b_emu_idle()) return cudaSuccess;
    f2b_emu_unlock();
    memset(arena + at, 0xFF, bytes);
    f2b_emu_lock();
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer)
{
    F2B_EMU_TURN;
    if (pointer == NULL) return cudaSuccess;
    int i = 0;
    while (i < n_blocks && arena + blocks[i].at != (char *)pointer) i++;
    if (i == n_blocks) f2b_emu_fault("cudaFree of %p, which is no block", pointer);
    (void)cudaDeviceSynchronize();
    f2b_emu_counts.frees++, f2b_emu_counts.bytes -= blocks[i].bytes;
    ASAN_POISON_MEMORY_REGION(pointer, blocks[i].bytes);
    memmove(&blocks[i], &blocks[i + 1], (size_t)(--n_blocks - i) * sizeof *blocks);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    (void)flags;
    if (f2b_emu_devices == 0) return cudaErrorNoDevice;
    *pointer = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    f2b_emu_counts.host_mallocs++;
    return *pointer != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *pointer)
{
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags)
{
    (void)flags;
    if (pointer == NULL || bytes == 0) return cudaErrorInvalidValue;
    f2b_emu_counts.pinned++;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *pointer)
{
    if (pointer == NULL || f2b_emu_counts.pinned == 0) return cudaErrorInvalidValue;
    f2b_emu_counts.pinned--;
    return cudaSuccess;
}

/* Addresses of the host's heap, stacks and mapped files lie high; small numbers and pairs of small
 * numbers do not. Device memory is asked for first. */
void f2b_emu_check_argument(const char *kernel, int number, const void *argument, size_t bytes)
{
    if (f2b_emu_idle()) return;
    for (size_t at = 0; at + sizeof(uintptr_t) <= bytes; at += sizeof(uintptr_t)) {
        uintptr_t word;
        unsigned char resident;
        memcpy(&word, (const char *)argument + at, sizeof word);
        if (word < (uintptr_t)1 << 44 || word >= (uintptr_t)1 << 47) continue;
        if (f2b_emulation_owns((const void *)word)) continue;
        if (mincore((void *)(word / PAGE * PAGE), 1, &resident) == 0)
            f2b_emu_fault("argument %d of %s points into the host's memory", number, kernel);
    }
}
