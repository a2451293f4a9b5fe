/* f2b-eval --task nll: plain text through the language model alone. */
#include "checkpoints/atomic_file.h"
#include "cli/eval_tasks.h"
#include "data/npy/npy.h"
#include "infer/nll.h"

enum { MAX_TEXT_BYTES = 1 << 29 };

static f2b_status tokenize(const f2b_tokenizer *tokenizer, const char *path, f2b_ids *ids)
{
    int64_t bytes;
    char *text = f2b_read_file(path, MAX_TEXT_BYTES, &bytes);
    if (text == NULL) return f2b_last_status();
    const f2b_status status =
        f2b_tokenizer_encode(tokenizer, text, (size_t)bytes, F2B_ENCODE_PLAIN, ids);
    f2b_free(text);
    if (status == F2B_OK && ids->n == 0) return f2b_fail(F2B_ERR_DATA, "%s is empty", path);
    return status;
}

/* The writer of --logits, and the width of a row. */
typedef struct logits_file {
    f2b_npy_writer *npy;
    int64_t vocab;
} logits_file;

static f2b_status write_rows(void *context, const float *values, int64_t rows)
{
    const logits_file *file = context;
    return f2b_npy_append(file->npy, values, rows * file->vocab);
}

static f2b_status measure(const f2b_eval_settings *s, const f2b_trained_model *m,
                          const f2b_ids *ids, f2b_nll_result *result)
{
    logits_file file = { NULL, m->model->config.text.vocab };
    const int64_t shape[] = { f2b_nll_rows(m->model, ids->n), file.vocab };
    if (s->logits != NULL) {
        file.npy = f2b_npy_begin(s->logits, F2B_NPY_F32, shape, 2);
        if (file.npy == NULL) return f2b_last_status();
    }
    const f2b_status status = f2b_nll(m->model, f2b_tokenizer_bos(m->tokenizer), ids->ids, ids->n,
                                      file.npy != NULL ? write_rows : NULL, &file, result);
    if (status == F2B_OK) return f2b_npy_end(file.npy);
    f2b_error error;
    f2b_error_take(&error);
    (void)!f2b_npy_end(file.npy); /* an unfinished file is removed */
    return f2b_fail(error.code, "%s", error.text);
}

json_t *f2b_eval_nll(f2b_eval_settings *s)
{
    f2b_trained_model *m = f2b_eval_open_model(s, true);
    const double start = f2b_seconds();
    f2b_ids ids = { 0 };
    f2b_nll_result r;
    json_t *results = NULL;
    if (m != NULL && tokenize(m->tokenizer, s->text, &ids) == F2B_OK &&
        measure(s, m, &ids, &r) == F2B_OK)
        results = f2b_eval_object(json_pack("{s:s, s:f, s:I, s:I, s:s, s:f}", "task", "nll", "nll",
                                            r.mean, "tokens", (json_int_t)r.tokens, "chunks",
                                            (json_int_t)r.chunks, "model", m->path, "seconds",
                                            f2b_seconds() - start));
    f2b_ids_free(&ids);
    f2b_trained_model_close(m);
    return results;
}
