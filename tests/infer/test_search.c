/* Search in a store: by hand, ties, threads, shards, and means that are stale, damaged or
 * forbidden. tests/infer/test_search_programs.py compares with NumPy. */
#include <math.h>
#include <omp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/checkpoints/fixtures.h"

#include "autograd/core/dtype.h"
#include "checkpoints/store_writer.h"
#include "infer/search_means.h"

enum { D = 4, K = 2 };

static f2b_store_identity identity_of(int64_t tokens, int64_t width)
{
    return (f2b_store_identity){
        .tokens = tokens, .width = width, .precision = "f32", .weights = "f32",
        .method = { .tokens = tokens, .prompt = "p", .temperature = 1,
                    .lora = { .r = 1, .alpha = 1, .targets = 1 } },
        .base = "xxh3:00000000000000000000000000000001",
        .adapter = "xxh3:00000000000000000000000000000002",
    };
}

/* values: f32 [n, K, d]. */
static const char *make_store(const char *name, const float *values, int64_t n, int64_t tokens,
                              int64_t d, int64_t shard_images)
{
    const char *path = in_temp(name);
    const f2b_store_identity identity = identity_of(tokens, d);
    f2b_store_writer *w = f2b_store_writer_open(path, &identity, shard_images);
    if (w == NULL) fail_msg("%s", f2b_last_error());
    for (int64_t i = 0; i < n; i++) {
        char id[32];
        uint8_t hash[16] = { (uint8_t)i, (uint8_t)(i >> 8), 1 };
        uint16_t *to;
        snprintf(id, sizeof id, "%lld.png", (long long)i);
        if (f2b_store_writer_is_full(w)) assert_int_equal(f2b_store_writer_commit(w), F2B_OK);
        assert_int_equal(f2b_store_writer_add(w, id, hash, &to), F2B_OK);
        f2b_convert(to, F2B_F16, values + i * tokens * d, F2B_F32, (size_t)(tokens * d));
    }
    assert_int_equal(f2b_store_writer_commit(w), F2B_OK);
    f2b_store_writer_close(w);
    return path;
}

/* Means (1,0,0,0), (3,4,0,0)/5, (0,1,0,0), (1,0,0,0) again but longer, (-1,0,0,0). */
static const float by_hand[5][K][D] = {
    { { 2, 0, 0, 0 }, { 0, 0, 0, 0 } }, { { 3, 1, 2, 0 }, { 0, 3, -2, 0 } },
    { { 1, 1, 0, 0 }, { -1, 3, 0, 0 } }, { { 7, 1, 1, 1 }, { 1, -1, -1, -1 } },
    { { -1, 0, 0, 0 }, { -1, 0, 0, 0 } },
};

static f2b_tensor *leaf(int64_t n, int64_t d, const float *values)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ n, d },
                                   F2B_TAG_ACTIVATIONS);
    assert_non_null(x);
    memcpy(x->data, values, (size_t)(n * d) * sizeof(float));
    return x;
}

static char told[512];

static void note(void *user, const char *text)
{
    (void)user;
    snprintf(told, sizeof told, "%s", text);
}

static f2b_status search(const char *path, const f2b_tensor *queries, int64_t k,
                         f2b_search_hit *hits)
{
    const f2b_search_hooks hooks = { .note = note };
    told[0] = '\0';
    f2b_store *store = f2b_store_open(path);
    if (store == NULL) return f2b_last_status();
    const f2b_status status = f2b_search_store(store, queries, k, &hooks, hits);
    f2b_store_close(store);
    return status;
}

static void assert_by_hand(const char *path)
{
    f2b_tensor *q = leaf(2, D, (float[]){ 10, 0, 0, 0, 1, 7, 0, 0 });
    f2b_search_hit h[2 * 5];
    if (search(path, q, 5, h) != F2B_OK) fail_msg("%s", f2b_last_error());
    const int64_t rows[] = { 0, 3, 1, 2, 4, 2, 1, 0, 3, 4 };    /* 0 and 3 are equal: lower first */
    const double r = sqrt(50);
    const double scores[] = { 1, 1, 0.6, 0, -1, 7 / r, (0.6 + 5.6) / r, 1 / r, 1 / r, -1 / r };
    for (int i = 0; i < 10; i++) {
        assert_int_equal(h[i].row, rows[i]);
        assert_true(fabs((double)h[i].score - scores[i]) < 5e-4);
    }
    f2b_tensor_free(q);
}

static void test_by_hand(void **state)
{
    (void)state;
    for (int shard = 1; shard <= 6; shard++) {
        char name[16];
        snprintf(name, sizeof name, "hand%d", shard);
        char path[256];
        snprintf(path, sizeof path, "%s", make_store(name, &by_hand[0][0][0], 5, K, D, shard));
        assert_by_hand(path);
        assert_string_equal(told, "");
        assert_by_hand(path);           /* from the means that were kept */
    }
}

static void test_rows_in_memory(void **state)
{
    (void)state;
    f2b_tensor *items = leaf(3, 2, (float[]){ 1, 1, 5, 0, 0, 0 });
    f2b_tensor *q = leaf(1, 2, (float[]){ 3, 0 });
    f2b_search_hit h[3];
    assert_int_equal(f2b_search_rows(items, q, 3, h), F2B_OK);
    assert_int_equal(h[0].row, 1);
    assert_int_equal(h[1].row, 0);
    assert_int_equal(h[2].row, 2);      /* a row of zeros is like nothing: 0 */
    assert_true(h[0].score == 1 && h[2].score == 0);
    assert_int_equal(f2b_search_rows(items, q, 4, h), F2B_ERR_INVALID);
    assert_int_equal(f2b_search_rows(items, q, 0, h), F2B_ERR_INVALID);
    ((float *)items->data)[3] = NAN;
    assert_int_equal(f2b_search_rows(items, q, 1, h), F2B_ERR_NUMBERS);
    ((float *)items->data)[3] = 0;
    ((float *)q->data)[1] = INFINITY;
    assert_int_equal(f2b_search_rows(items, q, 1, h), F2B_ERR_NUMBERS);
    f2b_tensor_free(items);
    f2b_tensor_free(q);
}

/* Few values, so that many cosines are equal; more queries than one pass takes. */
static void test_threads_and_ties(void **state)
{
    (void)state;
    enum { N = 3000, d = 40, Q = 300, TOP = 50 };
    float *values = f2b_calloc(N + Q, d * sizeof *values, F2B_TAG_OTHER);
    uint32_t r = 1;
    for (int i = 0; i < (N + Q) * d; i++) {
        r = r * 1664525u + 1013904223u;
        values[i] = (float)((int)(r >> 30) - 1);
    }
    for (int i = 1; i < N; i += 3) memcpy(values + i * d, values + (i / 7) * d, d * sizeof *values);
    char path[256];
    snprintf(path, sizeof path, "%s", make_store("ties", values, N, 1, d, 700));
    f2b_tensor *q = leaf(Q, d, values + N * d);
    f2b_search_hit *h[3];
    const int before = omp_get_max_threads();
    for (int t = 0; t < 3; t++) {
        omp_set_num_threads(t + 1);
        h[t] = f2b_calloc(Q, TOP * sizeof *h[t], F2B_TAG_OTHER);
        assert_int_equal(search(path, q, TOP, h[t]), F2B_OK);
    }
    int equal = 0;
    for (int i = 0; i < Q * TOP; i++) {
        for (int t = 1; t < 3; t++) {
            assert_int_equal(h[t][i].row, h[0][i].row);
            assert_true(h[t][i].score == h[0][i].score);
        }
        if (i % TOP == 0) continue;
        const f2b_search_hit a = h[0][i - 1], b = h[0][i];
        assert_true(a.score > b.score || (a.score == b.score && a.row < b.row));
        equal += a.score == b.score;
    }
    assert_true(equal > 1000);
    /* A query alone finds, to the bit, what it found among the others. */
    f2b_tensor *one = leaf(1, d, values + (N + 270) * d);
    f2b_search_hit alone[TOP];
    assert_int_equal(search(path, one, TOP, alone), F2B_OK);
    for (int i = 0; i < TOP; i++) {
        assert_int_equal(alone[i].row, h[0][270 * TOP + i].row);
        assert_true(alone[i].score == h[0][270 * TOP + i].score);
    }
    omp_set_num_threads(before);
    for (int t = 0; t < 3; t++) f2b_free(h[t]);
    f2b_tensor_free(one);
    f2b_tensor_free(q);
    f2b_free(values);
}

/* ---- The kept means ---- */

static char *read_whole(const char *path, int64_t *bytes)
{
    char *text = f2b_read_file(path, 1 << 20, bytes);
    if (text == NULL) fail_msg("%s", f2b_last_error());
    return text;
}

static void means_path(char out[320], const char *store, int shard)
{
    snprintf(out, 320, "%s/shard-%05d.h5" F2B_MEANS_SUFFIX, store, shard);
}

/* Every byte changed, every length cut: the results stay, the file is made again. */
static void test_damaged_means(void **state)
{
    (void)state;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);             /* hundreds of tiny searches: threads would only wait */
    char path[256], means[320];
    snprintf(path, sizeof path, "%s", make_store("damaged", &by_hand[0][0][0], 5, K, D, 3));
    means_path(means, path, 1);
    assert_by_hand(path);
    int64_t n, m;
    char *good = read_whole(means, &n);
    for (int64_t at = 0; at <= 2 * n; at++) {
        char *bad = f2b_alloc_host((size_t)n + 1, F2B_TAG_OTHER);
        memcpy(bad, good, (size_t)n);
        bad[n] = 0;
        if (at < n) bad[at] ^= 0x10;
        write_bytes(means, bad, at < n ? (size_t)n : at == 2 * n ? (size_t)n + 1 : (size_t)(at - n));
        f2b_free(bad);
        assert_by_hand(path);
        char *again = read_whole(means, &m);
        assert_int_equal(m, n);
        assert_memory_equal(again, good, n);
        f2b_free(again);
    }
    omp_set_num_threads(threads);
    f2b_free(good);
}

/* Means of another shard of the same form are not taken; nor is what a killed writer left. */
static void test_stale_means(void **state)
{
    (void)state;
    float other[5][K][D];
    memcpy(other, by_hand, sizeof other);
    other[0][0][0] = -2;
    char path[256], means[320], partial[340];
    snprintf(path, sizeof path, "%s", make_store("other", &other[0][0][0], 5, K, D, 3));
    means_path(means, path, 0);
    f2b_tensor *q = leaf(1, D, (float[]){ 1, 0, 0, 0 });
    f2b_search_hit h[1];
    assert_int_equal(search(path, q, 1, h), F2B_OK);
    assert_int_equal(h[0].row, 3);
    int64_t n;
    char *stale = read_whole(means, &n);
    snprintf(path, sizeof path, "%s", make_store("stale", &by_hand[0][0][0], 5, K, D, 3));
    means_path(means, path, 0);
    write_bytes(means, stale, (size_t)n);
    snprintf(partial, sizeof partial, "%s" F2B_PARTIAL_SUFFIX, means);
    write_bytes(partial, stale, (size_t)n / 2);
    assert_by_hand(path);
    f2b_free(stale);
    f2b_tensor_free(q);
}

/* Where the file cannot be written (a folder has its name) the tokens themselves are read. */
static void test_means_that_cannot_be_kept(void **state)
{
    (void)state;
    char path[256], means[320];
    snprintf(path, sizeof path, "%s", make_store("kept", &by_hand[0][0][0], 5, K, D, 3));
    means_path(means, path, 0);
    assert_int_equal(mkdir(means, 0700), 0);
    assert_by_hand(path);
    assert_non_null(strstr(told, "cannot be kept"));
}

/* ---- Refusals ---- */

static void refused(const char *path, int64_t k, f2b_status status, const char *text)
{
    f2b_tensor *q = leaf(1, D, (float[]){ 1, 0, 0, 0 });
    f2b_search_hit h[8];
    assert_int_equal(search(path, q, k, h), status);
    if (strstr(f2b_last_error(), text) == NULL) fail_msg("%s", f2b_last_error());
    f2b_tensor_free(q);
}

/* Change one byte of the file, or cut it off there. */
static void damage(const char *path, int64_t at, bool cut)
{
    if (cut) {
        assert_int_equal(truncate(path, at), 0);
        return;
    }
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    const int byte = fgetc(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, f), byte ^ 1);
    assert_int_equal(fclose(f), 0);
}

static void test_refusals(void **state)
{
    (void)state;
    char path[256], shard[300];
    refused(in_temp("nowhere"), 1, F2B_ERR_NOT_FOUND, "nowhere");
    snprintf(path, sizeof path, "%s", make_store("bad", &by_hand[0][0][0], 5, K, D, 3));
    refused(path, 6, F2B_ERR_INVALID, "best 6 of 5");

    /* A changed token is found when means are made of it: its place is told by the store. */
    snprintf(shard, sizeof shard, "%s/shard-00001.h5", path);
    f2b_store *store = f2b_store_open(path);
    const int64_t at = f2b_store_shard_at(store, 1)->offset;
    f2b_store_close(store);
    damage(shard, at + 3, false);
    refused(path, 1, F2B_ERR_FORMAT, "shard-00001.h5 is damaged");
    damage(shard, at + 3, false);
    assert_by_hand(path);
    damage(shard, at + 3, true);
    refused(path, 1, F2B_ERR_FORMAT, "cut off");

    float odd[5][K][D];
    memcpy(odd, by_hand, sizeof odd);
    odd[4][1][2] = NAN;
    snprintf(path, sizeof path, "%s", make_store("odd", &odd[0][0][0], 5, K, D, 3));
    refused(path, 1, F2B_ERR_NUMBERS, "tokens of row 4 are not finite");
}

static void test_stored_query(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s", make_store("query", &by_hand[0][0][0], 5, K, D, 2));
    f2b_store *store = f2b_store_open(path);
    f2b_tensor *q = f2b_search_embed_stored(store, 1);
    assert_non_null(q);
    assert_memory_equal(q->data, ((float[]){ 1.5, 2, 0, 0 }), D * sizeof(float));
    f2b_tensor_free(q);
    f2b_store_close(store);
}

/* Images that differ by less than f16 keeps: still the one that was asked for comes first, and no
 * cosine is above 1. */
static void test_alike(void **state)
{
    (void)state;
    enum { N = 24, WIDE = 48 };
    static float values[N][1][WIDE];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < WIDE; j++)
            values[i][0][j] = (float)(sin(j + 1) + 0.003 * sin(17.0 * i * (j + 2)));
    f2b_store *store = f2b_store_open(make_store("alike", &values[0][0][0], N, 1, WIDE, 10));
    assert_non_null(store);
    const f2b_search_hooks hooks = { .note = note };
    for (int row = 0; row < N; row++) {
        f2b_tensor *q = f2b_search_embed_stored(store, row);
        f2b_search_hit h[2];
        assert_int_equal(f2b_search_store(store, q, 2, &hooks, h), F2B_OK);
        assert_int_equal(h[0].row, row);
        assert_true(fabsf(h[0].score - 1) < 1e-6f && h[1].score < 1);
        f2b_tensor_free(q);
    }
    f2b_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_by_hand, make_temp_folder, remove_temp_folder),
        cmocka_unit_test(test_rows_in_memory),
        cmocka_unit_test_setup_teardown(test_threads_and_ties, make_temp_folder,
                                        remove_temp_folder),
        cmocka_unit_test_setup_teardown(test_damaged_means, make_temp_folder, remove_temp_folder),
        cmocka_unit_test_setup_teardown(test_stale_means, make_temp_folder, remove_temp_folder),
        cmocka_unit_test_setup_teardown(test_means_that_cannot_be_kept, make_temp_folder,
                                        remove_temp_folder),
        cmocka_unit_test_setup_teardown(test_refusals, make_temp_folder, remove_temp_folder),
        cmocka_unit_test_setup_teardown(test_stored_query, make_temp_folder, remove_temp_folder),
        cmocka_unit_test_setup_teardown(test_alike, make_temp_folder, remove_temp_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
