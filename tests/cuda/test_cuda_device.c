/*
 * The CUDA device itself, under emulation: updates that are not nodes (adamw, grad_norm, rows_store)
 * against the CPU, bad indices, memory that is kept, and what is said where something is missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "autograd/core/profile.h"
#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/device/readings.h"
#include "autograd/ops/adamw/adamw.h"
#include "autograd/ops/grad_norm/grad_norm.h"
#include "autograd/ops/mul/mul.h"
#include "autograd/ops/random_fill/random_fill.h"
#include "autograd/ops/rows/rows.h"
#include "autograd/ops/rows_store/rows_store.h"
#include "tests/emulation/emulation.h"

static const f2b_device cuda = { F2B_CUDA, 0 };
#define SHAPE(...) ((int64_t[]){ __VA_ARGS__ })

static f2b_tensor *leaf(f2b_device device, f2b_dtype dtype, int ndim, const int64_t *shape,
                        const void *values)
{
    f2b_tensor *x = f2b_tensor_new(device, dtype, ndim, shape, F2B_TAG_OTHER);
    if (x == NULL || f2b_tensor_write(x, values) != F2B_OK) fail_msg("%s", f2b_last_error());
    return x;
}

static void random_values(float *v, int64_t n, uint64_t seed)
{
    f2b_rng r = f2b_rng_new(seed, F2B_RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < n; i++) v[i] = 2 * f2b_rng_uniform(&r) - 1;
}

/* A trained tensor of n elements with a gradient. */
static f2b_tensor *trained(f2b_device device, int64_t n, uint64_t seed)
{
    static float values[20000];
    random_values(values, n, seed);
    f2b_tensor *x = leaf(device, F2B_F32, 1, &n, values);
    x->requires_grad = true;
    assert_int_equal(f2b_tensor_zero_grad(x), F2B_OK);
    random_values(values, n, seed + 1);
    assert_int_equal(f2b_copy(x->grad, device, values, F2B_HOST, (size_t)n * 4), F2B_OK);
    return x;
}

static void adamw(void **state)
{
    (void)state;
    const int64_t sizes[] = { 1, 255, 4097 };
    for (int s = 0; s < 3; s++) {
        const int64_t n = sizes[s];
        float got[2][4097];
        for (int d = 0; d < 2; d++) {
            const f2b_device device = d == 0 ? F2B_HOST : cuda;
            f2b_tensor *p = trained(device, n, 5);
            f2b_tensor *m = f2b_tensor_new(device, F2B_F32, 1, &n, F2B_TAG_OPTIMIZER);
            f2b_tensor *v = f2b_tensor_new(device, F2B_F32, 1, &n, F2B_TAG_OPTIMIZER);
            assert_int_equal(f2b_zero(m->data, device, f2b_tensor_bytes(m)), F2B_OK);
            assert_int_equal(f2b_zero(v->data, device, f2b_tensor_bytes(v)), F2B_OK);
            double *norm = f2b_alloc(device, sizeof *norm, F2B_TAG_SCRATCH);
            const double four = 4;
            assert_int_equal(f2b_copy(norm, device, &four, F2B_HOST, sizeof four), F2B_OK);
            f2b_adamw a = { 1e-2, 0.9, 0.999, 1e-8, 0.1, norm, 2, 0, true, -0.5 };
            for (a.count = 1; a.count <= 3; a.count++)
                assert_int_equal(f2b_adamw_update(p, m, v, &a), F2B_OK);
            assert_int_equal(f2b_tensor_read(p, got[d]), F2B_OK);
            f2b_free(norm);
            f2b_tensor_free(p), f2b_tensor_free(m), f2b_tensor_free(v);
        }
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(got[0][i] - got[1][i]) <= 1e-6f)) fail_msg("element %d differs", (int)i);
    }
}

static double norm_of(f2b_device device, f2b_tensor *const *x, int64_t n, const double *watched,
                      int64_t n_watched)
{
    f2b_readings *r = f2b_readings_new(device);
    int64_t number;
    double *place;
    for (int64_t i = 0; i < n_watched; i++) {
        assert_int_equal(f2b_readings_place(r, &place, &number), F2B_OK);
        assert_int_equal(f2b_copy(place, device, &watched[i], F2B_HOST, sizeof *watched), F2B_OK);
    }
    assert_int_equal(f2b_readings_place(r, &place, &number), F2B_OK);
    assert_int_equal(f2b_grad_norm(device, x, n, r->there, n_watched, place), F2B_OK);
    const f2b_status status = f2b_readings_fetch(r);
    assert_true(status == F2B_OK || status == F2B_ERR_DATA);
    const double norm = f2b_readings_at(r, number);
    f2b_readings_free(r);
    return norm;
}

static void grad_norm(void **state)
{
    (void)state;
    const double losses[] = { 3, 1e300, INFINITY };
    double norm[2];
    for (int d = 0; d < 2; d++) {
        const f2b_device device = d == 0 ? F2B_HOST : cuda;
        f2b_tensor *all[] = { trained(device, 1, 1), trained(device, 20000, 2), trained(device, 300, 3) };
        f2b_free(all[2]->grad);
        all[2]->grad = NULL;
        norm[d] = norm_of(device, all, 3, losses, 2);
        assert_true(isnan(norm_of(device, all, 3, losses, 3)));
        assert_true(norm_of(device, all, 0, NULL, 0) == 0);
        for (int i = 0; i < 3; i++) f2b_tensor_free(all[i]);
    }
    assert_true(norm[0] > 70 && fabs(norm[0] - norm[1]) <= 1e-9 * norm[0]);
}

/* Many numbers of several kinds, and one wait for all of them. */
static void readings(void **state)
{
    (void)state;
    f2b_readings *r = f2b_readings_new(cuda);
    const int64_t waits = f2b_emulation_read_counts().waits;
    for (int i = 0; i < 150; i++) {
        const float value = (float)i / 8;
        int64_t number;
        f2b_tensor *x = leaf(cuda, F2B_F32, 1, SHAPE(1), &value);
        assert_int_equal(f2b_readings_add(r, x, &number), F2B_OK);
        assert_int_equal(number, i);
        f2b_tensor_free(x);
    }
    assert_int_equal(f2b_emulation_read_counts().waits, waits);
    assert_int_equal(f2b_readings_fetch(r), F2B_OK);
    assert_int_equal(f2b_emulation_read_counts().waits, waits + 1);
    for (int i = 0; i < 150; i++) assert_true(f2b_readings_at(r, i) == (double)i / 8);
    f2b_readings_free(r);
}

/* The same numbers as on the host, but for the last bit of a logarithm or a cosine. */
static void random_fill(void **state)
{
    (void)state;
    enum { N = 1003 };
    static const f2b_dtype types[] = { F2B_F32, F2B_BF16, F2B_F16 };
    const f2b_rng stream = f2b_rng_new(5, F2B_RNG_INIT, 7, 0, 0);
    for (int kind = 0; kind < 3; kind++)
        for (int t = 0; t < 3; t++) {
            const f2b_init init = { (f2b_init_kind)kind, 0.5 };
            float got[2][N];
            for (int d = 0; d < 2; d++) {
                uint8_t bytes[4 * N];
                f2b_tensor *x = f2b_tensor_new(d == 0 ? F2B_HOST : cuda, types[t], 1, SHAPE(N), F2B_TAG_OTHER);
                assert_int_equal(f2b_random_fill(x, init, &stream), F2B_OK);
                assert_int_equal(f2b_tensor_read(x, bytes), F2B_OK);
                f2b_convert(got[d], F2B_F32, bytes, types[t], N);
                f2b_tensor_free(x);
            }
            assert_memory_equal(got[0], got[1], sizeof got[0]);    /* emulated: the same library */
        }
}

/* The last of equal entries wins, in every order of blocks; an entry outside is told by number. */
static void rows_store(void **state)
{
    (void)state;
    const float zeros[15] = { 0 }, x[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    const int32_t at[] = { 4, 1, 4 }, bad[] = { 0, 5, 9 };
    f2b_tape *tape = f2b_tape_new(cuda);
    f2b_tensor *rows = leaf(cuda, F2B_F32, 2, SHAPE(3, 3), x);
    f2b_tensor *good = leaf(cuda, F2B_I32, 1, SHAPE(3), at), *outside = leaf(cuda, F2B_I32, 1, SHAPE(3), bad);
    for (int order = 0; order < F2B_EMULATION_ORDERS; order++) {
        f2b_emulation_set_order((f2b_emulation_order)order, 3);
        f2b_tensor *dst = leaf(cuda, F2B_F32, 2, SHAPE(5, 3), zeros);
        float got[15];
        assert_int_equal(f2b_rows_store(tape, dst, good, rows), F2B_OK);
        assert_int_equal(f2b_tensor_read(dst, got), F2B_OK);
        const float want[15] = { 0, 0, 0, 4, 5, 6, 0, 0, 0, 0, 0, 0, 7, 8, 9 };
        assert_memory_equal(got, want, sizeof got);
        assert_int_equal(f2b_rows_store(tape, dst, outside, rows), F2B_OK);
        assert_int_equal(f2b_tensor_read(dst, got), F2B_ERR_DATA);
        assert_non_null(strstr(f2b_last_error(), "rows_store: entry 1 is out of range (found on cuda:0)"));
        assert_int_equal(f2b_device_wait(cuda), F2B_OK);        /* told once */
        f2b_tensor_free(dst);
    }
    f2b_tape_free(tape);
    f2b_tensor_free(rows), f2b_tensor_free(good), f2b_tensor_free(outside);
}

/* Of several ops with bad entries the first is named. */
static void first_fault(void **state)
{
    (void)state;
    const float x[] = { 1, 2, 3, 4 };
    const int32_t first[] = { 0, 1, 7, 8 }, second[] = { 9 };
    f2b_tape *tape = f2b_tape_new(cuda);
    f2b_tensor *table = leaf(cuda, F2B_F32, 2, SHAPE(2, 2), x);
    f2b_tensor *a = leaf(cuda, F2B_I32, 1, SHAPE(4), first), *b = leaf(cuda, F2B_I32, 1, SHAPE(1), second);
    assert_non_null(f2b_rows_gather(tape, table, a));
    assert_non_null(f2b_rows_gather(tape, table, b));
    assert_int_equal(f2b_device_wait(cuda), F2B_ERR_DATA);
    assert_non_null(strstr(f2b_last_error(), "rows_gather: entry 2"));
    f2b_tape_free(tape);
    f2b_tensor_free(table), f2b_tensor_free(a), f2b_tensor_free(b);
}

/* A step that repeats its sizes asks for no memory; tags count as the host's do. */
static void memory(void **state)
{
    (void)state;
    const int64_t before = f2b_bytes_in_use(F2B_TAG_SCRATCH);
    f2b_emulation_counts first = { 0 }, last;
    for (int step = 0; step < 3; step++) {
        void *blocks[20];
        for (int i = 0; i < 20; i++) {
            blocks[i] = f2b_alloc(cuda, (size_t)(i * 3001), F2B_TAG_SCRATCH);
            assert_non_null(blocks[i]);
        }
        assert_int_equal(f2b_bytes_in_use(F2B_TAG_SCRATCH) - before, 190 * 3001);
        for (int i = 0; i < 20; i++) f2b_free(blocks[i]);
        assert_int_equal(f2b_bytes_in_use(F2B_TAG_SCRATCH), before);
        if (step == 0) first = f2b_emulation_read_counts();
    }
    last = f2b_emulation_read_counts();
#if !defined(__SANITIZE_ADDRESS__)
    assert_int_equal(last.mallocs, first.mallocs);
    assert_int_equal(last.frees, first.frees);
#endif
    f2b_alloc_trim();
    assert_true(f2b_emulation_read_counts().bytes < 4096);      /* the device's own word is left */
    (void)first, (void)last;
}

/* Large and odd copies through staging, with the source changed at once. */
static void copies(void **state)
{
    (void)state;
    const size_t bytes = (20u << 20) + 13;
    unsigned char *from = f2b_alloc_host(bytes, F2B_TAG_OTHER), *to = f2b_alloc_host(bytes, F2B_TAG_OTHER);
    void *a = f2b_alloc(cuda, bytes, F2B_TAG_OTHER), *b = f2b_alloc(cuda, bytes, F2B_TAG_OTHER);
    for (size_t i = 0; i < bytes; i++) from[i] = (unsigned char)(i * 7 + (i >> 13));
    assert_int_equal(f2b_copy(a, cuda, from, F2B_HOST, bytes), F2B_OK);
    memset(from, 0, bytes);
    assert_int_equal(f2b_copy(b, cuda, a, cuda, bytes), F2B_OK);
    assert_int_equal(f2b_copy(to, F2B_HOST, b, cuda, bytes), F2B_OK);
    for (size_t i = 0; i < bytes; i++)
        if (to[i] != (unsigned char)(i * 7 + (i >> 13))) fail_msg("byte %zu differs", i);
    f2b_free(a), f2b_free(b), f2b_free(from), f2b_free(to);
}

/* The images of three micro-batches, each larger than any slot, are on their way before the device has
 * begun with the first; what was staged is used again when it has. */
static void uploads_do_not_wait(void **state)
{
    (void)state;
    enum { BATCHES = 3 };
    const size_t bytes = (size_t)8 * 3 * 336 * 336 * sizeof(float);
    float *host = f2b_alloc_host(bytes, F2B_TAG_IMAGES), got;
    void *there[BATCHES];
    for (int i = 0; i < BATCHES; i++) assert_non_null(there[i] = f2b_alloc(cuda, bytes, F2B_TAG_IMAGES));
    int64_t pinned = 0;
    for (int step = 0; step < 4; step++) {
        const f2b_emulation_counts before = f2b_emulation_read_counts();
        for (int i = 0; i < BATCHES; i++) {
            for (size_t k = 0; k < bytes / sizeof *host; k++) host[k] = (float)(step * 10 + i);
            assert_int_equal(f2b_copy(there[i], cuda, host, F2B_HOST, bytes), F2B_OK);
        }
        const f2b_emulation_counts after = f2b_emulation_read_counts();
        assert_int_equal(after.waits, before.waits);
        if (step > 1) assert_int_equal(after.host_mallocs, pinned);     /* a step begins within a slot */
        pinned = after.host_mallocs;
        for (int i = 0; i < BATCHES; i++) {
            const char *last = (const char *)there[i] + bytes - sizeof got;
            assert_int_equal(f2b_copy(&got, F2B_HOST, last, cuda, sizeof got), F2B_OK);
            assert_true(got == (float)(step * 10 + i));
        }
    }
    f2b_free(host);
    for (int i = 0; i < BATCHES; i++) f2b_free(there[i]);
}

/* Copies to the host beside work: they have what was there when they were asked for, once a moment set
 * after them has passed, and nothing waits before. */
static void copies_beside_work(void **state)
{
    (void)state;
    float first[3000], second[3000], got[3000] = { 0 };
    const size_t bytes = sizeof first;
    random_values(first, 3000, 1);
    random_values(second, 3000, 2);
    f2b_tensor *x = leaf(cuda, F2B_F32, 1, SHAPE(3000), first);
    f2b_moment *copied = f2b_moment_new(cuda);
    assert_non_null(copied);
    assert_true(f2b_moment_passed(copied));
    assert_int_equal(f2b_pin(cuda, got, bytes), F2B_OK);
    const int64_t waits = f2b_emulation_read_counts().waits;
    assert_int_equal(f2b_emulation_read_counts().pinned, 1);
    assert_int_equal(f2b_copy_later(got, x->data, cuda, bytes), F2B_OK);
    assert_int_equal(f2b_moment_set(copied), F2B_OK);
    assert_int_equal(f2b_tensor_write(x, second), F2B_OK);      /* comes later */
    assert_true(f2b_emulation_read_counts().waits == waits && got[0] == 0);
    assert_false(f2b_moment_passed(copied));
    assert_int_equal(f2b_moment_wait(copied), F2B_OK);
    assert_true(f2b_moment_passed(copied));
    assert_memory_equal(got, first, bytes);
    f2b_unpin(cuda, got);
    assert_int_equal(f2b_emulation_read_counts().pinned, 0);
    assert_int_equal(f2b_tensor_read(x, got), F2B_OK);
    assert_memory_equal(got, second, bytes);
    f2b_moment_free(copied);
    f2b_tensor_free(x);
}

/* The profile of a device tells what its kernels took, not what it took to ask for them; asking waits
 * for nothing. */
static void profile(void **state)
{
    (void)state;
    enum { CALLS = 3, N = 400000 };
    static float values[N];
    random_values(values, N, 3);
    f2b_tape *tape = f2b_tape_new(cuda);
    f2b_tensor *large = leaf(cuda, F2B_F32, 1, SHAPE(N), values), *small = leaf(cuda, F2B_F32, 2, SHAPE(2, 4), values);
    const int32_t zero = 0;
    f2b_tensor *at = leaf(cuda, F2B_I32, 1, SHAPE(1), &zero);
    f2b_moment *begin = f2b_moment_new(cuda), *end = f2b_moment_new(cuda);
    f2b_profile_enable(true);
    const int64_t waits = f2b_emulation_read_counts().waits;
    assert_int_equal(f2b_moment_set(begin), F2B_OK);
    for (int i = 0; i < CALLS; i++) {
        assert_non_null(f2b_mul(tape, large, large));
        assert_non_null(f2b_rows_gather(tape, small, at));
    }
    assert_int_equal(f2b_moment_set(end), F2B_OK);
    f2b_profile_enable(false);
    assert_int_equal(f2b_emulation_read_counts().waits, waits);
    const f2b_profile_row *rows;
    assert_int_equal(f2b_profile_rows(&rows), 2);
    assert_string_equal(rows[0].name, "mul");
    assert_string_equal(rows[1].name, "rows_gather");
    double all;
    assert_int_equal(f2b_moment_wait(end), F2B_OK);
    assert_int_equal(f2b_moment_seconds(begin, end, &all), F2B_OK);
    for (int i = 0; i < 2; i++) assert_true(rows[i].calls == CALLS && rows[i].seconds > 0);
    assert_true(rows[0].seconds + rows[1].seconds <= all * 1.001);
    assert_true(rows[0].bytes == CALLS * 3.0 * N * 4);
    f2b_profile_reset();
    assert_int_equal(f2b_profile_rows(&rows), 0);
    f2b_moment_free(begin), f2b_moment_free(end);
    f2b_tape_free(tape);
    f2b_tensor_free(large), f2b_tensor_free(small), f2b_tensor_free(at);
}

static void missing(void **state)
{
    (void)state;
    f2b_emulation_set_memory((size_t)1 << 20);
    assert_null(f2b_alloc(cuda, (size_t)2 << 20, F2B_TAG_ACTIVATIONS));
    assert_int_equal(f2b_last_status(), F2B_ERR_MEMORY);
    assert_non_null(strstr(f2b_last_error(), "out of memory on cuda:0: no 2097152 bytes for activations"));
    f2b_emulation_set_memory((size_t)8 << 30);
    const f2b_device other = { F2B_CUDA, 3 };
    assert_int_equal(f2b_device_open(other), F2B_ERR_DEVICE);
    assert_non_null(strstr(f2b_last_error(), "cuda:3: there is no such device: this machine has 1"));
    f2b_emulation_set_devices(0);
    assert_int_equal(f2b_device_open(other), F2B_ERR_DEVICE);
    assert_non_null(strstr(f2b_last_error(), "cudaGetDeviceCount"));
    assert_non_null(strstr(f2b_last_error(), "--device cpu"));
    f2b_emulation_set_devices(1);
    char text[128];
    assert_int_equal(f2b_device_describe(cuda, text, sizeof text), F2B_OK);
    assert_string_equal(text, "cuda:0 (emulated, 8.0 GiB, sm_90)");
    assert_int_equal(f2b_device_takes_fp8(cuda), F2B_OK);
    f2b_emulation_set_capability(86);
    assert_int_equal(f2b_device_takes_fp8(cuda), F2B_ERR_DEVICE);
    assert_non_null(strstr(f2b_last_error(), "cuda:0: emulated is sm_86"));
    assert_int_equal(f2b_device_takes_fp8(F2B_HOST), F2B_ERR_UNSUPPORTED);
    assert_non_null(strstr(f2b_last_error(), "use bf16"));
    f2b_emulation_set_capability(90);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw), cmocka_unit_test(grad_norm), cmocka_unit_test(readings),
        cmocka_unit_test(random_fill), cmocka_unit_test(rows_store),
        cmocka_unit_test(first_fault), cmocka_unit_test(memory), cmocka_unit_test(copies),
        cmocka_unit_test(uploads_do_not_wait), cmocka_unit_test(copies_beside_work),
        cmocka_unit_test(profile), cmocka_unit_test(missing),
    };
    return cmocka_run_group_tests_name("cuda_device", tests, NULL, NULL);
}
