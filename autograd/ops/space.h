/*
 * What the kernels of the ops take from the allocator beside inputs and outputs, on the host (space.c)
 * and on other devices (space_device.c): the rule of tape.h's rehearsals. An op without a line takes
 * nothing. What is kept for backward is exact; work space is exact where it grows with the rows, and on
 * the host within the size of a matrix product's packed panels (some MiB) elsewhere.
 */
#ifndef F2B_AUTOGRAD_OPS_SPACE_H
#define F2B_AUTOGRAD_OPS_SPACE_H

#include "autograd/core/tape.h"

f2b_space f2b_op_space(const struct f2b_node *node);

#endif
