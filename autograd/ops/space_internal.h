/* What the rules of the host's kernels and of a device's share. */
#ifndef F2B_AUTOGRAD_OPS_SPACE_INTERNAL_H
#define F2B_AUTOGRAD_OPS_SPACE_INTERNAL_H

#include <stddef.h>

#include "autograd/core/op.h"

typedef struct f2bi_space_rule {
    const char *op;
    f2b_space (*rule)(const f2b_node *n);
} f2bi_space_rule;

/** By the rule of the node's op; nothing where there is none. */
f2b_space f2bi_space_by(const f2bi_space_rule *rules, size_t n_rules, const f2b_node *n);

/** f2b_op_space on a device other than the host. */
f2b_space f2bi_device_op_space(const f2b_node *n);

#endif
