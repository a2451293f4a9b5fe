/* Finds the functions of a device; the host's own are here. See device.h. */
#include "autograd/device/device.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

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

f2b_status f2b_device_takes_fp8(f2b_device device)
{
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->takes_fp8(device.index);
    if (device.kind != F2B_CPU) return missing(device);
    return f2b_fail(F2B_ERR_UNSUPPORTED, "the processor has no products of 8-bit floats: train.precision "
                    "fp8 is for CUDA devices from sm_89; use bf16");
}

bool f2b_device_scales_fp8(f2b_device device)
{
    const f2bi_device_functions *f = functions(device.kind);
    return f != NULL && f->scales_fp8(device.index);
}

f2b_status f2b_device_available(f2b_device device, int64_t *bytes)
{
    const f2bi_device_functions *f = functions(device.kind);
    return f != NULL ? f->available(device.index, bytes) : missing(device);
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

/* ---- Moments, and copies beside work ---- */

struct f2b_moment {
    f2b_device device;
    void *event;                /* of a device other than the host */
    double time;                /* of the host: when it was set, for what is asked there is done */
};

static double host_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

f2b_moment *f2b_moment_new(f2b_device device)
{
    f2b_moment *m = f2b_calloc(1, sizeof *m, F2B_TAG_OTHER);
    if (m == NULL) return NULL;
    m->device = device;
    const f2bi_device_functions *f = functions(device.kind);
    if (device.kind == F2B_CPU) return m;
    if ((f != NULL ? f->event_new(device.index, &m->event) : missing(device)) == F2B_OK) return m;
    f2b_free(m);
    return NULL;
}

void f2b_moment_free(f2b_moment *m)
{
    if (m == NULL) return;
    if (m->event != NULL) functions(m->device.kind)->event_free(m->event);
    f2b_free(m);
}

f2b_device f2b_moment_device(const f2b_moment *m) { return m->device; }

f2b_status f2b_moment_set(f2b_moment *m)
{
    if (m->event != NULL) return functions(m->device.kind)->event_set(m->device.index, m->event);
    m->time = host_time();
    return F2B_OK;
}

bool f2b_moment_passed(const f2b_moment *m)
{
    return m->event == NULL || functions(m->device.kind)->event_passed(m->event);
}

f2b_status f2b_moment_wait(const f2b_moment *m)
{
    if (m->event == NULL) return F2B_OK;
    return functions(m->device.kind)->event_wait(m->device.index, m->event);
}

f2b_status f2b_moment_seconds(const f2b_moment *from, const f2b_moment *to, double *seconds)
{
    *seconds = to->time - from->time;
    if (from->event == NULL || to->event == NULL) return F2B_OK;
    return functions(to->device.kind)->event_seconds(to->device.index, from->event, to->event, seconds);
}

f2b_status f2b_copy_later(void *dst, const void *src, f2b_device from, size_t bytes)
{
    if (from.kind == F2B_CPU || bytes == 0) return f2b_copy(dst, F2B_HOST, src, from, bytes);
    const f2bi_device_functions *f = functions(from.kind);
    return f != NULL ? f->copy_later(from.index, dst, src, bytes) : missing(from);
}

f2b_status f2b_pin(f2b_device device, void *block, size_t bytes)
{
    if (device.kind == F2B_CPU || bytes == 0) return F2B_OK;
    const f2bi_device_functions *f = functions(device.kind);
    return f != NULL ? f->pin(device.index, block, bytes) : missing(device);
}

void f2b_unpin(f2b_device device, void *block)
{
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) f->unpin(block);
}

f2b_status f2b_widen(f2b_device device, double *dst, const void *src, f2b_dtype dtype)
{
    const f2bi_device_functions *f = functions(device.kind);
    if (f != NULL) return f->widen(device.index, dst, src, dtype);
    if (device.kind != F2B_CPU) return missing(device);
    *dst = dtype == F2B_F64 ? *(const double *)src : (double)*(const float *)src;
    return F2B_OK;
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
