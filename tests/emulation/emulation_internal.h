/* What the parts of the emulated device share: memory (arena.c), streams.c, kernels (launch.c). */
#ifndef F2B_TESTS_EMULATION_INTERNAL_H
#define F2B_TESTS_EMULATION_INTERNAL_H

#include <stdbool.h>

#include "cuda_runtime.h"
#include "tests/emulation/emulation.h"

extern f2b_emulation_counts f2b_emu_counts;
extern int f2b_emu_devices, f2b_emu_capability;

/** F2B_EMULATED_WORK=none in the environment: what a stream is asked for is counted and left undone, and
 *  nothing is watched, so that what is left is the program's own work. Only copies and fills of a few
 *  numbers are done, at once; what kernels should have written is zero. */
bool f2b_emu_idle(void);
enum { F2B_EMU_FEW_BYTES = 4096 };

/** Device memory is out of reach but between these two; they nest. */
void f2b_emu_unlock(void);
void f2b_emu_lock(void);

/** At the top of a function of the runtime: threads of the program take turns in it. Turns nest. */
typedef struct f2b_emu_turn { int number; } f2b_emu_turn;
f2b_emu_turn f2b_emu_begin_turn(void);
void f2b_emu_end_turn(f2b_emu_turn *turn);
#define F2B_EMU_TURN                                                                              \
    __attribute__((cleanup(f2b_emu_end_turn), unused)) f2b_emu_turn turn = f2b_emu_begin_turn()

/** Runs a launch to its end. */
cudaError_t f2b_emu_run(const f2b_emu_launch *launch, const void *arguments);
/** Whether the runtime would take the launch. */
cudaError_t f2b_emu_check_launch(const f2b_emu_launch *launch);
/** Fill shared memory with NaN before a block. */
void f2b_emu_poison_shared(void);

/** A piece of dynamic shared memory, on the boundary of its size; the number of the thread that runs. */
char *f2b_emu_shared_at(unsigned address, size_t bytes, const char *file, int line);
int f2b_emu_thread(void);
/** A thread has ended: it must have waited for its asynchronous copies. */
void f2b_emu_copies_end(int thread);

/** Says what the program did wrong on stderr, and aborts. */
__attribute__((noreturn, format(printf, 1, 2))) void f2b_emu_fault(const char *format, ...);
/** From the answer of an exchange: where it is, of which kernel, and what. */
__attribute__((noreturn, format(printf, 1, 2))) void f2b_emu_fault_here(const char *format, ...);

#endif
