/* See buffers.h. Arrays double when full. */
#include "data/tokenizer/buffers.h"

#include <string.h>

#include "autograd/core/alloc.h"

/* A capacity for `wanted` elements of `size` bytes; 0 if their bytes cannot be counted. */
static size_t grown(size_t capacity, size_t wanted, size_t size)
{
    size_t next = capacity < 32 ? 32 : capacity;
    while (next < wanted) {
        if (next > SIZE_MAX / 4 / size) return 0;
        next *= 2;
    }
    return next;
}

static f2b_status too_long(void)
{
    return f2b_fail(F2B_ERR_MEMORY, "out of memory: an array longer than the address space");
}

f2b_status f2b_ids_append(f2b_ids *array, const int32_t *ids, int64_t n)
{
    if (n <= 0) return F2B_OK;
    if (n > array->capacity - array->n) {
        const size_t capacity = grown((size_t)array->capacity, (size_t)array->n + (size_t)n,
                                      sizeof *array->ids);
        if (capacity == 0) return too_long();
        int32_t *larger = f2b_realloc(array->ids, capacity * sizeof *larger, F2B_TAG_DATA);
        if (larger == NULL) return F2B_ERR_MEMORY;
        array->ids = larger, array->capacity = (int64_t)capacity;
    }
    memcpy(array->ids + array->n, ids, (size_t)n * sizeof *ids);
    array->n += n;
    return F2B_OK;
}

f2b_status f2b_ids_push(f2b_ids *array, int32_t id)
{
    return f2b_ids_append(array, &id, 1);
}

f2b_status f2b_text_append(f2b_text *text, const char *bytes, size_t n)
{
    if (n >= SIZE_MAX / 4 - text->n) return too_long();
    if (text->n + n + 1 > text->capacity) {
        const size_t capacity = grown(text->capacity, text->n + n + 1, 1);
        if (capacity == 0) return too_long();
        char *larger = f2b_realloc(text->text, capacity, F2B_TAG_DATA);
        if (larger == NULL) return F2B_ERR_MEMORY;
        text->text = larger, text->capacity = capacity;
    }
    if (n > 0) memcpy(text->text + text->n, bytes, n);
    text->n += n;
    text->text[text->n] = '\0';
    return F2B_OK;
}

f2b_status f2b_text_add(f2b_text *text, const char *more)
{
    return f2b_text_append(text, more, strlen(more));
}

void f2b_ids_free(f2b_ids *array)
{
    f2b_free(array->ids);
    *array = (f2b_ids){ 0 };
}

void f2b_text_free(f2b_text *text)
{
    f2b_free(text->text);
    *text = (f2b_text){ 0 };
}
