/* exp, sigmoid and erf of vector_math.h against f64, over a comb of all f32 values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "autograd/device/cpu/vector_math.h"

/* Distance in units of the last place of the f32 nearest to `want`. */
static double ulps(float got, double want)
{
    const float nearest = (float)want;
    if (isinf(nearest) || nearest == 0) return got == nearest ? 0 : INFINITY;
    int exponent;
    (void)frexp(want, &exponent);
    return fabs(got - want) / fmax(ldexp(1, exponent - 24), 0x1p-149);
}

static void errors_are_within_the_stated_ulps(void **state)
{
    (void)state;
    double worst_exp = 0, worst_erf = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 1021) {
        const float x = f2bi_float_of_bits((uint32_t)bits);
        if (isnan(x)) {
            assert_true(isnan(f2b_expf_fast(x)) && isnan(f2b_erff_fast(x)));
            continue;
        }
        worst_exp = fmax(worst_exp, ulps(f2b_expf_fast(x), exp((double)x)));
        worst_erf = fmax(worst_erf, ulps(f2b_erff_fast(x), erf((double)x)));
    }
    assert_true(worst_exp < 1.1);
    assert_true(worst_erf < 1.3);
}

static void the_rough_one_is_near(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 1021) {
        const float x = f2bi_float_of_bits((uint32_t)bits), got = f2b_expf_rough(x);
        if (isnan(x)) {
            assert_true(isnan(got));
            continue;
        }
        const double want = exp(fmin(fmax(x, -87), 88));
        assert_true(fabs(got - want) <= (fabsf(x) <= 20 ? 3e-6 : 1e-5) * want);
    }
    assert_true(f2b_expf_rough(0) == 1);
}

static void sigmoids_are_near(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 1021) {
        const float x = f2bi_float_of_bits((uint32_t)bits);
        const float fast = f2b_sigmoidf_fast(x), rough = f2b_sigmoidf_rough(x);
        if (isnan(x)) {
            assert_true(isnan(fast) && isnan(rough));
            continue;
        }
        const double want = 1 / (1 + exp(-fmax(x, -87)));
        worst = fmax(worst, ulps(fast, want));
        assert_true(fabs(rough - want) <= (x >= -20 ? 4e-6 : 1e-5) * want);
    }
    print_message("[   ulps   ] sigmoid %.2f\n", worst);
    assert_true(worst < 3);
    assert_true(f2b_sigmoidf_fast(0) == 0.5f && f2b_sigmoidf_rough(0) == 0.5f);
    assert_true(f2b_sigmoidf_fast(INFINITY) == 1 && f2b_sigmoidf_fast(-INFINITY) < 2e-38f);
}

static void the_ends_are_exact(void **state)
{
    (void)state;
    assert_true(f2b_expf_fast(-INFINITY) == 0 && f2b_expf_fast(-1e30f) == 0);
    assert_true(isinf(f2b_expf_fast(INFINITY)) && isinf(f2b_expf_fast(88.8f)));
    assert_true(f2b_expf_fast(0) == 1 && f2b_expf_fast(-100) > 0);
    assert_true(f2b_erff_fast(INFINITY) == 1 && f2b_erff_fast(-INFINITY) == -1);
    assert_true(f2b_erff_fast(0) == 0 && f2b_erff_fast(9) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_within_the_stated_ulps), cmocka_unit_test(sigmoids_are_near),
        cmocka_unit_test(the_ends_are_exact),
        cmocka_unit_test(the_rough_one_is_near),
    };
    return cmocka_run_group_tests_name("vector_math", tests, NULL, NULL);
}
