/* See model_setup.h. */
#include "train/model_setup.h"

#include "autograd/device/device.h"
#include "checkpoints/folder_weights.h"

f2b_status f2b_model_setup_options(const f2b_config *config, const f2b_model_config *sizes,
                                   f2b_device device, f2b_model_options *o)
{
    *o = (f2b_model_options){
        .config = *sizes, .method = f2b_config_method(config), .device = device,
        .compute = config->train.precision == F2B_PRECISION_F32 ? F2B_F32 : F2B_BF16,
        .fp8 = config->train.precision == F2B_PRECISION_FP8,
        .seed = (uint64_t)config->train.seed,
        .train_projector = config->trainable.projector,
        .train_vision = config->trainable.vision_tower,
    };
    if (o->fp8 && device.kind == F2B_CPU)
        return f2b_fail(F2B_ERR_CONFIG, "train.precision: fp8 needs a CUDA device from sm_89, and this "
                        "is the processor: set train.precision: bf16, or choose --device cuda");
    if (o->fp8) F2B_TRY(f2b_device_takes_fp8(device));
    switch (config->model.weights) {
    case F2B_WEIGHTS_F32: o->storage = F2B_F32; return F2B_OK;
    case F2B_WEIGHTS_BF16: o->storage = F2B_BF16; return F2B_OK;
    case F2B_WEIGHTS_F16: o->storage = F2B_F16; return F2B_OK;
    case F2B_WEIGHTS_INT8: o->storage = F2B_INT8; return F2B_OK;
    case F2B_WEIGHTS_NF4: o->storage = F2B_NF4; return F2B_OK;
    }
    return f2b_fail(F2B_ERR_INVALID, "model.weights is %d", (int)config->model.weights);
}

/* The ids of the tokenizer's normal pieces that the model has embeddings for. */
static f2b_status normal_pieces(const f2b_tokenizer *tokenizer, int64_t rows, int32_t **ids,
                                int64_t *n)
{
    const int64_t pieces = f2b_tokenizer_pieces(tokenizer);
    *n = 0;
    *ids = f2b_calloc((size_t)pieces + 1, sizeof **ids, F2B_TAG_OTHER);
    if (*ids == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < pieces && i < rows; i++)
        if (f2b_tokenizer_piece_type(tokenizer, (int32_t)i) == F2B_PIECE_NORMAL)
            (*ids)[(*n)++] = (int32_t)i;
    if (*n > 0) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "summary.init: vocabulary: the tokenizer has no normal pieces");
}

/* A folder whose projector is new (Vicuna with a tower, as LLaVA itself began): its tensors are
 * left to be drawn, where they are trained. A projector of which a part is missing is damaged. */
static f2b_status find_or_draw(void *context, const char *name, int ndim, const int64_t *shape,
                               f2b_dtype *dtype, const void **data)
{
    const f2b_weight_file *folder = context;
    *data = NULL;
    if (f2b_model_folder_is_projector(name)) return F2B_OK;
    return folder->find(folder->context, name, ndim, shape, dtype, data);
}

static bool contains(void *context, const char *name)
{
    const f2b_weight_file *folder = context;
    return folder->contains(folder->context, name);
}

static void release(void *context, const void *data, int64_t bytes)
{
    const f2b_weight_file *folder = context;
    folder->release(folder->context, data, bytes);
}

f2b_model *f2b_model_setup(const f2b_config *config, f2b_model_folder *folder, f2b_device device,
                           const f2b_tokenizer *tokenizer)
{
    f2b_model_options o;
    const f2b_model_config *sizes = f2b_model_folder_config(folder);
    if (f2b_model_setup_options(config, sizes, device, &o) != F2B_OK) return NULL;
    F2B_RETURN_NULL_IF(!sizes->has_vision, F2B_ERR_CONFIG,
                       "%s is a language model without a vision tower; give model.vision_path or "
                       "a LLaVA folder", config->model.path);
    f2b_weight_file file = f2b_folder_weights(folder);
    const f2b_weight_file without_projector = { find_or_draw, contains, release, &file };
    if (f2b_model_folder_has_weights(folder))
        o.file = o.train_projector && !f2b_model_folder_has_projector(folder) ? &without_projector
                                                                              : &file;
    int32_t *ids = NULL;
    if (config->summary.init == F2B_SUMMARY_INIT_VOCABULARY &&
        o.method.forward != F2B_FORWARD_BASE) {
        F2B_CHECK(tokenizer != NULL);
        if (normal_pieces(tokenizer, sizes->text.vocab, &ids, &o.n_init_ids) != F2B_OK) {
            f2b_free(ids);
            return NULL;
        }
        o.init_ids = ids;
    }
    f2b_model *model = f2b_model_new(&o);
    f2b_free(ids);
    return model;
}
