/* See lora_norms.h. */
#include "infer/inspect/lora_norms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/core/tape.h"
#include "autograd/ops/linear/linear.h"
#include "checkpoints/peft.h"
#include "checkpoints/trained_tensors.h"

/* ---- Names ---- */

/* The linears of a layer, language model and tower, as they follow each other in it. */
static const char *const projections[] = { "q_proj",  "k_proj", "v_proj",    "o_proj", "out_proj",
                                           "gate_proj", "up_proj", "down_proj", "fc1",    "fc2" };
enum { PROJECTIONS = sizeof projections / sizeof *projections };

static int order_of(const char *projection)
{
    int i = 0;
    while (i < PROJECTIONS && strcmp(projections[i], projection) != 0) i++;
    return i;
}

/* "PREFIX.layers.3.self_attn.q_proj.compression.lora_A" into its parts; false for other names. */
static bool split_name(const char *name, f2b_lora_norm *out)
{
    static const char *const stages[] = { "compression", "generation", "shared" };
    const char *layers = strstr(name, ".layers."), *end = name + strlen(name);
    if (layers == NULL || end - name < 7 || strcmp(end - 7, ".lora_A") != 0) return false;
    const char *dot = end - 7;
    while (dot > layers && dot[-1] != '.') dot--;
    for (int i = 0; i < 3; i++)
        if (strncmp(dot, stages[i], strlen(stages[i])) == 0 &&
            dot + strlen(stages[i]) == end - 7) out->stage = stages[i];
    char *after;
    out->layer = strtoll(layers + 8, &after, 10);
    out->tower = strncmp(name, "vision_tower.", 13) == 0;
    if (out->stage == NULL || after == layers + 8 || *after != '.' || out->layer < 0) return false;
    char *module = f2b_strdup(name, F2B_TAG_OTHER);
    if (module == NULL) return false;
    module[dot - 1 - name] = '\0';
    out->module = module;
    out->projection = strrchr(module, '.') + 1;
    return true;
}

/* ---- The norm ---- */

/* x [rows, cols] f32 as a f64 tensor of the tape, transposed where asked. */
static f2b_tensor *widened(f2b_tape *tape, const f2b_named_array *x, bool transposed)
{
    const int64_t rows = x->shape[0], cols = x->shape[1];
    f2b_tensor *y = f2b_tape_tensor(tape, F2B_F64, 2, (int64_t[]){ transposed ? cols : rows,
                                                                   transposed ? rows : cols });
    if (y == NULL) return NULL;
    const float *from = x->data;
    double *to = y->data;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            to[transposed ? j * rows + i : i * cols + j] = (double)from[i * cols + j];
    return y;
}

/* |B A|: A [r, in], B [out, r]. The Gram matrices are products of linears: x x^T. */
static f2b_status product_norm(const f2b_named_array *a, const f2b_named_array *b, double *norm)
{
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    if (tape == NULL) return f2b_last_status();
    (void)f2b_tape_set_recording(tape, false);
    f2b_tensor *rows_a = widened(tape, a, false), *rows_b = widened(tape, b, true);
    f2b_tensor *gram_a = f2b_linear(tape, rows_a, rows_a, NULL);
    f2b_tensor *gram_b = f2b_linear(tape, rows_b, rows_b, NULL);
    f2b_status status = F2B_OK;
    double sum = 0;
    if (gram_a != NULL && gram_b != NULL)
        for (int64_t i = 0; i < f2b_numel(gram_a); i++)
            sum += ((const double *)gram_a->data)[i] * ((const double *)gram_b->data)[i];
    else status = f2b_last_status();
    f2b_tape_free(tape);
    *norm = sqrt(sum > 0 || isnan(sum) ? sum : 0); /* rounding may leave a zero just below it */
    return status;
}

/* ---- All adapters ---- */

static f2b_lora_norm *grow(f2b_lora_norms *norms)
{
    if (norms->n == norms->capacity) {
        const int64_t capacity = norms->capacity > 0 ? 2 * norms->capacity : 64;
        f2b_lora_norm *items =
            f2b_realloc(norms->items, (size_t)capacity * sizeof *items, F2B_TAG_OTHER);
        if (items == NULL) return NULL;
        norms->items = items, norms->capacity = capacity;
    }
    f2b_lora_norm *item = &norms->items[norms->n++];
    *item = (f2b_lora_norm){ 0 };
    return item;
}

static const f2b_named_array *find(const f2b_named_array *tensors, int64_t n, const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
    return NULL;
}

/* `a` may be any tensor; only a lora_A leads to an item. */
static f2b_status add_adapter(f2b_lora_norms *norms, const f2b_named_array *tensors, int64_t n,
                              const f2b_named_array *a)
{
    f2b_lora_norm parts = { 0 };
    if (!split_name(a->name, &parts)) return F2B_OK;
    f2b_lora_norm *item = grow(norms);
    if (item == NULL) {
        f2b_free((char *)(uintptr_t)parts.module);
        return f2b_last_status();
    }
    *item = parts;
    char *name = f2b_strdup(a->name, F2B_TAG_OTHER);
    if (name == NULL) return f2b_last_status();
    name[strlen(name) - 1] = 'B';
    const f2b_named_array *b = find(tensors, n, name);
    f2b_free(name);
    if (b == NULL || a->ndim != 2 || b->ndim != 2 || a->shape[0] != b->shape[1])
        return f2b_fail(F2B_ERR_FORMAT, "%s has no lora_B that fits it", a->name);
    item->r = a->shape[0], item->in = a->shape[1], item->out = b->shape[0];
    F2B_TRY(product_norm(a, b, &item->norm));
    item->norm *= norms->scale;
    return F2B_OK;
}

static int compare_items(const void *a, const void *b)
{
    const f2b_lora_norm *x = a, *y = b;
    if (x->tower != y->tower) return x->tower ? -1 : 1;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    const int order = order_of(x->projection) - order_of(y->projection);
    return order != 0 ? order : strcmp(x->stage, y->stage);
}

static f2b_status add_all(f2b_lora_norms *norms, const char *path, const f2b_method *method,
                          const f2b_named_array *tensors, int64_t n)
{
    norms->scale = method->lora.r > 0 ? method->lora.alpha / (double)method->lora.r : 0;
    for (int64_t i = 0; i < n; i++) F2B_TRY(add_adapter(norms, tensors, n, &tensors[i]));
    if (norms->n == 0)
        return f2b_fail(F2B_ERR_DATA, "%s has no LoRA adapters (trainable.language_model: lora)",
                        path);
    qsort(norms->items, (size_t)norms->n, sizeof *norms->items, compare_items);
    return F2B_OK;
}

static f2b_status read_run(const char *path, f2b_state_notify *notify, void *user,
                           f2b_lora_norms *norms)
{
    f2b_trained *file = f2b_trained_open(path, NULL, notify, user);
    if (file == NULL) return f2b_last_status();
    const int64_t n = f2b_trained_count(file);
    f2b_named_array *tensors = f2b_calloc((size_t)n, sizeof *tensors, F2B_TAG_OTHER);
    f2b_status status = tensors != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; i < n && status == F2B_OK; i++)
        status = f2b_trained_at(file, i, &tensors[i]);
    norms->step = f2b_trained_step(file);
    if (status == F2B_OK) status = add_all(norms, path, f2b_trained_method(file), tensors, n);
    f2b_free(tensors);
    f2b_trained_close(file);
    return status;
}

static f2b_status read_export(const char *path, f2b_lora_norms *norms)
{
    f2b_export *file = f2b_export_open(path, NULL);
    if (file == NULL) return f2b_last_status();
    const f2b_export_info *info = f2b_export_get_info(file);
    norms->step = info->step;
    const int64_t n = f2b_export_count(file);
    const f2b_named_array *first = n > 0 ? f2b_export_at(file, 0) : NULL; /* they lie together */
    const f2b_status status = add_all(norms, path, &info->method, first, n);
    f2b_export_close(file);
    return status;
}

f2b_status f2b_lora_norms_read(const char *path, f2b_state_notify *notify, void *user,
                               f2b_lora_norms *norms)
{
    return f2b_export_is_one(path) ? read_export(path, norms)
                                   : read_run(path, notify, user, norms);
}

void f2b_lora_norms_clear(f2b_lora_norms *norms)
{
    for (int64_t i = 0; i < norms->n; i++) f2b_free((char *)(uintptr_t)norms->items[i].module);
    f2b_free(norms->items);
    *norms = (f2b_lora_norms){ 0 };
}
