/* What features are of: a fingerprint for the program, about.json for people. See feature_cache.h. */
#include "train/feature_cache_internal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "autograd/core/quant.h"
#include "autograd/device/cpu/products.h"

static const char tower[] = "vision_tower.";

void f2bi_hex(const uint8_t *bytes, int n, char *text)
{
    for (int i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* Quantised matrices have gaps between their parts: what counts is what they decode to. */
static f2b_status add_quantised(XXH3_state_t *state, const f2b_tensor *t, const void *host)
{
    const int64_t cols = t->shape[1];
    float *row = f2b_alloc_host((size_t)cols * sizeof *row, F2B_TAG_SCRATCH);
    if (row == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        f2b_quant_decode(t->dtype, host, i * cols, cols, row);
        XXH3_128bits_update(state, row, (size_t)cols * sizeof *row);
    }
    f2b_free(row);
    return F2B_OK;
}

static f2b_status add_tensor(XXH3_state_t *state, const f2b_tensor *t)
{
    const char *shape = f2b_tensor_describe(t);
    XXH3_128bits_update(state, t->name, strlen(t->name) + 1);
    XXH3_128bits_update(state, shape, strlen(shape) + 1);
    const size_t bytes = f2b_tensor_bytes(t);
    void *copy = NULL;
    f2b_status status = F2B_OK;
    if (t->device.kind != F2B_CPU) {
        copy = f2b_alloc_host(bytes, F2B_TAG_SCRATCH);
        status = copy != NULL ? f2b_tensor_read(t, copy) : F2B_ERR_MEMORY;
    }
    const void *host = copy != NULL ? copy : t->data;
    if (status == F2B_OK && f2b_dtype_is_quantised(t->dtype)) status = add_quantised(state, t, host);
    else if (status == F2B_OK) XXH3_128bits_update(state, host, bytes);
    f2b_free(copy);
    return status;
}

/* What else decides the rows, as a text. */
static char *settings_text(const f2b_feature_cache *cache)
{
    const f2b_model *m = cache->options.model;
    const f2b_vision_config *v = &m->config.vision;
    const f2b_image_settings *i = cache->options.image;
    /* Instructions that multiply bf16 differ in the last bits; f32 has one way. */
    const bool named = cache->shape.type == F2B_BF16 && m->device.kind == F2B_CPU;
    const char *products = named ? f2b_products_name(f2b_cpu_products()) : "";
    return f2b_sprintf(F2B_TAG_OTHER, "layers %lld of %lld, heads %lld, eps %.17g, activation %d, cls %d, "
                       "rows %lld, width %lld, %s on %s%s%s, images by %s %d %s mean %.9g %.9g %.9g std %.9g %.9g "
                       "%.9g background %d %d %d",
                       (long long)m->config.feature_layer, (long long)v->layers, (long long)v->heads,
                       v->layer_norm_eps, (int)v->activation, m->config.keep_cls,
                       (long long)cache->shape.rows, (long long)cache->shape.width,
                       f2b_dtype_name(cache->shape.type), m->device.kind == F2B_CPU ? "cpu" : "cuda",
                       named ? ", products " : "", products, F2B_IMAGE_DECODERS, i->size, cache->options.aspect == F2B_IMAGE_CROP ? "crop" : "pad",
                       (double)i->mean[0], (double)i->mean[1], (double)i->mean[2], (double)i->std[0],
                       (double)i->std[1], (double)i->std[2], i->background[0], i->background[1],
                       i->background[2]);
}

static f2b_status digest(f2b_feature_cache *cache, const char *settings)
{
    const f2b_weight_builder *w = &cache->options.model->weights;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for a fingerprint");
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, settings, strlen(settings) + 1);
    f2b_status status = F2B_OK;
    int64_t tensors = 0;
    for (int64_t i = 0; i < w->n_frozen && status == F2B_OK; i++) {
        if (strncmp(w->frozen[i]->name, tower, sizeof tower - 1) != 0) continue;
        status = add_tensor(state, w->frozen[i]);
        tensors++;
    }
    F2B_CHECK(status != F2B_OK || tensors > 0);     /* a trained tower is not among the frozen */
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    memcpy(cache->fingerprint, canonical.digest, sizeof cache->fingerprint);
    XXH3_freeState(state);
    return status;
}

static f2b_status write_about(f2b_feature_cache *cache, const char *settings)
{
    char text[2 * F2BI_FINGERPRINT_BYTES + 1];
    f2bi_hex(cache->fingerprint, F2BI_FINGERPRINT_BYTES, text);
    json_t *root = json_pack("{s:s, s:s, s:s, s:I}", "what", "features of a frozen vision tower, kept by "
                             "f2b-train (data.feature_cache); may be deleted, they are made anew",
                             "fingerprint", text, "settings", settings, "bytes_per_image",
                             (json_int_t)cache->shape.file_bytes);
    char *json = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    cache->about = json != NULL ? f2b_sprintf(F2B_TAG_OTHER, "%s\n", json) : NULL;
    free(json);
    json_decref(root);
    return cache->about != NULL ? F2B_OK : f2b_fail(F2B_ERR_MEMORY, "no memory for about.json");
}

f2b_status f2bi_feature_identity(f2b_feature_cache *cache)
{
    char *settings = settings_text(cache);
    if (settings == NULL) return F2B_ERR_MEMORY;
    f2b_status status = digest(cache, settings);
    if (status == F2B_OK) status = write_about(cache, settings);
    f2b_free(settings);
    return status;
}
