/* See json_record.h. */
#include "data/source/json_record.h"

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

/* The scanner divides at commas: what lies behind an element is space, at most one comma, space. */
static int64_t without_tail(const char *text, int64_t n)
{
    bool comma = false;
    while (n > 0) {
        const char c = text[n - 1];
        if (c == ',' && !comma) comma = true;
        else if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
        n--;
    }
    return n;
}

f2b_status f2bi_json_record(int fd, const char *path, uint64_t begin, uint64_t end,
                            f2b_record *record, json_t **root)
{
    *root = NULL;
    if (end < begin || end - begin > F2BI_MAX_RECORD_BYTES) {
        f2b_record_fail(record, F2B_FAULT_JSON, "the record is longer than %d MiB",
                        F2BI_MAX_RECORD_BYTES >> 20);
        return F2B_OK;
    }
    int64_t n;
    char *text = f2bi_read_range(fd, path, begin, end, &n);
    if (text == NULL) return f2b_last_status();
    json_error_t error;
    *root = json_loadb(text, (size_t)without_tail(text, n), JSON_REJECT_DUPLICATES, &error);
    f2b_free(text);
    if (*root == NULL) {
        f2b_record_fail(record, F2B_FAULT_JSON, "byte %llu: %s",
                        (unsigned long long)begin + (unsigned long long)error.position, error.text);
    } else if (!json_is_object(*root)) {
        f2b_record_fail(record, F2B_FAULT_JSON, "the record is not an object");
        json_decref(*root);
        *root = NULL;
    }
    return F2B_OK;
}
