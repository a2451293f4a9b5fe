/* Merged exports: the folder, opened as any user would, against what it is of. See
 * export_merged_internal.h. */
#include <math.h>

#include "infer/export_merged_internal.h"
#include "infer/export_probe.h"

static f2b_trained_model *open_model(const char *model, const char *vision)
{
    const f2b_trained_model_options o = {
        .model = model, .vision = vision, .device = F2B_HOST, .compute = F2B_F32,
        .storage = F2B_STORAGE_OF_FILE,
    };
    return f2b_trained_model_open(&o);
}

static f2b_status changes_nothing(const f2bi_merge *m, double change)
{
    return f2b_fail(F2B_ERR_INVALID,
                    "what was merged changes nothing: %s gives the same output with and without it "
                    "(relative difference %g); was it trained?", m->o->from, change);
}

/* An adapter of the language model: unlike the base, and nearer to base and adapter than those
 * two are to each other, so that more is kept than rounding to the base's type takes away. */
static f2b_status prove_language(f2bi_merge *m, const f2b_model *to)
{
    const f2b_model base = f2b_model_base_view(m->from->model);
    f2b_model adapted = base;
    adapted.method.language_model = F2B_LANGUAGE_MODEL_LORA;
    double wanted;
    F2B_TRY(f2bi_probe_logits(&adapted, m->o->stage, &base, F2B_STAGE_NONE, &wanted));
    F2B_TRY(f2bi_probe_logits(to, F2B_STAGE_NONE, &base, F2B_STAGE_NONE, &m->result->output));
    F2B_TRY(f2bi_probe_logits(to, F2B_STAGE_NONE, &adapted, m->o->stage, &m->result->rounding));
    if (!(m->result->output > 0) || !isfinite(m->result->output))
        return changes_nothing(m, m->result->output);
    if (m->result->rounding < wanted) return F2B_OK;
    return f2b_fail(F2B_ERR_INVALID,
                    "merging loses the adapter of %s: the logits of a fixed text are %g (relative) "
                    "from base and adapter, which are %g from the base; the base's type of weights "
                    "is too coarse for it: use --format peft",
                    m->o->from, m->result->rounding, wanted);
}

/* An adapter of the tower (method.forward single); it works on patches, too. */
static f2b_status prove_tower(f2bi_merge *m, const f2b_model *to)
{
    const f2b_model base = f2b_model_base_view(m->from->model);
    F2B_TRY(f2bi_probe_images(to, &base, &m->result->output));
    return m->result->output > 0 && isfinite(m->result->output)
               ? F2B_OK : changes_nothing(m, m->result->output);
}

/* Without an adapter it computes what the run's own base does; a language model that was trained
 * does not compute what it started from. */
static f2b_status prove_plain(f2bi_merge *m, const f2b_model *to)
{
    const f2b_model same = f2b_model_base_view(m->from->model);
    F2B_TRY(f2bi_probe_logits(to, F2B_STAGE_NONE, &same, F2B_STAGE_NONE, &m->result->rounding));
    if (!(m->result->rounding < 1e-2))
        return f2b_fail(F2B_ERR_INVALID, "the merged folder does not compute what %s does: the "
                        "logits of a fixed text differ by %g (relative)", m->o->from,
                        m->result->rounding);
    if (m->from->file == NULL || !f2b_model_folder_has_weights(m->from->folder) ||
        m->from->model->method.language_model != F2B_LANGUAGE_MODEL_FULL)
        return F2B_OK;
    f2b_trained_model *base = open_model(f2b_model_folder_path(m->from->folder),
                                         f2b_model_folder_vision_path(m->from->folder));
    if (base == NULL) return f2b_last_status();
    const f2b_status status =
        f2bi_probe_logits(to, F2B_STAGE_NONE, base->model, F2B_STAGE_NONE, &m->result->output);
    f2b_trained_model_close(base);
    F2B_TRY(status);
    return m->result->output > 0 && isfinite(m->result->output)
               ? F2B_OK : changes_nothing(m, m->result->output);
}

f2b_status f2bi_merge_prove(f2bi_merge *m)
{
    f2b_trained_model *to = open_model(m->folder, NULL);
    if (to == NULL) return f2b_fail_context("the merged folder was read back and refused");
    const bool tower = m->from->model->method.forward == F2B_FORWARD_SINGLE &&
                       m->o->stage == F2B_STAGE_COMPRESSION;
    const f2b_status status = m->result->merged == 0 ? prove_plain(m, to->model)
                              : tower                ? prove_tower(m, to->model)
                                                     : prove_language(m, to->model);
    f2b_trained_model_close(to);
    return status;
}
