/* Running one case of check_op.h in one setting, and comparing what came out. For check_op.c. */
#ifndef F2B_TESTS_SUPPORT_CHECK_RUN_H
#define F2B_TESTS_SUPPORT_CHECK_RUN_H

#include "tests/support/check_op.h"

/** A case with its random inputs, [n_in] arrays as f64; they are exact in bf16 and f16. */
typedef struct f2bi_world {
    const f2b_check_case *c;
    f2b_device device;
    double *values[F2B_CHECK_MAX_IN];
} f2bi_world;

typedef struct f2bi_setting {
    f2b_dtype dtype;
    int passes;                 /* backward passes (0 is 1) */
    int uses;                   /* how often the op is applied to the same inputs (0 is 1) */
    int copies;                 /* by_row inputs come this often (0 is 1) */
    bool through_tape;          /* activations reach the op as tensors of the tape */
    bool forward_only;
    uint32_t frozen;            /* bit i: input i wants no gradient */
    bool stored;                /* input `stored_input` is held as `storage` */
    f2b_dtype storage;
    int stored_input;
    int nudged;                 /* element of this input is moved by nudge (unless that is 0) */
    int64_t element;
    double nudge;
} f2bi_setting;

typedef struct f2bi_values {
    f2b_dtype dtype;
    int64_t n;
    void *bytes;                /* NULL: there is none */
} f2bi_values;

typedef struct f2bi_result {
    int n_out;
    int64_t nodes;
    f2bi_values out[F2B_MAX_OUT], grad[F2B_CHECK_MAX_IN];
} f2bi_result;

f2bi_world *f2bi_world_new(const f2b_check_case *c, f2b_device device);
void f2bi_world_free(f2bi_world *w);

/** Whether input i is one that wants a gradient. */
bool f2bi_wants(const f2bi_world *w, int i);
/** The gradient that comes into output o, n elements; free with f2b_free. */
double *f2bi_upstream(const f2bi_world *w, int o, int64_t n);

/** Run; fails the test if the op does. Free the result with f2bi_result_free. */
void f2bi_run_case(const f2bi_world *w, f2bi_setting s, f2bi_result *r);
void f2bi_result_free(f2bi_result *r);
double f2bi_value(const f2bi_values *v, int64_t k);

/** Fail unless outputs and gradients (but for those of the inputs in `except`) have equal bits. */
void f2bi_same_bits(const f2bi_world *w, const char *what, const f2bi_result *a,
                    const f2bi_result *b, uint32_t except);
/** Fail unless got = factor * want within tolerance times the largest |want| (at least 0.01). */
void f2bi_near(const f2bi_world *w, const char *what, const f2bi_values *got,
               const f2bi_values *want, double factor, double tolerance);

#endif
