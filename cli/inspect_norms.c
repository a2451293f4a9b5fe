/* f2b-inspect --lora-norms PATH: the norm of s B A of every adapted linear, as a table or --json;
 * --svg FILE draws it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/inspect_tasks.h"
#include "cli/progress.h"
#include "infer/inspect/lora_norms.h"

static bool same_linear(const f2b_lora_norm *a, const f2b_lora_norm *b)
{
    return strcmp(a->module, b->module) == 0;
}

/* A row a linear, a column a stage. */
static void print_table(const f2b_lora_norms *norms)
{
    static const char *const stages[] = { "compression", "generation", "shared" };
    bool has[3] = { false };
    for (int64_t i = 0; i < norms->n; i++)
        for (int k = 0; k < 3; k++)
            has[k] = has[k] || strcmp(norms->items[i].stage, stages[k]) == 0;
    printf("%-8s %5s  %-10s %4s", "part", "layer", "projection", "r");
    for (int k = 0; k < 3; k++)
        if (has[k]) printf("  %12s", stages[k]);
    for (int64_t i = 0; i < norms->n; i++) {
        const f2b_lora_norm *a = &norms->items[i];
        const bool first = i == 0 || !same_linear(a, a - 1);
        if (!first) continue;
        printf("\n%-8s %5" PRId64 "  ", a->tower ? "tower" : "language", a->layer);
        f2b_inspect_print_text(a->projection, 10);
        printf(" %4" PRId64, a->r);
        for (int k = 0; k < 3; k++) {
            int64_t j = i;
            while (j < norms->n && same_linear(a, &norms->items[j]) &&
                   strcmp(norms->items[j].stage, stages[k]) != 0)
                j++;
            const bool there = j < norms->n && same_linear(a, &norms->items[j]);
            if (has[k] && there) printf("  %12.6g", norms->items[j].norm);
            else if (has[k]) printf("  %12s", "-");
        }
    }
    putchar('\n');
}

static f2b_status print_json(const f2b_lora_norms *norms)
{
    json_t *list = json_array();
    bool good = list != NULL;
    for (int64_t i = 0; i < norms->n; i++) {
        const f2b_lora_norm *a = &norms->items[i];
        good = good && json_array_append_new(list, json_pack(
            "{s:s, s:s, s:I, s:s, s:I, s:f}", "module", a->module, "stage", a->stage, "layer",
            (json_int_t)a->layer, "projection", a->projection, "r", (json_int_t)a->r, "norm",
            a->norm)) == 0;
    }
    json_t *root = json_pack("{s:I, s:f, s:o}", "step", (json_int_t)norms->step, "scale",
                             norms->scale, "adapters", list);
    if (root == NULL || !good) {
        json_decref(root);
        return f2b_fail(F2B_ERR_DATA, "a norm is not finite, or a name not UTF-8");
    }
    json_dumpf(root, stdout, JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(root);
    return F2B_OK;
}

static void note(void *user, const char *text) { f2b_progress_note(user, "%s", text); }

f2b_status f2b_inspect_run_lora_norms(const f2b_inspect_settings *s)
{
    f2b_progress progress = f2b_progress_start(s->arguments.quiet);
    f2b_lora_norms norms = { 0 };
    f2b_status status =
        f2b_lora_norms_read(s->arguments.operands[0], note, &progress, &norms);
    if (status == F2B_OK && s->json) status = print_json(&norms);
    else if (status == F2B_OK) print_table(&norms);
    if (status == F2B_OK && s->svg != NULL) status = f2b_lora_norms_draw(&norms, s->svg);
    f2b_lora_norms_clear(&norms);
    return status;
}
