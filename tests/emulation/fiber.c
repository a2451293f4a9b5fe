/*
 * Fibers (fiber.h). On x86-64 a switch is a dozen instructions, elsewhere it is ucontext, which asks
 * the kernel for the signal mask each time. AddressSanitizer is told about every switch.
 */
#include "tests/emulation/fiber.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__x86_64__) && !defined(F2B_FIBER_UCONTEXT)
#define SWITCH_IN_ASSEMBLY 1
#else
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

enum { MOST = 1024, STACK_BYTES = 256 << 10 };

typedef struct context {
#if defined(SWITCH_IN_ASSEMBLY)
    void *stack_pointer;
#else
    ucontext_t saved;
#endif
    void *fake_stack;               /* AddressSanitizer's */
} context;

struct f2b_fiber {
    context here;
    char *stack;
    void (*entry)(void);
    bool finished;
};

static f2b_fiber fibers[MOST];
static context scheduler;
static f2b_fiber *current;
static const void *scheduler_bottom;
static size_t scheduler_bytes;

#if defined(SWITCH_IN_ASSEMBLY)
/* Saves what a call must preserve on the old stack and takes it from the new one. */
__attribute__((naked, noinline)) static void switch_stacks(void **save, void *load)
{
    (void)save, (void)load;
    __asm__("pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
            "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
            "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}
static void switch_to(context *from, context *to) { switch_stacks(&from->stack_pointer, to->stack_pointer); }
#else
static void switch_to(context *from, context *to) { (void)swapcontext(&from->saved, &to->saved); }
#endif

static void before_switch(context *from, const void *bottom, size_t bytes, bool for_good)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? NULL : &from->fake_stack, bottom, bytes);
#else
    (void)from, (void)bottom, (void)bytes, (void)for_good;
#endif
}

static void after_switch(context *here, const void **bottom, size_t *bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(here->fake_stack, bottom, bytes);
#else
    (void)here, (void)bottom, (void)bytes;
#endif
}

static void fiber_main(void)
{
    after_switch(&current->here, &scheduler_bottom, &scheduler_bytes);
    current->entry();
    current->finished = true;
    before_switch(&current->here, scheduler_bottom, scheduler_bytes, true);
    switch_to(&current->here, &scheduler);
    abort();
}

f2b_fiber *f2b_fiber_start(int i, void (*entry)(void))
{
    f2b_fiber *f = &fibers[i];
    if (f->stack == NULL) {
        f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == MAP_FAILED) {
            fprintf(stderr, "emulation: no memory for the stack of a thread\n");
            abort();
        }
    }
    f->entry = entry, f->finished = false, f->here.fake_stack = NULL;
#if defined(SWITCH_IN_ASSEMBLY)
    /* As switch_stacks left it: six registers, then where to return to; 16-byte aligned as after a
     * call. */
    void **top = (void **)(void *)(f->stack + STACK_BYTES) - 2;
    top[0] = (void *)(uintptr_t)fiber_main, top[1] = NULL;
    for (int k = 1; k <= 6; k++) top[-k] = NULL;
    f->here.stack_pointer = top - 6;
#else
    getcontext(&f->here.saved);
    f->here.saved.uc_stack.ss_sp = f->stack;
    f->here.saved.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->here.saved, fiber_main, 0);
#endif
    return f;
}

bool f2b_fiber_resume(f2b_fiber *fiber)
{
    current = fiber;
    before_switch(&scheduler, fiber->stack, STACK_BYTES, false);
    switch_to(&scheduler, &fiber->here);
    after_switch(&scheduler, NULL, NULL);
    return !fiber->finished;
}

void f2b_fiber_yield(void)
{
    f2b_fiber *me = current;
    before_switch(&me->here, scheduler_bottom, scheduler_bytes, false);
    switch_to(&me->here, &scheduler);
    after_switch(&me->here, &scheduler_bottom, &scheduler_bytes);
}
