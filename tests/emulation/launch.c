/*
 * Runs kernels: block after block, in each block every thread up to its next barrier or warp
 * exchange, in the order that the test asked for.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emulation/emulation_internal.h"
#include "tests/emulation/fiber.h"

enum { MOST_THREADS = 1024, WARP = 32, SHARED_BYTES = 48 << 10, MOST_SHARED = 227 << 10,
       MOST_KERNELS = 256 };

typedef enum thread_state { READY, AT_BARRIER, AT_EXCHANGE, FINISHED } thread_state;

typedef struct thread {
    f2b_fiber *fiber;
    thread_state state;
    const char *file;               /* where it waits */
    int line;
    f2b_emu_answer *answer;         /* of the exchange: what it is, who takes part, what this lane gives */
    unsigned mask;
    void *lane;
} thread;

f2b_emu_index threadIdx, blockIdx, f2b_emu_block_dim, f2b_emu_grid_dim;

static f2b_emulation_order order;
static uint64_t random_state = 1;
static thread threads[MOST_THREADS];
static int n_threads, at;           /* threads of the block; the one that runs */
static const f2b_emu_launch *running;
static const void *running_arguments;
static void *dynamic_shared;
static struct { const void *kernel; int bytes; } allowed[MOST_KERNELS];
static int n_allowed;

extern char __start_f2b_shared[] __attribute__((weak)), __stop_f2b_shared[] __attribute__((weak));

void f2b_emulation_set_order(f2b_emulation_order new_order, uint64_t seed)
{
    order = new_order;
    random_state = seed * 2 + 1;
}

static uint64_t next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state >> 33;
}

/* The i-th of n in the order asked for; SHUFFLED goes through by a stride without common factor. */
typedef struct sequence { int64_t n, first, stride; } sequence;

static sequence sequence_of(int64_t n)
{
    if (order == F2B_ASCENDING) return (sequence){ n, 0, 1 };
    if (order == F2B_DESCENDING) return (sequence){ n, n - 1, n - 1 };
    int64_t stride = 1 + (int64_t)(next_random() % (uint64_t)n), a, b;
    do {
        stride = stride % n + 1;
        a = n, b = stride;
        while (b != 0) { const int64_t rest = a % b; a = b, b = rest; }
    } while (a != 1);
    return (sequence){ n, (int64_t)(next_random() % (uint64_t)n), stride };
}

static int64_t element(const sequence *s, int64_t i) { return (s->first + i * s->stride) % s->n; }

/* ---- What threads do ---- */

void *f2b_emu_shared(void) { return dynamic_shared; }

char *f2b_emu_shared_at(unsigned address, size_t bytes, const char *file, int line)
{
    if (address % bytes != 0 || address + bytes > running->shared)
        f2b_emu_fault("%s:%d: %s: %zu bytes at %u of shared memory, of which there are %zu", file, line,
                      running->name, bytes, address, running->shared);
    return (char *)dynamic_shared + address;
}

int f2b_emu_thread(void) { return at; }

static void thread_main(void) { running->body(running_arguments); }

static void wait_as(thread_state state, const char *file, int line)
{
    thread *t = &threads[at];
    t->state = state, t->file = file, t->line = line;
    f2b_fiber_yield();
}

void f2b_emu_barrier(const char *file, int line) { wait_as(AT_BARRIER, file, line); }

/* The last of the mask's lanes to come answers for all. */
static void complete_exchange(int first, unsigned mask, f2b_emu_answer *answer)
{
    void *lanes[WARP] = { 0 };
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1) lanes[l] = threads[first + l].lane;
    answer(lanes);
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1) threads[first + l].state = READY;
}

void f2b_emu_collective(f2b_emu_answer *answer, unsigned mask, void *data, const char *file, int line)
{
    const int first = at / WARP * WARP, lane = at % WARP;
    thread *me = &threads[at];
    if (!(mask >> lane & 1))
        f2b_emu_fault("%s:%d: %s: lane %d calls with a mask that lacks it", file, line,
                      running->name, lane);
    me->answer = answer, me->mask = mask, me->lane = data;
    me->state = AT_EXCHANGE, me->file = file, me->line = line;
    for (int l = 0; l < WARP; l++) {
        if (!(mask >> l & 1)) continue;
        const thread *t = first + l < n_threads ? &threads[first + l] : NULL;
        if (t == NULL || t->state == FINISHED)
            f2b_emu_fault("%s:%d: %s: the mask names lane %d, which is not there", file, line,
                          running->name, l);
        if (t->state != AT_EXCHANGE || t->mask != mask || t->answer != answer || t->line != line
            || strcmp(t->file, file) != 0) {
            f2b_fiber_yield();
            return;
        }
    }
    complete_exchange(first, mask, answer);
}

void f2b_emu_fault_here(const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    f2b_emu_fault("%s:%d: %s: %s", threads[at].file, threads[at].line, running->name, text);
}

/* ---- Exchanges of a word ---- */

typedef struct word { uint64_t value; int source; } word;

static void shuffle(void *const lanes[])
{
    uint64_t value[WARP] = { 0 };
    for (int l = 0; l < WARP; l++)
        if (lanes[l] != NULL) value[l] = ((const word *)lanes[l])->value;
    for (int l = 0; l < WARP; l++) {
        word *w = lanes[l];
        if (w == NULL) continue;
        if (w->source < 0 || w->source >= WARP || lanes[w->source] == NULL)
            f2b_emu_fault_here("lane %d reads lane %d, which takes no part", l, w->source);
        w->value = value[w->source];
    }
}

static void ballot(void *const lanes[])
{
    uint64_t votes = 0;
    for (int l = 0; l < WARP; l++)
        if (lanes[l] != NULL) votes |= (((const word *)lanes[l])->value & 1) << l;
    for (int l = 0; l < WARP; l++)
        if (lanes[l] != NULL) ((word *)lanes[l])->value = votes;
}

static void only_wait(void *const lanes[]) { (void)lanes; }

uint64_t f2b_emu_exchange(int kind, unsigned mask, uint64_t value, int source, const char *file,
                          int line)
{
    static f2b_emu_answer *const answers[] = {
        [F2B_EMU_SHUFFLE] = shuffle, [F2B_EMU_BALLOT] = ballot, [F2B_EMU_SYNC] = only_wait
    };
    word w = { value, source };
    f2b_emu_collective(answers[kind], mask, &w, file, line);
    return w.value;
}

/* ---- The scheduler ---- */

static void set_thread(int t)
{
    const unsigned x = running->block[0], y = running->block[1], i = (unsigned)t;
    at = t;
    threadIdx = (f2b_emu_index){ i % x, i / x % y, i / x / y };
}

static void fault_of_block(const char *what, const thread *t)
{
    f2b_emu_fault("%s, block %u,%u,%u: %s (thread %d waits at %s:%d)", running->name, blockIdx.x,
                  blockIdx.y, blockIdx.z, what, (int)(t - threads), t->file, t->line);
}

/* All wait at one barrier: let them go. Anything else that stops everybody is a fault. */
static void open_barrier(void)
{
    const thread *first = NULL;
    for (int t = 0; t < n_threads; t++) {
        if (threads[t].state == AT_EXCHANGE)
            fault_of_block("a warp exchange that some of its lanes never reach", &threads[t]);
        if (threads[t].state == AT_BARRIER && first == NULL) first = &threads[t];
    }
    for (int t = 0; t < n_threads; t++) {
        if (threads[t].state == FINISHED)
            fault_of_block("a barrier that some threads never reach", first);
        if (threads[t].line != first->line || strcmp(threads[t].file, first->file) != 0)
            fault_of_block("threads wait at different barriers", first);
        threads[t].state = READY;
    }
}

static void run_block(void)
{
    f2b_emu_poison_shared();
    for (int t = 0; t < n_threads; t++)
        threads[t] = (thread){ .fiber = f2b_fiber_start(t, thread_main) };
    int left = n_threads;
    while (left > 0) {
        const sequence s = sequence_of(n_threads);
        bool moved = false;
        for (int i = 0; i < n_threads; i++) {
            const int t = (int)element(&s, i);
            if (threads[t].state != READY) continue;
            set_thread(t);
            moved = true;
            if (f2b_fiber_resume(threads[t].fiber)) continue;
            f2b_emu_copies_end(t);
            threads[t].state = FINISHED;
            left--;
        }
        if (!moved) open_barrier();
    }
}

/* Static shared memory is one section of the program. Not instrumented: it is filled with the gaps
 * that AddressSanitizer keeps between variables. */
__attribute__((no_sanitize("address"), no_sanitize("undefined"), optimize("no-tree-loop-distribute-patterns")))
static void fill(char *from, const char *to)
{
    for (volatile char *p = from; p < to; p++) *p = (char)0xFF;
}

void f2b_emu_poison_shared(void)
{
    if (__start_f2b_shared != NULL) fill(__start_f2b_shared, __stop_f2b_shared);
    if (running->shared > 0) memset(dynamic_shared, 0xFF, running->shared);
}

cudaError_t f2b_emu_run(const f2b_emu_launch *launch, const void *arguments)
{
    running = launch, running_arguments = arguments;
    n_threads = (int)(launch->block[0] * launch->block[1] * launch->block[2]);
    f2b_emu_block_dim = (f2b_emu_index){ launch->block[0], launch->block[1], launch->block[2] };
    f2b_emu_grid_dim = (f2b_emu_index){ launch->grid[0], launch->grid[1], launch->grid[2] };
    if (launch->shared > 0 && posix_memalign(&dynamic_shared, 128, launch->shared) != 0)
        f2b_emu_fault("no memory for shared memory");
    f2b_emu_unlock();
    const int64_t count = (int64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    const sequence s = sequence_of(count);
    for (int64_t i = 0; i < count; i++) {
        const uint64_t b = (uint64_t)element(&s, i);
        blockIdx = (f2b_emu_index){ (unsigned)(b % launch->grid[0]),
                                    (unsigned)(b / launch->grid[0] % launch->grid[1]),
                                    (unsigned)(b / launch->grid[0] / launch->grid[1]) };
        run_block();
    }
    f2b_emu_lock();
    free(dynamic_shared);
    dynamic_shared = NULL;
    return cudaSuccess;
}

cudaError_t f2b_emu_check_launch(const f2b_emu_launch *l)
{
    int most_shared = SHARED_BYTES;
    for (int i = 0; i < n_allowed; i++)
        if (allowed[i].kernel == l->kernel) most_shared = allowed[i].bytes;
    for (int d = 0; d < 3; d++)
        if (l->grid[d] == 0 || l->block[d] == 0) return cudaErrorInvalidConfiguration;
    const uint64_t n = (uint64_t)l->block[0] * l->block[1] * l->block[2];
    if (n > MOST_THREADS || l->block[2] > 64 || l->grid[0] > 0x7FFFFFFFu || l->grid[1] > 65535
        || l->grid[2] > 65535)
        return cudaErrorInvalidConfiguration;
    return l->shared <= (size_t)most_shared ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > MOST_SHARED)
        return cudaErrorInvalidValue;
    int i = 0;
    while (i < n_allowed && allowed[i].kernel != kernel) i++;
    if (i == MOST_KERNELS) f2b_emu_fault("more kernels than the emulation counts");
    if (i == n_allowed) n_allowed++;
    allowed[i].kernel = kernel, allowed[i].bytes = value;
    return cudaSuccess;
}
