/*
 * Not a test by itself: a store of random tokens, and searches in it, for scripts/bench/search.py.
 *
 *   search_bench make STORE IMAGES K D SHARD_IMAGES
 *   search_bench search STORE QUERIES HITS ROUNDS [cold]
 *
 * `search` prints one JSON object: seconds to open the store, and of each round; seconds to read the
 * same bytes and do nothing with them; peak resident bytes. `cold`: the files of means are dropped
 * from the page cache before each round and each reading.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "autograd/core/dtype.h"
#include "autograd/device/cpu/threads.h"
#include "checkpoints/store_writer.h"
#include "infer/search_means.h"

enum { READ_BYTES = 256 << 10 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

/* Bits of an f16 in (-2, -1/64) or (1/64, 2). */
static uint16_t random_half(uint64_t bits)
{
    return (uint16_t)((bits & 0x83ff) | ((9 + (bits >> 16 & 0xff) % 7) << 10));
}

static f2b_status add_images(f2b_store_writer *writer, int64_t images, int64_t values)
{
    uint64_t state = 88172645463325252u;
    for (int64_t i = 0; i < images; i++) {
        char id[64];
        uint8_t hash[16] = { 0 };
        uint16_t *tokens;
        snprintf(id, sizeof id, "%03lld/%08lld.jpg", (long long)(i / 10000), (long long)i);
        memcpy(hash, &(uint64_t){ next_random(&state) }, 8);
        memcpy(hash + 8, &i, 8);
        if (f2b_store_writer_is_full(writer)) F2B_TRY(f2b_store_writer_commit(writer));
        F2B_TRY(f2b_store_writer_add(writer, id, hash, &tokens));
        for (int64_t j = 0; j < values; j++) tokens[j] = random_half(next_random(&state));
    }
    return f2b_store_writer_commit(writer);
}

static f2b_status make(char **argv)
{
    const int64_t images = atoll(argv[1]), K = atoll(argv[2]), d = atoll(argv[3]);
    const f2b_store_identity identity = {
        .tokens = K, .width = d, .method = { .tokens = K, .prompt = "p", .temperature = 1,
                                             .lora = { .r = 1, .alpha = 1, .targets = 1 } },
        .base = "xxh3:00000000000000000000000000000001", .precision = "f32", .weights = "f32",
        .adapter = "xxh3:00000000000000000000000000000002",
    };
    f2b_store_writer *writer = f2b_store_writer_open(argv[0], &identity, atoll(argv[4]));
    const f2b_status status = writer ? add_images(writer, images, K * d) : f2b_last_status();
    f2b_store_writer_close(writer);
    return status;
}

static double seconds(void) { return omp_get_wtime(); }

/* Read, or drop from the page cache, all files of means. */
static int64_t go_over(const f2b_store *store, bool drop)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < f2b_store_shards(store); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s" F2B_MEANS_SUFFIX, f2b_store_shard_at(store, i)->path);
        const int fd = open(path, O_RDONLY);
        if (fd < 0) continue;
        const int64_t size = lseek(fd, 0, SEEK_END);
        if (drop) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        else posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
#pragma omp parallel if (!drop)
        {
            char *buffer = f2b_alloc_host(READ_BYTES, F2B_TAG_OTHER);
#pragma omp for schedule(dynamic, 1) reduction(+ : bytes)
            for (int64_t at = 0; at < size; at += READ_BYTES)
                if (!drop) bytes += pread(fd, buffer, READ_BYTES, at);
            f2b_free(buffer);
        }
        close(fd);
    }
    return bytes;
}

static f2b_status search(char **argv, bool cold)
{
    const double start = seconds();
    f2b_store *store = f2b_store_open(argv[0]);
    if (store == NULL) return f2b_last_status();
    const double opened = seconds() - start;
    const int64_t n = atoll(argv[1]), k = atoll(argv[2]), rounds = atoll(argv[3]);
    const int64_t d = f2b_store_get_identity(store)->width;
    f2b_tensor *queries =
        f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ n, d }, F2B_TAG_ACTIVATIONS);
    f2b_search_hit *hits = f2b_calloc((size_t)n, (size_t)k * sizeof *hits, F2B_TAG_OTHER);
    uint64_t state = 362436069;
    for (int64_t i = 0; i < n * d; i++)
        ((float *)queries->data)[i] = f2b_f16_to_f32(random_half(next_random(&state)));
    f2b_status status = F2B_OK;
    const f2b_search_hooks none = { 0 };
    double floor = 1e30;
    int64_t bytes = 0;
    printf("{\"open_seconds\": %.4f, \"seconds\": [", opened);
    for (int64_t r = 0; r < rounds && status == F2B_OK; r++) {
        if (cold) go_over(store, true);
        const double begin = seconds();
        status = f2b_search_store(store, queries, k, &none, hits);
        printf("%s%.4f", r ? ", " : "", seconds() - begin);
        if (cold) go_over(store, true);
        const double read = seconds();
        bytes = go_over(store, false);
        if (seconds() - read < floor) floor = seconds() - read;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("], \"read_seconds\": %.4f, \"bytes\": %lld, \"resident_bytes\": %lld, \"first\": %lld}\n",
           floor, (long long)bytes, (long long)usage.ru_maxrss * 1024, (long long)hits[0].row);
    f2b_free(hits);
    f2b_tensor_free(queries);
    f2b_store_close(store);
    return status;
}

int main(int argc, char **argv)
{
    f2b_status status = F2B_ERR_USAGE;
    if (argc == 7 && strcmp(argv[1], "make") == 0) status = make(argv + 2);
    else if (argc >= 6 && strcmp(argv[1], "search") == 0) status = search(argv + 2, argc > 6);
    else (void)f2b_fail(status, "search_bench make|search ...");
    if (status == F2B_OK) return 0;
    fprintf(stderr, "search_bench: %s\n", f2b_last_error());
    return 1;
}
