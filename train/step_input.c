/* See step_input.h. */
#include "train/step_input.h"

#include <string.h>

static f2b_tokens tokens_of(const f2b_sequence *s)
{
    return (f2b_tokens){ s->ids, s->labels, s->n };
}

/* 1 + the first sample that shows the image of sample i: by content, whatever its name. */
static int64_t image_number(const f2b_batch *batch, int64_t i)
{
    int64_t first = 0;
    while (first < i && !(batch->samples[first].has_image &&
                          memcmp(batch->samples[first].image_hash, batch->samples[i].image_hash,
                                 F2B_CONTENT_HASH_BYTES) == 0))
        first++;
    return first + 1;
}

f2b_step_sample *f2b_step_samples(const f2b_config *c, const f2b_batch *batch)
{
    f2b_step_sample *samples = f2b_calloc((size_t)batch->n, sizeof *samples, F2B_TAG_OTHER);
    for (int64_t i = 0; samples != NULL && i < batch->n; i++) {
        const f2b_sample *from = &batch->samples[i];
        samples[i] =
            (f2b_step_sample){ tokens_of(&from->conversation), tokens_of(&from->image_prompt),
                               tokens_of(&from->caption_prompt), from->has_image,
                               c->sampler.group_images && from->has_image ? image_number(batch, i)
                                                                          : 0 };
    }
    return samples;
}

f2b_step_input f2b_step_input_of(const f2b_config *c, const f2b_batch *batch,
                                 const f2b_step_sample *samples, int64_t checkpoint_layers)
{
    return (f2b_step_input){
        .autoregressive = batch->kind != F2B_BATCH_CAPTION,
        .contrastive = batch->kind != F2B_BATCH_CONVERSATION,
        .n = batch->n, .samples = samples, .micro_batch_tokens = c->train.micro_batch_tokens,
        .settings = { .checkpoint = checkpoint_layers,
                      .dropout = { (float)c->lora.dropout, (uint64_t)c->train.seed,
                                   (uint64_t)batch->step } },
    };
}
