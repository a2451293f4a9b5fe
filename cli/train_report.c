/* See train_report.h. */
#include "cli/train_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/profile.h"

/* ---- While training ---- */

void f2b_train_note(void *user, const char *text)
{
    f2b_train_view *view = user;
    pthread_mutex_lock(&view->lock);
    f2b_progress_note(view->progress, "%s", text);
    pthread_mutex_unlock(&view->lock);
}

void f2b_train_saving(void *user, int64_t step)
{
    f2b_train_view *view = user;
    view->saving = step;
}

/* What the progress line says of a checkpoint that is being written. */
static f2b_short_text saving(const f2b_train_view *view)
{
    f2b_short_text t = { "" };
    if (view->saving > 0) snprintf(t.text, sizeof t.text, " | saving %lld", (long long)view->saving);
    return t;
}

void f2b_train_progress(void *user, int64_t step, int64_t steps, const f2b_step_progress *at)
{
    f2b_train_view *view = user;
    pthread_mutex_lock(&view->lock);
    f2b_progress_show(view->progress, false,
                      "step %lld/%lld | micro-batch %lld/%lld | %s %lld/%lld | %s in use%s",
                      (long long)step, (long long)steps, (long long)at->micro_batch + 1,
                      (long long)at->micro_batches, at->pass, (long long)at->done, (long long)at->of,
                      f2b_format_bytes(f2b_bytes_in_use(F2B_TAG_COUNT)).text, saving(view).text);
    pthread_mutex_unlock(&view->lock);
}

static int print_loss(char *out, size_t size, const char *name, double value)
{
    return value == 0 ? snprintf(out, size, "%s - | ", name)
                      : snprintf(out, size, "%s %.3f | ", name, value);
}

/* 1.9e-4: printf's exponents have two digits at least. */
static f2b_short_text format_rate(double rate)
{
    f2b_short_text t;
    snprintf(t.text, sizeof t.text, "%.1e", rate);
    char *e = strchr(t.text, 'e');
    if (e != NULL && e[2] == '0') memmove(e + 2, e + 3, strlen(e + 3) + 1);
    return t;
}

void f2b_train_step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    f2b_train_view *view = user;
    if (view->first_step == 0) view->first_step = row->step;
    if (!isnan(row->loss_ar)) view->loss_ar = row->loss_ar;
    if (!isnan(row->loss_disc)) view->loss_disc = row->loss_disc;
    const double eta = f2b_progress_eta(view->progress, row->step - view->first_step + 1,
                                        steps - view->first_step + 1);
    char losses[128];
    const int n = print_loss(losses, sizeof losses, "ar", view->loss_ar);
    print_loss(losses + n, sizeof losses - (size_t)n, "disc", view->loss_disc);
    pthread_mutex_lock(&view->lock);
    f2b_progress_show(view->progress, row->step == steps,
                      "step %lld/%lld | %sgrad %.2f | lr %s | %.0f tok/s | %s%s | ETA %s",
                      (long long)row->step, (long long)steps, losses, row->grad_norm,
                      format_rate(row->lr).text, row->tokens_per_second,
                      f2b_format_bytes(row->peak_bytes).text, saving(view).text,
                      f2b_format_duration(eta).text);
    pthread_mutex_unlock(&view->lock);
}

static int64_t trained_elements(const f2b_model *model)
{
    int64_t n = 0;
    for (int64_t i = 0; i < model->parameters.n; i++)
        n += f2b_numel(model->parameters.items[i].tensor);
    return n;
}

/* Samples under L_disc for each under L_AR, as the sampler gives them; 0 where one loss is off. */
static double given_ratio(const f2b_session *s)
{
    const f2b_sampler *sampler = f2b_dataset_sampler(s->dataset);
    const double caption = f2b_sampler_share(sampler, F2B_BATCH_CAPTION);
    const double both = f2b_sampler_share(sampler, F2B_BATCH_BOTH);
    const double alone = f2b_sampler_share(sampler, F2B_BATCH_CONVERSATION);
    const double batch = (double)s->config->sampler.conversation_batch;
    if (s->config->method.loss != F2B_LOSS_BOTH || both + alone == 0) return 0;
    return (caption * (double)s->config->sampler.contrastive_batch + both * batch) /
           ((both + alone) * batch);
}

/* A ratio that the data cannot give is said, not made up for. */
static bool ratio_warning(const f2b_session *s, char *text, size_t size)
{
    const double given = given_ratio(s), wanted = s->config->sampler.ratio;
    if (given == 0 || fabs(given - wanted) <= 0.01 * wanted) return false;
    snprintf(text, size, "warning: sampler.ratio is %g, the data give %.3g samples under the "
             "contrastive loss for each under the autoregressive one: %s", wanted, given,
             given > wanted ? "conversations that have a caption alone are more; data.captions are "
                              "not used" : "give data.captions");
    return true;
}

/* A batch of more samples than there are has some twice, and the contrastive loss tells them apart. */
static bool batch_warning(const f2b_session *s, char *text, size_t size)
{
    const bool contrasts = s->config->method.loss != F2B_LOSS_AUTOREGRESSIVE;
    const struct {
        f2b_batch_kind kind;
        int64_t batch;
        const char *name, *key;
    } kinds[] = {
        { F2B_BATCH_CAPTION, s->config->sampler.contrastive_batch, "captions", "sampler.contrastive_batch" },
        { F2B_BATCH_BOTH, s->config->sampler.conversation_batch, "conversations with a caption",
          "sampler.conversation_batch" },
    };
    for (size_t i = 0; contrasts && i < sizeof kinds / sizeof *kinds; i++) {
        const int64_t there = f2b_dataset_pool(s->dataset, kinds[i].kind);
        if (f2b_sampler_share(f2b_dataset_sampler(s->dataset), kinds[i].kind) == 0 || there >= kinds[i].batch)
            continue;
        snprintf(text, size, "warning: %s is %lld, and there are %lld %s: the same ones would be each other's "
                 "negatives; lower it", kinds[i].key, (long long)kinds[i].batch, (long long)there, kinds[i].name);
        return true;
    }
    return false;
}

void f2b_train_opening(f2b_progress *progress, const f2b_session *s)
{
    const f2b_text_config *t = &s->model->config.text;
    char text[512];
    f2b_progress_note(progress, "model %s: %lld layers of %lld, %lld image tokens, %lld trained "
                      "numbers in %lld tensors", s->config->model.path, (long long)t->layers,
                      (long long)t->hidden, (long long)f2b_image_tokens(&s->model->config),
                      (long long)trained_elements(s->model), (long long)s->model->parameters.n);
    for (int i = 0; i < f2b_dataset_sources(s->dataset); i++) {
        const f2b_source *source = f2b_dataset_source(s->dataset, i);
        f2b_progress_note(progress, "data %s: %lld records", f2b_source_name(source),
                          (long long)f2b_source_count(source));
    }
    f2b_progress_note(progress, "run %s: %lld steps, %s of memory and %s of mapped weights, %lld "
                      "layers computed again", s->config->run.dir, (long long)s->steps,
                      f2b_format_bytes(s->memory.peak[F2B_TAG_COUNT]).text,
                      f2b_format_bytes(s->memory.mapped).text,
                      (long long)s->memory.checkpoint_layers);
    if (f2b_train_memory_warning(s, text, sizeof text)) f2b_progress_note(progress, "%s", text);
    if (ratio_warning(s, text, sizeof text)) f2b_progress_note(progress, "%s", text);
    if (batch_warning(s, text, sizeof text)) f2b_progress_note(progress, "%s", text);
}

void f2b_train_summary(const f2b_train_view *view, const f2b_session *s, f2b_status status)
{
    f2b_progress *progress = view->progress;
    if (view->first_step == 0 && status != F2B_OK) return;
    f2b_train_memory_fact(progress);
    if (status == F2B_OK)
        f2b_progress_note(progress, "done: %lld steps, checkpoints in %s/checkpoints",
                          (long long)s->steps, s->config->run.dir);
}

void f2b_train_profile(FILE *out)
{
    const f2b_profile_row *rows;
    const int n = f2b_profile_rows(&rows);
    double total = 0;
    for (int i = 0; i < n; i++) total += rows[i].seconds;
    fprintf(out, "%-24s %-8s %10s %10s %7s %10s %8s\n", "op", "", "calls", "seconds",
            "share", "GFLOP/s", "GB/s");
    for (int i = 0; i < n; i++) {
        const f2b_profile_row *r = &rows[i];
        char rate[32] = "-";
        if (r->flops > 0) snprintf(rate, sizeof rate, "%.1f", r->flops / r->seconds * 1e-9);
        fprintf(out, "%-24s %-8s %10lld %10.3f %6.1f%% %10s %8.1f\n", r->name,
                r->backward ? "backward" : "forward", (long long)r->calls, r->seconds,
                100 * r->seconds / total, rate, r->bytes / r->seconds * 1e-9);
    }
}

/* ---- --check ---- */

static f2b_status print_features(const f2b_session *s)
{
    if (s->features == NULL) return F2B_OK;
    const f2b_feature_shape shape = f2b_feature_cache_shape(s->features);
    const int64_t images = f2b_dataset_images(s->dataset);
    const int64_t there = f2b_feature_cache_images(s->features);
    const int64_t space = f2b_feature_cache_free_bytes(s->features);
    if (images < 0) return f2b_last_status();
    printf("\n# feature cache (at most, on disk)\n#   %s\n", f2b_feature_cache_path(s->features));
    printf("#   %lld images of %lld rows of %lld %s: %s; %lld are there\n", (long long)images,
           (long long)shape.rows, (long long)shape.width, f2b_dtype_name(shape.type),
           f2b_format_bytes(images * shape.file_bytes).text, (long long)there);
    if (space >= 0) printf("#   free on that disk: %s\n", f2b_format_bytes(space).text);
    return F2B_OK;
}

static void print_data(const f2b_session *s)
{
    static const char *const kinds[] = { "conversation", "caption", "both" };
    printf("\n# data\n");
    for (int i = 0; i < f2b_dataset_sources(s->dataset); i++)
        printf("#   %s: %lld records\n", f2b_source_name(f2b_dataset_source(s->dataset, i)),
               (long long)f2b_source_count(f2b_dataset_source(s->dataset, i)));
    for (int k = 0; k < F2B_BATCH_KINDS; k++)
        if (f2b_dataset_pool(s->dataset, (f2b_batch_kind)k) > 0)
            printf("#   samples for %s batches: %lld\n", kinds[k],
                   (long long)f2b_dataset_pool(s->dataset, (f2b_batch_kind)k));
    printf("#   steps: %lld\n", (long long)s->steps);
    char warning[512];
    if (ratio_warning(s, warning, sizeof warning)) printf("#   %s\n", warning);
    if (batch_warning(s, warning, sizeof warning)) printf("#   %s\n", warning);
}

static void print_sequence(const char *name, const f2b_sequence *q, const f2b_tokenizer *tokenizer)
{
    if (q->n == 0) return;
    int64_t labels = 0;
    for (int64_t i = 0; q->labels != NULL && i < q->n; i++) labels += q->labels[i] != F2B_NO_LABEL;
    printf("#     %s: %lld ids, %lld labelled: ", name, (long long)q->n, (long long)labels);
    for (int64_t i = 0; i < q->n; i++) {
        if (q->ids[i] == F2B_IMAGE_ID) printf("<image>");
        else printf("%s%s", f2b_tokenizer_piece(tokenizer, q->ids[i]), i + 1 < q->n ? " " : "");
    }
    printf("\n");
}

static f2b_status print_batch(f2b_session *s, int64_t step)
{
    static const char *const kinds[] = { "conversation", "caption", "both" };
    const f2b_loader_options one = { .first_step = step, .end_step = step + 1 };
    f2b_loader *loader = f2b_loader_new(s->dataset, &one);
    if (loader == NULL) return f2b_last_status();
    f2b_batch *batch = NULL;
    const f2b_status status = f2b_loader_next(loader, &batch);
    if (status == F2B_OK) {
        printf("#   step %lld: %s, %lld samples; the first, %s:\n", (long long)step + 1,
               kinds[batch->kind], (long long)batch->n, batch->samples[0].id);
        const f2b_tokenizer *tokenizer = f2b_dataset_tokenizer(s->dataset);
        print_sequence("pass 1, image", &batch->samples[0].image_prompt, tokenizer);
        print_sequence("pass 1, caption", &batch->samples[0].caption_prompt, tokenizer);
        print_sequence("pass 2", &batch->samples[0].conversation, tokenizer);
    }
    f2b_batch_free(batch);
    f2b_loader_free(loader);
    return status;
}

f2b_status f2b_train_check(f2b_session *s, f2b_train_view *view)
{
    F2B_TRY(f2b_session_start_from(s, f2b_train_note, view));
    char *yaml = f2b_config_write(s->config);
    if (yaml == NULL) return f2b_last_status();
    fputs(yaml, stdout);
    f2b_free(yaml);
    print_data(s);
    f2b_train_print_memory(s);
    F2B_TRY(print_features(s));
    printf("\n# first batches\n");
    bool seen[F2B_BATCH_KINDS] = { false };
    for (int64_t step = 0; step < s->steps && step < 64; step++) {
        const f2b_batch_kind kind = f2b_sampler_plan(f2b_dataset_sampler(s->dataset), step).kind;
        if (seen[kind]) continue;
        seen[kind] = true;
        F2B_TRY(print_batch(s, step));
    }
    return f2b_memory_plan_check(&s->memory);
}
