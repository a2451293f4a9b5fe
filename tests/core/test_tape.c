/*
 * The tape: what is freed and when, kept and detached tensors, seeds, skipped branches, gradients that
 * are handed on, checkpointed segments against plain runs, and that nothing is left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "autograd/core/op.h"
#include "autograd/ops/add/add.h"
#include "autograd/ops/mul/mul.h"
#include "autograd/ops/scale/scale.h"
#include "autograd/ops/silu_mul/silu_mul.h"

enum { N = 3 };
static const int64_t shape[] = { N };

static f2b_tensor *leaf(float a, float b, float c)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_F32, 1, shape, F2B_TAG_OTHER);
    assert_non_null(x);
    memcpy(x->data, (float[]){ a, b, c }, sizeof(float[N]));
    x->requires_grad = true;
    return x;
}

static void check_floats(const void *got, float a, float b, float c)
{
    assert_non_null(got);
    assert_memory_equal(got, ((float[]){ a, b, c }), sizeof(float[N]));
}

/* Every test starts with an empty tape and must leave as many bytes in use as it found. */
static int64_t bytes_before;

static int set_up(void **state)
{
    bytes_before = f2b_bytes_in_use(F2B_TAG_COUNT);
    return (*state = f2b_tape_new(F2B_HOST)) == NULL;
}

static int tear_down(void **state)
{
    f2b_tape_free(*state);
    return f2b_bytes_in_use(F2B_TAG_COUNT) != bytes_before;
}

static void released_tensors_go_unless_backward_reads_them(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *a = f2b_scale(tape, x, 2);      /* add's backward does not read it */
    f2b_tensor *b = f2b_add(tape, a, a);        /* mul's backward reads it */
    f2b_tensor *c = f2b_mul(tape, b, b);
    f2b_tensor *d = f2b_scale(tape, c, 1);
    f2b_tape_release_since(tape, mark, (f2b_tensor *[]){ d, NULL }, 2);
    assert_null(a->data);
    assert_non_null(b->data);
    assert_null(c->data);
    assert_non_null(d->data);
    check_floats(d->data, 16, 64, 144);
    assert_int_equal(f2b_tape_seed(tape, d, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(x->grad, 32, 64, 96);          /* d (4x)^2 / dx = 32 x */
    assert_null(b->data);                       /* nobody needs it any more */
    assert_null(b->grad);
    f2b_tensor_free(x);
}

static void kept_tensors_stay_until_reset(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *a = f2b_tape_keep(f2b_scale(tape, x, 2));
    f2b_tensor *b = f2b_mul(tape, a, a);
    f2b_tape_release_since(tape, mark, NULL, 0);
    assert_int_equal(f2b_tape_seed(tape, b, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(a->data, 2, 4, 6);
    check_floats(a->grad, 4, 8, 12);
    assert_null(b->data);
    f2b_tape_reset(tape);
    check_floats(x->grad, 8, 16, 24);
    f2b_tensor_free(x);
}

static void detached_tensors_cut_the_graph(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    f2b_tensor *a = f2b_tape_keep(f2b_scale(tape, x, 2));
    f2b_tensor *cut = f2b_tape_keep(f2b_tape_detach(tape, a));
    f2b_tensor *y = f2b_mul(tape, cut, cut);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(cut->grad, 4, 8, 12);
    assert_null(a->grad);
    assert_null(x->grad);
    f2b_tensor_free(x);
}

static void seeds_add_up(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    f2b_tensor *y = f2b_scale(tape, x, 2);
    assert_int_equal(f2b_tape_seed(tape, y, 0.5), F2B_OK);
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3 }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(x->grad, 3, 5, 7);
    f2b_tensor_free(x);
}

static void branches_without_a_gradient_are_skipped(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3), *unused = leaf(4, 5, 6), *frozen = leaf(7, 8, 9);
    frozen->requires_grad = false;
    f2b_tensor *y = f2b_mul(tape, x, frozen);
    f2b_tensor *dead = f2b_mul(tape, unused, x);
    assert_non_null(dead);
    assert_int_equal(f2b_tape_nodes(tape), 2);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(x->grad, 7, 8, 9);
    assert_null(unused->grad);
    assert_null(frozen->grad);
    f2b_tensor_free(x);
    f2b_tensor_free(unused);
    f2b_tensor_free(frozen);
}

static void nothing_is_recorded_while_off(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    assert_true(f2b_tape_set_recording(tape, false));
    f2b_tensor *y = f2b_mul(tape, x, x);
    assert_false(y->requires_grad);
    assert_int_equal(f2b_tape_nodes(tape), 0);
    assert_false(f2b_tape_set_recording(tape, true));
    assert_true(f2b_mul(tape, x, x)->requires_grad);
    assert_int_equal(f2b_tape_nodes(tape), 1);
    f2b_tensor_free(x);
}

static void what_cannot_compute_is_refused_by_name(void **state)
{
    static const f2b_op nothing = { .name = "nothing" };
    f2b_tape *tape = *state;
    f2b_node *n = f2b_node_new(tape, &nothing, F2B_F64, NULL, 0, NULL, 0);
    assert_int_equal(f2b_node_run(n), F2B_ERR_UNSUPPORTED);
    assert_non_null(strstr(f2b_last_error(), "nothing has no kernel for f64"));
    assert_null(f2b_node_new(tape, &nothing, F2B_F16, NULL, 0, NULL, 0));
    assert_int_equal(f2b_last_status(), F2B_ERR_DTYPE);
    f2b_clear_error();
}

/* ---- Gradients that are handed on ---- */

/* A tensor of the tape whose gradient stays to be looked at. */
static f2b_tensor *kept(f2b_tape *tape, f2b_tensor *x) { return f2b_tape_keep(f2b_scale(tape, x, 2)); }

static void a_summand_gets_the_buffer_of_the_sums_gradient(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3), *frozen = leaf(4, 5, 6);
    frozen->requires_grad = false;
    f2b_tensor *a = kept(tape, x), *y = f2b_add(tape, f2b_add(tape, frozen, a), frozen);
    f2b_bytes_peak_reset();
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3 }), F2B_OK);
    const void *buffer = y->grad;
    const int64_t gradients = f2b_bytes_in_use(F2B_TAG_ACT_GRADS);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    assert_ptr_equal(a->grad, buffer);
    assert_null(y->grad);
    assert_int_equal(f2b_bytes_peak(F2B_TAG_ACT_GRADS), gradients);
    check_floats(x->grad, 2, 4, 6);
    f2b_tensor_free(x);
    f2b_tensor_free(frozen);
}

static void two_summands_share_no_buffer(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3), *a = kept(tape, x), *b = kept(tape, x), *y = f2b_add(tape, a, b);
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3 }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(a->grad, 1, 2, 3);
    check_floats(b->grad, 1, 2, 3);
    assert_ptr_not_equal(a->grad, b->grad);
    check_floats(x->grad, 4, 8, 12);
    f2b_tensor_free(x);
}

static void a_sum_with_itself_has_twice_the_gradient(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3), *a = kept(tape, x), *y = f2b_add(tape, a, a);
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3 }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(a->grad, 2, 4, 6);
    f2b_tensor_free(x);
}

/* The gradient of the sum stays where somebody keeps it, and is added where there is one already. */
static void what_is_kept_or_there_is_not_replaced(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3), *a = kept(tape, x), *y = f2b_tape_keep(f2b_add(tape, a, x));
    f2b_tensor *later = f2b_scale(tape, a, 10);         /* whose gradient comes to a first */
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3 }), F2B_OK);
    assert_int_equal(f2b_tape_seed(tape, later, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    check_floats(y->grad, 1, 2, 3);
    check_floats(a->grad, 11, 12, 13);
    check_floats(x->grad, 23, 26, 29);
    f2b_tensor_free(x);
}

/* The gradient of a leaf outlives the tape: it is counted as such, and accumulates. */
static void a_leaf_has_a_gradient_of_its_own(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    const int64_t before = f2b_bytes_in_use(F2B_TAG_GRADIENTS);
    for (int pass = 1; pass <= 2; pass++) {
        f2b_tensor *y = f2b_add(tape, x, f2b_tape_tensor_from(tape, F2B_F32, 1, shape, x->data));
        assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3 }), F2B_OK);
        assert_int_equal(f2b_tape_backward(tape), F2B_OK);
        f2b_tape_reset(tape);
        check_floats(x->grad, (float)pass, (float)(2 * pass), (float)(3 * pass));
    }
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_GRADIENTS) - before, (int64_t)sizeof(float[N]));
    f2b_tensor_free(x);
}

static f2b_space nothing_beside(const f2b_node *n)
{
    (void)n;
    return (f2b_space){ 0 };
}

/* What the gradients of a graph take at most: of a chain of sums, one summand of which is used twice. */
static int64_t peak_of_gradients(f2b_tape *tape, f2b_tensor *x)
{
    f2b_bytes_peak_reset();
    f2b_tensor *a = f2b_scale(tape, x, 2), *b = f2b_add(tape, a, a), *c = f2b_add(tape, a, b);
    assert_int_equal(f2b_tape_seed(tape, c, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_tape_reset(tape);
    return f2b_bytes_peak(F2B_TAG_ACT_GRADS);
}

static void a_rehearsal_counts_what_is_handed_on(void **state)
{
    enum { WIDE = 1000 };
    f2b_tape *tape = *state, *rehearsal = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_F32, 1, (int64_t[]){ WIDE }, F2B_TAG_OTHER);
    memset(x->data, 0, sizeof(float[WIDE]));
    x->requires_grad = true;
    f2b_tape_rehearse(rehearsal, nothing_beside);
    const int64_t fact = peak_of_gradients(tape, x), plan = peak_of_gradients(rehearsal, x);
    assert_int_equal(plan, fact);
    assert_int_equal(fact, 2 * (int64_t)sizeof(float[WIDE]));      /* c's, which becomes a's, and b's */
    f2b_tape_free(rehearsal);
    f2b_tensor_free(x);
}

static void an_output_that_cannot_be_made_is_an_error(void **state)
{
    static const f2b_op nothing = { .name = "nothing" };
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    f2b_node *n = f2b_node_new(tape, &nothing, F2B_F32, &x, 1, NULL, 0);
    assert_null(f2b_node_out(n, F2B_F32, 1, (int64_t[]){ -1 }));
    f2b_node_hands_on(n, 0, 0);
    assert_int_equal(f2b_node_run(n), F2B_ERR_SHAPE);
    f2b_clear_error();
    f2b_tensor_free(x);
}

/* ---- Segments ---- */

/* A layer with a parameter that is no input of the segment, as models have them: it comes with the
 * context. out[0] = silu(x) * p * x, out[1] = x * x (which may stay unused). */
typedef struct layer {
    f2b_tensor *p;
    int fail;
} layer;

static f2b_status run_layer(f2b_tape *tape, const void *context, f2b_tensor *const *in,
                            f2b_tensor **out)
{
    const layer *l = context;
    if (l->fail) return f2b_fail(F2B_ERR_DATA, "the layer failed");
    f2b_tensor *gated = f2b_silu_mul(tape, in[0], l->p);
    if (in[1] != NULL) gated = f2b_add(tape, gated, in[1]);
    out[0] = f2b_mul(tape, gated, in[0]);
    out[1] = f2b_mul(tape, in[0], in[0]);
    return out[0] != NULL && out[1] != NULL ? F2B_OK : f2b_last_status();
}

/* Two layers in a segment each: a segment of segments. */
static f2b_status run_two_layers(f2b_tape *tape, const void *context, f2b_tensor *const *in,
                                 f2b_tensor **out)
{
    f2b_tensor *between[3] = { 0 };
    F2B_TRY(f2b_tape_segment(tape, run_layer, context, sizeof(layer), in, 2, between, 2));
    return f2b_tape_segment(tape, run_layer, context, sizeof(layer), between, 2, out, 2);
}

static f2b_status run_two_plain(f2b_tape *tape, const void *context, f2b_tensor *const *in,
                                f2b_tensor **out)
{
    f2b_tensor *between[2] = { 0 };
    F2B_TRY(run_layer(tape, context, in, between));
    return run_layer(tape, context, between, out);
}

typedef enum how { PLAIN, SEGMENT, NESTED, HOWS } how;

/* Outputs, then gradients of x, extra and p, of two layers run in one of three ways. */
static void two_layers(f2b_tape *tape, how h, bool second_output, float result[5][N])
{
    f2b_tensor *x = leaf(1, -2, 0.5f), *extra = leaf(0.25f, 3, -1), *p = leaf(0.7f, 1.1f, -0.3f);
    const layer l = { .p = p };
    f2b_tensor *first = f2b_scale(tape, x, 1.5), *out[2] = { 0 };
    f2b_tensor *in[] = { first, extra };
    f2b_segment_body *body = h == NESTED ? run_two_layers : run_two_plain;
    const f2b_status status =
        h == PLAIN ? body(tape, &l, in, out)
                   : f2b_tape_segment(tape, body, &l, sizeof l, in, 2, out, 2);
    assert_int_equal(status, F2B_OK);
    if (h != PLAIN) assert_int_equal(f2b_tape_nodes(tape), 2);      /* scale, segment */
    for (int o = 0; o < 2; o++) memcpy(result[o], out[o]->data, sizeof result[o]);
    assert_int_equal(f2b_tape_seed_from(tape, out[0], (float[]){ 1, 0.5f, -2 }), F2B_OK);
    if (second_output)
        assert_int_equal(f2b_tape_seed_from(tape, out[1], (float[]){ 3, 1, 0.125f }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    memcpy(result[2], x->grad, sizeof result[2]);
    memcpy(result[3], extra->grad, sizeof result[3]);
    memcpy(result[4], p->grad, sizeof result[4]);
    f2b_tape_reset(tape);
    f2b_tensor_free(x);
    f2b_tensor_free(extra);
    f2b_tensor_free(p);
}

static void segments_give_the_same_bits(void **state)
{
    for (int second = 0; second < 2; second++) {
        float plain[5][N], other[5][N];
        two_layers(*state, PLAIN, second, plain);
        for (how h = SEGMENT; h < HOWS; h++) {
            two_layers(*state, h, second, other);
            assert_memory_equal(plain, other, sizeof plain);
        }
    }
}

static void segments_keep_inputs_only(void **state)
{
    enum { WIDE = 100000 };
    f2b_tape *tape = *state;
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_F32, 1, (int64_t[]){ WIDE }, F2B_TAG_OTHER);
    memset(x->data, 0, WIDE * sizeof(float));
    x->requires_grad = true;
    const layer l = { .p = x };
    f2b_tensor *in[] = { x, NULL }, *out[2];
    const int64_t before = f2b_bytes_in_use(F2B_TAG_ACTIVATIONS);
    const int64_t one = WIDE * (int64_t)sizeof(float);
    assert_int_equal(f2b_tape_segment(tape, run_layer, &l, sizeof l, in, 2, out, 2), F2B_OK);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_ACTIVATIONS) - before, 2 * one);
    f2b_tape_reset(tape);
    assert_int_equal(run_layer(tape, &l, in, out), F2B_OK);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_ACTIVATIONS) - before, 3 * one);
    f2b_tape_reset(tape);
    f2b_tensor_free(x);
}

static void segments_run_plainly_where_no_gradient_is_wanted(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    x->requires_grad = false;
    const layer l = { .p = x };
    f2b_tensor *in[] = { x, NULL }, *out[2];
    assert_int_equal(f2b_tape_segment(tape, run_layer, &l, sizeof l, in, 2, out, 2), F2B_OK);
    assert_int_equal(f2b_tape_nodes(tape), 0);
    check_floats(out[1]->data, 1, 4, 9);
    f2b_tensor_free(x);
}

static void errors_inside_a_segment_come_out(void **state)
{
    f2b_tape *tape = *state;
    f2b_tensor *x = leaf(1, 2, 3);
    const layer l = { .p = x, .fail = 1 };
    f2b_tensor *in[] = { x, NULL }, *out[2];
    assert_int_equal(f2b_tape_segment(tape, run_layer, &l, sizeof l, in, 2, out, 2), F2B_ERR_DATA);
    assert_string_equal(f2b_last_error(), "the layer failed");
    assert_true(f2b_tape_recording(tape));
    f2b_clear_error();
    f2b_tensor_free(x);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(released_tensors_go_unless_backward_reads_them),
        TEST(kept_tensors_stay_until_reset),
        TEST(detached_tensors_cut_the_graph),
        TEST(seeds_add_up),
        TEST(branches_without_a_gradient_are_skipped),
        TEST(nothing_is_recorded_while_off),
        TEST(what_cannot_compute_is_refused_by_name),
        TEST(a_summand_gets_the_buffer_of_the_sums_gradient),
        TEST(two_summands_share_no_buffer),
        TEST(a_sum_with_itself_has_twice_the_gradient),
        TEST(what_is_kept_or_there_is_not_replaced),
        TEST(a_leaf_has_a_gradient_of_its_own),
        TEST(a_rehearsal_counts_what_is_handed_on),
        TEST(an_output_that_cannot_be_made_is_an_error),
        TEST(segments_give_the_same_bits),
        TEST(segments_keep_inputs_only),
        TEST(segments_run_plainly_where_no_gradient_is_wanted),
        TEST(errors_inside_a_segment_come_out),
    };
    return cmocka_run_group_tests_name("tape", tests, NULL, NULL);
}
