/* Reports on GGUF files. */
#include <string.h>

#include "checkpoints/gguf.h"
#include "infer/inspect/inspect_internal.h"

enum { SHOWN = 16 };            /* elements of a longer array that a report has */

static json_t *number(double x)
{
    return x - x == 0 ? json_real(x) : json_null(); /* NaN and infinity are no JSON numbers */
}

static json_t *scalar(const f2b_gguf_value *v)
{
    switch (v->type) {
    case F2B_GGUF_STRING: return f2bi_json_clean(v->as.text.bytes, (size_t)v->as.text.n);
    case F2B_GGUF_BOOL: return json_boolean(v->as.u != 0);
    case F2B_GGUF_F32:
    case F2B_GGUF_F64: return number(v->as.f);
    case F2B_GGUF_I8:
    case F2B_GGUF_I16:
    case F2B_GGUF_I32:
    case F2B_GGUF_I64: return json_integer(v->as.i);
    default:
        return v->as.u <= INT64_MAX ? json_integer((json_int_t)v->as.u)
                                    : json_real((double)v->as.u);
    }
}

/* A short array as it is; of a long one type, length and the first elements. */
static json_t *array(const f2b_gguf_value *v)
{
    const int64_t n = v->as.array.n;
    json_t *list = json_array();
    const void *at = v->as.array.first;
    for (int64_t i = 0; i < n && i < SHOWN; i++) {
        const f2b_gguf_value element = f2b_gguf_next(v, &at);
        if (json_array_append_new(list, scalar(&element)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    if (n <= SHOWN) return list;
    return json_pack("{s:s, s:I, s:o}", "type", f2b_gguf_type_name(v->as.array.type), "count",
                     (json_int_t)n, "first", list);
}

f2b_status f2bi_inspect_gguf(f2bi_report *r)
{
    f2b_gguf *f = f2b_gguf_open(r->path);
    if (f == NULL) return f2b_last_status();
    f2bi_check(r, r->path, NULL);
    f2bi_checksum(r, r->path, r->path);
    json_t *metadata = json_object();
    for (int64_t i = 0; i < f2b_gguf_keys(f); i++) {
        const f2b_gguf_value *v = f2b_gguf_value_at(f, i);
        json_t *key = f2bi_json_clean(f2b_gguf_key(f, i), strlen(f2b_gguf_key(f, i)));
        if (key == NULL ||
            json_object_set_new(metadata, json_string_value(key),
                                v->type == F2B_GGUF_ARRAY ? array(v) : scalar(v)) != 0)
            r->failed = true;
        json_decref(key);
    }
    f2bi_fact(r, "metadata", metadata);
    for (int64_t i = 0; i < f2b_gguf_tensors(f); i++) {
        const f2b_gguf_tensor *t = f2b_gguf_tensor_at(f, i);
        f2bi_list(r, &(f2bi_listed){ .name = t->name, .type = t->type, .ndim = t->ndim,
                                     .shape = t->shape, .bytes = t->bytes, .dtype = t->dtype,
                                     .data = t->data, .updates = -1 });
    }
    f2b_gguf_close(f);
    return F2B_OK;
}
