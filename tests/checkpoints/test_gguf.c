/* The GGUF reader: what a file holds, and every way in which one can lie. */
#include "tests/checkpoints/fixtures.h"

#include <unistd.h>

#include "checkpoints/gguf.h"

/* A file in the making. */
typedef struct maker {
    uint8_t bytes[4096];
    size_t n;
} maker;

static void put(maker *m, const void *data, size_t n)
{
    assert_true(m->n + n <= sizeof m->bytes);
    memcpy(m->bytes + m->n, data, n);
    m->n += n;
}
static void put_u32(maker *m, uint32_t x) { put(m, &x, sizeof x); }
static void put_u64(maker *m, uint64_t x) { put(m, &x, sizeof x); }
static void put_text(maker *m, const char *text)
{
    put_u64(m, strlen(text));
    put(m, text, strlen(text));
}
static void pad(maker *m, size_t to)
{
    while (m->n % to != 0) put(m, "", 1);
}

static void put_header(maker *m, uint64_t tensors, uint64_t keys)
{
    m->n = 0;
    put(m, "GGUF", 4);
    put_u32(m, 3);
    put_u64(m, tensors);
    put_u64(m, keys);
}

static void put_tensor(maker *m, const char *name, uint32_t ndim, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    put_text(m, name);
    put_u32(m, ndim);
    for (uint32_t i = 0; i < ndim; i++) put_u64(m, ne[i]);
    put_u32(m, type);
    put_u64(m, offset);
}

/* Every type of value, an f32 matrix [2, 3], a Q8_0 vector of 32 and an f16 scalar. */
static void put_sample(maker *m)
{
    put_header(m, 3, 6);
    put_text(m, "general.architecture"), put_u32(m, 8), put_text(m, "llama");
    put_text(m, "adapter.lora.alpha"), put_u32(m, 6), put(m, &(float){ 32.5f }, 4);
    put_text(m, "small"), put_u32(m, 3), put(m, &(int16_t){ -7 }, 2);
    put_text(m, "yes"), put_u32(m, 7), put(m, &(uint8_t){ 1 }, 1);
    put_text(m, "words"), put_u32(m, 9), put_u32(m, 8), put_u64(m, 2);
    put_text(m, "a"), put_text(m, "");
    put_text(m, "many"), put_u32(m, 9), put_u32(m, 10), put_u64(m, 3);
    for (uint64_t i = 0; i < 3; i++) put_u64(m, UINT64_MAX - i);
    put_tensor(m, "blk.0.w", 2, (uint64_t[]){ 3, 2 }, 0, 0);
    put_tensor(m, "q", 1, (uint64_t[]){ 32 }, 8, 32);
    put_tensor(m, "scalar", 0, NULL, 1, 96);
    pad(m, 32);
    put(m, (float[]){ 1, 2, 3, 4, 5, 6 }, 24);
    pad(m, 32);
    for (int i = 0; i < 34; i++) put(m, &(uint8_t){ (uint8_t)i }, 1);
    pad(m, 32);
    put(m, &(uint16_t){ 0x3c00 }, 2);
}

static f2b_gguf *open_bytes(const maker *m)
{
    write_bytes(in_temp("x.gguf"), m->bytes, m->n);
    return f2b_gguf_open(in_temp("x.gguf"));
}

static void test_contents(void **state)
{
    (void)state;
    static maker m;
    put_sample(&m);
    f2b_gguf *f = open_bytes(&m);
    if (f == NULL) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_gguf_keys(f), 6);
    assert_string_equal(f2b_gguf_key(f, 1), "adapter.lora.alpha");
    const f2b_gguf_value *v = f2b_gguf_find(f, "general.architecture");
    assert_int_equal(v->as.text.n, 5);
    assert_memory_equal(v->as.text.bytes, "llama", 5);
    assert_true(f2b_gguf_find(f, "adapter.lora.alpha")->as.f == 32.5);
    assert_int_equal(f2b_gguf_find(f, "small")->as.i, -7);
    assert_int_equal(f2b_gguf_find(f, "yes")->as.u, 1);
    assert_null(f2b_gguf_find(f, "no"));
    v = f2b_gguf_find(f, "words");
    const void *at = v->as.array.first;
    assert_memory_equal(f2b_gguf_next(v, &at).as.text.bytes, "a", 1);
    assert_int_equal(f2b_gguf_next(v, &at).as.text.n, 0);
    v = f2b_gguf_find(f, "many");
    at = v->as.array.first;
    for (uint64_t i = 0; i < 3; i++) assert_true(f2b_gguf_next(v, &at).as.u == UINT64_MAX - i);

    assert_int_equal(f2b_gguf_tensors(f), 3);
    const f2b_gguf_tensor *t = f2b_gguf_tensor_find(f, "blk.0.w");
    assert_true(t->ndim == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->dtype == F2B_F32);
    assert_memory_equal(t->data, ((float[]){ 1, 2, 3, 4, 5, 6 }), 24);
    t = f2b_gguf_tensor_at(f, 1);
    assert_true(t->bytes == 34 && t->dtype == -1 && strcmp(t->type, "Q8_0") == 0);
    assert_int_equal(((const uint8_t *)t->data)[33], 33);
    t = f2b_gguf_tensor_find(f, "scalar");
    assert_true(t->ndim == 0 && t->bytes == 2 && *(const uint16_t *)t->data == 0x3c00);
    f2b_gguf_close(f);
}

static void test_cut_anywhere(void **state)
{
    (void)state;
    static maker m;
    put_sample(&m);
    const size_t whole = m.n;
    for (m.n = 0; m.n < whole; m.n++) {
        f2b_gguf *f = open_bytes(&m);
        assert_null(f);
        assert_int_equal(f2b_last_status(), F2B_ERR_FORMAT);
    }
    m.n = whole;
    put(&m, "", 1);
    pad(&m, 32); /* the padding of the last tensor */
    f2b_gguf *f = open_bytes(&m);
    assert_non_null(f);
    f2b_gguf_close(f);
    put(&m, "", 1);
    assert_null(open_bytes(&m));
    assert_failed(F2B_ERR_FORMAT, "x.gguf", "1 bytes follow");
}

/* Any byte may be anything: the reader refuses, or every pointer it gives can be read. */
static void test_any_byte(void **state)
{
    (void)state;
    static maker m;
    put_sample(&m);
    volatile uint8_t seen = 0;
    for (size_t i = 0; i < m.n; i++) {
        static const uint8_t values[] = { 0x00, 0xff, 0x7f, 0x80, 0x01 };
        for (size_t k = 0; k < sizeof values; k++) {
            const uint8_t before = m.bytes[i];
            m.bytes[i] = values[k];
            f2b_gguf *f = open_bytes(&m);
            for (int64_t t = 0; f != NULL && t < f2b_gguf_tensors(f); t++) {
                const f2b_gguf_tensor *x = f2b_gguf_tensor_at(f, t);
                for (int64_t b = 0; b < x->bytes; b++)
                    seen = (uint8_t)(seen + ((const uint8_t *)x->data)[b]);
            }
            for (int64_t p = 0; f != NULL && p < f2b_gguf_keys(f); p++) {
                const f2b_gguf_value *v = f2b_gguf_value_at(f, p);
                const void *at = v->type == F2B_GGUF_ARRAY ? v->as.array.first : NULL;
                for (int64_t e = 0; at != NULL && e < v->as.array.n; e++) {
                    const f2b_gguf_value element = f2b_gguf_next(v, &at);
                    if (element.type == F2B_GGUF_STRING && element.as.text.n > 0)
                        seen = (uint8_t)(seen + element.as.text.bytes[element.as.text.n - 1]);
                }
            }
            f2b_gguf_close(f);
            m.bytes[i] = before;
        }
    }
}

static void refuse(const maker *m, const char *piece, const char *piece2)
{
    assert_null(open_bytes(m));
    assert_failed(F2B_ERR_FORMAT, piece, piece2);
}

static void one_key(maker *m, const char *name, uint32_t type, uint64_t bits, size_t bytes)
{
    put_text(m, name);
    put_u32(m, type);
    put(m, &bits, bytes);
}

static void test_lies(void **state)
{
    (void)state;
    static maker m;
    put_sample(&m);
    m.bytes[4] = 2;
    refuse(&m, "x.gguf", "version 2");
    m.bytes[0] = 'g';
    refuse(&m, "x.gguf", "GGUF");
    put_header(&m, 0, 2), one_key(&m, "a", 0, 1, 1), one_key(&m, "a", 0, 1, 1);
    refuse(&m, "key a", "twice");
    put_header(&m, 0, 1), one_key(&m, "a", 13, 0, 1);
    refuse(&m, "key a", "unknown type 13");
    put_header(&m, 0, 1), one_key(&m, "a", 7, 2, 1);
    refuse(&m, "key a", "boolean of 2");
    put_header(&m, 0, 1), one_key(&m, "a", 8, UINT64_MAX, 8);
    refuse(&m, "a at byte", "beyond");
    put_header(&m, 0, 1), one_key(&m, "a", 9, 9, 4), put_u64(&m, 0);
    refuse(&m, "key a", "array of arrays");
    put_header(&m, 0, 1), one_key(&m, "a", 9, 10, 4), put_u64(&m, UINT64_MAX / 8 + 2);
    refuse(&m, "a at byte", "beyond");
    put_header(&m, 0, 1), one_key(&m, "", 0, 0, 1), put_u64(&m, 0);
    refuse(&m, "key", "empty");
    put_header(&m, 0, 1), one_key(&m, "general.alignment", 4, 24, 4);
    refuse(&m, "general.alignment", "power of two");
    put_header(&m, UINT64_MAX, 0);
    refuse(&m, "number of tensors", "beyond");

    put_header(&m, 1, 0), put_tensor(&m, "t", 2, (uint64_t[]){ 1ull << 40, 1ull << 40 }, 0, 0);
    refuse(&m, "tensor t", "cannot have the shape");
    put_header(&m, 1, 0), put_tensor(&m, "t", 1, (uint64_t[]){ UINT64_MAX }, 0, 0);
    refuse(&m, "tensor t", "cannot have the shape");
    put_header(&m, 1, 0), put_tensor(&m, "t", 1, (uint64_t[]){ 33 }, 8, 0);
    refuse(&m, "tensor t", "Q8_0");
    put_header(&m, 1, 0), put_tensor(&m, "t", 1, (uint64_t[]){ 1 }, 4, 0);
    refuse(&m, "tensor t", "unknown type 4");
    put_header(&m, 1, 0), put_tensor(&m, "t", 5, (uint64_t[]){ 1, 1, 1, 1, 1 }, 0, 0);
    refuse(&m, "tensor t", "5 dimensions");
    put_header(&m, 1, 0), put_tensor(&m, "t", 1, (uint64_t[]){ 1 }, 0, 32), pad(&m, 32);
    put(&m, (float[9]){ 0 }, 36);
    refuse(&m, "tensor t", "begins at byte 32");
    put_header(&m, 2, 0), put_tensor(&m, "t", 1, (uint64_t[]){ 1 }, 0, 0);
    put_tensor(&m, "t", 1, (uint64_t[]){ 1 }, 0, 32), pad(&m, 32), put(&m, (float[9]){ 0 }, 36);
    refuse(&m, "tensor t", "twice");
    put_header(&m, 1, 0);
    put_tensor(&m, "a name of sixty-four bytes, which is one more than ggml can hold", 0, NULL, 0, 0);
    refuse(&m, "longer than 63", "a name of sixty-four");
    assert_null(f2b_gguf_open(in_temp("none.gguf")));
    assert_int_equal(f2b_last_status(), F2B_ERR_NOT_FOUND);
    assert_null(f2b_gguf_open(temp_folder));
    assert_int_equal(f2b_last_status(), F2B_ERR_FORMAT);
}

/* ---- Writing ---- */

static void test_written_and_read(void **state)
{
    (void)state;
    const f2b_gguf_pair pairs[] = {
        { "text", f2b_gguf_text("llama") }, { "u32", f2b_gguf_u32(7) },
        { "f32", f2b_gguf_f32(0.25f) },
        { "i8", { .type = F2B_GGUF_I8, .as.i = -3 } },
        { "i64", { .type = F2B_GGUF_I64, .as.i = INT64_MIN } },
        { "bool", { .type = F2B_GGUF_BOOL, .as.u = 1 } },
        { "f64", { .type = F2B_GGUF_F64, .as.f = 0.1 } },
        { "u16", { .type = F2B_GGUF_U16, .as.u = 65535 } },
    };
    const float a[6] = { 1, 2, 3, 4, 5, 6 };
    const uint16_t b[3] = { 7, 8, 9 };
    const int32_t c = -11;
    const f2b_named_array tensors[] = {
        { "a", F2B_F32, 2, { 2, 3 }, a }, { "b", F2B_BF16, 1, { 3 }, b },
        { "none", F2B_F16, 2, { 0, 4 }, b }, { "c", F2B_I32, 0, { 0 }, &c },
    };
    assert_int_equal(f2b_gguf_write(in_temp("x.gguf"), pairs, 8, tensors, 4), F2B_OK);
    f2b_gguf *f = f2b_gguf_open(in_temp("x.gguf"));
    if (!f) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_gguf_keys(f), 8);
    assert_memory_equal(f2b_gguf_find(f, "text")->as.text.bytes, "llama", 5);
    assert_int_equal(f2b_gguf_find(f, "u32")->as.u, 7);
    assert_true(f2b_gguf_find(f, "f32")->as.f == 0.25);
    assert_int_equal(f2b_gguf_find(f, "i8")->as.i, -3);
    assert_true(f2b_gguf_find(f, "i64")->as.i == INT64_MIN);
    assert_int_equal(f2b_gguf_find(f, "bool")->as.u, 1);
    assert_true(f2b_gguf_find(f, "f64")->as.f == 0.1);
    assert_int_equal(f2b_gguf_find(f, "u16")->as.u, 65535);
    assert_int_equal(f2b_gguf_tensors(f), 4);
    for (int i = 0; i < 4; i++) {
        const f2b_gguf_tensor *t = f2b_gguf_tensor_at(f, i);
        assert_string_equal(t->name, tensors[i].name);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_true(f2b_shape_equal(t->ndim, t->shape, tensors[i].ndim, tensors[i].shape));
        assert_memory_equal(t->data, tensors[i].data, (size_t)t->bytes);
    }
    f2b_gguf_close(f);
}

static void test_what_gguf_cannot_hold(void **state)
{
    (void)state;
    char name[65] = "";
    memset(name, 'x', 64);
    const float a[1] = { 1 };
    const f2b_named_array good = { "a", F2B_F32, 1, { 1 }, a };
    f2b_named_array bad[3] = { good, good, good };
    bad[0].name = name, bad[1].ndim = 5, bad[2].dtype = F2B_U8;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(f2b_gguf_write(in_temp("x.gguf"), NULL, 0, &bad[i], 1), F2B_ERR_INVALID);
        assert_failed(F2B_ERR_INVALID, "does not fit", bad[i].name);
    }
    const f2b_named_array twice[2] = { good, good };
    assert_int_equal(f2b_gguf_write(in_temp("x.gguf"), NULL, 0, twice, 2), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "two tensors are named a", "");
    const f2b_gguf_pair keys[2] = { { "k", f2b_gguf_u32(1) }, { "k", f2b_gguf_u32(2) } };
    assert_int_equal(f2b_gguf_write(in_temp("x.gguf"), keys, 2, &good, 1), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "key k is there twice", "");
    const f2b_gguf_pair array = { "k", { .type = F2B_GGUF_ARRAY } };
    assert_int_equal(f2b_gguf_write(in_temp("x.gguf"), &array, 1, &good, 1), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "key k is no scalar", "");
    assert_int_equal(access(in_temp("x.gguf"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(test_contents), F2B_CKPT_TEST(test_cut_anywhere),
        F2B_CKPT_TEST(test_any_byte), F2B_CKPT_TEST(test_lies),
        F2B_CKPT_TEST(test_written_and_read), F2B_CKPT_TEST(test_what_gguf_cannot_hold),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
