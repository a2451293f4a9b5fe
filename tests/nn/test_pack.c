/* Which rows of a pass have a gradient that somebody wants (pack.h); the rest of a pack is checked by what
 * the steps compute with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/pack.h"

enum { IMAGE_ROWS = 4, SUMMARIES = 2 };
static const int32_t first[] = { 1, F2B_ROW_IMAGE, 7, 8 }, second[] = { 1, 9, 9, F2B_ROW_IMAGE };

/* Two sequences of 4 ids, one an image of 4 rows, and 2 summary rows: 9 rows each. */
static f2b_pack packed(f2b_tape *tape, unsigned sources)
{
    const f2b_pack_item items[] = {
        { .ids = first, .n = 4, .summary = true, .key = 1 },
        { .ids = second, .n = 4, .image = 1, .summary = true, .key = 2 },
    };
    const f2b_pack_options options = { .image_rows = IMAGE_ROWS, .summary_rows = SUMMARIES,
                                       .grad_sources = sources };
    f2b_pack pack;
    assert_int_equal(f2b_pack_build(tape, items, 2, &options, &pack), F2B_OK);
    assert_int_equal(pack.rows, 2 * 9);
    return pack;
}

static void check(unsigned sources, int n, const int32_t *rows)
{
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const f2b_pack pack = packed(tape, sources);
    if (n == 0) {
        assert_null(pack.grad_rows);
    } else {
        assert_non_null(pack.grad_rows);
        assert_int_equal(f2b_numel(pack.grad_rows), n);
        assert_memory_equal(pack.grad_rows->data, rows, (size_t)n * sizeof *rows);
    }
    f2b_tape_free(tape);
}

static void rows_of_trained_sources(void **state)
{
    (void)state;
    const unsigned tokens = 1u << F2B_FROM_TOKENS, images = 1u << F2B_FROM_IMAGES;
    const unsigned summary = 1u << F2B_FROM_SUMMARY;
    check(summary, 4, (int32_t[]){ 7, 8, 16, 17 });
    check(images, 8, (int32_t[]){ 1, 2, 3, 4, 12, 13, 14, 15 });
    check(tokens, 6, (int32_t[]){ 0, 5, 6, 9, 10, 11 });
    check(images | summary, 0, NULL);       /* more than half: a list would save nothing */
    check(0, 0, NULL);                      /* nobody has said */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows_of_trained_sources) };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
