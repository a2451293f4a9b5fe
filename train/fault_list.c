/* See fault_list.h. The listener runs under the fault log's lock, one call at a time. */
#include "train/fault_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"

struct f2b_fault_list {
    void (*note)(void *user, const char *text);
    void *user;
    FILE *file;
    bool checking;              /* entries are those of an earlier list */
};

f2b_fault_list *f2b_fault_list_new(void (*note)(void *user, const char *text), void *user)
{
    f2b_fault_list *list = f2b_calloc(1, sizeof *list, F2B_TAG_OTHER);
    if (list != NULL) list->note = note, list->user = user;
    return list;
}

void f2b_fault_list_free(f2b_fault_list *list)
{
    if (list == NULL) return;
    if (list->file != NULL) fclose(list->file);
    f2b_free(list);
}

static bool write_entry(FILE *file, const f2b_fault_entry *entry)
{
    fprintf(file, "%s\t%lld\t%s\t", entry->source, (long long)entry->record,
            f2b_fault_name(entry->fault));
    for (const char *c = entry->detail; *c; c++)
        fputc(*c == '\t' || *c == '\n' || *c == '\r' ? ' ' : *c, file);
    fputc('\n', file);
    return fflush(file) == 0 && !ferror(file);
}

void f2b_fault_list_listen(const f2b_fault_entry *entry, void *user)
{
    f2b_fault_list *list = user;
    char text[1024];
    const bool written = list->file == NULL || write_entry(list->file, entry);
    if (list->checking) return;
    const char *what = f2b_fault_text(entry->fault);
    const char *detail = strcmp(entry->detail, what) != 0 ? entry->detail : "";
    snprintf(text, sizeof text, "bad record %s:%lld: %s%s%s%s", entry->source,
             (long long)entry->record, what, *detail ? ": " : "", detail,
             written ? "" : " (and bad_records.tsv cannot be written)");
    list->note(list->user, text);
}

static int find_source(const f2b_dataset *dataset, const char *name)
{
    for (int s = 0; s < f2b_dataset_sources(dataset); s++)
        if (strcmp(f2b_source_name(f2b_dataset_source(dataset, s)), name) == 0) return s;
    return -1;
}

/* Lines that do not fit the data of today (a torn one, a source that is gone) are passed over. */
static f2b_status check_again(FILE *old, f2b_dataset *dataset)
{
    char *line = NULL;
    size_t room = 0;
    f2b_status status = F2B_OK;
    while (status == F2B_OK && getline(&line, &room, old) > 0) {
        char source[128];
        long long record;
        f2b_fault fault;
        if (sscanf(line, "%127[^\t]\t%lld\t", source, &record) != 2) continue;
        const int s = find_source(dataset, source);
        if (s < 0 || record < 0 || record >= f2b_source_count(f2b_dataset_source(dataset, s)))
            continue;
        status = f2b_dataset_check(dataset, s, record, &fault);
    }
    free(line);                                 /* getline's own */
    return status;
}

/* The new list takes the old one's place when it is complete. */
static f2b_status renew(f2b_fault_list *list, const char *path, const char *partial,
                        f2b_dataset *dataset)
{
    FILE *old = fopen(path, "r");
    if (old == NULL && errno != ENOENT) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
    list->checking = true;
    f2b_status status = old != NULL ? check_again(old, dataset) : F2B_OK;
    list->checking = false;
    if (old != NULL) fclose(old);
    F2B_TRY(status);
    if (fflush(list->file) != 0 || ferror(list->file) || rename(partial, path) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", path);
    return F2B_OK;
}

f2b_status f2b_fault_list_open(f2b_fault_list *list, const char *run_dir, f2b_dataset *dataset)
{
    char *path = f2b_path_join(run_dir, "bad_records.tsv");
    char *partial = path != NULL ? f2b_sprintf(F2B_TAG_FILES, "%s" F2B_PARTIAL_SUFFIX, path) : NULL;
    f2b_status status = partial != NULL ? F2B_OK : F2B_ERR_MEMORY;
    if (status == F2B_OK) {
        list->file = fopen(partial, "we");
        status = list->file != NULL ? renew(list, path, partial, dataset)
                                    : f2b_fail_errno(F2B_ERR_IO, "cannot write %s", partial);
    }
    f2b_free(partial);
    f2b_free(path);
    return status;
}
