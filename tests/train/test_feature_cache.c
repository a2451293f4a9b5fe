/*
 * data.feature_cache from within: a run with it has the bits of one without, at first and second use,
 * after a resume, after being killed in the middle of writing, beside another process, with damaged
 * files and with a full disk; features of another tower are told of and not used.
 */
#include "tests/support/check_op.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "autograd/core/rng.h"
#include "checkpoints/atomic_file.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

/* ---- Faults at writes of features: the disk is full, or the process dies half-way ---- */

static enum { PASS, FULL, DIE } mode = PASS;
static int64_t writes_left;

static bool is_features(int fd)
{
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, name, sizeof name - 1);
    name[n > 0 ? n : 0] = '\0';
    return strstr(name, ".features") != NULL;
}

/* The program's own function comes before the C library's. */
ssize_t write(int fd, const void *bytes, size_t n)
{
    if (mode != PASS && is_features(fd) && --writes_left < 0) {
        if (mode == DIE) {
            (void)syscall(SYS_write, fd, bytes, n / 2);
            kill(getpid(), SIGKILL);
        }
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, n);
}

/* ---- Runs ---- */

static char folder[64], notes[1 << 16];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t steps_seen, stop_after;

static void note(void *user, const char *text)
{
    (void)user;
    pthread_mutex_lock(&lock);
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", text);
    pthread_mutex_unlock(&lock);
}

/* What a run was, to the bit: losses of every step and what was trained. */
typedef struct outcome {
    uint64_t hash;
    f2b_status status;
} outcome;

static uint64_t seen;

static void step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)steps;
    const double values[] = { row->loss_ar, row->loss_disc, row->grad_norm };
    uint64_t bits[3];
    memcpy(bits, values, sizeof bits);
    for (int i = 0; i < 3; i++) seen = f2b_hash_mix(seen ^ bits[i]);
    steps_seen++;
}

static bool stop(void *user)
{
    (void)user;
    return stop_after > 0 && steps_seen >= stop_after;
}

static const f2b_trainer_events events = { note, step, stop, NULL };

#define MOST  8

/* One run in dir/`run` with `settings` divided by `; ` (DIR is the test's folder). */
static outcome train(const char *run, f2b_resume resume, const char *settings)
{
    char texts[MOST][400], *yaml = f2b_path_join(folder, "run.yaml");
    const char *list[MOST];
    int n = 1;
    snprintf(texts[0], sizeof texts[0], "run.dir=%s/%s", folder, run);
    snprintf(texts[n++], sizeof texts[1], "run.save_every=0");  /* a save syncs its files */
    for (const char *from = settings; from != NULL && n < MOST; n++) {
        const char *end = strstr(from, "; "), *dir = strstr(from, "DIR");
        const int length = end != NULL ? (int)(end - from) : (int)strlen(from);
        if (dir != NULL && dir - from < length)
            snprintf(texts[n], sizeof texts[n], "%.*s%s%.*s", (int)(dir - from), from, folder,
                     length - (int)(dir - from) - 3, dir + 3);
        else snprintf(texts[n], sizeof texts[n], "%.*s", length, from);
        from = end != NULL ? end + 2 : NULL;
    }
    for (int i = 0; i < n; i++) list[i] = texts[i];
    f2b_config *config = f2b_config_load(yaml, list, n);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    notes[0] = '\0', seen = 0, steps_seen = 0;
    f2b_session *s = f2b_session_open(config, F2B_HOST, note, NULL);
    if (s == NULL) fail_msg("%s", f2b_last_error());
    outcome o = { .status = f2b_train_run(s, resume, NULL, &events) };
    for (int64_t i = 0; i < s->model->parameters.n; i++) {
        const f2b_tensor *t = s->model->parameters.items[i].tensor;
        for (int64_t k = 0; k < f2b_numel(t); k++)
            o.hash = f2b_hash_mix(o.hash ^ ((const uint32_t *)t->data)[k]);
    }
    f2b_session_close(s);
    f2b_free(yaml);
    return o;
}

static outcome fresh(const char *settings) { return train("run", F2B_RESUME_NONE, settings); }

static void expect_same(outcome got, outcome want, uint64_t losses, const char *what)
{
    if (got.status != want.status || got.hash != want.hash || seen != losses)
        fail_msg("%s: status %d (%s), other bits\n%s", what, got.status, f2b_last_error(), notes);
}

static void expect_note(const char *words)
{
    if (strstr(notes, words) == NULL) fail_msg("no '%s' in:\n%s", words, notes);
}

/* The images' files: how many, and the first by name (malloc'd) where that is asked for. */
static int64_t files(char **first)
{
    char command[256], line[4096];
    snprintf(command, sizeof command, "find %s/features -name '*.features' 2>/dev/null | sort", folder);
    FILE *f = popen(command, "r");
    int64_t n = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (n++ == 0 && first != NULL) *first = strdup(line);
    }
    pclose(f);
    return n;
}

static void forget_features(void)
{
    char *path = f2b_path_join(folder, "features");
    assert_int_equal(f2b_folder_remove(path), F2B_OK);
    f2b_free(path);
}

static outcome plain;
static uint64_t plain_losses;

static void make_reference(const char *settings)
{
    plain = fresh(settings);
    plain_losses = seen;
    if (plain.status != F2B_OK) fail_msg("%s", f2b_last_error());
}

#define ON "; data.feature_cache=DIR/features"

/* First use, second use, and with other workers; for types, a trained projector, shared passes. */
static void bits_are_the_same(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "train.steps=8", "model.weights=bf16; train.precision=bf16; train.steps=8", "model.weights=int8; train.steps=8",
        "trainable.projector=true; train.steps=8", "sampler.group_images=true; train.steps=8", "method.forward=base; "
        "method.loss=autoregressive; train.steps=8",
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char with[256];
        forget_features();
        snprintf(with, sizeof with, "%s%s", settings[i], ON);
        make_reference(settings[i]);
        expect_same(fresh(with), plain, plain_losses, with);
        const int64_t n = files(NULL);
        assert_true(n > 4 && n <= 24);
        expect_same(fresh(with), plain, plain_losses, with);
        assert_int_equal(files(NULL), n);
        snprintf(with, sizeof with, "%s; data.workers=0; run.eval_every=3%s", settings[i], ON);
        expect_same(fresh(with), plain, plain_losses, with);
    }
}

static void after_a_stop(void **state)
{
    (void)state;
    forget_features();
    make_reference("train.steps=8");
    stop_after = 5;
    assert_int_equal(fresh("train.steps=8" ON).status, F2B_ERR_STOPPED);
    stop_after = 0;
    const outcome rest = train("run", F2B_RESUME_AUTO, "train.steps=8" ON);
    assert_int_equal(rest.status, F2B_OK);
    assert_true(rest.hash == plain.hash);
}

/* In a process of its own: its exit status. */
static int child(const char *run, int64_t dies_at)
{
    const pid_t pid = fork();
    if (pid == 0) {
        mode = dies_at >= 0 ? DIE : PASS;
        writes_left = dies_at;
        const outcome o = train(run, F2B_RESUME_NONE, "train.steps=8" ON);
        _exit(o.status == F2B_OK && o.hash == plain.hash && seen == plain_losses ? 0 : 1);
    }
    return pid;
}

static int wait_for(int pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Killed within the head of a file, within its rows, at the first image and later. */
static void after_kills(void **state)
{
    (void)state;
    make_reference("train.steps=8");
    forget_features();
    for (int64_t at = 0; at < 13; at += 3) {
        const int status = wait_for(child("killed", at));
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_true(files(NULL) >= at / 2);
    }
    expect_same(fresh("train.steps=8" ON), plain, plain_losses, "after kills");
    assert_null(strstr(notes, "damaged"));      /* half a file is never under its name */
    char command[256];
    snprintf(command, sizeof command, "test -z \"$(find %s/features -name '*.partial')\"", folder);
    assert_int_equal(system(command), 0);
}

static void beside_another_process(void **state)
{
    (void)state;
    make_reference("train.steps=8");
    forget_features();
    const int a = child("a", -1), b = child("b", -1), c = child("c", -1);
    assert_int_equal(wait_for(a), 0);
    assert_int_equal(wait_for(b), 0);
    assert_int_equal(wait_for(c), 0);
    expect_same(fresh("train.steps=8" ON), plain, plain_losses, "after others");
    assert_null(strstr(notes, "damaged"));
}

static void change_byte(const char *path, int64_t at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, (long)at, SEEK_SET);
    const int byte = fgetc(f);
    fseek(f, (long)at, SEEK_SET);
    fputc(byte ^ 0x10, f);
    fclose(f);
}

/* A changed byte anywhere, a cut file, another image's: told of, never used, made again. */
static void damage_is_found(void **state)
{
    (void)state;
    make_reference("train.steps=8");
    forget_features();
    expect_same(fresh("train.steps=8" ON), plain, plain_losses, "first");
    char *path = NULL;
    struct stat st;
    const int64_t n = files(&path);
    assert_int_equal(stat(path, &st), 0);
    const int64_t places[] = { 0, 9, 30, 41, 70, st.st_size - 1, -1, -2, -3 };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char command[512];
        if (places[i] >= 0) change_byte(path, places[i]);
        else if (places[i] == -1) assert_int_equal(truncate(path, st.st_size - 1), 0);
        else if (places[i] == -2) assert_int_equal(truncate(path, 0), 0);
        else {
            snprintf(command, sizeof command, "cp $(find %s/features -name '*.features' | sort | "
                     "tail -n 1) %s", folder, path);
            assert_int_equal(system(command), 0);
        }
        expect_same(fresh("train.steps=8" ON), plain, plain_losses, "damaged");
        expect_note("is damaged");
        assert_int_equal(files(NULL), n);
        expect_same(fresh("train.steps=8" ON), plain, plain_losses, "made anew");
        assert_null(strstr(notes, "damaged"));
    }
    free(path);
}

static void a_full_disk_stops_nothing(void **state)
{
    (void)state;
    make_reference("train.steps=8");
    forget_features();
    mode = FULL, writes_left = 7;               /* three files and a head */
    const outcome o = fresh("train.steps=8" ON);
    mode = PASS;
    expect_same(o, plain, plain_losses, "full");
    expect_note("cannot be written (No space left on device); training goes on");
    const char *once = strstr(notes, "cannot be written");
    assert_null(strstr(once + 1, "cannot be written"));
    assert_int_equal(files(NULL), 3);
    char command[256];
    snprintf(command, sizeof command, "test -z \"$(find %s/features -name '*.partial')\"", folder);
    assert_int_equal(system(command), 0);
}

static void other_towers_are_told_of(void **state)
{
    (void)state;
    forget_features();
    make_reference("train.steps=8");
    expect_same(fresh("train.steps=8" ON), plain, plain_losses, "one tower");
    assert_null(strstr(notes, "other tower"));
    const int64_t n = files(NULL);
    make_reference("model.weights=bf16; train.steps=8");
    expect_same(fresh("model.weights=bf16; train.steps=8" ON), plain, plain_losses, "another");
    expect_note("also has features of 1 other tower");
    assert_int_equal(files(NULL), 2 * n);
    make_reference("model.image_aspect_ratio=crop; train.steps=8");
    expect_same(fresh("model.image_aspect_ratio=crop; train.steps=8" ON), plain, plain_losses, "cropped");
    expect_note("also has features of 2 other towers");
    assert_int_equal(files(NULL), 3 * n);
}

static void refusals(void **state)
{
    (void)state;
    static const char *const wrong[] = { "trainable.vision_tower=true", "method.forward=single" };
    char *yaml = f2b_path_join(folder, "run.yaml");
    for (int i = 0; i < 2; i++) {
        const char *list[] = { "data.feature_cache=features", wrong[i] };
        assert_null(f2b_config_load(yaml, list, 2));
        assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
        assert_non_null(strstr(f2b_last_error(), "data.feature_cache"));
    }
    char *file = f2b_sprintf(F2B_TAG_OTHER, "data.feature_cache=%s/run.yaml", folder);
    f2b_config *config = f2b_config_load(yaml, (const char *const[]){ file }, 1);
    assert_non_null(config);
    assert_null(f2b_session_open(config, F2B_HOST, note, NULL));
    assert_non_null(strstr(f2b_last_error(), "is not a folder"));
    f2b_free(file), f2b_free(yaml);
}

static int make_world(void **state)
{
    (void)state;
    strcpy(folder, access("/dev/shm", W_OK) == 0 ? "/dev/shm/f2b_cache_XXXXXX"
                                                 : "/tmp/f2b_cache_XXXXXX");
    omp_set_num_threads(1);             /* so small a model's threads only wait for each other */
    return mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_the_same), cmocka_unit_test(after_a_stop),
        cmocka_unit_test(after_kills), cmocka_unit_test(beside_another_process),
        cmocka_unit_test(damage_is_found), cmocka_unit_test(a_full_disk_stops_nothing),
        cmocka_unit_test(other_towers_are_told_of), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
