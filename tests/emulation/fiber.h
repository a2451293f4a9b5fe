/* A stack of its own for each thread of an emulated block, and switching between them. */
#ifndef F2B_TESTS_EMULATION_FIBER_H
#define F2B_TESTS_EMULATION_FIBER_H

#include <stdbool.h>

typedef struct f2b_fiber f2b_fiber;

/** Fiber number i of the pool, made to call entry when it is next resumed. */
f2b_fiber *f2b_fiber_start(int i, void (*entry)(void));
/** From the scheduler: run the fiber until it yields or returns; false: it returned. */
bool f2b_fiber_resume(f2b_fiber *fiber);
/** From a fiber: back to the scheduler. */
void f2b_fiber_yield(void);

#endif
