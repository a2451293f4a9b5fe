/* The compressed store: round trips, going on, names, refusals, and damage of every kind. */
#include "tests/checkpoints/store_fixture.h"

#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/store_internal.h"

static const char *shard(int i)
{
    char name[40];
    snprintf(name, sizeof name, "s/shard-%05d.h5", i);
    return in_temp(name);
}

static void assert_same_file(const char *a, const char *b)
{
    int64_t n, m;
    char *x = read_bytes(a, &n), *y = read_bytes(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, (size_t)n);
    f2b_free(x);
    f2b_free(y);
}

static void round_trip(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 10));
    assert_int_equal(assert_store_is_sound(in_temp("s")), 10);
    f2b_store *store = f2b_store_open(in_temp("s"));
    assert_int_equal(f2b_store_shards(store), 3);
    assert_int_equal(f2b_store_duplicates(store), 3);
    const f2b_store_identity *id = f2b_store_get_identity(store), want = an_identity();
    assert_int_equal(id->tokens, K);
    assert_int_equal(id->width, D);
    assert_string_equal(id->base, want.base);
    assert_string_equal(id->weights, "bf16");
    assert_string_equal(id->method.prompt, "Summarize.");
    assert_ok(f2b_store_check_model(store, want.base, want.adapter));

    int64_t row;
    assert_ok(f2b_store_find(store, "folder/image-7.jpg", &row));
    assert_int_equal(row, 7);
    assert_ok(f2b_store_find(store, "again/5.png", &row));
    assert_int_equal(row, 5);
    assert_int_equal(f2b_store_lookup(store, "folder/image-10.jpg"), -1);
    f2b_clear_error();
    assert_int_equal(f2b_store_find(store, "none.jpg", &row), F2B_ERR_NOT_FOUND);
    assert_failed(F2B_ERR_NOT_FOUND, "none.jpg", "like \"folder/image-0.jpg\"");
    f2b_store_close(store);
}

static void maps_of_shards(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 10));
    f2b_store *store = f2b_store_open(in_temp("s"));
    int64_t row = 0;
    for (int64_t s = 0; s < f2b_store_shards(store); s++) {
        const f2b_store_shard *shown = f2b_store_shard_at(store, s);
        f2b_store_map map;
        assert_ok(f2b_store_map_shard(store, s, &map));
        assert_int_equal(shown->first, row);
        assert_int_equal(shown->bytes, map.images * K * D * 2);
        for (int64_t i = 0; i < map.images; i++, row++)
            for (int j = 0; j < K * D; j++)
                assert_true(f2b_f16_to_f32(map.tokens[i * K * D + j]) == token_of(row, j));
        f2b_store_unmap(&map);
        /* What a reader finds who only knows path and offset. */
        int64_t bytes;
        char *file = read_bytes(shown->path, &bytes);
        f2b_f16 first;
        memcpy(&first, file + shown->offset, sizeof first);
        assert_true(f2b_f16_to_f32(first) == token_of(shown->first, 0));
        f2b_free(file);
    }
    assert_int_equal(row, 10);
    assert_int_equal(truncate(shard(1), 100), 0);
    f2b_store_map map;
    assert_int_equal(f2b_store_map_shard(store, 1, &map), F2B_ERR_IO);
    float tokens[K * D];
    assert_int_equal(f2b_store_read(store, 5, tokens), F2B_ERR_IO);
    assert_failed(F2B_ERR_IO, "shard-00001.h5", "shorter");
    f2b_store_close(store);
}

/* Given up after a shard and gone on with, the files are those of one go. */
static void goes_on(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("a"), 11));
    const f2b_store_identity id = an_identity();
    f2b_store_writer *w = f2b_store_writer_open(in_temp("b"), &id, SHARD);
    assert_non_null(w);
    assert_null(f2b_store_writer_open(in_temp("b"), &id, SHARD));
    assert_failed(F2B_ERR_BUSY, "/b", "another process");
    assert_ok(add_images(w, 0, 4));
    uint8_t hash[16], other[16];
    content_of(9, other);
    content_of(3, hash);
    assert_int_equal(f2b_store_writer_find_content(w, hash), 3);
    assert_int_equal(f2b_store_writer_find_content(w, other), -1);
    uint16_t *tokens;
    assert_ok(f2b_store_writer_add(w, "given up", other, &tokens));     /* in hand, dropped */
    f2b_store_writer_close(w);
    assert_int_equal(assert_store_is_sound(in_temp("b")), 4);
    assert_ok(write_store(in_temp("b"), 11));
    static const char *const files[] = { "shard-00000.h5", "shard-00001.h5", "shard-00002.h5",
                                         "store.json" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char a[40], b[40];
        snprintf(a, sizeof a, "a/%s", files[i]);
        snprintf(b, sizeof b, "b/%s", files[i]);
        assert_same_file(in_temp(a), in_temp(b));
    }
    assert_ok(write_store(in_temp("b"), 11));       /* nothing to do */
    assert_int_equal(access(in_temp("b/shard-00003.h5"), F_OK), -1);
}

/* A shard may hold nothing but names. */
static void only_names(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 2));
    const f2b_store_identity id = an_identity();
    f2b_store_writer *w = f2b_store_writer_open(in_temp("s"), &id, SHARD);
    assert_ok(f2b_store_writer_add_duplicate(w, "an alias", 1));
    assert_ok(f2b_store_writer_commit(w));
    assert_ok(add_images(w, 2, 3));
    f2b_store_writer_close(w);
    assert_int_equal(assert_store_is_sound(in_temp("s")), 3);
    f2b_store *store = f2b_store_open(in_temp("s"));
    assert_int_equal(f2b_store_shards(store), 3);
    assert_int_equal(f2b_store_lookup(store, "an alias"), 1);
    f2b_store_map map;
    assert_ok(f2b_store_map_shard(store, 1, &map));
    assert_true(map.images == 0 && map.tokens == NULL);
    f2b_store_unmap(&map);
    f2b_store_close(store);
}

static void many_names(void **state)
{
    (void)state;
    const f2b_store_identity id = an_identity();
    f2b_store_writer *w = f2b_store_writer_open(in_temp("s"), &id, 5000);
    for (int64_t i = 0; i < 3000; i++) {
        uint8_t hash[16] = { 0 };                   /* one table place for all */
        memcpy(hash + 8, &i, sizeof i);
        uint16_t *tokens;
        assert_ok(f2b_store_writer_add(w, id_of(i), hash, &tokens));
        memset(tokens, 0, K * D * 2);
        assert_int_equal(f2b_store_writer_find_content(w, hash), i);
    }
    assert_ok(f2b_store_writer_commit(w));
    f2b_store_writer_close(w);
    f2b_store *store = f2b_store_open(in_temp("s"));
    for (int64_t i = 0; i < 3000; i++) assert_int_equal(f2b_store_lookup(store, id_of(i)), i);
    f2b_store_close(store);
}

static void refusals(void **state)
{
    (void)state;
    f2b_store_identity id = an_identity();
    assert_null(f2b_store_open(in_temp("s")));
    assert_failed(F2B_ERR_NOT_FOUND, "/s", "f2b-compress");
    assert_ok(write_store(in_temp("s"), 3));

    id.adapter[36] = '9';
    assert_null(f2b_store_writer_open(in_temp("s"), &id, SHARD));
    assert_failed(F2B_ERR_FORMAT, an_identity().adapter, id.adapter);
    assert_failed(F2B_ERR_FORMAT, "another model", "new store");
    id = an_identity();
    strcpy(id.precision, "bf16");
    assert_null(f2b_store_writer_open(in_temp("s"), &id, SHARD));
    assert_failed(F2B_ERR_CONFIG, "--precision f32", "bf16");
    id = an_identity();
    id.method.attention = F2B_SUMMARY_BIDIRECTIONAL;
    assert_null(f2b_store_writer_open(in_temp("s"), &id, SHARD));
    assert_failed(F2B_ERR_FORMAT, "another method", "new store");
    id = an_identity();
    assert_null(f2b_store_writer_open(in_temp("s"), &id, 0));
    assert_failed(F2B_ERR_INVALID, "0 images", "");

    assert_ok(f2b_make_folders(in_temp("other")));
    write_text(in_temp("other/novel.txt"), "Once");
    assert_null(f2b_store_writer_open(in_temp("other"), &id, SHARD));
    assert_failed(F2B_ERR_INVALID, "/other", "other files");
    assert_int_equal(access(in_temp("other/store.lock"), F_OK), -1);

    f2b_store_writer *w = f2b_store_writer_open(in_temp("s"), &id, SHARD);
    uint8_t hash[16] = { 1 };
    uint16_t *tokens;
    char *name = f2b_calloc(F2B_STORE_MAX_ID + 2, 1, F2B_TAG_OTHER);
    memset(name, 'x', F2B_STORE_MAX_ID + 1);
    assert_int_equal(f2b_store_writer_add(w, name, hash, &tokens), F2B_ERR_INVALID);
    assert_int_equal(f2b_store_writer_add_duplicate(w, "", 0), F2B_ERR_INVALID);
    f2b_free(name);
    f2b_store_writer_close(w);
}

/* ---- Damage ---- */

typedef struct verdict {
    int sound, damaged;
    char file[256], why[512];
} verdict;

static void told(void *user, const char *file, const char *why)
{
    verdict *v = user;
    if (why == NULL) {
        v->sound++;
        return;
    }
    v->damaged++;
    snprintf(v->file, sizeof v->file, "%s", file);
    snprintf(v->why, sizeof v->why, "%s", why);
}

/* One bit of every 89th byte of a shard, flipped one at a time: named, and only that shard. What is
 * not of the tokens is found by opening, too. */
static void flipped_bits(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 6));
    f2b_store *store = f2b_store_open(in_temp("s"));
    const f2b_store_shard s = *f2b_store_shard_at(store, 1);
    const int64_t from = s.offset, to = s.offset + s.bytes;
    f2b_store_close(store);
    int64_t bytes;
    char *file = read_bytes(shard(1), &bytes);
    for (int64_t at = 0; at < bytes; at += 89) {
        const char kept = file[at];
        file[at] ^= (char)(1 << at % 8);
        write_bytes(shard(1), file, (size_t)bytes);
        file[at] = kept;
        verdict v = { 0 };
        assert_ok(f2b_store_verify(in_temp("s"), told, &v));
        if (v.damaged != 1 || v.sound != 1 || !strstr(v.file, "shard-00001.h5"))
            fail_msg("byte %lld: %d damaged, %s", (long long)at, v.damaged, v.file);
        assert_non_null(strstr(v.why, "is damaged: the XXH3-128"));
        store = f2b_store_open(in_temp("s"));
        assert_true((store != NULL) == (at >= from && at < to));
        f2b_store_close(store);
    }
    f2b_free(file);
}

static void cut_and_missing(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 6));
    int64_t bytes;
    char *file = read_bytes(shard(0), &bytes);
    for (int64_t n = 0; n < bytes; n += 97) {
        write_bytes(shard(0), file, (size_t)n);
        assert_null(f2b_store_open(in_temp("s")));
        assert_failed(F2B_ERR_FORMAT, "shard-00000.h5", "cut off");
    }
    /* As large, but with a hole: a part that never reached the disk. */
    memset(file + 2048 + 8, 0, 512);
    write_bytes(shard(0), file, (size_t)bytes);
    verdict v = { 0 };
    assert_ok(f2b_store_verify(in_temp("s"), told, &v));
    assert_int_equal(v.damaged, 1);
    assert_int_equal(unlink(shard(0)), 0);
    assert_null(f2b_store_open(in_temp("s")));
    assert_failed(F2B_ERR_FORMAT, "shard-00000.h5 is missing", "copy");
    const f2b_store_identity id = an_identity();
    assert_null(f2b_store_writer_open(in_temp("s"), &id, SHARD));
    assert_failed(F2B_ERR_FORMAT, "shard-00000.h5 is missing", "new store");
    f2b_free(file);
}

/* Shards of another store of the same model are not taken: their rows are others'. */
static void mixed_up(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 8));
    assert_int_equal(rename(shard(0), in_temp("s/x")), 0);
    assert_int_equal(rename(shard(1), in_temp("s/shard-00000.h5")), 0);
    assert_int_equal(rename(in_temp("s/x"), in_temp("s/shard-00001.h5")), 0);
    assert_null(f2b_store_open(in_temp("s")));
    assert_failed(F2B_ERR_FORMAT, "shard-00000.h5", "");
}

/* Every 13th bit of store.json: found, or without meaning (the last digits of a number). */
static void flipped_manifest(void **state)
{
    (void)state;
    assert_ok(write_store(in_temp("s"), 6));
    int64_t bytes;
    int survived = 0;
    char *file = read_bytes(in_temp("s/store.json"), &bytes);
    for (int64_t bit = 0; bit < 8 * bytes; bit += 13) {
        file[bit / 8] ^= (char)(1 << bit % 8);
        write_bytes(in_temp("s/store.json"), file, (size_t)bytes);
        file[bit / 8] ^= (char)(1 << bit % 8);
        verdict v = { 0 };
        if (f2b_store_verify(in_temp("s"), told, &v) != F2B_OK || v.damaged > 0) continue;
        survived++;
        f2b_store *store = f2b_store_open(in_temp("s"));
        const f2b_store_identity id = an_identity();
        assert_non_null(store);
        assert_int_equal(f2b_store_count(store), 6);
        assert_ok(f2b_store_check_model(store, id.base, id.adapter));
        assert_true(f2b_store_get_identity(store)->method.temperature == id.method.temperature);
        f2b_store_close(store);
    }
    assert_in_range(survived, 0, 8);
    f2b_free(file);
}

static void false_manifests(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } changes[] = {
        { "\"version\": 1", "\"version\": 2", "version is 2" },
        { "fwd2bot-store", "fwd3bot-store", "format" },
        { "\"width\": 8", "\"width\": 999999999", "width" },
        { "\"tokens\": 3", "\"tokens\": 0", "tokens" },
        { "\"images\": 4", "\"images\": 99999999999", "images" },
        { "\"tokens_offset\": ", "\"tokens_offset\": 9000000", "do not lie in the file" },
        { "shard-00000.h5", "../../etc/shad", "shard 0" },
        { "\"shards\": [", "\"shards\": [3, ", "shard 0" },
        { "\"precision\": \"f32\"", "\"precision\": \"a very long one\"", "precision" },
        { "\"images\": 4", "\"images\": 3", "shard-00000.h5" },
    };
    assert_ok(write_store(in_temp("s"), 6));
    int64_t bytes;
    char *file = read_bytes(in_temp("s/store.json"), &bytes);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const char *at = strstr(file, changes[i].from);
        assert_non_null(at);
        char *text = f2b_sprintf(F2B_TAG_OTHER, "%.*s%s%s", (int)(at - file), file, changes[i].to,
                                 at + strlen(changes[i].from));
        write_text(in_temp("s/store.json"), text);
        f2b_free(text);
        assert_null(f2b_store_open(in_temp("s")));
        assert_failed(F2B_ERR_FORMAT, changes[i].message, "");
    }
    f2b_free(file);
}

/* ---- Shards that others wrote, with the right checksums ---- */

static void ids_are_a_group(hid_t file)
{
    H5Ldelete(file, "ids", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(file, "ids", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}
static void ids_vary_in_length(hid_t file)
{
    H5Ldelete(file, "ids", H5P_DEFAULT);
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, (hsize_t[]){ 4 }, NULL);
    H5Tset_size(type, H5T_VARIABLE);
    H5Dclose(H5Dcreate2(file, "ids", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    H5Tclose(type);
}
static void hashes_are_a_link(hid_t file)
{
    H5Ldelete(file, "hashes", H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/hashes", file, "hashes", H5P_DEFAULT, H5P_DEFAULT);
}
static void duplicate_of_nothing(hid_t file)
{
    const hid_t set = H5Dopen2(file, "duplicates/rows", H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, (int64_t[]){ 4 });
    H5Dclose(set);
}
static void no_method(hid_t file) { H5Adelete(file, "method"); }

static void change_shard(void (*change)(hid_t file))
{
    const hid_t file = H5Fopen(shard(0), H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    change(file);
    H5Fclose(file);
    f2bi_store_manifest m;
    assert_ok(f2bi_store_manifest_read(&m, in_temp("s")));
    f2bi_store_entry *s = &m.shards[0];
    const int fd = f2bi_file_open(s->path, &s->size);
    assert_ok(f2bi_file_hash(fd, s->path, 0, 0, &s->size, s->checksum));
    assert_ok(f2bi_file_hash(fd, s->path, s->offset, f2bi_store_token_bytes(&m, s->images),
                             &s->size, s->rest));
    close(fd);
    assert_ok(f2bi_store_manifest_write(&m));
    f2bi_store_manifest_clear(&m);
}

static void false_shards(void **state)
{
    (void)state;
    static const struct {
        void (*change)(hid_t file);
        const char *message;
    } changes[] = {
        { ids_are_a_group, "ids are missing" },
        { ids_vary_in_length, "ids are not texts of fixed length" },
        { hashes_are_a_link, "a link to elsewhere" },
        { duplicate_of_nothing, "a duplicate of row 4" },
        { no_method, "attribute method is missing" },
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        assert_ok(f2b_folder_remove(in_temp("s")));
        assert_ok(write_store(in_temp("s"), 4));
        change_shard(changes[i].change);
        assert_null(f2b_store_open(in_temp("s")));
        assert_failed(F2B_ERR_FORMAT, "shard-00000.h5", changes[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(round_trip),     F2B_CKPT_TEST(maps_of_shards),
        F2B_CKPT_TEST(goes_on),        F2B_CKPT_TEST(only_names),
        F2B_CKPT_TEST(many_names),     F2B_CKPT_TEST(refusals),
        F2B_CKPT_TEST(flipped_bits),   F2B_CKPT_TEST(cut_and_missing),
        F2B_CKPT_TEST(mixed_up),       F2B_CKPT_TEST(flipped_manifest),
        F2B_CKPT_TEST(false_manifests), F2B_CKPT_TEST(false_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
