/* Exports of small models with values made from the tensors' names, and how tests look at them. */
#ifndef F2B_TESTS_CHECKPOINTS_EXPORT_FIXTURE_H
#define F2B_TESTS_CHECKPOINTS_EXPORT_FIXTURE_H

#include "tests/checkpoints/fixtures.h"

#include <unistd.h>

#include "checkpoints/export_internal.h"
#include "checkpoints/safetensors.h"

enum { MAX_TENSORS = 512 };

static const f2b_model_config llava = {
    .text = { .hidden = 8,
              .intermediate = 12,
              .layers = 2,
              .heads = 4,
              .kv_heads = 2,
              .head_dim = 2,
              .vocab = 10 },
    .has_vision = true,
    .vision = { .hidden = 6,
                .intermediate = 7,
                .layers = 3,
                .heads = 2,
                .patch = 14,
                .image_size = 28 },
    .feature_layer = 2,
};

typedef struct export_fixture {
    f2b_export_info info;
    f2bi_plan plan;
    f2b_named_array tensors[MAX_TENSORS];
    float *data[MAX_TENSORS];
    int64_t n;
} export_fixture;

/* FNV-1a of the name, then a step per element: easily repeated in Python. */
static inline void add_tensor(export_fixture *f, const char *name, int ndim, const int64_t *shape)
{
    f2b_named_array *t = &f->tensors[f->n];
    *t = (f2b_named_array){ .name = name, .dtype = F2B_F32, .ndim = ndim };
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    const int64_t count = f2b_named_array_count(t);
    float *data = f2b_alloc_host((size_t)count * 4, F2B_TAG_OTHER);
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p; ++p) hash = (hash ^ (uint8_t)*p) * 16777619u;
    for (int64_t i = 0; i < count; ++i)
        data[i] = (float)((hash + (uint32_t)i * 2654435761u) >> 8) / 16777216.0f - 0.5f;
    f->data[f->n++] = data;
    t->data = data;
}

static inline void make_export(export_fixture *f, const char *word, const f2b_model_config *model)
{
    *f = (export_fixture){ .info = { .base_path = "models/base", .base_fingerprint = "xxh3:1",
                                     .step = 7 } };
    f->info.method = (f2b_method){
        .tokens = 4, .prompt = "Summarize.", .temperature = 0.02,
        .lora = { .r = 3, .alpha = 6, .dropout = 0.05, .targets = (1u << F2B_LORA_TARGETS) - 1 } };
    f2b_method *m = &f->info.method;
    if (strcmp(word, "shared") == 0) m->adapters = F2B_ADAPTERS_SINGLE;
    if (strcmp(word, "single") == 0) m->forward = F2B_FORWARD_SINGLE;
    if (strcmp(word, "base") == 0) m->forward = F2B_FORWARD_BASE;
    if (strcmp(word, "full") == 0) m->language_model = F2B_LANGUAGE_MODEL_FULL;
    if (strcmp(word, "few") == 0) m->lora.targets = 1u << F2B_LORA_Q | 1u << F2B_LORA_DOWN;
    assert_ok(f2bi_plan_new(&f->plan, m, model));
    for (int64_t i = 0; i < f->plan.n; ++i)
        add_tensor(f, f->plan.items[i].name, f->plan.items[i].ndim, f->plan.items[i].shape);
    if (strcmp(word, "full") == 0)
        add_tensor(f, "language_model.model.norm.weight", 1, (int64_t[]){ model->text.hidden });
    if (strcmp(word, "shared") == 0) add_tensor(f, "log_temperature", 1, (int64_t[]){ 1 });
}

static inline void free_export(export_fixture *f)
{
    for (int64_t i = 0; i < f->n; ++i) f2b_free(f->data[i]);
    f2bi_plan_free(&f->plan);
}

static inline f2b_status write_export(const export_fixture *f, const char *folder,
                               const f2b_model_config *model)
{
    return f2b_export_write(folder, &f->info, model, f->tensors, f->n, NULL);
}

static inline void assert_there(const char *file_name, bool there)
{
    if ((access(in_temp(file_name), F_OK) == 0) != there)
        fail_msg("%s is %sthere", file_name, there ? "not " : "");
}

static inline void assert_export_is(const char *folder, const export_fixture *f,
                             const f2b_model_config *model)
{
    f2b_export *file = f2b_export_open(folder, model);
    if (!file) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_export_count(file), f->n);
    for (int64_t i = 0; i < f->n; ++i) {
        const f2b_named_array *t = f2b_export_find(file, f->tensors[i].name);
        assert_non_null(t);
        assert_memory_equal(t->data, f->tensors[i].data, (size_t)f2b_named_array_bytes(t));
    }
    const f2b_export_info *info = f2b_export_get_info(file);
    assert_int_equal(info->step, 7);
    assert_int_equal(info->method.forward, f->info.method.forward);
    assert_string_equal(info->base_fingerprint, "xxh3:1");
    char fingerprint[F2B_FINGERPRINT_BYTES];
    assert_ok(f2b_fingerprint_tensors(f->tensors, f->n, fingerprint));
    assert_string_equal(info->fingerprint, fingerprint);
    f2b_export_close(file);
}

static inline void assert_key(const char *file_name, const char *key, int64_t rows, int64_t columns)
{
    f2b_safetensors *file = f2b_safetensors_open(in_temp(file_name));
    if (!file) fail_msg("%s", f2b_last_error());
    const f2b_safetensor *t = f2b_safetensors_find(file, key);
    if (!t) fail_msg("%s has no %s", file_name, key);
    assert_int_equal(t->shape[0], rows);
    assert_int_equal(t->shape[1], columns);
    assert_string_equal(f2b_safetensors_metadata(file, "format"), "pt");
    f2b_safetensors_close(file);
}

static inline void assert_text(const char *file_name, const char *piece)
{
    char *text = read_bytes(in_temp(file_name), NULL);
    if (!strstr(text, piece)) fail_msg("%s lacks %s: %s", file_name, piece, text);
    f2b_free(text);
}

/* Replace the first `from` in a file; the lengths are equal where the file is binary. */
static inline void replace(const char *file_name, const char *from, const char *to)
{
    int64_t n;
    char *text = read_bytes(in_temp(file_name), &n);
    char *place = memmem(text, (size_t)n, from, strlen(from));
    if (!place) fail_msg("%s lacks %s", file_name, from);
    FILE *out = fopen(in_temp(file_name), "wb");
    fwrite(text, 1, (size_t)(place - text), out);
    fputs(to, out);
    fwrite(place + strlen(from), 1, (size_t)(text + n - place) - strlen(from), out);
    assert_int_equal(fclose(out), 0);
    f2b_free(text);
}

#endif
