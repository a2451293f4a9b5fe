/* Some rows of a [., D] array, put together and put back, on a CUDA device. */
#ifndef F2B_AUTOGRAD_OPS_LINEAR_PICKED_ROWS_CUH
#define F2B_AUTOGRAD_OPS_LINEAR_PICKED_ROWS_CUH

#include "autograd/device/cuda/kernel.cuh"

/* A block a picked row: together[m] = apart[picked[m]], or the other way round. */
static __global__ void f2bi_move_rows(T *together, T *apart, const int32_t *picked, bool back, int64_t D)
{
    T *a = together + blockIdx.x * D, *b = apart + (int64_t)picked[blockIdx.x] * D;
    T *to = back ? b : a, *from = back ? a : b;
    for (int64_t c = (int64_t)threadIdx.x * WIDE; c < D; c += (int64_t)blockDim.x * WIDE) {
        real v[WIDE];
        f2bi_read(v, from, c, D);
        f2bi_write(to, c, D, v);
    }
}

static inline void f2bi_pick_rows(const f2b_node *n, T *together, const T *apart, const int32_t *picked,
                                  int64_t M, int64_t D)
{
    F2B_LAUNCH(f2bi_move_rows, (unsigned)M, f2bi_row_threads(D), 0, f2bi_stream(n), together, (T *)apart,
               picked, false, D);
}

static inline void f2bi_put_rows(const f2b_node *n, T *apart, T *together, const int32_t *picked, int64_t M,
                                 int64_t D)
{
    F2B_LAUNCH(f2bi_move_rows, (unsigned)M, f2bi_row_threads(D), 0, f2bi_stream(n), together, apart, picked,
               true, D);
}

#endif
