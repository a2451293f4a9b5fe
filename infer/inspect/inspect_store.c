/* Reports on compressed stores: what they are of, and each shard's tokens as a tensor. */
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/method_json.h"
#include "checkpoints/store.h"
#include "infer/inspect/inspect_internal.h"

static void checked(void *user, const char *file, const char *why)
{
    f2bi_check(user, file, why);
}

static void facts(f2bi_report *r, const f2b_store *store)
{
    const f2b_store_identity *id = f2b_store_get_identity(store);
    char *method = f2b_method_to_json(&id->method);
    f2bi_fact(r, "images", json_integer(f2b_store_count(store)));
    f2bi_fact(r, "duplicates", json_integer(f2b_store_duplicates(store)));
    f2bi_fact(r, "shards", json_integer(f2b_store_shards(store)));
    f2bi_fact(r, "tokens", json_integer(id->tokens));
    f2bi_fact(r, "width", json_integer(id->width));
    f2bi_fact(r, "bytes_an_image", json_integer(2 * id->tokens * id->width));
    f2bi_fact_text(r, "base_model", id->base);
    f2bi_fact_text(r, "adapter", id->adapter);
    f2bi_fact_text(r, "precision", id->precision);
    f2bi_fact_text(r, "weights", id->weights);
    f2bi_fact(r, "method", method != NULL ? json_loads(method, 0, NULL) : NULL);
    f2b_free(method);
}

static f2b_status list_shard(f2bi_report *r, const f2b_store *store, int64_t i)
{
    const f2b_store_identity *id = f2b_store_get_identity(store);
    const f2b_store_shard *s = f2b_store_shard_at(store, i);
    f2b_store_map map = { 0 };
    if (f2bi_wants_norm(r)) F2B_TRY(f2b_store_map_shard(store, i, &map));
    f2bi_list(r, &(f2bi_listed){ .name = "tokens", .type = "F16",
                                 .file = strrchr(s->path, '/') + 1, .ndim = 3,
                                 .shape = (int64_t[]){ s->images, id->tokens, id->width },
                                 .bytes = s->bytes, .dtype = F2B_F16, .data = map.tokens,
                                 .updates = -1 });
    f2b_store_unmap(&map);
    return F2B_OK;
}

f2b_status f2bi_inspect_store(f2bi_report *r)
{
    if (r->options->verify) F2B_TRY(f2b_store_verify(r->path, checked, r));
    f2b_store *store = f2b_store_open(r->path);
    if (store == NULL) {
        /* A damaged shard has been named already, and the others have been looked at. */
        if (r->options->verify && f2b_inspect_failures(r->root) > 0) return F2B_OK;
        return f2b_last_status();
    }
    facts(r, store);
    if (!r->options->verify) f2bi_check(r, F2B_STORE_FILE, NULL);
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < f2b_store_shards(store) && status == F2B_OK; i++)
        status = list_shard(r, store, i);
    f2b_store_close(store);
    return status;
}
