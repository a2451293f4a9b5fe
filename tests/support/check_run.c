/* See check_run.h, and the small helpers of check_op.h. */
#include "tests/support/check_run.h"

#include <math.h>
#include <string.h>

#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/ops/add/add.h"

static int64_t count(const f2b_check_input *in)
{
    int64_t n = 1;
    for (int i = 0; i < in->ndim; i++) n *= in->shape[i];
    return n;
}

/* Rounded to bf16 and then to f16: what remains is exact in both, and in f32 and f64. */
static double exact_everywhere(double x)
{
    return f2b_f16_to_f32(f2b_f32_to_f16(f2b_bf16_to_f32(f2b_f32_to_bf16((float)x))));
}

f2bi_world *f2bi_world_new(const f2b_check_case *c, f2b_device device)
{
    F2B_CHECK(c->n_in <= F2B_CHECK_MAX_IN);
    f2bi_world *w = f2b_calloc(1, sizeof *w, F2B_TAG_OTHER);
    assert_non_null(w);
    w->c = c, w->device = device;
    for (int i = 0; i < c->n_in; i++) {
        const f2b_check_input *in = &c->in[i];
        const int64_t n = count(in);
        w->values[i] = f2b_alloc_host((size_t)n * sizeof(double), F2B_TAG_OTHER);
        assert_non_null(w->values[i]);
        f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, f2b_hash_text(c->name), (uint64_t)i, 0);
        for (int64_t k = 0; k < n; k++) {
            const double x = in->low + (in->high - in->low) * f2b_rng_uniform(&r);
            w->values[i][k] = in->role == F2B_CHECK_INDEX ? floor(x) : exact_everywhere(x);
            if (in->values != NULL) w->values[i][k] = in->values[k];
        }
    }
    return w;
}

void f2bi_world_free(f2bi_world *w)
{
    for (int i = 0; i < w->c->n_in; i++) f2b_free(w->values[i]);
    f2b_free(w);
}

bool f2bi_wants(const f2bi_world *w, int i)
{
    return w->c->in[i].role == F2B_CHECK_ACTIVATION || w->c->in[i].role == F2B_CHECK_PARAMETER;
}

double *f2bi_upstream(const f2bi_world *w, int o, int64_t n)
{
    double *g = f2b_alloc_host((size_t)n * sizeof *g, F2B_TAG_OTHER);
    assert_non_null(g);
    f2b_rng r = f2b_rng_new(2, F2B_RNG_TEST, f2b_hash_text(w->c->name), (uint64_t)o, 0);
    for (int64_t k = 0; k < n; k++) g[k] = exact_everywhere(2.0 * f2b_rng_uniform(&r) - 1.0);
    return g;
}

static f2b_dtype type_of(const f2bi_world *w, const f2bi_setting *s, int i)
{
    if (s->stored && s->stored_input == i) return s->storage;
    switch (w->c->in[i].role) {
    case F2B_CHECK_INDEX: return F2B_I32;
    case F2B_CHECK_PARAMETER:
    case F2B_CHECK_CONSTANT: return s->dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    default: return s->dtype;
    }
}

/* The one place where inputs reach a device. */
static f2b_tensor *make_leaf(const f2bi_world *w, const f2bi_setting *s, int i)
{
    const f2b_check_input *in = &w->c->in[i];
    const int64_t n = count(in), copies = in->by_row && s->copies > 0 ? s->copies : 1;
    int64_t shape[F2B_MAX_DIMS];
    memcpy(shape, in->shape, sizeof shape);
    if (in->ndim > 0) shape[0] *= copies;
    f2b_tensor *x = f2b_tensor_new(w->device, type_of(w, s, i), in->ndim, shape, F2B_TAG_OTHER);
    assert_non_null(x);
    char *host = f2b_alloc_host(f2b_tensor_bytes(x), F2B_TAG_OTHER);
    assert_non_null(host);
    for (int64_t k = 0; k < copies; k++) {
        char *copy = host + (size_t)(k * n) * f2b_dtype_size(x->dtype);
        if (x->dtype != F2B_I32) f2b_convert(copy, x->dtype, w->values[i], F2B_F64, (size_t)n);
        else for (int64_t e = 0; e < n; e++) ((int32_t *)copy)[e] = (int32_t)w->values[i][e];
    }
    if (s->nudge != 0 && s->nudged == i) ((double *)(void *)host)[s->element] += s->nudge;
    assert_int_equal(f2b_tensor_write(x, host), F2B_OK);
    f2b_free(host);
    x->requires_grad = f2bi_wants(w, i) && !(s->frozen >> i & 1);
    return x;
}

static void take(f2bi_values *v, const f2b_tensor *x, const void *data)
{
    *v = (f2bi_values){ .dtype = x->dtype, .n = f2b_numel(x) };
    if (data == NULL) return;
    v->bytes = f2b_alloc_host(f2b_tensor_bytes(x), F2B_TAG_OTHER);
    assert_non_null(v->bytes);
    if (f2b_copy(v->bytes, F2B_HOST, data, x->device, f2b_tensor_bytes(x)) != F2B_OK)
        fail_msg("reading a result: %s", f2b_last_error());
}

/* How often each output comes: not at all more than once if no input is by row. */
static int64_t output_copies(const f2bi_world *w, const f2bi_setting *s)
{
    for (int i = 0; i < w->c->n_in; i++)
        if (w->c->in[i].by_row && s->copies > 0) return s->copies;
    return 1;
}

static void seed(const f2bi_world *w, const f2bi_setting *s, f2b_tape *tape, f2b_tensor *y, int o)
{
    const int64_t copies = output_copies(w, s), n = f2b_numel(y) / copies;
    assert_int_equal(n * copies, f2b_numel(y));
    double *upstream = f2bi_upstream(w, o, n);
    char *g = f2b_alloc_host(f2b_tensor_bytes(y), F2B_TAG_OTHER);
    assert_non_null(g);
    for (int64_t k = 0; k < copies; k++)
        f2b_convert(g + (size_t)(k * n) * f2b_dtype_size(y->dtype), y->dtype, upstream, F2B_F64,
                    (size_t)n);
    assert_int_equal(f2b_tape_seed_from(tape, y, g), F2B_OK);
    f2b_free(g);
    f2b_free(upstream);
}

/* One forward pass, `uses` times over the same inputs, and its backward. */
static void pass(const f2bi_world *w, const f2bi_setting *s, f2b_tape *tape,
                 f2b_tensor *const *leaves, f2bi_result *r)
{
    f2b_tensor *in[F2B_CHECK_MAX_IN] = { 0 }, *out[F2B_MAX_OUT] = { 0 };
    for (int i = 0; i < w->c->n_in; i++) {
        in[i] = leaves[i];
        if (!s->through_tape || w->c->in[i].role != F2B_CHECK_ACTIVATION) continue;
        f2b_tensor *zero = f2b_tape_tensor(tape, in[i]->dtype, in[i]->ndim, in[i]->shape);
        assert_non_null(zero);
        assert_int_equal(f2b_zero(zero->data, zero->device, f2b_tensor_bytes(zero)), F2B_OK);
        in[i] = f2b_add(tape, in[i], zero);
        assert_non_null(in[i]);
    }
    for (int use = 0; use < (s->uses > 0 ? s->uses : 1); use++) {
        r->n_out = w->c->build(tape, s->dtype, in, w->c->context, out);
        if (r->n_out == 0) fail_msg("%s: %s", w->c->name, f2b_last_error());
        for (int o = 0; o < r->n_out; o++) {
            if (use == 0) take(&r->out[o], out[o], out[o]->data);
            if (!s->forward_only) seed(w, s, tape, out[o], o);
        }
    }
    r->nodes = f2b_tape_nodes(tape);
    if (!s->forward_only && f2b_tape_backward(tape) != F2B_OK)
        fail_msg("%s: backward: %s", w->c->name, f2b_last_error());
}

void f2bi_run_case(const f2bi_world *w, f2bi_setting s, f2bi_result *r)
{
    *r = (f2bi_result){ 0 };
    f2b_tensor *leaves[F2B_CHECK_MAX_IN];
    for (int i = 0; i < w->c->n_in; i++) leaves[i] = make_leaf(w, &s, i);
    f2b_tape *tape = f2b_tape_new(w->device);
    assert_non_null(tape);
    f2b_tape_set_recording(tape, !s.forward_only);
    for (int p = 0; p < (s.passes > 0 ? s.passes : 1); p++) {
        for (int o = 0; o < r->n_out; o++) f2b_free(r->out[o].bytes);
        pass(w, &s, tape, leaves, r);
        f2b_tape_reset(tape);
    }
    f2b_tape_free(tape);
    for (int i = 0; i < w->c->n_in; i++) {
        take(&r->grad[i], leaves[i], leaves[i]->grad);
        f2b_tensor_free(leaves[i]);
    }
}

void f2bi_result_free(f2bi_result *r)
{
    for (int o = 0; o < F2B_MAX_OUT; o++) f2b_free(r->out[o].bytes);
    for (int i = 0; i < F2B_CHECK_MAX_IN; i++) f2b_free(r->grad[i].bytes);
}

double f2bi_value(const f2bi_values *v, int64_t k)
{
    double x;
    f2b_convert(&x, F2B_F64, (const char *)v->bytes + (size_t)k * f2b_dtype_size(v->dtype),
                v->dtype, 1);
    return x;
}

/* Equal bits, but for the sign of a zero, which a gradient loses by being added to zero. */
static bool equal(const f2bi_values *a, const f2bi_values *b)
{
    if (a->n != b->n || a->dtype != b->dtype || (a->bytes == NULL) != (b->bytes == NULL))
        return false;
    if (a->bytes == NULL
        || memcmp(a->bytes, b->bytes, (size_t)a->n * f2b_dtype_size(a->dtype)) == 0)
        return true;
    for (int64_t k = 0; k < a->n; k++) {
        const double x = f2bi_value(a, k), y = f2bi_value(b, k);
        if (x != y && !(isnan(x) && isnan(y))) return false;
    }
    return true;
}

void f2bi_same_bits(const f2bi_world *w, const char *what, const f2bi_result *a,
                    const f2bi_result *b, uint32_t except)
{
    assert_int_equal(a->n_out, b->n_out);
    for (int o = 0; o < a->n_out; o++)
        if (!equal(&a->out[o], &b->out[o]))
            fail_msg("%s: %s: output %d differs", w->c->name, what, o);
    for (int i = 0; i < w->c->n_in; i++)
        if (!(except >> i & 1) && !equal(&a->grad[i], &b->grad[i]))
            fail_msg("%s: %s: gradient of input %d differs", w->c->name, what, i);
}

void f2bi_near(const f2bi_world *w, const char *what, const f2bi_values *got,
               const f2bi_values *want, double factor, double tolerance)
{
    if (want->bytes == NULL) return;
    double largest = 0.01;
    for (int64_t k = 0; k < want->n; k++)
        largest = fmax(largest, fabs(factor * f2bi_value(want, k)));
    for (int64_t k = 0; k < want->n; k++) {
        const double g = f2bi_value(got, k), v = factor * f2bi_value(want, k);
        if (!(fabs(g - v) <= tolerance * largest))
            fail_msg("%s: %s: element %lld is %.9g, not %.9g (largest %.3g)", w->c->name, what,
                     (long long)k, g, v, largest);
    }
}

/* ---- What op tests use by themselves ---- */

static void check_near(f2b_dtype dtype, const void *data, const double *want, int64_t n,
                       double tolerance)
{
    assert_non_null(data);
    for (int64_t k = 0; k < n; k++) {
        double x;
        f2b_convert(&x, F2B_F64, (const char *)data + (size_t)k * f2b_dtype_size(dtype), dtype, 1);
        if (!(fabs(x - want[k]) <= tolerance * fmax(1, fabs(want[k]))))
            fail_msg("element %lld is %.9g, not %.9g", (long long)k, x, want[k]);
    }
}

void f2b_check_near(const f2b_tensor *x, const double *want, int64_t n, double tolerance)
{
    if (x == NULL) fail_msg("no tensor: %s", f2b_last_error());
    assert_int_equal(f2b_numel(x), n);
    check_near(x->dtype, x->data, want, n, tolerance);
}

void f2b_check_grad_near(const f2b_tensor *x, const double *want, int64_t n, double tolerance)
{
    assert_int_equal(f2b_numel(x), n);
    check_near(x->dtype, x->grad, want, n, tolerance);
}

void f2b_check_error(const void *result, f2b_status code, const char *words)
{
    assert_null(result);
    assert_int_equal(f2b_last_status(), code);
    if (strstr(f2b_last_error(), words) == NULL)
        fail_msg("the message \"%s\" lacks \"%s\"", f2b_last_error(), words);
    f2b_clear_error();
}

f2b_tensor *f2b_check_leaf(f2b_dtype dtype, int ndim, const int64_t *shape, const double *values,
                           bool requires_grad)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, dtype, ndim, shape, F2B_TAG_OTHER);
    assert_non_null(x);
    f2b_convert(x->data, dtype, values, F2B_F64, (size_t)f2b_numel(x));
    x->requires_grad = requires_grad;
    return x;
}

f2b_tensor *f2b_check_index(int ndim, const int64_t *shape, const int32_t *values)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_I32, ndim, shape, F2B_TAG_OTHER);
    assert_non_null(x);
    memcpy(x->data, values, f2b_tensor_bytes(x));
    return x;
}
