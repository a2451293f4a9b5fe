/*
 * How products of bf16 numbers are computed on this processor. Operands are bf16 and sums f32
 * everywhere; families differ in instructions, and so may differ in the last bits.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_PRODUCTS_H
#define F2B_AUTOGRAD_DEVICE_CPU_PRODUCTS_H

#include <stdbool.h>

#include "autograd/core/status.h"

typedef enum f2b_products {
    F2B_PRODUCTS_F32,               /* widened, then f32 fused multiply-adds: any processor */
    F2B_PRODUCTS_AVX512_BF16,       /* VDPBF16PS: two products a lane and instruction */
    F2B_PRODUCTS_AMX_BF16,          /* TDPBF16PS: 16 x 16 sums of 32 products an instruction */
    F2B_PRODUCTS_COUNT
} f2b_products;

/** The family in use: the best that the processor has, unless another was chosen. */
f2b_products f2b_cpu_products(void);

/** "f32", "avx512_bf16", "amx_bf16". */
const char *f2b_products_name(f2b_products family);

/** Whether this processor, and the system on it, can run a family. */
bool f2b_products_available(f2b_products family);

/**
 * Choose a family by name; NULL or "" is the best. Not while products run.
 * errors  F2B_ERR_USAGE for a name that is none; F2B_ERR_UNSUPPORTED where the processor lacks it.
 */
f2b_status f2b_products_choose(const char *name);

/** From now on amx_bf16 counts as available where avx512_bf16 is, which its kernels use beside, though never as the
 * best: a test carries the instructions out that the processor lacks (tests/support/amx_trap.h). */
void f2b_products_emulate_amx(void);

#endif
