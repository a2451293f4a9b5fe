/* The trained model that a command line names: --checkpoint, --model, --vision-path, --precision,
 * --weights. */
#ifndef F2B_CLI_MODEL_CHOICE_H
#define F2B_CLI_MODEL_CHOICE_H

#include "infer/trained_model.h"

/** Texts as given; NULL where nothing was. */
typedef struct f2b_model_choice {
    const char *checkpoint, *model, *vision;
    const char *precision;      /* "f32", "bf16" */
    const char *weights;        /* "auto" (as the files have them), "f32", "bf16", "f16",
                                 * "int8", "nf4" */
    bool text_only;             /* without tower and projector */
} f2b_model_choice;

/** Open it. notify: told of checkpoints that are passed over. NULL on error. */
f2b_trained_model *f2b_model_choice_open(const f2b_model_choice *choice, f2b_device device,
                                         f2b_state_notify *notify, void *user);

#endif
