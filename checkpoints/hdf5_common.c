/* The few HDF5 idioms that our files need. See hdf5_internal.h for the contract. */
#include "checkpoints/hdf5_internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t turn;

static void start(void)
{
    pthread_mutexattr_t nests;
    pthread_mutexattr_init(&nests);
    pthread_mutexattr_settype(&nests, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&turn, &nests);
    pthread_mutexattr_destroy(&nests);
    H5dont_atexit();                            /* a file that failed must not be touched at exit */
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);      /* libraries never print */
}

void f2bi_hdf5_begin(void)
{
    pthread_once(&once, start);
    pthread_mutex_lock(&turn);
}

void f2bi_hdf5_end(void) { pthread_mutex_unlock(&turn); }

/* The innermost entry is what happened; for failed writes it holds errno's text in a longer one. */
static herr_t take_reason(unsigned n, const H5E_error2_t *error, void *user)
{
    char *reason = user;
    if (n > 0 || !error->desc) return 0;
    const char *text = strstr(error->desc, "error message = '");
    const char *end = text ? strchr(text + 17, '\'') : NULL;
    if (end) snprintf(reason, 256, "%.*s", (int)(end - text - 17), text + 17);
    else snprintf(reason, 256, "%s", error->desc);
    return 0;
}

f2b_status f2bi_hdf5_fail(f2b_status code, const char *format, ...)
{
    char text[1024], reason[256] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_reason, reason);
    H5Eclear2(H5E_DEFAULT);
    return f2b_fail(code, reason[0] ? "%s: %s" : "%s", text, reason);
}

/* Object headers of 1.8 (smaller, no times); no locks, which fail on some network file systems: who
 * writes a run holds its own lock, and files are complete before they get their name. */
static hid_t access_properties(void)
{
    const hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
    H5Pset_alignment(fapl, 64 << 10, 4 << 10);
    H5Pset_file_locking(fapl, 0, 1);
    return fapl;
}

hid_t f2bi_hdf5_create(const char *path)
{
    const hid_t fapl = access_properties(), fcpl = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(fcpl, 0);            /* the same state gives the same bytes */
    H5Pset_attr_phase_change(fcpl, 0, 0);       /* root attributes may be larger than 64 KiB */
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, fcpl, fapl);
    if (file < 0) (void)f2bi_hdf5_fail(F2B_ERR_IO, "cannot write %s", path);
    H5Pclose(fcpl);
    H5Pclose(fapl);
    return file;
}

hid_t f2bi_hdf5_open(const char *path)
{
    const hid_t fapl = access_properties();
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, fapl);
    if (file < 0) (void)f2bi_hdf5_fail(F2B_ERR_FORMAT, "%s is no readable HDF5 file", path);
    H5Pclose(fapl);
    return file;
}

/* Contiguous, with its room in the file from the beginning. */
static hid_t make_dataset(hid_t group, const char *name, hid_t type, int ndim, const int64_t *shape)
{
    hsize_t dims[F2B_NAMED_ARRAY_DIMS];
    for (int i = 0; i < ndim; ++i) dims[i] = (hsize_t)shape[i];
    const hid_t space = ndim > 0 ? H5Screate_simple(ndim, dims, NULL) : H5Screate(H5S_SCALAR);
    const hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(dcpl, H5D_CONTIGUOUS);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(dcpl, 0);
    const hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    H5Pclose(dcpl);
    H5Sclose(space);
    return set;
}

static f2b_status close_dataset(hid_t set, herr_t result, const char *name, int64_t *offset)
{
    const haddr_t at = result < 0 ? HADDR_UNDEF : H5Dget_offset(set);
    if (offset) *offset = at == HADDR_UNDEF ? 0 : (int64_t)at;
    if (set >= 0 && H5Dclose(set) < 0) result = -1;
    return result < 0 ? f2bi_hdf5_fail(F2B_ERR_IO, "cannot write tensor %s", name) : F2B_OK;
}

f2b_status f2bi_hdf5_make_f32(hid_t group, const char *name, int ndim, const int64_t *shape,
                              int64_t *offset)
{
    const hid_t set = make_dataset(group, name, H5T_IEEE_F32LE, ndim, shape);
    return close_dataset(set, set < 0 ? -1 : 0, name, offset);
}

f2b_status f2bi_hdf5_write_dataset(hid_t group, const char *name, hid_t type, int ndim,
                                   const int64_t *shape, const void *data, int64_t *offset)
{
    const hid_t set = make_dataset(group, name, type, ndim, shape);
    const herr_t result = set < 0 ? -1 : H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    return close_dataset(set, result, name, offset);
}

static f2b_status write_scalar(hid_t object, const char *name, hid_t file_type, hid_t memory_type,
                               const void *value)
{
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t result = attribute < 0 ? -1 : H5Awrite(attribute, memory_type, value);
    if (attribute >= 0 && H5Aclose(attribute) < 0) result = -1;
    const f2b_status status =
        result < 0 ? f2bi_hdf5_fail(F2B_ERR_IO, "cannot write attribute %s", name) : F2B_OK;
    H5Sclose(space);
    return status;
}

f2b_status f2bi_hdf5_write_integer(hid_t object, const char *name, int64_t value)
{
    return write_scalar(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

f2b_status f2bi_hdf5_write_number(hid_t object, const char *name, double value)
{
    return write_scalar(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

/* Of fixed length, because reading variable-length texts from a hostile file crashes HDF5 1.10. */
f2b_status f2bi_hdf5_write_text(hid_t object, const char *name, const char *value)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    const f2b_status status = write_scalar(object, name, type, type, value);
    H5Tclose(type);
    return status;
}

f2b_status f2bi_hdf5_read_integer(hid_t object, const char *name, int64_t *value)
{
    const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) return f2bi_hdf5_fail(F2B_ERR_FORMAT, "attribute %s is missing", name);
    const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    const int fits = H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 8
                  && H5Sget_simple_extent_npoints(space) == 1;
    const f2b_status status =
        !fits ? f2b_fail(F2B_ERR_FORMAT, "attribute %s is not a 64-bit integer", name)
        : H5Aread(attribute, H5T_NATIVE_INT64, value) < 0
            ? f2bi_hdf5_fail(F2B_ERR_FORMAT, "cannot read attribute %s", name) : F2B_OK;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

f2b_status f2bi_hdf5_read_open_text(hid_t attribute, hid_t type, size_t max_bytes, char **text)
{
    const size_t size = H5Tget_size(type);
    *text = NULL;
    if (size > max_bytes) return f2b_fail(F2B_ERR_FORMAT, "a text of %zu bytes", size);
    *text = f2b_calloc(size + 1, 1, F2B_TAG_FILES);
    if (!*text) return f2b_last_status();
    if (H5Aread(attribute, type, *text) >= 0) return F2B_OK;
    f2b_free(*text);
    *text = NULL;
    return f2bi_hdf5_fail(F2B_ERR_FORMAT, "a text that cannot be read");
}

f2b_status f2bi_hdf5_read_text(hid_t object, const char *name, size_t max_bytes, char **text)
{
    *text = NULL;
    const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) return f2bi_hdf5_fail(F2B_ERR_FORMAT, "attribute %s is missing", name);
    const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    const bool fits = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0
                   && H5Sget_simple_extent_npoints(space) == 1;
    f2b_status status = fits ? f2bi_hdf5_read_open_text(attribute, type, max_bytes, text)
                             : f2b_fail(F2B_ERR_FORMAT, "not a text of fixed length");
    if (status != F2B_OK) status = f2b_fail_context("attribute %s", name);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

static f2b_status check_shape(hid_t set, const char *name, size_t element_bytes,
                              f2b_named_array *array)
{
    const hid_t space = H5Dget_space(set);
    const int ndim = H5Sget_simple_extent_ndims(space);
    hsize_t dims[F2B_NAMED_ARRAY_DIMS];
    f2b_status status = F2B_OK;
    if (H5Sget_simple_extent_type(space) == H5S_NULL || ndim < 0 || ndim > F2B_NAMED_ARRAY_DIMS
        || H5Sget_simple_extent_dims(space, dims, NULL) != ndim)
        status = f2b_fail(F2B_ERR_FORMAT, "tensor %s has %d dimensions", name, ndim);
    else {
        array->ndim = ndim;
        for (int i = 0; i < ndim; ++i)
            array->shape[i] = dims[i] > INT64_MAX ? -1 : (int64_t)dims[i];
        int64_t bytes;
        if (!f2b_shape_bytes(ndim, array->shape, (int64_t)element_bytes, &bytes) ||
            H5Dget_storage_size(set) != (hsize_t)bytes)
            status = f2b_fail(F2B_ERR_FORMAT, "tensor %s is not stored in full", name);
    }
    H5Sclose(space);
    return status;
}

static f2b_status check_storage(hid_t set, const char *name, hid_t want, const char *type_name)
{
    const hid_t type = H5Dget_type(set), dcpl = H5Dget_create_plist(set);
    f2b_status status = F2B_OK;
    if (H5Tequal(type, want) <= 0)
        status = f2b_fail(F2B_ERR_FORMAT, "tensor %s is not %s", name, type_name);
    /* A file could have its data read from any other file of the machine. */
    else if (H5Pget_layout(dcpl) != H5D_CONTIGUOUS || H5Pget_external_count(dcpl) != 0)
        status = f2b_fail(F2B_ERR_FORMAT, "tensor %s is not stored in one piece in its file", name);
    H5Pclose(dcpl);
    H5Tclose(type);
    return status;
}

bool f2bi_hdf5_has(hid_t group, const char *name)
{
    H5L_info_t link;
    return H5Lget_info(group, name, &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD;
}

hid_t f2bi_hdf5_make_group(hid_t parent, const char *name)
{
    const hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(gcpl, 0);
    const hid_t group = H5Gcreate2(parent, name, H5P_DEFAULT, gcpl, H5P_DEFAULT);
    H5Pclose(gcpl);
    return group;
}

hid_t f2bi_hdf5_open_group(hid_t parent, const char *name)
{
    const hid_t group = f2bi_hdf5_has(parent, name) ? H5Gopen2(parent, name, H5P_DEFAULT) : -1;
    if (group < 0)
        (void)f2bi_hdf5_fail(F2B_ERR_FORMAT, "group %s is missing, or a link to elsewhere", name);
    return group;
}

hid_t f2bi_hdf5_open_f32(hid_t group, const char *name, f2b_named_array *array)
{
    const hid_t set =
        f2bi_hdf5_open_dataset(group, name, H5T_IEEE_F32LE, "little-endian f32", array);
    array->dtype = F2B_F32;
    return set;
}

hid_t f2bi_hdf5_open_dataset(hid_t group, const char *name, hid_t type, const char *type_name,
                             f2b_named_array *array)
{
    const hid_t set = f2bi_hdf5_has(group, name) ? H5Dopen2(group, name, H5P_DEFAULT) : -1;
    if (set < 0) {
        (void)f2bi_hdf5_fail(F2B_ERR_FORMAT, "tensor %s is missing, or a link to elsewhere", name);
        return -1;
    }
    *array = (f2b_named_array){ .name = array->name };
    if (check_storage(set, name, type, type_name) == F2B_OK &&
        check_shape(set, name, H5Tget_size(type), array) == F2B_OK)
        return set;
    H5Dclose(set);
    return -1;
}
