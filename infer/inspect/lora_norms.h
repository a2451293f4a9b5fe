/*
 * How much each adapter changes its linear: the Frobenius norm of s * B * A, s = alpha / r (the
 * paper's Figure 3).
 */
#ifndef F2B_INFER_INSPECT_LORA_NORMS_H
#define F2B_INFER_INSPECT_LORA_NORMS_H

#include "checkpoints/state.h"

/** One adapted linear. Texts belong to the list. */
typedef struct f2b_lora_norm {
    const char *module;         /* "language_model.model.layers.3.self_attn.q_proj" */
    const char *projection;     /* its last word: "q_proj" */
    const char *stage;          /* "compression", "generation", or "shared" */
    bool tower;                 /* of the vision tower (method.forward single) */
    int64_t layer;
    int64_t out, in, r;
    double norm;
} f2b_lora_norm;

typedef struct f2b_lora_norms {
    f2b_lora_norm *items;       /* by part, layer, projection in the order of the model, stage */
    int64_t n, capacity;
    double scale;               /* s */
    int64_t step;
} f2b_lora_norms;

/**
 * All adapters of a run, a checkpoint or an export; the base is not needed. Exact: from the Gram
 * matrices of A and B in f64, |B A|^2 = sum_ij (B^T B)_ij (A A^T)_ij, without forming B A.
 *
 * notify  told of damaged checkpoints that were passed over, may be NULL.
 * norms   zero-initialised by the caller, for f2b_lora_norms_clear also on failure.
 * errors  F2B_ERR_DATA: no adapter there; F2B_ERR_FORMAT: an A without its B, shapes that do not
 *         fit; those of opening.
 */
f2b_status f2b_lora_norms_read(const char *path, f2b_state_notify *notify, void *user,
                               f2b_lora_norms *norms) F2B_MUST_USE;
void f2b_lora_norms_clear(f2b_lora_norms *norms);

/** Draw them: a panel a stage (and one for the tower), a line a projection. */
f2b_status f2b_lora_norms_draw(const f2b_lora_norms *norms, const char *path) F2B_MUST_USE;

#endif
