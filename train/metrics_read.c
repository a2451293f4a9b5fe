/* Reading metrics.jsonl. See metrics.h for the contract. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "train/metrics_internal.h"

enum { LONGEST_LINE = 1 << 28 }; /* sample ids of a batch of a million */

f2b_status f2bi_metrics_scan_open(f2bi_metrics_scan *scan, const char *path)
{
    *scan = (f2bi_metrics_scan){ .path = path };
    scan->file = fopen(path, "rb");
    if (scan->file == NULL)
        return f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO, "cannot open %s",
                              path);
    return F2B_OK;
}

void f2bi_metrics_scan_close(f2bi_metrics_scan *scan)
{
    if (scan->file != NULL) fclose(scan->file);
    free(scan->line);
    *scan = (f2bi_metrics_scan){ 0 };
}

static bool read_count(const json_t *object, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) return false;
    *out = json_integer_value(value);
    return *out >= 0;
}

static bool read_real(const json_t *object, const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value) && !json_is_null(value)) return false;
    *out = json_is_null(value) ? (double)NAN : json_number_value(value);
    return true;
}

/* NULL, or the key whose value is missing or wrong. */
static const char *read_row(const json_t *object, f2b_metrics_row *row)
{
    *row = (f2b_metrics_row){ 0 };
    if (!read_count(object, "step", &row->step)) return "step";
    const char *kind = json_string_value(json_object_get(object, "kind"));
    int k = 0;
    while (k < F2B_BATCH_KINDS && (kind == NULL || strcmp(kind, f2bi_batch_kind_names[k]) != 0))
        k++;
    if (k == F2B_BATCH_KINDS) return "kind";
    row->kind = (f2b_batch_kind)k;
#define F2B_METRICS_COUNT(name) read_count(object, #name, &row->name)
#define F2B_METRICS_REAL(name)  read_real(object, #name, &row->name)
#define F2B_X(name, kind, text)                                                                    \
    if (!F2B_METRICS_##kind(name)) return #name;
    F2B_METRICS_LIST(F2B_X)
#undef F2B_X
#undef F2B_METRICS_COUNT
#undef F2B_METRICS_REAL
    return NULL;
}

f2b_status f2bi_metrics_scan_next(f2bi_metrics_scan *scan, f2b_metrics_row *row, bool *more)
{
    *more = false;
    errno = 0;
    const ssize_t length = getline(&scan->line, &scan->capacity, scan->file);
    if (length < 0 && (ferror(scan->file) || errno == ENOMEM))
        return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", scan->path);
    if (length <= 0 || scan->line[length - 1] != '\n') return F2B_OK;
    scan->number++;
    const long long number = (long long)scan->number;
    if (length > LONGEST_LINE)
        return f2b_fail(F2B_ERR_FORMAT, "%s:%lld: the line is too long for metrics", scan->path,
                        number);
    json_error_t error;
    json_t *object = json_loadb(scan->line, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return f2b_fail(F2B_ERR_FORMAT, "%s:%lld: not a JSON object: %s", scan->path, number,
                        error.text);
    const char *wrong = read_row(object, row);
    json_decref(object);
    if (wrong != NULL)
        return f2b_fail(F2B_ERR_FORMAT, "%s:%lld: \"%s\" is missing or of the wrong kind",
                        scan->path, number, wrong);
    if (row->step <= scan->step)
        return f2b_fail(F2B_ERR_FORMAT, "%s:%lld: step %lld follows step %lld", scan->path, number,
                        (long long)row->step, (long long)scan->step);
    scan->step = row->step;
    scan->offset += length;
    *more = true;
    return F2B_OK;
}

f2b_status f2b_metrics_read(const char *path, f2b_metrics_row **rows, int64_t *n)
{
    f2bi_metrics_scan scan;
    F2B_TRY(f2bi_metrics_scan_open(&scan, path));
    f2b_metrics_row *all = NULL, row;
    int64_t count = 0, capacity = 0;
    bool more = true;
    f2b_status status = F2B_OK;
    while (status == F2B_OK) {
        status = f2bi_metrics_scan_next(&scan, &row, &more);
        if (status != F2B_OK || !more) break;
        if (count == capacity) {
            capacity = capacity == 0 ? 256 : 2 * capacity;
            f2b_metrics_row *grown =
                f2b_realloc(all, (size_t)capacity * sizeof *all, F2B_TAG_FILES);
            if (grown == NULL) {
                status = f2b_last_status();
                break;
            }
            all = grown;
        }
        all[count++] = row;
    }
    f2bi_metrics_scan_close(&scan);
    if (status != F2B_OK) {
        f2b_free(all);
        return status;
    }
    *rows = all;
    *n = count;
    return F2B_OK;
}
