/*
 * Not a test by itself: pictures from files to the vision tower's input, on one thread, for
 * scripts/bench/images.py.
 *
 *   image_bench SIZE ROUNDS FILE...
 *
 * Prints one JSON object a round: its seconds in all, and those of reading and decoding, of padding
 * and resizing, of normalising; and an FNV-1a hash of all values, which Pillow's must equal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "autograd/core/alloc.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static f2b_status prepare(const char *path, const f2b_image_settings *s, uint8_t *rgb, float *chw,
                          double seconds[3])
{
    const double start = now();
    f2b_image image;
    F2B_TRY(f2b_image_open(path, &image));
    const double decoded = now();
    const f2b_status status =
        f2b_image_prepare(&image, F2B_IMAGE_PAD, s->size, s->background, rgb);
    const double resized = now();
    f2b_image_free(&image);
    if (status == F2B_OK) f2b_image_normalise(rgb, s->size, s->mean, s->std, chw);
    seconds[0] += decoded - start;
    seconds[1] += resized - decoded;
    seconds[2] += now() - resized;
    return status;
}

static uint64_t hash(uint64_t h, const float *values, int64_t n)
{
    const uint32_t *words = (const uint32_t *)values;
    for (int64_t i = 0; i < n; i++) h = (h ^ words[i]) * 0x100000001B3u;
    return h;
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    f2b_image_settings s = f2b_image_settings_default();
    s.size = atoi(argv[1]);
    const int rounds = atoi(argv[2]);
    const int64_t n = (int64_t)s.size * s.size * 3;
    uint8_t *rgb = f2b_alloc_host((size_t)n, F2B_TAG_IMAGES);
    float *chw = f2b_alloc_host((size_t)n * sizeof *chw, F2B_TAG_IMAGES);
    f2b_status status = rgb != NULL && chw != NULL ? F2B_OK : f2b_last_status();
    for (int round = 0; round < rounds && status == F2B_OK; round++) {
        double seconds[3] = { 0 };
        uint64_t h = 0xCBF29CE484222325u;
        for (int i = 3; i < argc && status == F2B_OK; i++) {
            status = prepare(argv[i], &s, rgb, chw, seconds);
            h = hash(h, chw, n);                    /* outside of the time */
        }
        printf("{\"seconds\": %.6f, \"decode\": %.6f, \"resize\": %.6f, \"normalise\": %.6f, "
               "\"hash\": \"%016llx\"}\n", seconds[0] + seconds[1] + seconds[2], seconds[0],
               seconds[1], seconds[2], (unsigned long long)h);
        fflush(stdout);
    }
    if (status != F2B_OK) fprintf(stderr, "image_bench: %s\n", f2b_last_error());
    f2b_free(rgb);
    f2b_free(chw);
    return status == F2B_OK ? 0 : 1;
}
