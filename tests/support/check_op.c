/* The checks of check_op.h: each compares runs of a case (check_run.h) in different settings. */
#include "tests/support/check_op.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "autograd/device/cpu/products.h"
#include "autograd/device/device.h"
#include "tests/emulation/emulation.h"
#include "tests/support/amx_trap.h"
#include "tests/support/check_run.h"

static void check_repeatable(const f2bi_world *w)
{
    const f2b_dtype types[] = { F2B_F32, F2B_BF16 };
    for (int t = 0; t < 2; t++) {
        f2bi_result one, other;
        omp_set_num_threads(1);
        f2bi_run_case(w, (f2bi_setting){ .dtype = types[t] }, &one);
        for (int threads = 2; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            f2bi_run_case(w, (f2bi_setting){ .dtype = types[t] }, &other);
            f2bi_same_bits(w, "repeatable", &one, &other, 0);
            f2bi_result_free(&other);
        }
        omp_set_num_threads(2);
        f2bi_result_free(&one);
    }
}

/* Copy number k of every row has the bits of copy 0. */
static void check_copies(const f2bi_world *w, const char *what, int number, const f2bi_values *once,
                         const f2bi_values *thrice)
{
    if (once->bytes == NULL) return;
    const size_t bytes = (size_t)once->n * f2b_dtype_size(once->dtype);
    for (int k = 0; k < 3; k++)
        if (thrice->n != 3 * once->n
            || memcmp(once->bytes, (char *)thrice->bytes + (size_t)k * bytes, bytes) != 0)
            fail_msg("%s: by row: copy %d of %s %d differs", w->c->name, k, what, number);
}

static void check_by_row(const f2bi_world *w)
{
    bool any = false;
    for (int i = 0; i < w->c->n_in; i++) any |= w->c->in[i].by_row;
    const f2b_dtype types[] = { F2B_F32, F2B_BF16 };
    for (int t = 0; t < 2 && any; t++) {
        f2bi_result once, thrice;
        f2bi_run_case(w, (f2bi_setting){ .dtype = types[t] }, &once);
        f2bi_run_case(w, (f2bi_setting){ .dtype = types[t], .copies = 3 }, &thrice);
        for (int o = 0; o < once.n_out; o++)
            check_copies(w, "output", o, &once.out[o], &thrice.out[o]);
        for (int i = 0; i < w->c->n_in; i++)
            if (w->c->in[i].by_row)
                check_copies(w, "gradient", i, &once.grad[i], &thrice.grad[i]);
        f2bi_result_free(&once);
        f2bi_result_free(&thrice);
    }
}

/* L = sum upstream * output, so dL/dx[e] = sum upstream * (y(x + h) - y(x - h)) / 2h: the
 * difference is taken before the sum, which would drown it. */
static double difference(const f2bi_world *w, double *const *upstream, int input, int64_t element)
{
    const double h = 1e-6;
    f2bi_setting s = {
        .dtype = F2B_F64, .forward_only = true, .nudged = input, .element = element
    };
    f2bi_result low, high;
    s.nudge = -h;
    f2bi_run_case(w, s, &low);
    s.nudge = h;
    f2bi_run_case(w, s, &high);
    double sum = 0;
    for (int o = 0; o < low.n_out; o++) {
        const double *a = low.out[o].bytes, *b = high.out[o].bytes;
        for (int64_t k = 0; k < low.out[o].n; k++) sum += upstream[o][k] * (b[k] - a[k]);
    }
    f2bi_result_free(&low);
    f2bi_result_free(&high);
    return sum / (2 * h);
}

static void check_gradient(const f2bi_world *w)
{
    const double tolerance = w->c->gradcheck_tolerance > 0 ? w->c->gradcheck_tolerance : 1e-6;
    double *upstream[F2B_MAX_OUT] = { 0 };
    int64_t size = 0;                       /* of one run: what a picked element costs */
    f2bi_result r;
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F64 }, &r);
    for (int o = 0; o < r.n_out; o++)
        upstream[o] = f2bi_upstream(w, o, r.out[o].n), size += r.out[o].n;
    for (int i = 0; i < w->c->n_in; i++) size += r.grad[i].n;
    const int64_t most = size < 5000 ? 200 : size < 50000 ? 20 : 5;
    for (int i = 0; i < w->c->n_in; i++) {
        if (r.grad[i].bytes == NULL) continue;
        const int64_t n = r.grad[i].n, picked = n < most ? n : most;
        for (int64_t p = 0; p < picked; p++) {
            const int64_t e = p * n / picked + (n / picked) / 2;
            const double got = f2bi_value(&r.grad[i], e), want = difference(w, upstream, i, e);
            if (!(fabs(got - want) <= tolerance * fmax(1, fabs(got))))
                fail_msg("%s: gradcheck of input %d at %lld: backward %.12g, differences %.12g",
                         w->c->name, i, (long long)e, got, want);
        }
    }
    for (int o = 0; o < r.n_out; o++) f2b_free(upstream[o]);
    f2bi_result_free(&r);
}

static void check_accumulate(const f2bi_world *w)
{
    f2bi_result once, twice, used_twice;
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F64 }, &once);
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F64, .passes = 2 }, &twice);
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F64, .through_tape = true, .uses = 2 },
                  &used_twice);
    for (int i = 0; i < w->c->n_in; i++) {
        f2bi_near(w, "accumulate", &twice.grad[i], &once.grad[i], 2, 1e-12);
        f2bi_near(w, "used twice", &used_twice.grad[i], &once.grad[i], 2, 1e-12);
    }
    f2bi_result_free(&once);
    f2bi_result_free(&twice);
    f2bi_result_free(&used_twice);
}

static void check_written(const f2bi_world *w)
{
    const f2b_dtype types[] = { F2B_F32, F2B_BF16 };
    for (int t = 0; t < 2; t++) {
        f2bi_result leaf, tape;
        f2bi_run_case(w, (f2bi_setting){ .dtype = types[t] }, &leaf);
        f2bi_run_case(w, (f2bi_setting){ .dtype = types[t], .through_tape = true }, &tape);
        f2bi_same_bits(w, "written", &leaf, &tape, 0);
        f2bi_result_free(&leaf);
        f2bi_result_free(&tape);
    }
}

static void check_frozen(const f2bi_world *w)
{
    f2bi_result all, some;
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F32 }, &all);
    for (int i = 0; i < w->c->n_in; i++) {
        if (!f2bi_wants(w, i)) continue;
        f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F32, .frozen = 1u << i }, &some);
        if (some.grad[i].bytes != NULL)
            fail_msg("%s: frozen: input %d got a gradient", w->c->name, i);
        f2bi_same_bits(w, "frozen", &all, &some, 1u << i);
        f2bi_result_free(&some);
    }
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F32, .frozen = ~0u }, &some);
    if (some.nodes != 0) fail_msg("%s: frozen: a node was recorded for nothing", w->c->name);
    f2bi_same_bits(w, "frozen", &all, &some, ~0u);
    f2bi_result_free(&some);
    f2bi_result_free(&all);
}

static void check_storage(const f2bi_world *w)
{
    const f2b_dtype types[] = { F2B_F32, F2B_BF16 }, stored[] = { F2B_BF16, F2B_F16 };
    for (int i = 0; i < w->c->n_in; i++) {
        if (w->c->in[i].role != F2B_CHECK_PARAMETER) continue;
        for (int t = 0; t < 2; t++) {
            f2bi_result want, got;
            f2bi_setting s = { .dtype = types[t], .frozen = 1u << i };
            f2bi_run_case(w, s, &want);
            for (int k = 0; k < 2; k++) {
                s.stored = true, s.storage = stored[k], s.stored_input = i;
                f2bi_run_case(w, s, &got);
                f2bi_same_bits(w, "storage", &want, &got, 1u << i);
                f2bi_result_free(&got);
            }
            f2bi_result_free(&want);
        }
    }
}

static void check_near(const f2bi_world *w, const char *what, const f2bi_result *want,
                       f2b_dtype dtype, double tolerance)
{
    f2bi_result got;
    f2bi_run_case(w, (f2bi_setting){ .dtype = dtype }, &got);
    for (int o = 0; o < want->n_out; o++)
        f2bi_near(w, what, &got.out[o], &want->out[o], 1, tolerance);
    for (int i = 0; i < w->c->n_in; i++)
        f2bi_near(w, what, &got.grad[i], &want->grad[i], 1, tolerance);
    f2bi_result_free(&got);
}

static void check_precision(const f2bi_world *w)
{
    f2bi_result want;
    f2bi_run_case(w, (f2bi_setting){ .dtype = F2B_F64 }, &want);
    check_near(w, "f32 against f64", &want, F2B_F32,
               w->c->f32_tolerance > 0 ? w->c->f32_tolerance : 1e-5);
    for (int f = 0; f < F2B_PRODUCTS_COUNT; f++) {
        if (!f2b_products_available(f)) continue;
        assert_int_equal(f2b_products_choose(f2b_products_name(f)), F2B_OK);
        check_near(w, "bf16 against f64", &want, F2B_BF16,
                   w->c->bf16_tolerance > 0 ? w->c->bf16_tolerance : 2e-2);
    }
    assert_int_equal(f2b_products_choose(NULL), F2B_OK);
    f2bi_result_free(&want);
}

/* ---- CUDA against the CPU ---- */

/* Only in programs that have the emulated device; the real one chooses its own order. */
void f2b_emulation_set_order(f2b_emulation_order order, uint64_t seed) F2B_WEAK;

/* In every order of threads, or in the shuffled one alone. */
static void check_on_cuda(const f2bi_world *host, const f2bi_world *device, f2bi_setting s,
                          bool every_order)
{
    const double f32 = host->c->f32_tolerance > 0 ? host->c->f32_tolerance : 1e-5;
    const double bf16 = host->c->bf16_tolerance > 0 ? host->c->bf16_tolerance : 2e-2;
    const double tolerance = s.dtype == F2B_F32 ? f32 : bf16;
    const char *what = s.dtype == F2B_F32 ? "cuda against cpu, f32" : "cuda against cpu, bf16";
    f2bi_result want, first, got;
    f2bi_run_case(host, s, &want);
    if (f2b_emulation_set_order != NULL) f2b_emulation_set_order(F2B_SHUFFLED, 7);
    f2bi_run_case(device, s, &first);
    const f2b_emulation_order others[] = { F2B_ASCENDING, F2B_DESCENDING };
    for (int i = 0; i < 2 && every_order; i++) {
        if (f2b_emulation_set_order != NULL) f2b_emulation_set_order(others[i], 0);
        f2bi_run_case(device, s, &got);
        f2bi_same_bits(host, "cuda: another order of threads", &first, &got, 0);
        f2bi_result_free(&got);
    }
    assert_int_equal(first.n_out, want.n_out);
    assert_in_range(first.nodes, want.nodes,
                    want.nodes + host->c->more_nodes_on_device * (s.uses > 1 ? s.uses : 1));
    for (int o = 0; o < want.n_out; o++) f2bi_near(host, what, &first.out[o], &want.out[o], 1, tolerance);
    for (int i = 0; i < host->c->n_in; i++) {
        if ((first.grad[i].bytes == NULL) != (want.grad[i].bytes == NULL))
            fail_msg("%s: cuda: input %d has a gradient on one device only", host->c->name, i);
        f2bi_near(host, what, &first.grad[i], &want.grad[i], 1, tolerance);
    }
    f2bi_result_free(&first);
    f2bi_result_free(&want);
}

static void check_cuda(const f2bi_world *host)
{
    const f2b_device cuda = { F2B_CUDA, 0 };
    if (!f2b_device_built(F2B_CUDA)) return;
    if (f2b_device_open(cuda) != F2B_OK) {
        print_message("[   CUDA   ] there is no CUDA device here: %s\n", f2b_last_error());
        return;
    }
    f2bi_world *w = f2bi_world_new(host->c, cuda);
    const f2b_dtype types[] = { F2B_F32, F2B_BF16 };
    for (int t = 0; t < 2; t++) {
        f2bi_setting in[] = { { .dtype = types[t] }, { .dtype = types[t], .passes = 2, .copies = 3 },
                              { .dtype = types[t], .through_tape = true, .uses = 2 } };
        for (int i = 0; i < 3; i++) check_on_cuda(host, w, in[i], i == 0);
        for (int i = 0; i < host->c->n_in; i++) {
            if (!f2bi_wants(host, i)) continue;
            f2bi_setting s = { .dtype = types[t], .frozen = 1u << i };
            check_on_cuda(host, w, s, false);
            if (host->c->in[i].role != F2B_CHECK_PARAMETER) continue;
            s.stored = true, s.stored_input = i, s.storage = t == 0 ? F2B_BF16 : F2B_F16;
            check_on_cuda(host, w, s, false);
        }
    }
    f2bi_world_free(w);
}

void f2b_check_op(const f2b_check_case *c)
{
    f2b_amx_trap();
    const int64_t before = f2b_bytes_in_use(F2B_TAG_COUNT);
    f2bi_world *w = f2bi_world_new(c, F2B_HOST);
    for (int f = 0; f < F2B_PRODUCTS_COUNT; f++) {
        if (!f2b_products_available(f)) continue;
        assert_int_equal(f2b_products_choose(f2b_products_name(f)), F2B_OK);
        check_repeatable(w);
        check_by_row(w);
    }
    assert_int_equal(f2b_products_choose(NULL), F2B_OK);
    check_gradient(w);
    check_accumulate(w);
    check_written(w);
    check_frozen(w);
    check_storage(w);
    check_precision(w);
    check_cuda(w);
    f2bi_world_free(w);
    if (f2b_bytes_in_use(F2B_TAG_COUNT) != before)
        fail_msg("%s: leaks: %lld bytes more in use", c->name,
                 (long long)(f2b_bytes_in_use(F2B_TAG_COUNT) - before));
}

void f2b_check_ops(const f2b_check_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) f2b_check_op(&cases[i]);
}
