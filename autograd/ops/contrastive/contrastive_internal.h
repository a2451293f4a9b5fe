#ifndef F2B_AUTOGRAD_OPS_CONTRASTIVE_CONTRASTIVE_INTERNAL_H
#define F2B_AUTOGRAD_OPS_CONTRASTIVE_CONTRASTIVE_INTERNAL_H

#include "autograd/core/op.h"

typedef struct f2bi_contrastive_attr {
    double temperature;         /* used where there is no log_temperature input */
} f2bi_contrastive_attr;

#endif
