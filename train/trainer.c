/* The loop of a run. See trainer.h. */
#include "train/trainer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "autograd/device/cpu/products.h"
#include "nn/packed_weights.h"
#include "train/evaluation.h"
#include "train/run_folder.h"
#include "train/saver.h"
#include "train/tensorboard.h"

enum { MOST_SKIPPED_IN_A_ROW = 10 };

typedef struct run {
    f2b_session *session;
    const f2b_trainer_events *events;
    f2b_run_folder *folder;
    f2b_optimizer *optimizer;
    f2b_snapshot *snapshot;
    f2b_saver *saver;
    f2b_readings *readings;     /* of a step: its losses and the norm */
    f2b_loader *loader;
    f2b_metrics *metrics;
    f2b_tensorboard *board;
    f2b_evaluation *evaluation;
    const char *base;           /* fingerprint */
    f2b_run_position at;
    int64_t saved;              /* step of the newest checkpoint, which may still be written; -1: none */
    bool save_failed;
} run;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void note(const run *r, const char *format, ...) F2B_PRINTF(2, 3);
static void note(const run *r, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->events->note(r->events->user, text);
}

/* ---- Starting ---- */

/* An earlier run's files are moved aside, never deleted and never mixed with this one's. */
static f2b_status set_aside(const run *r)
{
    char *moved;
    F2B_TRY(f2b_run_folder_set_aside(r->folder, &moved));
    if (moved != NULL)
        note(r, "moved the earlier run in %s to %s", r->session->config->run.dir, moved);
    f2b_free(moved);
    return F2B_OK;
}

/* Whether a checkpoint (RUN/checkpoints/step-...) is one of this run's own folder. */
static bool is_own(const run *r, const char *checkpoint)
{
    char *up = f2b_sprintf(F2B_TAG_OTHER, "%s/../..", checkpoint);
    char *theirs = up != NULL ? realpath(up, NULL) : NULL;
    char *ours = realpath(r->session->config->run.dir, NULL);
    const bool own = theirs != NULL && ours != NULL && strcmp(theirs, ours) == 0;
    free(theirs);                               /* realpath's own */
    free(ours);
    f2b_free(up);
    return own;
}

static f2b_status resume(run *r, const char *path)
{
    f2b_state_file *file = f2b_state_open(path, r->events->note, r->events->user);
    if (file == NULL) return f2b_last_status();
    f2b_status status = f2b_checkpoint_resume(file, r->session->config, r->base,
                                              &r->session->model->parameters, r->optimizer, &r->at);
    if (status == F2B_OK) note(r, "resumed from %s", f2b_state_path(file));
    const bool own = status == F2B_OK && is_own(r, f2b_state_path(file));
    const char *other = f2b_checkpoint_other_products(file, r->session->config,
                                                      &r->session->model->parameters);
    if (status == F2B_OK && other != NULL)
        note(r, "warning: so far the run computed products of bf16 by %s, from here on by %s: the "
                "last bits may differ from a run that was never stopped (F2B_CPU_PRODUCTS=%s goes on "
                "as before, where the processor has it)", other,
             f2b_products_name(f2b_cpu_products()), other);
    f2b_state_close(file);
    F2B_TRY(status);
    if (!own) return set_aside(r);
    r->saved = r->at.step;
    if (r->at.step < r->session->steps) return F2B_OK;
    /* The run's last save may have been cut short, and no other one comes. */
    return f2b_state_settle(r->session->config->run.dir, r->at.step,
                            (int)r->session->config->run.keep, r->events->note, r->events->user);
}

static f2b_status find_start(run *r, f2b_resume mode, const char *path)
{
    r->saved = -1;
    if (mode == F2B_RESUME_PATH) return resume(r, path);
    if (mode == F2B_RESUME_NONE) F2B_TRY(set_aside(r));
    const f2b_status status = resume(r, r->session->config->run.dir);
    if (status != F2B_ERR_NOT_FOUND) return status;
    f2b_clear_error();
    return f2b_session_start_from(r->session, r->events->note, r->events->user);
}

static f2b_status open_saver(run *r)
{
    const f2b_session *s = r->session;
    const f2b_saver_events events = { r->events->note, r->events->saving, r->events->user };
    r->snapshot = f2b_snapshot_new(s->config, r->base, &s->model->parameters, r->optimizer);
    r->saver = r->snapshot != NULL ? f2b_saver_new(r->snapshot, &events) : NULL;
    return r->saver != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status open_run(run *r, f2b_resume mode, const char *path)
{
    f2b_session *s = r->session;
    char name[4096];
    r->folder = f2b_run_folder_open(s->config->run.dir);
    if (r->folder == NULL) return f2b_last_status();
    r->base = f2b_model_folder_fingerprint(s->folder);
    if (r->base == NULL) return f2b_last_status();
    r->optimizer = f2b_optimizer_new(&s->model->parameters);
    if (r->optimizer == NULL) return f2b_last_status();
    r->readings = f2b_readings_new(s->model->device);
    if (r->readings == NULL) return f2b_last_status();
    F2B_TRY(find_start(r, mode, path));
    F2B_TRY(open_saver(r));
    F2B_TRY(f2b_run_folder_write_config(r->folder, s->config));
    snprintf(name, sizeof name, "%s/metrics.jsonl", s->config->run.dir);
    r->metrics = f2b_metrics_open(name, r->at.step);
    if (r->metrics == NULL) return f2b_last_status();
    r->board = f2b_tensorboard_open(s->config->run.dir, r->at.step);
    if (r->board == NULL) return f2b_last_status();
    if (s->features != NULL)
        F2B_TRY(f2b_feature_cache_begin(s->features, f2b_dataset_images(s->dataset)));
    F2B_TRY(f2b_fault_list_open(s->bad, s->config->run.dir, s->dataset));
    if (s->config->run.eval_every > 0) {
        r->evaluation = f2b_evaluation_open(s, r->at.step);
        if (r->evaluation == NULL) return f2b_last_status();
    }
    const f2b_loader_options loader = { .workers = (int)s->config->data.workers,
                                        .first_step = r->at.step, .end_step = s->steps };
    r->loader = f2b_loader_new(s->dataset, &loader);
    return r->loader != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status close_run(run *r, f2b_status status)
{
    f2b_error first = { 0 };
    if (status != F2B_OK) f2b_error_take(&first);
    if (r->saver != NULL && f2b_saver_wait(r->saver) != F2B_OK) note(r, "%s", f2b_last_error());
    f2b_saver_free(r->saver);
    f2b_snapshot_free(r->snapshot);
    f2b_loader_free(r->loader);
    f2b_evaluation_close(r->evaluation);
    f2b_metrics_close(r->metrics);
    const f2b_status board = f2b_tensorboard_close(r->board);
    f2b_optimizer_free(r->optimizer);
    f2b_readings_free(r->readings);
    f2b_run_folder_close(r->folder);
    if (status == F2B_OK) return board;
    return f2b_fail(first.code, "%s", first.text);
}

/* ---- Stepping ---- */

/* That a save failed is remembered, so that none is tried after it. */
static f2b_status saving(run *r, f2b_status status)
{
    r->save_failed = r->save_failed || status != F2B_OK;
    return status;
}

/* The state as it is now, if it is not saved yet: on disk when this returns. */
static f2b_status save(run *r)
{
    if (r->saved == r->at.step) return saving(r, f2b_saver_wait(r->saver));
    F2B_TRY(saving(r, f2b_saver_save(r->saver, &r->at, false)));
    r->saved = r->at.step;
    return F2B_OK;
}

/* After a step of which the run wants a checkpoint, and is not at its end. */
static f2b_status save_on_the_way(run *r)
{
    if (!r->session->memory.saves_beside) return save(r);
    F2B_TRY(saving(r, f2b_saver_save(r->saver, &r->at, true)));
    r->saved = r->at.step;
    return F2B_OK;
}

static f2b_status log_step(run *r, const f2b_batch *batch, const f2b_metrics_row *row)
{
    const f2b_config *c = r->session->config;
    r->events->step(r->events->user, row, r->session->steps);
    if (row->step % c->run.log_every != 0 && row->step != r->session->steps) return F2B_OK;
    f2b_metrics_row with_ids = *row;
    const char **ids = NULL;
    if (c->run.log_sample_ids) {
        ids = f2b_calloc((size_t)batch->n, sizeof *ids, F2B_TAG_OTHER);
        if (ids == NULL) return F2B_ERR_MEMORY;
        for (int64_t i = 0; i < batch->n; i++) ids[i] = batch->samples[i].id;
        with_ids.sample_ids = ids, with_ids.n_sample_ids = batch->n;
    }
    f2b_status status = f2b_metrics_write(r->metrics, &with_ids);
    if (status == F2B_OK) status = f2b_tensorboard_metrics(r->board, row);
    f2b_free(ids);
    return status;
}

static bool asked_to_stop(void *user)
{
    const run *r = user;
    return r->events->stop(r->events->user);
}

static void tell_progress(void *user, const f2b_step_progress *progress)
{
    const run *r = user;
    r->events->progress(r->events->user, r->at.step + 1, r->session->steps, progress);
}

/* Loss, gradients and update of one batch. All of it is asked of the device before the host waits,
 * once, for the losses and the norm. Nothing but the gradients has changed when it is stopped or the
 * numbers are bad. */
static f2b_status compute(run *r, const f2b_batch *batch, f2b_step_result *result, f2b_update *update)
{
    f2b_session *s = r->session;
    const f2b_step_events events = { asked_to_stop, r->events->progress != NULL ? tell_progress : NULL,
                                     r };
    f2b_optimizer_clear_gradients(&s->model->parameters);
    f2b_readings_clear(r->readings);
    F2B_TRY(f2b_session_step(s, batch, true, &events, r->readings, result));
    F2B_TRY(f2b_optimizer_begin(r->optimizer, s->config, r->at.step, s->steps, r->readings, update));
    F2B_TRY(f2b_readings_fetch(r->readings));
    f2b_step_settle(result, r->readings);
    f2b_optimizer_settle(r->optimizer, r->readings, update);
    return F2B_OK;
}

/* One step; `row` is what the log will say of it. */
static f2b_status train_on(run *r, const f2b_batch *batch, double started, f2b_metrics_row *row)
{
    const f2b_session *s = r->session;
    f2b_step_result result;
    f2b_update update;
    F2B_TRY(compute(r, batch, &result, &update));
    const bool ar = batch->kind != F2B_BATCH_CAPTION, disc = batch->kind != F2B_BATCH_CONVERSATION;
    const double loss = (ar ? result.loss_ar : 0) + (disc ? result.loss_disc : 0);
    r->at.step++;
    r->at.skipped_in_a_row = update.finite ? 0 : r->at.skipped_in_a_row + 1;
    r->at.skipped += !update.finite;
    const double seconds = now() - started;
    *row = (f2b_metrics_row){
        .step = r->at.step, .kind = batch->kind, .loss = loss,
        .loss_ar = ar ? result.loss_ar : NAN, .loss_disc = disc ? result.loss_disc : NAN,
        .lr = s->config->train.learning_rate *
              f2b_learning_rate_factor(s->config->train.lr_scheduler, s->config->train.warmup_ratio,
                                       r->at.step - 1, s->steps),
        .grad_norm = update.grad_norm, .samples = batch->n,
        .tokens = result.tokens, .labelled_tokens = result.labelled, .seconds = seconds,
        .tokens_per_second = (double)result.tokens / seconds,
        .data_wait_seconds = f2b_loader_wait_seconds(r->loader),
        .peak_bytes = f2b_bytes_peak_of(s->model->device.kind, F2B_TAG_COUNT), .skipped = r->at.skipped,
    };
    if (!update.finite)
        note(r, "step %lld was skipped: its loss or gradient is not finite (%lld skipped so far)",
             (long long)r->at.step, (long long)r->at.skipped);
    return F2B_OK;
}

/* Also before the first step, for a run that was stopped in its evaluation. */
static f2b_status evaluate(const run *r)
{
    if (r->evaluation == NULL || r->at.step == 0 ||
        r->at.step % r->session->config->run.eval_every != 0)
        return F2B_OK;
    return f2b_evaluation_run(r->evaluation, r->at.step, r->board, r->events->stop,
                              r->events->user);
}

static f2b_status one_step(run *r)
{
    const f2b_config *c = r->session->config;
    const double started = now();
    f2b_batch *batch;
    f2b_metrics_row row;
    F2B_TRY(f2b_loader_next(r->loader, &batch));
    F2B_CHECK(batch != NULL);
    f2b_status status = train_on(r, batch, started, &row);
    if (status == F2B_OK) status = log_step(r, batch, &row);
    f2b_batch_free(batch);
    F2B_TRY(status);
    if (r->at.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW) {
        F2B_TRY(save(r));
        return f2b_fail(F2B_ERR_NUMBERS,
                        "loss or gradient was not finite in %d steps in a row (last "
                        "step %lld); lower train.learning_rate, or look at the samples "
                        "(run.log_sample_ids)",
                        MOST_SKIPPED_IN_A_ROW, (long long)r->at.step);
    }
    F2B_TRY(saving(r, f2b_saver_check(r->saver)));
    F2B_TRY(evaluate(r));
    const bool due = c->run.save_every > 0 && r->at.step % c->run.save_every == 0;
    return due && r->at.step < r->session->steps ? save_on_the_way(r) : F2B_OK;
}

static f2b_status stopped(run *r)
{
    F2B_TRY(save(r));
    return f2b_fail(F2B_ERR_STOPPED, "stopped after step %lld; the state is saved in %s",
                    (long long)r->at.step, r->session->config->run.dir);
}

/* Unusable data, files that fail and want of memory show between two updates: what was trained is not lost. */
static f2b_status failed(run *r, f2b_status status)
{
    const bool between = status == F2B_ERR_DATA || status == F2B_ERR_IO || status == F2B_ERR_FORMAT ||
                         status == F2B_ERR_NOT_FOUND || status == F2B_ERR_MEMORY;
    if (!between || r->save_failed) return status;
    f2b_error first;
    f2b_error_take(&first);
    if (r->at.step > 0 && save(r) != F2B_OK) note(r, "%s", f2b_last_error());
    return f2b_fail(first.code, "%s", first.text);
}

f2b_status f2b_train_run(f2b_session *session, f2b_resume mode, const char *path,
                         const f2b_trainer_events *events)
{
    run r = { .session = session, .events = events };
    F2B_TRY(f2b_memory_plan_check(&session->memory));
    if (session->memory.packed > 0) F2B_TRY(f2b_model_pack_weights(session->model));
    f2b_status status = open_run(&r, mode, path);
    if (status != F2B_OK) return close_run(&r, status);
    status = evaluate(&r);
    while (status == F2B_OK && r.at.step < session->steps)
        status = events->stop(events->user) ? F2B_ERR_STOPPED : one_step(&r);
    if (status == F2B_OK) status = save(&r);
    else if (status == F2B_ERR_STOPPED) status = stopped(&r);
    else if (status != F2B_OK) status = failed(&r, status);
    return close_run(&r, status);
}
