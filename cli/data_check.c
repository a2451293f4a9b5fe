/* f2b-data check: every record that a configuration trains on, as training would meet it. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "checkpoints/model_folder.h"
#include "cli/data_commands.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "train/dataset_options.h"

/* A bad record, kept for the list; threads find them in any order. */
typedef struct finding {
    char *source, *detail;
    const char *file;           /* the source's; known when the list is written */
    int64_t record;
    f2b_fault fault;
} finding;

typedef struct findings {
    finding *at;
    int64_t n, capacity;
    bool full;                  /* no memory for more */
} findings;

static void keep(const f2b_fault_entry *entry, void *user)
{
    findings *f = user;
    if (f->n == f->capacity && !f->full) {
        const int64_t capacity = f->capacity * 2 + 64;
        finding *grown = f2b_realloc(f->at, (size_t)capacity * sizeof *grown, F2B_TAG_OTHER);
        f->full = grown == NULL;
        if (grown != NULL) f->at = grown, f->capacity = capacity;
    }
    if (f->full) return;
    f->at[f->n++] = (finding){ .source = f2b_strdup(entry->source, F2B_TAG_OTHER),
                               .detail = f2b_strdup(entry->detail, F2B_TAG_OTHER),
                               .record = entry->record, .fault = entry->fault };
}

static int by_place(const void *a, const void *b)
{
    const finding *x = a, *y = b;
    const int order = strcmp(x->source, y->source);
    return order != 0 ? order : (x->record > y->record) - (x->record < y->record);
}

static void find_files(findings *f, const f2b_dataset *d)
{
    for (int64_t i = 0; i < f->n; i++)
        for (int k = 0; k < f2b_dataset_sources(d); k++) {
            const f2b_source *s = f2b_dataset_source(d, k);
            if (strcmp(f2b_source_name(s), f->at[i].source) == 0)
                f->at[i].file = f2b_source_file(s, f->at[i].record);
        }
}

/* One JSON object a line: source, file, record, fault, detail. */
static f2b_status write_list(findings *f, const f2b_dataset *d, const char *path)
{
    if (f->full) return f2b_fail(F2B_ERR_MEMORY, "too many bad records to list");
    find_files(f, d);
    if (f->n > 1) qsort(f->at, (size_t)f->n, sizeof *f->at, by_place);
    FILE *file = fopen(path, "we");
    if (file == NULL) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be written", path);
    bool good = true;
    for (int64_t i = 0; i < f->n && good; i++) {
        const finding *x = &f->at[i];
        json_t *line = json_pack("{s:s, s:s, s:I, s:s, s:s}", "source", x->source, "file", x->file,
                                 "record", (json_int_t)x->record, "fault", f2b_fault_name(x->fault),
                                 "detail", x->detail);
        good = line != NULL && json_dumpf(line, file, JSON_COMPACT) == 0 &&
               fputc('\n', file) != EOF;
        json_decref(line);
    }
    if (fclose(file) != 0 || !good)
        return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be written", path);
    return F2B_OK;
}

static void free_findings(findings *f)
{
    for (int64_t i = 0; i < f->n; i++) {
        f2b_free(f->at[i].source);
        f2b_free(f->at[i].detail);
    }
    f2b_free(f->at);
}

static f2b_status check_source(f2b_dataset *d, int source, f2b_progress *progress)
{
    const f2b_source *s = f2b_dataset_source(d, source);
    const int64_t n = f2b_source_count(s);
    f2b_error first = { .code = F2B_OK };
    int64_t done = 0;
#pragma omp parallel for schedule(dynamic, 32)
    for (int64_t i = 0; i < n; i++) {
        f2b_fault fault;
        f2b_status stopped;
#pragma omp atomic read
        stopped = first.code;
        if (stopped != F2B_OK) continue;
        if (f2b_dataset_check(d, source, i, &fault) != F2B_OK) {
#pragma omp critical
            if (first.code == F2B_OK) f2b_error_take(&first);
        }
        int64_t now;
#pragma omp atomic capture
        now = ++done;
        if (omp_get_thread_num() == 0)
            f2b_progress_show(progress, false, "%s: %lld of %lld records", f2b_source_name(s),
                              (long long)now, (long long)n);
    }
    f2b_progress_end(progress);
    return first.code == F2B_OK ? F2B_OK : f2b_fail(first.code, "%s", first.text);
}

/* The counts, and whether a source has more bad records than the configuration allows. */
static f2b_status judge(f2b_dataset *d, f2b_fault_policy allowed)
{
    f2b_fault_log *log = f2b_dataset_faults(d);
    f2b_text over = { 0 };
    f2b_status status = F2B_OK;
    for (int i = 0; i < f2b_dataset_sources(d); i++) {
        const f2b_source *s = f2b_dataset_source(d, i);
        const int64_t n = f2b_source_count(s), bad = f2b_fault_log_count(log, i, F2B_FAULT_NONE);
        printf("%-26s %-14s %10lld records %10lld good %8lld bad\n", f2b_source_name(s),
               f2b_source_format(s), (long long)n, (long long)(n - bad), (long long)bad);
        for (int k = F2B_FAULT_NONE + 1; k < F2B_FAULT_KINDS; k++) {
            const int64_t count = f2b_fault_log_count(log, i, (f2b_fault)k);
            if (count > 0)
                printf("    %-22s %8lld  %s\n", f2b_fault_name((f2b_fault)k), (long long)count,
                       f2b_fault_text((f2b_fault)k));
        }
        const bool stops = allowed.stop_at_first ? bad > 0
                                                 : (double)bad > allowed.max_fraction * (double)n;
        if (stops && status == F2B_OK) status = f2b_text_add(&over, over.n > 0 ? ", " : "");
        if (stops && status == F2B_OK) status = f2b_text_add(&over, f2b_source_name(s));
    }
    if (status == F2B_OK && over.n > 0 && allowed.stop_at_first)
        status =
            f2b_fail(F2B_ERR_DATA, "bad records in %s, and data.bad_records is `error`", over.text);
    else if (status == F2B_OK && over.n > 0)
        status =
            f2b_fail(F2B_ERR_DATA, "more bad records than data.max_bad_fraction %g allows in %s",
                     allowed.max_fraction, over.text);
    f2b_free(over.text);
    return status;
}

/* Batches by kind; a pool that no step draws from is said on stderr. */
static void print_shares(const f2b_dataset *d)
{
    static const char *const names[F2B_BATCH_KINDS] = { "conversation", "caption", "both" };
    const f2b_sampler *sampler = f2b_dataset_sampler(d);
    for (int k = 0; k < F2B_BATCH_KINDS; k++) {
        const int64_t n = f2b_dataset_pool(d, (f2b_batch_kind)k);
        const double share = f2b_sampler_share(sampler, (f2b_batch_kind)k);
        if (n > 0)
            printf("%-12s batches: %6.2f %% of the steps, from %lld samples\n", names[k],
                   100 * share, (long long)n);
        if (n > 0 && share == 0)
            fprintf(stderr, "f2b-data check: data.captions will not be used: conversations with a "
                            "caption alone give sampler.ratio; raise the ratio to use both\n");
    }
}

static f2b_status check(const char *path, const char *list, const f2b_arguments *arguments)
{
    f2b_config *config =
        f2b_config_load_data(path, (const char *const *)arguments->operands, arguments->n_operands);
    if (config == NULL) return f2b_last_status();
    findings found = { 0 };
    f2b_model_config model;
    f2b_dataset *d = NULL;
    f2b_status status =
        f2b_model_config_load(config->model.path, config->model.vision_path, &model);
    if (status == F2B_OK) {
        const f2b_fault_policy all = { .max_fraction = 1, .listener = keep, .user = &found };
        d = f2b_config_dataset(config, &model, all);
        if (d == NULL) status = f2b_last_status();
    }
    f2b_progress progress = f2b_progress_start(arguments->quiet);
    for (int i = 0; status == F2B_OK && i < f2b_dataset_sources(d); i++)
        status = check_source(d, i, &progress);
    if (status == F2B_OK) status = write_list(&found, d, list);
    if (status == F2B_OK) print_shares(d);
    if (status == F2B_OK) status = judge(d, f2b_config_fault_policy(config, NULL, NULL));
    free_findings(&found);
    f2b_dataset_free(d);
    f2b_config_free(config);
    return status;
}

int f2b_data_check(int argc, char **argv)
{
    const char *config = NULL, *list = "bad_records.jsonl";
    const f2b_option options[] = { { "config", "FILE", F2B_OPTION_TEXT, &config,
                                     "configuration (YAML)", .required = true },
                                   { "list", "FILE", F2B_OPTION_TEXT, &list,
                                     "where the bad records are listed, one JSON a line" },
                                   { 0 } };
    const f2b_command command = {
        .name = "f2b-data check",
        .summary = "Read every record that the configuration trains on, with its image, and count "
                   "what cannot be used. Ends with 3 where training would stop for it.",
        .options = options, .overrides = true,
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    return f2b_exit_with(command.name, check(config, list, &arguments));
}
