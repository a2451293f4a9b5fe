/* f2b_sample_flops: LLaVA-1.5-7B's published floor, and a model small enough to count by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoints/model_folder.h"
#include "tests/support/step_flops.h"

static void floor_of_7b(void **state)
{
    (void)state;
    f2b_model_config m;
    assert_int_equal(f2b_model_config_load("configs/shapes/llava-1.5-7b", NULL, &m), F2B_OK);
    const f2b_sample_shape s = { .image = 604, .conversation = 216, .labelled = 100 };
    assert_float_equal(f2b_sample_flops(&m, 128, &s) * 1e-12, 23.6, 0.05);
    const f2b_sample_shape without = { 0 };
    assert_float_equal(f2b_sample_flops(&m, 128, &without), 0, 0);
}

/* One layer, d = q = 2, kv = 2, ff 3, vocabulary 5, r 1; one sequence of 4 rows, 2 of them labelled. */
static void by_hand(void **state)
{
    (void)state;
    const f2b_model_config m = { .text = { .hidden = 2,
                                           .intermediate = 3,
                                           .layers = 1,
                                           .heads = 1,
                                           .kv_heads = 1,
                                           .head_dim = 2,
                                           .vocab = 5 } };
    const double weights = 4 * (2 * 2) + 3 * (2 * 3), lora = 4 * (2 + 2) + 3 * (2 + 3);
    const double linear =
        2 * 4 * (2 * weights + 3 * lora); /* rows; forward and back; LoRA thrice */
    const double attention = 3.5 * (2 * 2 * 4 * 4 * 2 / 2.0); /* two products of 4 x 4 x 2, half */
    const double head = 2 * (2 * 2 * 2 * 5);
    const f2b_sample_shape s = { .conversation = 4, .labelled = 2 };
    assert_float_equal(f2b_sample_flops(&m, 1, &s), linear + attention + head, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(floor_of_7b), cmocka_unit_test(by_hand) };
    return cmocka_run_group_tests_name("step_flops", tests, NULL, NULL);
}
