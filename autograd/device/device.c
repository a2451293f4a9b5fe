/* Finds the functions of a device; the host's own are here. See device.h. */
#include "autograd/device/device.h"

#include <stdio.h>
#include <string.h>

#include "autograd/device/device_memory.h"

const char *f2b_device_name(f2b_device device)
{
    static _Thread_local char ring[4][24];
    static _Thread_local int next;
    char *text = ring[next++ % 4];
    if (device.kind == F2B_CPU) snprintf(text, sizeof ring[0], "cpu");
    else snprintf(text, sizeof ring[0], "cuda:%d", device.index);
    return text;
}

static const f2bi_device_functions *functions(f2b_device_kind kind)
{
    return kind == F2B_CUDA ? &f2bi_cuda_functions : NULL;
}

bool f2b_device_built(f2b_device_kind kind) { return kind == F2B_CPU || functions(kind) != NULL; }

static f2b_status missing(f2b_device device)
{
    return f2b_fail(F2B_ERR_UNSUPPORTED, "%s is not part of this build; use --device cpu, or build "
                    "with cmake --preset cuda", f2b_device_name(device));
}

f2b_status f2b_device_open(f2b_device device)
{
    if (device.kind == F2B_CPU) return F2B_OK;
    const f2bi_device_functions *f = functions(device.kind);
    return f != NULL ? f->open(device.index) : missing(device);
}

f2b_status f2b_device_describe(f2b_device device, char *text, size_t size)
{
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->describe(device.index, text, size);
    if (device.kind != F2B_CPU) return missing(device);
    snprintf(text, size, "cpu");
    return F2B_OK;
}

f2b_status f2b_device_wait(f2b_device device)
{
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->wait(device.index);
    return device.kind == F2B_CPU ? F2B_OK : missing(device);
}

f2b_status f2b_copy(void *dst, f2b_device to, const void *src, f2b_device from, size_t bytes)
{
    if (bytes == 0) return F2B_OK;
    if (to.kind == F2B_CPU && from.kind == F2B_CPU) {
        memmove(dst, src, bytes);
        return F2B_OK;
    }
    const f2b_device device = to.kind == F2B_CPU ? from : to;
    const f2bi_device_functions *f = functions(device.kind);
    if (f == NULL) return missing(device);
    if (from.kind == F2B_CPU) return f->copy_in(to.index, dst, src, bytes);
    if (to.kind == F2B_CPU) return f->copy_out(from.index, dst, src, bytes);
    if (to.index != from.index)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "no copy from %s to %s: a process uses one device",
                        f2b_device_name(from), f2b_device_name(to));
    return f->copy_within(to.index, dst, src, bytes);
}

f2b_status f2b_zero(void *dst, f2b_device device, size_t bytes)
{
    if (bytes == 0) return F2B_OK;
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->zero(device.index, dst, bytes);
    if (device.kind != F2B_CPU) return missing(device);
    memset(dst, 0, bytes);
    return F2B_OK;
}

static f2b_status add_on_host(f2b_dtype dtype, void *dst, const void *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        switch (dtype) {
        case F2B_F32: ((float *)dst)[i] += ((const float *)src)[i]; break;
        case F2B_F64: ((double *)dst)[i] += ((const double *)src)[i]; break;
        default: {
            f2b_bf16 *d = (f2b_bf16 *)dst + i;
            *d = f2b_f32_to_bf16(f2b_bf16_to_f32(*d) + f2b_bf16_to_f32(((const f2b_bf16 *)src)[i]));
        }
        }
    }
    return F2B_OK;
}

f2b_status f2b_add_into(f2b_device device, f2b_dtype dtype, void *dst, const void *src, int64_t n)
{
    if (n == 0) return F2B_OK;
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->add_into(device.index, dtype, dst, src, n);
    return device.kind == F2B_CPU ? add_on_host(dtype, dst, src, n) : missing(device);
}

/* ---- Behind f2b_alloc and f2b_free ---- */

void *f2bi_device_alloc(f2b_device device, size_t bytes, f2b_tag tag)
{
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->alloc(device.index, bytes, tag);
    (void)missing(device);
    return NULL;
}

bool f2bi_device_free(void *block)
{
    const f2bi_device_functions *f = functions(F2B_CUDA);
    return f != NULL && f->free_block(block);
}

void f2bi_device_trim(void)
{
    const f2bi_device_functions *f = functions(F2B_CUDA);
    if (f != NULL) f->trim();
}
