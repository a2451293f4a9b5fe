/*
 * Training state: bit-exact round trip, rotation, fallback over damage, every flipped bit found,
 * and files of a foreign structure refused even where the manifest vouches for them.
 */
#include "tests/checkpoints/state_fixture.h"

#include <dirent.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoints/state_internal.h"

static state_fixture fixture;

static void save(int64_t step, int keep)
{
    fill_state(&fixture, step);
    notes all = { 0 };
    assert_ok(f2b_state_save(temp_folder, &fixture.state, keep, take_note, &all));
    if (all.n) fail_msg("%s", all.text[0]);
}

static void assert_newest_is(int64_t step, int damaged)
{
    notes all = { 0 };
    f2b_state_file *file = f2b_state_open(temp_folder, take_note, &all);
    assert_state_is(file, step);
    assert_int_equal(all.n, damaged);
    f2b_state_close(file);
}

static int count_entries(void)
{
    DIR *dir = opendir(in_temp("checkpoints"));
    int n = -2;
    while (readdir(dir)) ++n;
    closedir(dir);
    return n;
}

static void round_trip(void **state)
{
    (void)state;
    assert_null(f2b_state_open(temp_folder, NULL, NULL));
    assert_failed(F2B_ERR_NOT_FOUND, temp_folder, "no checkpoint");
    save(120, 3);
    assert_newest_is(120, 0);
    char *latest = read_bytes(in_temp("latest"), NULL);
    assert_string_equal(latest, "checkpoints/step-00000120\n");
    f2b_free(latest);

    f2b_state_file *file = f2b_state_open(in_temp("checkpoints/step-00000120"), NULL, NULL);
    assert_state_is(file, 120);
    f2b_attribute a;
    assert_ok(f2b_state_attribute(file, "config", F2B_ATTRIBUTE_TEXT, &a));
    assert_string_equal(a.text, "summary:\n  tokens: 4\n");
    assert_ok(f2b_state_attribute(file, "skipped", F2B_ATTRIBUTE_INTEGER, &a));
    assert_int_equal(a.integer, -7);
    assert_ok(f2b_state_attribute(file, "seconds", F2B_ATTRIBUTE_NUMBER, &a));
    assert_true(a.number == 0.1);
    assert_int_equal(f2b_state_attribute(file, "seconds", F2B_ATTRIBUTE_TEXT, &a), F2B_ERR_FORMAT);
    assert_int_equal(f2b_state_attribute(file, "absent", F2B_ATTRIBUTE_TEXT, &a), F2B_ERR_FORMAT);
    assert_failed(F2B_ERR_FORMAT, "attribute absent is missing", "state.h5");
    assert_int_equal(f2b_state_find(file, "absent"), -1);
    int64_t n;
    f2b_state_attributes(file, &n);
    assert_int_equal(n, 8);
    f2b_state_close(file);
}

static void same_state_same_bytes(void **state)
{
    (void)state;
    save(1, 0);
    int64_t n, again_n;
    char *bytes = read_bytes(in_temp("checkpoints/step-00000001/state.h5"), &n);
    save(1, 0);
    char *again = read_bytes(in_temp("checkpoints/step-00000001/state.h5"), &again_n);
    assert_int_equal(n, again_n);
    assert_memory_equal(bytes, again, (size_t)n);
    f2b_free(bytes);
    f2b_free(again);
    assert_int_equal(count_entries(), 1);
}

static void long_texts(void **state)
{
    (void)state;
    enum { LONG = 300 << 10 };
    char *text = f2b_alloc_host(LONG + 1, F2B_TAG_OTHER);
    memset(text, 'x', LONG);
    text[LONG] = '\0';
    fill_state(&fixture, 5);
    fixture.attributes[0].text = text;
    fixture.attributes[1].text = "";
    assert_ok(f2b_state_save(temp_folder, &fixture.state, 0, NULL, NULL));
    f2b_state_file *file = f2b_state_open(temp_folder, NULL, NULL);
    assert_non_null(file);
    f2b_attribute a;
    assert_ok(f2b_state_attribute(file, "config", F2B_ATTRIBUTE_TEXT, &a));
    assert_string_equal(a.text, text);
    assert_ok(f2b_state_attribute(file, "method", F2B_ATTRIBUTE_TEXT, &a));
    assert_string_equal(a.text, "");
    f2b_state_close(file);
    f2b_free(text);
}

static void rotation(void **state)
{
    (void)state;
    for (int64_t step = 1; step <= 5; ++step) save(step * 10, 3);
    assert_int_equal(count_entries(), 3);
    assert_int_equal(access(in_temp("checkpoints/step-00000020"), F_OK), -1);
    assert_int_equal(mkdir(in_temp("checkpoints/step-00000060.partial"), 0777), 0);
    write_text(in_temp("checkpoints/step-00000060.partial/state.h5"), "half");
    assert_int_equal(mkdir(in_temp("checkpoints/mine"), 0777), 0);
    assert_newest_is(50, 0);
    save(60, 3);
    assert_int_equal(count_entries(), 4);       /* 40, 50, 60 and what is not ours */
    save(100000000, 0);                         /* nine digits sort as numbers */
    assert_newest_is(100000000, 0);

    /* After going on from an earlier step, its checkpoints count, not the later ones. */
    save(45, 3);
    assert_int_equal(count_entries(), 3);
    assert_newest_is(45, 0);
}

static void damage_is_named_and_passed_over(void **state)
{
    (void)state;
    save(10, 0);
    save(20, 0);
    save(30, 0);
    save(40, 0);
    int64_t n;
    char *bytes = read_bytes(in_temp("checkpoints/step-00000040/state.h5"), &n);
    bytes[n / 2] ^= 16;
    write_bytes(in_temp("checkpoints/step-00000040/state.h5"), bytes, (size_t)n);
    write_bytes(in_temp("checkpoints/step-00000030/state.h5"), bytes, (size_t)n - 1);
    assert_int_equal(unlink(in_temp("checkpoints/step-00000020/manifest.json")), 0);
    f2b_free(bytes);
    notes all = { 0 };
    f2b_state_file *file = f2b_state_open(temp_folder, take_note, &all);
    assert_state_is(file, 10);
    f2b_state_close(file);
    assert_int_equal(all.n, 3);
    assert_non_null(strstr(all.text[0], "step-00000040/state.h5 is damaged: its XXH3-128"));
    assert_non_null(strstr(all.text[1], "its manifest says"));
    assert_non_null(strstr(all.text[2], "step-00000020/manifest.json"));
    assert_null(f2b_state_open(in_temp("checkpoints/step-00000040"), NULL, NULL));
    assert_failed(F2B_ERR_FORMAT, "is damaged", "step-00000040");
    assert_int_equal(unlink(in_temp("checkpoints/step-00000010/state.h5")), 0);
    assert_null(f2b_state_open(temp_folder, NULL, NULL));
    assert_failed(F2B_ERR_FORMAT, "none of the 4 checkpoints", "checkpoints");
}

/* Every bit of the manifest, and every 37th byte of the state. */
static void every_flipped_bit_is_found(void **state)
{
    (void)state;
    save(7, 0);
    static const char *const names[] = { "checkpoints/step-00000007/manifest.json",
                                         "checkpoints/step-00000007/state.h5" };
    for (int f = 0; f < 2; ++f) {
        int64_t n;
        char *bytes = read_bytes(in_temp(names[f]), &n);
        for (int64_t bit = 0; bit < 8 * n; bit += f ? 8 * 37 + 1 : 1) {
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            write_bytes(in_temp(names[f]), bytes, (size_t)n);
            if (f2b_state_open(in_temp("checkpoints/step-00000007"), NULL, NULL))
                fail_msg("bit %lld of %s was not noticed", (long long)bit, names[f]);
            assert_non_null(strstr(f2b_last_error(), f ? "state.h5 is damaged" : "step-00000007"));
            bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        write_bytes(in_temp(names[f]), bytes, (size_t)n);
        f2b_free(bytes);
    }
    assert_newest_is(7, 0);
}

static void refuses_what_it_could_not_read_back(void **state)
{
    (void)state;
    fill_state(&fixture, 1);
    fixture.tensors[0].parameter.name = "a/b";
    assert_int_equal(f2b_state_save(temp_folder, &fixture.state, 0, NULL, NULL), F2B_ERR_INVALID);
    fill_state(&fixture, 1);
    fixture.tensors[0].parameter.name = fixture.tensors[1].parameter.name;
    assert_int_equal(f2b_state_save(temp_folder, &fixture.state, 0, NULL, NULL), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "two tensors are named", "lora_A");
    fill_state(&fixture, 1);
    fixture.tensors[0].v = NULL;
    assert_int_equal(f2b_state_save(temp_folder, &fixture.state, 0, NULL, NULL), F2B_ERR_INVALID);
    fill_state(&fixture, 1);
    fixture.attributes[0].name = "step";
    assert_int_equal(f2b_state_save(temp_folder, &fixture.state, 0, NULL, NULL), F2B_ERR_INVALID);
    fill_state(&fixture, 1);
    fixture.attributes[0].name = "konfig";
    assert_int_equal(f2b_state_save(temp_folder, &fixture.state, 0, NULL, NULL), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "needs the text config", "");
    assert_int_equal(count_entries(), 0);
}

/* A manifest that vouches for state.h5 as it is now. */
static f2b_status forge_manifest(const char *folder, int64_t step)
{
    char path[512];
    f2b_file_checksum sum;
    snprintf(path, sizeof path, "%s/state.h5", folder);
    F2B_TRY(f2b_file_checksum_take(path, &sum));
    return f2bi_manifest_write(folder, step, &sum);
}

/* Change the saved file with HDF5 itself, then let the manifest vouch for it. */
static void foreign_structures(void **state)
{
    (void)state;
    static const char *const messages[] = {
        "not little-endian f32",
        "9 dimensions",
        "missing, or a link to elsewhere",
        "another shape",
        "moments without a parameter",
        "group parameters",
        "not stored in one piece",
        "not stored in full",
        "attribute config",
        "step 9",
    };
    const char *folder = in_temp("checkpoints/step-00000003");
    for (int i = 0; i < (int)(sizeof messages / sizeof messages[0]); ++i) {
        save(3, 0);
        const hid_t file = H5Fopen(in_temp("checkpoints/step-00000003/state.h5"), H5F_ACC_RDWR,
                                   H5P_DEFAULT);
        assert_true(file >= 0);
        const hsize_t five = 5, nine[9] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
        const hid_t line = H5Screate_simple(1, &five, NULL), cube = H5Screate_simple(9, nine, NULL);
        const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
        const char *name = "/parameters/frozen.but.saved";
        hid_t type = H5T_IEEE_F32LE, space = line;
        int64_t step = 9;
        if (i <= 2 || i == 6 || i == 7) H5Ldelete(file, name, H5P_DEFAULT);
        if (i == 3) H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
        if (i == 0) type = H5T_IEEE_F32BE;
        if (i == 1) space = cube;
        if (i == 3) H5Ldelete(file, name = "/adam/v/summary_tokens", H5P_DEFAULT);
        if (i == 4) name = "/adam/v/stray";
        if (i == 6) {
            H5Pset_layout(plist, H5D_CHUNKED);
            H5Pset_chunk(plist, 1, &five);
        }
        if (i == 2) H5Lcreate_external("/etc/hostname", "/x", file, name, H5P_DEFAULT, H5P_DEFAULT);
        else if (i == 5) H5Ldelete(file, "/parameters", H5P_DEFAULT);
        else if (i == 8) H5Adelete(file, "config");
        else if (i == 9) {
            const hid_t attribute = H5Aopen(file, "step", H5P_DEFAULT);
            H5Awrite(attribute, H5T_NATIVE_INT64, &step);
            H5Aclose(attribute);
        } else H5Dclose(H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT));
        H5Pclose(plist);
        H5Sclose(line);
        H5Sclose(cube);
        assert_true(H5Fclose(file) >= 0);
        folder = in_temp("checkpoints/step-00000003");
        assert_ok(forge_manifest(folder, 3));
        f2b_clear_error();
        f2b_state_file *open = f2b_state_open(folder, NULL, NULL);
        if (open) fail_msg("accepted: %s", messages[i]);
        assert_failed(F2B_ERR_FORMAT, messages[i], "state.h5");
    }
}

/* Open the checkpoint and read what it says it has. 0: read, 1: refused, 2: wrong. */
static int try_forged(const char *folder, int64_t file_bytes)
{
    f2b_state_file *file = f2b_state_open(folder, NULL, NULL);
    if (!file) return f2b_last_status() == F2B_ERR_FORMAT ? 1 : 2;
    int result = 0;
    for (int64_t i = 0; i < f2b_state_count(file) && result == 0; ++i) {
        const int64_t bytes = f2b_named_array_bytes(&f2b_state_at(file, i)->parameter);
        if (bytes > file_bytes) result = 2;     /* no size to allocate by */
        float *out = f2b_alloc_host((size_t)bytes, F2B_TAG_OTHER);
        (void)!f2b_state_read(file, i, out, NULL, NULL);
        f2b_free(out);
    }
    f2b_state_close(file);
    return result;
}

static int forge_many(char *bytes, int64_t n)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s/checkpoints/step-00000007", temp_folder);
    uint64_t seed = 1;
    int counts[3] = { 0 };
    for (int round = 0; round < 400; ++round) {
        int64_t places[3];
        const int flips = 1 + round % 3;
        for (int i = 0; i < flips; ++i) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            places[i] = (int64_t)((seed >> 33) % (uint64_t)n);
            bytes[places[i]] ^= (char)(1 << i);
        }
        write_bytes(in_temp("checkpoints/step-00000007/state.h5"), bytes, (size_t)n);
        if (forge_manifest(folder, 7) != F2B_OK) return 3;
        ++counts[try_forged(folder, n)];
        for (int i = 0; i < flips; ++i) bytes[places[i]] ^= (char)(1 << i);
    }
    return counts[2] ? 2 : counts[1] < 200 || counts[0] == 0;
}

/* Bits flipped anywhere, and a manifest forged to fit: read or refused, but never a crash. In a
 * process of its own, as HDF5 leaks memory over files that it refuses. */
static void survives_forged_files(void **state)
{
    (void)state;
    save(7, 0);
    int64_t n;
    char *bytes = read_bytes(in_temp("checkpoints/step-00000007/state.h5"), &n);
    const pid_t child = fork();
    if (child == 0) {
        alarm(200);
        _exit(forge_many(bytes, n));
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    f2b_free(bytes);
}

/* `test_state write FOLDER` writes step 120 there, for h5py (test_state_h5py.py). */
int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "write") == 0) {
        fill_state(&fixture, 120);
        return f2b_state_save(argv[2], &fixture.state, 0, NULL, NULL) == F2B_OK ? 0 : 1;
    }
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(round_trip),
        F2B_CKPT_TEST(same_state_same_bytes),
        F2B_CKPT_TEST(long_texts),
        F2B_CKPT_TEST(rotation),
        F2B_CKPT_TEST(damage_is_named_and_passed_over),
        F2B_CKPT_TEST(every_flipped_bit_is_found),
        F2B_CKPT_TEST(refuses_what_it_could_not_read_back),
        F2B_CKPT_TEST(foreign_structures), F2B_CKPT_TEST(survives_forged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
