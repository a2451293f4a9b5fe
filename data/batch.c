/* See batch.h. */
#include "data/batch.h"

#include "autograd/core/alloc.h"

static void sequence_free(f2b_sequence *s)
{
    f2b_free(s->ids);
    f2b_free(s->labels);
}

void f2b_batch_free(f2b_batch *batch)
{
    if (batch == NULL) return;
    for (int64_t i = 0; i < batch->n; i++) {
        f2b_sample *s = &batch->samples[i];
        f2b_free(s->id);
        f2b_free(s->pixels);
        sequence_free(&s->conversation);
        sequence_free(&s->image_prompt);
        sequence_free(&s->caption_prompt);
    }
    f2b_free(batch->samples);
    f2b_free(batch);
}
