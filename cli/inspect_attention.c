/* f2b-inspect --attention OUT.svg --checkpoint DIR --image FILE [--question TEXT]. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/inspect_tasks.h"
#include "cli/progress.h"
#include "infer/inspect/attention_map.h"
#include "infer/trained_model.h"

enum { MAX_NEW_TOKENS = 48 };

static void note(void *user, const char *text) { f2b_progress_note(user, "%s", text); }

static f2b_trained_model *open_model(const f2b_inspect_settings *s, f2b_progress *progress)
{
    const f2b_trained_model_options o = {
        .checkpoint = s->checkpoint, .model = s->model, .vision = s->vision,
        .device = s->arguments.device, .storage = F2B_STORAGE_OF_FILE,
        .compute = strcmp(s->precision, "bf16") == 0 ? F2B_BF16 : F2B_F32,
        .notify = note, .user = progress,
    };
    return f2b_trained_model_open(&o);
}

static f2b_status tell(const f2b_inspect_settings *s, const f2b_attention_map *map)
{
    json_t *result = json_pack("{s:s, s:I, s:I, s:s?, s:s?}", "out", s->attention, "layer",
                               (json_int_t)map->layer, "summary_tokens", (json_int_t)map->K,
                               "question", map->question, "answer", map->text);
    if (result == NULL) return f2b_fail(F2B_ERR_DATA, "the question is not UTF-8");
    json_dumpf(result, stdout, 0);
    putchar('\n');
    json_decref(result);
    return F2B_OK;
}

f2b_status f2b_inspect_run_attention(const f2b_inspect_settings *s)
{
    f2b_progress progress = f2b_progress_start(s->arguments.quiet);
    f2b_image image = { 0 };
    F2B_TRY(f2b_image_open(s->image, &image));
    f2b_trained_model *m = open_model(s, &progress);
    f2b_status status = m != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) {
        const f2b_infer in = { m->model, m->tokenizer, &m->image };
        const f2b_attention_options o = { .question = s->question, .layer = s->layer,
                                          .max_new_tokens = MAX_NEW_TOKENS };
        f2b_attention_map map;
        status = f2b_attention_look(&in, &image, &o, &map);
        if (status == F2B_OK) status = f2b_attention_draw(&map, s->attention);
        if (status == F2B_OK) status = tell(s, &map);
        f2b_attention_map_clear(&map);
    }
    f2b_trained_model_close(m);
    f2b_image_free(&image);
    return status;
}
