/*
 * Reading state.h5. The manifest has found its bytes to be those that were written; who wrote them
 * is another question, so structure, types, ranks and sizes are checked before anything is read,
 * and nothing is allocated by a size that the file claims without having it.
 */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/hdf5_internal.h"
#include "checkpoints/state_internal.h"

enum { MAX_ATTRIBUTES = 4096, MAX_TENSORS = 1 << 20, MAX_NAME = 1 << 12 };

struct f2b_state_file {
    char *folder, *path;
    int64_t step;
    hid_t file, parameters, m, v;               /* -1 while not open */
    f2b_attribute *attributes;                  /* sorted by name; names and texts owned */
    int64_t n_attributes;
    f2b_state_tensor *tensors;                  /* sorted by name; names owned */
    bool *has_moments;
    int64_t n_tensors;
};

static f2b_status read_value(hid_t attribute, f2b_attribute *out)
{
    const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    const H5T_class_t class = H5Tget_class(type);
    const bool wide = H5Tget_size(type) == 8, scalar = H5Sget_simple_extent_npoints(space) == 1;
    f2b_status status = F2B_OK;
    if (scalar && class == H5T_STRING && H5Tis_variable_str(type) == 0) {
        out->kind = F2B_ATTRIBUTE_TEXT;
        char *text = NULL;
        status = f2bi_hdf5_read_open_text(attribute, type, F2BI_STATE_MAX_TEXT, &text);
        out->text = text;
    } else if (scalar && class == H5T_INTEGER && wide) {
        out->kind = F2B_ATTRIBUTE_INTEGER;
        if (H5Aread(attribute, H5T_NATIVE_INT64, &out->integer) < 0)
            status = f2bi_hdf5_fail(F2B_ERR_FORMAT, "cannot read");
    } else if (scalar && class == H5T_FLOAT && wide) {
        out->kind = F2B_ATTRIBUTE_NUMBER;
        if (H5Aread(attribute, H5T_NATIVE_DOUBLE, &out->number) < 0)
            status = f2bi_hdf5_fail(F2B_ERR_FORMAT, "cannot read");
    } else status = f2b_fail(F2B_ERR_FORMAT, "of a type that is not ours");
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

static f2b_status read_attribute(f2b_state_file *file, hsize_t i)
{
    f2b_attribute *out = &file->attributes[i];
    const hid_t attribute =
        H5Aopen_by_idx(file->file, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT);
    char name[MAX_NAME];
    if (attribute < 0 || H5Aget_name(attribute, sizeof name, name) < 0) {
        if (attribute >= 0) H5Aclose(attribute);
        return f2bi_hdf5_fail(F2B_ERR_FORMAT, "%s: attribute %d cannot be read", file->path,
                              (int)i);
    }
    out->name = f2b_strdup(name, F2B_TAG_FILES);
    ++file->n_attributes;
    f2b_status status = out->name ? read_value(attribute, out) : f2b_last_status();
    if (status != F2B_OK) status = f2b_fail_context("%s: attribute %s", file->path, name);
    H5Aclose(attribute);
    return status;
}

static f2b_status read_attributes(f2b_state_file *file)
{
    H5O_info_t info;
    if (H5Oget_info2(file->file, &info, H5O_INFO_NUM_ATTRS) < 0 || info.num_attrs > MAX_ATTRIBUTES)
        return f2bi_hdf5_fail(F2B_ERR_FORMAT, "%s: attributes cannot be read", file->path);
    file->attributes = f2b_calloc((size_t)info.num_attrs, sizeof *file->attributes, F2B_TAG_FILES);
    if (!file->attributes) return f2b_last_status();
    for (hsize_t i = 0; i < info.num_attrs; ++i) F2B_TRY(read_attribute(file, i));

    static const char *const texts[] = { "format", "config", "method", "base_model" };
    f2b_attribute a = { 0 };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i)
        F2B_TRY(f2b_state_attribute(file, texts[i], F2B_ATTRIBUTE_TEXT, &a));
    F2B_TRY(f2b_state_attribute(file, "format", F2B_ATTRIBUTE_TEXT, &a));
    const bool known = strcmp(a.text, "fwd2bot-state") == 0;
    F2B_TRY(f2b_state_attribute(file, "format_version", F2B_ATTRIBUTE_INTEGER, &a));
    if (!known || a.integer != 1)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: format or format_version is not what this program reads", file->path);
    F2B_TRY(f2b_state_attribute(file, "step", F2B_ATTRIBUTE_INTEGER, &a));
    if (a.integer != file->step)
        return f2b_fail(F2B_ERR_FORMAT, "%s is of step %lld, its manifest of step %lld", file->path,
                        (long long)a.integer, (long long)file->step);
    return F2B_OK;
}

/* The moment's dataset must be as large as its parameter. */
static f2b_status check_moment(hid_t group, const f2b_named_array *parameter, int64_t *updates)
{
    f2b_named_array moment = { 0 };
    const hid_t set = f2bi_hdf5_open_f32(group, parameter->name, &moment);
    if (set < 0) return f2b_last_status();
    f2b_status status = F2B_OK;
    if (!f2b_shape_equal(moment.ndim, moment.shape, parameter->ndim, parameter->shape))
        status =
            f2b_fail(F2B_ERR_FORMAT, "a moment of %s has another shape than it", parameter->name);
    else if (updates) status = f2bi_hdf5_read_integer(set, "updates", updates);
    H5Dclose(set);
    return status;
}

/* H5Literate's callback: note the name of each tensor. */
static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    (void)group;
    (void)info;
    f2b_state_file *file = user;
    const char *copy = f2b_strdup(name, F2B_TAG_FILES);
    if (!copy) return -1;
    file->tensors[file->n_tensors++].parameter.name = copy;
    return 0;
}

static f2b_status read_tensor(f2b_state_file *file, int64_t i)
{
    f2b_state_tensor *t = &file->tensors[i];
    const char *name = t->parameter.name;
    const hid_t set = f2bi_hdf5_open_f32(file->parameters, name, &t->parameter);
    if (set < 0) return f2b_last_status();
    H5Dclose(set);
    file->has_moments[i] = H5Lexists(file->m, name, H5P_DEFAULT) > 0;
    if (!file->has_moments[i]) return F2B_OK;
    F2B_TRY(check_moment(file->m, &t->parameter, &t->updates));
    return check_moment(file->v, &t->parameter, NULL);
}

static f2b_status read_tensors(f2b_state_file *file)
{
    H5G_info_t parameters, m, v;
    if (H5Gget_info(file->parameters, &parameters) < 0 || H5Gget_info(file->m, &m) < 0
        || H5Gget_info(file->v, &v) < 0 || parameters.nlinks > MAX_TENSORS)
        return f2bi_hdf5_fail(F2B_ERR_FORMAT, "groups cannot be read");
    file->tensors = f2b_calloc((size_t)parameters.nlinks, sizeof *file->tensors, F2B_TAG_FILES);
    file->has_moments =
        f2b_calloc((size_t)parameters.nlinks, sizeof *file->has_moments, F2B_TAG_FILES);
    if (!file->tensors || !file->has_moments) return f2b_last_status();
    if (H5Literate(file->parameters, H5_INDEX_NAME, H5_ITER_INC, NULL, add_name, file) < 0
        || (hsize_t)file->n_tensors != parameters.nlinks)
        return f2bi_hdf5_fail(F2B_ERR_FORMAT, "the names of the tensors cannot be read");
    hsize_t with_moments = 0;
    for (int64_t i = 0; i < file->n_tensors; ++i) {
        F2B_TRY(read_tensor(file, i));
        if (file->has_moments[i]) ++with_moments;
    }
    if (m.nlinks != with_moments || v.nlinks != with_moments)
        return f2b_fail(F2B_ERR_FORMAT, "there are moments without a parameter");
    return F2B_OK;
}

static f2b_status read_structure(f2b_state_file *file)
{
    file->file = f2bi_hdf5_open(file->path);
    if (file->file < 0) return f2b_last_status();
    F2B_TRY(read_attributes(file));
    const hid_t adam = f2bi_hdf5_open_group(file->file, "adam");
    file->parameters = f2bi_hdf5_open_group(file->file, "parameters");
    file->m = adam < 0 ? -1 : f2bi_hdf5_open_group(adam, "m");
    file->v = adam < 0 ? -1 : f2bi_hdf5_open_group(adam, "v");
    if (file->parameters < 0 || file->m < 0 || file->v < 0)
        return f2b_fail_context("%s", file->path);
    return read_tensors(file) == F2B_OK ? F2B_OK : f2b_fail_context("%s", file->path);
}

static f2b_status open_hdf5(f2b_state_file *file)
{
    f2bi_hdf5_begin();
    const f2b_status status = read_structure(file);
    f2bi_hdf5_end();
    return status;
}

f2b_state_file *f2bi_state_open_file(const char *folder, int64_t step)
{
    f2b_state_file *file = f2b_calloc(1, sizeof *file, F2B_TAG_FILES);
    if (!file) return NULL;
    file->file = file->parameters = file->m = file->v = -1;
    file->step = step;
    file->folder = f2b_strdup(folder, F2B_TAG_FILES);
    file->path = f2b_path_join(folder, F2BI_STATE_FILE);
    if (file->folder && file->path && open_hdf5(file) == F2B_OK) return file;
    f2b_state_close(file);
    return NULL;
}

void f2b_state_close(f2b_state_file *file)
{
    if (!file) return;
    f2bi_hdf5_begin();
    if (file->file >= 0) H5Fclose(file->file);          /* strong: the groups close with it */
    f2bi_hdf5_end();
    for (int64_t i = 0; i < file->n_attributes; ++i) {
        f2b_free((char *)file->attributes[i].name);
        f2b_free((char *)file->attributes[i].text);
    }
    for (int64_t i = 0; i < file->n_tensors; ++i) f2b_free((char *)file->tensors[i].parameter.name);
    f2b_free(file->attributes);
    f2b_free(file->tensors);
    f2b_free(file->has_moments);
    f2b_free(file->folder);
    f2b_free(file->path);
    f2b_free(file);
}

const char *f2b_state_path(const f2b_state_file *file) { return file->folder; }
int64_t f2b_state_step(const f2b_state_file *file) { return file->step; }
int64_t f2b_state_count(const f2b_state_file *file) { return file->n_tensors; }

const f2b_attribute *f2b_state_attributes(const f2b_state_file *file, int64_t *n)
{
    *n = file->n_attributes;
    return file->attributes;
}

f2b_status f2b_state_attribute(const f2b_state_file *file, const char *name,
                               f2b_attribute_kind kind, f2b_attribute *out)
{
    for (int64_t i = 0; i < file->n_attributes; ++i) {
        if (strcmp(file->attributes[i].name, name) != 0) continue;
        if (file->attributes[i].kind != kind)
            return f2b_fail(F2B_ERR_FORMAT, "%s: attribute %s is of another type", file->path,
                            name);
        *out = file->attributes[i];
        return F2B_OK;
    }
    return f2b_fail(F2B_ERR_FORMAT, "%s: attribute %s is missing", file->path, name);
}

const f2b_state_tensor *f2b_state_at(const f2b_state_file *file, int64_t i)
{
    F2B_CHECK(i >= 0 && i < file->n_tensors);
    return &file->tensors[i];
}

bool f2b_state_has_moments(const f2b_state_file *file, int64_t i)
{
    F2B_CHECK(i >= 0 && i < file->n_tensors);
    return file->has_moments[i];
}

int64_t f2b_state_find(const f2b_state_file *file, const char *name)
{
    int64_t low = 0, high = file->n_tensors;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(name, file->tensors[middle].parameter.name);
        if (order == 0) return middle;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return -1;
}

static f2b_status read_set(const f2b_state_file *file, hid_t group, const char *name, float *out)
{
    f2b_named_array array = { 0 };
    const hid_t set = f2bi_hdf5_open_f32(group, name, &array);
    if (set < 0) return f2b_fail_context("%s", file->path);
    const herr_t result = H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
    H5Dclose(set);
    if (result < 0)
        return f2bi_hdf5_fail(F2B_ERR_IO, "%s: cannot read tensor %s", file->path, name);
    return F2B_OK;
}

static f2b_status read_data(const f2b_state_file *file, hid_t group, const char *name, float *out)
{
    f2bi_hdf5_begin();
    const f2b_status status = read_set(file, group, name, out);
    f2bi_hdf5_end();
    return status;
}

f2b_status f2b_state_read(f2b_state_file *file, int64_t i, float *parameter, float *m, float *v)
{
    const char *name = f2b_state_at(file, i)->parameter.name;
    F2B_TRY(read_data(file, file->parameters, name, parameter));
    if (!m && !v) return F2B_OK;
    if (!file->has_moments[i])
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s has no moments", file->path, name);
    if (m) F2B_TRY(read_data(file, file->m, name, m));
    if (v) F2B_TRY(read_data(file, file->v, name, v));
    return F2B_OK;
}
