/* f2b-compress: images into a compressed store. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "cli/exit_codes.h"
#include "cli/model_choice.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "infer/compress_store.h"
#include "infer/store_model.h"

enum { NOTES = 10 }; /* bad images are shown up to so many, then only counted and listed */

typedef struct compress_program {
    f2b_model_choice choice;
    const char *images, *folder, *out;
    int64_t shard_images, batch, workers;
    f2b_arguments arguments;
    f2b_progress progress;
    f2b_atomic_file *list;      /* bad_images.jsonl */
    f2b_compress_counts counts;
    double first_seconds;       /* when the first image was through the model, */
    int64_t first_records;      /* and how many had been looked at */
} compress_program;

static void note(void *user, const char *text)
{
    compress_program *p = user;
    f2b_progress_note(&p->progress, "%s", text);
}

/* ---- Bad images ---- */

static f2b_status bad(void *user, const f2b_compress_fault *f)
{
    compress_program *p = user;
    const char *name = f->id != NULL ? f->id : f->source;
    if (p->counts.bad <= NOTES)
        f2b_progress_note(&p->progress, "record %lld (%s): %s%s%s", (long long)f->record, name,
                          f->fault, f->detail[0] != '\0' ? ": " : "", f->detail);
    else if (p->counts.bad == NOTES + 1)
        f2b_progress_note(&p->progress, "further bad images are only counted, and listed in %s/%s",
                          p->out, F2B_STORE_BAD_FILE);
    /* A detail may hold bytes of a file's name that are no UTF-8. */
    json_t *detail = json_string(f->detail);
    if (detail == NULL) detail = json_string("(a text that is not UTF-8)");
    json_t *line = json_pack("{s:I, s:s?, s:s, s:o}", "record", (json_int_t)f->record, "id", f->id,
                             "fault", f->fault, "detail", detail);
    char *text = line != NULL ? json_dumps(line, 0) : NULL;
    json_decref(line);
    if (text == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for the list of bad images");
    f2b_status status = f2b_atomic_file_write(p->list, text, strlen(text));
    if (status == F2B_OK) status = f2b_atomic_file_write(p->list, "\n", 1);
    free(text); /* jansson's own */
    return status;
}

static f2b_status open_list(compress_program *p)
{
    char *path = f2b_path_join(p->out, F2B_STORE_BAD_FILE);
    p->list = path != NULL ? f2b_atomic_file_open(path) : NULL;
    f2b_free(path);
    return p->list != NULL ? F2B_OK : f2b_last_status();
}

/* Also what was found before a stop is worth keeping; after a failure nothing is sure. */
static f2b_status close_list(compress_program *p, f2b_status status)
{
    if (p->list == NULL) return status;
    if (status != F2B_OK && status != F2B_ERR_STOPPED) {
        f2b_atomic_file_abort(p->list);
        return status;
    }
    f2b_error stopped;
    f2b_error_take(&stopped);
    F2B_TRY(f2b_atomic_file_commit(p->list));
    return status == F2B_OK ? F2B_OK : f2b_fail(status, "%s", stopped.text);
}

/* ---- Progress ---- */

/* Images that the store has already pass at another pace: rate and ETA are of those that follow. */
static void progress(void *user, const f2b_compress_counts *c, int64_t total)
{
    compress_program *p = user;
    const double now = f2b_seconds();
    if (c->compressed == 0) p->first_seconds = now, p->first_records = c->records;
    const double seconds = now - p->first_seconds;
    const int64_t done = c->records - p->first_records;
    const double eta = done > 0 ? seconds / (double)done * (double)(total - c->records) : -1;
    f2b_progress_show(&p->progress, c->records == total,
                      "%lld/%lld images | %lld new, %lld known, %lld twice, %lld bad | "
                      "%.1f images/s | ETA %s",
                      (long long)c->records, (long long)total, (long long)c->compressed,
                      (long long)c->known, (long long)c->duplicates, (long long)c->bad,
                      seconds > 0 ? (double)c->compressed / seconds : 0.0,
                      f2b_format_duration(eta).text);
}

static f2b_status print_summary(const compress_program *p, const f2b_store_writer *writer,
                                double seconds)
{
    const f2b_compress_counts *c = &p->counts;
    json_t *results = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "out", p->out, "images",
        (json_int_t)f2b_store_writer_count(writer), "compressed", (json_int_t)c->compressed,
        "known", (json_int_t)c->known, "duplicates", (json_int_t)c->duplicates, "bad",
        (json_int_t)c->bad, "without_image", (json_int_t)c->without_image, "records",
        (json_int_t)c->records, "seconds", seconds, "images_per_second",
        seconds > 0 ? (double)c->compressed / seconds : 0.0);
    if (results == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for the results");
    json_dumpf(results, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(results);
    return F2B_OK;
}

/* ---- The work ---- */

static f2b_status compress(compress_program *p, const f2b_trained_model *m,
                           const f2b_source *source, f2b_store_writer *writer)
{
    const f2b_infer in = { m->model, m->tokenizer, &m->image };
    const f2b_compress_options o = { .batch = p->batch, .workers = (int)p->workers,
                                     .stop = f2b_signals_stop, .bad = bad, .progress = progress,
                                     .user = p };
    const double start = f2b_seconds();
    F2B_TRY(open_list(p));
    f2b_status status = f2b_compress_store(&in, source, writer, &o, &p->counts);
    f2b_progress_end(&p->progress);
    if (status == F2B_ERR_STOPPED)
        status = f2b_fail(status, "stopped by %s after %lld images; the same command goes on from "
                          "the last full shard", f2b_signals_name(), (long long)p->counts.records);
    status = close_list(p, status);
    if (status == F2B_OK) status = print_summary(p, writer, f2b_seconds() - start);
    if (status == F2B_OK && f2b_store_writer_count(writer) == 0)
        status = f2b_fail(F2B_ERR_DATA, "none of %lld images could be used; %s/%s says why",
                          (long long)p->counts.records, p->out, F2B_STORE_BAD_FILE);
    return status;
}

/* The source first: a wrong name is known before a large model is read. */
static f2b_status run(compress_program *p)
{
    p->progress = f2b_progress_start(p->arguments.quiet);
    const f2b_source_options source_options = { .role = F2B_SOURCE_IMAGES, .name = "images",
                                                .path = p->images, .images = p->folder };
    f2b_source *source = f2b_source_open(&source_options);
    f2b_trained_model *m =
        source != NULL ? f2b_model_choice_open(&p->choice, p->arguments.device, note, p) : NULL;
    f2b_store_identity identity;
    f2b_store_writer *writer = NULL;
    if (m != NULL && f2b_store_identify(m, &identity) == F2B_OK)
        writer = f2b_store_writer_open(p->out, &identity, p->shard_images);
    const f2b_status status = writer != NULL ? compress(p, m, source, writer) : f2b_last_status();
    f2b_store_writer_close(writer);
    f2b_trained_model_close(m);
    f2b_source_free(source);
    return status;
}

int main(int argc, char **argv)
{
    compress_program p = { .choice = { .precision = "f32", .weights = "auto" },
                           .shard_images = 1024, .batch = 16, .workers = 2 };
    const f2b_option options[] = {
        { "checkpoint", "DIR", F2B_OPTION_TEXT, &p.choice.checkpoint,
          "a run, one of its checkpoints, or an export (with --model)", .required = true },
        { "images", "PATH", F2B_OPTION_TEXT, &p.images,
          "a folder, a list (a file's name a line), TSV, LLaVA or COCO JSON, or tar shards",
          .required = true },
        { "out", "STORE", F2B_OPTION_TEXT, &p.out, "folder of the store, begun or gone on with",
          .required = true },
        { "image-folder", "DIR", F2B_OPTION_TEXT, &p.folder,
          "what names in a list, TSV or JSON are below (where the file lies)" },
        { "model", "DIR", F2B_OPTION_TEXT, &p.choice.model, "base model, where the run's has moved" },
        { "vision-path", "DIR", F2B_OPTION_TEXT, &p.choice.vision,
          "CLIP folder of a base that lacks the tower" },
        { "shard-images", "N", F2B_OPTION_INT, &p.shard_images,
          "images of a shard: what a stop loses at most; 2Kd bytes of memory each", 1, 1 << 24 },
        { "batch", "N", F2B_OPTION_INT, &p.batch, "images a forward pass", 1, 65536 },
        { "workers", "N", F2B_OPTION_INT, &p.workers, "threads that read and decode", 1, 256 },
        { "precision", "f32|bf16", F2B_OPTION_CHOICE, &p.choice.precision, "arithmetic" },
        { "weights", "auto|f32|bf16|f16|int8|nf4", F2B_OPTION_CHOICE, &p.choice.weights,
          "storage of frozen weights; auto: as the files have them" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-compress", .options = options,
        .summary = "Compresses images into a store of K tokens each, for f2b-answer and "
                   "f2b-search.",
        .notes = "A stopped or killed run is continued by the same command; the result is the same\n"
                 "to the byte. Images whose bytes the store has already are not compressed again,\n"
                 "but found under each of their names. Images that cannot be used are counted, and\n"
                 "listed in STORE/" F2B_STORE_BAD_FILE ".\n",
    };
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &p.arguments, &exit_code)) return exit_code;
    f2b_signals_install();
    return f2b_exit_with(command.name, run(&p));
}
