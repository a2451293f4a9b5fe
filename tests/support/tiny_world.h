/*
 * The smallest world that a run can train on: the toy world with 24 images and a model of two
 * layers, and a configuration run.yaml that has all three kinds of batch, dropout, and GradCache. A
 * step takes milliseconds.
 */
#ifndef F2B_TESTS_SUPPORT_TINY_WORLD_H
#define F2B_TESTS_SUPPORT_TINY_WORLD_H

#include "autograd/core/status.h"

/** Write the world into `dir`, with run.yaml, whose run goes to dir/run. */
f2b_status f2b_tiny_world_write(const char *dir) F2B_MUST_USE;

#endif
