/*
 * What the kernels of the ops take from the allocator beside inputs and outputs, on the host (space.c)
 * and on other devices (space_device.c): the rule of tape.h's rehearsals. An op without a line takes
 * nothing. What is kept for backward is exact, and so is work space where it grows with the rows or is a
 * matrix product's.
 */
#ifndef F2B_AUTOGRAD_OPS_SPACE_H
#define F2B_AUTOGRAD_OPS_SPACE_H

#include "autograd/core/tape.h"

f2b_space f2b_op_space(const struct f2b_node *node);

#endif
