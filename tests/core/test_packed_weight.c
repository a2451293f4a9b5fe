/* Weights that are packed once: the same bits from linear and the head, forward and backward, for few rows and
 * many; what is not packed; nothing is left behind. */
#include "tests/support/check_op.h"

#include <string.h>

#include "autograd/core/rng.h"
#include "autograd/device/cpu/packed_weight.h"
#include "autograd/ops/head_cross_entropy/head_cross_entropy.h"
#include "autograd/ops/linear/linear.h"

enum { RANK = 5, MOST_OUT = 3 };

typedef struct sizes { int64_t rows, in, out; } sizes;

static f2b_tensor *filled(f2b_dtype dtype, int64_t rows, int64_t cols, uint64_t seed)
{
    f2b_tensor *t = f2b_tensor_new(F2B_HOST, dtype, 2, (int64_t[]){ rows, cols }, F2B_TAG_WEIGHTS);
    assert_non_null(t);
    f2b_rng r = f2b_rng_new(seed, F2B_RNG_TEST, 1, 0, 0);
    for (int64_t i = 0; i < rows * cols; i++) {
        const double x = f2b_rng_uniform(&r) * 2 - 1;
        f2b_convert((char *)t->data + (size_t)i * f2b_dtype_size(dtype), dtype, &x, F2B_F64, 1);
    }
    return t;
}

static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) h = f2b_hash_mix(h ^ ((const uint8_t *)data)[i]);
    return h;
}

/* Of what a group makes, forward and backward: its outputs, the gradients of x and of what is trained. */
static uint64_t linear_bits(f2b_tensor *x, f2b_tensor **w, f2b_tensor *a, f2b_tensor *b, int n)
{
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_projection p[MOST_OUT] = { { 0 } };
    f2b_tensor *y[MOST_OUT];
    for (int i = 0; i < n; i++) p[i].weight = w[i];
    p[0].lora_a = a, p[0].lora_b = b;
    assert_int_equal(f2b_linear_group(tape, x, p, n, 0.5, NULL, y), F2B_OK);
    uint64_t bits = 1;
    for (int i = 0; i < n; i++) bits = hash(bits, y[i]->data, f2b_tensor_bytes(y[i]));
    for (int i = 0; i < n; i++) assert_int_equal(f2b_tape_seed_from(tape, y[i], y[i]->data), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_tensor *const trained[] = { x, a, b };
    for (int i = 0; i < 3; i++) {
        bits = hash(bits, trained[i]->grad, f2b_tensor_bytes(trained[i]));
        assert_int_equal(f2b_tensor_zero_grad(trained[i]), F2B_OK);
    }
    f2b_tape_free(tape);
    return bits;
}

static void same_bits(f2b_dtype compute, f2b_dtype storage, sizes z, int n)
{
    const f2b_dtype real = compute == F2B_F64 ? F2B_F64 : F2B_F32;
    f2b_tensor *x = filled(compute, z.rows, z.in, 1), *a = filled(real, RANK, z.in, 2);
    f2b_tensor *b = filled(real, z.out, RANK, 3), *w[MOST_OUT];
    for (int i = 0; i < n; i++) w[i] = filled(storage, z.out, z.in, (uint64_t)(4 + i));
    x->requires_grad = a->requires_grad = b->requires_grad = true;
    const uint64_t before = linear_bits(x, w, a, b, n);
    for (int i = 0; i < n; i++) {                   /* one packed beside others that are not, then all */
        const int64_t had = f2b_bytes_in_use(F2B_TAG_WEIGHTS), takes = f2b_packed_weight_bytes(w[i], compute);
        assert_true(takes >= 2 * z.in * z.out * (int64_t)f2b_dtype_size(compute));
        assert_int_equal(f2b_packed_weight_make(w[i], compute), F2B_OK);
        assert_int_equal(f2b_bytes_in_use(F2B_TAG_WEIGHTS) - had, takes);
        assert_true(linear_bits(x, w, a, b, n) == before);
    }
    for (int i = 0; i < n; i++) f2b_tensor_free(w[i]);
    f2b_tensor_free(x), f2b_tensor_free(a), f2b_tensor_free(b);
}

static void linears(void **state)
{
    (void)state;
    static const sizes all[] = { { 1, 48, 64 }, { 3, 33, 17 }, { 57, 130, 70 }, { 120, 800, 96 }, { 300, 64, 600 },
                                 { 1100, 40, 50 }, { 200, 1600, 700 } };
    static const struct { f2b_dtype compute, storage; } types[] = {
        { F2B_F32, F2B_F32 }, { F2B_F64, F2B_F64 }, { F2B_BF16, F2B_BF16 }, { F2B_BF16, F2B_F32 },
        { F2B_F32, F2B_BF16 }, { F2B_F32, F2B_F16 },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            same_bits(types[t].compute, types[t].storage, all[i], 1 + (int)(i % MOST_OUT));
}

static void heads(void **state)
{
    (void)state;
    static const f2b_dtype types[] = { F2B_F32, F2B_F64, F2B_BF16 };
    enum { ROWS = 21, VOCAB = 301, D = 72 };
    int32_t label[ROWS];
    for (int i = 0; i < ROWS; i++) label[i] = i * 14;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        f2b_tensor *x = filled(types[t], ROWS, D, 1), *w = filled(types[t], VOCAB, D, 2);
        f2b_tensor *labels = f2b_tensor_borrow(F2B_HOST, F2B_I32, 1, (int64_t[]){ ROWS }, label);
        x->requires_grad = true;
        uint64_t bits[2];
        for (int packed = 0; packed < 2; packed++) {
            if (packed) assert_int_equal(f2b_packed_weight_make(w, types[t]), F2B_OK);
            f2b_tape *tape = f2b_tape_new(F2B_HOST);
            f2b_tensor *loss = f2b_head_cross_entropy(tape, x, w, labels);
            assert_non_null(loss);
            bits[packed] = hash(1, loss->data, f2b_tensor_bytes(loss));
            assert_int_equal(f2b_tape_seed(tape, loss, 0.125), F2B_OK);
            assert_int_equal(f2b_tape_backward(tape), F2B_OK);
            bits[packed] = hash(bits[packed], x->grad, f2b_tensor_bytes(x));
            assert_int_equal(f2b_tensor_zero_grad(x), F2B_OK);
            f2b_tape_free(tape);
        }
        assert_true(bits[0] == bits[1]);
        f2b_tensor_free(x), f2b_tensor_free(w), f2b_tensor_free(labels);
    }
}

/* For another type of arithmetic, or planned alone, it is as if it were not there. */
static void not_for_this_product(void **state)
{
    (void)state;
    f2b_tensor *w = filled(F2B_F32, 40, 24, 1);
    assert_int_equal(f2b_packed_weight_plan(w, F2B_F32), F2B_OK);
    assert_non_null(w->packed);
    assert_null(f2b_packed_forward(w, F2B_F32));
    assert_int_equal(f2b_packed_weight_make(w, F2B_F32), F2B_OK);
    assert_non_null(f2b_packed_forward(w, F2B_F32));
    assert_non_null(f2b_packed_backward(w, F2B_F32));
    assert_null(f2b_packed_forward(w, F2B_BF16));
    const void *there = w->packed->forward;
    assert_int_equal(f2b_packed_weight_make(w, F2B_F32), F2B_OK);       /* done already */
    assert_ptr_equal(w->packed->forward, there);
    f2b_packed_weight_free(w);
    assert_null(w->packed);
    w->requires_grad = true;
    assert_int_equal(f2b_packed_weight_bytes(w, F2B_F32), 0);
    assert_int_equal(f2b_packed_weight_make(w, F2B_F32), F2B_OK);
    assert_null(w->packed);
    f2b_tensor_free(w);
    static const f2b_dtype small[] = { F2B_INT8, F2B_NF4 };
    for (int i = 0; i < 2; i++) {
        w = f2b_tensor_new(F2B_HOST, small[i], 2, (int64_t[]){ 64, 64 }, F2B_TAG_WEIGHTS);
        assert_int_equal(f2b_packed_weight_bytes(w, F2B_F32), 0);
        f2b_tensor_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears),
        cmocka_unit_test(heads),
        cmocka_unit_test(not_for_this_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
