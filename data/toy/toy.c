/* The toy world's options and files. See toy.h. */
#include "data/toy/toy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "autograd/core/alloc.h"
#include "data/image/image.h"
#include "data/toy/toy_internal.h"

enum {
    VAL_QUESTIONS = 4,          /* single-turn records of a validation image */
    CAPTIONS = 2,               /* captions of a training image in conversation_captions.json */
    ATTEMPTS = 1000,            /* to find a validation scene that is not there yet */
};

/* LLaVA's own words for short answers and for captions. */
static const char short_answer[] = "Answer the question using a single word or phrase.";
static const char describe[] = "Provide a one-sentence caption for the provided image.";

f2b_toy_options f2b_toy_defaults(void)
{
    return (f2b_toy_options){ .seed = 1, .train = 8000, .val = 300, .image_size = 64, .objects = 3,
                              .grid = 2, .colours = 6, .shapes = 4, .jitter = 20, .turns = 6,
                              .described_percent = 50, .text_only_percent = 4 };
}

static f2b_status check_range(const char *name, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high) return F2B_OK;
    return f2b_fail(F2B_ERR_USAGE, "toy world: %s is %lld; it must be from %lld to %lld", name,
                    (long long)value, (long long)low, (long long)high);
}

f2b_status f2b_toy_check(const f2b_toy_options *o)
{
    F2B_TRY(check_range("train", o->train, 1, 1000000));
    F2B_TRY(check_range("val", o->val, 1, 100000));
    F2B_TRY(check_range("grid", o->grid, 2, F2BI_TOY_MAX_GRID));
    F2B_TRY(check_range("objects", o->objects, 1, o->grid * o->grid));
    F2B_TRY(check_range("colors", o->colours, o->objects + 1 < F2BI_TOY_COLOURS ? o->objects + 1
                                              : F2BI_TOY_COLOURS, F2BI_TOY_COLOURS));
    F2B_TRY(check_range("shapes", o->shapes, 1, F2BI_TOY_SHAPES));
    F2B_TRY(check_range("jitter", o->jitter, 0, 100));
    F2B_TRY(check_range("turns", o->turns, 1, 32));
    F2B_TRY(check_range("described", o->described_percent, 0, 100));
    F2B_TRY(check_range("text-only", o->text_only_percent, 0, 50));
    F2B_TRY(check_range("image-size", o->image_size, 16, 1024));
    if (o->image_size % 8 == 0) return F2B_OK;
    return f2b_fail(F2B_ERR_USAGE, "toy world: image-size is %d; it must be a multiple of 8",
                    o->image_size);
}

f2b_status f2bi_toy_text_file(const char *dir, const char *name, const char *text)
{
    char *path = f2b_sprintf(F2B_TAG_OTHER, "%s/%s", dir, name);
    if (path == NULL) return f2b_last_status();
    FILE *file = fopen(path, "w");
    bool ok = file != NULL;
    if (ok) {
        ok = fputs(text, file) >= 0;
        if (fclose(file) != 0) ok = false;
    }
    const f2b_status status = ok ? F2B_OK : f2b_fail_errno(F2B_ERR_IO, "%s: cannot write", path);
    f2b_free(path);
    return status;
}

/* The files that grow with the images; all are open while the world is written. */
enum { TRAIN_JSON, VAL_JSON, LANGUAGE_JSON, TRAIN_TSV, VAL_TSV, COCO_JSON, OUTPUTS };
static const char *const output_names[OUTPUTS] = {
    "train.json", "val.json", "language.json", "captions_train.tsv", "captions_val.tsv",
    "conversation_captions.json",
};

typedef struct world {
    const char *dir;
    const f2b_toy_options *options;
    FILE *out[OUTPUTS];
    int64_t records[TRAIN_TSV]; /* conversations of each file so far */
    uint64_t *seen;             /* [2 * table] keys of validation scenes, open addressing, 0 free */
    uint64_t mask;
    uint8_t *rgb;
} world;

static f2b_status make_dir(const char *dir, const char *sub)
{
    char *path = f2b_sprintf(F2B_TAG_OTHER, "%s%s", dir, sub);
    if (path == NULL) return f2b_last_status();
    f2b_status status = F2B_OK;
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        status = f2b_fail_errno(F2B_ERR_IO, "%s: cannot make the folder", path);
    }
    f2b_free(path);
    return status;
}

static f2b_status open_outputs(world *w)
{
    for (int i = 0; i < OUTPUTS; i++) {
        char *path = f2b_sprintf(F2B_TAG_OTHER, "%s/%s", w->dir, output_names[i]);
        if (path == NULL) return f2b_last_status();
        w->out[i] = fopen(path, "w");
        f2b_status status = F2B_OK;
        if (w->out[i] == NULL) status = f2b_fail_errno(F2B_ERR_IO, "%s: cannot write", path);
        f2b_free(path);
        F2B_TRY(status);
    }
    fputs("[", w->out[TRAIN_JSON]);
    fputs("[", w->out[VAL_JSON]);
    fputs("[", w->out[LANGUAGE_JSON]);
    fprintf(w->out[COCO_JSON], "{\"images\": [");
    for (int64_t i = 0; i < w->options->train; i++) {
        fprintf(w->out[COCO_JSON], "%s\n{\"id\": %lld, \"file_name\": \"t%06lld.png\", \"height\": %d, "
                "\"width\": %d}", i ? "," : "", (long long)i, (long long)i, w->options->image_size,
                w->options->image_size);
    }
    fputs("],\n\"annotations\": [", w->out[COCO_JSON]);
    return F2B_OK;
}

/* Close all; the first that could not be written as a whole is the error. */
static f2b_status close_outputs(world *w, f2b_status status)
{
    static const char *const ends[OUTPUTS] = { "\n]\n", "\n]\n", "\n]\n", "", "", "]}\n" };
    for (int i = 0; i < OUTPUTS; i++) {
        if (w->out[i] == NULL) continue;
        fputs(ends[i], w->out[i]);
        const bool bad = ferror(w->out[i]) != 0;
        if ((fclose(w->out[i]) != 0 || bad) && status == F2B_OK) {
            status = f2b_fail_errno(F2B_ERR_IO, "%s/%s: cannot write", w->dir, output_names[i]);
        }
    }
    return status;
}

/* A validation scene whose content no earlier one has. */
static f2b_status draw_new(world *w, int64_t index, f2bi_toy_scene *scene)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        *scene = f2bi_toy_scene_draw(w->options, F2BI_TOY_VAL, index, attempt);
        const uint64_t key = f2bi_toy_scene_key(scene) | 1;
        uint64_t slot = f2b_hash_mix(key) & w->mask;
        while (w->seen[slot] != 0 && w->seen[slot] != key) slot = (slot + 1) & w->mask;
        if (w->seen[slot] == key) continue;
        w->seen[slot] = key;
        return F2B_OK;
    }
    return f2b_fail(F2B_ERR_USAGE, "toy world: only %lld different validation scenes were found; give a "
                    "smaller --val, or more --objects, --colors or --shapes", (long long)index);
}

/* Begin a record of a conversation file; image is NULL for a text-only one. */
static FILE *begin_record(world *w, int file, const char *image)
{
    static const char *const names[] = { "train", "val", "language" };
    FILE *out = w->out[file];
    const int64_t id = w->records[file]++;
    fprintf(out, "%s\n{\"id\": \"%s%06lld\"", id ? "," : "", names[file], (long long)id);
    if (image != NULL) fprintf(out, ", \"image\": \"%s\"", image);
    fputs(", \"conversations\": [", out);
    return out;
}

/* One question and answer. The first one opens with what is seen ("<image>", a description, or
 * nothing), and LLaVA gives the format prompt with it only. */
static void put_turn(FILE *out, int turn, const char *seen, const f2bi_toy_question *q)
{
    const bool first = turn == 0;
    fprintf(out, "%s\n {\"from\": \"human\", \"value\": \"%s%s%s%s%s\"}, {\"from\": \"gpt\", "
            "\"value\": \"%s\"}", first ? "" : ",", first ? seen : "", first && seen[0] ? "\\n" : "",
            q->question, first ? "\\n" : "", first ? short_answer : "", q->answer);
}

/* Ask until `turns` different questions are found; a scene that has no more ends with fewer. */
static void put_conversation(world *w, FILE *out, const char *seen, const f2bi_toy_scene *scene,
                             f2b_rng *rng)
{
    enum { TRIES = 200, MAX_TURNS = 32 };
    uint64_t asked[MAX_TURNS];
    f2bi_toy_question q;
    for (int turn = 0, i = 0; turn < w->options->turns && i < TRIES; i++) {
        const int kind = (int)f2b_rng_below(rng, F2BI_TOY_QUESTIONS);
        if (!f2bi_toy_ask(scene, w->options, kind, rng, &q)) continue;
        asked[turn] = f2b_hash_text(q.question);
        bool repeated = false;
        for (int k = 0; k < turn; k++) repeated = repeated || asked[k] == asked[turn];
        if (!repeated) put_turn(out, turn++, seen, &q);
    }
    fputs("]}", out);
}

/* A record whose answer is the caption: much to learn from one picture. */
static void put_description(world *w, const char *image, const char *caption)
{
    FILE *out = begin_record(w, TRAIN_JSON, image);
    fprintf(out, "\n {\"from\": \"human\", \"value\": \"<image>\\n%s\"}, {\"from\": \"gpt\", "
            "\"value\": \"%s\"}]}", describe, caption);
}

static void put_text_only(world *w, f2b_rng *rng)
{
    FILE *out = begin_record(w, TRAIN_JSON, NULL);
    f2bi_toy_question q;
    f2bi_toy_ask_text(w->options, rng, &q);
    put_turn(out, 0, "", &q);
    fputs("]}", out);
}

/* Validation asks each question by itself, so that no turn can tell what another asks. */
static void put_questions(world *w, const f2bi_toy_scene *scene, const char *image, int64_t index,
                          f2b_rng *rng)
{
    f2bi_toy_question q;
    for (int i = 0, done = 0; done < VAL_QUESTIONS; i++) {
        const int kind = (int)((index * VAL_QUESTIONS + i) % F2BI_TOY_QUESTIONS);
        if (!f2bi_toy_ask(scene, w->options, kind, rng, &q)) continue;
        FILE *out = begin_record(w, VAL_JSON, image);
        put_turn(out, 0, "<image>", &q);
        fputs("]}", out);
        done++;
    }
}

static f2b_status put_image(world *w, f2bi_toy_part part, int64_t index)
{
    const int size = w->options->image_size;
    f2b_rng rng = f2b_rng_new(w->options->seed, F2B_RNG_TOY, 2 + (uint64_t)part, (uint64_t)index, 0);
    f2bi_toy_scene scene;
    if (part == F2BI_TOY_VAL) F2B_TRY(draw_new(w, index, &scene));
    else scene = f2bi_toy_scene_draw(w->options, part, index, 0);

    char image[32], caption[F2BI_TOY_TEXT];
    (void)snprintf(image, sizeof image, "%c%06lld.png", part == F2BI_TOY_TRAIN ? 't' : 'v',
                   (long long)index);
    f2bi_toy_paint(&scene, size, w->rgb);
    char *path = f2b_sprintf(F2B_TAG_OTHER, "%s/images/%s", w->dir, image);
    if (path == NULL) return f2b_last_status();
    const f2b_status status = f2b_image_write_png(path, w->rgb, size, size);
    f2b_free(path);
    F2B_TRY(status);

    f2bi_toy_caption(&scene, 0, caption);
    fprintf(w->out[part == F2BI_TOY_TRAIN ? TRAIN_TSV : VAL_TSV], "%s\t%s\n", caption, image);
    if (part == F2BI_TOY_VAL) {
        put_questions(w, &scene, image, index, &rng);
        return F2B_OK;
    }
    put_conversation(w, begin_record(w, TRAIN_JSON, image), "<image>", &scene, &rng);
    if ((int)f2b_rng_below(&rng, 100) < w->options->described_percent) {
        put_description(w, image, caption);
    }
    if ((int)f2b_rng_below(&rng, 100) < w->options->text_only_percent) put_text_only(w, &rng);
    for (int i = 0; i < CAPTIONS; i++) {
        f2bi_toy_caption(&scene, i, caption);
        fprintf(w->out[COCO_JSON], "%s\n{\"id\": %lld, \"image_id\": %lld, \"caption\": \"%s\"}",
                index + i ? "," : "", (long long)(index * CAPTIONS + i), (long long)index, caption);
    }
    put_conversation(w, begin_record(w, LANGUAGE_JSON, NULL), caption, &scene, &rng);
    return F2B_OK;
}

static f2b_status put_readme(const f2b_toy_options *o, const char *dir)
{
    char text[2048];
    (void)snprintf(text, sizeof text,
        "The toy world of fwd2bot: coloured shapes, drawn, not downloaded.\n\n"
        "f2b-data toy --seed %llu --train %lld --val %lld --image-size %d --objects %d --grid %d "
        "--colors %d --shapes %d --jitter %d --turns %d --described %d --text-only %d\n"
        "writes these bytes again.\n\n"
        "images/                     t*.png for training, v*.png for validation\n"
        "train.json                  LLaVA conversations: up to %d questions an image, a caption for %d %%\n"
        "                            of the images, some questions without image\n"
        "val.json                    LLaVA conversations: one question a record, %d records an image\n"
        "language.json               text-only: questions on a scene that the caption describes\n"
        "captions_train.tsv          caption TAB file, one an image\n"
        "captions_val.tsv            likewise; no caption comes twice\n"
        "conversation_captions.json  COCO captions of the training images, %d an image\n"
        "model/                      a small LLaVA without weights, its tokenizer and image settings\n\n"
        "No scene of the validation part (objects, colours, shapes, sizes, places and background) is "
        "in the training part.\n",
        (unsigned long long)o->seed, (long long)o->train, (long long)o->val, o->image_size, o->objects,
        o->grid, o->colours, o->shapes, o->jitter, o->turns, o->described_percent, o->text_only_percent,
        o->turns, o->described_percent, VAL_QUESTIONS, CAPTIONS);
    return f2bi_toy_text_file(dir, "README.txt", text);
}

static f2b_status put_model(const world *w)
{
    char *dir = f2b_sprintf(F2B_TAG_OTHER, "%s/model", w->dir);
    char *path = f2b_sprintf(F2B_TAG_OTHER, "%s/model/tokenizer.model", w->dir);
    int64_t pieces = 0;
    f2b_status status = dir == NULL || path == NULL ? f2b_last_status() : F2B_OK;
    if (status == F2B_OK) status = f2bi_toy_tokenizer(path, &pieces);
    if (status == F2B_OK) status = f2bi_toy_model(dir, w->options, pieces);
    f2b_free(dir);
    f2b_free(path);
    return status;
}

static f2b_status put_images(world *w, int (*progress)(int64_t, int64_t, void *), void *user)
{
    const int64_t train = w->options->train, total = train + w->options->val;
    for (int64_t i = 0; i < total; i++) {
        F2B_TRY(put_image(w, i < train ? F2BI_TOY_TRAIN : F2BI_TOY_VAL, i < train ? i : i - train));
        if (progress != NULL && progress(i + 1, total, user) != 0) {
            return f2b_fail(F2B_ERR_STOPPED, "%s: stopped after %lld of %lld images", w->dir,
                            (long long)i + 1, (long long)total);
        }
    }
    return F2B_OK;
}

f2b_status f2b_toy_write(const char *dir, const f2b_toy_options *options,
                         int (*progress)(int64_t, int64_t, void *), void *user)
{
    F2B_TRY(f2b_toy_check(options));
    F2B_TRY(make_dir(dir, ""));
    F2B_TRY(make_dir(dir, "/images"));
    F2B_TRY(make_dir(dir, "/model"));
    world w = { .dir = dir, .options = options, .mask = 1 };
    while (w.mask < (uint64_t)options->val * 2) w.mask *= 2;
    w.mask -= 1;
    w.seen = f2b_calloc((size_t)w.mask + 1, sizeof *w.seen, F2B_TAG_DATA);
    w.rgb = f2b_calloc((size_t)options->image_size * (size_t)options->image_size, 3, F2B_TAG_IMAGES);
    f2b_status status = w.seen == NULL || w.rgb == NULL ? f2b_last_status() : open_outputs(&w);
    if (status == F2B_OK) status = put_images(&w, progress, user);
    status = close_outputs(&w, status);
    if (status == F2B_OK) status = put_model(&w);
    if (status == F2B_OK) status = put_readme(options, dir);
    f2b_free(w.seen);
    f2b_free(w.rgb);
    return status;
}
