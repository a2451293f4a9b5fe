/*
 * A checkpoint to an export that is proven to work: every tensor is read back and compared, and the
 * exported adapters, loaded as a user would, must change what the model computes in every stage.
 */
#ifndef F2B_INFER_EXPORT_MODEL_H
#define F2B_INFER_EXPORT_MODEL_H

#include "checkpoints/peft.h"
#include "infer/trained_model.h"

/** By how much the hidden states of a fixed input differ with and without what was trained:
 *  |with - without| / |without|; 0 for a stage that has no adapter, or one that was never trained
 *  (every B zero, as L_disc alone leaves the generation adapter). */
typedef struct f2b_export_proof {
    double compression, generation;
    int64_t tensors;            /* read back and equal to the bit */
    bool pre_norm;              /* summary.hidden_state: pre_norm, which llama.cpp cannot give */
} f2b_export_proof;

typedef struct f2b_export_model_options {
    const char *from;           /* a run, a checkpoint or an export */
    const char *to;             /* the folder; an earlier export is replaced */
    const char *model, *vision; /* base folders, NULL where the run says where they are */
    f2b_export_form form;       /* for PEFT, or for llama.cpp */
    f2b_export_names names;     /* PEFT: how keys name the base's modules */
    f2b_device device;
} f2b_export_model_options;

/**
 * Write adapters, summary tokens and whatever else was trained (checkpoints/peft.h), and prove it
 * before it is put in place. Fails where a tensor differs, a trained adapter changes nothing, or no
 * adapter is trained (F2B_ERR_INVALID); what was at `to` then stays.
 */
f2b_status f2b_export_model(const f2b_export_model_options *options,
                            f2b_export_proof *proof) F2B_MUST_USE;

#endif
