/*
 * How a model folder wants its images: side, mean, standard deviation, colour of the padding.
 */
#ifndef F2B_DATA_IMAGE_IMAGE_SETTINGS_H
#define F2B_DATA_IMAGE_IMAGE_SETTINGS_H

#include <stdint.h>

#include "autograd/core/status.h"

typedef struct f2b_image_settings {
    int size;                   /* S: the tower's image_size */
    float mean[3], std[3];      /* of RGB scaled to 0..1 */
    uint8_t background[3];      /* int(mean*255): what PAD fills with */
} f2b_image_settings;

/** LLaVA-1.5's tower: 336 and the constants of CLIP. */
f2b_image_settings f2b_image_settings_default(void);

/**
 * Read config.json (vision_config.image_size; 336 where silent, as LlavaConfig) and, where the folder
 * has one, preprocessor_config.json (image_mean, image_std; CLIP's where silent).
 *
 * model_dir  a Hugging Face folder of LLaVA or CLIP, or NULL for the defaults.
 * errors     F2B_ERR_NOT_FOUND (no config.json), F2B_ERR_FORMAT (not JSON, a value out of range),
 *            F2B_ERR_UNSUPPORTED (a resampling filter or scale other than bicubic and 1/255).
 */
f2b_status f2b_image_settings_load(const char *model_dir, f2b_image_settings *settings) F2B_MUST_USE;

#endif
