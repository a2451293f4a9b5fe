/* safetensors: the golden bytes, every rule of the format, and files that were cut or flipped. */
#include "tests/checkpoints/fixtures.h"

#include "checkpoints/safetensors.h"

static const uint8_t golden[] = {
    0x38, 0, 0, 0, 0, 0, 0, 0, '{', '"', 't', '"', ':', '{', '"', 'd', 't', 'y', 'p', 'e', '"', ':',
    '"', 'F', '3', '2', '"', ',', '"', 's', 'h', 'a', 'p', 'e', '"', ':', '[', '2', ']', ',', '"',
    'd', 'a', 't', 'a', '_', 'o', 'f', 'f', 's', 'e', 't', 's', '"', ':', '[', '0', ',', '8', ']',
    '}', '}', ' ', ' ', 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40,
};

static void writes_the_golden_bytes(void **state)
{
    (void)state;
    const float values[2] = { 1, 2 };
    const f2b_named_array t = { .name = "t", .dtype = F2B_F32, .ndim = 1, .shape = { 2 },
                                .data = values };
    assert_ok(f2b_safetensors_write(in_temp("t.safetensors"), &t, 1, NULL, 0));
    int64_t n;
    char *bytes = read_bytes(in_temp("t.safetensors"), &n);
    assert_int_equal(n, sizeof golden);
    assert_memory_equal(bytes, golden, sizeof golden);
    f2b_free(bytes);
}

static void reads_what_it_wrote(void **state)
{
    (void)state;
    const float f32[6] = { 1, 2, 3, 4, 5, 6 };
    const uint16_t bf16[3] = { 0x3f80, 0x4000, 0x4040 };
    const uint16_t f16[1] = { 0x3c00 };
    const f2b_named_array tensors[] = {
        { .name = "b \"quoted\" \xc3\xa9",
          .dtype = F2B_BF16,
          .ndim = 1,
          .shape = { 3 },
          .data = bf16 },
        { .name = "scalar", .dtype = F2B_F16, .ndim = 0, .data = f16 },
        { .name = "empty", .dtype = F2B_F32, .ndim = 2, .shape = { 0, 7 }, .data = f32 },
        { .name = "a", .dtype = F2B_F32, .ndim = 2, .shape = { 2, 3 }, .data = f32 },
    };
    const f2b_text_pair metadata = { "format", "pt" };
    const char *path = in_temp("x.safetensors");
    assert_ok(f2b_safetensors_write(path, tensors, 4, &metadata, 1));
    f2b_safetensors *file = f2b_safetensors_open(path);
    assert_non_null(file);
    assert_string_equal(f2b_safetensors_metadata(file, "format"), "pt");
    assert_null(f2b_safetensors_metadata(file, "none"));
    assert_int_equal(f2b_safetensors_count(file), 4);
    assert_string_equal(f2b_safetensors_at(file, 0)->name, "a");        /* wide types first */
    assert_string_equal(f2b_safetensors_at(file, 2)->type, "BF16");
    for (int i = 0; i < 4; ++i) {
        const f2b_safetensor *t = f2b_safetensors_find(file, tensors[i].name);
        assert_non_null(t);
        f2b_named_array array;
        assert_ok(f2b_safetensors_array(file, t, &array));
        assert_int_equal(array.dtype, tensors[i].dtype);
        assert_true(f2b_shape_equal(array.ndim, array.shape, tensors[i].ndim, tensors[i].shape));
        assert_memory_equal(array.data, tensors[i].data, (size_t)f2b_named_array_bytes(&array));
    }
    assert_null(f2b_safetensors_find(file, "absent"));
    f2b_safetensors_close(file);
}

static void refuses_to_write_bad_names(void **state)
{
    (void)state;
    const float x = 1;
    f2b_named_array two[2] = { { .name = "x", .dtype = F2B_F32, .data = &x },
                               { .name = "x", .dtype = F2B_F32, .data = &x } };
    assert_int_not_equal(f2b_safetensors_write(in_temp("x"), two, 2, NULL, 0), F2B_OK);
    assert_failed(F2B_ERR_INVALID, "two tensors", "x");
    two[0].name = "\xff";
    assert_int_not_equal(f2b_safetensors_write(in_temp("x"), two, 2, NULL, 0), F2B_OK);
    assert_failed(F2B_ERR_INVALID, "UTF-8", "x");
    assert_null(f2b_safetensors_open(in_temp("x")));
    assert_failed(F2B_ERR_NOT_FOUND, "cannot open", "x");
}

/* A file of this header and n bytes of data. */
static f2b_safetensors *open_header(const char *header, size_t data_bytes)
{
    static uint8_t bytes[4096];
    const size_t n = strlen(header);
    memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < 8; ++i) bytes[i] = (uint8_t)(n >> (8 * i));
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data_bytes; ++i) bytes[8 + n + i] = (uint8_t)i;
    write_bytes(in_temp("h.safetensors"), bytes, 8 + n + data_bytes);
    return f2b_safetensors_open(in_temp("h.safetensors"));
}

static void enforces_every_rule(void **state)
{
    (void)state;
    static const struct { const char *header; size_t data; const char *message;
    } cases[] = {
        { "", 0, "begin with '{'" },
        { " {}", 0, "begin with '{'" },
        { "{", 0, "not valid JSON" },
        { "{\"a\":1,\"a\":2}", 0, "duplicate" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}", 4,
          "duplicate" },
        { "{\"a\":5}", 0, "tensor a needs" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
          "nothing else" },
        { "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "F8_E4M3" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "dimension 0" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "dimension 0" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "no shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
          "9 dimensions" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two integers" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
          "before it begins" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
          "do not hold F32 [2]" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
          "do not hold" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,4]}}", 4,
          "do not hold" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[92233720368547758070],\"data_offsets\":[0,4]}}", 4,
          "not valid JSON" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
          4, "overlap" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
          "cut off or damaged" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3,
          "cut off or damaged" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\"" },
        { "{\"__metadata__\":[]}", 0, "not an object" },
        { "{}x", 0, "not valid JSON" },
        { "{\"a\\u0000b\":{}}", 0, "not valid JSON" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        f2b_clear_error();
        assert_null(open_header(cases[i].header, cases[i].data));
        assert_failed(F2B_ERR_FORMAT, cases[i].message, "h.safetensors");
    }
}

static void accepts_what_is_legal(void **state)
{
    (void)state;
    f2b_safetensors *file = open_header("{}  ", 0);
    assert_non_null(file);
    assert_int_equal(f2b_safetensors_count(file), 0);
    f2b_safetensors_close(file);

    /* Escapes, a type that only counts as listed, and data at an odd address. */
    file =
        open_header("{\"\\u0061\\u00e9\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9,13]},"
                    "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[1,9]},"
                    "\"u\":{\"shape\":[1],\"dtype\":\"U8\",\"data_offsets\":[0,1]}}",
                    13);
    assert_non_null(file);
    const f2b_safetensor *ids = f2b_safetensors_find(file, "ids");
    assert_string_equal(ids->type, "I64");
    f2b_named_array array;
    assert_int_equal(f2b_safetensors_array(file, ids, &array), F2B_ERR_DTYPE);
    assert_failed(F2B_ERR_DTYPE, "I64", "ids");
    const f2b_safetensor *a = f2b_safetensors_find(file, "a\xc3\xa9");
    assert_non_null(a);
    assert_int_equal((uintptr_t)a->data % 4, 0);
    assert_memory_equal(a->data, "\x09\x0a\x0b\x0c", 4);
    f2b_safetensors_close(file);
}

static void survives_cut_and_flipped_files(void **state)
{
    (void)state;
    const char *path = in_temp("cut.safetensors");
    for (size_t n = 0; n < sizeof golden; ++n) {
        write_bytes(path, golden, n);
        assert_null(f2b_safetensors_open(path));
        assert_failed(F2B_ERR_FORMAT, "cut.safetensors", "");
    }
    uint8_t bytes[sizeof golden];
    int opened = 0;
    for (size_t bit = 0; bit < 8 * sizeof golden; ++bit) {
        memcpy(bytes, golden, sizeof bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_bytes(path, bytes, sizeof bytes);
        f2b_safetensors *file = f2b_safetensors_open(path);
        if (!file) {
            assert_failed(F2B_ERR_FORMAT, "cut.safetensors", "");
            continue;
        }
        ++opened;       /* a flip in the data, in the name, or of F32 to another 4-byte type */
        assert_int_equal(f2b_safetensors_at(file, 0)->bytes, 8);
        f2b_safetensors_close(file);
    }
    assert_in_range(opened, 64, 80);
}

static void reports_a_huge_header(void **state)
{
    (void)state;
    const uint8_t bytes[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}' };
    write_bytes(in_temp("huge"), bytes, sizeof bytes);
    assert_null(f2b_safetensors_open(in_temp("huge")));
    assert_failed(F2B_ERR_FORMAT, "limit of 100000000", "huge");
    assert_null(f2b_safetensors_open(temp_folder));
    assert_failed(F2B_ERR_FORMAT, "regular file", temp_folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(writes_the_golden_bytes), F2B_CKPT_TEST(reads_what_it_wrote),
        F2B_CKPT_TEST(refuses_to_write_bad_names), F2B_CKPT_TEST(enforces_every_rule),
        F2B_CKPT_TEST(accepts_what_is_legal), F2B_CKPT_TEST(survives_cut_and_flipped_files),
        F2B_CKPT_TEST(reports_a_huge_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
