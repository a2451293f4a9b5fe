/*
 * The method's settings as JSON: the attribute `method` of a checkpoint and the object "method" in
 * an export's f2b.json. The names are those of the configuration.
 */
#ifndef F2B_CHECKPOINTS_METHOD_JSON_H
#define F2B_CHECKPOINTS_METHOD_JSON_H

#include "autograd/core/status.h"
#include "nn/method.h"

/** One line of JSON; free with f2b_free. NULL with F2B_ERR_INVALID (the prompt is not UTF-8) or
 *  F2B_ERR_MEMORY. */
char *f2b_method_to_json(const f2b_method *method);

/** Read it back. Every key must be there once and hold a legal value: else F2B_ERR_FORMAT with
 *  `where` (a file's name), the key and the legal values. */
F2B_MUST_USE f2b_status f2b_method_from_json(f2b_method *method, const char *json,
                                             const char *where);

/** The configuration's word for a setting, e.g. "bidirectional". Static. */
const char *f2b_summary_template_name(f2b_summary_template value);
const char *f2b_summary_attention_name(f2b_summary_attention value);
const char *f2b_summary_hidden_name(f2b_summary_hidden value);
const char *f2b_forward_name(f2b_forward value);
const char *f2b_adapters_name(f2b_adapters value);
const char *f2b_language_model_name(f2b_language_model value);
const char *f2b_aspect_ratio_name(f2b_aspect_ratio value);
const char *f2b_lora_target_name(f2b_lora_target target);

#endif
