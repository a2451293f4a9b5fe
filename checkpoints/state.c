/* Saving, rotating and finding checkpoints in a run folder. See state.h for the contract. */
#include "checkpoints/state.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/state_internal.h"

#define CHECKPOINTS "checkpoints"
#define PREFIX "step-"

/* The step in "step-00000120", or -1. */
static int64_t step_of(const char *name)
{
    const size_t n = strlen(PREFIX);
    if (strncmp(name, PREFIX, n) != 0 || strlen(name + n) < 8 || strlen(name + n) > 18) return -1;
    for (const char *p = name + n; *p; ++p)
        if (!isdigit((unsigned char)*p)) return -1;
    return strtoll(name + n, NULL, 10);
}

static bool is_leftover(const char *name)
{
    const size_t n = strlen(name), m = strlen(F2B_PARTIAL_SUFFIX);
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0 && n > m
        && strcmp(name + n - m, F2B_PARTIAL_SUFFIX) == 0;
}

static int is_checkpoint_entry(const struct dirent *entry) { return step_of(entry->d_name) >= 0; }
static int is_leftover_entry(const struct dirent *entry) { return is_leftover(entry->d_name); }

static int newest_first(const struct dirent **a, const struct dirent **b)
{
    const int64_t x = step_of((*a)->d_name), y = step_of((*b)->d_name);
    return x < y ? 1 : x > y ? -1 : strcmp((*b)->d_name, (*a)->d_name);
}

static void free_names(struct dirent **names, int n)
{
    for (int i = 0; i < n; ++i) free(names[i]);         /* scandir's own */
    free(names);
}

static void tell(f2b_state_notify *notify, void *user)
{
    if (notify) notify(user, f2b_last_error());
}

/* Renamed first, so that a removal that is cut short leaves a leftover, never a damaged
 * checkpoint. */
static f2b_status remove_checkpoint(const char *folder, const char *name)
{
    char *path = f2b_path_join(folder, name);
    char *dying = path ? f2b_sprintf(F2B_TAG_FILES, "%s" F2B_PARTIAL_SUFFIX, path) : NULL;
    f2b_status status = dying ? f2b_folder_remove(dying) : f2b_last_status();
    if (status == F2B_OK && rename(path, dying) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot remove %s", path);
    if (status == F2B_OK) status = f2b_folder_remove(dying);
    f2b_free(dying);
    f2b_free(path);
    return status;
}

/* After the new checkpoint is safe: what fails here is told, and tried again at the next save. */
static void clean(const char *folder, int64_t step, int keep, f2b_state_notify *notify, void *user)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, is_checkpoint_entry, newest_first);
    int kept = 0;
    for (int i = 0; i < n; ++i) {
        const bool later = step_of(names[i]->d_name) > step;
        if (!later && (keep <= 0 || kept < keep)) ++kept;
        else if (remove_checkpoint(folder, names[i]->d_name) != F2B_OK) tell(notify, user);
    }
    free_names(names, n);
    names = NULL;
    n = scandir(folder, &names, is_leftover_entry, alphasort);
    for (int i = 0; i < n; ++i) {
        char *path = f2b_path_join(folder, names[i]->d_name);
        if (!path || f2b_folder_remove(path) != F2B_OK) tell(notify, user);
        f2b_free(path);
    }
    free_names(names, n);
}

static f2b_status fill_folder(const char *folder, const f2b_state *state)
{
    char *path = f2b_path_join(folder, F2BI_STATE_FILE);
    if (!path) return f2b_last_status();
    f2b_file_checksum sum;
    f2b_status status = f2bi_state_write_file(path, state, &sum);
    if (status == F2B_OK) status = f2bi_manifest_write(folder, state->step, &sum);
    f2b_free(path);
    return status;
}

/* A failed write leaves nothing, and the room that it took is free again. */
static f2b_status write_checkpoint(const char *path, const f2b_state *state)
{
    char *partial = f2b_folder_begin(path);
    if (!partial) return f2b_last_status();
    f2b_status status = fill_folder(partial, state);
    if (status == F2B_OK) status = f2b_folder_commit(path);
    if (status != F2B_OK) {
        f2b_error error;
        f2b_error_take(&error);
        (void)!f2b_folder_remove(partial);
        status = f2b_fail(error.code, "%s", error.text);
    }
    f2b_free(partial);
    return status;
}

static f2b_status point_latest(const char *run_dir, const char *name)
{
    char *path = f2b_path_join(run_dir, "latest");
    char *text = path ? f2b_sprintf(F2B_TAG_FILES, CHECKPOINTS "/%s\n", name) : NULL;
    const f2b_status status = text ? f2b_write_file(path, text, strlen(text)) : f2b_last_status();
    f2b_free(text);
    f2b_free(path);
    return status;
}

f2b_status f2b_state_settle(const char *run_dir, int64_t step, int keep, f2b_state_notify *notify,
                            void *user)
{
    char name[32];
    snprintf(name, sizeof name, PREFIX "%08" PRId64, step);
    char *folder = f2b_path_join(run_dir, CHECKPOINTS);
    f2b_status status = folder ? point_latest(run_dir, name) : f2b_last_status();
    if (status == F2B_OK) clean(folder, step, keep, notify, user);
    f2b_free(folder);
    return status;
}

f2b_status f2b_state_save(const char *run_dir, const f2b_state *state, int keep,
                          f2b_state_notify *notify, void *user)
{
    if (state->step < 0)
        return f2b_fail(F2B_ERR_INVALID, "step %" PRId64 " cannot be saved", state->step);
    char *folder = f2b_path_join(run_dir, CHECKPOINTS);
    char *path = folder ? f2b_sprintf(F2B_TAG_FILES, "%s/" PREFIX "%08" PRId64, folder, state->step)
                        : NULL;
    f2b_status status = path ? f2b_make_folders(folder) : f2b_last_status();
    if (status == F2B_OK) status = write_checkpoint(path, state);
    if (status == F2B_OK) status = f2b_state_settle(run_dir, state->step, keep, notify, user);
    f2b_free(path);
    f2b_free(folder);
    return status;
}

static f2b_state_file *open_checkpoint(const char *folder)
{
    int64_t step;
    return f2bi_manifest_check(folder, &step) == F2B_OK ? f2bi_state_open_file(folder, step) : NULL;
}

static f2b_state_file *open_newest(const char *run_dir, const char *folder,
                                   f2b_state_notify *notify, void *user)
{
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, is_checkpoint_entry, newest_first);
    f2b_state_file *file = NULL;
    for (int i = 0; i < n && !file; ++i) {
        char *path = f2b_path_join(folder, names[i]->d_name);
        file = path ? open_checkpoint(path) : NULL;
        if (!file) tell(notify, user);
        f2b_free(path);
    }
    free_names(names, n);
    if (file) return file;
    if (n <= 0) (void)f2b_fail(F2B_ERR_NOT_FOUND, "%s has no checkpoint", run_dir);
    else
        (void)f2b_fail(F2B_ERR_FORMAT,
                       "none of the %d checkpoints in %s is sound; restore one from a "
                       "copy, or start anew in another run folder",
                       n, folder);
    return NULL;
}

static bool exists(const char *folder, const char *name, bool is_folder)
{
    char *path = f2b_path_join(folder, name);
    struct stat info;
    const bool there = path && stat(path, &info) == 0 && (!is_folder || S_ISDIR(info.st_mode));
    f2b_free(path);
    return there;
}

f2b_state_file *f2b_state_open(const char *path, f2b_state_notify *notify, void *user)
{
    if (exists(path, F2BI_MANIFEST_FILE, false) || exists(path, F2BI_STATE_FILE, false))
        return open_checkpoint(path);
    if (!exists(path, CHECKPOINTS, true)) {
        (void)f2b_fail(F2B_ERR_NOT_FOUND, "%s holds no checkpoint (neither %s nor a folder %s)",
                       path, F2BI_MANIFEST_FILE, CHECKPOINTS);
        return NULL;
    }
    char *folder = f2b_path_join(path, CHECKPOINTS);
    f2b_state_file *file = folder ? open_newest(path, folder, notify, user) : NULL;
    f2b_free(folder);
    return file;
}
