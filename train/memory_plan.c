/* See memory_plan.h. The sizes follow from what each op's contract says that it saves. */
#include "train/memory_plan.h"

#include <stdio.h>
#include <string.h>

static void add_tensors(f2b_memory_plan *p, const f2b_model *m)
{
    for (int64_t i = 0; i < m->weights.n_frozen; i++) {
        const f2b_tensor *t = m->weights.frozen[i];
        *(t->borrowed ? &p->mapped : &p->weights) += (int64_t)f2b_tensor_bytes(t);
    }
    for (int64_t i = 0; i < m->parameters.n; i++)
        p->parameters += (int64_t)f2b_tensor_bytes(m->parameters.items[i].tensor);
    p->gradients = p->parameters;
    p->optimizer = 2 * p->parameters;
}

/* Rows of one micro-batch go through all layers; backward adds about one layer's gradients. */
static int64_t activation_bytes(const f2b_model *m, int64_t rows, bool checkpoint)
{
    const int64_t act = (int64_t)f2b_dtype_size(m->compute), d = m->config.text.hidden;
    const int64_t layer = f2b_llama_saved_bytes_per_row(m->llama, F2B_STAGE_GENERATION, act);
    const int64_t layers = m->config.text.layers;
    const int64_t kept = checkpoint ? layers * d * act + layer : layers * layer;
    const int64_t running = act * (4 * d + 3 * m->config.text.intermediate);
    return rows * (kept + running);
}

f2b_memory_plan f2b_memory_plan_make(const f2b_model *m, const f2b_config *config,
                                     int64_t available)
{
    f2b_memory_plan p = { 0 };
    add_tensors(&p, m);
    const int64_t rows = config->train.micro_batch_tokens;
    const int64_t fixed = p.weights + p.parameters + p.gradients + p.optimizer;
    p.scratch = ((int64_t)16 << 20) + ((int64_t)8 << 20) + m->config.text.intermediate * 1024 * 4;
    p.checkpoint_layers =
        config->train.activation_checkpointing == F2B_CHECKPOINTING_LAYER ||
        (config->train.activation_checkpointing == F2B_CHECKPOINTING_AUTO &&
         fixed + p.scratch + activation_bytes(m, rows, false) > available * 7 / 10);
    p.activations = activation_bytes(m, rows, p.checkpoint_layers);
    p.total = fixed + p.scratch + p.activations;
    return p;
}

/* One number from a small system file, or -1. */
static int64_t read_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) return -1;
    char line[256];
    long long value = -1;
    while (value < 0 && fgets(line, sizeof line, f) != NULL) {
        if (key == NULL) {
            if (sscanf(line, "%lld", &value) != 1) break;
        } else if (strncmp(line, key, strlen(key)) == 0) {
            (void)sscanf(line + strlen(key), ": %lld", &value);
        }
    }
    fclose(f);
    return value;
}

int64_t f2b_memory_available(void)
{
    const int64_t free_kib = read_number("/proc/meminfo", "MemAvailable");
    int64_t available = free_kib >= 0 ? free_kib * 1024 : INT64_MAX / 16;
    const int64_t limit = read_number("/sys/fs/cgroup/memory.max", NULL);
    const int64_t used = read_number("/sys/fs/cgroup/memory.current", NULL);
    if (limit > 0 && used >= 0 && limit - used < available) available = limit - used;
    return available;
}
