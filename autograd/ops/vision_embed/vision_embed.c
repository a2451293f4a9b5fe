/* Checks and descriptor of vision_embed. */
#include "autograd/ops/vision_embed/vision_embed.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_vision_embed_forward);
F2B_DECLARE_KERNELS(f2bi_vision_embed_backward);

static const f2b_op op_vision_embed = {
    .name = "vision_embed",
    .forward = { F2B_KERNELS(f2bi_vision_embed_forward) },
    .backward = { F2B_KERNELS(f2bi_vision_embed_backward) },
};

f2b_tensor *f2b_vision_embed(f2b_tape *tape, f2b_tensor *patches, f2b_tensor *class_embedding,
                             f2b_tensor *positions)
{
    const char *op = op_vision_embed.name;
    if (patches == NULL || class_embedding == NULL || positions == NULL) return NULL;
    if (!f2bi_check_activation(op, "patches", patches)
        || !f2bi_check_shape(op, "patches", patches, 2, (int64_t[]){ -1, -1 }))
        return NULL;
    const int64_t D = f2b_dim(patches, 1);
    if (!f2bi_check_parameter(op, "class_embedding", class_embedding)
        || !f2bi_check_shape(op, "class_embedding", class_embedding, 1, (int64_t[]){ D })
        || !f2bi_check_parameter(op, "positions", positions)
        || !f2bi_check_shape(op, "positions", positions, 2, (int64_t[]){ -1, D }))
        return NULL;
    const int64_t G = f2b_dim(positions, 0) - 1;
    F2B_RETURN_NULL_IF(G < 1 || f2b_dim(patches, 0) % G != 0, F2B_ERR_SHAPE,
                       "%s: positions %s are not for images that make patches %s", op,
                       f2b_tensor_describe(positions), f2b_tensor_describe(patches));
    const int64_t images = f2b_dim(patches, 0) / G;
    f2b_node *n = f2b_node_new(tape, &op_vision_embed, patches->dtype,
                               (f2b_tensor *[]){ patches, class_embedding, positions }, 3, NULL, 0);
    f2b_tensor *y = f2b_node_out(n, patches->dtype, 2, (int64_t[]){ images * (1 + G), D });
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
