/* Decoding, Pillow-exact resizing, normalising, PNG writing; damaged and hostile files. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"

static const char *const odd = "../shared/data/odd-images";
static const uint8_t background[3] = { 122, 116, 104 };

static uint64_t fnv(const uint8_t *bytes, int64_t n)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (int64_t i = 0; i < n; i++) h = (h ^ bytes[i]) * 0x100000001B3u;
    return h;
}

/* The picture of scripts/golden/image_resize.py. */
static f2b_image draw(uint32_t w, uint32_t h)
{
    f2b_image image = { w, h, f2b_alloc_host((size_t)w * h * 3, F2B_TAG_IMAGES) };
    assert_non_null(image.rgb);
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t noise = x * 2654435761u ^ y * 2246822519u ^ c * 3266489917u;
                noise = (noise ^ noise >> 15) * 2246822519u;
                const uint32_t v = (noise >> 25) + ((x / 7 + y / 5 + c) % 3 == 0 ? 150 : 0);
                image.rgb[((int64_t)y * w + x) * 3 + c] = (uint8_t)(v > 255 ? 255 : v);
            }
        }
    }
    return image;
}

static void test_resize_equals_pillow(void **state)
{
    (void)state;
    static const struct { uint32_t w, h; int size; uint64_t pad, crop; } golden[] = {
#include "tests/data/golden_image.inc"
    };
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        f2b_image image = draw(golden[i].w, golden[i].h);
        const int size = golden[i].size;
        uint8_t *out = f2b_alloc_host((size_t)(size * size * 3), F2B_TAG_IMAGES);
        assert_int_equal(f2b_image_prepare(&image, F2B_IMAGE_PAD, size, background, out), F2B_OK);
        assert_int_equal(fnv(out, size * size * 3), golden[i].pad);
        assert_int_equal(f2b_image_prepare(&image, F2B_IMAGE_CROP, size, background, out), F2B_OK);
        assert_int_equal(fnv(out, size * size * 3), golden[i].crop);
        f2b_free(out);
        f2b_image_free(&image);
    }
}

static void test_prepare_extremes(void **state)
{
    (void)state;
    uint8_t out[16 * 16 * 3];
    f2b_image line = { F2B_IMAGE_MAX_SIDE, 1,
                       f2b_calloc(F2B_IMAGE_MAX_SIDE, 3, F2B_TAG_IMAGES) };
    f2b_bytes_peak_reset();
    assert_int_equal(f2b_image_prepare(&line, F2B_IMAGE_PAD, 16, background, out), F2B_OK);
    assert_int_equal(f2b_image_prepare(&line, F2B_IMAGE_CROP, 16, background, out), F2B_OK);
    assert_true(f2b_bytes_peak(F2B_TAG_COUNT) < 32 << 20);      /* the square would take 12 GiB */
    assert_int_equal(f2b_image_prepare(&line, F2B_IMAGE_PAD, 0, background, out), F2B_ERR_INVALID);
    f2b_image_free(&line);
    assert_int_equal(f2b_image_prepare(&line, F2B_IMAGE_PAD, 16, background, out), F2B_ERR_INVALID);
}

static void test_normalise(void **state)
{
    (void)state;
    const f2b_image_settings s = f2b_image_settings_default();
    const uint8_t rgb[12] = { 0, 128, 255, 1, 2, 3, 122, 116, 104, 255, 255, 255 };
    float chw[12];
    f2b_image_normalise(rgb, 2, s.mean, s.std, chw);
    /* transformers' CLIPImageProcessor on the same pixels */
    assert_true(chw[0] == -1.79226255f && chw[4] == 0.168897316f && chw[8] == 2.14589691f);
    assert_true(chw[3] == 1.93033612f && chw[7] == 2.07488370f && chw[11] == 2.14589691f);
    assert_memory_equal(s.background, background, 3);
}

static void test_png_round_trip(void **state)
{
    (void)state;
    char path[] = "/tmp/f2b_image_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    f2b_image image = draw(37, 23), again;
    assert_int_equal(f2b_image_write_png(path, image.rgb, 37, 23), F2B_OK);
    assert_int_equal(f2b_image_open(path, &again), F2B_OK);
    assert_int_equal(again.width, 37);
    assert_int_equal(again.height, 23);
    assert_memory_equal(again.rgb, image.rgb, 37 * 23 * 3);
    f2b_image_free(&again);

    /* Cut at every byte and with one flipped bit: never a picture, always a message. */
    FILE *file = fopen(path, "rb");
    static uint8_t bytes[16384];
    const int64_t n = (int64_t)fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (int64_t cut = 0; cut < n; cut += 7) {
        assert_int_equal(f2b_image_decode(bytes, cut, "cut", &again), F2B_ERR_FORMAT);
    }
    for (int64_t at = 0; at < n; at += 11) {
        bytes[at] ^= 16;
        assert_int_equal(f2b_image_decode(bytes, n, "flipped", &again), F2B_ERR_FORMAT);
        assert_null(again.rgb);
        bytes[at] ^= 16;
    }
    f2b_image_free(&image);
    unlink(path);
    assert_int_equal(f2b_image_open(path, &again), F2B_ERR_NOT_FOUND);
    assert_int_equal(f2b_image_open("/tmp", &again), F2B_ERR_IO);
    assert_int_equal(f2b_image_write_png("/nowhere/x.png", background, 1, 1), F2B_ERR_IO);
}

static void test_messages(void **state)
{
    (void)state;
    static const struct { const char *bytes; int64_t n; const char *says; } cases[] = {
        { "", 0, "empty" },
        { "RIFF....WEBPVP8 ", 16, "WebP" },
        { "<!DOCTYPE html>", 15, "HTML" },
        { "II*\0....", 8, "TIFF" },
        { "hello", 5, "not an image" },
        { "P5 70000 1 255 x", 16, "65535 a side" },
        { "P6 65535 65535 255 x", 20, "at most" },
        { "P6 2 2 255 xyz", 14, "truncated" },
        { "P3 1 1 9 1 2 10", 15, "damaged" },
        { "P5 0 1 255 x", 12, "a side" },
        { "P5 1", 4, "header" },
        { "GIF89a\xd2\x47\x4e\x0d\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;", 29,
          "18386 x 3406 pixels cannot come out of 29 bytes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f2b_image image;
        uint8_t *exact = f2b_alloc_host((size_t)cases[i].n, F2B_TAG_FILES); /* ASan sees overreads */
        memcpy(exact, cases[i].bytes, (size_t)cases[i].n);
        assert_int_equal(f2b_image_decode(exact, cases[i].n, "some.jpg", &image), F2B_ERR_FORMAT);
        assert_non_null(strstr(f2b_last_error(), "some.jpg"));
        if (strstr(f2b_last_error(), cases[i].says) == NULL) fail_msg("%s", f2b_last_error());
        f2b_free(exact);
    }
}

/* One line of reference_decode.tsv. */
typedef struct reference {
    char file[128], status[64];
    long width, height;
    double mean[3];
} reference;

static bool read_reference(FILE *tsv, reference *r)
{
    char line[512];
    if (fgets(line, sizeof line, tsv) == NULL) return false;
    *r = (reference){ 0 };
    (void)sscanf(line, "%127s %*s %63s %*s %*s %ld %ld %*s %lf %lf %lf", r->file, r->status,
                 &r->width, &r->height, &r->mean[0], &r->mean[1], &r->mean[2]);
    return true;
}

/* Read by Pillow, refused by us: WebP, for want of a decoder. Everything else agrees. */
static bool refused_here(const char *file) { return strstr(file, ".webp") != NULL; }

static void test_odd_images(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/reference_decode.tsv", odd);
    FILE *tsv = fopen(path, "r");
    if (tsv == NULL) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    reference r;
    int n = 0;
    (void)read_reference(tsv, &r);                          /* the heading */
    for (; read_reference(tsv, &r); n++) {
        snprintf(path, sizeof path, "%s/%s", odd, r.file);
        f2b_image image;
        const f2b_status status = f2b_image_open(path, &image);
        if (strcmp(r.status, "ok") != 0 || refused_here(r.file)) {
            assert_int_equal(status, F2B_ERR_FORMAT);
            assert_non_null(strstr(f2b_last_error(), r.file));
            continue;
        }
        if (status != F2B_OK) fail_msg("%s", f2b_last_error());
        assert_int_equal(image.width, r.width);
        assert_int_equal(image.height, r.height);
        double sum[3] = { 0 };
        for (int64_t i = 0; i < image.width * image.height; i++) {
            for (int c = 0; c < 3; c++) sum[c] += image.rgb[i * 3 + c];
        }
        const double tolerance = 0.00051;   /* of the table; byte equality: test_image_pillow.py */
        for (int c = 0; c < 3; c++) {
            const double mean = sum[c] / (double)(image.width * image.height);
            if (mean - r.mean[c] > tolerance || r.mean[c] - mean > tolerance) {
                fail_msg("%s: mean of channel %d is %f, Pillow's is %f", r.file, c, mean, r.mean[c]);
            }
        }
        f2b_image_free(&image);
    }
    fclose(tsv);
    assert_int_equal(n, 40);
}

/* Random damage to real files: a picture or a message, no crash, bounded memory. */
static void test_damaged_files(void **state)
{
    (void)state;
    static const char *const files[] = {
        "pillow/hopper.jpg", "pillow/hopper_gray.jpg", "pillow/pil_sample_cmyk.jpg", "pillow/hopper.gif",
        "pillow/hopper_16bit_qtables.jpg", "pillow/hopper.bmp", "pillow/hopper_16bit.pgm",
        "png/basn3p04.png", "png/basn6a16.png", "pillow/hopper_8bit_plain.ppm",
    };
    f2b_rng rng = f2b_rng_new(1, F2B_RNG_TEST, 0, 0, 0);
    f2b_bytes_peak_reset();
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", odd, files[f]);
        FILE *file = fopen(path, "rb");
        if (file == NULL) {
            print_message("skipped: %s is not there\n", path);
            skip();
        }
        static uint8_t original[1 << 18];
        const size_t n = fread(original, 1, sizeof original, file);
        fclose(file);
        for (int round = 0; round < 30; round++) {
            const size_t keep = round % 3 == 0 ? f2b_rng_below(&rng, n) + 1 : n;
            uint8_t *bytes = f2b_alloc_host(keep, F2B_TAG_FILES);
            memcpy(bytes, original, keep);
            const uint64_t flips = f2b_rng_below(&rng, 8);
            for (uint64_t i = 0; i < flips; i++) {
                const uint64_t within = i % 2 == 0 && keep > 700 ? 700 : keep;  /* half in the header */
                bytes[f2b_rng_below(&rng, within)] = (uint8_t)f2b_rng_u32(&rng);
            }
            f2b_image image;
            if (f2b_image_decode(bytes, (int64_t)keep, path, &image) == F2B_OK) {
                assert_non_null(image.rgb);
            } else {
                assert_null(image.rgb);
            }
            f2b_image_free(&image);
            f2b_free(bytes);
        }
    }
    assert_true(f2b_bytes_peak(F2B_TAG_COUNT) < (int64_t)3 << 30);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_IMAGES), 0);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_settings(void **state)
{
    (void)state;
    char dir[] = "/tmp/f2b_settings_XXXXXX";
    assert_non_null(mkdtemp(dir));
    f2b_image_settings s;
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_ERR_NOT_FOUND);
    write_text(dir, "config.json", "{}");
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_OK);
    assert_int_equal(s.size, 336);
    write_text(dir, "config.json", "{\"vision_config\": {\"image_size\": 64}}");
    write_text(dir, "preprocessor_config.json",
               "{\"image_mean\": [0.5, 0.25, 1], \"image_std\": [0.5, 1, 2], \"resample\": 3}");
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_OK);
    assert_int_equal(s.size, 64);
    assert_true(s.mean[1] == 0.25f && s.std[2] == 2.0f);
    assert_int_equal(s.background[0], 127);
    write_text(dir, "preprocessor_config.json", "{\"resample\": 2}");
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_ERR_UNSUPPORTED);
    write_text(dir, "preprocessor_config.json", "{\"image_std\": [0, 1, 1]}");
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_ERR_FORMAT);
    write_text(dir, "config.json", "{\"vision_config\": {\"image_size\": -1}}");
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_ERR_FORMAT);
    write_text(dir, "config.json", "[");
    assert_int_equal(f2b_image_settings_load(dir, &s), F2B_ERR_FORMAT);
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_equals_pillow),
        cmocka_unit_test(test_prepare_extremes),
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_png_round_trip),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_odd_images),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
