/*
 * Not a test by itself: the text that a language model writes by greedy decoding from its start
 * token, on stdout.
 *
 *   greedy_text MODEL STEPS
 */
#include <stdio.h>
#include <stdlib.h>

#include "autograd/core/alloc.h"
#include "infer/generate.h"
#include "infer/trained_model.h"

#define MUST(expression)                                                                          \
    do {                                                                                          \
        if (!(expression)) {                                                                      \
            fprintf(stderr, "greedy_text: %s: %s\n", #expression, f2b_last_error());              \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    const f2b_trained_model_options o = { .model = argv[1], .compute = F2B_F32, .text_only = true,
                                          .storage = F2B_STORAGE_OF_FILE };
    f2b_trained_model *m = f2b_trained_model_open(&o);
    MUST(m != NULL);
    const int32_t start = f2b_tokenizer_bos(m->tokenizer);
    const f2b_pack_item prompt = { .ids = &start, .n = 1 };
    const f2b_generate_options g = { .stage = F2B_STAGE_NONE, .max_new_tokens = atoll(argv[2]),
                                     .eos_id = -1 };
    f2b_ids ids = { 0 };
    MUST(f2b_generate(m->model, &prompt, 1, NULL, &g, &ids) == F2B_OK);
    char *text = f2b_tokenizer_decode(m->tokenizer, ids.ids, ids.n);
    MUST(text != NULL);
    puts(text);
    f2b_free(text);
    f2b_ids_free(&ids);
    f2b_trained_model_close(m);
    return 0;
}
