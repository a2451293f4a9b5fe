/* Results of f2b-search: lines or JSON on stdout, a contact sheet. See search_program.h. */
#include <jansson.h>
#include <stdio.h>

#include "autograd/core/alloc.h"
#include "cli/search_program.h"
#include "infer/search_sheet.h"

/* How a query and a found item are called. */
static const char *query_name(const f2b_search_program *p, int64_t q)
{
    return p->queries.n > 0 ? p->queries.lines[q] : p->id != NULL ? p->id : p->image_path;
}

static const char *item_name(const f2b_search_program *p, int64_t row)
{
    return p->captions.n > 0 ? p->captions.lines[row] : f2b_store_id(p->store, row);
}

/* ---- stdout ---- */

/* Names of files may be no UTF-8. */
static json_t *name_json(const char *name)
{
    json_t *text = json_string(name);
    return text != NULL ? text : json_string("(a name that is not UTF-8)");
}

static json_t *query_json(const f2b_search_program *p, const f2b_search_hit *hits, int64_t q,
                          int64_t k)
{
    const char *kind = p->queries.n > 0 ? "text" : p->id != NULL ? "id" : "image";
    const bool texts = p->captions.n > 0;
    json_t *results = json_array();
    for (int64_t i = 0; i < k; i++) {
        const f2b_search_hit *h = &hits[i];
        json_t *one = json_pack("{s:I, s:f, s:o, s:I}", "rank", (json_int_t)i + 1, "score",
                                (double)h->score, texts ? "text" : "id",
                                name_json(item_name(p, h->row)), texts ? "line" : "row",
                                (json_int_t)h->row + texts);
        if (json_array_append_new(results, one) != 0) {
            json_decref(results);
            return NULL;
        }
    }
    const int64_t of = texts ? p->captions.n : f2b_store_count(p->store);
    return json_pack("{s:o, s:I, s:o}", kind, name_json(query_name(p, q)), "of", (json_int_t)of,
                     "results", results);
}

f2b_status f2b_search_print(const f2b_search_program *p, const f2b_search_hit *hits, int64_t n,
                            int64_t k)
{
    for (int64_t q = 0; q < n; q++, hits += k) {
        if (p->json) {
            json_t *object = query_json(p, hits, q, k);
            if (object == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for the results");
            json_dumpf(object, stdout, JSON_REAL_PRECISION(9));
            putchar('\n');
            json_decref(object);
            continue;
        }
        if (n > 1) printf("%s# %s\n", q > 0 ? "\n" : "", query_name(p, q));
        for (int64_t i = 0; i < k; i++)
            printf("%lld\t%.4f\t%s\n", (long long)i + 1, (double)hits[i].score,
                   item_name(p, hits[i].row));
    }
    return F2B_OK;
}

/* ---- The sheet ---- */

static f2b_status find_pictures(const f2b_search_program *p, f2b_sheet_picture *pictures, int64_t n)
{
    if (p->images == NULL) return F2B_OK;
    const f2b_source_options o = { .role = F2B_SOURCE_IMAGES, .name = "images", .path = p->images,
                                   .images = p->image_folder };
    f2b_source *source = f2b_source_open(&o);
    if (source == NULL) return f2b_last_status();
    const f2b_status status = f2b_sheet_find(source, pictures, n);
    f2b_source_free(source);
    return status;
}

static f2b_status fill_sheet(const f2b_search_program *p, f2b_sheet *sheet,
                             const f2b_search_hit *hits, int64_t n, int64_t k,
                             const f2b_sheet_picture *pictures, const f2b_sheet_picture *asked)
{
    uint8_t *thumbnail = NULL;
    if (p->image_path != NULL && (thumbnail = f2b_sheet_thumbnail(&p->image)) == NULL)
        return f2b_last_status();
    for (int64_t q = 0; q < n; q++) {
        f2b_sheet_query(sheet, query_name(p, q), p->id != NULL ? asked->rgb : thumbnail);
        for (int64_t i = 0; i < k; i++) {
            const f2b_search_hit *h = &hits[q * k + i];
            f2b_sheet_result(sheet, i + 1, (double)h->score, item_name(p, h->row),
                             pictures != NULL ? &pictures[q * k + i] : NULL);
        }
    }
    f2b_free(thumbnail);
    return f2b_sheet_write(sheet, p->html);
}

f2b_status f2b_search_write_sheet(const f2b_search_program *p, const f2b_search_hit *hits,
                                  int64_t n, int64_t k)
{
    /* The found images, then the query where that is a stored image. */
    const int64_t found = p->captions.n > 0 ? 0 : n * k, all = found + (p->id != NULL);
    f2b_sheet_picture *pictures = f2b_calloc((size_t)all + 1, sizeof *pictures, F2B_TAG_OTHER);
    f2b_sheet *sheet = pictures != NULL ? f2b_sheet_new("Search results") : NULL;
    f2b_status status = sheet != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) {
        for (int64_t i = 0; i < found; i++) pictures[i].id = f2b_store_id(p->store, hits[i].row);
        if (all > found) pictures[found].id = p->id;
        status = find_pictures(p, pictures, all);
    }
    if (status == F2B_OK)
        status = fill_sheet(p, sheet, hits, n, k, found > 0 ? pictures : NULL, &pictures[found]);
    for (int64_t i = 0; pictures != NULL && i < all; i++) f2b_free(pictures[i].rgb);
    f2b_free(pictures);
    f2b_sheet_free(sheet);
    return status;
}
