/* See tiny_world.h. */
#include "tests/support/tiny_world.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "data/toy/toy.h"

/* The toy model's sizes, and what they become. */
static const struct { const char *from, *to; } sizes[] = {
    { "\"image_seq_length\": 64", "\"image_seq_length\": 16" },
    { "\"hidden_size\": 128", "\"hidden_size\": 32" },
    { "\"intermediate_size\": 352", "\"intermediate_size\": 64" },
    { "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 2" },
    { "\"num_attention_heads\": 4", "\"num_attention_heads\": 2" },
    { "\"num_key_value_heads\": 4", "\"num_key_value_heads\": 1" },
    { "\"hidden_size\": 96", "\"hidden_size\": 32" },
    { "\"intermediate_size\": 256", "\"intermediate_size\": 64" },
    { "\"num_attention_heads\": 4", "\"num_attention_heads\": 2" },
    { "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3" },
    { "\"patch_size\": 4", "\"patch_size\": 8" },
};

static const char run_yaml[] =
    "model: {path: model, weights: f32}\n"
    "summary: {tokens: 4}\n"
    "lora: {r: 4, alpha: 8, dropout: 0.1}\n"
    "data:\n"
    "  conversations: [{path: train.json, images: images}, {path: val.json, images: images}]\n"
    "  captions: [{path: captions_train.tsv, images: images}]\n"
    "  conversation_captions: [{path: conversation_captions.json}]\n"
    "sampler: {conversation_batch: 4, contrastive_batch: 5, ratio: 1.5}\n"
    "train: {steps: 16, learning_rate: 1.0e-2, precision: f32, micro_batch_tokens: 150}\n"
    "run: {dir: run, save_every: 2, keep: 3}\n";

static f2b_status shrink(const char *path)
{
    char *text = f2b_read_file(path, 1 << 20, NULL);
    if (text == NULL) return f2b_last_status();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *at = strstr(text, sizes[i].from);
        F2B_CHECK(at != NULL);
        const size_t from = strlen(sizes[i].from), to = strlen(sizes[i].to);
        F2B_CHECK(to <= from);
        memcpy(at, sizes[i].to, to);
        memmove(at + to, at + from, strlen(at + from) + 1);
    }
    const f2b_status status = f2b_write_file(path, text, strlen(text));
    f2b_free(text);
    return status;
}

f2b_status f2b_tiny_world_write(const char *dir)
{
    f2b_toy_options toy = f2b_toy_defaults();
    toy.train = 16, toy.val = 8, toy.image_size = 32, toy.turns = 2;
    F2B_TRY(f2b_toy_write(dir, &toy, NULL, NULL));
    char *config = f2b_path_join(dir, "model/config.json"), *run = f2b_path_join(dir, "run.yaml");
    f2b_status status = config != NULL && run != NULL ? shrink(config) : F2B_ERR_MEMORY;
    if (status == F2B_OK) status = f2b_write_file(run, run_yaml, strlen(run_yaml));
    f2b_free(config);
    f2b_free(run);
    return status;
}
