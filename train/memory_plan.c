/* See memory_plan.h. */
#include "train/memory_plan.h"

#include <stdio.h>
#include <string.h>

#include "autograd/device/device.h"
#include "nn/packed_weights.h"
#include "train/checkpoint.h"
#include "train/step_input.h"

/* Batches of a kind that are rehearsed; among how many steps they are looked for; and how many
 * batches the loader holds with the one that is trained on. */
enum { OF_A_KIND = 4, LOOKED_AT = 64, HELD_BATCHES = 3 };
enum { SAVING = 1 << 20 };          /* the buffer through which what lies between tensors is hashed */

typedef struct planner {
    f2b_model *model;
    f2b_dataset *dataset;
    const f2b_config *config;
    f2b_memory_plan *plan;
    f2b_batch *batches[OF_A_KIND * F2B_BATCH_KINDS];
    int n;
    int64_t base[F2B_DEVICE_KINDS][F2B_TAG_COUNT + 1];  /* what is there without a step */
    int64_t stepping;                   /* the most that is there in a step, on the host */
} planner;

/* ---- What there is without a step ---- */

static void add(int64_t *bytes, f2b_tag tag, int64_t more)
{
    bytes[tag] += more;
    bytes[F2B_TAG_COUNT] += more;
}

/* The batches with their texts, as the run will have them, but without images. */
static f2b_status read_batches(planner *p, int64_t steps)
{
    int of_kind[F2B_BATCH_KINDS] = { 0 };
    for (int64_t step = 0; step < steps && step < LOOKED_AT; step++) {
        const f2b_batch_kind kind = f2b_sampler_plan(f2b_dataset_sampler(p->dataset), step).kind;
        if (of_kind[kind]++ >= OF_A_KIND) continue;
        p->batches[p->n] = f2b_dataset_outline(p->dataset, step);
        if (p->batches[p->n] == NULL && f2b_last_status() != F2B_ERR_DATA) return f2b_last_status();
        if (p->batches[p->n] == NULL) f2b_clear_error();
        else p->n++;
    }
    p->plan->steps = p->n;
    return F2B_OK;
}

static int64_t text_bytes(const f2b_batch *batch)
{
    int64_t bytes = batch->n * (int64_t)sizeof *batch->samples;
    for (int64_t i = 0; i < batch->n; i++) {
        const f2b_sample *s = &batch->samples[i];
        bytes += (int64_t)strlen(s->id) + 1 + s->conversation.n * 2 * (int64_t)sizeof(int32_t) +
                 (s->image_prompt.n + s->caption_prompt.n) * (int64_t)sizeof(int32_t);
    }
    return bytes;
}

static int64_t image_bytes(const f2b_batch *batch)
{
    int64_t images = 0;
    for (int64_t i = 0; i < batch->n; i++) images += batch->samples[i].has_image;
    return images * 3 * batch->image_size * batch->image_size;
}

/* A picture on its way, as it comes out of its file: the first one of a batch of each kind. */
static int64_t decoding_bytes(planner *p)
{
    int64_t most = 0;
    bool seen[F2B_BATCH_KINDS] = { false };
    for (int i = 0; i < p->n; i++) {
        const f2b_batch *batch = p->batches[i];
        int64_t first = 0;
        while (first < batch->n && !batch->samples[first].has_image) first++;
        if (seen[batch->kind] || first == batch->n) continue;
        f2b_ledger ledger = { 0 }, *before = f2b_ledger_use(&ledger);
        f2b_preview preview;
        if (f2b_dataset_preview(p->dataset, batch->samples[first].id, &preview) == F2B_OK) {
            seen[batch->kind] = preview.note == NULL;
            f2b_preview_clear(&preview);
        } else {
            f2b_clear_error();      /* the run will say what is wrong with it */
        }
        (void)f2b_ledger_use(before);
        const int64_t ready = (int64_t)3 * batch->image_size * batch->image_size;
        const int64_t bytes = ledger.all.peak[F2B_TAG_IMAGES] - ready;
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The most that consecutive batches take, by what batches of their kinds took. */
static void add_held_batches(planner *p, int64_t steps)
{
    int64_t text[F2B_BATCH_KINDS] = { 0 }, images[F2B_BATCH_KINDS] = { 0 };
    for (int i = 0; i < p->n; i++) {
        const f2b_batch_kind kind = p->batches[i]->kind;
        const int64_t t = text_bytes(p->batches[i]), b = image_bytes(p->batches[i]);
        if (t > text[kind]) text[kind] = t;
        if (b > images[kind]) images[kind] = b;
    }
    const int held = p->config->data.workers > 0 ? HELD_BATCHES : 1;
    int64_t most_text = 0, most_images = 0;
    for (int64_t first = 0; first < steps && first < LOOKED_AT; first++) {
        int64_t t = 0, b = 0;
        for (int64_t step = first; step < steps && step < first + held; step++) {
            const f2b_batch_kind kind = f2b_sampler_plan(f2b_dataset_sampler(p->dataset), step).kind;
            t += text[kind], b += images[kind];
        }
        if (t > most_text) most_text = t;
        if (b > most_images) most_images = b;
    }
    for (int k = 0; p->config->run.eval_every > 0 && k < F2B_BATCH_KINDS; k++)
        most_text += text[k], most_images += images[k];     /* what it is evaluated on */
    const int decoding = p->config->data.workers > 1 ? p->config->data.workers : 1;
    add(p->base[F2B_CPU], F2B_TAG_DATA, most_text);
    add(p->base[F2B_CPU], F2B_TAG_IMAGES, most_images + decoding * decoding_bytes(p));
}

static void add_model(planner *p)
{
    const f2b_model *m = p->model;
    for (int kind = 0; kind < F2B_DEVICE_KINDS; kind++)
        for (int tag = 0; tag <= F2B_TAG_COUNT; tag++)
            p->base[kind][tag] = f2b_bytes_in_use_of((f2b_device_kind)kind, (f2b_tag)tag);
    for (int64_t i = 0; i < m->parameters.n; i++)
        add(p->base[m->device.kind], F2B_TAG_OPTIMIZER,
            2 * (int64_t)f2b_tensor_bytes(m->parameters.items[i].tensor));
    for (int64_t i = 0; i < m->weights.n_frozen; i++)
        if (m->weights.frozen[i]->borrowed)
            p->plan->mapped += (int64_t)f2b_tensor_bytes(m->weights.frozen[i]);
}

/* ---- Steps ---- */

/* The rows of a micro-batch, had its samples all the length that they may have. */
static int64_t rows_at_most(const planner *p, const f2b_batch *batch, const f2b_step_result *seen)
{
    const f2b_config *c = p->config;
    int64_t longest = 0;
    for (int64_t i = 0; i < batch->n; i++) {
        const int64_t rows = batch->samples[i].conversation.n + batch->samples[i].image_prompt.n +
                             batch->samples[i].caption_prompt.n;
        if (rows > longest) longest = rows;
    }
    longest += 2 * (f2b_image_tokens(&p->model->config) + c->summary.tokens);
    if (batch->kind != F2B_BATCH_CAPTION) longest += f2b_dataset_settings(p->dataset)->limits.max_length;
    if (batch->kind != F2B_BATCH_CONVERSATION) longest += c->data.max_caption_length;
    const int64_t room = c->train.micro_batch_tokens > longest ? c->train.micro_batch_tokens : longest;
    const int64_t all = batch->n * longest < room ? batch->n * longest : room;
    return all > seen->most_rows ? all : seen->most_rows;
}

/* Of a feature cache, at first. */
static f2b_status nothing_kept(void *context, int64_t sample, void *rows, bool *found)
{
    (void)context, (void)sample, (void)rows;
    *found = false;
    return F2B_OK;
}

/* A peak of the run: while it opens, or with what a step takes. */
static int64_t peak_with(const planner *p, f2b_device_kind kind, f2b_tag tag, int64_t step)
{
    const int64_t opening = f2b_bytes_peak_of(kind, tag), running = p->base[kind][tag] + step;
    return running > opening ? running : opening;
}

/* Peaks with n layers computed again. */
static f2b_status rehearse(planner *p, int64_t n)
{
    f2b_memory_plan *plan = p->plan;
    f2b_ledger ledger = { 0 };
    f2b_status status = F2B_OK;
    plan->checkpoint_layers = n;
    plan->rows = plan->most_rows = 0;
    for (int i = 0; i < p->n && status == F2B_OK; i++) {
        f2b_step_result seen;
        f2b_ledger *before = f2b_ledger_use(&ledger);
        f2b_step_sample *samples = f2b_step_samples(p->config, p->batches[i]);
        if (samples == NULL) status = F2B_ERR_MEMORY;
        if (status == F2B_OK) {
            f2b_step_input input = f2b_step_input_of(p->config, p->batches[i], samples, n);
            if (p->config->data.feature_cache != NULL) input.load_features = nothing_kept;
            status = f2b_step_rehearse(p->model, &input, &seen);
        }
        f2b_free(samples);
        (void)f2b_ledger_use(before);
        F2B_CHECK(ledger.all.in_use[F2B_TAG_COUNT] == 0);   /* no block outlives its books */
        if (status != F2B_OK) break;
        const int64_t most = rows_at_most(p, p->batches[i], &seen);
        if (seen.most_computed > plan->rows) plan->rows = seen.most_computed;
        if (most > plan->most_rows) plan->most_rows = most;
    }
    F2B_TRY(status);
    /* A checkpoint is saved when the step is over, with its gradients still there. */
    int64_t *host = ledger.of[F2B_CPU].peak;
    const int64_t step = host[F2B_TAG_COUNT], saving = host[F2B_TAG_GRADIENTS] + SAVING;
    p->stepping = p->base[F2B_CPU][F2B_TAG_COUNT] + step;
    host[F2B_TAG_FILES] += SAVING;
    host[F2B_TAG_COUNT] = step > saving ? step : saving;
    const int64_t *peak = ledger.of[plan->kind].peak;
    for (int tag = 0; tag <= F2B_TAG_COUNT; tag++)
        plan->peak[tag] = peak_with(p, plan->kind, (f2b_tag)tag, peak[tag]);
    plan->host = plan->kind == F2B_CPU ? 0 : peak_with(p, F2B_CPU, F2B_TAG_COUNT, host[F2B_TAG_COUNT]);
    const double by_rows = (double)(peak[F2B_TAG_ACTIVATIONS] + peak[F2B_TAG_ACT_GRADS]);
    plan->most = plan->peak[F2B_TAG_COUNT];
    if (plan->rows > 0)
        plan->most += (int64_t)(by_rows * ((double)plan->most_rows / (double)plan->rows - 1));
    return F2B_OK;
}

static bool fits(const f2b_memory_plan *plan)
{
    return f2b_memory_held(plan->kind, plan->most) + plan->mapped <= plan->available;
}

/* The fewest layers with which it fits; all, where it does not. */
static f2b_status choose_layers(planner *p)
{
    int64_t least = 0, enough = p->plan->layers;
    F2B_TRY(rehearse(p, 0));
    if (fits(p->plan)) return F2B_OK;
    while (enough - least > 1) {            /* `least` does not fit */
        const int64_t middle = (least + enough) / 2;
        F2B_TRY(rehearse(p, middle));
        if (fits(p->plan)) enough = middle;
        else least = middle;
    }
    return rehearse(p, enough);
}

static f2b_status plan_steps(planner *p)
{
    switch (p->config->train.activation_checkpointing) {
    case F2B_CHECKPOINTING_NONE: return rehearse(p, 0);
    case F2B_CHECKPOINTING_LAYER: return rehearse(p, p->plan->layers);
    case F2B_CHECKPOINTING_AUTO: break;
    }
    return choose_layers(p);
}

/* Beside a device, whose state is copied to the host in any case. */
static void plan_saving_of_device(f2b_memory_plan *plan)
{
    const int64_t there = f2b_memory_available() + f2b_bytes_in_use_of(F2B_CPU, F2B_TAG_COUNT);
    plan->host += plan->state;
    plan->saves_beside = f2b_memory_held(F2B_CPU, plan->host) <= there;
}

/* Beside a step lie, where there is room for it, a copy of the state and what its writing takes. No
 * layer is computed again for the sake of it. */
static void plan_saving(planner *p, int64_t steps)
{
    f2b_memory_plan *plan = p->plan;
    const int64_t every = p->config->run.save_every;
    plan->state = f2b_snapshot_bytes(&p->model->parameters);
    plan->saves = every > 0 && every < steps;
    plan->saves_beside = false;
    if (plan->kind != F2B_CPU) plan_saving_of_device(plan);
    if (!plan->saves || plan->kind != F2B_CPU) return;
    f2b_memory_plan with = *plan;
    if (with.peak[F2B_TAG_COUNT] < p->stepping + SAVING)
        with.peak[F2B_TAG_COUNT] = p->stepping + SAVING;
    add(with.peak, F2B_TAG_SNAPSHOT, plan->state);
    with.most += with.peak[F2B_TAG_COUNT] - plan->peak[F2B_TAG_COUNT];
    with.saves_beside = true;
    if (fits(&with)) *plan = with;
}

/* Packed weights take what is left over: no layer is computed again for them, and no copy left out. */
static f2b_status plan_packing(planner *p, int64_t steps)
{
    f2b_memory_plan *plan = p->plan;
    const int64_t bytes = plan->kind == F2B_CPU ? f2b_model_packed_weight_bytes(p->model) : 0;
    const f2b_memory_plan without = *plan;
    if (bytes == 0 || bytes > plan->available) return F2B_OK;
    F2B_TRY(f2b_model_plan_packed_weights(p->model));
    add(p->base[F2B_CPU], F2B_TAG_WEIGHTS, bytes);
    F2B_TRY(rehearse(p, plan->checkpoint_layers));
    plan_saving(p, steps);
    plan->packed = bytes;
    if (fits(plan) && plan->saves_beside == without.saves_beside) return F2B_OK;
    f2b_model_unpack_weights(p->model);
    *plan = without;
    return F2B_OK;
}

static f2b_status find_available(planner *p)
{
    f2b_memory_plan *plan = p->plan;
    plan->kind = p->model->device.kind;
    plan->limited = p->config->train.memory_limit > 0;
    if (plan->limited) plan->available = p->config->train.memory_limit;
    else if (plan->kind == F2B_CPU) plan->available = f2b_memory_available();
    else F2B_TRY(f2b_device_available(p->model->device, &plan->available));
    if (!plan->limited) plan->available += f2b_bytes_in_use_of(plan->kind, F2B_TAG_COUNT);
    return F2B_OK;
}

static f2b_status make(planner *p, int64_t steps)
{
    p->plan->layers = p->model->config.text.layers;
    F2B_TRY(find_available(p));
    add_model(p);
    F2B_TRY(read_batches(p, steps));
    add_held_batches(p, steps);
    F2B_TRY(plan_steps(p));
    plan_saving(p, steps);
    return plan_packing(p, steps);
}

f2b_status f2b_memory_plan_make(f2b_model *model, f2b_dataset *dataset, const f2b_config *config,
                                int64_t steps, f2b_memory_plan *plan)
{
    *plan = (f2b_memory_plan){ 0 };
    planner *p = f2b_calloc(1, sizeof *p, F2B_TAG_OTHER);
    if (p == NULL) return F2B_ERR_MEMORY;
    p->model = model, p->dataset = dataset, p->config = config, p->plan = plan;
    const f2b_status status = make(p, steps);
    for (int i = 0; i < p->n; i++) f2b_batch_free(p->batches[i]);
    f2b_free(p);
    return status;
}

/* ---- What there is ---- */

/* A sixteenth of the peak may be kept beside it, and blocks are as large as their size class, which was up to 5 %
 * more than was asked for. The program itself takes some MiB. On a device, sizes are rounded up by an eighth at
 * most; what is kept goes back when memory is short; products take up to 32 MiB of work space. */
int64_t f2b_memory_held(f2b_device_kind kind, int64_t bytes)
{
    if (kind != F2B_CPU) return bytes + bytes / 8 + ((int64_t)32 << 20);
    return bytes + bytes / 100 * 12 + ((int64_t)24 << 20);
}

f2b_status f2b_memory_plan_check(const f2b_memory_plan *plan)
{
    const int64_t needed = f2b_memory_held(plan->kind, plan->peak[F2B_TAG_COUNT]);
    const double MiB = 1 << 20;
    if (needed <= plan->available) return F2B_OK;
    return f2b_fail(F2B_ERR_MEMORY,
                    "this run needs %.0f MiB and may take %.0f MiB (%s), with %lld of %lld layers "
                    "computed again in backward; lower train.micro_batch_tokens%s%s, or take "
                    "model.weights: nf4 where the weights are the most (--check lists it all)",
                    (double)needed / MiB, (double)plan->available / MiB,
                    plan->limited ? "train.memory_limit"
                    : plan->kind == F2B_CPU ? "what there is" : "what the device has",
                    (long long)plan->checkpoint_layers, (long long)plan->layers,
                    plan->checkpoint_layers < plan->layers
                        ? ", set train.activation_checkpointing: auto" : "",
                    plan->limited ? ", raise train.memory_limit" : "");
}

/* The number behind a word of a small system file, or its first one; -1: none. */
static int64_t read_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) return -1;
    char line[256];
    long long value = -1;
    while (value < 0 && fgets(line, sizeof line, f) != NULL) {
        const size_t skip = key == NULL || strncmp(line, key, strlen(key)) != 0 ? 0 : strlen(key);
        if (key != NULL && skip == 0) continue;
        if (sscanf(line + skip, "%lld", &value) != 1) break;
    }
    fclose(f);
    return value;
}

int64_t f2b_memory_available(void)
{
    const int64_t free_kib = read_number("/proc/meminfo", "MemAvailable:");
    int64_t available = free_kib >= 0 ? free_kib * 1024 : INT64_MAX / 16;
    const int64_t limit = read_number("/sys/fs/cgroup/memory.max", NULL);
    const int64_t used = read_number("/sys/fs/cgroup/memory.current", NULL);
    const int64_t files = read_number("/sys/fs/cgroup/memory.stat", "file ");
    const int64_t held = used - (files > 0 ? files : 0);    /* pages of files can be had back */
    if (limit > 0 && used >= 0 && limit - held < available) available = limit - held;
    return available;
}
