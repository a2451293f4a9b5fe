/* Builds without a GPU: no device memory. */
#include "autograd/device/device_memory.h"

void *f2bi_device_alloc(f2b_device device, size_t bytes, f2b_tag tag)
{
    (void)bytes, (void)tag;
    (void)f2b_fail(F2B_ERR_UNSUPPORTED, "device kind %d:%d is not part of this build; use --device cpu",
                   (int)device.kind, device.index);
    return NULL;
}

bool f2bi_device_free(void *block)
{
    (void)block;
    return false;
}
