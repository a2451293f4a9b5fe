/*
 * Writing a shard: all of it beside its name, synced, renamed. Room is asked for before the first
 * byte, so that a full disk is known at once. The same images give the same bytes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/hdf5_internal.h"
#include "checkpoints/store_hdf5_internal.h"

hid_t f2bi_store_f16_type(void)
{
    const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);      /* sign, exponent, mantissa */
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

/* Names [first, end) as texts of one length. */
static f2b_status write_names(hid_t group, const char *name, const f2bi_names *names, int64_t first,
                              int64_t end)
{
    size_t length = 1;
    for (int64_t i = first; i < end; i++) {
        const size_t n = strlen(f2bi_names_at(names, i));
        if (n > length) length = n;
    }
    char *texts = f2b_calloc((size_t)(end - first), length, F2B_TAG_FILES);
    if (!texts) return f2b_last_status();
    for (int64_t i = first; i < end; i++) {
        const char *text = f2bi_names_at(names, i);
        memcpy(texts + (size_t)(i - first) * length, text, strlen(text));
    }
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, length);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    const int64_t shape[] = { end - first };
    const f2b_status status = f2bi_hdf5_write_dataset(group, name, type, 1, shape, texts, NULL);
    H5Tclose(type);
    f2b_free(texts);
    return status;
}

/* First of all in the file, so that where they lie depends on no other thing. */
static f2b_status write_tokens(hid_t file, const f2bi_store_manifest *m, const uint16_t *tokens,
                               f2bi_store_entry *entry)
{
    const hid_t type = f2bi_store_f16_type();
    const int64_t shape[] = { entry->images, m->identity.tokens, m->identity.width };
    const f2b_status status =
        f2bi_hdf5_write_dataset(file, "tokens", type, 3, shape, tokens, &entry->offset);
    H5Tclose(type);
    F2B_CHECK(entry->offset % 2 == 0);
    return status;
}

static f2b_status write_attributes(hid_t file, const f2bi_store_manifest *m, int64_t first)
{
    F2B_TRY(f2bi_hdf5_write_text(file, "format", F2BI_STORE_SHARD_FORMAT));
    F2B_TRY(f2bi_hdf5_write_integer(file, "format_version", F2BI_STORE_SHARD_VERSION));
    F2B_TRY(f2bi_hdf5_write_integer(file, "first_row", first));
    for (int i = 0; i < F2BI_STORE_TEXTS; i++)
        F2B_TRY(f2bi_hdf5_write_text(file, f2bi_store_text_name(i), f2bi_store_text(m, i)));
    return F2B_OK;
}

static f2b_status write_contents(hid_t file, const f2bi_store_manifest *m, const f2bi_catalog *c,
                                 int64_t first_duplicate, const uint16_t *tokens,
                                 f2bi_store_entry *entry)
{
    const int64_t end = entry->first + entry->images;
    const int64_t hashes[] = { entry->images, F2BI_STORE_HASH_BYTES }, rows[] = { entry->duplicates };
    F2B_TRY(write_tokens(file, m, tokens, entry));
    F2B_TRY(write_attributes(file, m, entry->first));
    F2B_TRY(write_names(file, "ids", &c->ids, entry->first, end));
    F2B_TRY(f2bi_hdf5_write_dataset(file, "hashes", H5T_STD_U8LE, 2, hashes,
                                    c->hashes + entry->first, NULL));
    const hid_t group = f2bi_hdf5_make_group(file, "duplicates");
    if (group < 0) return f2bi_hdf5_fail(F2B_ERR_IO, "cannot write the duplicates");
    F2B_TRY(write_names(group, "ids", &c->duplicates, first_duplicate,
                        first_duplicate + entry->duplicates));
    F2B_TRY(f2bi_hdf5_write_dataset(group, "rows", H5T_STD_I64LE, 1, rows,
                                    c->duplicate_rows + first_duplicate, NULL));
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) return f2bi_hdf5_fail(F2B_ERR_IO, "cannot write");
    return F2B_OK;
}

/* An upper bound of the file. */
static int64_t file_bytes(const f2bi_store_manifest *m, const f2bi_catalog *c,
                          int64_t first_duplicate, const f2bi_store_entry *entry)
{
    size_t longest = 1;
    for (int64_t i = 0; i < entry->images; i++) {
        const size_t n = strlen(f2bi_names_at(&c->ids, entry->first + i));
        if (n > longest) longest = n;
    }
    size_t other = 1;
    for (int64_t i = 0; i < entry->duplicates; i++) {
        const size_t n = strlen(f2bi_names_at(&c->duplicates, first_duplicate + i));
        if (n > other) other = n;
    }
    return f2bi_store_token_bytes(m, entry->images) +
           entry->images * ((int64_t)longest + F2BI_STORE_HASH_BYTES) +
           entry->duplicates * ((int64_t)other + 8) + (int64_t)strlen(m->method) + (64 << 10);
}

static f2b_status write_file(const char *path, const f2bi_store_manifest *m, const f2bi_catalog *c,
                             int64_t first_duplicate, const uint16_t *tokens,
                             f2bi_store_entry *entry)
{
    const hid_t file = f2bi_hdf5_create(path);
    if (file < 0) return f2b_last_status();
    f2b_status status = f2bi_file_reserve(path, file_bytes(m, c, first_duplicate, entry));
    if (status == F2B_OK) {
        status = write_contents(file, m, c, first_duplicate, tokens, entry);
        if (status != F2B_OK) status = f2b_fail_context("%s", path);
    }
    if (H5Fclose(file) < 0 && status == F2B_OK)
        status = f2bi_hdf5_fail(F2B_ERR_IO, "cannot write %s", path);
    H5Eclear2(H5E_DEFAULT);
    return status == F2B_OK ? f2bi_file_trim(path) : status;
}

/* Both checksums, read from the cache, and the file brought to disk. */
static f2b_status seal(const char *path, const f2bi_store_manifest *m, f2bi_store_entry *entry)
{
    const int fd = f2bi_file_open(path, &entry->size);
    if (fd < 0) return f2b_last_status();
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    int64_t size = 0;
    f2b_status status = f2bi_file_hash(fd, path, 0, 0, &entry->size, entry->checksum);
    if (status == F2B_OK)
        status = f2bi_file_hash(fd, path, entry->offset, f2bi_store_token_bytes(m, entry->images),
                                &size, entry->rest);
    if (status == F2B_OK && fsync(fd) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot write %s to disk", path);
    close(fd);
    return status;
}

f2b_status f2bi_store_shard_write(const f2bi_store_manifest *m, const f2bi_catalog *catalog,
                                  int64_t first_duplicate, const uint16_t *tokens,
                                  f2bi_store_entry *entry)
{
    char *partial = f2b_sprintf(F2B_TAG_FILES, "%s" F2B_PARTIAL_SUFFIX, entry->path);
    if (!partial) return f2b_last_status();
    f2bi_hdf5_begin();
    f2b_status status = write_file(partial, m, catalog, first_duplicate, tokens, entry);
    f2bi_hdf5_end();
    if (status == F2B_OK) status = seal(partial, m, entry);
    if (status == F2B_OK && rename(partial, entry->path) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot rename %s to %s", partial, entry->path);
    if (status == F2B_OK) status = f2b_sync_path(m->path);
    else {
        /* HDF5 may keep a file open that it could not write; empty, it takes no room. */
        (void)!truncate(partial, 0);
        unlink(partial);
    }
    f2b_free(partial);
    return status;
}
