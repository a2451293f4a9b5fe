/* CUDA kernels of dropout. */
#include "autograd/ops/dropout/dropout_cuda.cuh"

F2B_DECLARE_KERNELS(f2bi_dropout_forward);
F2B_DECLARE_KERNELS(f2bi_dropout_backward);

f2b_status KERNEL(f2bi_dropout_forward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[0];
    F2B_TRY(f2bi_drop_rows(n, (const f2b_dropout *)n->attr, (T *)n->out[0]->data, true,
                           (const T *)x->data, NULL, f2b_rows(x), f2b_dim(x, -1)));
    return f2bi_launched(n);
}

f2b_status KERNEL(f2bi_dropout_backward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[0];
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    F2B_TRY(f2bi_drop_rows(n, (const f2b_dropout *)n->attr, dx, fresh, (const T *)n->out[0]->grad,
                           NULL, f2b_rows(x), f2b_dim(x, -1)));
    return f2bi_launched(n);
}
