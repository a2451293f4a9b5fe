/* Answers as LLaVA's evaluation has them. See answer_line.h. */
#include "cli/answer_line.h"

#include <stdbool.h>
#include <stdlib.h>

#include "autograd/core/rng.h"

static uint64_t hash_of(const char *model_id, const json_t *question_id)
{
    char *text = json_dumps(question_id, JSON_ENCODE_ANY | JSON_COMPACT);
    const uint64_t hash = text != NULL ? f2b_hash_text(text) : 0;
    free(text); /* jansson's own */
    return f2b_hash_mix(f2b_hash_text(model_id) ^ hash);
}

f2b_status f2b_answer_line_write(FILE *out, const char *out_name, json_t *question_id,
                                 const char *prompt, const char *text, const char *model_id,
                                 json_t *metadata)
{
    char id[32];
    snprintf(id, sizeof id, "%016llx", (unsigned long long)hash_of(model_id, question_id));
    /* `o` takes the references over, on failure too. */
    json_t *line = json_pack("{s:o, s:s, s:s, s:s, s:s, s:o}", "question_id", question_id, "prompt",
                             prompt, "text", text, "answer_id", id, "model_id", model_id,
                             "metadata", metadata);
    if (line == NULL)
        return f2b_fail(F2B_ERR_DATA, "an answer cannot be written as JSON: a text is not UTF-8");
    const bool good = json_dumpf(line, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF;
    json_decref(line);
    return good ? F2B_OK : f2b_fail_errno(F2B_ERR_IO, "writing %s", out_name);
}
