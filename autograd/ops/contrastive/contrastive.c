/* Checks and descriptor of the contrastive loss. */
#include "autograd/ops/contrastive/contrastive.h"

#include "autograd/ops/checks.h"
#include "autograd/ops/contrastive/contrastive_internal.h"

F2B_DECLARE_KERNELS(f2bi_contrastive_forward);
F2B_DECLARE_KERNELS(f2bi_contrastive_backward);

static const f2b_op op_contrastive = {
    .name = "contrastive", .backward_reads_in = 1u << 2,
    .forward = { F2B_KERNELS(f2bi_contrastive_forward) },
    .backward = { F2B_KERNELS(f2bi_contrastive_backward) },
};

f2b_tensor *f2b_contrastive(f2b_tape *tape, f2b_tensor *ev, f2b_tensor *et,
                            f2b_tensor *log_temperature, double temperature)
{
    if (ev == NULL || et == NULL) return NULL;
    if (!f2bi_check_activation("contrastive", "ev", ev)
        || !f2bi_check_shape("contrastive", "ev", ev, 2, (int64_t[]){ -1, -1 })
        || !f2bi_check_same("contrastive", ev, et))
        return NULL;
    F2B_RETURN_NULL_IF(f2b_dim(ev, 0) < 1, F2B_ERR_SHAPE, "contrastive: there is no pair");
    if (log_temperature != NULL) {
        if (!f2bi_check_parameter("contrastive", "log_temperature", log_temperature)
            || !f2bi_check_shape("contrastive", "log_temperature", log_temperature, 1,
                                 (int64_t[]){ 1 }))
            return NULL;
    } else {
        F2B_RETURN_NULL_IF(!(temperature > 0), F2B_ERR_INVALID,
                           "contrastive: the temperature must be above 0, got %g", temperature);
    }
    const f2bi_contrastive_attr attr = { .temperature = temperature };
    f2b_node *n = f2b_node_new(tape, &op_contrastive, ev->dtype,
                               (f2b_tensor *[]){ ev, et, log_temperature }, 3, &attr, sizeof attr);
    const f2b_dtype result = ev->dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    f2b_tensor *loss = f2b_node_out(n, result, 1, (int64_t[]){ 1 });
    return f2b_node_run(n) == F2B_OK ? loss : NULL;
}
