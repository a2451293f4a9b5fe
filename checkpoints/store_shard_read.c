/*
 * Reading a shard but for its tokens. Its bytes are checked against the manifest before HDF5 sees
 * them; then structure, types and sizes, because who wrote both is another question.
 */
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/hdf5_internal.h"
#include "checkpoints/store_hdf5_internal.h"

#define REMEDY "restore the file from a copy, or compress into a new store"

/* ---- Bytes ---- */

static f2b_status check_bytes(int fd, const f2bi_store_manifest *m, const f2bi_store_entry *s,
                              int64_t size, bool whole)
{
    if (size != s->size)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s has %lld bytes, " F2B_STORE_FILE " says %lld: it is cut off or was "
                        "changed; " REMEDY, s->path, (long long)size, (long long)s->size);
    char hash[F2BI_HASH_TEXT];
    const int64_t tokens = f2bi_store_token_bytes(m, s->images);
    F2B_TRY(f2bi_file_hash(fd, s->path, s->offset, tokens, &size, hash));
    const char *want = s->rest;
    if (whole && strcmp(hash, want) == 0) {
        F2B_TRY(f2bi_file_hash(fd, s->path, 0, 0, &size, hash));
        want = s->checksum;
    }
    if (strcmp(hash, want) == 0) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT,
                    "%s is damaged: the XXH3-128 of its %s is %s, " F2B_STORE_FILE " says %s; "
                    REMEDY, s->path, want == s->rest ? "index" : "contents", hash, want);
}

/* ---- Structure ---- */

static f2b_status check_attributes(hid_t file, const f2bi_store_manifest *m, int64_t first)
{
    char *format;
    F2B_TRY(f2bi_hdf5_read_text(file, "format", 256, &format));
    const bool known = strcmp(format, F2BI_STORE_SHARD_FORMAT) == 0;
    f2b_free(format);
    int64_t version, row;
    F2B_TRY(f2bi_hdf5_read_integer(file, "format_version", &version));
    F2B_TRY(f2bi_hdf5_read_integer(file, "first_row", &row));
    if (!known || version != F2BI_STORE_SHARD_VERSION)
        return f2b_fail(F2B_ERR_FORMAT, "format or format_version is not what this program reads");
    if (row != first)
        return f2b_fail(F2B_ERR_FORMAT, "its first row is %lld, not %lld", (long long)row,
                        (long long)first);
    for (int i = 0; i < F2BI_STORE_TEXTS; i++) {
        char *text;
        F2B_TRY(f2bi_hdf5_read_text(file, f2bi_store_text_name(i), F2BI_STORE_MAX_METHOD, &text));
        const bool same = strcmp(text, f2bi_store_text(m, i)) == 0;
        f2b_status status = F2B_OK;
        if (!same)
            status = f2b_fail(F2B_ERR_FORMAT, "its %s is %.200s, " F2B_STORE_FILE " says %.200s",
                              f2bi_store_text_name(i), text, f2bi_store_text(m, i));
        f2b_free(text);
        F2B_TRY(status);
    }
    return F2B_OK;
}

/* A dataset that must be of this shape; negative with the error set. */
static hid_t open_exact(hid_t group, const char *name, hid_t type, const char *type_name, int ndim,
                        const int64_t *shape)
{
    f2b_named_array array = { .name = name };
    const hid_t set = f2bi_hdf5_open_dataset(group, name, type, type_name, &array);
    if (set < 0 || f2b_shape_equal(array.ndim, array.shape, ndim, shape)) return set;
    char have[F2B_SHAPE_TEXT], want[F2B_SHAPE_TEXT];
    (void)f2b_fail(F2B_ERR_FORMAT, "%s is %s, not %s", name,
                   f2b_shape_text(array.ndim, array.shape, have),
                   f2b_shape_text(ndim, shape, want));
    H5Dclose(set);
    return -1;
}

static f2b_status check_tokens(hid_t file, const f2bi_store_manifest *m, const f2bi_store_entry *s)
{
    const hid_t type = f2bi_store_f16_type();
    const int64_t shape[] = { s->images, m->identity.tokens, m->identity.width };
    const hid_t set = open_exact(file, "tokens", type, "little-endian f16", 3, shape);
    H5Tclose(type);
    if (set < 0) return f2b_last_status();
    const haddr_t at = H5Dget_offset(set);
    H5Dclose(set);
    if ((at == HADDR_UNDEF ? 0 : at) == (haddr_t)s->offset) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "the tokens are not where " F2B_STORE_FILE " says");
}

/* A dataset into new memory (f2b_free). */
static f2b_status read_exact(hid_t group, const char *name, hid_t type, const char *type_name,
                             int ndim, const int64_t *shape, void **out)
{
    *out = NULL;
    int64_t bytes;
    const hid_t set = open_exact(group, name, type, type_name, ndim, shape);
    if (set < 0) return f2b_last_status();
    f2b_status status = F2B_OK;
    if (!f2b_shape_bytes(ndim, shape, (int64_t)H5Tget_size(type), &bytes))
        status = f2b_fail(F2B_ERR_FORMAT, "%s is too large", name);
    else if (!(*out = f2b_alloc_host((size_t)bytes, F2B_TAG_FILES))) status = f2b_last_status();
    else if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *out) < 0) {
        status = f2bi_hdf5_fail(F2B_ERR_FORMAT, "%s cannot be read", name);
        f2b_free(*out);
        *out = NULL;
    }
    H5Dclose(set);
    return status;
}

/* Names of n things: [n] texts of *length bytes each. */
static f2b_status read_names(hid_t group, int64_t n, char **texts, size_t *length)
{
    *texts = NULL;
    const hid_t set = f2bi_hdf5_has(group, "ids") ? H5Dopen2(group, "ids", H5P_DEFAULT) : -1;
    if (set < 0) return f2bi_hdf5_fail(F2B_ERR_FORMAT, "ids are missing");
    const hid_t type = H5Dget_type(set);
    H5Dclose(set);
    void *block = NULL;
    *length = H5Tget_size(type);
    f2b_status status;
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 ||
        *length > F2B_STORE_MAX_ID)
        status = f2b_fail(F2B_ERR_FORMAT, "ids are not texts of fixed length");
    else status = read_exact(group, "ids", type, "of that type", 1, (int64_t[]){ n }, &block);
    H5Tclose(type);
    *texts = block;
    return status;
}

static f2b_status take_images(hid_t file, const f2bi_store_entry *s, f2bi_catalog *catalog)
{
    const int64_t shape[] = { s->images, F2BI_STORE_HASH_BYTES };
    char *texts;
    size_t length;
    void *hashes = NULL;
    f2b_status status = read_names(file, s->images, &texts, &length);
    if (status == F2B_OK) status = read_exact(file, "hashes", H5T_STD_U8LE, "u8", 2, shape, &hashes);
    for (int64_t i = 0; i < s->images && status == F2B_OK; i++) {
        const char *id = texts + (size_t)i * length;
        status = f2bi_catalog_add(catalog, id, strnlen(id, length),
                                  (const uint8_t *)hashes + i * F2BI_STORE_HASH_BYTES);
    }
    f2b_free(texts);
    f2b_free(hashes);
    return status;
}

static f2b_status take_duplicates(hid_t file, const f2bi_store_entry *s, f2bi_catalog *catalog)
{
    const hid_t group = f2bi_hdf5_open_group(file, "duplicates");
    if (group < 0) return f2b_last_status();
    const int64_t end = s->first + s->images;
    char *texts;
    size_t length;
    void *rows = NULL;
    f2b_status status = read_names(group, s->duplicates, &texts, &length);
    if (status == F2B_OK)
        status = read_exact(group, "rows", H5T_STD_I64LE, "i64", 1, (int64_t[]){ s->duplicates },
                            &rows);
    for (int64_t i = 0; i < s->duplicates && status == F2B_OK; i++) {
        const char *id = texts + (size_t)i * length;
        const int64_t row = ((const int64_t *)rows)[i];
        status = row >= 0 && row < end
                     ? f2bi_catalog_add_duplicate(catalog, id, strnlen(id, length), row)
                     : f2b_fail(F2B_ERR_FORMAT, "a duplicate of row %lld", (long long)row);
    }
    f2b_free(texts);
    f2b_free(rows);
    H5Gclose(group);
    return status;
}

static f2b_status take_contents(const f2bi_store_manifest *m, const f2bi_store_entry *s,
                                f2bi_catalog *catalog)
{
    const hid_t file = f2bi_hdf5_open(s->path);
    if (file < 0) return f2b_last_status();
    f2b_status status = check_attributes(file, m, s->first);
    if (status == F2B_OK) status = check_tokens(file, m, s);
    if (status == F2B_OK) status = take_images(file, s, catalog);
    if (status == F2B_OK) status = take_duplicates(file, s, catalog);
    H5Fclose(file);
    H5Eclear2(H5E_DEFAULT);
    return status == F2B_OK ? F2B_OK : f2b_fail_context("%s", s->path);
}

f2b_status f2bi_store_shard_read(const f2bi_store_manifest *m, int64_t number, bool whole,
                                 f2bi_catalog *catalog)
{
    const f2bi_store_entry *s = &m->shards[number];
    int64_t size;
    const int fd = f2bi_file_open(s->path, &size);
    if (fd < 0 && f2b_last_status() == F2B_ERR_NOT_FOUND)
        return f2b_fail(F2B_ERR_FORMAT, "%s is missing, but " F2B_STORE_FILE " lists it; " REMEDY,
                        s->path);
    if (fd < 0) return f2b_last_status();
    f2b_status status = check_bytes(fd, m, s, size, whole);
    close(fd);
    if (status != F2B_OK) return status;
    f2bi_hdf5_begin();
    status = take_contents(m, s, catalog);
    f2bi_hdf5_end();
    return status;
}
