/* Dataset and loader: what batches hold, whatever the threads, the ranks and the step one starts at. */
#include <time.h>

#include "tests/data/data_fixtures.h"

#include "data/loader/loader.h"

enum { IMAGES = 24, SIZE = 8 };

static char *tokenizer, *conversations, *captions, *joined;

/*
 * A world of 24 images with a conversation each (every fourth without an image), captions of all
 * images (two each), and joined captions of the first eight. A few records are bad.
 */
static void write_images(void)
{
    mkdir(fixture_path("images"), 0777);
    for (int i = 0; i < IMAGES; i++) {
        uint8_t rgb[4 * 4 * 3];
        for (int p = 0; p < 48; p++) rgb[p] = (uint8_t)(i * 10 + p % 3);
        char name[64];
        sprintf(name, "images/%03d.png", i);
        assert_int_equal(f2b_image_write_png(fixture_path(name), rgb, 4, 4), F2B_OK);
    }
    fixture_text("images/007.png", "this is not an image");
}

static void write_texts(void)
{
    static char text[1 << 16];
    char *p = text;
    p += sprintf(p, "[");
    for (int i = 0; i < IMAGES; i++) {
        const bool image = i % 4 != 3;
        p += sprintf(p, "%s{\"id\": %d, ", i > 0 ? ",\n" : "", i);
        if (image) p += sprintf(p, "\"image\": \"%03d.png\", ", i);
        p += sprintf(p,
                     "\"conversations\": [{\"from\": \"human\", \"value\": \"%sq%d?\"}, {\"from\": "
                     "\"gpt\", \"value\": \"%s\"}]}",
                     image ? "<image>\\n" : "", i, i == 10 ? "" : "answer");
    }
    sprintf(p, "]");
    conversations = strdup(fixture_text("conversations.json", text));
    p = text;
    for (int i = 0; i < 2 * IMAGES; i++) p += sprintf(p, "caption %d\t%03d.png\n", i, i / 2);
    captions = strdup(fixture_text("captions.tsv", text));
    p = text + sprintf(text, "{\"images\": [");
    for (int i = 0; i < 8; i++)
        p += sprintf(p, "%s{\"id\": %d, \"file_name\": \"x/%03d.jpg\"}", i > 0 ? "," : "", i, i);
    p += sprintf(p, "], \"annotations\": [");
    for (int i = 0; i < 24; i++)
        p += sprintf(p, "%s{\"image_id\": %d, \"caption\": \"%s\"}", i > 0 ? "," : "", i % 8,
                     i == 9 ? " " : "joined");
    sprintf(p, "]}");
    joined = strdup(fixture_text("joined.json", text));
}

static int begin(void **state)
{
    if (fixture_begin(state) != 0) return 1;
    const f2b_piece pieces[] = { { "\xe2\x96\x81", -1 }, { "a", -2 } };
    tokenizer = strdup(fixture_path("tokenizer.model"));
    assert_int_equal(f2b_tokenizer_write(tokenizer, pieces, 2), F2B_OK);
    write_images();
    write_texts();
    return 0;
}

static int end(void **state)
{
    free(tokenizer);
    free(conversations);
    free(captions);
    free(joined);
    return fixture_end(state);
}

static f2b_dataset_options options(void)
{
    static f2b_data_entry c, k, j;
    char *images = fixture_path("images");
    c = (f2b_data_entry){ conversations, images };
    k = (f2b_data_entry){ captions, images };
    j = (f2b_data_entry){ joined, NULL };
    f2b_dataset_options o = {
        .conversations = { &c, 1 }, .captions = { &k, 1 }, .conversation_captions = { &j, 1 },
        .tokenizer = tokenizer, .prompt = "Summarize.", .limits = { 4, 512 },
        .max_caption_length = 77, .image = f2b_image_settings_default(), .conversation_batch = 4,
        .contrastive_batch = 6, .ratio = 1.0, .seed = 5, .faults = { .max_fraction = 1 },
    };
    o.image.size = SIZE;
    return o;
}

static void expect_equal(const f2b_batch *a, const f2b_batch *b, int64_t from)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->step, b->step);
    for (int64_t i = 0; i < b->n; i++) {
        const f2b_sample *x = &a->samples[from + i], *y = &b->samples[i];
        assert_string_equal(x->id, y->id);
        assert_int_equal(x->conversation.n, y->conversation.n);
        assert_int_equal(x->caption_prompt.n, y->caption_prompt.n);
        assert_int_equal(x->image_prompt.n, y->image_prompt.n);
        assert_int_equal(x->pixels == NULL, y->pixels == NULL);
        if (x->pixels != NULL) assert_memory_equal(x->pixels, y->pixels, SIZE * SIZE * 3);
        if (x->conversation.n > 0)
            assert_memory_equal(x->conversation.ids, y->conversation.ids,
                                (size_t)x->conversation.n * sizeof(int32_t));
    }
}

/* Batches of steps [0, n) from a fresh dataset without threads. */
static void reference(f2b_dataset_options o, f2b_batch **batches, int64_t n)
{
    f2b_dataset *d = f2b_dataset_open(&o);
    assert_non_null(d);
    f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){ .end_step = n });
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(f2b_loader_next(l, &batches[i]), F2B_OK);
        assert_non_null(batches[i]);
        assert_int_equal(batches[i]->step, i);
    }
    f2b_batch *none;
    assert_int_equal(f2b_loader_next(l, &none), F2B_OK);
    assert_null(none);
    f2b_loader_free(l);
    f2b_dataset_free(d);
}

static void free_all(f2b_batch **batches, int64_t n)
{
    for (int64_t i = 0; i < n; i++) f2b_batch_free(batches[i]);
}

static void batches_hold_what_their_kind_needs(void **state)
{
    (void)state;
    enum { N = 60 };
    f2b_batch *batches[N];
    reference(options(), batches, N);
    int kinds[F2B_BATCH_KINDS] = { 0 };
    for (int i = 0; i < N; i++) {
        const f2b_batch *b = batches[i];
        kinds[b->kind]++;
        assert_int_equal(b->n, b->kind == F2B_BATCH_CAPTION ? 6 : 4);
        for (int64_t r = 0; r < b->n; r++) {
            const f2b_sample *s = &b->samples[r];
            const bool caption = b->kind != F2B_BATCH_CONVERSATION;
            assert_int_equal(s->conversation.n > 0, b->kind != F2B_BATCH_CAPTION);
            assert_int_equal(s->caption_prompt.n > 0, caption);
            assert_true(s->pixels != NULL || !caption);
            assert_int_equal(s->image_prompt.n > 0, s->pixels != NULL);
            assert_int_equal(strchr(s->id, '+') != NULL, b->kind == F2B_BATCH_BOTH);
            int64_t labels = 0, marks = 0;
            for (int64_t t = 0; t < s->conversation.n; t++) {
                labels += s->conversation.labels[t] != F2B_NO_LABEL;
                marks += s->conversation.ids[t] == F2B_IMAGE_ID;
            }
            assert_int_equal(labels > 0, b->kind != F2B_BATCH_CAPTION);
            assert_int_equal(marks, s->conversation.n > 0 && s->pixels != NULL);
            int record = -1, captions_record = -1;
            if (b->kind == F2B_BATCH_CAPTION)
                assert_int_equal(sscanf(s->id, "captions[0]:%d", &record), 1);
            else
                assert_true(sscanf(s->id, "conversations[0]:%d+conversation_captions[0]:%d",
                                   &record, &captions_record) >= 1);
            assert_true(record != 10 || b->kind == F2B_BATCH_CAPTION);      /* an empty answer */
            assert_true(captions_record != 9);                              /* an empty caption */
            if (b->kind == F2B_BATCH_BOTH) {
                assert_true(record < 8 && record % 4 != 3);                 /* 7.png is broken */
                assert_int_equal(captions_record % 8, record);
            }
            const int image = b->kind == F2B_BATCH_CAPTION ? record / 2 : record;
            assert_int_not_equal(image, b->kind == F2B_BATCH_CAPTION ? 7 : -1);
            if (s->pixels != NULL)
                for (int p = 0; p < SIZE * SIZE * 3; p++)
                    assert_int_equal(s->pixels[p], image * 10 + p % 3);
            for (int64_t q = 0; q < r && b->kind != F2B_BATCH_CONVERSATION; q++)
                assert_memory_not_equal(s->pixels, b->samples[q].pixels, SIZE * SIZE * 3);
        }
    }
    assert_true(kinds[F2B_BATCH_CONVERSATION] > 0 && kinds[F2B_BATCH_BOTH] > 0);
    assert_true(kinds[F2B_BATCH_CAPTION] > 0);
    free_all(batches, N);
}

static void threads_ranks_and_starts_do_not_matter(void **state)
{
    (void)state;
    enum { N = 40 };
    f2b_batch *expected[N], *b;
    reference(options(), expected, N);
    for (int workers = 1; workers <= 4; workers += 3)
        for (int64_t first = 0; first < N; first += 13) {
            const f2b_dataset_options o = options();
            f2b_dataset *d = f2b_dataset_open(&o);
            f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){
                .workers = workers, .ahead = 1 + workers / 2, .first_step = first, .end_step = N });
            for (int64_t i = first; i < N; i++) {
                assert_int_equal(f2b_loader_next(l, &b), F2B_OK);
                assert_int_equal(b->n, expected[i]->n);
                expect_equal(expected[i], b, 0);
                f2b_batch_free(b);
                assert_true(f2b_loader_wait_seconds(l) >= 0);
            }
            f2b_loader_free(l);
            f2b_dataset_free(d);
        }
    for (int rank = 0; rank < 3; rank++) {
        const f2b_dataset_options o = options();
        f2b_dataset *d = f2b_dataset_open(&o);
        f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){ .workers = 2, .end_step = N,
                                                                 .rank = rank, .ranks = 3 });
        for (int64_t i = 0; i < N; i++) {
            assert_int_equal(f2b_loader_next(l, &b), F2B_OK);
            int64_t from, to;
            f2b_sampler_slice(expected[i]->n, rank, 3, &from, &to);
            assert_int_equal(b->n, to - from);
            expect_equal(expected[i], b, from);
            f2b_batch_free(b);
        }
        f2b_loader_free(l);
        f2b_dataset_free(d);
    }
    free_all(expected, N);
}

static void a_bad_record_counts_once(void **state)
{
    (void)state;
    const f2b_dataset_options o = options();
    f2b_dataset *d = f2b_dataset_open(&o);
    f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){ .workers = 3, .end_step = 200 });
    f2b_batch *b;
    do {
        assert_int_equal(f2b_loader_next(l, &b), F2B_OK);
        f2b_batch_free(b);
    } while (b != NULL);
    f2b_loader_free(l);
    f2b_fault_log *faults = f2b_dataset_faults(d);
    assert_int_equal(f2b_fault_log_count(faults, 0, F2B_FAULT_NONE), 1);    /* the empty answer */
    assert_int_equal(f2b_fault_log_count(faults, 1, F2B_FAULT_NONE), 2);    /* 7.png, twice */
    assert_int_equal(f2b_fault_log_count(faults, 1, F2B_FAULT_IMAGE_BROKEN), 2);
    assert_int_equal(f2b_fault_log_count(faults, 2, F2B_FAULT_NONE), 1);
    int64_t bad = 0;
    for (int s = 0; s < f2b_dataset_sources(d); s++)
        for (int64_t i = 0; i < f2b_source_count(f2b_dataset_source(d, s)); i++) {
            f2b_fault fault;
            assert_int_equal(f2b_dataset_check(d, s, i, &fault), F2B_OK);
            bad += fault != F2B_FAULT_NONE;
        }
    assert_int_equal(bad, 4);
    assert_int_equal(f2b_fault_log_count(faults, -1, F2B_FAULT_NONE), 4);
    f2b_dataset_free(d);
}

static void too_many_bad_records_stop_the_loader(void **state)
{
    (void)state;
    for (int workers = 0; workers < 4; workers += 3)
        for (int policy = 0; policy < 2; policy++) {
            f2b_dataset_options o = options();
            o.faults = (f2b_fault_policy){ .max_fraction = policy == 0 ? 0.001 : 1,
                                           .stop_at_first = policy == 1 };
            f2b_dataset *d = f2b_dataset_open(&o);
            f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){ .workers = workers,
                                                                     .end_step = 1000 });
            f2b_batch *b;
            f2b_status status;
            int64_t steps = 0;
            while ((status = f2b_loader_next(l, &b)) == F2B_OK) {
                assert_int_equal(b->step, steps++);
                f2b_batch_free(b);
            }
            assert_int_equal(status, F2B_ERR_DATA);
            assert_true(steps < 30);
            assert_non_null(
                strstr(f2b_last_error(), policy == 0 ? "max_bad_fraction" : "bad_records"));
            f2b_clear_error();
            assert_int_equal(f2b_loader_next(l, &b), F2B_ERR_DATA);
            assert_null(b);
            f2b_loader_free(l);
            f2b_dataset_free(d);
        }
}

static void losses_and_forward_choose_the_pools(void **state)
{
    (void)state;
    f2b_dataset_options o = options();
    f2b_dataset *d = f2b_dataset_open(&o);
    assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_BOTH), 6);
    assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_CONVERSATION), 18);
    assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_CAPTION), 48);
    f2b_dataset_free(d);
    o.loss = F2B_DATA_CONTRASTIVE;
    d = f2b_dataset_open(&o);
    assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_BOTH), 0);
    assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_CONVERSATION), 0);
    assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_CAPTION), 54);
    f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){ .workers = 1, .end_step = 30 });
    f2b_batch *b;
    int joined_seen = 0;
    for (int i = 0; i < 30; i++) {
        assert_int_equal(f2b_loader_next(l, &b), F2B_OK);
        assert_int_equal(b->kind, F2B_BATCH_CAPTION);
        for (int64_t r = 0; r < b->n; r++) {
            assert_int_equal(b->samples[r].conversation.n, 0);
            joined_seen += strchr(b->samples[r].id, '+') != NULL;
        }
        f2b_batch_free(b);
    }
    assert_true(joined_seen > 0);
    f2b_loader_free(l);
    f2b_dataset_free(d);
    o.captions.n = 0;                       /* conversations with captions alone will do */
    o.conversation_captions.n = 0;
    assert_null(f2b_dataset_open(&o));
    assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
    o = options();
    const f2b_data_entry none = { fixture_path("none.tsv"), NULL };
    o.captions.entries = &none;             /* not opened where no loss uses it */
    o.loss = F2B_DATA_AUTOREGRESSIVE;
    for (int base = 0; base < 2; base++) {
        o.base = base == 1;
        o.loss = base == 1 ? F2B_DATA_BOTH_LOSSES : F2B_DATA_AUTOREGRESSIVE;
        d = f2b_dataset_open(&o);
        assert_non_null(d);
        assert_int_equal(f2b_dataset_pool(d, F2B_BATCH_CONVERSATION), IMAGES);
        l = f2b_loader_new(d, &(f2b_loader_options){ .end_step = 10 });
        for (int i = 0; i < 10; i++) {
            assert_int_equal(f2b_loader_next(l, &b), F2B_OK);
            for (int64_t r = 0; r < b->n; r++) {
                const f2b_sample *s = &b->samples[r];
                assert_int_equal(s->image_prompt.n > 0, s->pixels != NULL && base == 0);
                assert_int_equal(s->caption_prompt.n, 0);
            }
            f2b_batch_free(b);
        }
        f2b_loader_free(l);
        f2b_dataset_free(d);
    }
    o = options();
    o.captions.entries = &none;
    assert_null(f2b_dataset_open(&o));
    assert_int_equal(f2b_last_status(), F2B_ERR_NOT_FOUND);
}

static void previews_name_samples(void **state)
{
    (void)state;
    const f2b_dataset_options o = options();
    f2b_dataset *d = f2b_dataset_open(&o);
    f2b_preview p;
    assert_int_equal(f2b_dataset_preview(d, "conversations[0]:4", &p), F2B_OK);
    assert_string_equal(p.sample.id, "conversations[0]:4");
    assert_string_equal(p.image, "004.png");
    assert_non_null(strstr(p.text, "USER: <image>\nq4? ASSISTANT: answer</s>"));
    f2b_preview_clear(&p);
    assert_int_equal(f2b_dataset_preview(d, "captions[0]:5", &p), F2B_OK);
    assert_non_null(strstr(p.text, "USER: caption 5\nSummarize. ASSISTANT:"));
    f2b_preview_clear(&p);
    assert_int_equal(f2b_dataset_preview(d, "conversations[0]:4+conversation_captions[0]:12", &p),
                     F2B_OK);
    assert_int_equal(p.kind, F2B_BATCH_BOTH);
    assert_true(p.sample.caption_prompt.n > 0 && p.sample.conversation.n > 0);
    f2b_preview_clear(&p);
    assert_int_equal(f2b_dataset_preview(d, "conversations[0]:3", &p), F2B_OK);
    assert_null(p.image);
    f2b_preview_clear(&p);
    static const char *const wrong[] = { "",
                                         "x",
                                         "conversations[0]",
                                         "conversations[0]:",
                                         "captions[1]:0",
                                         "conversations[0]:24",
                                         "conversations[0]:-1",
                                         "conversations[0]:1x",
                                         "conversation_captions[0]:1",
                                         "captions[0]:1+conversation_captions[0]:1",
                                         "conversations[0]:1+captions[0]:1" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(f2b_dataset_preview(d, wrong[i], &p), F2B_ERR_USAGE);
    assert_int_equal(f2b_dataset_preview(d, "conversations[0]:10", &p), F2B_ERR_DATA);
    assert_non_null(strstr(f2b_last_error(), "empty_answer"));
    f2b_dataset_free(d);
}

static void a_loader_stops_at_once(void **state)
{
    (void)state;
    const f2b_dataset_options o = options();
    f2b_dataset *d = f2b_dataset_open(&o);
    for (int i = 0; i < 20; i++) {
        f2b_loader *l = f2b_loader_new(d, &(f2b_loader_options){ .workers = 3, .ahead = 4,
                                                                 .end_step = INT64_C(1) << 30 });
        f2b_batch *b;
        for (int j = 0; j < i % 3; j++) {
            assert_int_equal(f2b_loader_next(l, &b), F2B_OK);
            f2b_batch_free(b);
        }
        f2b_loader_free(l);
    }
    assert_null(f2b_loader_new(d, &(f2b_loader_options){ .first_step = 5, .end_step = 4 }));
    assert_int_equal(f2b_last_status(), F2B_ERR_INVALID);
    f2b_dataset_free(d);
}

static void nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_hold_what_their_kind_needs),
        cmocka_unit_test(threads_ranks_and_starts_do_not_matter),
        cmocka_unit_test(a_bad_record_counts_once),
        cmocka_unit_test(too_many_bad_records_stop_the_loader),
        cmocka_unit_test(losses_and_forward_choose_the_pools),
        cmocka_unit_test(previews_name_samples), cmocka_unit_test(a_loader_stops_at_once),
        cmocka_unit_test(nothing_leaks),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
