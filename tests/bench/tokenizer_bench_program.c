/*
 * Not a test by itself: encodes the lines of a file on one thread, for scripts/bench/tokenizer.py.
 *
 *   tokenizer_bench MODEL TEXT ROUNDS
 *
 * Prints a JSON object: seconds of each round by the clock and of the processor, the bytes of the lines
 * (without their ends), the number of ids, and an FNV-1a hash of all ids, which SentencePiece's must equal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoints/atomic_file.h"
#include "data/tokenizer/tokenizer.h"
#include "autograd/core/alloc.h"

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(bool good)
{
    if (good) return;
    fprintf(stderr, "tokenizer_bench: %s\n", f2b_last_error());
    exit(1);
}

/* Each line is a text of its own. */
static int64_t encode_lines(const f2b_tokenizer *tokenizer, const char *text, size_t bytes, f2b_ids *ids)
{
    int64_t encoded = 0;
    ids->n = 0;
    for (const char *line = text, *end = text + bytes; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL) stop = end;
        must(f2b_tokenizer_encode(tokenizer, line, (size_t)(stop - line), F2B_ENCODE_PLAIN, ids) == F2B_OK);
        encoded += stop - line;
        line = stop + 1;
    }
    return encoded;
}

static uint64_t hash(const f2b_ids *ids)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (int64_t i = 0; i < ids->n; i++) h = (h ^ (uint64_t)ids->ids[i]) * 0x100000001B3u;
    return h;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    f2b_tokenizer *tokenizer = f2b_tokenizer_open(argv[1]);
    must(tokenizer != NULL);
    int64_t bytes;
    char *text = f2b_read_file(argv[2], (int64_t)1 << 30, &bytes);
    must(text != NULL);
    f2b_ids ids = { 0 };
    int64_t encoded = 0;
    printf("{\"rounds\": [");
    for (int i = 0; i < atoi(argv[3]); i++) {
        const double start = now(CLOCK_MONOTONIC), busy = now(CLOCK_PROCESS_CPUTIME_ID);
        encoded = encode_lines(tokenizer, text, (size_t)bytes, &ids);
        printf("%s[%.6f, %.6f]", i ? ", " : "", now(CLOCK_MONOTONIC) - start,
               now(CLOCK_PROCESS_CPUTIME_ID) - busy);
    }
    printf("], \"bytes\": %lld, \"ids\": %lld, \"hash\": \"%016llx\"}\n", (long long)encoded,
           (long long)ids.n, (unsigned long long)hash(&ids));
    f2b_ids_free(&ids);
    f2b_free(text);
    f2b_tokenizer_free(tokenizer);
    return 0;
}
