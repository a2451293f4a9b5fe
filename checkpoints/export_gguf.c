/*
 * LoRA adapters as llama.cpp takes them (ggml-org/llama.cpp convert_lora_to_gguf.py,
 * src/llama-adapter.cpp): general.type "adapter" for a base of the architecture "llama", alpha, and
 * blk.N.X.weight.lora_a [r, in] and .lora_b [out, r] for each adapted linear.
 *
 * llama.cpp rotates neighbours (2i, 2i + 1) of a head where Hugging Face rotates halves
 * (i, i + head_dim / 2), so its converted bases have the rows of q and k in another order, and
 * lora_b, whose rows are theirs, has them in that order too. lora_a reads the input: as it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/export_internal.h"

#define HEAD_DIM "fwd2bot.head_dim"     /* of the permuted rows: needed to put them back */
#define ADAPTER "fwd2bot.adapter"
#define LAYERS "language_model.model.layers."

static const struct { const char *module, *name; bool rotated; } linears[] = {
    { "self_attn.q_proj", "attn_q", true },  { "self_attn.k_proj", "attn_k", true },
    { "self_attn.v_proj", "attn_v", false }, { "self_attn.o_proj", "attn_output", false },
    { "mlp.gate_proj", "ffn_gate", false },  { "mlp.up_proj", "ffn_up", false },
    { "mlp.down_proj", "ffn_down", false },
};
enum { LINEARS = sizeof linears / sizeof *linears };

/* Row i of the first half of a head becomes row 2i, of the second half 2i + 1; or back. */
static void reorder(float *to, const float *from, int64_t rows, int64_t columns, int64_t head_dim,
                    bool back)
{
    const int64_t half = head_dim / 2;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t head = row / head_dim * head_dim, i = row % head_dim;
        const int64_t other = head + (i < half ? 2 * i : 2 * (i - half) + 1);
        memcpy(to + (back ? row : other) * columns, from + (back ? other : row) * columns,
               (size_t)columns * sizeof *to);
    }
}

/* ---- Writing ---- */

f2b_status f2bi_gguf_check(const f2bi_export_writer *w)
{
    if (w->info->method.forward == F2B_FORWARD_SINGLE &&
        w->info->method.language_model == F2B_LANGUAGE_MODEL_LORA)
        return f2b_fail(F2B_ERR_INVALID,
                        "llama.cpp takes LoRA adapters for the language model only, and under "
                        "method.forward single the compression adapter is the vision tower's: "
                        "export --format peft; its generation/ alone can go on to llama.cpp, by "
                        "its convert_lora_to_gguf.py, with tokens that were compressed elsewhere");
    bool any = false;
    for (int i = 0; i < F2BI_ADAPTERS; i++) any = any || w->plan.has[i];
    if (!any)
        return f2b_fail(F2B_ERR_INVALID,
                        "there is no adapter to write for llama.cpp (trainable.language_model: "
                        "%s): export --format merged and convert that folder by llama.cpp's "
                        "convert_hf_to_gguf.py",
                        w->info->method.language_model == F2B_LANGUAGE_MODEL_FULL ? "full"
                                                                                  : "frozen");
    /* llama.cpp takes an alpha of 0 for a file without one, and scales by 1. */
    if (!((float)w->info->method.lora.alpha > 0))
        return f2b_fail(F2B_ERR_INVALID, "llama.cpp has no adapter with a lora.alpha of %g",
                        w->info->method.lora.alpha);
    return F2B_OK;
}

/* The name and the place of an adapter's tensor; its rows reordered where llama.cpp's are. */
static f2b_status convert(const f2bi_export_writer *w, const f2bi_added *added, f2b_named_array *t,
                          char **name, float **owned)
{
    char *end;
    const char *layer = added->module + strlen(LAYERS);
    const long long n = strtoll(layer, &end, 10);
    int i = 0;
    while (i < LINEARS && strcmp(linears[i].module, end + 1) != 0) i++;
    F2B_CHECK(strncmp(added->module, LAYERS, strlen(LAYERS)) == 0 && i < LINEARS);
    *name = f2b_sprintf(F2B_TAG_FILES, "blk.%lld.%s.weight.lora_%c", n, linears[i].name,
                        added->is_b ? 'b' : 'a');
    if (*name == NULL) return f2b_last_status();
    t->name = *name;
    if (!added->is_b || !linears[i].rotated) return F2B_OK;
    *owned = f2b_alloc_host((size_t)f2b_named_array_bytes(t), F2B_TAG_FILES);
    if (*owned == NULL) return f2b_last_status();
    reorder(*owned, t->data, t->shape[0], t->shape[1], w->model->text.head_dim, false);
    t->data = *owned;
    return F2B_OK;
}

static f2b_status write_file(const f2bi_export_writer *w, const char *name,
                             const f2b_gguf_pair *pairs, int64_t n_pairs,
                             const f2b_named_array *tensors, int64_t n)
{
    char *path = f2b_path_join(w->folder, name);
    if (path == NULL) return f2b_last_status();
    const f2b_status status = f2b_gguf_write(path, pairs, n_pairs, tensors, n);
    f2b_free(path);
    return status;
}

f2b_status f2bi_gguf_write_adapter(const f2bi_export_writer *w, f2bi_adapter adapter,
                                   const char *name)
{
    const f2b_gguf_pair pairs[] = {
        { "general.architecture", f2b_gguf_text("llama") },
        { "general.type", f2b_gguf_text("adapter") },
        { "adapter.type", f2b_gguf_text("lora") },
        { "adapter.lora.alpha", f2b_gguf_f32((float)w->info->method.lora.alpha) },
        { "general.file_type", f2b_gguf_u32(0) },               /* all f32 */
        { ADAPTER, f2b_gguf_text(f2bi_adapter_name(adapter)) },
        { HEAD_DIM, f2b_gguf_u32((uint32_t)w->model->text.head_dim) },
    };
    f2b_named_array *tensors = f2b_calloc((size_t)w->n, sizeof *tensors, F2B_TAG_FILES);
    char **names = f2b_calloc((size_t)w->n, sizeof *names, F2B_TAG_FILES);
    float **owned = f2b_calloc((size_t)w->n, sizeof *owned, F2B_TAG_FILES);
    f2b_status status = tensors && names && owned ? F2B_OK : f2b_last_status();
    int64_t n = 0;
    for (int64_t i = 0; status == F2B_OK && i < w->n; i++) {
        const f2bi_added *added = f2bi_plan_find(&w->plan, w->tensors[i].name);
        if (!added || !added->module || added->adapter != adapter) continue;
        tensors[n] = w->tensors[i];
        status = convert(w, added, &tensors[n], &names[n], &owned[n]);
        n++;
    }
    if (status == F2B_OK)
        status = write_file(w, name, pairs, sizeof pairs / sizeof *pairs, tensors, n);
    for (int64_t i = 0; i < n; i++) {
        f2b_free(names[i]);
        f2b_free(owned[i]);
    }
    f2b_free(owned);
    f2b_free(names);
    f2b_free(tensors);
    return status;
}

/* No file that llama.cpp loads by itself: rows to put into a batch, where ids have no row. */
f2b_status f2bi_gguf_write_summary(const f2bi_export_writer *w, const f2b_named_array *summary)
{
    const f2b_gguf_pair pairs[] = {
        { "general.architecture", f2b_gguf_text("llama") },
        { "general.type", f2b_gguf_text("summary_tokens") },
    };
    return write_file(w, F2BI_SUMMARY_GGUF, pairs, sizeof pairs / sizeof *pairs, summary, 1);
}

/* ---- Reading ---- */

/* A file of the export, checked to be of this kind; it belongs to the export. */
static f2b_gguf *open_file(f2b_export *e, const char *path, const char *type)
{
    F2B_CHECK(e->n_gguf < F2BI_EXPORT_MAX_FILES);
    f2b_gguf *f = f2b_gguf_open(path);
    if (f == NULL) return NULL;
    e->gguf[e->n_gguf++] = f;
    const f2b_gguf_value *v = f2b_gguf_find(f, "general.type");
    if (v != NULL && v->type == F2B_GGUF_STRING && v->as.text.n == (int64_t)strlen(type) &&
        memcmp(v->as.text.bytes, type, strlen(type)) == 0)
        return f;
    (void)f2b_fail(F2B_ERR_FORMAT, "%s: general.type is not \"%s\"", path, type);
    return NULL;
}

static f2b_status check_text(const f2b_gguf *f, const char *path, const char *key, const char *want)
{
    const f2b_gguf_value *v = f2b_gguf_find(f, key);
    if (v != NULL && v->type == F2B_GGUF_STRING && v->as.text.n == (int64_t)strlen(want) &&
        memcmp(v->as.text.bytes, want, strlen(want)) == 0)
        return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "%s: %s is not \"%s\"", path, key, want);
}

static f2b_status check_metadata(const f2b_export *e, const f2b_gguf *f, const char *path,
                                 f2bi_adapter adapter, int64_t *head_dim)
{
    F2B_TRY(check_text(f, path, "general.architecture", "llama"));
    F2B_TRY(check_text(f, path, "adapter.type", "lora"));
    F2B_TRY(check_text(f, path, ADAPTER, f2bi_adapter_name(adapter)));
    const f2b_gguf_value *v = f2b_gguf_find(f, "adapter.lora.alpha");
    if (v == NULL || v->type != F2B_GGUF_F32 || (float)v->as.f != (float)e->info.method.lora.alpha)
        return f2b_fail(F2B_ERR_FORMAT, "%s: adapter.lora.alpha is not the %g of " F2BI_EXPORT_FILE,
                        path, e->info.method.lora.alpha);
    v = f2b_gguf_find(f, HEAD_DIM);
    *head_dim = v != NULL && v->type == F2B_GGUF_U32 ? (int64_t)v->as.u : 0;
    if (*head_dim < 2 || *head_dim % 2 != 0 ||
        (e->model != NULL && *head_dim != e->model->text.head_dim))
        return f2b_fail(F2B_ERR_FORMAT, "%s: " HEAD_DIM " is %lld, which no head of the base has",
                        path, (long long)*head_dim);
    return F2B_OK;
}

/* "blk.N.X.weight.lora_b" taken apart; false where it is no such name. */
typedef struct parts {
    long long layer;
    int linear;
    bool is_b;
} parts;

static bool take_apart(const char *name, parts *out)
{
    char *end, rest[64];
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return false;
    out->layer = strtoll(name + 4, &end, 10);
    for (out->linear = 0; out->linear < LINEARS; out->linear++)
        for (int b = 0; b < 2; b++) {
            snprintf(rest, sizeof rest, ".%s.weight.lora_%c", linears[out->linear].name,
                     b ? 'b' : 'a');
            out->is_b = b == 1;
            if (strcmp(end, rest) == 0) return true;
        }
    return false;
}

static bool is_reordered(const parts *p) { return p->is_b && linears[p->linear].rotated; }

static f2b_status check_array(const char *path, const f2b_gguf_tensor *t, int ndim)
{
    if (t->dtype == F2B_F32 && t->ndim == ndim) return F2B_OK;
    char shape[F2B_SHAPE_TEXT];
    return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is %s %s; an export has F32 matrices", path,
                    t->name, t->type, f2b_shape_text(t->ndim, t->shape, shape));
}

static f2b_named_array array_of(const f2b_gguf_tensor *t)
{
    f2b_named_array array = { .dtype = F2B_F32, .ndim = t->ndim, .data = t->data };
    for (int i = 0; i < t->ndim; i++) array.shape[i] = t->shape[i];
    return array;
}

/* `room` takes the rows that are put back; it moves on. */
static f2b_status add(f2b_export *e, const char *path, const f2b_gguf_tensor *t,
                      f2bi_adapter adapter, int64_t head_dim, float **room)
{
    parts p;
    F2B_TRY(check_array(path, t, 2));
    if (!take_apart(t->name, &p))
        return f2b_fail(F2B_ERR_FORMAT, "%s: %s is no name of an adapter's tensor "
                        "(blk.N.attn_q.weight.lora_a)", path, t->name);
    f2b_named_array array = array_of(t);
    if (is_reordered(&p)) {
        if (array.shape[0] % head_dim != 0)
            return f2b_fail(F2B_ERR_FORMAT, "%s: the %lld rows of tensor %s are not heads of %lld",
                            path, (long long)array.shape[0], t->name, (long long)head_dim);
        reorder(*room, t->data, array.shape[0], array.shape[1], head_dim, true);
        array.data = *room;
        *room += f2b_named_array_count(&array);
    }
    char *name = f2b_sprintf(F2B_TAG_FILES, LAYERS "%lld.%s.%s.lora_%c", p.layer,
                             linears[p.linear].module, f2bi_adapter_name(adapter),
                             p.is_b ? 'B' : 'A');
    return name != NULL ? f2bi_export_add(e, path, t->name, array, name) : f2b_last_status();
}

static f2b_status read_adapter(f2b_export *e, f2bi_adapter adapter, const char *path)
{
    const f2b_gguf *f = open_file(e, path, "adapter");
    int64_t head_dim = 0, bytes = 0;
    if (f == NULL) return f2b_last_status();
    F2B_TRY(check_metadata(e, f, path, adapter, &head_dim));
    const int64_t n = f2b_gguf_tensors(f);
    for (int64_t i = 0; i < n; i++) {
        parts p;
        const f2b_gguf_tensor *t = f2b_gguf_tensor_at(f, i);
        if (take_apart(t->name, &p) && is_reordered(&p)) bytes += t->bytes;
    }
    float *room = f2b_alloc_host((size_t)bytes, F2B_TAG_FILES);
    if (room == NULL) return f2b_last_status();
    e->reordered[e->n_gguf - 1] = room;
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < n && status == F2B_OK; i++)
        status = add(e, path, f2b_gguf_tensor_at(f, i), adapter, head_dim, &room);
    return status;
}

f2b_status f2bi_gguf_read_adapter(f2b_export *e, f2bi_adapter adapter, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "%s.gguf", name);
    char *path = f2b_path_join(e->folder, file);
    const f2b_status status = path != NULL ? read_adapter(e, adapter, path) : f2b_last_status();
    f2b_free(path);
    return status;
}

static f2b_status read_summary(f2b_export *e, const char *path)
{
    const f2b_gguf *f = open_file(e, path, "summary_tokens");
    if (f == NULL) return f2b_last_status();
    for (int64_t i = 0; i < f2b_gguf_tensors(f); i++) {
        const f2b_gguf_tensor *t = f2b_gguf_tensor_at(f, i);
        F2B_TRY(check_array(path, t, 2));
        char *name = f2b_strdup(t->name, F2B_TAG_FILES);
        if (name == NULL) return f2b_last_status();
        F2B_TRY(f2bi_export_add(e, path, t->name, array_of(t), name));
    }
    return F2B_OK;
}

f2b_status f2bi_gguf_read_summary(f2b_export *e)
{
    char *path = f2b_path_join(e->folder, F2BI_SUMMARY_GGUF);
    const f2b_status status = path != NULL ? read_summary(e, path) : f2b_last_status();
    f2b_free(path);
    return status;
}
