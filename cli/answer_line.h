/* A line of an answers file as LLaVA's evaluation writes it. */
#ifndef F2B_CLI_ANSWER_LINE_H
#define F2B_CLI_ANSWER_LINE_H

#include <jansson.h>
#include <stdio.h>

#include "autograd/core/status.h"

/**
 * Write {question_id, prompt, text, answer_id, model_id, metadata} and a line end. answer_id is a
 * hash of model and question_id.
 * question_id, metadata  new references, taken over also on failure.
 * errors  F2B_ERR_IO; F2B_ERR_DATA: a text that is not UTF-8; F2B_ERR_MEMORY.
 */
f2b_status f2b_answer_line_write(FILE *out, const char *out_name, json_t *question_id,
                                 const char *prompt, const char *text, const char *model_id,
                                 json_t *metadata) F2B_MUST_USE;

#endif
