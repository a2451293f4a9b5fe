/* The run folder and its lock. See run_folder.h for the contract. */
#include "train/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"

struct f2b_run_folder {
    char *path;
    int lock; /* file descriptor, -1: none */
};

/* What the holder wrote about itself, without what would spoil a message. */
static f2b_status busy(const f2b_run_folder *folder)
{
    char who[128];
    const ssize_t n = pread(folder->lock, who, sizeof who - 1, 0);
    who[n > 0 ? n : 0] = '\0';
    who[strcspn(who, "\n")] = '\0';
    return f2b_fail(F2B_ERR_BUSY,
                    "%s is in use by another process (%s); wait for it, or choose another run.dir",
                    folder->path, who[0] != '\0' ? who : "unknown");
}

static f2b_status lock_folder(f2b_run_folder *folder)
{
    F2B_TRY(f2b_make_folders(folder->path));
    char *name = f2b_path_join(folder->path, "lock");
    if (name == NULL) return f2b_last_status();
    folder->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    f2b_free(name);
    if (folder->lock < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s/lock", folder->path);
    if (flock(folder->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) return busy(folder);
        return f2b_fail_errno(F2B_ERR_IO, "cannot lock %s (does its file system have locks?)",
                              folder->path);
    }
    char host[64] = "", who[128];
    (void)gethostname(host, sizeof host - 1);
    const int n = snprintf(who, sizeof who, "pid %d on %s\n", (int)getpid(), host);
    if (ftruncate(folder->lock, 0) != 0 || pwrite(folder->lock, who, (size_t)n, 0) != n)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s/lock", folder->path);
    return F2B_OK;
}

f2b_run_folder *f2b_run_folder_open(const char *path)
{
    f2b_run_folder *folder = f2b_calloc(1, sizeof *folder, F2B_TAG_FILES);
    if (folder == NULL) return NULL;
    folder->lock = -1;
    folder->path = f2b_strdup(path, F2B_TAG_FILES);
    if (folder->path != NULL && lock_folder(folder) == F2B_OK) return folder;
    f2b_run_folder_close(folder);
    return NULL;
}

/* The file stays: to remove it would let two processes lock two files of one name. */
void f2b_run_folder_close(f2b_run_folder *folder)
{
    if (folder == NULL) return;
    if (folder->lock >= 0) close(folder->lock);
    f2b_free(folder->path);
    f2b_free(folder);
}

/* ---- Setting an earlier run aside ---- */

static int is_of_a_run(const struct dirent *entry)
{
    static const char *const names[] = { "config.yaml", "metrics.jsonl", "evaluations.jsonl",
                                         "bad_records.tsv", "latest", "checkpoints" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(entry->d_name, names[i]) == 0) return 1;
    return strncmp(entry->d_name, "events.out.tfevents.", 20) == 0;
}

static int checkpoints_last(const struct dirent **a, const struct dirent **b)
{
    const int x = strcmp((*a)->d_name, "checkpoints") == 0;
    const int y = strcmp((*b)->d_name, "checkpoints") == 0;
    return x != y ? x - y : strcmp((*a)->d_name, (*b)->d_name);
}

/* The first before-<N> that is not there yet, made. */
static f2b_status make_aside(const char *path, char **made)
{
    for (int i = 1; i < 10000; i++) {
        *made = f2b_sprintf(F2B_TAG_FILES, "%s/before-%d", path, i);
        if (*made == NULL) return F2B_ERR_MEMORY;
        if (mkdir(*made, 0777) == 0) return F2B_OK;
        const f2b_status status = f2b_fail_errno(F2B_ERR_IO, "cannot make %s", *made);
        const bool taken = errno == EEXIST;
        f2b_free(*made);
        *made = NULL;
        if (!taken) return status;
    }
    return f2b_fail(F2B_ERR_IO, "%s: too many earlier runs were moved aside; remove some", path);
}

static f2b_status move(const char *from_folder, const char *to_folder, const char *name)
{
    char *from = f2b_path_join(from_folder, name), *to = f2b_path_join(to_folder, name);
    f2b_status status = from != NULL && to != NULL ? F2B_OK : F2B_ERR_MEMORY;
    if (status == F2B_OK && rename(from, to) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot move %s to %s", from, to);
    f2b_free(from);
    f2b_free(to);
    return status;
}

f2b_status f2b_run_folder_set_aside(const f2b_run_folder *folder, char **moved)
{
    struct dirent **names = NULL;
    *moved = NULL;
    const int n = scandir(folder->path, &names, is_of_a_run, checkpoints_last);
    if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot list %s", folder->path);
    f2b_status status = n > 0 ? make_aside(folder->path, moved) : F2B_OK;
    for (int i = 0; i < n; i++) {
        if (status == F2B_OK) status = move(folder->path, *moved, names[i]->d_name);
        free(names[i]);                         /* scandir's own */
    }
    free(names);
    if (status == F2B_OK) return F2B_OK;
    f2b_free(*moved);
    *moved = NULL;
    return status;
}

const char *f2b_run_folder_path(const f2b_run_folder *folder) { return folder->path; }

f2b_status f2b_run_folder_write_config(const f2b_run_folder *folder, const f2b_config *config)
{
    if (config->train.steps < 1)
        return f2b_fail(F2B_ERR_INVALID, "%s/config.yaml needs train.steps", folder->path);
    char *name = f2b_path_join(folder->path, "config.yaml"), *text = f2b_config_write(config);
    const f2b_status status =
        name != NULL && text != NULL ? f2b_write_file(name, text, strlen(text)) : f2b_last_status();
    f2b_free(name);
    f2b_free(text);
    return status;
}
