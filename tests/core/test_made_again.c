/*
 * What cheap ops make is freed while only backward still reads it, and made again there: the same bits as
 * where it stays, whatever reads it, chains of such ops and checkpointed segments included.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "autograd/core/op.h"
#include "autograd/ops/add/add.h"
#include "autograd/ops/gelu/gelu.h"
#include "autograd/ops/linear/linear.h"
#include "autograd/ops/mul/mul.h"
#include "autograd/ops/rms_norm/rms_norm.h"
#include "autograd/ops/silu_mul/silu_mul.h"

enum { ROWS = 50, D = 40, N = ROWS * D, LEAVES = 3 };

static f2b_tensor *leaf(int ndim, const int64_t *shape, int seed)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_F32, ndim, shape, F2B_TAG_OTHER);
    assert_non_null(x);
    for (int64_t i = 0; i < f2b_numel(x); i++)
        ((float *)x->data)[i] = (float)((i * 37 + seed * 11) % 101 - 50) / 40;
    x->requires_grad = true;
    return x;
}

/* x, a norm's weight, a linear weight. */
typedef struct leaves {
    f2b_tensor *all[LEAVES];
} leaves;

static leaves leaves_new(void)
{
    return (leaves){ { leaf(2, (int64_t[]){ ROWS, D }, 1), leaf(1, (int64_t[]){ D }, 2),
                       leaf(2, (int64_t[]){ D, D }, 3) } };
}

static void leaves_free(leaves *l)
{
    for (int i = 0; i < LEAVES; i++) f2b_tensor_free(l->all[i]);
}

/* Two readers of a norm, and a chain of three cheap ops that ends in a reader. */
static f2b_status body(f2b_tape *tape, const void *context, f2b_tensor *const *in, f2b_tensor **out)
{
    const leaves *l = context;
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *h = f2b_rms_norm(tape, in[0], l->all[1], 1e-5);
    f2b_tensor *a = f2b_linear(tape, h, l->all[2], NULL), *b = f2b_mul(tape, h, h);
    f2b_tensor *chain = f2b_gelu(tape, f2b_silu_mul(tape, f2b_gelu(tape, a), b));
    out[0] = f2b_add(tape, f2b_linear(tape, chain, l->all[2], NULL), in[0]);
    if (out[0] == NULL) return f2b_last_status();
    f2b_tape_release_since(tape, mark, out, 1);
    return F2B_OK;
}

/* Gradients of all leaves; `keep`: everything stays, so that nothing is made again. */
static void gradients(bool keep, bool segment, float got[N + D + D * D], int64_t *bytes)
{
    leaves l = leaves_new();
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *out, *in[] = { l.all[0] };
    const int64_t before = f2b_bytes_in_use(F2B_TAG_ACTIVATIONS);
    if (segment)
        assert_int_equal(f2b_tape_segment(tape, body, &l, sizeof l, in, 1, &out, 1), F2B_OK);
    else if (!keep)
        assert_int_equal(body(tape, &l, in, &out), F2B_OK);
    else {
        f2b_tensor *h = f2b_rms_norm(tape, in[0], l.all[1], 1e-5);
        f2b_tensor *a = f2b_linear(tape, h, l.all[2], NULL), *b = f2b_mul(tape, h, h);
        f2b_tensor *chain = f2b_gelu(tape, f2b_silu_mul(tape, f2b_gelu(tape, a), b));
        out = f2b_add(tape, f2b_linear(tape, chain, l.all[2], NULL), in[0]);
        assert_non_null(out);
    }
    *bytes = f2b_bytes_in_use(F2B_TAG_ACTIVATIONS) - before;
    assert_int_equal(f2b_tape_seed(tape, out, 0.25), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    for (int i = 0; i < LEAVES; got += f2b_numel(l.all[i]), i++)
        memcpy(got, l.all[i]->grad, f2b_tensor_bytes(l.all[i]));
    f2b_tape_free(tape);
    leaves_free(&l);
}

static void the_same_bits_in_less_memory(void **state)
{
    (void)state;
    static float kept[N + D + D * D], again[N + D + D * D], segment[N + D + D * D];
    const int64_t before = f2b_bytes_in_use(F2B_TAG_COUNT), one = N * (int64_t)sizeof(float);
    const int64_t rstd = ROWS * (int64_t)sizeof(float);
    int64_t bytes;
    gradients(true, false, kept, &bytes);
    assert_int_equal(bytes, 8 * one + rstd);
    gradients(false, false, again, &bytes);
    assert_int_equal(bytes, 3 * one + rstd);        /* a, b and out; h and the chain of three are gone */
    assert_memory_equal(kept, again, sizeof kept);
    gradients(false, true, segment, &bytes);
    assert_int_equal(bytes, one);
    assert_memory_equal(kept, segment, sizeof kept);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), before);
}

/* What is kept, and what ops may still read, stays. */
static void what_others_read_stays(void **state)
{
    (void)state;
    leaves l = leaves_new();
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *kept = f2b_tape_keep(f2b_gelu(tape, l.all[0])), *open = f2b_gelu(tape, l.all[0]);
    f2b_tensor *y = f2b_mul(tape, kept, open);
    f2b_tape_release_since(tape, mark, (f2b_tensor *[]){ open, y }, 2);
    assert_non_null(kept->data);
    assert_non_null(open->data);
    f2b_tape_release(open);
    assert_null(open->data);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    assert_non_null(kept->data);
    assert_null(open->data);
    f2b_tape_free(tape);
    leaves_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_in_less_memory),
        cmocka_unit_test(what_others_read_stays),
    };
    return cmocka_run_group_tests_name("made_again", tests, NULL, NULL);
}
