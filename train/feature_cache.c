/* The folder of a feature cache: which it is, what is in it, what it will take. See feature_cache.h. */
#include "train/feature_cache_internal.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "checkpoints/atomic_file.h"

static f2b_status open_cache(f2b_feature_cache *c)
{
    const f2b_model *m = c->options.model;
    struct stat st;
    c->shape = (f2b_feature_shape){ .rows = f2b_image_tokens(&m->config),
                                    .width = m->config.vision.hidden, .type = m->compute };
    c->shape.file_bytes = f2bi_feature_head_bytes() +
                          c->shape.rows * c->shape.width * (int64_t)f2b_dtype_size(c->shape.type);
    c->dir = f2b_strdup(c->options.dir, F2B_TAG_OTHER);
    if (c->dir == NULL) return F2B_ERR_MEMORY;
    c->options.dir = c->dir;
    if (stat(c->dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return f2b_fail(F2B_ERR_IO, "%s is not a folder", c->dir);
    F2B_TRY(f2bi_feature_identity(c));
    char name[2 * F2BI_FINGERPRINT_BYTES + 1];
    f2bi_hex(c->fingerprint, F2BI_FINGERPRINT_BYTES, name);
    c->path = f2b_path_join(c->dir, name);
    return c->path != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

f2b_feature_cache *f2b_feature_cache_open(const f2b_feature_cache_options *options)
{
    F2B_CHECK(!options->model->train_vision && options->model->clip != NULL);
    f2b_feature_cache *c = f2b_calloc(1, sizeof *c, F2B_TAG_OTHER);
    if (c == NULL) return NULL;
    c->options = *options;
    pthread_mutex_init(&c->lock, NULL);
    const f2b_status status = open_cache(c);
    c->options.model = NULL, c->options.image = NULL;       /* the caller's */
    if (status == F2B_OK) return c;
    f2b_feature_cache_close(c);
    return NULL;
}

void f2b_feature_cache_close(f2b_feature_cache *c)
{
    if (c == NULL) return;
    pthread_mutex_destroy(&c->lock);
    f2b_free(c->dir);
    f2b_free(c->path);
    f2b_free(c->about);
    f2b_free(c);
}

const char *f2b_feature_cache_path(const f2b_feature_cache *c) { return c->path; }
f2b_feature_shape f2b_feature_cache_shape(const f2b_feature_cache *c) { return c->shape; }

/* ---- What is there ---- */

static bool is_hex(const char *name, size_t digits)
{
    return strspn(name, "0123456789abcdef") == digits;
}

/* Entries of a folder whose name is `digits` hexadecimal digits and `suffix`, and is not `except`. */
static int64_t count(const char *path, size_t digits, const char *suffix, const char *except)
{
    DIR *dir = opendir(path);
    int64_t n = 0;
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        n += is_hex(e->d_name, digits) && strcmp(e->d_name + digits, suffix) == 0 &&
             strcmp(e->d_name, except) != 0;
    if (dir != NULL) closedir(dir);
    return n;
}

int64_t f2b_feature_cache_images(const f2b_feature_cache *c)
{
    int64_t n = 0;
    for (int i = 0; i < 256; i++) {
        char part[4096];
        snprintf(part, sizeof part, "%s/%02x", c->path, i);
        n += count(part, 2 * (F2B_CONTENT_HASH_BYTES - 1), ".features", "");
    }
    return n;
}

int64_t f2b_feature_cache_free_bytes(const f2b_feature_cache *c)
{
    struct statvfs fs;
    char path[4096];
    snprintf(path, sizeof path, "%s", c->dir);
    while (statvfs(path, &fs) != 0) {           /* of the first folder above that is there */
        char *slash = strrchr(path, '/');
        if (slash == NULL || slash == path) return -1;
        *slash = '\0';
    }
    return (int64_t)(fs.f_bavail * fs.f_frsize);
}

/* ---- Beginning ---- */

static f2b_status make_folder(const f2b_feature_cache *c)
{
    F2B_TRY(f2b_make_folders(c->path));
    char *about = f2b_path_join(c->path, "about.json");
    if (about == NULL) return F2B_ERR_MEMORY;
    f2b_status status = F2B_OK;
    if (access(about, F_OK) != 0) {
        status = f2b_write_file(about, c->about, strlen(c->about));
        /* Another process may have been about to write the same. */
        if (status == F2B_ERR_IO && access(about, F_OK) == 0) status = F2B_OK;
    }
    f2b_free(about);
    return status;
}

f2b_status f2b_feature_cache_begin(f2b_feature_cache *c, int64_t images)
{
    char text[8192];
    const double gib = 1 << 30;
    if (images < 0) return f2b_last_status();
    const char *own = strrchr(c->path, '/') + 1;
    const int64_t others = count(c->dir, 2 * F2BI_FINGERPRINT_BYTES, "", own);
    if (others > 0) {
        snprintf(text, sizeof text, "note: %s also has features of %lld other tower%s or setting%s (see "
                 "the about.json there); this run does not use them", c->dir, (long long)others,
                 others == 1 ? "" : "s", others == 1 ? "" : "s");
        c->options.note(c->options.user, text);
    }
    F2B_TRY(make_folder(c));
    const int64_t there = f2b_feature_cache_images(c), most = images * c->shape.file_bytes;
    const int64_t space = f2b_feature_cache_free_bytes(c);
    snprintf(text, sizeof text, "feature cache %s: %lld of %lld images, at most %.3g GiB for all", c->path,
             (long long)there, (long long)images, (double)most / gib);
    c->options.note(c->options.user, text);
    if (space < 0 || most - there * c->shape.file_bytes <= space) return F2B_OK;
    snprintf(text, sizeof text, "warning: the feature cache may need %.3g GiB more, and %s has %.3g GiB "
             "free; once it is full, training goes on without writing to it",
             (double)(most - there * c->shape.file_bytes) / gib, c->dir, (double)space / gib);
    c->options.note(c->options.user, text);
    return F2B_OK;
}
