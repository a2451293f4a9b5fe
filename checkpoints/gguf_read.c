/*
 * The GGUF reader. See gguf.h for the contract. One cursor walks the header; every length is held
 * against what is left of the file before it is believed, and no allocation is larger than a small
 * multiple of the file.
 */
#include "checkpoints/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "autograd/core/alloc.h"
#include "checkpoints/file_internal.h"
#include "checkpoints/gguf_internal.h"

enum { VERSION = F2BI_GGUF_VERSION, DEFAULT_ALIGNMENT = F2BI_GGUF_ALIGNMENT };
enum { MAX_NAME = F2BI_GGUF_MAX_NAME, MAX_DIMS = F2BI_GGUF_MAX_DIMS, MAX_ENTRIES = 1 << 20 };
/* The fewest bytes that a key with its value, and a tensor's entry, can take. */
enum { LEAST_PAIR = 8 + 4 + 1, LEAST_TENSOR = 8 + 4 + 4 + 8 };

/* ggml's types: number, name, elements of a block, bytes of a block, our type. */
static const struct {
    uint32_t number;
    const char *name;
    int64_t elements, bytes;
    int dtype;
} tensor_types[] = {
    { 0, "F32", 1, 4, F2B_F32 },     { 1, "F16", 1, 2, F2B_F16 },   { 30, "BF16", 1, 2, F2B_BF16 },
    { 28, "F64", 1, 8, F2B_F64 },    { 24, "I8", 1, 1, -1 },        { 25, "I16", 1, 2, -1 },
    { 26, "I32", 1, 4, F2B_I32 },    { 27, "I64", 1, 8, -1 },       { 2, "Q4_0", 32, 18, -1 },
    { 3, "Q4_1", 32, 20, -1 },       { 6, "Q5_0", 32, 22, -1 },     { 7, "Q5_1", 32, 24, -1 },
    { 8, "Q8_0", 32, 34, -1 },       { 10, "Q2_K", 256, 84, -1 },   { 11, "Q3_K", 256, 110, -1 },
    { 12, "Q4_K", 256, 144, -1 },    { 13, "Q5_K", 256, 176, -1 },  { 14, "Q6_K", 256, 210, -1 },
    { 15, "Q8_K", 256, 292, -1 },    { 16, "IQ2_XXS", 256, 66, -1 }, { 17, "IQ2_XS", 256, 74, -1 },
    { 18, "IQ3_XXS", 256, 98, -1 },  { 19, "IQ1_S", 256, 50, -1 },  { 20, "IQ4_NL", 32, 18, -1 },
    { 21, "IQ3_S", 256, 110, -1 },   { 22, "IQ2_S", 256, 82, -1 },  { 23, "IQ4_XS", 256, 136, -1 },
    { 29, "IQ1_M", 256, 56, -1 },    { 34, "TQ1_0", 256, 54, -1 },  { 35, "TQ2_0", 256, 66, -1 },
    { 39, "MXFP4", 32, 17, -1 },
};

bool f2bi_gguf_type_number(f2b_dtype dtype, uint32_t *number)
{
    for (size_t i = 0; i < sizeof tensor_types / sizeof *tensor_types; i++)
        if (tensor_types[i].dtype == (int)dtype) {
            *number = tensor_types[i].number;
            return true;
        }
    return false;
}

typedef struct pair {
    char *key;                  /* owned */
    f2b_gguf_value value;
} pair;

struct f2b_gguf {
    char *path;
    const uint8_t *map;
    int64_t map_bytes, at;      /* `at`: how far the header has been read */
    pair *pairs;
    int64_t n_pairs;
    f2b_gguf_tensor *tensors;   /* names owned */
    int64_t *offsets;           /* [n_tensors] as the file says */
    int64_t n_tensors;
    const char **sorted;        /* names while they are checked for duplicates */
};

static int64_t size_of(f2b_gguf_type type)
{
    switch (type) {
#define F2B_X(type, number, bytes, name) case type: return bytes;
        F2B_GGUF_VALUE_LIST(F2B_X)
#undef F2B_X
    case F2B_GGUF_TYPES: break;
    }
    return 0;
}

const char *f2b_gguf_type_name(f2b_gguf_type type)
{
    switch (type) {
#define F2B_X(type, number, bytes, name) case type: return name;
        F2B_GGUF_VALUE_LIST(F2B_X)
#undef F2B_X
    case F2B_GGUF_TYPES: break;
    }
    return "?";
}

/* ---- The cursor ---- */

static int64_t left(const f2b_gguf *f) { return f->map_bytes - f->at; }

static f2b_status cut_off(const f2b_gguf *f, const char *what)
{
    return f2b_fail(F2B_ERR_FORMAT, "%s: %s at byte %" PRId64 " goes beyond the file's %" PRId64
                    " bytes; it was cut off or damaged, copy it again", f->path, what, f->at,
                    f->map_bytes);
}

static f2b_status take(f2b_gguf *f, void *to, int64_t bytes, const char *what)
{
    if (bytes > left(f)) return cut_off(f, what);
    memcpy(to, f->map + f->at, (size_t)bytes);
    f->at += bytes;
    return F2B_OK;
}

/* A length, which is in bytes of at least `least` each. */
static f2b_status take_count(f2b_gguf *f, int64_t *out, int64_t least, const char *what)
{
    uint64_t n = 0;
    F2B_TRY(take(f, &n, sizeof n, what));
    if (n > (uint64_t)(left(f) / least)) return cut_off(f, what);
    *out = (int64_t)n;
    return F2B_OK;
}

static f2b_status take_text(f2b_gguf *f, const char **bytes, int64_t *n, const char *what)
{
    F2B_TRY(take_count(f, n, 1, what));
    *bytes = (const char *)f->map + f->at;
    f->at += *n;
    return F2B_OK;
}

/* A name as a C string, f2b_free. */
static f2b_status take_name(f2b_gguf *f, char **out, const char *what)
{
    const char *bytes = NULL;
    int64_t n = 0;
    F2B_TRY(take_text(f, &bytes, &n, what));
    if (n == 0 || memchr(bytes, '\0', (size_t)n) != NULL)
        return f2b_fail(F2B_ERR_FORMAT, "%s: %s before byte %" PRId64 " is empty or has a zero in "
                        "it", f->path, what, f->at);
    *out = f2b_calloc((size_t)n + 1, 1, F2B_TAG_FILES);
    if (*out == NULL) return f2b_last_status();
    memcpy(*out, bytes, (size_t)n);
    return F2B_OK;
}

/* ---- Metadata ---- */

/* A number or a string at `from`, known to be there in full; returns what comes after it. */
static const uint8_t *decode(f2b_gguf_type type, const uint8_t *from, f2b_gguf_value *v)
{
#define AS(T, field)                                                                               \
    do {                                                                                           \
        T x;                                                                                       \
        memcpy(&x, from, sizeof x);                                                                \
        v->as.field = x;                                                                           \
    } while (0)
    *v = (f2b_gguf_value){ .type = type };
    switch (type) {
    case F2B_GGUF_U8:
    case F2B_GGUF_BOOL: AS(uint8_t, u); break;
    case F2B_GGUF_U16: AS(uint16_t, u); break;
    case F2B_GGUF_U32: AS(uint32_t, u); break;
    case F2B_GGUF_U64: AS(uint64_t, u); break;
    case F2B_GGUF_I8: AS(int8_t, i); break;
    case F2B_GGUF_I16: AS(int16_t, i); break;
    case F2B_GGUF_I32: AS(int32_t, i); break;
    case F2B_GGUF_I64: AS(int64_t, i); break;
    case F2B_GGUF_F32: AS(float, f); break;
    case F2B_GGUF_F64: AS(double, f); break;
    case F2B_GGUF_STRING:
        AS(int64_t, text.n);
        v->as.text.bytes = (const char *)from + 8;
        return from + 8 + v->as.text.n;
    case F2B_GGUF_ARRAY:
    case F2B_GGUF_TYPES: F2B_CHECK(false);
    }
#undef AS
    return from + size_of(type);
}

/* Hold a scalar or string against the file, then decode it. */
static f2b_status take_value(f2b_gguf *f, f2b_gguf_type type, f2b_gguf_value *v, const char *key)
{
    if (type == F2B_GGUF_STRING) {
        const char *bytes;
        int64_t n = 0;
        const int64_t start = f->at;
        F2B_TRY(take_text(f, &bytes, &n, key));
        (void)decode(type, f->map + start, v);
        return F2B_OK;
    }
    if (size_of(type) > left(f)) return cut_off(f, key);
    const uint8_t *from = f->map + f->at;
    f->at += size_of(type);
    (void)decode(type, from, v);
    if (type == F2B_GGUF_BOOL && v->as.u > 1)
        return f2b_fail(F2B_ERR_FORMAT, "%s: key %s: a boolean of %" PRIu64, f->path, key, v->as.u);
    return F2B_OK;
}

static f2b_status take_type(f2b_gguf *f, f2b_gguf_type *type, const char *key)
{
    uint32_t number = 0;
    F2B_TRY(take(f, &number, sizeof number, key));
    if (number >= F2B_GGUF_TYPES)
        return f2b_fail(F2B_ERR_FORMAT, "%s: key %s has the unknown type %" PRIu32, f->path, key,
                        number);
    *type = (f2b_gguf_type)number;
    return F2B_OK;
}

static f2b_status take_array(f2b_gguf *f, f2b_gguf_value *v, const char *key)
{
    f2b_gguf_type type = F2B_GGUF_U8;
    int64_t n = 0;
    F2B_TRY(take_type(f, &type, key));
    if (type == F2B_GGUF_ARRAY)
        return f2b_fail(F2B_ERR_FORMAT, "%s: key %s is an array of arrays, which GGUF has not",
                        f->path, key);
    F2B_TRY(take_count(f, &n, type == F2B_GGUF_STRING ? 8 : size_of(type), key));
    *v = (f2b_gguf_value){ .type = F2B_GGUF_ARRAY };
    v->as.array.type = type, v->as.array.n = n, v->as.array.first = f->map + f->at;
    if (type != F2B_GGUF_STRING && type != F2B_GGUF_BOOL) {
        f->at += n * size_of(type);
        return F2B_OK;
    }
    f2b_gguf_value element;
    for (int64_t i = 0; i < n; i++) F2B_TRY(take_value(f, type, &element, key));
    return F2B_OK;
}

static f2b_status take_pair(f2b_gguf *f)
{
    pair *p = &f->pairs[f->n_pairs];
    f2b_gguf_type type = F2B_GGUF_U8;
    F2B_TRY(take_name(f, &p->key, "a key"));
    f->n_pairs++;
    F2B_TRY(take_type(f, &type, p->key));
    return type == F2B_GGUF_ARRAY ? take_array(f, &p->value, p->key)
                                  : take_value(f, type, &p->value, p->key);
}

f2b_gguf_value f2b_gguf_next(const f2b_gguf_value *array, const void **cursor)
{
    f2b_gguf_value v;
    *cursor = decode(array->as.array.type, *cursor, &v);
    return v;
}

/* ---- Tensors ---- */

static f2b_status take_shape(f2b_gguf *f, f2b_gguf_tensor *t)
{
    uint32_t ndim = 0;
    int64_t ne[MAX_DIMS] = { 0 };
    F2B_TRY(take(f, &ndim, sizeof ndim, t->name));
    if (ndim > MAX_DIMS)
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s has %" PRIu32 " dimensions, more than %d",
                        f->path, t->name, ndim, MAX_DIMS);
    F2B_TRY(take(f, ne, (int64_t)(ndim * sizeof *ne), t->name));
    t->ndim = (int)ndim;
    for (int i = 0; i < t->ndim; i++) t->shape[i] = ne[t->ndim - 1 - i];
    return F2B_OK;
}

/* Bytes from type and shape. A row of a quantised tensor is whole blocks. */
static f2b_status size_tensor(const f2b_gguf *f, f2b_gguf_tensor *t, uint32_t number)
{
    size_t k = 0;
    const size_t n = sizeof tensor_types / sizeof *tensor_types;
    while (k < n && tensor_types[k].number != number) k++;
    if (k == n)
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s has the unknown type %" PRIu32, f->path,
                        t->name, number);
    t->type = tensor_types[k].name, t->dtype = tensor_types[k].dtype;
    const int64_t block = tensor_types[k].elements,
                  width = t->ndim > 0 ? t->shape[t->ndim - 1] : 1;
    int64_t count = 0;
    if (width % block != 0 || !f2b_shape_bytes(t->ndim, t->shape, 1, &count) ||
        !f2b_shape_bytes(1, &(int64_t){ count / block }, tensor_types[k].bytes, &t->bytes)) {
        char text[F2B_SHAPE_TEXT];
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s of type %s cannot have the shape %s",
                        f->path, t->name, t->type, f2b_shape_text(t->ndim, t->shape, text));
    }
    return F2B_OK;
}

static f2b_status take_tensor(f2b_gguf *f)
{
    f2b_gguf_tensor *t = &f->tensors[f->n_tensors];
    char *name = NULL;
    const f2b_status status = take_name(f, &name, "a tensor's name");
    t->name = name;
    f->n_tensors++;
    F2B_TRY(status);
    if (strlen(name) > MAX_NAME)
        return f2b_fail(F2B_ERR_FORMAT, "%s: the tensor name %.80s is longer than %d bytes",
                        f->path, name, MAX_NAME);
    uint32_t type = 0;
    uint64_t offset = 0;
    F2B_TRY(take_shape(f, t));
    F2B_TRY(take(f, &type, sizeof type, name));
    F2B_TRY(take(f, &offset, sizeof offset, name));
    F2B_TRY(size_tensor(f, t, type));
    if (offset > (uint64_t)f->map_bytes) return cut_off(f, name);
    f->offsets[f->n_tensors - 1] = (int64_t)offset;
    return F2B_OK;
}

static int64_t round_up(int64_t n, int64_t alignment)
{
    return (n + alignment - 1) / alignment * alignment;
}

static f2b_status alignment_of(const f2b_gguf *f, int64_t *out)
{
    const f2b_gguf_value *v = f2b_gguf_find(f, "general.alignment");
    *out = DEFAULT_ALIGNMENT;
    if (v == NULL) return F2B_OK;
    if (v->type != F2B_GGUF_U32 || v->as.u < 8 || (v->as.u & (v->as.u - 1)) != 0)
        return f2b_fail(F2B_ERR_FORMAT, "%s: general.alignment is not a u32 and a power of two "
                        "from 8 on", f->path);
    *out = (int64_t)v->as.u;
    return F2B_OK;
}

/* Tensors follow each other without a hole but for alignment, up to the file's end, where the
 * padding may be missing. */
static f2b_status place_tensors(f2b_gguf *f)
{
    int64_t alignment = DEFAULT_ALIGNMENT, next = 0;
    F2B_TRY(alignment_of(f, &alignment));
    const int64_t start = round_up(f->at, alignment);
    for (int64_t i = 0; i < f->n_tensors; i++) {
        f2b_gguf_tensor *t = &f->tensors[i];
        if (f->offsets[i] != next)
            return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s begins at byte %" PRId64 " of the data, "
                            "where %" PRId64 " is next", f->path, t->name, f->offsets[i], next);
        if (t->bytes > f->map_bytes - start - next) return cut_off(f, t->name);
        t->data = f->map + start + next;
        next = round_up(next + t->bytes, alignment);
    }
    if (f->map_bytes > start + next)
        return f2b_fail(F2B_ERR_FORMAT, "%s: %" PRId64 " bytes follow what the header describes",
                        f->path, f->map_bytes - start - next);
    return F2B_OK;
}

/* ---- The file ---- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static f2b_status check_once(f2b_gguf *f, int64_t n, const char *what)
{
    qsort(f->sorted, (size_t)n, sizeof *f->sorted, compare_texts);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(f->sorted[i - 1], f->sorted[i]) == 0)
            return f2b_fail(F2B_ERR_FORMAT, "%s: %s %s is there twice", f->path, what,
                            f->sorted[i]);
    return F2B_OK;
}

static f2b_status check_duplicates(f2b_gguf *f)
{
    const int64_t most = f->n_pairs > f->n_tensors ? f->n_pairs : f->n_tensors;
    f->sorted = f2b_calloc((size_t)most, sizeof *f->sorted, F2B_TAG_FILES);
    if (f->sorted == NULL) return f2b_last_status();
    for (int64_t i = 0; i < f->n_pairs; i++) f->sorted[i] = f->pairs[i].key;
    F2B_TRY(check_once(f, f->n_pairs, "key"));
    for (int64_t i = 0; i < f->n_tensors; i++) f->sorted[i] = f->tensors[i].name;
    return check_once(f, f->n_tensors, "tensor");
}

static f2b_status open_file(f2b_gguf *f)
{
    uint32_t version = 0;
    int64_t tensors = 0, pairs = 0;
    F2B_TRY(f2bi_file_map(f->path, 24, "GGUF", &f->map, &f->map_bytes));
    if (memcmp(f->map, "GGUF", 4) != 0)
        return f2b_fail(F2B_ERR_FORMAT, "%s does not begin with GGUF", f->path);
    f->at = 4;
    F2B_TRY(take(f, &version, sizeof version, "the version"));
    if (version != VERSION)
        return f2b_fail(F2B_ERR_FORMAT, "%s is GGUF version %" PRIu32 "; this program reads "
                        "version %d, little-endian: convert it again", f->path, version, VERSION);
    F2B_TRY(take_count(f, &tensors, LEAST_TENSOR, "the number of tensors"));
    F2B_TRY(take_count(f, &pairs, LEAST_PAIR, "the number of keys"));
    if (tensors > MAX_ENTRIES || pairs > MAX_ENTRIES)
        return f2b_fail(F2B_ERR_FORMAT, "%s says that it has %" PRId64 " tensors and %" PRId64
                        " keys; more than %d are not read", f->path, tensors, pairs, MAX_ENTRIES);
    f->pairs = f2b_calloc((size_t)pairs, sizeof *f->pairs, F2B_TAG_FILES);
    f->tensors = f2b_calloc((size_t)tensors, sizeof *f->tensors, F2B_TAG_FILES);
    f->offsets = f2b_calloc((size_t)tensors, sizeof *f->offsets, F2B_TAG_FILES);
    if (!f->pairs || !f->tensors || !f->offsets) return f2b_last_status();
    for (int64_t i = 0; i < pairs; i++) F2B_TRY(take_pair(f));
    for (int64_t i = 0; i < tensors; i++) F2B_TRY(take_tensor(f));
    F2B_TRY(check_duplicates(f));
    return place_tensors(f);
}

f2b_gguf *f2b_gguf_open(const char *path)
{
    f2b_gguf *f = f2b_calloc(1, sizeof *f, F2B_TAG_FILES);
    if (f == NULL) return NULL;
    f->path = f2b_strdup(path, F2B_TAG_FILES);
    if (f->path != NULL && open_file(f) == F2B_OK) return f;
    f2b_gguf_close(f);
    return NULL;
}

void f2b_gguf_close(f2b_gguf *f)
{
    if (f == NULL) return;
    for (int64_t i = 0; i < f->n_pairs; i++) f2b_free(f->pairs[i].key);
    for (int64_t i = 0; i < f->n_tensors; i++) f2b_free((char *)(uintptr_t)f->tensors[i].name);
    f2b_free(f->pairs);
    f2b_free(f->tensors);
    f2b_free(f->offsets);
    f2b_free((void *)(uintptr_t)f->sorted);
    if (f->map != NULL) munmap((void *)(uintptr_t)f->map, (size_t)f->map_bytes);
    f2b_free(f->path);
    f2b_free(f);
}

int64_t f2b_gguf_keys(const f2b_gguf *f) { return f->n_pairs; }
int64_t f2b_gguf_tensors(const f2b_gguf *f) { return f->n_tensors; }

const char *f2b_gguf_key(const f2b_gguf *f, int64_t i)
{
    F2B_CHECK(i >= 0 && i < f->n_pairs);
    return f->pairs[i].key;
}

const f2b_gguf_value *f2b_gguf_value_at(const f2b_gguf *f, int64_t i)
{
    F2B_CHECK(i >= 0 && i < f->n_pairs);
    return &f->pairs[i].value;
}

const f2b_gguf_value *f2b_gguf_find(const f2b_gguf *f, const char *key)
{
    for (int64_t i = 0; i < f->n_pairs; i++)
        if (strcmp(f->pairs[i].key, key) == 0) return &f->pairs[i].value;
    return NULL;
}

const f2b_gguf_tensor *f2b_gguf_tensor_at(const f2b_gguf *f, int64_t i)
{
    F2B_CHECK(i >= 0 && i < f->n_tensors);
    return &f->tensors[i];
}

const f2b_gguf_tensor *f2b_gguf_tensor_find(const f2b_gguf *f, const char *name)
{
    for (int64_t i = 0; i < f->n_tensors; i++)
        if (strcmp(f->tensors[i].name, name) == 0) return &f->tensors[i];
    return NULL;
}
