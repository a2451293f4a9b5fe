#ifndef F2B_AUTOGRAD_OPS_ADAMW_ADAMW_INTERNAL_H
#define F2B_AUTOGRAD_OPS_ADAMW_ADAMW_INTERNAL_H

#include "autograd/ops/adamw/adamw.h"
#include "autograd/ops/grad_norm/grad_norm.h"

/* What one element's update needs, rounded to f32 once. */
typedef struct f2bi_adamw_terms {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float keep;                 /* 1 - learning_rate * weight_decay */
    float step;                 /* learning_rate / (1 - beta1^count) */
    float root_correction;      /* sqrt(1 - beta2^count) */
    float eps;
    float least;                /* -infinity: none */
    float no_padding;
    double max_norm;
    const double *norm;         /* or NULL */
} f2bi_adamw_terms;

/** What gradients are multiplied by; false where nothing is to be changed. */
static inline F2B_ANYWHERE bool f2bi_adamw_factor(const f2bi_adamw_terms *t, float *factor)
{
    *factor = 1;
    if (t->norm == NULL) return true;
    *factor = (float)f2b_clip_factor(*t->norm, t->max_norm);
    return *t->norm - *t->norm == 0;        /* finite */
}

/** One device's update of n elements; index is the device's number. */
typedef f2b_status f2bi_adamw_kernel(int index, float *p, const float *grad, float *m, float *v,
                                     int64_t n, f2bi_adamw_terms t);
#ifdef __cplusplus
extern "C" f2bi_adamw_kernel f2bi_adamw_cuda;
#else
f2bi_adamw_kernel f2bi_adamw_cpu, f2bi_adamw_cuda F2B_WEAK;
#endif

#endif
