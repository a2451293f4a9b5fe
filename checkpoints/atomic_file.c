/* Write beside, sync, rename. See atomic_file.h for the contract. */
#include "checkpoints/atomic_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"

struct f2b_atomic_file {
    char *path, *partial;
    int fd;
};

char *f2b_path_join(const char *folder, const char *name)
{
    const size_t n = strlen(folder);
    const char *slash = n > 0 && folder[n - 1] == '/' ? "" : "/";
    return f2b_sprintf(F2B_TAG_FILES, "%s%s%s", folder, slash, name);
}

static char *partial_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') --n;
    return f2b_sprintf(F2B_TAG_FILES, "%.*s" F2B_PARTIAL_SUFFIX, (int)n, path);
}

/* The folder that holds the name `path`: what must be synced for a rename to last. */
static char *parent_folder(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') --n;
    while (n > 0 && path[n - 1] != '/') --n;
    while (n > 1 && path[n - 1] == '/') --n;
    return n == 0 ? f2b_strdup(".", F2B_TAG_FILES)
                  : f2b_sprintf(F2B_TAG_FILES, "%.*s", (int)n, path);
}

f2b_status f2b_sync_path(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s to sync it", path);
    /* Some file systems cannot sync folders and say so; there is nothing better to do there. */
    const int failed = fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP;
    const f2b_status status =
        failed ? f2b_fail_errno(F2B_ERR_IO, "cannot write %s to disk", path) : F2B_OK;
    close(fd);
    return status;
}

static f2b_status sync_parent(const char *path)
{
    char *parent = parent_folder(path);
    if (!parent) return f2b_last_status();
    const f2b_status status = f2b_sync_path(parent);
    f2b_free(parent);
    return status;
}

static void atomic_file_free(f2b_atomic_file *file)
{
    if (file->fd >= 0) close(file->fd);
    f2b_free(file->path);
    f2b_free(file->partial);
    f2b_free(file);
}

f2b_atomic_file *f2b_atomic_file_open(const char *path)
{
    f2b_atomic_file *file = f2b_calloc(1, sizeof *file, F2B_TAG_FILES);
    if (!file) return NULL;
    file->fd = -1;
    file->path = f2b_strdup(path, F2B_TAG_FILES);
    file->partial = partial_name(path);
    if (file->path && file->partial) {
        file->fd = open(file->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (file->fd >= 0) return file;
        (void)f2b_fail_errno(F2B_ERR_IO, "cannot write %s", file->partial);
    }
    atomic_file_free(file);
    return NULL;
}

f2b_status f2b_atomic_file_write(f2b_atomic_file *file, const void *data, size_t bytes)
{
    const char *p = data;
    while (bytes > 0) {
        const ssize_t n = write(file->fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", file->path);
        p += n;
        bytes -= (size_t)n;
    }
    return F2B_OK;
}

static f2b_status put_in_place(f2b_atomic_file *file)
{
    if (fsync(file->fd) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s to disk", file->path);
    const int fd = file->fd;
    file->fd = -1;
    if (close(fd) != 0) return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", file->path);
    if (rename(file->partial, file->path) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot rename %s to %s", file->partial, file->path);
    return sync_parent(file->path);
}

f2b_status f2b_atomic_file_commit(f2b_atomic_file *file)
{
    const f2b_status status = put_in_place(file);
    if (status != F2B_OK) f2b_atomic_file_abort(file);
    else atomic_file_free(file);
    return status;
}

void f2b_atomic_file_abort(f2b_atomic_file *file)
{
    if (!file) return;
    unlink(file->partial);
    atomic_file_free(file);
}

f2b_status f2b_write_file(const char *path, const void *data, size_t bytes)
{
    f2b_atomic_file *file = f2b_atomic_file_open(path);
    if (!file) return f2b_last_status();
    const f2b_status status = f2b_atomic_file_write(file, data, bytes);
    if (status == F2B_OK) return f2b_atomic_file_commit(file);
    f2b_atomic_file_abort(file);
    return status;
}

static f2b_status read_all(int fd, const char *path, char *text, int64_t size)
{
    for (int64_t done = 0; done < size;) {
        const ssize_t n = read(fd, text + done, (size_t)(size - done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
        if (n == 0) return f2b_fail(F2B_ERR_IO, "%s became shorter while it was read", path);
        done += n;
    }
    text[size] = '\0';
    return F2B_OK;
}

char *f2b_read_file(const char *path, int64_t max_bytes, int64_t *bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (fd < 0) {
        (void)f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO, "cannot open %s",
                             path);
        return NULL;
    }
    struct stat info;
    char *text = NULL;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        (void)f2b_fail(F2B_ERR_IO, "%s is not a regular file", path);
    else if (info.st_size > max_bytes)
        (void)f2b_fail(F2B_ERR_FORMAT,
                       "%s has %lld bytes, more than the %lld that such a file may have", path,
                       (long long)info.st_size, (long long)max_bytes);
    else if ((text = f2b_alloc_host((size_t)info.st_size + 1, F2B_TAG_FILES)) != NULL) {
        if (bytes) *bytes = info.st_size;
        if (read_all(fd, path, text, info.st_size) != F2B_OK) {
            f2b_free(text);
            text = NULL;
        }
    }
    close(fd);
    return text;
}

f2b_status f2b_make_folders(const char *path)
{
    if (path[0] == '\0') return f2b_fail(F2B_ERR_INVALID, "the name of a folder is empty");
    char *part = f2b_strdup(path, F2B_TAG_FILES);
    if (!part) return f2b_last_status();
    f2b_status status = F2B_OK;
    for (char *p = part + 1; status == F2B_OK; ++p) {
        const char end = *p;
        if (end != '/' && end != '\0') continue;
        *p = '\0';
        struct stat info;
        if (mkdir(part, 0777) != 0
            && (errno != EEXIST || stat(part, &info) != 0 || !S_ISDIR(info.st_mode)))
            status = f2b_fail_errno(F2B_ERR_IO, "cannot make the folder %s", part);
        *p = end;
        if (end == '\0') break;
    }
    f2b_free(part);
    return status;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info;
    (void)type;
    (void)place;
    return remove(path);
}

f2b_status f2b_folder_remove(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0 && errno == ENOENT) return F2B_OK;
    if (nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot remove %s", path);
    return F2B_OK;
}

f2b_status f2b_folder_check_free(const char *path, const char *marker)
{
    DIR *dir = opendir(path);
    if (!dir && errno == ENOENT) return F2B_OK;
    if (!dir) return f2b_fail_errno(F2B_ERR_IO, "cannot write to %s", path);
    bool empty = true, ours = false;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
        ours = ours || strcmp(e->d_name, marker) == 0;
    }
    closedir(dir);
    if (empty || ours) return F2B_OK;
    return f2b_fail(F2B_ERR_INVALID, "%s holds other files; name a new folder", path);
}

char *f2b_folder_begin(const char *path)
{
    char *partial = partial_name(path);
    if (!partial) return NULL;
    if (f2b_folder_remove(partial) == F2B_OK && f2b_make_folders(partial) == F2B_OK) return partial;
    f2b_free(partial);
    return NULL;
}

/* Swap names in one step where the file system can; else there is a moment without `path`. */
static int exchange(const char *partial, const char *path)
{
    if (renameat2(AT_FDCWD, partial, AT_FDCWD, path, RENAME_EXCHANGE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) return -1;
    char *old = f2b_sprintf(F2B_TAG_FILES, "%s.old" F2B_PARTIAL_SUFFIX, path);
    if (!old) return -1;
    int result = rename(path, old);
    if (result == 0) result = rename(partial, path);
    if (result == 0) result = rename(old, partial);
    f2b_free(old);
    return result;
}

f2b_status f2b_folder_commit(const char *path)
{
    char *partial = partial_name(path);
    if (!partial) return f2b_last_status();
    f2b_status status = f2b_sync_path(partial);
    if (status == F2B_OK) {
        int failed = renameat2(AT_FDCWD, partial, AT_FDCWD, path, RENAME_NOREPLACE);
        if (failed && (errno == EINVAL || errno == ENOSYS)) failed = rename(partial, path);
        if (failed && (errno == EEXIST || errno == ENOTEMPTY)) failed = exchange(partial, path);
        status = failed ? f2b_fail_errno(F2B_ERR_IO, "cannot rename %s to %s", partial, path)
                        : sync_parent(path);
    }
    if (status == F2B_OK) status = f2b_folder_remove(partial);
    f2b_free(partial);
    return status;
}
