/*
 * What the kernels of the ops take from the allocator beside inputs and outputs, on the host (space.c)
 * and on other devices (space_device.c): the rule of tape.h's rehearsals. An op without a line takes
 * nothing. What is kept for backward is exact; so is work space that grows with the rows, and nearly that of
 * matrix products: the stored types of operands, which decide what is packed, are not looked at.
 */
#ifndef F2B_AUTOGRAD_OPS_SPACE_H
#define F2B_AUTOGRAD_OPS_SPACE_H

#include "autograd/core/tape.h"

f2b_space f2b_op_space(const struct f2b_node *node);

#endif
