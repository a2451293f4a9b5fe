/*
 * Memory of devices other than the host, behind f2b_alloc and f2b_free. A build without such a
 * device answers with F2B_ERR_UNSUPPORTED and false.
 */
#ifndef F2B_AUTOGRAD_DEVICE_DEVICE_MEMORY_H
#define F2B_AUTOGRAD_DEVICE_DEVICE_MEMORY_H

#include <stdbool.h>

#include "autograd/core/alloc.h"

#ifdef __cplusplus
extern "C" {
#endif

void *f2bi_device_alloc(f2b_device device, size_t bytes, f2b_tag tag);
bool f2bi_device_free(void *block);         /* false: not a block of a device */
void f2bi_alloc_account(f2b_tag tag, int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
