/*
 * The op harness: a table of cases in, everything that must hold of an op checked for each.
 *
 * f2b_check_op runs, for one case,
 *   repeatable   the same bits with 1, 2 and 3 threads, outputs and gradients, f32 and bf16;
 *   by row       inputs repeated three times along their rows give each output row three times, the
 *                same bits (ops whose inputs are marked by_row);
 *   gradcheck    f64, central differences with h = 1e-6 against a random upstream gradient, error /
 *                max(1, |gradient|) < 1e-6; up to 200 elements an input (5 of large ones), evenly;
 *   accumulate   two backward passes give twice the gradient (f64);
 *   written      a gradient that starts uninitialised (a tensor of the tape) gets the same bits as
 *                one that starts at zero, and both of two uses of a tensor arrive;
 *   frozen       each input in turn without gradient: it gets none, the others keep their bits;
 *                all frozen: nothing is recorded;
 *   storage      a frozen parameter stored as bf16, f16 or f32 gives the same bits;
 *   precision    f32 against f64 and bf16 against f64 (outputs and gradients) within rounding, bf16
 *                with each family of products that the processor has;
 *   cuda         where the program has that device, emulated or real: as the CPU in f32 and bf16, within
 *                rounding (leaves and tensors of the tape, used twice, accumulated, frozen inputs,
 *                stored parameters), and the same bits for every order of threads;
 *   leaks        not a byte more in use afterwards.
 * Values against numbers from elsewhere, and errors, are the op's own tests: f2b_check_near and
 * f2b_check_error.
 *
 * Every random input and upstream gradient is a bf16 number, exact in all types.
 */
#ifndef F2B_TESTS_SUPPORT_CHECK_OP_H
#define F2B_TESTS_SUPPORT_CHECK_OP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "autograd/core/op.h"
#include "autograd/core/tape.h"

enum { F2B_CHECK_MAX_IN = 12 };

/** What an input is, and so which type it has in a run that computes in a given type. */
typedef enum f2b_check_role {
    F2B_CHECK_ACTIVATION,       /* the run's type; a gradient is wanted */
    F2B_CHECK_PARAMETER,        /* f32, f64 in f64 runs; a gradient is wanted */
    F2B_CHECK_CONSTANT,         /* types as a parameter; never a gradient */
    F2B_CHECK_DATA,             /* the run's type; never a gradient */
    F2B_CHECK_INDEX             /* i32, never a gradient */
} f2b_check_role;

typedef struct f2b_check_input {
    f2b_check_role role;
    int ndim;
    int64_t shape[F2B_MAX_DIMS];
    double low, high;           /* uniform in [low, high); integers for F2B_CHECK_INDEX */
    const double *values;       /* these instead (borrowed); NULL: random */
    bool by_row;                /* repeat along dimension 0 in the by-row check */
} f2b_check_input;

/* Inputs in short: F2B_IN(role, low, high, ndim, shape...); F2B_ROWS: by_row besides. */
#define F2B_IN(role, low, high, ndim, ...) { role, ndim, { __VA_ARGS__ }, low, high, NULL, false }
#define F2B_ROWS(role, low, high, ndim, ...) { role, ndim, { __VA_ARGS__ }, low, high, NULL, true }

/**
 * Builds the op under test. dtype: the type to compute in; in: the case's inputs; context: the
 * case's. Writes the outputs and returns their number, or 0 on error.
 */
typedef int f2b_check_build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in,
                            const void *context, f2b_tensor **out);

typedef struct f2b_check_case {
    const char *name;
    f2b_check_build *build;
    const void *context;
    int n_in;
    f2b_check_input in[F2B_CHECK_MAX_IN];
    double gradcheck_tolerance; /* 0: 1e-6 */
    double f32_tolerance;       /* 0: 1e-5, relative to the tensor's largest element */
    double bf16_tolerance;      /* 0: 2e-2, likewise */
    int more_nodes_on_device;   /* where a device makes of several ops what is one on the host: how many more */
} f2b_check_case;

/** Check one case, or a table of n, on the host. Fails the running cmocka test, naming the case. */
void f2b_check_op(const f2b_check_case *c);
void f2b_check_ops(const f2b_check_case *cases, size_t n);

/** A test file's main. */
#define F2B_CHECK_MAIN(name, ...)                                                                 \
    int main(void)                                                                                \
    {                                                                                             \
        const struct CMUnitTest tests[] = { __VA_ARGS__ };                                        \
        return cmocka_run_group_tests_name(name, tests, NULL, NULL);                              \
    }

/** Fail unless x (a float type, on the host) has n elements, each within tolerance * max(1, |want|)
 *  of want. */
void f2b_check_near(const f2b_tensor *x, const double *want, int64_t n, double tolerance);
/** The same for a gradient. */
void f2b_check_grad_near(const f2b_tensor *x, const double *want, int64_t n, double tolerance);

/** Fail unless `result` is NULL, the last status is `code` and the text contains `words`. */
void f2b_check_error(const void *result, f2b_status code, const char *words);

/** A leaf with the given values, converted to dtype; the caller frees it. */
f2b_tensor *f2b_check_leaf(f2b_dtype dtype, int ndim, const int64_t *shape, const double *values,
                           bool requires_grad);
/** The same with i32 values. */
f2b_tensor *f2b_check_index(int ndim, const int64_t *shape, const int32_t *values);

#endif
