/* See image_settings.h. */
#include "data/image/image_settings.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "data/image/image.h"

static void set_background(f2b_image_settings *s)
{
    for (int c = 0; c < 3; c++) s->background[c] = (uint8_t)((double)s->mean[c] * 255.0);
}

f2b_image_settings f2b_image_settings_default(void)
{
    f2b_image_settings s = {
        .size = 336,
        .mean = { 0.48145466f, 0.4578275f, 0.40821073f },
        .std = { 0.26862954f, 0.26130258f, 0.27577711f },
    };
    set_background(&s);
    return s;
}

static json_t *load_object(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        (void)f2b_fail(F2B_ERR_FORMAT, "%s:%d: not valid JSON: %s", path, error.line, error.text);
    } else if (!json_is_object(root)) {
        json_decref(root);
        root = NULL;
        (void)f2b_fail(F2B_ERR_FORMAT, "%s: not a JSON object", path);
    }
    return root;
}

/* Three numbers in [low, high] under `key`; silent leaves `out` alone. */
static f2b_status read_triple(const json_t *root, const char *path, const char *key, double low,
                              double high, float out[3])
{
    const json_t *list = json_object_get(root, key);
    if (list == NULL || json_is_null(list)) return F2B_OK;
    bool ok = json_is_array(list) && json_array_size(list) == 3;
    for (size_t c = 0; ok && c < 3; c++) {
        const json_t *item = json_array_get(list, c);
        const double v = json_number_value(item);
        ok = json_is_number(item) && v >= low && v <= high;
        if (ok) out[c] = (float)v;
    }
    if (ok) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "%s: %s must be three numbers from %g to %g", path, key, low, high);
}

static f2b_status read_config(const json_t *root, const char *path, f2b_image_settings *s)
{
    const json_t *vision = json_object_get(root, "vision_config");
    const json_t *size = json_object_get(vision != NULL ? vision : root, "image_size");
    if (size == NULL) return F2B_OK;
    const json_int_t value = json_integer_value(size);
    if (!json_is_integer(size) || value < 1 || value > F2B_IMAGE_MAX_SIZE) {
        return f2b_fail(F2B_ERR_FORMAT, "%s: image_size must be a whole number from 1 to %d", path,
                        F2B_IMAGE_MAX_SIZE);
    }
    s->size = (int)value;
    return F2B_OK;
}

static f2b_status read_preprocessor(const json_t *root, const char *path, f2b_image_settings *s)
{
    F2B_TRY(read_triple(root, path, "image_mean", 0.0, 1.0, s->mean));
    F2B_TRY(read_triple(root, path, "image_std", 1e-6, 1e6, s->std));
    set_background(s);
    const json_t *resample = json_object_get(root, "resample");
    if (json_is_number(resample) && json_number_value(resample) != 3.0) {
        return f2b_fail(F2B_ERR_UNSUPPORTED, "%s: resample is %g; only 3 (bicubic) is done", path,
                        json_number_value(resample));
    }
    const json_t *factor = json_object_get(root, "rescale_factor");
    if (json_is_number(factor) && fabs(json_number_value(factor) * 255.0 - 1.0) > 1e-6) {
        return f2b_fail(F2B_ERR_UNSUPPORTED, "%s: rescale_factor is %g; only 1/255 is done", path,
                        json_number_value(factor));
    }
    return F2B_OK;
}

/* Load model_dir/file and hand it to `read`. */
static f2b_status read_file(const char *model_dir, const char *file, bool required,
                            f2b_status (*read)(const json_t *, const char *, f2b_image_settings *),
                            f2b_image_settings *settings)
{
    char *path = f2b_sprintf(F2B_TAG_OTHER, "%s/%s", model_dir, file);
    if (path == NULL) return f2b_last_status();
    f2b_status status = F2B_OK;
    if (access(path, R_OK) == 0) {
        json_t *root = load_object(path);
        status = root == NULL ? f2b_last_status() : read(root, path, settings);
        json_decref(root);
    } else if (required) {
        status = f2b_fail_errno(F2B_ERR_NOT_FOUND, "%s: cannot read it; a model folder has one", path);
    }
    f2b_free(path);
    return status;
}

f2b_status f2b_image_settings_load(const char *model_dir, f2b_image_settings *settings)
{
    *settings = f2b_image_settings_default();
    if (model_dir == NULL) return F2B_OK;
    F2B_TRY(read_file(model_dir, "config.json", true, read_config, settings));
    return read_file(model_dir, "preprocessor_config.json", false, read_preprocessor, settings);
}
