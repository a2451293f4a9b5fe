/* See parameters.h. */
#include "nn/parameters.h"

static void parameter_free(f2b_tensor *tensor)
{
    if (tensor == NULL) return;
    f2b_free((char *)(uintptr_t)tensor->name);
    f2b_tensor_free(tensor);
}

f2b_status f2b_parameters_add(f2b_parameters *list, f2b_tensor *tensor, const char *name,
                              f2b_parameter_group group, bool decay)
{
    if (tensor == NULL) return f2b_last_status();
    tensor->name = f2b_strdup(name, F2B_TAG_OTHER);
    tensor->requires_grad = true;
    if (list->n == list->capacity) {
        const int64_t capacity = list->capacity ? 2 * list->capacity : 64;
        f2b_parameter *items = f2b_realloc(list->items, (size_t)capacity * sizeof *items,
                                           F2B_TAG_OTHER);
        if (items != NULL) list->items = items, list->capacity = capacity;
    }
    if (tensor->name == NULL || list->n == list->capacity) {
        parameter_free(tensor);
        return F2B_ERR_MEMORY;
    }
    list->items[list->n++] = (f2b_parameter){ tensor, group, decay };
    return F2B_OK;
}

const f2b_parameter *f2b_parameters_find(const f2b_parameters *list, const char *name)
{
    for (int64_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i].tensor->name, name) == 0) return &list->items[i];
    return NULL;
}

void f2b_parameters_clear(f2b_parameters *list)
{
    for (int64_t i = 0; i < list->n; i++) parameter_free(list->items[i].tensor);
    f2b_free(list->items);
    *list = (f2b_parameters){ 0 };
}
