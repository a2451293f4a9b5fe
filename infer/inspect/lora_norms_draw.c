/* The picture of lora_norms.h: over the layers, a line a projection, a panel a stage. */
#include <string.h>

#include "autograd/core/alloc.h"
#include "infer/inspect/lora_norms.h"
#include "infer/svg/chart.h"

enum { MOST_LINES = 16, PANELS = 4 };

/* A panel: the adapters of one stage in one part of the model. */
static const struct {
    const char *stage, *title;
    bool tower;
} places[PANELS] = {
    { "compression", "compression adapter, vision tower", true },
    { "compression", "compression adapter", false },
    { "generation", "generation adapter", false },
    { "shared", "one adapter for both stages", false },
};

typedef struct drawing {
    const f2b_lora_norms *norms;
    const char *names[MOST_LINES]; /* projections, in their order */
    int64_t n_names;
    double *x, *y;              /* room for all points */
    int64_t used;
    f2b_series series[PANELS][MOST_LINES];
    f2b_panel panels[PANELS];
    int64_t n_panels;
} drawing;

static void add_name(drawing *d, const char *name)
{
    for (int64_t i = 0; i < d->n_names; i++)
        if (strcmp(d->names[i], name) == 0) return;
    if (d->n_names < MOST_LINES) d->names[d->n_names++] = name;
}

/* The points of one line, in the order of layers. */
static f2b_series line(drawing *d, int place, int64_t name)
{
    f2b_series s = { .x = d->x + d->used, .y = d->y + d->used, .colour = (int)name };
    for (int64_t i = 0; i < d->norms->n; i++) {
        const f2b_lora_norm *item = &d->norms->items[i];
        if (item->tower != places[place].tower || strcmp(item->stage, places[place].stage) != 0 ||
            strcmp(item->projection, d->names[name]) != 0)
            continue;
        d->x[d->used] = (double)item->layer;
        d->y[d->used++] = item->norm;
        s.n++;
    }
    return s;
}

static void add_panel(drawing *d, int place)
{
    int64_t n = 0;
    for (int64_t i = 0; i < d->n_names; i++) {
        const f2b_series s = line(d, place, i);
        if (s.n > 0) d->series[place][n++] = s;
    }
    if (n > 0)
        d->panels[d->n_panels++] = (f2b_panel){ places[place].title, d->series[place], n };
}

f2b_status f2b_lora_norms_draw(const f2b_lora_norms *norms, const char *path)
{
    drawing *d = f2b_calloc(1, sizeof *d, F2B_TAG_OTHER);
    double *room = f2b_calloc((size_t)(2 * norms->n), sizeof *room, F2B_TAG_OTHER);
    f2b_status status = d != NULL && room != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) {
        d->norms = norms, d->x = room, d->y = room + norms->n;
        for (int64_t i = 0; i < norms->n; i++) add_name(d, norms->items[i].projection);
        for (int i = 0; i < PANELS; i++) add_panel(d, i);
        const f2b_chart chart = { .title = "Norm of the learned change s B A", .x_label = "layer",
                                  .legend = d->names, .n_legend = d->n_names, .panels = d->panels,
                                  .n_panels = d->n_panels, .marks = true };
        status = f2b_chart_write(&chart, path);
    }
    f2b_free(room);
    f2b_free(d);
    return status;
}
