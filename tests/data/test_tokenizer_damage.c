/* Damaged tokenizer files and hostile texts: refused or read, never a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "data/tokenizer/tokenizer_internal.h"
#include "data/tokenizer/wire.h"
#include "tests/data/tokenizer_fixture.h"

/* The small file's bytes; f2b_free. */
static unsigned char *small_bytes(size_t *n)
{
    char folder[64], path[PATH_MAX];
    make_folder(folder);
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    assert_int_equal(write_small(path), F2B_OK);
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = f2b_alloc_host(1 << 16, F2B_TAG_OTHER);
    *n = fread(bytes, 1, 1 << 16, file);
    assert_in_range(*n, 1000, (1 << 16) - 1);
    fclose(file);
    remove_folder(folder);
    return bytes;
}

static f2b_status parse(const unsigned char *bytes, size_t n)
{
    /* A copy of just this size, so that reading on is found. */
    unsigned char *copy = f2b_alloc_host(n, F2B_TAG_OTHER);
    memcpy(copy, bytes, n);
    f2b_tokenizer *t = f2b_calloc(1, sizeof *t, F2B_TAG_OTHER);
    const f2b_status status = f2bi_tokenizer_parse(t, "damaged.model", copy, n);
    f2b_free(copy);
    if (status == F2B_OK) {
        f2b_ids ids = { 0 };
        assert_int_equal(f2b_tokenizer_encode(t, "hello z\xFF</s>", 12, F2B_ENCODE_CONTROL, &ids),
                         F2B_OK);
        char *text = f2b_tokenizer_decode(t, ids.ids, ids.n);
        assert_non_null(text);
        f2b_free(text);
        f2b_ids_free(&ids);
    } else {
        assert_int_equal(status, F2B_ERR_FORMAT);
        assert_non_null(strstr(f2b_last_error(), "damaged.model"));
    }
    f2b_tokenizer_free(t);
    return status;
}

static void cut_anywhere(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = small_bytes(&n);
    const int64_t before = f2b_bytes_in_use(F2B_TAG_COUNT);
    assert_int_equal(parse(bytes, n), F2B_OK);
    for (size_t cut = 0; cut < n; cut++) (void)parse(bytes, cut);
    assert_int_equal(parse(bytes, 0), F2B_ERR_FORMAT);
    assert_int_equal(parse(bytes, n / 2), F2B_ERR_FORMAT);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), before);
    f2b_free(bytes);
}

static void bytes_changed(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = small_bytes(&n), *copy = f2b_alloc_host(n, F2B_TAG_OTHER);
    f2b_rng rng = f2b_rng_new(2, F2B_RNG_TEST, 0, 0, 0);
    int refused = 0;
    for (int round = 0; round < 3000; round++) {
        memcpy(copy, bytes, n);
        for (int i = 0; i <= round % 4; i++)
            copy[f2b_rng_below(&rng, n)] = (unsigned char)f2b_rng_below(&rng, 256);
        refused += parse(copy, n) != F2B_OK;
    }
    assert_in_range(refused, 500, 2999);        /* some changes only rename a piece */
    f2b_free(copy);
    f2b_free(bytes);
}

/* Appends a setting to the small file: the last one counts. */
static f2b_status with_setting(uint32_t spec, uint32_t field, uint64_t value)
{
    size_t n;
    unsigned char *bytes = small_bytes(&n);
    f2b_text file = { 0 }, message = { 0 };
    assert_int_equal(f2b_text_append(&file, (const char *)bytes, n), F2B_OK);
    assert_int_equal(f2bi_wire_put_varint(&message, field, value), F2B_OK);
    assert_int_equal(f2bi_wire_put_bytes(&file, spec, message.text, message.n), F2B_OK);
    const f2b_status status = parse((const unsigned char *)file.text, file.n);
    f2b_text_free(&file);
    f2b_text_free(&message);
    f2b_free(bytes);
    return status;
}

static void other_kinds_refused(void **state)
{
    (void)state;
    assert_int_equal(with_setting(2, 3, 2), F2B_OK);
    assert_int_equal(with_setting(2, 3, 1), F2B_ERR_FORMAT);            /* unigram */
    assert_non_null(strstr(f2b_last_error(), "BPE"));
    assert_int_equal(with_setting(2, 24, 1), F2B_ERR_FORMAT);           /* spaces as suffix */
    assert_int_equal(with_setting(2, 41, 5), F2B_ERR_FORMAT);           /* start is a byte piece */
    assert_int_equal(with_setting(2, 42, UINT64_MAX), F2B_ERR_FORMAT);  /* no end */
    assert_int_equal(with_setting(3, 5, 0), F2B_ERR_FORMAT);            /* spaces not marked */
    assert_int_equal(with_setting(2, 35, 0), F2B_OK); /* unknown piece, not bytes */
    assert_int_equal(with_setting(3, 4, 1), F2B_OK);                    /* spaces squeezed */
    assert_int_equal(with_setting(9, 9, 9), F2B_OK); /* unknown fields are skipped */
}

/* Any bytes encode, and decode to valid text of the same characters. */
static void hostile_texts(void **state)
{
    (void)state;
    static const char some[] = "aahelo \xE2\x96\x81\xF0";
    f2b_tokenizer *t = open_small(NULL);
    f2b_rng rng = f2b_rng_new(3, F2B_RNG_TEST, 0, 0, 0);
    for (int round = 0; round < 2000; round++) {
        const unsigned flags = (unsigned)round / 2 & 3;
        char text[64];
        const size_t n = f2b_rng_below(&rng, sizeof text);
        for (size_t i = 0; i < n; i++)
            text[i] = round % 2 ? (char)f2b_rng_below(&rng, 256) : some[f2b_rng_below(&rng, 11)];
        f2b_ids ids = { 0 }, again = { 0 };
        char *exact = f2b_alloc_host(n, F2B_TAG_OTHER);
        memcpy(exact, text, n);
        assert_int_equal(f2b_tokenizer_encode(t, exact, n, flags, &ids), F2B_OK);
        f2b_free(exact);
        f2b_decoder decoder = { 0 };
        f2b_text back = { 0 };
        for (int64_t i = 0; i < ids.n; i++)
            assert_int_equal(f2b_tokenizer_decode_next(t, &decoder, ids.ids[i], &back), F2B_OK);
        assert_int_equal(f2b_tokenizer_decode_end(&decoder, &back), F2B_OK);
        if (flags == F2B_ENCODE_PLAIN) {        /* what was decoded encodes to the same ids */
            assert_int_equal(f2b_tokenizer_encode(t, back.n > 0 ? back.text : "", back.n,
                                                  F2B_ENCODE_PLAIN, &again), F2B_OK);
            char *a = ids_text(ids.ids, ids.n), *b = ids_text(again.ids, again.n);
            assert_string_equal(a, b);
            f2b_free(a);
            f2b_free(b);
        }
        f2b_ids_free(&ids);
        f2b_ids_free(&again);
        f2b_text_free(&back);
    }
    f2b_tokenizer_free(t);
}

/* A megabyte without a space: merging is not quadratic. */
static void long_word(void **state)
{
    (void)state;
    f2b_tokenizer *t = open_small(NULL);
    const size_t n = 1 << 20;
    char *text = f2b_alloc_host(n, F2B_TAG_OTHER);
    memset(text, 'a', n);
    f2b_ids ids = { 0 };
    assert_int_equal(f2b_tokenizer_encode(t, text, n, F2B_ENCODE_CONTINUE, &ids), F2B_OK);
    assert_int_equal(ids.n, (int64_t)n / 3 + 1);        /* aaa ... aaa a */
    f2b_ids_free(&ids);
    f2b_free(text);
    f2b_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(bytes_changed),
        cmocka_unit_test(other_kinds_refused),
        cmocka_unit_test(hostile_texts),
        cmocka_unit_test(long_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
