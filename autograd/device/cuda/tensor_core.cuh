/*
 * Tensor cores: products of matrices in a warp's registers, and how operands get there from global
 * memory through shared memory. sm_80 and newer; a function is an instruction of PTX, whose ISA has
 * the layouts. Elsewhere than under nvcc they are the emulation's (tests/emulation/).
 *
 * All lanes of a warp call together. With g = lane / 4 and t = lane % 4 * 2, a register of two bf16
 * (`unsigned`, the first one low) or a pair of floats holds columns t and t + 1 of a row:
 *
 *   a [16, 16]   a[0] row g, a[1] row g + 8; a[2], a[3] the same of columns 8 to 15
 *   b [16, 8]    b[0] rows t, t + 1 of column g; b[1] rows t + 8, t + 9
 *   c [16, 8]    c[0], c[1] row g; c[2], c[3] row g + 8
 *
 * so that a pair of neighbouring c, rounded, is an a: a product feeds the next one.
 *
 * Addresses are bytes in the block's dynamic shared memory, which begins at f2bi_shared_base(), a
 * multiple of 256.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_TENSOR_CORE_CUH
#define F2B_AUTOGRAD_DEVICE_CUDA_TENSOR_CORE_CUH

#include "autograd/device/cuda/kernel.cuh"

#if defined(__CUDACC__)

F2BI_ON_DEVICE unsigned f2bi_shared_base(void)
{
    F2BI_DYNAMIC_SHARED(unsigned char, base);
    return (unsigned)__cvta_generic_to_shared(base);
}

/** c += a b, f32 sums of bf16 products. */
F2BI_ON_DEVICE void f2bi_mma(float c[4], const unsigned a[4], const unsigned *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/** Four matrices of 8 by 8 bf16: lane 8m + i gives the address of row i of matrix m, and r[m] becomes
 *  columns t, t + 1 of its row g. Turned: rows t, t + 1 of its column g. */
F2BI_ON_DEVICE void f2bi_load_matrices(unsigned r[4], unsigned address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
F2BI_ON_DEVICE void f2bi_load_matrices_turned(unsigned r[4], unsigned address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}

/** Begins a copy of 16 bytes (of 4) to shared memory, of zeros where `there` is false; `from` and `to`
 *  are multiples of that size. This thread has the bytes after f2bi_copy_wait, others after a barrier
 *  that follows it. */
F2BI_ON_DEVICE void f2bi_copy_async(unsigned to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 : : "r"(to), "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0) : "memory");
}
F2BI_ON_DEVICE void f2bi_copy_word_async(unsigned to, const void *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 : : "r"(to), "l"(__cvta_generic_to_global(from)), "r"(there ? 4 : 0) : "memory");
}
F2BI_ON_DEVICE void f2bi_copy_wait(void) { asm volatile("cp.async.wait_all;" : : : "memory"); }

/** 2^x within 2^-22 of itself; 0 for -infinity. */
F2BI_ON_DEVICE float f2bi_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/** Two numbers rounded to bf16. */
F2BI_ON_DEVICE unsigned f2bi_pair(float low, float high)
{
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#endif
#endif
