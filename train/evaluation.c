/* See evaluation.h. */
#include "train/evaluation.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

struct f2b_evaluation {
    f2b_session *session;
    f2b_batch *batches[F2B_BATCH_KINDS];    /* NULL where a kind does not occur */
    int64_t last;               /* newest step in the log; -1: none */
    char path[4096];
};

/* How far beyond the end a kind is looked for: kinds that occur come far more often than this. */
enum { LOOK_AHEAD = 4096 };

static f2b_status load_batches(f2b_evaluation *e)
{
    const f2b_sampler *sampler = f2b_dataset_sampler(e->session->dataset);
    for (int64_t step = e->session->steps; step < e->session->steps + LOOK_AHEAD; step++) {
        const f2b_batch_kind kind = f2b_sampler_plan(sampler, step).kind;
        if (e->batches[kind] != NULL) continue;
        const f2b_loader_options one = { .first_step = step, .end_step = step + 1 };
        f2b_loader *loader = f2b_loader_new(e->session->dataset, &one);
        if (loader == NULL) return f2b_last_status();
        const f2b_status status = f2b_loader_next(loader, &e->batches[kind]);
        f2b_loader_free(loader);
        F2B_TRY(status);
    }
    return F2B_OK;
}

/* Lines of later steps belong to a continuation that was given up. */
static f2b_status cut_log(f2b_evaluation *e, int64_t step)
{
    e->last = -1;
    FILE *f = fopen(e->path, "r");
    if (f == NULL) return F2B_OK;
    char line[512];
    long keep = 0;
    long long at;
    while (fgets(line, sizeof line, f) != NULL && strchr(line, '\n') != NULL &&
           sscanf(line, "{\"step\": %lld", &at) == 1 && at <= step)
        keep = ftell(f), e->last = at;
    fclose(f);
    return truncate(e->path, keep) == 0 ? F2B_OK
           : f2b_fail_errno(F2B_ERR_IO, "cannot shorten %s", e->path);
}

f2b_evaluation *f2b_evaluation_open(f2b_session *session, int64_t step)
{
    f2b_evaluation *e = f2b_calloc(1, sizeof *e, F2B_TAG_OTHER);
    if (e == NULL) return NULL;
    e->session = session;
    snprintf(e->path, sizeof e->path, "%s/evaluations.jsonl", session->config->run.dir);
    if (load_batches(e) == F2B_OK && cut_log(e, step) == F2B_OK) return e;
    f2b_evaluation_close(e);
    return NULL;
}

void f2b_evaluation_close(f2b_evaluation *e)
{
    if (e == NULL) return;
    for (int k = 0; k < F2B_BATCH_KINDS; k++) f2b_batch_free(e->batches[k]);
    f2b_free(e);
}

/* Mean over the kinds that have the loss, weighted by what each is a mean of. */
typedef struct mean {
    double sum, weight;
} mean;

static void add(mean *m, double value, double weight)
{
    m->sum += value * weight;
    m->weight += weight;
}

static void print_number(char *out, size_t size, const mean *m)
{
    const double value = m->weight > 0 ? m->sum / m->weight : NAN;
    snprintf(out, size, isfinite(value) ? "%.9g" : "null", value);
}

static f2b_status append(const f2b_evaluation *e, int64_t step, const mean *ar, const mean *disc)
{
    char a[64], d[64];
    print_number(a, sizeof a, ar);
    print_number(d, sizeof d, disc);
    FILE *f = fopen(e->path, "a");
    const bool good =
        f != NULL && fprintf(f, "{\"step\": %lld, \"loss_ar\": %s, \"loss_disc\": %s}\n",
                             (long long)step, a, d) > 0;
    if (f == NULL || fclose(f) != 0 || !good)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", e->path);
    return F2B_OK;
}

f2b_status f2b_evaluation_run(f2b_evaluation *e, int64_t step, f2b_tensorboard *board,
                              bool (*stop)(void *user), void *user)
{
    if (e->last >= step) return F2B_OK;
    mean ar = { 0 }, disc = { 0 };
    for (int k = 0; k < F2B_BATCH_KINDS; k++) {
        if (e->batches[k] == NULL) continue;
        f2b_step_result r;
        const f2b_step_events events = { .stop = stop, .user = user };
        F2B_TRY(f2b_session_step(e->session, e->batches[k], false, &events, NULL, &r));
        if (k != F2B_BATCH_CAPTION) add(&ar, r.loss_ar, (double)r.labelled);
        if (k != F2B_BATCH_CONVERSATION) add(&disc, r.loss_disc, (double)e->batches[k]->n);
    }
    f2b_scalar scalars[2];
    int64_t n = 0;
    if (ar.weight > 0) scalars[n++] = (f2b_scalar){ "eval/loss_ar", (float)(ar.sum / ar.weight) };
    if (disc.weight > 0)
        scalars[n++] = (f2b_scalar){ "eval/loss_disc", (float)(disc.sum / disc.weight) };
    F2B_TRY(append(e, step, &ar, &disc));
    e->last = step;
    return f2b_tensorboard_write(board, step, scalars, n);
}
