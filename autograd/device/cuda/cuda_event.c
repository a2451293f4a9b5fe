/*
 * Moments of a device's work (device.h) are CUDA events on its one stream, with a clock. Who waits for
 * one sleeps: it may be a thread beside those that compute.
 */
#include "autograd/device/cuda/cuda_device.h"

f2b_status f2bi_cuda_event_new(int index, void **event)
{
    cudaEvent_t e;
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaEventCreateWithFlags(&e, cudaEventBlockingSync));
    *event = e;
    return F2B_OK;
}

void f2bi_cuda_event_free(void *event) { (void)cudaEventDestroy((cudaEvent_t)event); }

f2b_status f2bi_cuda_event_set(int index, void *event)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaEventRecord((cudaEvent_t)event, f2bi_cuda_stream(index)));
    return F2B_OK;
}

/* "Not ready" is no error, but CUDA notes it as one. Of a device that failed, everything has passed: who
 * waits for it hears of the error. */
bool f2bi_cuda_event_passed(void *event)
{
    if (cudaEventQuery((cudaEvent_t)event) != cudaErrorNotReady) return true;
    (void)cudaGetLastError();
    return false;
}

f2b_status f2bi_cuda_event_wait(int index, void *event)
{
    F2B_TRY(f2bi_cuda_select(index));
    F2BI_CUDA_TRY(index, cudaEventSynchronize((cudaEvent_t)event));
    return F2B_OK;
}

f2b_status f2bi_cuda_event_seconds(int index, void *from, void *to, double *seconds)
{
    float milliseconds;
    F2BI_CUDA_TRY(index, cudaEventElapsedTime(&milliseconds, (cudaEvent_t)from, (cudaEvent_t)to));
    *seconds = 1e-3 * (double)milliseconds;
    return F2B_OK;
}
