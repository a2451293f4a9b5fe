/*
 * CUDA launchers of attention: which family of kernels (attention_cuda.cuh) computes a node. That is
 * `tensor` where it can and `plain` elsewhere, unless F2B_CUDA_ATTENTION in the environment names one.
 */
#include <stdlib.h>
#include <string.h>

#include "autograd/ops/attention/attention_cuda.cuh"

F2B_DECLARE_KERNELS(f2bi_attention_forward);
F2B_DECLARE_KERNELS(f2bi_attention_backward);

static attention_view view_of(const f2b_node *n)
{
    const attention_attr *a = (const attention_attr *)n->attr;
    attention_view w;
    memset(&w, 0, sizeof w);
    w.q = (const T *)n->in[ATT_Q]->data, w.k = (const T *)n->in[ATT_K]->data;
    w.v = (const T *)n->in[ATT_V]->data;
    w.q_start = (const int *)n->in[ATT_Q_START]->data, w.k_start = (const int *)n->in[ATT_K_START]->data;
    w.k_count = (const int *)n->in[ATT_K_COUNT]->data, w.limit = (const int *)n->in[ATT_LIMIT]->data;
    w.n = f2b_numel(n->in[ATT_K_START]), w.Tq = n->in[ATT_Q]->shape[0], w.Tk = n->in[ATT_K]->shape[0];
    w.q_width = n->in[ATT_Q]->shape[1], w.k_width = n->in[ATT_K]->shape[1];
    w.heads = (int)(w.q_width / a->head_dim), w.kv_heads = (int)(w.k_width / a->head_dim);
    w.D = (int)a->head_dim, w.scale = (real)a->scale;
    w.scale_2 = (real)(a->scale * 1.4426950408889634);
    return w;
}

/* Why the tensor cores can't, or NULL. Their kernels take the largest score before it is scaled, and
 * copy 16 bytes at a time. */
static const char *not_for_tensor_cores(const attention_view *w)
{
    const uintptr_t places = (uintptr_t)w->q | (uintptr_t)w->k | (uintptr_t)w->v;
    if (F2B_KERNEL_DTYPE != F2B_BF16) return "f32";
    if (w->D != 64 && w->D != 128) return "heads of another width than 64 and 128";
    if (!(w->scale > 0)) return "a scale that isn't positive";
    return places % 16 != 0 ? "rows that don't begin at a multiple of 16 bytes" : NULL;
}

static f2b_status choose(const attention_view *w, bool *tensor)
{
    const char *name = getenv("F2B_CUDA_ATTENTION"), *reason = not_for_tensor_cores(w);
    *tensor = reason == NULL;
    if (w->D > ATT_CUDA_MAX_D)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "attention: heads of %d, but CUDA kernels are for %d at most",
                        w->D, (int)ATT_CUDA_MAX_D);
    if (name == NULL || name[0] == '\0') return F2B_OK;
    if (strcmp(name, "plain") == 0) {
        *tensor = false;
        return F2B_OK;
    }
    if (strcmp(name, "tensor") != 0)
        return f2b_fail(F2B_ERR_USAGE, "F2B_CUDA_ATTENTION: \"%s\" is no family of kernels; there are "
                        "plain and tensor", name);
    if (reason != NULL)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "attention: F2B_CUDA_ATTENTION asks for tensor cores, "
                        "which have no kernel for %s", reason);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_attention_forward)(f2b_node *n)
{
    const attention_view w = view_of(n);
    T *const o = (T *)n->out[0]->data;
    void *lse;
    bool tensor;
    F2B_TRY(choose(&w, &tensor));
    n->flops = attention_flops(n);
    F2B_TRY(f2b_node_save(n, 0, (size_t)(w.heads * w.Tq) * sizeof(real), &lse));
    if (w.Tq * w.heads == 0) return F2B_OK;
    const f2bi_fault fault = f2bi_fault_of(n, "attention: layout");
#if defined(F2B_KERNEL_BF16)
    if (tensor) f2bi_attention_tensor_forward(&w, o, (real *)lse, fault, f2bi_stream(n));
#endif
    if (!tensor) KERNEL(f2bi_attention_plain_forward)(&w, o, (real *)lse, fault, f2bi_stream(n));
    return f2bi_launched(n);
}

f2b_status KERNEL(f2bi_attention_backward)(f2b_node *n)
{
    const attention_view w = view_of(n);
    attention_gradients g;
    bool fresh = false, tensor;
    F2B_TRY(choose(&w, &tensor));
    n->flops = 2.5 * attention_flops(n);
    g.o = (const T *)n->out[0]->data, g.d_o = (const T *)n->out[0]->grad;
    g.lse = (const real *)n->saved[0];
    g.dq = (T *)f2b_node_grad(n, ATT_Q, &fresh);
    g.fresh_q = fresh;
    g.dk = (T *)f2b_node_grad(n, ATT_K, NULL);      /* rows outside all sequences get zero */
    g.dv = (T *)f2b_node_grad(n, ATT_V, NULL);
    if (w.Tq * w.heads == 0) return F2B_OK;
    g.delta = (real *)f2bi_scratch(n, (size_t)(w.Tq * w.heads) * sizeof(real));
    if (g.delta == NULL) return F2B_ERR_MEMORY;
#if defined(F2B_KERNEL_BF16)
    if (tensor) f2bi_attention_tensor_backward(&w, &g, f2bi_stream(n));
#endif
    if (!tensor) KERNEL(f2bi_attention_plain_backward)(&w, &g, f2bi_stream(n));
    f2b_free(g.delta);
    return f2bi_launched(n);
}
