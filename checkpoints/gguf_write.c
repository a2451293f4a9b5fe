/* The GGUF writer. See gguf.h for the contract. The header is put together in memory, the tensors
 * follow from where they lie. */
#include "checkpoints/gguf.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/gguf_internal.h"

enum { ALIGNMENT = F2BI_GGUF_ALIGNMENT };

f2b_gguf_value f2b_gguf_text(const char *text)
{
    f2b_gguf_value v = { .type = F2B_GGUF_STRING };
    v.as.text.bytes = text, v.as.text.n = (int64_t)strlen(text);
    return v;
}

f2b_gguf_value f2b_gguf_u32(uint32_t x)
{
    return (f2b_gguf_value){ .type = F2B_GGUF_U32, .as.u = x };
}

f2b_gguf_value f2b_gguf_f32(float x)
{
    return (f2b_gguf_value){ .type = F2B_GGUF_F32, .as.f = x };
}

/* ---- The header ---- */

typedef struct header {
    uint8_t *bytes;
    size_t n, capacity;
    f2b_status status;          /* of the first failure */
} header;

static void put(header *h, const void *data, size_t n)
{
    if (h->status != F2B_OK) return;
    if (h->n + n > h->capacity) {
        const size_t capacity = 2 * (h->n + n);
        uint8_t *grown = f2b_realloc(h->bytes, capacity, F2B_TAG_FILES);
        if (!grown) {
            h->status = f2b_last_status();
            return;
        }
        h->bytes = grown, h->capacity = capacity;
    }
    memcpy(h->bytes + h->n, data, n);
    h->n += n;
}

static void put_u32(header *h, uint32_t x) { put(h, &x, sizeof x); }
static void put_u64(header *h, uint64_t x) { put(h, &x, sizeof x); }

static void put_text(header *h, const char *bytes, int64_t n)
{
    put_u64(h, (uint64_t)n);
    put(h, bytes, (size_t)n);
}

static void put_value(header *h, const char *path, const f2b_gguf_pair *pair)
{
    const f2b_gguf_value *v = &pair->value;
    put_u32(h, (uint32_t)v->type);
    switch (v->type) {
    case F2B_GGUF_U8:
    case F2B_GGUF_BOOL: put(h, &(uint8_t){ (uint8_t)v->as.u }, 1); break;
    case F2B_GGUF_I8: put(h, &(int8_t){ (int8_t)v->as.i }, 1); break;
    case F2B_GGUF_U16: put(h, &(uint16_t){ (uint16_t)v->as.u }, 2); break;
    case F2B_GGUF_I16: put(h, &(int16_t){ (int16_t)v->as.i }, 2); break;
    case F2B_GGUF_U32: put_u32(h, (uint32_t)v->as.u); break;
    case F2B_GGUF_I32: put(h, &(int32_t){ (int32_t)v->as.i }, 4); break;
    case F2B_GGUF_F32: put(h, &(float){ (float)v->as.f }, 4); break;
    case F2B_GGUF_U64: put_u64(h, v->as.u); break;
    case F2B_GGUF_I64: put(h, &v->as.i, 8); break;
    case F2B_GGUF_F64: put(h, &v->as.f, 8); break;
    case F2B_GGUF_STRING: put_text(h, v->as.text.bytes, v->as.text.n); break;
    case F2B_GGUF_ARRAY:
    case F2B_GGUF_TYPES:
        h->status = f2b_fail(F2B_ERR_INVALID, "%s: key %s is no scalar and no text", path,
                             pair->key);
    }
}

static int64_t padding(int64_t bytes) { return (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT; }

static void put_tensor(header *h, const f2b_named_array *t, uint32_t type, int64_t offset)
{
    put_text(h, t->name, (int64_t)strlen(t->name));
    put_u32(h, (uint32_t)t->ndim);
    for (int i = t->ndim - 1; i >= 0; i--) put_u64(h, (uint64_t)t->shape[i]);
    put_u32(h, type);
    put_u64(h, (uint64_t)offset);
}

static f2b_status check_tensor(const char *path, const f2b_named_array *tensors, int64_t i,
                               uint32_t *type)
{
    const f2b_named_array *t = &tensors[i];
    if (strlen(t->name) > F2BI_GGUF_MAX_NAME || t->ndim > F2BI_GGUF_MAX_DIMS ||
        !f2bi_gguf_type_number(t->dtype, type))
        return f2b_fail(F2B_ERR_INVALID, "%s: tensor %s (%s, %d dimensions) does not fit a GGUF "
                        "file", path, t->name, f2b_dtype_name(t->dtype), t->ndim);
    for (int64_t j = 0; j < i; j++)
        if (strcmp(tensors[j].name, t->name) == 0)
            return f2b_fail(F2B_ERR_INVALID, "%s: two tensors are named %s", path, t->name);
    return F2B_OK;
}

static f2b_status fill(header *h, const char *path, const f2b_gguf_pair *pairs, int64_t n_pairs,
                       const f2b_named_array *tensors, int64_t n)
{
    put(h, "GGUF", 4);
    put_u32(h, F2BI_GGUF_VERSION);
    put_u64(h, (uint64_t)n);
    put_u64(h, (uint64_t)n_pairs);
    for (int64_t i = 0; i < n_pairs; i++) {
        for (int64_t j = 0; j < i; j++)
            if (strcmp(pairs[i].key, pairs[j].key) == 0)
                return f2b_fail(F2B_ERR_INVALID, "%s: key %s is there twice", path, pairs[i].key);
        put_text(h, pairs[i].key, (int64_t)strlen(pairs[i].key));
        put_value(h, path, &pairs[i]);
    }
    int64_t offset = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t type = 0;
        F2B_TRY(check_tensor(path, tensors, i, &type));
        put_tensor(h, &tensors[i], type, offset);
        const int64_t bytes = f2b_named_array_bytes(&tensors[i]);
        offset += bytes + padding(bytes);
    }
    return h->status;
}

/* ---- The file ---- */

static f2b_status write_padded(f2b_atomic_file *file, const void *data, int64_t bytes)
{
    static const uint8_t zeros[ALIGNMENT];
    F2B_TRY(f2b_atomic_file_write(file, data, (size_t)bytes));
    return f2b_atomic_file_write(file, zeros, (size_t)padding(bytes));
}

f2b_status f2b_gguf_write(const char *path, const f2b_gguf_pair *pairs, int64_t n_pairs,
                          const f2b_named_array *tensors, int64_t n)
{
    header h = { 0 };
    f2b_status status = fill(&h, path, pairs, n_pairs, tensors, n);
    f2b_atomic_file *file = status == F2B_OK ? f2b_atomic_file_open(path) : NULL;
    if (status == F2B_OK) status = file ? write_padded(file, h.bytes, (int64_t)h.n)
                                        : f2b_last_status();
    for (int64_t i = 0; i < n && status == F2B_OK; i++)
        status = write_padded(file, tensors[i].data, f2b_named_array_bytes(&tensors[i]));
    f2b_free(h.bytes);
    if (status == F2B_OK) return f2b_atomic_file_commit(file);
    f2b_atomic_file_abort(file);
    return status;
}
