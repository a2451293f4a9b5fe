/*
 * The log of bad records: counts by source and kind, and which records were seen, under one lock.
 * See fault.h.
 */
#include "data/source/fault.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/buffers.h"

static const struct { const char *name, *text; } faults[] = {
#define F2B_X(fault, name, text) { name, text },
    F2B_FAULT_LIST(F2B_X)
#undef F2B_X
};

const char *f2b_fault_name(f2b_fault fault)
{
    return fault < F2B_FAULT_PROMPT
               ? faults[fault].name
               : f2b_prompt_fault_name((f2b_prompt_fault)(fault - F2B_FAULT_PROMPT));
}

const char *f2b_fault_text(f2b_fault fault)
{
    return fault < F2B_FAULT_PROMPT
               ? faults[fault].text
               : f2b_prompt_fault_text((f2b_prompt_fault)(fault - F2B_FAULT_PROMPT));
}

typedef struct log_source {
    char *name;
    int64_t records, bad;
    int64_t counts[F2B_FAULT_KINDS];
    uint8_t *seen;              /* a bit a record */
} log_source;

struct f2b_fault_log {
    pthread_mutex_t lock;
    f2b_fault_policy policy;
    log_source *sources;
    int n;
};

f2b_fault_log *f2b_fault_log_new(f2b_fault_policy policy)
{
    f2b_fault_log *log = f2b_calloc(1, sizeof *log, F2B_TAG_DATA);
    if (log == NULL) return NULL;
    log->policy = policy;
    pthread_mutex_init(&log->lock, NULL);
    return log;
}

void f2b_fault_log_free(f2b_fault_log *log)
{
    if (log == NULL) return;
    for (int i = 0; i < log->n; i++) {
        f2b_free(log->sources[i].name);
        f2b_free(log->sources[i].seen);
    }
    f2b_free(log->sources);
    pthread_mutex_destroy(&log->lock);
    f2b_free(log);
}

int f2b_fault_log_source(f2b_fault_log *log, const char *name, int64_t records)
{
    log_source *grown =
        f2b_realloc(log->sources, ((size_t)log->n + 1) * sizeof *grown, F2B_TAG_DATA);
    if (grown == NULL) return -1;
    log->sources = grown;
    log_source *s = &grown[log->n];
    *s = (log_source){ .name = f2b_strdup(name, F2B_TAG_DATA), .records = records,
                       .seen = f2b_calloc((size_t)records / 8 + 1, 1, F2B_TAG_DATA) };
    log->n++;
    return s->name == NULL || s->seen == NULL ? -1 : log->n - 1;
}

/* "missing_image 12, empty_answer 1" */
static f2b_status counts_text(const log_source *s, f2b_text *out)
{
    for (int k = 0; k < F2B_FAULT_KINDS; k++) {
        if (s->counts[k] == 0) continue;
        char part[96];
        snprintf(part, sizeof part, "%s%s %lld", out->n > 0 ? ", " : "",
                 f2b_fault_name((f2b_fault)k), (long long)s->counts[k]);
        F2B_TRY(f2b_text_add(out, part));
    }
    return F2B_OK;
}

static f2b_status judge(const f2b_fault_log *log, const log_source *s, int64_t record,
                        f2b_fault fault, const char *detail)
{
    if (log->policy.stop_at_first)
        return f2b_fail(F2B_ERR_DATA,
                        "%s:%lld: %s: %s (data.bad_records is `error`; `skip` goes on "
                        "without such records)",
                        s->name, (long long)record, f2b_fault_name(fault),
                        *detail != '\0' ? detail : f2b_fault_text(fault));
    if ((double)s->bad <= log->policy.max_fraction * (double)s->records) return F2B_OK;
    f2b_text counts = { 0 };
    f2b_status status = counts_text(s, &counts);
    if (status == F2B_OK)
        status = f2b_fail(F2B_ERR_DATA, "%s: %lld of %lld records are bad (%s), more than "
                          "data.max_bad_fraction %g allows; the last is record %lld: %s; "
                          "`f2b-data check` lists all", s->name, (long long)s->bad,
                          (long long)s->records, counts.text, log->policy.max_fraction,
                          (long long)record, *detail != '\0' ? detail : f2b_fault_text(fault));
    f2b_free(counts.text);
    return status;
}

f2b_status f2b_fault_log_add(f2b_fault_log *log, int source, int64_t record, f2b_fault fault,
                             const char *detail)
{
    F2B_CHECK(source >= 0 && source < log->n && fault > F2B_FAULT_NONE && fault < F2B_FAULT_KINDS);
    log_source *s = &log->sources[source];
    F2B_CHECK(record >= 0 && record < s->records);
    if (detail == NULL) detail = "";
    f2b_status status = F2B_OK;
    pthread_mutex_lock(&log->lock);
    const uint8_t bit = (uint8_t)(1u << (record % 8));
    if ((s->seen[record / 8] & bit) == 0) {
        s->seen[record / 8] |= bit;
        s->bad++;
        s->counts[fault]++;
        const f2b_fault_entry entry = { s->name, record, fault, detail };
        if (log->policy.listener != NULL) log->policy.listener(&entry, log->policy.user);
        status = judge(log, s, record, fault, detail);
    }
    pthread_mutex_unlock(&log->lock);
    return status;
}

bool f2b_fault_log_knows(f2b_fault_log *log, int source, int64_t record)
{
    F2B_CHECK(source >= 0 && source < log->n && record >= 0 &&
              record < log->sources[source].records);
    pthread_mutex_lock(&log->lock);
    const bool known = (log->sources[source].seen[record / 8] >> (record % 8) & 1) != 0;
    pthread_mutex_unlock(&log->lock);
    return known;
}

int64_t f2b_fault_log_count(f2b_fault_log *log, int source, f2b_fault fault)
{
    int64_t sum = 0;
    pthread_mutex_lock(&log->lock);
    for (int i = 0; i < log->n; i++) {
        if (source >= 0 && source != i) continue;
        sum += fault == F2B_FAULT_NONE ? log->sources[i].bad : log->sources[i].counts[fault];
    }
    pthread_mutex_unlock(&log->lock);
    return sum;
}
