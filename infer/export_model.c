/* Exporting with proof. See export_model.h for the contract. */
#include "infer/export_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/peft.h"
#include "nn/passes.h"

/* ---- What a model makes of a fixed input ---- */

enum { PROBE_IDS = 12 };

/* Ids spread over the vocabulary, the start token first. */
static f2b_pack_item probe_item(const f2b_model *m, int32_t ids[PROBE_IDS])
{
    const int64_t n =
        m->config.text.max_positions < PROBE_IDS ? m->config.text.max_positions : PROBE_IDS;
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((1 + 997 * i) % m->config.text.vocab);
    return (f2b_pack_item){ .ids = ids, .n = n };
}

static f2b_tensor *probe_tower(f2b_tape *tape, const f2b_model *m)
{
    const int64_t n = 3 * m->config.vision.image_size * m->config.vision.image_size;
    float *pixels = f2b_alloc_host((size_t)n * sizeof *pixels, F2B_TAG_IMAGES);
    if (pixels == NULL) return NULL;
    for (int64_t i = 0; i < n; i++) pixels[i] = sinf(0.1f * (float)(i % 8191));
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    f2b_tensor *out = f2b_pass_images(tape, m, pixels, 1, NULL, &settings, &frame);
    f2b_free(pixels);
    return out;
}

/* Hidden states of a stage: of pass 1 over text, or the tower's output under `single`. */
static f2b_tensor *probe(f2b_tape *tape, const f2b_model *m, f2b_stage stage)
{
    int32_t ids[PROBE_IDS];
    f2b_pack_item item = probe_item(m, ids);
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    if (stage == F2B_STAGE_GENERATION)
        return f2b_pass_hidden(tape, m, &item, 1, NULL, &settings, &frame);
    if (m->method.forward == F2B_FORWARD_SINGLE) return probe_tower(tape, m);
    item.n = 1; /* the summary rows follow; a small context must hold both */
    item.summary = true;
    return f2b_pass_compress(tape, m, &item, 1, NULL, &settings, &frame);
}

/* |a - b| / |b|; NaN where something is not finite. */
static double distance(const f2b_tensor *a, const f2b_tensor *b)
{
    double difference = 0, size = 0;
    const float *x = a->data, *y = b->data;
    for (int64_t i = 0; i < f2b_numel(a); i++) {
        difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        size += (double)y[i] * y[i];
    }
    return sqrt(difference) / sqrt(size);
}

static f2b_status compare(const f2b_model *with, const f2b_model *without, f2b_stage stage,
                          const char *name, double *out)
{
    *out = 0;
    f2b_tape *tape = f2b_tape_new(with->device);
    if (tape == NULL) return f2b_last_status();
    (void)f2b_tape_set_recording(tape, false);
    const f2b_tensor *a = probe(tape, with, stage);
    const f2b_tensor *b = a != NULL ? probe(tape, without, stage) : NULL;
    f2b_status status = b != NULL ? F2B_OK : f2b_last_status();
    if (b != NULL) {
        *out = distance(a, b);
        if (!(*out > 0) || !isfinite(*out))
            status = f2b_fail(F2B_ERR_INVALID,
                              "what was exported changes nothing: %s gives the same "
                              "hidden states with and without it (relative difference %g); was the "
                              "checkpoint trained at all?",
                              name, *out);
    }
    f2b_tape_free(tape);
    return status;
}

/* ---- Proof ---- */

static f2b_status compare_tensors(const f2b_trained_model *from, const f2b_trained_model *to,
                                  f2b_export_proof *proof)
{
    const int64_t n = f2b_trained_count(from->file);
    if (f2b_trained_count(to->file) != n)
        return f2b_fail(F2B_ERR_INVALID, "%s has %" PRId64 " tensors, the checkpoint %" PRId64,
                        to->path, f2b_trained_count(to->file), n);
    for (int64_t i = 0; i < n; i++) {
        f2b_named_array a, b; /* both lists are sorted by name */
        F2B_TRY(f2b_trained_at(from->file, i, &a));
        F2B_TRY(f2b_trained_at(to->file, i, &b));
        if (strcmp(a.name, b.name) != 0 || a.dtype != b.dtype ||
            !f2b_shape_equal(a.ndim, a.shape, b.ndim, b.shape) ||
            memcmp(a.data, b.data, (size_t)f2b_named_array_bytes(&a)) != 0)
            return f2b_fail(F2B_ERR_INVALID,
                            "%s: tensor %s was not written as it is in the "
                            "checkpoint",
                            to->path, a.name);
    }
    proof->tensors = n;
    return F2B_OK;
}

/* Has a B of the adapter left its start, which is zero? A run with one loss alone may leave the
 * generation adapter as it was. */
static f2b_status has_learned(f2b_trained *file, const char *adapter, bool *out)
{
    char suffix[64];
    const int length = snprintf(suffix, sizeof suffix, ".%s.lora_B", adapter);
    for (int64_t i = 0; !*out && i < f2b_trained_count(file); i++) {
        const char *name = f2b_trained_name(file, i);
        const size_t n = strlen(name);
        if (n < (size_t)length || strcmp(name + n - length, suffix) != 0) continue;
        f2b_named_array b;
        F2B_TRY(f2b_trained_at(file, i, &b));
        for (int64_t j = 0; !*out && j < f2b_named_array_count(&b); j++)
            *out = ((const float *)b.data)[j] != 0;
    }
    return F2B_OK;
}

/* Adapters: against the same model with their scale at 0. */
static f2b_status prove_adapters(const f2b_trained_model *to, f2b_export_proof *proof)
{
    f2b_model without = *to->model;
    without.method.language_model = F2B_LANGUAGE_MODEL_FROZEN;
    bool shared = false, compression = false, generation = false;
    F2B_TRY(has_learned(to->file, "shared", &shared));
    F2B_TRY(has_learned(to->file, "compression", &compression));
    F2B_TRY(has_learned(to->file, "generation", &generation));
    if (!shared && !compression && !generation)
        return f2b_fail(F2B_ERR_INVALID,
                        "the adapters of this checkpoint are as they started (every "
                        "lora_B is zero): they would change nothing; train it first");
    if (shared || compression)
        F2B_TRY(compare(to->model, &without, F2B_STAGE_COMPRESSION, "the compression adapter",
                        &proof->compression));
    if (shared || generation)
        F2B_TRY(compare(to->model, &without, F2B_STAGE_GENERATION, "the generation adapter",
                        &proof->generation));
    return F2B_OK;
}

/* A trained language model: against its base, where that has weights. */
static f2b_status prove_full(const f2b_trained_model *to, f2b_device device, const char *vision,
                             f2b_export_proof *proof)
{
    if (!f2b_model_folder_has_weights(to->folder)) return F2B_OK;
    const f2b_trained_model_options o = {
        .model = f2b_model_folder_path(to->folder),
        .vision = vision,
        .device = device,
        .compute = F2B_F32,
        .storage = F2B_STORAGE_OF_FILE,
        .text_only = true,
    };
    f2b_trained_model *base = f2b_trained_model_open(&o);
    if (base == NULL) return f2b_last_status();
    const f2b_status status = compare(to->model, base->model, F2B_STAGE_GENERATION,
                                      "the language model", &proof->generation);
    f2b_trained_model_close(base);
    return status;
}

static f2b_status prove(const f2b_trained_model *from, const char *path, f2b_device device,
                        const char *vision, f2b_export_proof *proof)
{
    const f2b_trained_model_options o = {
        .checkpoint = path,
        .model = f2b_model_folder_path(from->folder),
        .vision = vision,
        .device = device,
        .compute = F2B_F32,
        .storage = F2B_STORAGE_OF_FILE,
    };
    f2b_trained_model *to = f2b_trained_model_open(&o);
    if (to == NULL) return f2b_last_status();
    f2b_status status = compare_tensors(from, to, proof);
    const f2b_language_model what = to->model->method.language_model;
    if (status == F2B_OK && what == F2B_LANGUAGE_MODEL_LORA) status = prove_adapters(to, proof);
    if (status == F2B_OK && what == F2B_LANGUAGE_MODEL_FULL)
        status = prove_full(to, device, vision, proof);
    f2b_trained_model_close(to);
    return status;
}

/* ---- Writing ---- */

static f2b_status write_export(const f2b_trained_model *from, const char *path)
{
    const int64_t n = f2b_trained_count(from->file);
    f2b_named_array *tensors = f2b_calloc((size_t)n, sizeof *tensors, F2B_TAG_FILES);
    f2b_status status = tensors != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        status = f2b_trained_at(from->file, i, &tensors[i]);
    uint64_t seed;
    const bool has_seed = f2b_trained_seed(from->file, &seed);
    const f2b_export_info info = {
        .method = from->model->method,
        .base_path = f2b_model_folder_path(from->folder),
        .base_fingerprint = f2b_trained_base_fingerprint(from->file),
        .base_drawn = !f2b_model_folder_has_weights(from->folder) && has_seed,
        .base_seed = (int64_t)seed,
        .step = from->step,
    };
    if (status == F2B_OK) status = f2b_export_write(path, &info, &from->model->config, tensors, n);
    f2b_free(tensors);
    return status;
}

f2b_status f2b_export_model(const char *from_path, const char *path, const char *model,
                            const char *vision, f2b_device device, f2b_export_proof *proof)
{
    *proof = (f2b_export_proof){ 0 };
    const f2b_trained_model_options o = {
        .checkpoint = from_path,
        .model = model,
        .vision = vision,
        .device = device,
        .compute = F2B_F32,
        .storage = F2B_STORAGE_OF_FILE,
    };
    f2b_trained_model *from = f2b_trained_model_open(&o);
    if (from == NULL) return f2b_last_status();
    if (vision == NULL) vision = f2b_trained_vision_path(from->file);
    f2b_status status = write_export(from, path);
    if (status == F2B_OK) {
        status = prove(from, path, device, vision, proof);
        if (status != F2B_OK) { /* nobody should use what did not prove itself */
            f2b_error error;
            f2b_error_take(&error);
            (void)!f2b_folder_remove(path);
            status = f2b_fail(error.code, "%s (removed %s)", error.text, path);
        }
    }
    f2b_trained_model_close(from);
    return status;
}
