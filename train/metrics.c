/* Writing metrics.jsonl. See metrics.h for the contract; reading is in metrics_read.c. */
#include "train/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "train/metrics_internal.h"

const char *const f2bi_batch_kind_names[F2B_BATCH_KINDS] = {
    [F2B_BATCH_CONVERSATION] = "conversation",
    [F2B_BATCH_CAPTION] = "caption",
    [F2B_BATCH_BOTH] = "both",
};

struct f2b_metrics {
    FILE *file;
    char *path;
    int64_t last;
};

/* Cut the file where the first step after metrics->last begins, or a torn line. */
static f2b_status keep_until(f2b_metrics *metrics)
{
    f2bi_metrics_scan scan;
    F2B_TRY(f2bi_metrics_scan_open(&scan, metrics->path));
    f2b_metrics_row row;
    bool more = true;
    f2b_status status = F2B_OK;
    int64_t keep = 0, last = 0;
    while (status == F2B_OK && more) {
        keep = scan.offset;
        status = f2bi_metrics_scan_next(&scan, &row, &more);
        if (status == F2B_OK && more && row.step > metrics->last) break;
        if (more) last = row.step;
    }
    f2bi_metrics_scan_close(&scan);
    F2B_TRY(status);
    if (truncate(metrics->path, keep) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot cut %s", metrics->path);
    metrics->last = last;
    return F2B_OK;
}

static f2b_status open_log(f2b_metrics *metrics)
{
    const int fd = open(metrics->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", metrics->path);
    metrics->file = fdopen(fd, "a");
    if (metrics->file == NULL) {
        close(fd);
        return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", metrics->path);
    }
    return keep_until(metrics);
}

f2b_metrics *f2b_metrics_open(const char *path, int64_t step)
{
    f2b_metrics *metrics = f2b_calloc(1, sizeof *metrics, F2B_TAG_FILES);
    if (metrics == NULL) return NULL;
    metrics->last = step;
    metrics->path = f2b_strdup(path, F2B_TAG_FILES);
    if (metrics->path != NULL && open_log(metrics) == F2B_OK) return metrics;
    f2b_metrics_close(metrics);
    return NULL;
}

static void write_real(FILE *file, double value)
{
    if (isfinite(value)) fprintf(file, "%.9g", value);
    else fputs("null", file);
}

static void write_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') fprintf(file, "\\%c", *text);
        else if ((unsigned char)*text < 0x20) fprintf(file, "\\u%04x", (unsigned char)*text);
        else fputc(*text, file);
    }
    fputc('"', file);
}

f2b_status f2b_metrics_write(f2b_metrics *metrics, const f2b_metrics_row *row)
{
    F2B_CHECK(row->step > metrics->last && row->kind < F2B_BATCH_KINDS);
    FILE *f = metrics->file;
    fprintf(f, "{\"step\": %lld, \"kind\": \"%s\"", (long long)row->step,
            f2bi_batch_kind_names[row->kind]);
#define F2B_METRICS_COUNT(value) fprintf(f, "%lld", (long long)(value));
#define F2B_METRICS_REAL(value)  write_real(f, value);
#define F2B_X(name, kind, text)                                                                    \
    fputs(", \"" #name "\": ", f);                                                                 \
    F2B_METRICS_##kind(row->name)
    F2B_METRICS_LIST(F2B_X)
#undef F2B_X
#undef F2B_METRICS_COUNT
#undef F2B_METRICS_REAL
    for (int64_t i = 0; i < row->n_sample_ids; i++) {
        fputs(i == 0 ? ", \"sample_ids\": [" : ", ", f);
        write_text(f, row->sample_ids[i]);
    }
    fputs(row->n_sample_ids > 0 ? "]}\n" : "}\n", f);
    metrics->last = row->step;
    if (fflush(f) != 0 || ferror(f))
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", metrics->path);
    return F2B_OK;
}

void f2b_metrics_close(f2b_metrics *metrics)
{
    if (metrics == NULL) return;
    if (metrics->file != NULL) fclose(metrics->file);
    f2b_free(metrics->path);
    f2b_free(metrics);
}
