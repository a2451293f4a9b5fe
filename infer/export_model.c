/* Exporting with proof. See export_model.h for the contract. */
#include "infer/export_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "infer/export_probe.h"

/* ---- Proof ---- */

/* What was exported must change what the model computes. */
static f2b_status compare(const f2b_model *with, const f2b_model *without, f2b_stage stage,
                          const char *name, double *out)
{
    F2B_TRY(f2bi_probe_hidden(with, without, stage, out));
    if (*out > 0 && isfinite(*out)) return F2B_OK;
    return f2b_fail(F2B_ERR_INVALID,
                    "what was exported changes nothing: %s gives the same hidden states with and "
                    "without it (relative difference %g); was the checkpoint trained at all?",
                    name, *out);
}

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

typedef struct prover {
    const f2b_trained_model *from;
    const f2b_export_model_options *o;
    const char *vision;
    f2b_export_proof *proof;
} prover;

/* The export in `folder` as a user would open it. */
static f2b_status prove(void *user, const char *folder)
{
    const prover *p = user;
    const f2b_trained_model_options o = {
        .checkpoint = folder,
        .model = f2b_model_folder_path(p->from->folder),
        .vision = p->vision,
        .device = p->o->device,
        .compute = F2B_F32,
        .storage = F2B_STORAGE_OF_FILE,
    };
    f2b_trained_model *to = f2b_trained_model_open(&o);
    if (to == NULL) return f2b_last_status();
    f2b_status status = compare_tensors(p->from, to, p->proof);
    const f2b_language_model what = to->model->method.language_model;
    if (status == F2B_OK && what == F2B_LANGUAGE_MODEL_LORA) status = prove_adapters(to, p->proof);
    if (status == F2B_OK && what == F2B_LANGUAGE_MODEL_FULL)
        status = prove_full(to, p->o->device, p->vision, p->proof);
    f2b_trained_model_close(to);
    return status;
}

/* ---- Writing ---- */

static f2b_status write_export(prover *p)
{
    const f2b_trained_model *from = p->from;
    const int64_t n = f2b_trained_count(from->file);
    f2b_named_array *tensors = f2b_calloc((size_t)n, sizeof *tensors, F2B_TAG_FILES);
    f2b_status status = tensors != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        status = f2b_trained_at(from->file, i, &tensors[i]);
    uint64_t seed;
    const bool has_seed = f2b_trained_seed(from->file, &seed);
    const f2b_export_info info = {
        .form = p->o->form,
        .method = from->model->method,
        .base_path = f2b_model_folder_path(from->folder),
        .base_fingerprint = f2b_trained_base_fingerprint(from->file),
        .base_drawn = !f2b_model_folder_has_weights(from->folder) && has_seed,
        .base_seed = (int64_t)seed,
        .step = from->step,
    };
    const f2b_export_options how = { .names = p->o->names, .prove = prove, .user = p };
    if (status == F2B_OK)
        status = f2b_export_write(p->o->to, &info, &from->model->config, tensors, n, &how);
    f2b_free(tensors);
    return status;
}

f2b_status f2b_export_model(const f2b_export_model_options *o, f2b_export_proof *proof)
{
    *proof = (f2b_export_proof){ 0 };
    const f2b_trained_model_options open = {
        .checkpoint = o->from,
        .model = o->model,
        .vision = o->vision,
        .device = o->device,
        .compute = F2B_F32,
        .storage = F2B_STORAGE_OF_FILE,
    };
    f2b_trained_model *from = f2b_trained_model_open(&open);
    if (from == NULL) return f2b_last_status();
    proof->pre_norm = from->model->method.hidden_state == F2B_SUMMARY_PRE_NORM;
    prover p = { from, o, o->vision, proof };
    if (p.vision == NULL) p.vision = f2b_trained_vision_path(from->file);
    const f2b_status status = write_export(&p);
    f2b_trained_model_close(from);
    return status;
}
