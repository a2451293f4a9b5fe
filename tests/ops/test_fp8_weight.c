/* fp8_weight: a device makes the bits that the host makes, and refuses what the host refuses. */
#include "tests/support/check_op.h"

#include <math.h>
#include <string.h>

#include "autograd/core/quant.h"
#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/ops/fp8_weight/fp8_weight.h"

static const f2b_device cuda = { F2B_CUDA, 0 };

static bool no_device(void)
{
    if (f2b_device_built(F2B_CUDA) && f2b_device_open(cuda) == F2B_OK) return false;
    print_message("[   CUDA   ] there is no CUDA device here\n");
    return true;
}

/* The bytes of the values' fp8 form, made from a source of that type on the device; NULL on error. */
static char *made(f2b_device device, f2b_dtype type, int64_t rows, int64_t cols, const float *values)
{
    const int64_t shape[] = { rows, cols };
    f2b_tensor *src = f2b_tensor_new(device, type, 2, shape, F2B_TAG_OTHER);
    f2b_tensor *dst = f2b_tensor_new(device, F2B_FP8, 2, shape, F2B_TAG_OTHER);
    void *bytes = f2b_alloc_host(f2b_tensor_bytes(src), F2B_TAG_OTHER);
    char *blob = f2b_calloc(1, f2b_tensor_bytes(dst), F2B_TAG_OTHER);
    f2b_convert(bytes, type, values, F2B_F32, (size_t)(rows * cols));
    assert_int_equal(f2b_tensor_write(src, bytes), F2B_OK);
    if (f2b_fp8_weight(dst, src) == F2B_OK) {
        assert_int_equal(f2b_tensor_read(dst, blob), F2B_OK);
    } else {
        f2b_free(blob);
        blob = NULL;
    }
    f2b_free(bytes);
    f2b_tensor_free(src);
    f2b_tensor_free(dst);
    return blob;
}

static void same_bits(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = { { 16, 16 }, { 48, 80 }, { 16, 1040 }, { 304, 32 }, { 32, 4112 } };
    static const f2b_dtype types[] = { F2B_F32, F2B_BF16, F2B_F16 };
    if (no_device()) return;
    for (int s = 0; s < 5; s++)
        for (int t = 0; t < 3; t++) {
            const int64_t rows = shapes[s][0], cols = shapes[s][1];
            float *x = f2b_alloc_host((size_t)(rows * cols) * sizeof *x, F2B_TAG_OTHER);
            f2b_rng r = f2b_rng_new(5, F2B_RNG_TEST, (uint64_t)s, 0, 0);
            for (int64_t i = 0; i < rows * cols; i++) {
                x[i] = (float)(f2b_rng_normal(&r) * exp2((double)(i / cols % 5)));
                if (i / cols == 3 || i % cols == 9) x[i] = 0;           /* no scale in that direction */
                if (i / cols == 7 && types[t] != F2B_F16) x[i] *= 0x1p-110f;
            }
            char *here = made(F2B_HOST, types[t], rows, cols, x);
            char *there = made(cuda, types[t], rows, cols, x);
            assert_true(here != NULL && there != NULL);
            const f2b_quant q = f2b_quant_head(F2B_FP8, rows, cols);
            assert_memory_equal(here, there, sizeof q);
            assert_memory_equal(here + q.codes, there + q.codes, (size_t)(rows * cols));
            assert_memory_equal(here + q.scales, there + q.scales, (size_t)rows * sizeof(float));
            assert_memory_equal(here + q.turned_codes, there + q.turned_codes, (size_t)(rows * cols));
            assert_memory_equal(here + q.turned_scales, there + q.turned_scales,
                                (size_t)cols * sizeof(float));
            f2b_free(here);
            f2b_free(there);
            f2b_free(x);
        }
}

static void refusals(void **state)
{
    (void)state;
    float x[32 * 16] = { 0 };
    for (int device = 0; device < (no_device() ? 1 : 2); device++) {
        const f2b_device where = device ? cuda : F2B_HOST;
        const float bad[] = { NAN, INFINITY, -INFINITY };
        for (int i = 0; i < 3; i++) {
            x[21 * 16 + 4] = bad[i];
            assert_null(made(where, F2B_BF16, 32, 16, x));
            assert_int_equal(f2b_last_status(), F2B_ERR_NUMBERS);
            assert_non_null(strstr(f2b_last_error(), "row 21 "));
        }
        x[21 * 16 + 4] = 0;
        assert_null(made(where, F2B_F64, 32, 16, x));
        assert_int_equal(f2b_last_status(), F2B_ERR_DTYPE);
        if (device == 0) continue;
        assert_null(made(where, F2B_F32, 20, 16, x));
        assert_int_equal(f2b_last_status(), F2B_ERR_SHAPE);
        assert_non_null(strstr(f2b_last_error(), "multiples of 16"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_bits), cmocka_unit_test(refusals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
