/*
 * Not a test by itself: how long training stands still at a save, for scripts/bench/saving.py.
 *
 *   saving_bench FOLDER MEGABYTES ROUNDS
 *
 * Alternates, with tensors of as many bytes with their moments: saving between two steps, from the
 * tensors themselves; and saving beside training, from a copy. Prints a JSON object: bytes, and for each
 * round the seconds of the one, those until training goes on with the other and until that is written,
 * and the processor's seconds of that writing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "train/saver.h"

enum { TENSORS = 224, ROWS = 64 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double processor_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void quiet(void *user, const char *text) { (void)user, (void)text; }

static f2b_status add_tensor(f2b_parameters *list, int number, int64_t columns)
{
    char name[48];
    f2b_tensor *t = f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ ROWS, columns }, F2B_TAG_PARAMETERS);
    if (t == NULL) return f2b_last_status();
    for (int64_t i = 0; i < f2b_numel(t); i++) ((float *)t->data)[i] = (float)(i * 7919 % 10007);
    snprintf(name, sizeof name, "layers.%d.lora_A.weight", number);
    return f2b_parameters_add(list, t, name, F2B_GROUP_LORA, true);
}

static f2b_status save(f2b_saver *saver, int64_t step, bool beside)
{
    return f2b_saver_save(saver, &(f2b_run_position){ step, 0, 0 }, beside);
}

static f2b_status run(f2b_saver *saver, int rounds)
{
    printf("{\"rounds\": [");
    for (int round = 0; round <= rounds; round++) {         /* the first makes the copy's memory */
        const double start = now();
        F2B_TRY(save(saver, 2 * round + 1, false));
        const double between = now() - start, again = now(), processor = processor_seconds();
        F2B_TRY(save(saver, 2 * round + 2, true));
        const double goes_on = now() - again;
        F2B_TRY(f2b_saver_wait(saver));
        if (round > 0)
            printf("%s[%.4f, %.4f, %.4f, %.4f]", round > 1 ? ", " : "", between, goes_on, now() - again,
                   processor_seconds() - processor);
        fflush(stdout);
    }
    return F2B_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    const int64_t columns = atoll(argv[2]) * 1000000 / 12 / ROWS / TENSORS;
    char text[4096];
    snprintf(text, sizeof text, "model: {path: base}\nrun: {dir: %s, keep: 1}\ntrain: {steps: 1}\n"
             "data: {conversations: [{path: c}]}\nmethod: {loss: autoregressive}\n", argv[1]);
    f2b_config *config = f2b_config_parse(text, "bench", "/", NULL, 0);
    f2b_parameters list = { 0 };
    f2b_status status = config != NULL ? F2B_OK : f2b_last_status();
    for (int i = 0; i < TENSORS && status == F2B_OK; i++) status = add_tensor(&list, i, columns);
    f2b_optimizer *optimizer = status == F2B_OK ? f2b_optimizer_new(&list) : NULL;
    f2b_snapshot *snapshot = optimizer != NULL ? f2b_snapshot_new(config, "none", &list, optimizer) : NULL;
    const f2b_saver_events events = { quiet, NULL, NULL };
    f2b_saver *saver = snapshot != NULL ? f2b_saver_new(snapshot, &events) : NULL;
    status = saver != NULL ? run(saver, atoi(argv[3])) : f2b_last_status();
    printf("], \"bytes\": %lld}\n", (long long)f2b_snapshot_bytes(&list));
    if (status != F2B_OK) fprintf(stderr, "saving_bench: %s\n", f2b_last_error());
    f2b_saver_free(saver);
    f2b_snapshot_free(snapshot);
    f2b_optimizer_free(optimizer);
    f2b_parameters_clear(&list);
    f2b_config_free(config);
    return status == F2B_OK ? 0 : 1;
}
