/*
 * state_compare A B: whether two checkpoints (or the newest of two runs) hold the same step, and
 * the same tensors, moments and counts, bit for bit. Exit 0: they do; 1: they do not, and where;
 * 2: trouble.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/state.h"

static int trouble(void)
{
    fprintf(stderr, "state_compare: %s\n", f2b_last_error());
    return 2;
}

/* Parameter, m and v of a tensor, one after the other; NULL on error. */
static float *values(f2b_state_file *file, int64_t i, int64_t n)
{
    float *x = f2b_alloc_host((size_t)(3 * n) * sizeof *x, F2B_TAG_FILES);
    if (x == NULL || f2b_state_read(file, i, x, x + n, x + 2 * n) == F2B_OK) return x;
    f2b_free(x);
    return NULL;
}

static int compare_tensor(f2b_state_file *a, f2b_state_file *b, int64_t i)
{
    const f2b_state_tensor *s = f2b_state_at(a, i), *t = f2b_state_at(b, i);
    const int64_t bytes = f2b_named_array_bytes(&s->parameter), n = bytes / (int64_t)sizeof(float);
    if (strcmp(s->parameter.name, t->parameter.name) != 0 || s->updates != t->updates ||
        bytes != f2b_named_array_bytes(&t->parameter)) {
        printf("%s (%" PRId64 " updates) against %s (%" PRId64 " updates)\n", s->parameter.name,
               s->updates, t->parameter.name, t->updates);
        return 1;
    }
    float *x = values(a, i, n), *y = values(b, i, n);
    int result = x != NULL && y != NULL ? 0 : trouble();
    for (int part = 0; part < 3 && result == 0; part++)
        if (memcmp(x + part * n, y + part * n, (size_t)bytes) != 0) {
            static const char *const parts[] = { "parameter", "m", "v" };
            printf("%s of %s differs\n", parts[part], s->parameter.name);
            result = 1;
        }
    f2b_free(x);
    f2b_free(y);
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    f2b_state_file *a = f2b_state_open(argv[1], NULL, NULL);
    f2b_state_file *b = a != NULL ? f2b_state_open(argv[2], NULL, NULL) : NULL;
    int result = b != NULL ? 0 : trouble();
    if (b != NULL &&
        (f2b_state_step(a) != f2b_state_step(b) || f2b_state_count(a) != f2b_state_count(b))) {
        printf("%" PRId64 " tensors of step %" PRId64 " against %" PRId64 " of %" PRId64 "\n",
               f2b_state_count(a), f2b_state_step(a), f2b_state_count(b), f2b_state_step(b));
        result = 1;
    }
    for (int64_t i = 0; result == 0 && i < f2b_state_count(a); i++)
        result = compare_tensor(a, b, i);
    if (b != NULL) f2b_state_close(b);
    if (a != NULL) f2b_state_close(a);
    return result;
}
