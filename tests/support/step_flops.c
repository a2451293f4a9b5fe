/* See step_flops.h. */
#include "tests/support/step_flops.h"

/* All layers of the language model for a sequence of n rows, forward and backward. */
static double sequence(const f2b_text_config *t, int64_t r, int64_t n)
{
    const double d = (double)t->hidden, ff = (double)t->intermediate, rows = (double)n;
    const double q = (double)(t->heads * t->head_dim), kv = (double)(t->kv_heads * t->head_dim);
    const double weights = 2 * d * q + 2 * d * kv + 3 * d * ff;
    const double lora = (double)r * (2 * (d + q) + 2 * (d + kv) + 3 * (d + ff));
    const double attention = 2 * rows * rows * q; /* two products, half of the square each */
    return (double)t->layers * (2 * rows * (2 * weights + 3 * lora) + 3.5 * attention);
}

/* Tower and projector for one image, forward. */
static double image(const f2b_model_config *m)
{
    const f2b_vision_config *v = &m->vision;
    const double w = (double)v->hidden, patches = (double)f2b_vision_patches(v), rows = patches + 1;
    const double d = (double)m->text.hidden;
    const double layer =
        2 * rows * (4 * w * w + 2 * w * (double)v->intermediate) + 4 * rows * rows * w;
    return 2 * patches * w * (double)(3 * v->patch * v->patch) + (double)m->feature_layer * layer +
           2 * (double)f2b_image_tokens(m) * (w * d + d * d);
}

double f2b_sample_flops(const f2b_model_config *m, int64_t r, const f2b_sample_shape *s)
{
    const f2b_text_config *t = &m->text;
    return (s->image > 0 ? image(m) : 0) + sequence(t, r, s->image) + sequence(t, r, s->caption) +
           sequence(t, r, s->conversation) +
           4 * (double)s->labelled * (double)t->hidden * (double)t->vocab;
}
