/* f2b-data image: a picture as the vision tower gets it, written as a .npy array. */
#include <stdio.h>

#include "autograd/core/alloc.h"
#include "cli/data_commands.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"
#include "data/npy/npy.h"

/* Decode, prepare, normalise, write: f32 [3, S, S]. */
static f2b_status convert(const f2b_image *image, const f2b_image_settings *settings, bool crop,
                          const char *out)
{
    const int64_t size = settings->size;
    uint8_t *rgb = f2b_alloc_host((size_t)(size * size * 3), F2B_TAG_IMAGES);
    float *chw = f2b_calloc((size_t)(size * size * 3), sizeof *chw, F2B_TAG_IMAGES);
    f2b_status status = rgb == NULL || chw == NULL ? f2b_last_status() : F2B_OK;
    if (status == F2B_OK) {
        status = f2b_image_prepare(image, crop ? F2B_IMAGE_CROP : F2B_IMAGE_PAD, settings->size,
                                   settings->background, rgb);
    }
    if (status == F2B_OK) {
        f2b_image_normalise(rgb, settings->size, settings->mean, settings->std, chw);
        status = f2b_npy_write(out, F2B_NPY_F32, (const int64_t[]){ 3, size, size }, 3, chw);
    }
    f2b_free(rgb);
    f2b_free(chw);
    return status;
}

int f2b_data_image(int argc, char **argv)
{
    const char *model = NULL, *out = NULL;
    bool crop = false;
    const f2b_option options[] = {
        { "model", "DIR", F2B_OPTION_TEXT, &model, "model folder: image size, mean and deviation",
          .required = true },
        { "crop", NULL, F2B_OPTION_FLAG, &crop,
          "resize the shortest edge and crop the centre, instead of padding to a square" },
        { "out", "FILE.npy", F2B_OPTION_TEXT, &out, "where the f32 array [3, S, S] goes",
          .required = true },
        { 0 }
    };
    const f2b_command command = {
        .name = "f2b-data image",
        .summary = "An image file as the vision tower gets it: decoded, padded or cropped to a square, "
                   "resized as Pillow does it, normalised.",
        .options = options, .operands = "FILE", .min_operands = 1, .max_operands = 1,
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;

    f2b_image_settings settings;
    f2b_image image = { 0 };
    f2b_status status = f2b_image_settings_load(model, &settings);
    if (status == F2B_OK) status = f2b_image_open(arguments.operands[0], &image);
    if (status == F2B_OK) status = convert(&image, &settings, crop, out);
    f2b_image_free(&image);
    return f2b_exit_with(command.name, status);
}
