/* A store and its model. See store_model.h for the contract. */
#include "infer/store_model.h"

#include <stdio.h>

#include "autograd/core/alloc.h"

static f2b_status fingerprint_trained(f2b_trained *file, char text[F2B_FINGERPRINT_BYTES])
{
    const int64_t n = f2b_trained_count(file);
    f2b_named_array *tensors = f2b_calloc((size_t)n, sizeof *tensors, F2B_TAG_FILES);
    f2b_status status = tensors != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        status = f2b_trained_at(file, i, &tensors[i]);
    if (status == F2B_OK) status = f2b_fingerprint_tensors(tensors, n, text);
    f2b_free(tensors);
    return status;
}

f2b_status f2b_store_identify(const f2b_trained_model *m, f2b_store_identity *out)
{
    *out = (f2b_store_identity){ .method = m->model->method };
    if (m->file == NULL || m->model->method.forward == F2B_FORWARD_BASE)
        return f2b_fail(F2B_ERR_CONFIG, "%s is a base model, which has no compressed tokens; name a "
                        "Fwd2Bot checkpoint with --checkpoint DIR", m->path);
    out->tokens = m->model->method.tokens;
    out->width = m->model->config.text.hidden;
    snprintf(out->base, sizeof out->base, "%s", f2b_trained_base_fingerprint(m->file));
    snprintf(out->precision, sizeof out->precision, "%s", f2b_dtype_name(m->model->compute));
    snprintf(out->weights, sizeof out->weights, "%s", f2b_dtype_name(m->model->weights.storage));
    return fingerprint_trained(m->file, out->adapter);
}

f2b_store *f2b_store_open_for(const char *path, const f2b_trained_model *model)
{
    f2b_store_identity identity;
    f2b_store *store = f2b_store_identify(model, &identity) == F2B_OK ? f2b_store_open(path) : NULL;
    if (store == NULL) return NULL;
    if (f2b_store_check_model(store, identity.base, identity.adapter) == F2B_OK) return store;
    f2b_store_close(store);
    return NULL;
}
