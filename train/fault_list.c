/* See fault_list.h. The listener runs under the fault log's lock, one call at a time. */
#include "train/fault_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"

struct f2b_fault_list {
    void (*note)(void *user, const char *text);
    void *user;
    FILE *file;
    bool replaying;             /* entries come from the file */
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

void f2b_fault_list_listen(const f2b_fault_entry *entry, void *user)
{
    f2b_fault_list *list = user;
    if (list->replaying) return;
    if (list->file != NULL) {
        fprintf(list->file, "%s\t%lld\t%s\t", entry->source, (long long)entry->record,
                f2b_fault_name(entry->fault));
        for (const char *c = entry->detail; *c; c++)
            fputc(*c == '\t' || *c == '\n' || *c == '\r' ? ' ' : *c, list->file);
        fputc('\n', list->file);
        fflush(list->file);
    }
    char text[1024];
    snprintf(text, sizeof text, "bad record %s:%lld: %s%s%s", entry->source,
             (long long)entry->record, f2b_fault_text(entry->fault), *entry->detail ? ": " : "",
             entry->detail);
    list->note(list->user, text);
}

static int find_source(const f2b_dataset *dataset, const char *name)
{
    for (int s = 0; s < f2b_dataset_sources(dataset); s++)
        if (strcmp(f2b_source_name(f2b_dataset_source(dataset, s)), name) == 0) return s;
    return -1;
}

static f2b_fault find_fault(const char *name)
{
    for (int f = F2B_FAULT_NONE + 1; f < F2B_FAULT_KINDS; f++)
        if (strcmp(f2b_fault_name((f2b_fault)f), name) == 0) return (f2b_fault)f;
    return F2B_FAULT_NONE;
}

/* Lines that do not fit the data of today (a torn one, a source that is gone) say nothing about it. */
static f2b_status replay(f2b_fault_list *list, const char *path, f2b_dataset *dataset)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) return F2B_OK;
    char *line = NULL;
    size_t room = 0;
    f2b_status status = F2B_OK;
    list->replaying = true;
    while (status == F2B_OK && getline(&line, &room, f) > 0) {
        char source[128], kind[64];
        long long record;
        if (sscanf(line, "%127[^\t]\t%lld\t%63[^\t]\t", source, &record, kind) != 3) continue;
        const int s = find_source(dataset, source);
        const f2b_fault fault = find_fault(kind);
        if (s < 0 || fault == F2B_FAULT_NONE || record < 0 ||
            record >= f2b_source_count(f2b_dataset_source(dataset, s)))
            continue;
        status = f2b_fault_log_add(f2b_dataset_faults(dataset), s, record, fault, "");
    }
    list->replaying = false;
    free(line);
    fclose(f);
    return status;
}

f2b_status f2b_fault_list_open(f2b_fault_list *list, const char *run_dir, f2b_dataset *dataset,
                                bool known)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/bad_records.tsv", run_dir);
    if (known) F2B_TRY(replay(list, path, dataset));
    list->file = fopen(path, known ? "a" : "w");
    return list->file != NULL ? F2B_OK : f2b_fail_errno(F2B_ERR_IO, "cannot write %s", path);
}
