/*
 * Streams and events. Work waits in its stream until somebody waits for it, as late as a device may
 * run it: a program that reads a result too early, or frees or changes memory that a copy still
 * needs, is found.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/emulation/emulation_internal.h"

typedef enum work_kind { WORK_COPY, WORK_FILL, WORK_LAUNCH, WORK_RECORD, WORK_WAIT } work_kind;

typedef struct work {
    work_kind kind;
    struct work *next;
    void *dst;
    const void *src;
    size_t bytes;
    int value;
    f2b_emu_launch launch;
    cudaEvent_t event;
    int64_t generation;             /* which record of the event is waited for */
    _Alignas(16) char arguments[];
} work;

struct f2b_emu_stream {
    work *first, **last;
    struct f2b_emu_stream *next;
    bool running;
};
struct f2b_emu_event {
    int64_t recorded, reached;      /* records asked for; records passed by their stream */
    cudaStream_t stream;            /* of the last record */
    bool has_clock;
    double time;                    /* the host's, when it was last reached */
};

static cudaStream_t all_streams;
static cudaError_t last_error;

static work *enqueue(cudaStream_t stream, work_kind kind, size_t argument_bytes)
{
    if (stream == NULL) f2b_emu_fault("the default stream is not for us: it waits for all others");
    work *w = calloc(1, sizeof *w + argument_bytes);
    if (w == NULL) f2b_emu_fault("no memory for a stream");
    w->kind = kind;
    *stream->last = w;
    stream->last = &w->next;
    return w;
}

static void drain_until(cudaStream_t stream, const struct f2b_emu_event *event, int64_t generation);

static void reach(struct f2b_emu_event *event, int64_t generation)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    event->time = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    event->reached = generation;
}

static void perform(work *w)
{
    switch (w->kind) {
    case WORK_COPY:
    case WORK_FILL:
        f2b_emu_unlock();
        if (w->kind == WORK_COPY) memmove(w->dst, w->src, w->bytes);
        else memset(w->dst, w->value, w->bytes);
        f2b_emu_lock();
        break;
    case WORK_LAUNCH: {
        const cudaError_t error = f2b_emu_run(&w->launch, w->arguments);
        if (error != cudaSuccess) last_error = error;
        break;
    }
    case WORK_RECORD: reach(w->event, w->generation); break;
    case WORK_WAIT: drain_until(w->event->stream, w->event, w->generation); break;
    }
}

/* Runs a stream's work, up to a record of `event` if one is given. */
static void drain_until(cudaStream_t stream, const struct f2b_emu_event *event, int64_t generation)
{
    if (stream == NULL || (event != NULL && event->reached >= generation)) return;
    if (stream->running) f2b_emu_fault("streams wait for each other in a circle");
    while (stream->first != NULL && (event == NULL || event->reached < generation)) {
        work *w = stream->first;
        stream->first = w->next;
        if (stream->first == NULL) stream->last = &stream->first;
        stream->running = true;
        perform(w);
        stream->running = false;
        free(w);
    }
}

static cudaError_t take_error(void)
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

void f2b_emu_enqueue(const f2b_emu_launch *launch, const void *arguments, size_t bytes,
                     cudaStream_t stream)
{
    F2B_EMU_TURN;
    const cudaError_t error = f2b_emu_check_launch(launch);
    if (error != cudaSuccess) {
        last_error = error;
        return;
    }
    f2b_emu_counts.launches++;
    if (f2b_emu_idle()) return;
    work *w = enqueue(stream, WORK_LAUNCH, bytes);
    w->launch = *launch;
    memcpy(w->arguments, arguments, bytes);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    F2B_EMU_TURN;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != (bool)f2b_emulation_owns(dst) || from_device != (bool)f2b_emulation_owns(src))
        return cudaErrorInvalidValue;
    f2b_emu_counts.copies++;
    if (f2b_emu_idle()) {
        if (bytes <= F2B_EMU_FEW_BYTES) memmove(dst, src, bytes);
        return cudaSuccess;
    }
    work *w = enqueue(stream, WORK_COPY, 0);
    w->dst = dst, w->src = src, w->bytes = bytes;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    F2B_EMU_TURN;
    if (!f2b_emulation_owns(dst)) return cudaErrorInvalidValue;
    f2b_emu_counts.fills++;
    if (f2b_emu_idle()) {
        if (bytes <= F2B_EMU_FEW_BYTES) memset(dst, value, bytes);
        return cudaSuccess;
    }
    work *w = enqueue(stream, WORK_FILL, 0);
    w->dst = dst, w->value = value, w->bytes = bytes;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    F2B_EMU_TURN;
    (void)flags;
    if (f2b_emu_devices == 0) return cudaErrorNoDevice;
    cudaStream_t s = calloc(1, sizeof *s);
    if (s == NULL) return cudaErrorMemoryAllocation;
    s->last = &s->first;
    s->next = all_streams;
    all_streams = s;
    *stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    F2B_EMU_TURN;
    drain_until(stream, NULL, 0);
    cudaStream_t *at = &all_streams;
    while (*at != stream) at = &(*at)->next;
    *at = stream->next;
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    F2B_EMU_TURN;
    f2b_emu_counts.waits++;
    drain_until(stream, NULL, 0);
    return take_error();
}

cudaError_t cudaDeviceSynchronize(void)
{
    F2B_EMU_TURN;
    for (cudaStream_t s = all_streams; s != NULL; s = s->next) drain_until(s, NULL, 0);
    return take_error();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = calloc(1, sizeof **event);
    if (*event == NULL) return cudaErrorMemoryAllocation;
    (*event)->has_clock = (flags & cudaEventDisableTiming) == 0;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    F2B_EMU_TURN;
    drain_until(event->stream, event, event->recorded);
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    F2B_EMU_TURN;
    work *w = enqueue(stream, WORK_RECORD, 0);
    w->event = event, w->generation = ++event->recorded;
    event->stream = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    F2B_EMU_TURN;
    (void)flags;
    work *w = enqueue(stream, WORK_WAIT, 0);
    w->event = event, w->generation = event->recorded;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    F2B_EMU_TURN;
    f2b_emu_counts.waits++;
    drain_until(event->stream, event, event->recorded);
    return take_error();
}

/* As CUDA does, the answer "not ready" is left as the last error. Nothing runs for being asked. */
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    F2B_EMU_TURN;
    if (event->reached < event->recorded) last_error = cudaErrorNotReady;
    return event->reached < event->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    F2B_EMU_TURN;
    if (!from->has_clock || !to->has_clock || from->recorded == 0 || to->recorded == 0)
        return cudaErrorInvalidResourceHandle;
    if (from->reached < from->recorded || to->reached < to->recorded) return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (to->time - from->time));
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    F2B_EMU_TURN;
    return take_error();
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = f2b_emu_devices;
    return f2b_emu_devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
    return device >= 0 && device < f2b_emu_devices ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    size_t available;
    if (device < 0 || device >= f2b_emu_devices) return cudaErrorInvalidDevice;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "emulated");
    properties->major = f2b_emu_capability / 10, properties->minor = f2b_emu_capability % 10;
    properties->multiProcessorCount = 4;
    return cudaMemGetInfo(&available, &properties->totalGlobalMem);
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    default: return "cudaErrorUnknown";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : cudaGetErrorName(error);
}
