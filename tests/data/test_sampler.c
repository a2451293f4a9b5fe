/* The sampler's promises, as properties over many sizes, ratios and seeds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "data/sampler/stream.h"

static f2b_sampler *sampler(int64_t conversation, int64_t caption, int64_t both, int64_t b,
                            int64_t c, double ratio, uint64_t seed)
{
    const f2b_sampler_options o = {
        .pools = { [F2B_BATCH_CONVERSATION] = { conversation, NULL },
                   [F2B_BATCH_CAPTION] = { caption, NULL }, [F2B_BATCH_BOTH] = { both, NULL } },
        .conversation_batch = b, .contrastive_batch = c, .ratio = ratio, .seed = seed,
    };
    return f2b_sampler_new(&o);
}

static void permutations_are_bijections(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 1100; n = n < 40 ? n + 1 : n * 2 + 3) {
        const f2bi_permutation p = f2bi_permutation_new(n, 5, 0, 1, 2);
        char *seen = calloc((size_t)n, 1);
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = f2bi_permutation_at(&p, i);
            assert_in_range(at, 0, n - 1);
            assert_int_equal(seen[at], 0);
            seen[at] = 1;
        }
        free(seen);
    }
}

/* Each member comes to each place about equally often over seeds: chi-square for small n. */
static void permutations_are_even(void **state)
{
    (void)state;
    for (int n = 2; n <= 12; n++) {
        int counts[12][12] = { 0 };
        const int trials = 4000;
        for (int seed = 0; seed < trials; seed++) {
            const f2bi_permutation p = f2bi_permutation_new(n, (uint64_t)seed, 1, 0, 0);
            for (int i = 0; i < n; i++) counts[i][f2bi_permutation_at(&p, i)]++;
        }
        double chi = 0;
        const double expected = (double)trials / n;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                chi += (counts[i][j] - expected) * (counts[i][j] - expected) / expected;
        const double freedom = (double)(n - 1) * (n - 1);
        assert_true(chi < freedom + 6 * 1.5 * (freedom > 1 ? freedom : 4));
    }
}

/* Members of a pool that come in its first `passes` passes: each exactly once a pass, in order. */
static void each_member_once_an_epoch(void **state)
{
    (void)state;
    const int64_t sizes[][3] = { { 100, 70, 30 }, { 1, 1, 1 }, { 13, 997, 0 }, { 0, 64, 65 },
                                 { 500, 0, 0 }, { 0, 130, 0 }, { 33, 200, 7 } };
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            const int64_t b = 1 + (int64_t)(seed * 7), k = 3 + (int64_t)(seed * 13);
            f2b_sampler *s = sampler(sizes[c][0], sizes[c][1], sizes[c][2], b, k, 1.5, seed);
            assert_non_null(s);
            int64_t *passes[F2B_BATCH_KINDS], total[F2B_BATCH_KINDS] = { 0 };
            for (int i = 0; i < F2B_BATCH_KINDS; i++)
                passes[i] = calloc((size_t)sizes[c][i] + 1, sizeof **passes);
            f2b_draw *draws = calloc((size_t)(b + k), sizeof *draws);
            for (int64_t step = 0; step < 600; step++) {
                const f2b_plan plan = f2b_sampler_plan(s, step);
                assert_int_equal(f2b_sampler_draw(s, step, draws), F2B_OK);
                for (int64_t i = 0; i < plan.n; i++, total[plan.kind]++) {
                    const int64_t n = sizes[c][plan.kind];
                    assert_in_range(draws[i].member, 0, n - 1);
                    assert_int_equal(draws[i].epoch, total[plan.kind] / n);
                    assert_int_equal(passes[plan.kind][draws[i].member]++, draws[i].epoch);
                }
            }
            for (int i = 0; i < F2B_BATCH_KINDS; i++) free(passes[i]);
            free(draws);
            f2b_sampler_free(s);
        }
}

/* Samples under L_disc and L_AR over any window: within one batch of each kind of the ratio. */
static void losses_are_balanced_over_windows(void **state)
{
    (void)state;
    const double ratios[] = { 1.0, 0.5, 2.0, 1.37 };
    const int64_t sizes[][2] = { { 600000, 0 }, { 500, 300 }, { 90, 10 }, { 1000, 999 } };
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++)
            for (int batches = 0; batches < 3; batches++) {
                const int64_t b = (const int64_t[]){ 128, 16, 7 }[batches];
                const int64_t k = (const int64_t[]){ 1024, 16, 33 }[batches];
                const double share = (double)sizes[c][1] / (double)(sizes[c][0] + sizes[c][1]);
                f2b_sampler *s = sampler(sizes[c][0], 5000, sizes[c][1], b, k, ratios[r], 1);
                assert_non_null(s);
                if (ratios[r] <= share) {               /* `both` alone is more: no captions */
                    assert_true(f2b_sampler_share(s, F2B_BATCH_CAPTION) == 0);
                    for (int step = 0; step < 500; step++)
                        assert_int_not_equal(f2b_sampler_plan(s, step).kind, F2B_BATCH_CAPTION);
                    f2b_sampler_free(s);
                    continue;
                }
                static double lead[2001];       /* L_disc - ratio * L_AR after so many steps */
                for (int step = 0; step < 2000; step++) {
                    const f2b_plan p = f2b_sampler_plan(s, step);
                    const bool ar = p.kind != F2B_BATCH_CAPTION,
                               disc = p.kind != F2B_BATCH_CONVERSATION;
                    lead[step + 1] = lead[step] + (double)p.n * (disc - ratios[r] * ar);
                }
                const double allowed = (double)k + (double)b * (1 + ratios[r]);
                for (int from = 0; from + 50 <= 2000; from++)
                    assert_true(lead[from + 50] - lead[from] <= allowed + 1e-6 &&
                                lead[from + 50] - lead[from] >= -allowed - 1e-6);
                f2b_sampler_free(s);
            }
}

static void eight_conversation_batches_to_a_caption_batch(void **state)
{
    (void)state;
    f2b_sampler *s = sampler(665298, 3000000, 0, 128, 1024, 1.0, 42);
    for (int64_t step = 0; step < 5000; step++)
        assert_int_equal(f2b_sampler_plan(s, step).kind,
                         step % 9 == 8 ? F2B_BATCH_CAPTION : F2B_BATCH_CONVERSATION);
    assert_true(f2b_sampler_share(s, F2B_BATCH_CAPTION) == 1.0 / 9);
    assert_true(f2b_sampler_share(s, F2B_BATCH_CONVERSATION) == 8.0 / 9);
    /* ceil(665298 / 128) = 5198 conversation batches, and the 649 caption batches between them. */
    assert_int_equal(f2b_sampler_steps(s, 1), 5198 + 649);
    f2b_sampler_free(s);
    s = sampler(0, 1000, 0, 1, 64, 1.0, 42);
    assert_int_equal(f2b_sampler_steps(s, 3), 47);
    f2b_sampler_free(s);
}

/* A new sampler asked for one step alone says the same as one that went through all. */
static void any_step_alone_is_the_same(void **state)
{
    (void)state;
    uint64_t images[300];
    for (int i = 0; i < 300; i++) images[i] = (uint64_t)(i / 3) * 77 + 1;
    const f2b_sampler_options o = {
        .pools = { { 400, NULL }, { 300, images }, { 300, images } },
        .conversation_batch = 12, .contrastive_batch = 20, .ratio = 1.1, .seed = 9,
    };
    f2b_sampler *s = f2b_sampler_new(&o);
    f2b_draw all[400][20], one[20];
    for (int64_t step = 0; step < 400; step++)
        assert_int_equal(f2b_sampler_draw(s, step, all[step]), F2B_OK);
    f2b_sampler_free(s);
    for (int64_t step = 399; step >= 0; step -= 7) {
        s = f2b_sampler_new(&o);
        assert_int_equal(f2b_sampler_draw(s, step, one), F2B_OK);
        assert_memory_equal(one, all[step], sizeof *one * (size_t)f2b_sampler_plan(s, step).n);
        f2b_sampler_free(s);
    }
    f2b_sampler_options other = o;
    other.seed = 10;
    s = f2b_sampler_new(&other);
    assert_int_equal(f2b_sampler_draw(s, 5, one), F2B_OK);
    assert_memory_not_equal(one, all[5], sizeof *one * 12);
    f2b_sampler_free(s);
}

/* Batches of the caption pool over many epochs in which an image comes twice. */
static int64_t meetings(const uint64_t *images, int64_t n, int64_t batch, uint64_t seed)
{
    const f2b_sampler_options o = { .pools = { [F2B_BATCH_CAPTION] = { n, images } },
                                    .conversation_batch = 1, .contrastive_batch = batch,
                                    .seed = seed };
    f2b_sampler *s = f2b_sampler_new(&o);
    assert_non_null(s);
    f2b_draw *draws = calloc((size_t)batch, sizeof *draws);
    int64_t met = 0, *last = calloc((size_t)n, sizeof *last),
            *passes = calloc((size_t)n, sizeof *last);
    for (int64_t step = 0; step < 12 * n / batch + 3; step++) {
        assert_int_equal(f2b_sampler_draw(s, step, draws), F2B_OK);
        for (int64_t i = 0; i < batch; i++) {
            const int64_t m = draws[i].member, image = images != NULL ? (int64_t)images[m] : m;
            met += last[image] == step + 1;
            last[image] = step + 1;
            assert_int_equal(passes[m]++, draws[i].epoch);
        }
    }
    free(draws);
    free(last);
    free(passes);
    f2b_sampler_free(s);
    return met;
}

static void no_image_twice_where_the_data_allow(void **state)
{
    (void)state;
    uint64_t images[2000];
    for (uint64_t seed = 0; seed < 4; seed++) {
        for (int64_t n = 20; n <= 500; n += 61)         /* all different: down to one batch */
            for (int64_t batch = 4; batch <= n && batch < 70; batch += 11)
                assert_int_equal(meetings(NULL, n, batch, seed), 0);
        for (int64_t n = 20; n <= 200; n += 30)         /* five captions an image, as COCO */
            for (int64_t batch = 4; batch <= n; batch += 9) {
                for (int64_t i = 0; i < 5 * n; i++) images[i] = (uint64_t)(i % n);
                assert_int_equal(meetings(images, 5 * n, batch, seed), 0);
            }
        for (int64_t i = 0; i < 1000; i++)              /* one to seven captions an image */
            images[i] = (uint64_t)(f2b_hash_mix((uint64_t)i + seed) % 250);
        assert_int_equal(meetings(images, 1000, 16, seed), 0);
        for (int64_t i = 0; i < 1000; i++) images[i] = i < 50 ? 0 : (uint64_t)i; /* a hot image */
        assert_int_equal(meetings(images, 1000, 16, seed), 0);
        for (int64_t i = 0; i < 40; i++) images[i] = 3; /* impossible: one image only */
        assert_int_equal(meetings(images, 40, 8, seed), (12 * 5 + 3) * 7);
    }
}

static void epochs_differ(void **state)
{
    (void)state;
    f2b_sampler *s = sampler(256, 256, 256, 32, 32, 4.0, 3);
    f2b_draw draws[32];
    int64_t first[256], same = 0, seen[F2B_BATCH_KINDS] = { 0 };
    for (int64_t step = 0; step < 400; step++) {
        const f2b_plan p = f2b_sampler_plan(s, step);
        assert_int_equal(f2b_sampler_draw(s, step, draws), F2B_OK);
        for (int64_t i = 0; i < 32 && p.kind == F2B_BATCH_CAPTION; i++) {
            const int64_t at = seen[p.kind]++;
            if (at < 256) first[at] = draws[i].member;
            else if (at < 512) same += first[at - 256] == draws[i].member;
        }
    }
    assert_true(seen[F2B_BATCH_CAPTION] >= 512);
    assert_true(same < 10);
    f2b_sampler_free(s);
}

static void slices_of_ranks_make_the_batch(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows < 40; rows++)
        for (int ranks = 1; ranks < 9; ranks++) {
            int64_t next = 0;
            for (int rank = 0; rank < ranks; rank++) {
                int64_t begin, end;
                f2b_sampler_slice(rows, rank, ranks, &begin, &end);
                assert_int_equal(begin, next);
                assert_true(end >= begin && end - begin <= rows / ranks + 1);
                next = end;
            }
            assert_int_equal(next, rows);
        }
}

/*
 * All of it at once, for random sizes, ratios, batches and seeds: members once a pass, the ratio in
 * every window of 50 steps within one batch of each kind, pools never mixed, conversations with and
 * without a caption at one pace, and each step's rows the ones that any number of ranks draw, each
 * for itself and the last steps first.
 */
static void holds_for_random_options(void **state)
{
    (void)state;
    enum { STEPS = 400, WINDOW = 50 };
    for (uint64_t trial = 0; trial < 60; trial++) {
        f2b_rng r = f2b_rng_new(trial, F2B_RNG_TEST, 31, 0, 0);
        const int64_t n[] = { [F2B_BATCH_CONVERSATION] = (int64_t)f2b_rng_below(&r, 900),
                              [F2B_BATCH_CAPTION] = 60 + (int64_t)f2b_rng_below(&r, 3000),
                              [F2B_BATCH_BOTH] = (int64_t)f2b_rng_below(&r, 600) + 60 };
        const int64_t b = 1 + (int64_t)f2b_rng_below(&r, 30);
        const int64_t k = 2 + (int64_t)f2b_rng_below(&r, 50);
        const double ratio = 0.25 + 3 * (double)f2b_rng_uniform(&r);
        const uint64_t seed = f2b_rng_u32(&r);
        f2b_sampler *s = sampler(n[0], n[1], n[2], b, k, ratio, seed);
        assert_non_null(s);
        const bool captions = f2b_sampler_share(s, F2B_BATCH_CAPTION) > 0;
        int64_t *passes[F2B_BATCH_KINDS], came[F2B_BATCH_KINDS] = { 0 };
        for (int i = 0; i < F2B_BATCH_KINDS; i++) passes[i] = calloc((size_t)n[i] + 1, 8);
        static double lead[STEPS + 1];
        static f2b_draw all[STEPS][64], own[64];
        for (int64_t step = 0; step < STEPS; step++) {
            const f2b_plan p = f2b_sampler_plan(s, step);
            assert_int_equal(p.n, p.kind == F2B_BATCH_CAPTION ? k : b);
            assert_int_equal(f2b_sampler_draw(s, step, all[step]), F2B_OK);
            for (int64_t i = 0; i < p.n; i++, came[p.kind]++) {
                const f2b_draw d = all[step][i];
                assert_in_range(d.member, 0, n[p.kind] - 1);        /* of this kind's pool */
                assert_int_equal(d.epoch, came[p.kind] / n[p.kind]);
                assert_int_equal(passes[p.kind][d.member]++, d.epoch);
            }
            lead[step + 1] = lead[step] + (double)p.n * ((p.kind != F2B_BATCH_CONVERSATION) -
                                                         ratio * (p.kind != F2B_BATCH_CAPTION));
            /* Both pools of conversations are used at the pace of their sizes. */
            const double share = (double)n[F2B_BATCH_BOTH] / (double)(n[0] + n[F2B_BATCH_BOTH]);
            const double ahead = (double)came[F2B_BATCH_BOTH] -
                                 share * (double)(came[0] + came[F2B_BATCH_BOTH]);
            assert_true(ahead <= (double)b && ahead >= -(double)b);
        }
        const double allowed = (double)k + (double)b * (1 + ratio) + 1e-6;
        for (int from = 0; captions && from + WINDOW <= STEPS; from++)
            assert_true(fabs(lead[from + WINDOW] - lead[from]) <= allowed);
        f2b_sampler_free(s);
        const int ranks = 1 + (int)f2b_rng_below(&r, 7);
        for (int rank = 0; rank < ranks; rank++) {
            s = sampler(n[0], n[1], n[2], b, k, ratio, seed);
            for (int64_t step = STEPS - 1; step >= 0; step -= 3) {
                const f2b_plan p = f2b_sampler_plan(s, step);
                int64_t begin, end;
                f2b_sampler_slice(p.n, rank, ranks, &begin, &end);
                assert_int_equal(f2b_sampler_draw(s, step, own), F2B_OK);
                if (end > begin)
                    assert_memory_equal(own + begin, all[step] + begin,
                                        sizeof *own * (size_t)(end - begin));
            }
            f2b_sampler_free(s);
        }
        for (int i = 0; i < F2B_BATCH_KINDS; i++) free(passes[i]);
    }
}

/*
 * Grouped conversations: each member once an epoch; an image's members in a row, so that at most one
 * image a batch end is divided; any step alone the same; the other kinds as they are ungrouped.
 */
static void grouped_images_come_together(void **state)
{
    (void)state;
    enum { N = 331, B = 16, STEPS = 200 };
    uint64_t images[N];
    for (uint64_t seed = 0; seed < 3; seed++) {
        for (uint64_t i = 0; i < N; i++)        /* one image with all, one of none, 1 to 9 records */
            images[i] = seed == 2 ? 7 : f2b_hash_mix(i + seed) % 97 + (i % 5 == 0 ? 1000 + i : 0);
        f2b_sampler_options o = { .pools = { { N, images }, { 90, NULL }, { 50, NULL } },
                                  .conversation_batch = B, .contrastive_batch = 20, .ratio = 1.1,
                                  .seed = seed, .group_images = true };
        f2b_sampler *s = f2b_sampler_new(&o);
        o.group_images = false;
        f2b_sampler *plain = f2b_sampler_new(&o);
        f2b_draw draws[STEPS][20], other[20];
        int64_t passes[N] = { 0 }, came = 0, breaks = 0, kinds[N + 1] = { 0 }, n_images = 0;
        for (int i = 0; i < N; i++) {
            int first = 0;
            while (images[first] != images[i]) first++;
            n_images += first == i;
        }
        uint64_t last = 0;
        for (int64_t step = 0; step < STEPS; step++) {
            const f2b_plan p = f2b_sampler_plan(s, step);
            assert_int_equal(p.kind, f2b_sampler_plan(plain, step).kind);
            assert_int_equal(f2b_sampler_draw(s, step, draws[step]), F2B_OK);
            assert_int_equal(f2b_sampler_draw(plain, step, other), F2B_OK);
            if (p.kind != F2B_BATCH_CONVERSATION) {
                assert_memory_equal(draws[step], other, sizeof *other * (size_t)p.n);
                continue;
            }
            for (int64_t i = 0; i < p.n; i++, came++) {
                const f2b_draw d = draws[step][i];
                assert_int_equal(d.epoch, came / N);
                assert_int_equal(passes[d.member]++, d.epoch);
                if (came % N == 0 || images[d.member] != last) breaks++;
                last = images[d.member];
                kinds[came / N] = breaks;       /* images begun by the end of each epoch */
            }
        }
        assert_true(came > 2 * N);
        assert_int_equal(kinds[0], n_images);   /* each image begins once in an epoch */
        assert_int_equal(kinds[1], 2 * n_images);
        f2b_sampler_free(s);
        o.group_images = true;
        for (int64_t step = STEPS - 1; step >= 0; step -= 13) {
            s = f2b_sampler_new(&o);
            assert_int_equal(f2b_sampler_draw(s, step, other), F2B_OK);
            assert_memory_equal(other, draws[step],
                                sizeof *other * (size_t)f2b_sampler_plan(s, step).n);
            f2b_sampler_free(s);
        }
        f2b_sampler_free(plain);
    }
}

static void stand_ins_are_pure_and_varied(void **state)
{
    (void)state;
    f2b_sampler *s = sampler(1000, 0, 0, 4, 4, 1.0, 7);
    const f2b_draw a = { 17, 2 }, b = { 18, 2 };
    int equal = 0;
    for (int64_t attempt = 0; attempt < 200; attempt++) {
        const int64_t x = f2b_sampler_substitute(s, F2B_BATCH_CONVERSATION, a, attempt);
        assert_in_range(x, 0, 999);
        assert_int_equal(x, f2b_sampler_substitute(s, F2B_BATCH_CONVERSATION, a, attempt));
        equal += x == f2b_sampler_substitute(s, F2B_BATCH_CONVERSATION, b, attempt);
    }
    assert_true(equal < 5);
    f2b_sampler_free(s);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    assert_null(sampler(0, 0, 0, 1, 1, 1.0, 0));
    assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
    assert_null(sampler(5, 5, 0, 0, 1, 1.0, 0));
    assert_null(sampler(5, 5, 0, 1, 1, -1.0, 0));
    assert_null(sampler(5, 5, 0, 1, 1, 0.0 / 0.0, 0));
    f2b_sampler *s = sampler(5, 0, 5, 1, 1, 0.0, 0);    /* no captions: the ratio says nothing */
    assert_non_null(s);
    f2b_sampler_free(s);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_DATA), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutations_are_bijections),
        cmocka_unit_test(permutations_are_even),
        cmocka_unit_test(each_member_once_an_epoch),
        cmocka_unit_test(losses_are_balanced_over_windows),
        cmocka_unit_test(eight_conversation_batches_to_a_caption_batch),
        cmocka_unit_test(any_step_alone_is_the_same),
        cmocka_unit_test(no_image_twice_where_the_data_allow),
        cmocka_unit_test(epochs_differ),
        cmocka_unit_test(slices_of_ranks_make_the_batch),
        cmocka_unit_test(holds_for_random_options),
        cmocka_unit_test(grouped_images_come_together),
        cmocka_unit_test(stand_ins_are_pure_and_varied),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
