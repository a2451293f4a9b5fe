/* See folder_weights.h. */
#include "checkpoints/folder_weights.h"

static f2b_status find(void *context, const char *name, int ndim, const int64_t *shape,
                       f2b_dtype *dtype, const void **data)
{
    f2b_named_array array;
    F2B_TRY(f2b_model_folder_find(context, name, ndim, shape, &array));
    *dtype = array.dtype;
    *data = array.data;
    return F2B_OK;
}

static bool contains(void *context, const char *name)
{
    return f2b_model_folder_contains(context, name);
}

static void release(void *context, const void *data, int64_t bytes)
{
    f2b_model_folder_release(context, data, bytes);
}

f2b_weight_file f2b_folder_weights(f2b_model_folder *folder)
{
    return (f2b_weight_file){ .find = find, .contains = contains, .release = release,
                              .context = folder };
}
