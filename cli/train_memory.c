/* What f2b-train says of memory: the plan before, and the fact after. */
#include <stdio.h>
#include <string.h>

#include "autograd/device/device.h"
#include "cli/train_report.h"

static f2b_short_text held(const f2b_memory_plan *p, int64_t bytes)
{
    return f2b_format_bytes(f2b_memory_held(p->kind, bytes));
}

void f2b_train_print_memory(const f2b_session *s)
{
    const f2b_memory_plan *p = &s->memory;
    printf("\n# memory%s%s (peaks; %lld steps rehearsed, micro-batches of up to %lld rows)\n",
           p->kind == F2B_CPU ? "" : " of ", p->kind == F2B_CPU ? "" : f2b_device_name(s->model->device),
           (long long)p->steps, (long long)p->rows);
    for (int tag = 0; tag <= F2B_TAG_COUNT; tag++)
        if (p->peak[tag] > 0)
            printf("#   %-22s %10s  %lld\n", f2b_tag_name((f2b_tag)tag),
                   f2b_format_bytes(p->peak[tag]).text, (long long)p->peak[tag]);
    if (p->kind == F2B_CPU)
        printf("#   %-22s %10s  %lld (weights read from their files; the system may drop and reread "
               "them)\n", "mapped files", f2b_format_bytes(p->mapped).text, (long long)p->mapped);
    else
        printf("#   %-22s %10s  %lld\n", "beside it on the host", f2b_format_bytes(p->host).text,
               (long long)p->host);
    if (p->packed > 0)
        printf("#   %-22s %10s  %lld (of the weights above: laid out once for products)\n", "packed weights",
               f2b_format_bytes(p->packed).text, (long long)p->packed);
    printf("#   held by the process: up to %s", held(p, p->peak[F2B_TAG_COUNT]).text);
    if (p->most > p->peak[F2B_TAG_COUNT])
        printf("; %s with the largest micro-batch that may come (%lld rows)",
               held(p, p->most).text, (long long)p->most_rows);
    printf("\n#   activation checkpointing: %lld of %lld layers", (long long)p->checkpoint_layers,
           (long long)p->layers);
    printf("; may take: %s (%s)", f2b_format_bytes(p->available).text,
           p->limited ? "train.memory_limit" : "what there is");
    printf("\n#   a checkpoint: %s, %s\n", f2b_format_bytes(p->state).text,
           !p->saves ? "written at the end of the run"
           : p->saves_beside ? "written from a copy while training goes on"
           : "written between two steps: there is no room for a copy beside them");
    char warning[512];
    if (f2b_train_memory_warning(s, warning, sizeof warning)) printf("#   %s\n", warning);
}

bool f2b_train_memory_warning(const f2b_session *s, char *text, size_t size)
{
    const f2b_memory_plan *p = &s->memory;
    if (f2b_memory_held(p->kind, p->most) > p->available) {
        snprintf(text, size, "warning: the first steps fit in the %s that may be taken, but with long "
                 "samples a micro-batch of %lld rows may come, and need %s; lower "
                 "train.micro_batch_tokens or data.max_length",
                 f2b_format_bytes(p->available).text, (long long)p->most_rows,
                 held(p, p->most).text);
        return true;
    }
    if (f2b_memory_held(p->kind, p->peak[F2B_TAG_COUNT]) + p->mapped > p->available) {
        snprintf(text, size, "warning: %s of mapped weights do not fit beside the %s that the run "
                 "holds: they will be read from disk again and again; model.weights: int8 or nf4 is "
                 "faster here", f2b_format_bytes(p->mapped).text,
                 held(p, p->peak[F2B_TAG_COUNT]).text);
        return true;
    }
    return false;
}

/* Of /proc/self/status, in bytes; 0 where it does not say. */
static int64_t status_bytes(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = 0;
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0) (void)sscanf(line + strlen(key), ": %lld", &kib);
    if (f != NULL) fclose(f);
    return (int64_t)kib * 1024;
}

void f2b_train_memory_fact(f2b_progress *progress)
{
    for (int kind = 0; kind < F2B_DEVICE_KINDS; kind++)
        for (int tag = 0; tag <= F2B_TAG_COUNT; tag++) {
            const int64_t peak = f2b_bytes_peak_of((f2b_device_kind)kind, (f2b_tag)tag);
            if (peak >= 1 << 20)
                f2b_progress_note(progress, "peak %-20s %s%s", f2b_tag_name((f2b_tag)tag),
                                  f2b_format_bytes(peak).text, kind == F2B_CPU ? "" : " of the device");
        }
    f2b_progress_note(progress, "peak resident             %s (now %s of its own and %s of files)",
                      f2b_format_bytes(status_bytes("VmHWM")).text,
                      f2b_format_bytes(status_bytes("RssAnon")).text,
                      f2b_format_bytes(status_bytes("RssFile")).text);
}
