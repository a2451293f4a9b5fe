/* f2b-search: images for a text, images or texts for an image, from a compressed store. */
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "cli/exit_codes.h"
#include "cli/search_program.h"
#include "cli/signals.h"
#include "infer/store_model.h"

/* ---- What was asked ---- */

static f2b_status usage(const char *text) { return f2b_fail(F2B_ERR_USAGE, "%s", text); }

static f2b_status check_usage(const f2b_search_program *p)
{
    const bool texts = p->arguments.n_operands > 0, image = p->image_path != NULL;
    const bool model = p->choice.checkpoint != NULL, captions = p->captions_path != NULL;
    const int kinds = texts + image + (p->queries_path != NULL) + (p->id != NULL);
    if (kinds != 1)
        return usage(kinds == 0 ? "what shall be searched for? A \"text\", --queries FILE, --image "
                                  "FILE or --id ID; see --help"
                                : "a text, --queries, --image and --id go one at a time");
    if (captions && !image && p->id == NULL)
        return usage("--captions are searched for an image: --image FILE or --id ID");
    if (p->store_path == NULL && !(image && captions))
        return usage("--store STORE is missing; see --help");
    if (!model && (p->id == NULL || captions))
        return usage("--checkpoint DIR is missing: texts and image files are embedded by the model "
                     "that made the store");
    if (p->html == NULL && p->images != NULL) return usage("--images are for --html");
    if (p->images == NULL && p->image_folder != NULL) return usage("--image-folder is for --images");
    return F2B_OK;
}

static f2b_status read_queries(f2b_search_program *p)
{
    if (p->queries_path != NULL) F2B_TRY(f2b_lines_read(p->queries_path, &p->queries));
    if (p->arguments.n_operands > 0)
        F2B_TRY(f2b_lines_take(p->arguments.operands, p->arguments.n_operands, &p->queries));
    if (p->captions_path != NULL) F2B_TRY(f2b_lines_read(p->captions_path, &p->captions));
    if (p->image_path != NULL) F2B_TRY(f2b_image_open(p->image_path, &p->image));
    return F2B_OK;
}

/* ---- Hooks ---- */

static void note(void *user, const char *text)
{
    f2b_progress_note(&((f2b_search_program *)user)->progress, "%s", text);
}

static void progress(void *user, const char *what, int64_t done, int64_t total)
{
    f2b_progress *shown = &((f2b_search_program *)user)->progress;
    f2b_progress_show(shown, false, "%lld/%lld %s | ETA %s", (long long)done, (long long)total,
                      what, f2b_format_duration(f2b_progress_eta(shown, done, total)).text);
}

/* ---- The work ---- */

static f2b_tensor *embed_texts(const f2b_search_program *p, const f2b_trained_model *m,
                               const f2b_lines *texts, const f2b_search_hooks *hooks)
{
    const f2b_infer in = { m->model, m->tokenizer, &m->image };
    return f2b_search_embed_texts(&in, (const char *const *)texts->lines, texts->n,
                                  p->max_caption_length, p->batch, hooks);
}

static f2b_tensor *embed_query(const f2b_search_program *p, const f2b_trained_model *m,
                               const f2b_search_hooks *hooks)
{
    int64_t row;
    if (p->queries.n > 0) return embed_texts(p, m, &p->queries, hooks);
    if (p->id != NULL)
        return f2b_store_find(p->store, p->id, &row) == F2B_OK
                   ? f2b_search_embed_stored(p->store, row) : NULL;
    const f2b_infer in = { m->model, m->tokenizer, &m->image };
    return f2b_search_embed_image(&in, &p->image);
}

/* m is NULL where only stored tokens are compared. */
static f2b_status search(f2b_search_program *p, const f2b_trained_model *m)
{
    const f2b_search_hooks hooks = { progress, note, f2b_signals_stop, p };
    const bool texts = p->captions.n > 0;
    const int64_t most = texts ? p->captions.n : f2b_store_count(p->store);
    const int64_t k = p->k < most ? p->k : most;
    if (k < p->k)
        f2b_progress_note(&p->progress, "there are only %lld %s: all of them are shown",
                          (long long)k, texts ? "texts" : "images");
    f2b_tensor *queries = embed_query(p, m, &hooks), *items = NULL;
    f2b_search_hit *hits = NULL;
    f2b_status status = queries != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) {
        hits = f2b_calloc((size_t)queries->shape[0], (size_t)k * sizeof *hits, F2B_TAG_OTHER);
        if (hits == NULL) status = f2b_last_status();
    }
    if (status == F2B_OK && texts && !(items = embed_texts(p, m, &p->captions, &hooks)))
        status = f2b_last_status();
    if (status == F2B_OK)
        status = texts ? f2b_search_rows(items, queries, k, hits)
                       : f2b_search_store(p->store, queries, k, &hooks, hits);
    f2b_progress_end(&p->progress);
    if (status == F2B_OK && p->html != NULL)
        status = f2b_search_write_sheet(p, hits, queries->shape[0], k);
    if (status == F2B_OK) status = f2b_search_print(p, hits, queries->shape[0], k);
    f2b_free(hits);
    f2b_tensor_free(items);
    f2b_tensor_free(queries);
    return status;
}

/* What is quickly known first: a wrong name should not wait for a large model. */
static f2b_status open_store(f2b_search_program *p)
{
    if (p->store_path == NULL) return F2B_OK;
    if ((p->store = f2b_store_open(p->store_path)) == NULL) return f2b_last_status();
    if (f2b_store_count(p->store) == 0)
        return f2b_fail(F2B_ERR_DATA, "%s holds no images yet; add some with f2b-compress",
                        p->store_path);
    int64_t row;
    return p->id != NULL ? f2b_store_find(p->store, p->id, &row) : F2B_OK;
}

static f2b_status run(f2b_search_program *p)
{
    F2B_TRY(check_usage(p));
    F2B_TRY(read_queries(p));
    F2B_TRY(open_store(p));
    if (p->choice.checkpoint == NULL) return search(p, NULL);
    f2b_trained_model *m = f2b_model_choice_open(&p->choice, p->arguments.device, note, p);
    f2b_store_identity identity;
    f2b_status status = m != NULL ? f2b_store_identify(m, &identity) : f2b_last_status();
    if (status == F2B_OK && p->store != NULL)
        status = f2b_store_check_model(p->store, identity.base, identity.adapter);
    if (status == F2B_OK) status = search(p, m);
    f2b_trained_model_close(m);
    return status;
}

int main(int argc, char **argv)
{
    f2b_search_program p = { .choice = { .precision = "f32", .weights = "auto" }, .k = 10,
                             .batch = 16, .max_caption_length = 77 };
    const f2b_option options[] = {
        { "store", "STORE", F2B_OPTION_TEXT, &p.store_path, "what f2b-compress wrote" },
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &p.choice.checkpoint,
          "what the store was made with: a run, a checkpoint, or an export (with --model); not "
          "needed for --id" },
        { "queries", "FILE", F2B_OPTION_TEXT, &p.queries_path, "texts to search for, one a line" },
        { "image", "FILE", F2B_OPTION_TEXT, &p.image_path, "search for what is like this picture" },
        { "id", "ID", F2B_OPTION_TEXT, &p.id, "search for what is like this image of the store" },
        { "captions", "FILE", F2B_OPTION_TEXT, &p.captions_path,
          "with --image or --id: find these texts, one a line; of FILE.tsv the first column" },
        { "k", "N", F2B_OPTION_INT, &p.k, "how many are found for each query", 1, 1e9 },
        { "json", NULL, F2B_OPTION_FLAG, &p.json, "one JSON object a query" },
        { "html", "FILE", F2B_OPTION_TEXT, &p.html, "also write a contact sheet for a browser" },
        { "images", "PATH", F2B_OPTION_TEXT, &p.images,
          "of --html: where the images are, as f2b-compress was told" },
        { "image-folder", "DIR", F2B_OPTION_TEXT, &p.image_folder,
          "what names in a list, TSV or JSON of --images are below (where the file lies)" },
        { "model", "DIR", F2B_OPTION_TEXT, &p.choice.model, "base model, where the run's has moved" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &p.choice.vision,
          "CLIP folder of a base that lacks the tower" },
        { "max-caption-length", "N", F2B_OPTION_INT, &p.max_caption_length,
          "ids of a text, as data.max_caption_length", 1, 1e6 },
        { "batch", "N", F2B_OPTION_INT, &p.batch, "texts a forward pass", 1, 65536 },
        { "precision", "f32|bf16", F2B_OPTION_CHOICE, &p.choice.precision, "arithmetic" },
        { "weights", "auto|f32|bf16|f16|int8|nf4", F2B_OPTION_CHOICE, &p.choice.weights,
          "storage of frozen weights; auto: as the files have them" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-search", .options = options, .operands = "[\"TEXT\" ...]",
        .summary = "Finds the images of a store that are most like a text or an image, or the "
                   "texts that are most like an image: every one is compared, by cosine.",
        .notes = "Prints rank, cosine and id (or text), divided by tabs. The first search keeps\n"
                 "the mean of each image's tokens beside the store's shards, 2d bytes each, for\n"
                 "those that follow; these files may be deleted.\n",
    };
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &p.arguments, &exit_code)) return exit_code;
    f2b_signals_install();
    p.progress = f2b_progress_start(p.arguments.quiet);
    const f2b_status status = run(&p);
    exit_code = f2b_exit_with(command.name, status);
    f2b_store_close(p.store);
    f2b_lines_free(&p.queries);
    f2b_lines_free(&p.captions);
    f2b_image_free(&p.image);
    return exit_code;
}
