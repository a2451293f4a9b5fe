/*
 * A training step on a case from files (tests/oracle/README.md has the formats): read the model, the
 * configuration, the batch and the initial values; run the step; hand out losses and gradients. For
 * step_dump, which the oracle calls, and for the golden cases in C. Errors end the program.
 */
#ifndef F2B_TESTS_SUPPORT_STEP_CASE_H
#define F2B_TESTS_SUPPORT_STEP_CASE_H

#include "checkpoints/model_folder.h"
#include "checkpoints/safetensors.h"
#include "nn/step.h"
#include "train/config.h"

enum { F2B_CASE_SAMPLES = 64, F2B_CASE_ARRAYS = 4096 };

typedef struct f2b_case_batch {
    f2b_step_sample samples[F2B_CASE_SAMPLES];
    const float *pixels[F2B_CASE_SAMPLES];
    int64_t n, image_floats;
    bool captions, conversations;
} f2b_case_batch;

typedef struct f2b_step_case {
    f2b_config *config;
    f2b_model_folder *folder;
    f2b_model *model;
    f2b_safetensors *pixels;    /* what batch.pixels points into */
    f2b_case_batch batch;
    f2b_step_input input;
    f2b_step_result result;
    float *gradients;           /* of all parameters, as f2b_step_case_arrays read them */
} f2b_step_case;

/** Open everything; `rows` is the micro-batch's. */
f2b_step_case *f2b_step_case_open(const char *model, const char *config, const char *batch,
                                  int64_t rows);

/** The same on a device, with other settings (f2b_config_load's overrides); then, where `drawn`, not
 *  with the case's initial values but with random ones, all adapters among them. */
typedef struct f2b_case_setting {
    f2b_device device;
    const char *const *overrides;
    int n_overrides;
    bool drawn;
} f2b_case_setting;
f2b_step_case *f2b_step_case_open_as(const char *model, const char *config, const char *batch,
                                     int64_t rows, const f2b_case_setting *setting);
void f2b_step_case_run(f2b_step_case *c);
void f2b_step_case_close(f2b_step_case *c);

/** Losses and gradients as the oracle names them: [F2B_CASE_ARRAYS] at most; their number. What they
 *  point to is the case's, until the next call. */
int64_t f2b_step_case_arrays(f2b_step_case *c, f2b_named_array *arrays);

#endif
