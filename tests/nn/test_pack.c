/* Which rows of a pass have a gradient that somebody wants, which are computed once for all sequences, and
 * what names their dropout (pack.h); the rest of a pack is checked by what the steps compute with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/dropout_places.h"
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

/* ---- Rows that all sequences begin with ---- */

static const int32_t one[] = { 1, 5, 6, F2B_ROW_IMAGE, 7 }, two[] = { 1, 5, 6, 8, 9, 3 }, three[] = { 1, 5, 6, 8 };
#define NONE F2B_ROW_NO_LABEL

static f2b_pack shared_pack(f2b_tape *tape, const f2b_pack_item *items, int64_t n, bool share)
{
    const f2b_pack_options o = { .image_rows = 2, .summary_rows = 2, .share_prefix = share };
    f2b_pack pack;
    assert_int_equal(f2b_pack_build(tape, items, n, &o, &pack), F2B_OK);
    return pack;
}

static void holds(const f2b_tensor *t, int64_t n, const int32_t *values)
{
    assert_non_null(t);
    assert_int_equal(f2b_numel(t), n);
    assert_memory_equal(t->data, values, (size_t)n * sizeof *values);
}
#define HOLDS(t, ...)                                                                             \
    holds(t, sizeof((int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t), (int32_t[]){ __VA_ARGS__ })

static void what_all_begin_with_is_computed_once(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const f2b_pack_item items[] = {
        { .ids = one, .n = 5, .image = 1, .summary = true, .key = 4 },
        { .ids = three, .n = 4, .key = 5, .labels = (int32_t[]){ NONE, NONE, NONE, 8 } },
        { .ids = two, .n = 6, .key = 6, .labels = (int32_t[]){ NONE, NONE, NONE, NONE, 9, 3 } },
    };
    f2b_pack p = shared_pack(tape, items, 3, true);     /* the row before the label 8 is wanted */
    assert_int_equal(p.sequence_rows, 8 + 4 + 6);
    assert_int_equal(p.rows, 8 + 2 + 4);
    HOLDS(p.all.positions, 0, 1, 2, 3, 4, 5, 6, 7, 2, 3, 2, 3, 4, 5);
    HOLDS(p.all.layout.q_start, 0, 8, 10, 14);
    HOLDS(p.all.layout.limit, 1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 3, 4, 5, 6);
    HOLDS(p.all.layout.k_start, 0, 8, 12);
    HOLDS(p.all.layout.k_count, 8, 4, 6);
    HOLDS(p.all.layout.key_rows, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 8, 9, 0, 1, 10, 11, 12, 13);
    assert_int_equal(p.all.layout.shared, 2);
    HOLDS(p.wanted.index, 6, 7, 8, 11, 12);
    HOLDS(p.wanted.positions, 6, 7, 2, 3, 4);
    HOLDS(p.wanted.layout.key_rows, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 8, 9, 0, 1, 10, 11, 12, 13);
    uint64_t keys[8];
    f2b_pack_item_keys(&items[2], &(f2b_pack_options){ .image_rows = 2 }, keys);
    assert_memory_equal(p.all.row_keys + 10, keys + 2, 4 * sizeof *keys);
    assert_int_equal(p.wanted.row_keys[3], keys[3]);
    assert_int_equal(p.wanted.row_keys[0], f2b_dropout_row_key(4, 6));
    HOLDS(p.from, 0, 1, 0, 5, 0, 6, 1, 2, 1, 3, 0, 7, 2, 0, 2, 1, 0, 6, 0, 8, 0, 6, 0, 8, 0, 9, 0, 3);

    p = shared_pack(tape, items, 3, false);
    assert_int_equal(p.rows, 8 + 4 + 6);
    assert_null(p.all.layout.key_rows);
    assert_int_equal(p.all.layout.shared, 0);
    p = shared_pack(tape, items, 1, true);              /* nobody to share with */
    assert_null(p.all.layout.key_rows);
    const f2b_pack_item images[] = { { .ids = first, .n = 4, .summary = true },
                                     { .ids = first, .n = 4, .image = 1, .summary = true } };
    p = shared_pack(tape, images, 2, true);             /* an image is never in common */
    assert_int_equal(p.all.layout.shared, 1);
    f2b_tape_free(tape);
}

/* All of a sequence but its last row, and nothing where it would be a small part of the pack. */
static void how_much_is_shared(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    int32_t ids[200];
    for (int i = 0; i < 200; i++) ids[i] = i;
    f2b_pack_item items[3] = { { .ids = three, .n = 4 }, { .ids = three, .n = 4 }, { .ids = two, .n = 6 } };
    const f2b_pack_options last = { .last_row = true, .share_prefix = true };
    f2b_pack p;
    assert_int_equal(f2b_pack_build(tape, items, 3, &last, &p), F2B_OK);
    assert_int_equal(p.all.layout.shared, 3);
    HOLDS(p.wanted.index, 3, 4, 7);
    items[1] = (f2b_pack_item){ .ids = ids, .n = 200 };
    assert_int_equal(f2b_pack_build(tape, items, 2, &last, &p), F2B_OK);
    assert_int_equal(p.rows, 204);                      /* they begin with 1 and with 0 */
    items[0] = (f2b_pack_item){ .ids = ids, .n = 7 };
    assert_int_equal(f2b_pack_build(tape, items, 2, &last, &p), F2B_OK);
    assert_int_equal(p.all.layout.shared, 0);           /* 6 of 207 */
    items[0].n = 8;
    assert_int_equal(f2b_pack_build(tape, items, 2, &last, &p), F2B_OK);
    assert_int_equal(p.all.layout.shared, 7);           /* 7 of 208 */
    f2b_tape_free(tape);
}

/* The same text has the same names in all sequences, what comes after an image the sequence's own. */
static void text_names_its_dropout(void **state)
{
    (void)state;
    const f2b_pack_options o = { .image_rows = 2, .summary_rows = 2 };
    const f2b_pack_item items[] = { { .ids = one, .n = 5, .summary = true, .key = 4 },
                                    { .ids = one, .n = 5, .summary = true, .key = 5 },
                                    { .ids = two, .n = 6, .key = 4 }, { .ids = three, .n = 4, .key = 9 } };
    uint64_t keys[4][8] = { { 0 } };
    for (int i = 0; i < 4; i++) f2b_pack_item_keys(&items[i], &o, keys[i]);
    for (int row = 0; row < 8; row++) {
        assert_int_equal(keys[0][row] & 0xFFFFFF, row);
        assert_int_equal(keys[0][row] == keys[1][row], row < 3);
        assert_int_equal(keys[0][row] == keys[2][row], row < 3);
        assert_int_equal(keys[2][row] == keys[3][row], row < 4 || row > 5);
        if (row >= 3) assert_int_equal(keys[0][row], f2b_dropout_row_key(4, row));
    }
    assert_int_not_equal(keys[2][1] >> 24, keys[2][2] >> 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_trained_sources), cmocka_unit_test(what_all_begin_with_is_computed_once),
        cmocka_unit_test(how_much_is_shared), cmocka_unit_test(text_names_its_dropout),
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
