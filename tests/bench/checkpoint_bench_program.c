/*
 * Not a test by itself: the seconds of a checkpoint, for scripts/bench/checkpoint.py.
 *
 *   checkpoint_bench FOLDER MEGABYTES ROUNDS
 *
 * Alternates: a checkpoint (state.h5 with parameters and both moments, synced, hashed, its manifest,
 * renamed) as f2b-train writes it; and as many bytes by plain write and fsync into a new file beside.
 * Prints a JSON object: bytes, and both seconds of each round.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/state.h"

enum { TENSORS = 224, ROWS = 64, CHUNK = 4 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Reserved, written and synced: what the disk can do for anyone. */
static f2b_status write_raw(const char *path, const float *data, int64_t bytes)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "%s", path);
    (void)!fallocate(fd, 0, 0, bytes);
    f2b_status status = F2B_OK;
    for (int64_t at = 0; at < bytes && status == F2B_OK;) {
        const int64_t left = bytes - at;
        const ssize_t n = write(fd, (const char *)data + at, (size_t)(left < CHUNK ? left : CHUNK));
        if (n <= 0) status = f2b_fail_errno(F2B_ERR_IO, "%s", path);
        at += n;
    }
    if (status == F2B_OK && fsync(fd) != 0) status = f2b_fail_errno(F2B_ERR_IO, "%s", path);
    close(fd);
    return status;
}

static f2b_status run(const char *folder, const float *data, int64_t columns, int rounds)
{
    static f2b_state_tensor tensors[TENSORS];
    static char names[TENSORS][48];
    const int64_t each = ROWS * columns;
    for (int64_t i = 0; i < TENSORS; i++) {
        const float *p = data + i * 3 * each;
        snprintf(names[i], sizeof names[i], "layers.%lld.lora_A.weight", (long long)i);
        tensors[i] = (f2b_state_tensor){ { names[i], F2B_F32, 2, { ROWS, columns }, p }, p + each,
                                         p + 2 * each, 1 };
    }
    const f2b_attribute texts[] = { { "config", F2B_ATTRIBUTE_TEXT, .text = "run:\n" },
                                    { "method", F2B_ATTRIBUTE_TEXT, .text = "{}" },
                                    { "base_model", F2B_ATTRIBUTE_TEXT, .text = "none" } };
    char raw[4096], saved[4096];
    snprintf(raw, sizeof raw, "%s/raw", folder);
    printf("{\"rounds\": [");
    struct stat info = { 0 };
    for (int round = 0; round < rounds; round++) {
        const f2b_state state = { round, tensors, TENSORS, texts, 3 };
        const double start = now();
        F2B_TRY(f2b_state_save(folder, &state, 0, NULL, NULL));
        const double middle = now();
        snprintf(saved, sizeof saved, "%s/checkpoints/step-%08d/state.h5", folder, round);
        if (stat(saved, &info) != 0) return f2b_fail_errno(F2B_ERR_IO, "%s", saved);
        const double again = now();
        F2B_TRY(write_raw(raw, data, info.st_size));
        printf("%s[%.4f, %.4f]", round ? ", " : "", middle - start, now() - again);
        fflush(stdout);
        unlink(raw);
        unlink(saved);
    }
    printf("], \"bytes\": %lld}\n", (long long)info.st_size);
    return F2B_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    const int64_t columns = atoll(argv[2]) * 1000000 / 12 / ROWS / TENSORS;
    const int64_t n = (int64_t)TENSORS * ROWS * columns * 3;
    const int64_t room = n + ((TENSORS * 3 * (64 << 10)) >> 2) + (1 << 20);     /* with alignment */
    float *data = f2b_alloc_host((size_t)room * sizeof *data, F2B_TAG_OTHER);
    uint32_t r = 1;
    for (int64_t i = 0; data != NULL && i < room; i++) {
        r = r * 1664525u + 1013904223u;
        data[i] = (float)r;
    }
    const f2b_status status =
        data != NULL ? run(argv[1], data, columns, atoi(argv[3])) : f2b_last_status();
    if (status != F2B_OK) fprintf(stderr, "checkpoint_bench: %s\n", f2b_last_error());
    f2b_free(data);
    return status == F2B_OK ? 0 : 1;
}
