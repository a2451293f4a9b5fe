/* What kind of thing lies at a path, and the parts that every report has. See inspect.h. */
#include "infer/inspect/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/file_checksum.h"
#include "data/tokenizer/buffers.h"
#include "data/tokenizer/utf8.h"
#include "infer/inspect/inspect_internal.h"

/* ---- Texts and facts ---- */

json_t *f2bi_json_clean(const char *bytes, size_t n)
{
    f2b_text clean = { 0 };
    f2b_status status = F2B_OK;
    while (n > 0 && status == F2B_OK) {
        uint32_t code;
        const int size = f2bi_utf8_decode(bytes, n, &code);
        status = size > 0 ? f2b_text_append(&clean, bytes, (size_t)size)
                          : f2b_text_add(&clean, F2BI_REPLACEMENT);
        bytes += size > 0 ? size : 1, n -= (size_t)(size > 0 ? size : 1);
    }
    json_t *text = status == F2B_OK ? json_stringn(clean.n > 0 ? clean.text : "", clean.n) : NULL;
    f2b_text_free(&clean);
    return text;
}

static json_t *text_of(const char *text) { return f2bi_json_clean(text, strlen(text)); }

/* Puts a value that may be NULL because there was no memory for it. */
static void set(f2bi_report *r, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) r->failed = true;
}

void f2bi_fact(f2bi_report *r, const char *key, json_t *value) { set(r, r->facts, key, value); }

void f2bi_fact_text(f2bi_report *r, const char *key, const char *text)
{
    if (text != NULL) set(r, r->facts, key, text_of(text));
}

void f2bi_check_status(f2bi_report *r, const char *what, bool ok)
{
    f2bi_check(r, what, ok ? NULL : f2b_last_error());
}

void f2bi_check(f2bi_report *r, const char *what, const char *why)
{
    json_t *check = json_object();
    set(r, check, "what", text_of(what));
    set(r, check, "ok", json_boolean(why == NULL));
    if (why != NULL) set(r, check, "why", text_of(why));
    if (json_array_append_new(r->checks, check) != 0) r->failed = true;
}

int64_t f2b_inspect_failures(const json_t *report)
{
    int64_t n = 0;
    size_t i;
    json_t *check;
    json_array_foreach(json_object_get(report, "checks"), i, check)
        n += json_is_false(json_object_get(check, "ok"));
    return n;
}

/* ---- Tensors ---- */

/* Sums of squares in f64, block by block, so that no copy of a large tensor is needed. */
static json_t *norm_of(const f2bi_listed *t)
{
    enum { BLOCK = 4096 };
    float block[BLOCK];
    const f2b_dtype dtype = (f2b_dtype)t->dtype;
    const int64_t size = (int64_t)f2b_dtype_size(dtype), n = t->bytes / size;
    double sum = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int64_t m = n - at < BLOCK ? n - at : BLOCK;
        const char *from = (const char *)t->data + at * size;
        const double *wide = (const double *)(const void *)from;
        if (dtype != F2B_F64) f2b_convert(block, F2B_F32, from, dtype, (size_t)m);
        for (int64_t i = 0; i < m; i++) {
            const double x = dtype == F2B_F64 ? wide[i] : (double)block[i];
            sum += x * x;
        }
    }
    if (isnan(sum)) return json_string("nan");
    return isinf(sum) ? json_string("inf") : json_real(sqrt(sum));
}

static bool is_listed(const f2bi_report *r)
{
    return r->options->limit == 0 || r->count < r->options->limit;
}

bool f2bi_wants_norm(const f2bi_report *r) { return r->options->norms && is_listed(r); }

void f2bi_list(f2bi_report *r, const f2bi_listed *t)
{
    int64_t elements = 1;
    for (int i = 0; i < t->ndim; i++) elements *= t->shape[i];
    if (is_listed(r)) {
        json_t *entry = json_object(), *shape = json_array();
        for (int i = 0; i < t->ndim; i++)
            if (json_array_append_new(shape, json_integer(t->shape[i])) != 0) r->failed = true;
        set(r, entry, "name", text_of(t->name));
        set(r, entry, "type", text_of(t->type));
        set(r, entry, "shape", shape);
        set(r, entry, "bytes", json_integer(t->bytes));
        const bool computed = t->data != NULL && t->dtype >= 0 &&
                              f2b_dtype_is_float((f2b_dtype)t->dtype);
        if (r->options->norms) set(r, entry, "norm", computed ? norm_of(t) : json_null());
        if (t->updates >= 0) set(r, entry, "updates", json_integer(t->updates));
        if (t->file != NULL) set(r, entry, "file", text_of(t->file));
        if (json_array_append_new(r->tensors, entry) != 0) r->failed = true;
    }
    r->count++;
    r->elements += elements;
    r->bytes += t->bytes;
}

bool f2bi_folder_has(const char *folder, const char *name)
{
    char *path = f2b_path_join(folder, name);
    const bool there = path != NULL && access(path, F_OK) == 0;
    f2b_free(path);
    return there;
}

void f2bi_checksum(f2bi_report *r, const char *path, const char *name)
{
    f2b_file_checksum sum;
    if (!r->options->verify) return;
    if (f2b_file_checksum_take(path, &sum) != F2B_OK) {
        f2bi_check_status(r, path, false);
        return;
    }
    if (json_object_get(r->facts, "checksums") == NULL)
        set(r, r->facts, "checksums", json_object());
    set(r, json_object_get(r->facts, "checksums"), name,
        json_pack("{s:I, s:s}", "size", (json_int_t)sum.size, "xxh3_128", sum.xxh3_128));
}

void f2bi_checksum_in(f2bi_report *r, const char *folder, const char *name)
{
    if (!f2bi_folder_has(folder, name)) return;
    char *path = f2b_path_join(folder, name);
    if (path != NULL) f2bi_checksum(r, path, name);
    f2b_free(path);
}

/* ---- What it is ---- */

typedef f2b_status inspector(f2bi_report *r);
typedef struct kind {
    const char *name;
    inspector *inspect;
} kind;

static kind kind_of_folder(const char *path)
{
    static const struct {
        const char *entry;
        kind kind;
    } signs[] = {
        { "f2b.json", { "export", f2bi_inspect_export } },
        { "store.json", { "store", f2bi_inspect_store } },
        { "manifest.json", { "checkpoint", f2bi_inspect_checkpoint } },
        { "state.h5", { "checkpoint", f2bi_inspect_checkpoint } },
        { "checkpoints", { "run", f2bi_inspect_run } },
        { "metrics.jsonl", { "run", f2bi_inspect_run } },
        { "adapter_config.json", { "peft", f2bi_inspect_peft } },
        { "config.json", { "model", f2bi_inspect_model } },
    };
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (f2bi_folder_has(path, signs[i].entry)) return signs[i].kind;
    return (kind){ 0 };
}

static f2b_status kind_of_file(const char *path, kind *out)
{
    static const char hdf5[8] = "\x89HDF\r\n\x1a\n";
    char start[9] = "";
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", path);
    const ssize_t n = read(fd, start, sizeof start);
    close(fd);
    if (n >= 4 && memcmp(start, "GGUF", 4) == 0) *out = (kind){ "gguf", f2bi_inspect_gguf };
    else if (n >= 8 && memcmp(start, hdf5, 8) == 0)
        return f2b_fail(F2B_ERR_FORMAT, "%s is an HDF5 file: name the folder that it lies in, a "
                        "checkpoint or a store", path);
    else if (n == 9 && start[8] == '{') *out = (kind){ "safetensors", f2bi_inspect_safetensors };
    return F2B_OK;
}

static f2b_status find_kind(const char *path, kind *out)
{
    struct stat info;
    *out = (kind){ 0 };
    if (stat(path, &info) != 0)
        return f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO, "%s", path);
    if (S_ISDIR(info.st_mode)) *out = kind_of_folder(path);
    else F2B_TRY(kind_of_file(path, out));
    if (out->inspect != NULL) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "%s is not known: neither a run, a checkpoint, an export, a "
                    "store, a PEFT folder or a model folder, nor a safetensors or GGUF file (by their "
                    "contents)", path);
}

json_t *f2b_inspect(const char *path, const f2b_inspect_options *options)
{
    kind k;
    if (find_kind(path, &k) != F2B_OK) return NULL;
    f2bi_report r = { .options = options, .path = path, .root = json_object(),
                      .facts = json_object(), .tensors = json_array(), .checks = json_array() };
    set(&r, r.root, "kind", json_string(k.name));
    set(&r, r.root, "path", text_of(path));
    set(&r, r.root, "facts", r.facts);
    set(&r, r.root, "totals", json_null()); /* its place among the keys */
    set(&r, r.root, "tensors", r.tensors);
    set(&r, r.root, "checks", r.checks);
    f2b_status status = r.failed ? F2B_OK : k.inspect(&r);
    if (status == F2B_OK)
        set(&r, r.root, "totals",
            json_pack("{s:I, s:I, s:I}", "tensors", (json_int_t)r.count, "elements",
                      (json_int_t)r.elements, "bytes", (json_int_t)r.bytes));
    if (status == F2B_OK && r.failed)
        status = f2b_fail(F2B_ERR_MEMORY, "no memory for the report on %s", path);
    if (status == F2B_OK) return r.root;
    json_decref(r.root);
    return NULL;
}
