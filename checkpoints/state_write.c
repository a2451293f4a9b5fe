/*
 * Writing state.h5: HDF5 makes a file that lacks only the tensors' values; those are then written where it
 * left room for them, and hashed meanwhile. Room on the disk is asked for before the first byte, so that a
 * full disk is known at once; what is left of a write that failed all the same is emptied before it is
 * removed, because HDF5 may keep such a file open.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/file_fill.h"
#include "checkpoints/file_internal.h"
#include "checkpoints/hdf5_internal.h"
#include "checkpoints/state_internal.h"

static const char *const required[] = { "config", "method", "base_model" };
static const char *const ours[] = { "format", "format_version", "step" };

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static f2b_status check_tensors(const f2b_state *state)
{
    const char **names = f2b_calloc((size_t)state->n_tensors, sizeof *names, F2B_TAG_FILES);
    if (!names) return f2b_last_status();
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < state->n_tensors && status == F2B_OK; ++i) {
        const f2b_state_tensor *t = &state->tensors[i];
        names[i] = t->parameter.name;
        if (t->parameter.dtype != F2B_F32 || !t->m != !t->v)
            status = f2b_fail(F2B_ERR_INVALID, "tensor %s must be f32 with both moments or none",
                              names[i]);
        else if (names[i][0] == '\0' || strchr(names[i], '/') || strcmp(names[i], ".") == 0)
            status = f2b_fail(F2B_ERR_INVALID, "\"%s\" cannot name a tensor in HDF5", names[i]);
    }
    if (status == F2B_OK) qsort(names, (size_t)state->n_tensors, sizeof *names, compare_names);
    for (int64_t i = 1; i < state->n_tensors && status == F2B_OK; ++i)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = f2b_fail(F2B_ERR_INVALID, "two tensors are named %s", names[i]);
    f2b_free(names);
    return status;
}

static f2b_status check_attributes(const f2b_state *state)
{
    for (int64_t i = 0; i < state->n_attributes; ++i) {
        const char *name = state->attributes[i].name;
        for (size_t j = 0; j < sizeof ours / sizeof ours[0]; ++j)
            if (strcmp(name, ours[j]) == 0)
                return f2b_fail(F2B_ERR_INVALID, "attribute %s is the format's own", name);
        if (state->attributes[i].kind == F2B_ATTRIBUTE_TEXT
            && strlen(state->attributes[i].text) >= F2BI_STATE_MAX_TEXT)
            return f2b_fail(F2B_ERR_INVALID, "attribute %s is longer than 64 MiB", name);
        for (int64_t j = 0; j < i; ++j)
            if (strcmp(name, state->attributes[j].name) == 0)
                return f2b_fail(F2B_ERR_INVALID, "two attributes are named %s", name);
    }
    for (size_t j = 0; j < sizeof required / sizeof required[0]; ++j) {
        bool found = false;
        for (int64_t i = 0; i < state->n_attributes; ++i)
            found = found || (strcmp(state->attributes[i].name, required[j]) == 0
                              && state->attributes[i].kind == F2B_ATTRIBUTE_TEXT);
        if (!found) return f2b_fail(F2B_ERR_INVALID, "a state needs the text %s", required[j]);
    }
    return F2B_OK;
}

/* An upper bound of the file: data, alignment, and what HDF5 adds for each thing. */
static int64_t file_bytes(const f2b_state *state)
{
    int64_t bytes = 1 << 18;
    for (int64_t i = 0; i < state->n_tensors; ++i) {
        const f2b_state_tensor *t = &state->tensors[i];
        const int64_t copies = t->m ? 3 : 1;
        bytes += copies * (f2b_named_array_bytes(&t->parameter) + (8 << 10));
    }
    for (int64_t i = 0; i < state->n_attributes; ++i)
        bytes += 4096 + (state->attributes[i].kind == F2B_ATTRIBUTE_TEXT
                             ? (int64_t)strlen(state->attributes[i].text) : 0);
    return bytes;
}

static f2b_status write_attributes(hid_t file, const f2b_state *state)
{
    F2B_TRY(f2bi_hdf5_write_text(file, "format", "fwd2bot-state"));
    F2B_TRY(f2bi_hdf5_write_integer(file, "format_version", 1));
    F2B_TRY(f2bi_hdf5_write_integer(file, "step", state->step));
    for (int64_t i = 0; i < state->n_attributes; ++i) {
        const f2b_attribute *a = &state->attributes[i];
        switch (a->kind) {
        case F2B_ATTRIBUTE_INTEGER:
            F2B_TRY(f2bi_hdf5_write_integer(file, a->name, a->integer));
            break;
        case F2B_ATTRIBUTE_NUMBER: F2B_TRY(f2bi_hdf5_write_number(file, a->name, a->number)); break;
        case F2B_ATTRIBUTE_TEXT: F2B_TRY(f2bi_hdf5_write_text(file, a->name, a->text)); break;
        }
    }
    return F2B_OK;
}

static f2b_status write_updates(hid_t group, const f2b_state_tensor *t)
{
    const hid_t set = H5Dopen2(group, t->parameter.name, H5P_DEFAULT);
    if (set < 0) return f2bi_hdf5_fail(F2B_ERR_IO, "cannot write tensor %s", t->parameter.name);
    const f2b_status status = f2bi_hdf5_write_integer(set, "updates", t->updates);
    H5Dclose(set);
    return status;
}

/* The tensors' values and their places, in the order in which they were given room. */
typedef struct value_list {
    f2b_file_piece *pieces;
    int64_t n;
} value_list;

static f2b_status make_room(hid_t group, const f2b_named_array *p, const float *data, value_list *values)
{
    f2b_file_piece piece = { 0, f2b_named_array_bytes(p), data };
    F2B_TRY(f2bi_hdf5_make_f32(group, p->name, p->ndim, p->shape, &piece.at));
    if (piece.bytes == 0) return F2B_OK;
    if (piece.at == 0) return f2b_fail(F2B_ERR_IO, "HDF5 gave tensor %s no room in its file", p->name);
    values->pieces[values->n++] = piece;
    return F2B_OK;
}

static f2b_status make_tensors(const hid_t groups[3], const f2b_state *state, value_list *values)
{
    for (int64_t i = 0; i < state->n_tensors; ++i) {
        const f2b_state_tensor *t = &state->tensors[i];
        F2B_TRY(make_room(groups[0], &t->parameter, t->parameter.data, values));
        if (!t->m) continue;
        F2B_TRY(make_room(groups[1], &t->parameter, t->m, values));
        F2B_TRY(make_room(groups[2], &t->parameter, t->v, values));
        F2B_TRY(write_updates(groups[1], t));
    }
    return F2B_OK;
}

static f2b_status make_contents(hid_t file, const char *path, const f2b_state *state, value_list *values)
{
    F2B_TRY(f2bi_file_reserve(path, file_bytes(state)));
    F2B_TRY(write_attributes(file, state));
    const hid_t adam = f2bi_hdf5_make_group(file, "adam");
    const hid_t groups[3] = { f2bi_hdf5_make_group(file, "parameters"),
                              f2bi_hdf5_make_group(adam, "m"), f2bi_hdf5_make_group(adam, "v") };
    if (adam < 0 || groups[0] < 0 || groups[1] < 0 || groups[2] < 0)
        return f2bi_hdf5_fail(F2B_ERR_IO, "cannot write %s", path);
    F2B_TRY(make_tensors(groups, state, values));       /* closing the file closes the groups */
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        return f2bi_hdf5_fail(F2B_ERR_IO, "cannot write %s", path);
    return F2B_OK;
}

/* All but the values. */
static f2b_status make_file(const char *path, const f2b_state *state, value_list *values)
{
    f2bi_hdf5_begin();
    const hid_t file = f2bi_hdf5_create(path);
    f2b_status status = file < 0 ? f2b_last_status() : make_contents(file, path, state, values);
    if (file >= 0 && H5Fclose(file) < 0 && status == F2B_OK)
        status = f2bi_hdf5_fail(F2B_ERR_IO, "cannot write %s", path);
    if (status != F2B_OK) H5Eclear2(H5E_DEFAULT);
    f2bi_hdf5_end();
    return status;
}

static int by_place(const void *a, const void *b)
{
    const f2b_file_piece *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

f2b_status f2bi_state_write_file(const char *path, const f2b_state *state, f2b_file_checksum *sum)
{
    F2B_TRY(check_tensors(state));
    F2B_TRY(check_attributes(state));
    value_list values = { f2b_calloc((size_t)state->n_tensors, 3 * sizeof *values.pieces, F2B_TAG_FILES), 0 };
    if (!values.pieces) return f2b_last_status();
    f2b_status status = make_file(path, state, &values);
    qsort(values.pieces, (size_t)values.n, sizeof *values.pieces, by_place);
    if (status == F2B_OK) status = f2bi_file_trim(path);
    if (status == F2B_OK) status = f2b_file_fill(path, values.pieces, values.n, sum);
    if (status != F2B_OK) {
        (void)!truncate(path, 0);
        unlink(path);
    }
    f2b_free(values.pieces);
    return status;
}
