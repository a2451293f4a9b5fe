/* A small store for tests: images whose tokens, names and contents follow from a number. */
#ifndef F2B_TESTS_CHECKPOINTS_STORE_FIXTURE_H
#define F2B_TESTS_CHECKPOINTS_STORE_FIXTURE_H

#include "autograd/core/dtype.h"
#include "checkpoints/store_writer.h"
#include "tests/checkpoints/fixtures.h"

enum { K = 3, D = 8, SHARD = 4 };       /* tokens, width, images of a shard */

static inline f2b_store_identity an_identity(void)
{
    f2b_store_identity id = { .tokens = K, .width = D };
    id.method = (f2b_method){ .tokens = K, .temperature = 0.02,
                              .lora = { .r = 3, .alpha = 6, .targets = 1 } };
    strcpy(id.method.prompt, "Summarize.");
    strcpy(id.base, "xxh3:00000000000000000000000000000001");
    strcpy(id.adapter, "xxh3:00000000000000000000000000000002");
    strcpy(id.precision, "f32");
    strcpy(id.weights, "bf16");
    return id;
}

static inline float token_of(int64_t image, int64_t j) { return (float)(image * 64 + j) * 0.25f; }

static inline const char *id_of(int64_t image)
{
    static char text[2][40];
    static int slot;
    slot = !slot;
    snprintf(text[slot], sizeof text[slot], "folder/image-%lld.jpg", (long long)image);
    return text[slot];
}

static inline void content_of(int64_t image, uint8_t hash[16])
{
    for (int i = 0; i < 16; i++) hash[i] = (uint8_t)(image * 31 + i);
}

/* Add images [from, to) that the store does not have, committing full shards and what is left, and
 * (from 2 on) every third a second time under another name. */
static inline f2b_status add_images(f2b_store_writer *w, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) {
        uint8_t hash[16];
        uint16_t *tokens;
        content_of(i, hash);
        if (f2b_store_writer_find(w, id_of(i)) >= 0) continue;
        if (f2b_store_writer_is_full(w)) F2B_TRY(f2b_store_writer_commit(w));
        F2B_TRY(f2b_store_writer_add(w, id_of(i), hash, &tokens));
        for (int j = 0; j < K * D; j++) tokens[j] = f2b_f32_to_f16(token_of(i, j));
        char twice[48];
        snprintf(twice, sizeof twice, "again/%lld.png", (long long)i);
        if (i % 3 == 2)
            F2B_TRY(f2b_store_writer_add_duplicate(w, twice, f2b_store_writer_find(w, id_of(i))));
    }
    return f2b_store_writer_commit(w);
}

/* Write or go on with the store of images [0, n). */
static inline f2b_status write_store(const char *path, int64_t n)
{
    const f2b_store_identity id = an_identity();
    f2b_store_writer *w = f2b_store_writer_open(path, &id, SHARD);
    if (w == NULL) return f2b_last_status();
    const f2b_status status = add_images(w, 0, n);
    f2b_store_writer_close(w);
    return status;
}

/* Every row is what was put in; the number of images. */
static inline int64_t assert_store_is_sound(const char *path)
{
    f2b_store *store = f2b_store_open(path);
    if (store == NULL) fail_msg("%s", f2b_last_error());
    const int64_t n = f2b_store_count(store);
    for (int64_t i = 0; i < n; i++) {
        float tokens[K * D];
        uint8_t hash[16];
        content_of(i, hash);
        assert_string_equal(f2b_store_id(store, i), id_of(i));
        assert_memory_equal(f2b_store_hash(store, i), hash, sizeof hash);
        assert_int_equal(f2b_store_read(store, i, tokens), F2B_OK);
        for (int j = 0; j < K * D; j++) assert_true(tokens[j] == token_of(i, j));
    }
    f2b_store_close(store);
    return n;
}

#endif
