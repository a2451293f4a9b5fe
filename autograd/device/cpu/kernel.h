/*
 * The language that CPU kernels are written in. A *_cpu.c file is compiled three times; each time
 *   T      is the type that tensors hold (f32, f64, bf16),
 *   real   is the type that arithmetic uses (f32, f64, f32),
 *   KERNEL(name) is the name of this compilation's function: name_f32, name_f64, name_bf16.
 * Kernels read with LOAD and write with STORE; for bf16 STORE rounds to nearest even.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_KERNEL_H
#define F2B_AUTOGRAD_DEVICE_CPU_KERNEL_H

#include "autograd/core/dtype.h"

#if defined(F2B_KERNEL_F32)
typedef float T;
typedef float real;
#define F2B_KERNEL_DTYPE F2B_F32
#define F2B_REAL_DTYPE F2B_F32
#define KERNEL(name) name##_f32
#elif defined(F2B_KERNEL_F64)
typedef double T;
typedef double real;
#define F2B_KERNEL_DTYPE F2B_F64
#define F2B_REAL_DTYPE F2B_F64
#define KERNEL(name) name##_f64
#elif defined(F2B_KERNEL_BF16)
typedef f2b_bf16 T;
typedef float real;
#define F2B_KERNEL_DTYPE F2B_BF16
#define F2B_REAL_DTYPE F2B_F32
#define KERNEL(name) name##_bf16
#else
#error "compile kernels through cmake/rooms.cmake, which defines F2B_KERNEL_<TYPE>"
#endif

#if defined(F2B_KERNEL_BF16)
static inline real f2bi_load(T x) { return f2b_bf16_to_f32(x); }
static inline T f2bi_store(real x) { return f2b_f32_to_bf16(x); }
#else
static inline real f2bi_load(T x) { return x; }
static inline T f2bi_store(real x) { return x; }
#endif
#define LOAD(place) f2bi_load(place)
#define STORE(place, value) ((place) = f2bi_store(value))

/* Mathematical functions of the compute type. */
#if defined(F2B_KERNEL_F64)
#define R(name) name
#else
#define R(name) name##f
#endif

#endif
