/* Opening a model for use. See trained_model.h for the contract. */
#include "infer/trained_model.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/folder_weights.h"
#include "checkpoints/peft.h"

/* What an untrained base is. */
static f2b_method base_method(void)
{
    return (f2b_method){ .forward = F2B_FORWARD_BASE,
                         .temperature = 1.0,
                         .language_model = F2B_LANGUAGE_MODEL_FROZEN,
                         .image_aspect_ratio = F2B_ASPECT_PAD };
}

/* An export tells its base only to who has it already; a run knows its own. */
static f2b_status open_trained(f2b_trained_model *t, const f2b_trained_model_options *o)
{
    if (f2b_export_is_one(o->checkpoint)) return F2B_OK;
    t->file = f2b_trained_open(o->checkpoint, NULL, o->notify, o->user);
    return t->file != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status open_base(f2b_trained_model *t, const f2b_trained_model_options *o)
{
    const char *model = o->model, *vision = o->vision;
    if (model == NULL && t->file != NULL) model = f2b_trained_base_path(t->file);
    if (vision == NULL && t->file != NULL) vision = f2b_trained_vision_path(t->file);
    if (model == NULL && o->checkpoint == NULL)
        return f2b_fail(F2B_ERR_USAGE, "no model is named: give --checkpoint DIR, or --model DIR "
                                       "for an untrained base");
    if (model == NULL)
        return f2b_fail(F2B_ERR_USAGE, "%s does not say where its base model is: give --model DIR",
                        o->checkpoint);
    t->folder = f2b_model_folder_open(model, vision);
    if (t->folder == NULL) {
        /* The folder's name came out of the checkpoint, perhaps of another machine. */
        if (o->model == NULL && f2b_last_status() == F2B_ERR_NOT_FOUND)
            return f2b_fail_context(
                "the base model of %s (--model DIR names it where it has moved)", o->checkpoint);
        return f2b_last_status();
    }
    if (o->checkpoint != NULL && t->file == NULL)
        t->file = f2b_trained_open(o->checkpoint, f2b_model_folder_config(t->folder),
                                        o->notify, o->user);
    if (o->checkpoint != NULL && t->file == NULL) return f2b_last_status();
    if (f2b_model_folder_config(t->folder)->has_vision)
        F2B_TRY(f2b_image_settings_load(vision != NULL ? vision : model, &t->image));
    t->tokenizer = f2b_tokenizer_open(model);
    return t->tokenizer != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status check_fits(const f2b_trained_model *t)
{
    const f2b_model_config *config = f2b_model_folder_config(t->folder);
    const char *path = f2b_model_folder_path(t->folder);
    if (f2b_tokenizer_pieces(t->tokenizer) > config->text.vocab)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: the tokenizer has %d pieces, the model %lld embedding "
                        "rows",
                        path, f2b_tokenizer_pieces(t->tokenizer), (long long)config->text.vocab);
    if (config->has_vision && t->image.size != config->vision.image_size)
        return f2b_fail(F2B_ERR_FORMAT, "%s: images of side %d, but the tower takes %lld", path,
                        t->image.size, (long long)config->vision.image_size);
    if (t->file == NULL) {
        if (f2b_model_folder_has_weights(t->folder)) return F2B_OK;
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s has no weights: name a trained model with --checkpoint "
                        "DIR",
                        path);
    }
    const char *have = f2b_model_folder_fingerprint(t->folder);
    if (have == NULL) return f2b_last_status();
    if (strcmp(have, f2b_trained_base_fingerprint(t->file)) == 0) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT,
                    "%s was trained on a base with the fingerprint %s, but %s has %s; "
                    "name the right folder with --model DIR (a separate tower's with "
                    "--vision-path DIR)",
                    f2b_trained_path(t->file), f2b_trained_base_fingerprint(t->file), path, have);
}

/* The type of the base's embedding table stands for the file's. What was trained is kept in f32,
 * and so is a language model that was. */
static f2b_status pick_storage(const f2b_trained_model *t, int asked, f2b_dtype *out)
{
    static const char *const name = "language_model.model.embed_tokens.weight";
    const f2b_text_config *text = &f2b_model_folder_config(t->folder)->text;
    *out = (f2b_dtype)asked;
    if (asked != F2B_STORAGE_OF_FILE) return F2B_OK;
    *out = F2B_F32;
    if (!f2b_model_folder_has_weights(t->folder) ||
        (t->file != NULL && f2b_trained_contains(t->file, name)))
        return F2B_OK;
    f2b_named_array embed;
    F2B_TRY(f2b_model_folder_find(t->folder, name, 2, (int64_t[]){ text->vocab, text->hidden },
                                  &embed));
    *out = embed.dtype;
    return F2B_OK;
}

static f2b_status build(f2b_trained_model *t, const f2b_trained_model_options *o)
{
    const bool weights = f2b_model_folder_has_weights(t->folder);
    const f2b_weight_file base = f2b_folder_weights(t->folder);
    const f2b_weight_file all =
        t->file != NULL ? f2b_trained_weights(t->file, weights ? &base : NULL) : base;
    f2b_model_options m = {
        .config = *f2b_model_folder_config(t->folder),
        .method = t->file != NULL ? *f2b_trained_method(t->file) : base_method(),
        .file = &all,
        .device = o->device,
        .compute = o->compute,
        .frozen = true,
    };
    if (t->file != NULL) (void)f2b_trained_seed(t->file, &m.seed);
    if (o->text_only) m.config.has_vision = false;
    F2B_TRY(pick_storage(t, o->storage, &m.storage));
    t->model = f2b_model_new(&m);
    if (t->model == NULL) return f2b_last_status();
    if (t->file == NULL) return F2B_OK;
    F2B_TRY(f2b_trained_load(t->file, &t->model->parameters, true));
    F2B_TRY(f2b_trained_check_used(t->file));
    /* `base` ends with this call; nothing more is asked of it. */
    (void)f2b_trained_weights(t->file, NULL);
    return F2B_OK;
}

f2b_trained_model *f2b_trained_model_open(const f2b_trained_model_options *o)
{
    F2B_CHECK(!o->text_only || o->checkpoint == NULL);
    f2b_trained_model *t = f2b_calloc(1, sizeof *t, F2B_TAG_OTHER);
    if (t == NULL) return NULL;
    f2b_status status = o->checkpoint != NULL ? open_trained(t, o) : F2B_OK;
    if (status == F2B_OK) status = open_base(t, o);
    if (status == F2B_OK) status = check_fits(t);
    if (status == F2B_OK) status = build(t, o);
    if (status != F2B_OK) {
        f2b_trained_model_close(t);
        return NULL;
    }
    t->path = t->file != NULL ? f2b_trained_path(t->file) : f2b_model_folder_path(t->folder);
    t->step = t->file != NULL ? f2b_trained_step(t->file) : 0;
    return t;
}

void f2b_trained_model_close(f2b_trained_model *t)
{
    if (t == NULL) return;
    f2b_model_free(t->model);
    f2b_tokenizer_free(t->tokenizer);
    f2b_trained_close(t->file);
    f2b_model_folder_close(t->folder);
    f2b_free(t);
}

f2b_model f2b_model_base_view(const f2b_model *model)
{
    f2b_model view = *model;
    view.method.forward = F2B_FORWARD_BASE;
    view.method.language_model = F2B_LANGUAGE_MODEL_FROZEN;
    view.summary_tokens = NULL;
    view.log_temperature = NULL;
    return view;
}
