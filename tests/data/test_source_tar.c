/* Webdataset shards: header forms, sample rules, damaged archives. */
#include "tests/data/data_fixtures.h"

#include "data/source/source.h"

static f2b_source *open_shards(const char *name)
{
    const f2b_source_options o = { .role = F2B_SOURCE_CAPTIONS, .name = "captions[0]",
                                   .path = fixture_path(name) };
    return f2b_source_open(&o);
}

static void expect(const f2b_source *s, int64_t i, const char *fault, const char *image,
                   const char *caption, const char *content)
{
    f2b_record r = { 0 };
    assert_int_equal(f2b_source_read(s, i, &r), F2B_OK);
    assert_string_equal(f2b_fault_name(r.fault), fault);
    if (image != NULL) {
        assert_string_equal(r.image, image);
        assert_string_equal(r.caption, caption);
        uint8_t *bytes;
        int64_t n;
        assert_int_equal(f2b_source_image(s, &r, &bytes, &n), F2B_OK);
        assert_int_equal(n, strlen(content));
        assert_memory_equal(bytes, content, strlen(content));
        f2b_free(bytes);
    }
    f2b_record_clear(&r);
}

static fixture_tar tar;

static void samples_and_members(void **state)
{
    (void)state;
    tar.n = 0;
    tar_add(&tar, "__meta__", "skip", '0');
    tar_add(&tar, "./", "", '5');
    tar_add(&tar, "000000001.jpg", "IMAGE 1", '0');
    tar_add(&tar, "000000001.txt", "caption 1", '0');
    tar_add(&tar, "000000001.json", "{\"caption\": \"other\"}", '0');
    tar_add(&tar, "a.b/000000002.json", "{\"caption\": \"from json\"}", '0');
    tar_add(&tar, "a.b/000000002.PNG", "IMAGE 2", '\0');
    tar_add(&tar, "3.txt", "no image", '0');
    tar_add(&tar, "4.jpg", "no caption", '0');
    tar_add(&tar, "5.jpg", "one", '0');
    tar_add(&tar, "5.JPG", "two", '0');
    tar_add(&tar, "5.txt", "caption", '0');
    tar_add(&tar, "6.jpg", "x", '0');
    tar_add(&tar, "6.json", "{\"caption\": null}", '0');
    tar_add(&tar, "7.txt", "empty image", '0');
    tar_add(&tar, "7.jpg", "", '0');
    tar_write(&tar, "samples.tar");
    f2b_source *s = open_shards("samples.tar");
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 7);
    assert_string_equal(f2b_source_format(s), "webdataset");
    expect(s, 0, "ok", "000000001.jpg", "caption 1", "IMAGE 1");
    expect(s, 1, "ok", "a.b/000000002.PNG", "from json", "IMAGE 2");
    for (int i = 2; i < 6; i++) expect(s, i, "missing_member", NULL, NULL, NULL);
    f2b_record r = { 0 };
    uint8_t *bytes;
    int64_t n;
    assert_int_equal(f2b_source_read(s, 6, &r), F2B_OK);
    assert_int_equal(f2b_source_image(s, &r, &bytes, &n), F2B_OK);
    assert_string_equal(f2b_fault_name(r.fault), "broken_image");
    f2b_record_clear(&r);
    f2b_source_free(s);
}

static void header_forms(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'n', sizeof name);
    memcpy(name + 290, ".jpg", 5);
    tar.n = 0;
    tar_pax(&tar, "comment", "global", 'g');
    tar_pax(&tar, "mtime", "1700000000.1234567", 'x');
    tar_add(&tar, "1.jpg", "ONE", '0');
    tar_pax(&tar, "path", name, 'x');
    tar_add(&tar, "short.jpg", "LONG PAX", '0');
    memcpy(name + 290, ".txt", 5);
    tar_add(&tar, "././@LongLink", name, 'L');
    tar_add(&tar, "short.txt", "long gnu", '0');
    char *h = tar_header(&tar, "2.txt", 0, '0');            /* size in base 256 */
    memset(h + 124, 0, 12);
    h[124] = (char)0x80, h[135] = 5;
    tar_seal(h);
    tar_data(&tar, "seven", 5);
    h = tar_header(&tar, "2.jpg", 3, '0');                  /* ustar prefix */
    memcpy(h + 345, "deep/folder", 11);
    tar_seal(h);
    tar_data(&tar, "TWO", 3);
    tar_pax(&tar, "size", "4", 'x');                        /* a size that the header leaves at 0 */
    tar_seal(tar_header(&tar, "deep/folder/2.txt", 0, '0'));
    tar_data(&tar, "deep", 4);
    tar_write(&tar, "forms.tar");
    f2b_source *s = open_shards("forms.tar");
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 4);
    expect(s, 0, "missing_member", NULL, NULL, NULL);
    memcpy(name + 290, ".jpg", 5);
    expect(s, 1, "ok", name, "long gnu", "LONG PAX");
    expect(s, 2, "missing_member", NULL, NULL, NULL);
    expect(s, 3, "ok", "deep/folder/2.jpg", "deep", "TWO");
    f2b_source_free(s);
}

static void ranges_of_shards(void **state)
{
    (void)state;
    for (int i = 8; i < 12; i++) {
        char name[32], caption[32];
        tar.n = 0;
        for (int j = 0; j < i - 7; j++) {
            sprintf(name, "%d_%d.jpg", i, j);
            tar_add(&tar, name, "I", '0');
            sprintf(name, "%d_%d.txt", i, j);
            sprintf(caption, "caption %d %d", i, j);
            tar_add(&tar, name, caption, '0');
        }
        sprintf(name, "%02d.tar", i);
        tar_write(&tar, name);
    }
    f2b_source *s = open_shards("{08..11}.tar");
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 10);
    expect(s, 0, "ok", "8_0.jpg", "caption 8 0", "I");
    expect(s, 2, "ok", "9_1.jpg", "caption 9 1", "I");
    expect(s, 9, "ok", "11_3.jpg", "caption 11 3", "I");
    assert_true(f2b_source_image_key(s, 0) != f2b_source_image_key(s, 9));
    f2b_source_free(s);
    assert_null(open_shards("{08..12}.tar"));
    assert_int_equal(f2b_last_status(), F2B_ERR_NOT_FOUND);
    assert_non_null(strstr(f2b_last_error(), "12.tar"));
    static const char *const wrong[] = {
        "{8..}.tar", "{..9}.tar", "{9..8}.tar",           "{a..b}.tar",
        "8}.tar",    "{8..9.tar", "{0..99999999999}.tar", "{0..2000000}.tar"
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_null(open_shards(wrong[i]));
        assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
    }
}

/* What comes before the damage is used; the damage is one bad record. */
static void damage_is_a_bad_record(void **state)
{
    (void)state;
    tar.n = 0;
    for (int j = 0; j < 3; j++) {
        char name[32];
        sprintf(name, "%d.jpg", j);
        tar_add(&tar, name, "image", '0');
        sprintf(name, "%d.txt", j);
        tar_add(&tar, name, "caption", '0');
    }
    fixture_write("cut.tar", tar.bytes, 4 * 1024 + 1024 + 300);     /* within a header of 2 */
    f2b_source *s = open_shards("cut.tar");
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 4);
    expect(s, 0, "ok", "0.jpg", "caption", "image");
    expect(s, 1, "ok", "1.jpg", "caption", "image");
    expect(s, 2, "missing_member", NULL, NULL, NULL);
    expect(s, 3, "damaged_archive", NULL, NULL, NULL);
    f2b_source_free(s);
    tar.bytes[2048 + 3] ^= 1;                                       /* a header's name: checksum */
    tar_write(&tar, "flip.tar");
    s = open_shards("flip.tar");
    assert_int_equal(f2b_source_count(s), 2);
    expect(s, 0, "ok", "0.jpg", "caption", "image");
    expect(s, 1, "damaged_archive", NULL, NULL, NULL);
    f2b_source_free(s);
    fixture_text("text.tar", "this is not an archive");
    s = open_shards("text.tar");
    assert_int_equal(f2b_source_count(s), 1);
    expect(s, 0, "damaged_archive", NULL, NULL, NULL);
    f2b_source_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_and_members), cmocka_unit_test(header_forms),
        cmocka_unit_test(ranges_of_shards), cmocka_unit_test(damage_is_a_bad_record),
    };
    return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
