/*
 * The instructions of autograd/device/cuda/tensor_core.cuh for emulated kernels: registers are laid
 * out as the PTX ISA says, asynchronous copies arrive when they are waited for and no sooner.
 * Included by cuda_runtime.h alone.
 */
#ifndef F2B_TESTS_EMULATION_TENSOR_CORE_EMULATED_H
#define F2B_TESTS_EMULATION_TENSOR_CORE_EMULATED_H

extern "C" {
void f2b_emu_mma(float c[4], const unsigned a[4], const unsigned b[2], const char *file, int line);
void f2b_emu_load_matrices(unsigned r[4], unsigned address, bool turned, const char *file, int line);
void f2b_emu_copy(unsigned to, const void *from, unsigned bytes, bool there, const char *file, int line);
void f2b_emu_copy_wait(void);
unsigned f2b_emu_pair(float low, float high);
}

/* Where a kernel calls from: exchanges are of lanes at one place. */
#define F2B_EMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline unsigned f2bi_shared_base(void) { return 0; }
static inline void f2bi_mma(float c[4], const unsigned a[4], const unsigned *b, F2B_EMU_PLACE)
{
    f2b_emu_mma(c, a, b, file, line);
}
static inline void f2bi_load_matrices(unsigned r[4], unsigned address, F2B_EMU_PLACE)
{
    f2b_emu_load_matrices(r, address, false, file, line);
}
static inline void f2bi_load_matrices_turned(unsigned r[4], unsigned address, F2B_EMU_PLACE)
{
    f2b_emu_load_matrices(r, address, true, file, line);
}
static inline void f2bi_copy_async(unsigned to, const void *from, bool there, F2B_EMU_PLACE)
{
    f2b_emu_copy(to, from, 16, there, file, line);
}
static inline void f2bi_copy_word_async(unsigned to, const void *from, bool there, F2B_EMU_PLACE)
{
    f2b_emu_copy(to, from, 4, there, file, line);
}
static inline void f2bi_copy_wait(void) { f2b_emu_copy_wait(); }
static inline float f2bi_exp2(float x) { return exp2f(x); }
static inline unsigned f2bi_pair(float low, float high) { return f2b_emu_pair(low, high); }

#endif
