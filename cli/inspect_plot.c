/* f2b-inspect --plot OUT.svg RUN...: losses of runs over each other, from their metrics.jsonl. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "cli/inspect_tasks.h"
#include "infer/svg/chart.h"
#include "train/metrics.h"

enum { LOSSES = 2 };

/* One loss of one run: the steps at which it applies. */
typedef struct curve {
    double *x, *y, *smooth;     /* [n]; x owns the block of all three */
    int64_t n;
} curve;

typedef struct plot {
    int64_t runs;
    const char **names;         /* [runs] */
    curve (*curves)[LOSSES];    /* [runs] */
    f2b_series *series[LOSSES]; /* [2 * runs] */
} plot;

/* A run's folder, or its log itself. */
static f2b_status read_log(const char *path, f2b_metrics_row **rows, int64_t *n)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISDIR(info.st_mode)) return f2b_metrics_read(path, rows, n);
    char *log = f2b_path_join(path, "metrics.jsonl");
    const f2b_status status = log != NULL ? f2b_metrics_read(log, rows, n) : f2b_last_status();
    f2b_free(log);
    return status;
}

static double loss_of(const f2b_metrics_row *row, int loss)
{
    return loss == 0 ? row->loss_ar : row->loss_disc;
}

/* The mean over the last `window` values at each place. */
static void smooth(curve *c, int64_t window)
{
    double sum = 0;
    for (int64_t i = 0; i < c->n; i++) {
        sum += c->y[i];
        if (i >= window) sum -= c->y[i - window];
        c->smooth[i] = sum / (double)(i < window ? i + 1 : window);
    }
}

static f2b_status make_curve(curve *c, const f2b_metrics_row *rows, int64_t n, int loss,
                             int64_t window)
{
    c->x = f2b_calloc((size_t)(3 * n), sizeof *c->x, F2B_TAG_OTHER);
    if (c->x == NULL) return f2b_last_status();
    c->y = c->x + n, c->smooth = c->y + n;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(loss_of(&rows[i], loss))) {
            c->x[c->n] = (double)rows[i].step;
            c->y[c->n++] = loss_of(&rows[i], loss);
        }
    smooth(c, window);
    return F2B_OK;
}

static f2b_status read_run(plot *p, int64_t i, int64_t window)
{
    f2b_metrics_row *rows = NULL;
    int64_t n = 0;
    F2B_TRY(read_log(p->names[i], &rows, &n));
    f2b_status status = F2B_OK;
    for (int k = 0; k < LOSSES && status == F2B_OK; k++)
        status = make_curve(&p->curves[i][k], rows, n, k, window);
    f2b_free(rows);
    return status;
}

/* The measured values of every run, faint where the smoothed ones are drawn over them. */
static int64_t fill_panel(const plot *p, int loss, bool smoothed)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->runs; i++) {
        const curve *c = &p->curves[i][loss];
        p->series[loss][n++] = (f2b_series){ .x = c->x, .y = c->y, .n = c->n, .colour = (int)i,
                                             .faint = smoothed };
    }
    for (int64_t i = 0; smoothed && i < p->runs; i++) {
        const curve *c = &p->curves[i][loss];
        p->series[loss][n++] = (f2b_series){ .x = c->x, .y = c->smooth, .n = c->n,
                                             .colour = (int)i };
    }
    return n;
}

static f2b_status draw(const plot *p, const f2b_inspect_settings *s)
{
    static const char *const titles[LOSSES] = { "loss_ar: next token, nats",
                                                "loss_disc: contrastive" };
    f2b_panel panels[LOSSES];
    int64_t n = 0;
    for (int k = 0; k < LOSSES; k++) {
        bool any = false;
        for (int64_t i = 0; i < p->runs; i++) any = any || p->curves[i][k].n > 0;
        if (any)
            panels[n++] = (f2b_panel){ titles[k], p->series[k], fill_panel(p, k, s->smooth > 1) };
    }
    const f2b_chart chart = { .title = "Loss", .x_label = "step", .legend = p->names,
                              .n_legend = p->runs, .panels = panels, .n_panels = n };
    return f2b_chart_write(&chart, s->plot);
}

f2b_status f2b_inspect_run_plot(const f2b_inspect_settings *s)
{
    const size_t runs = (size_t)s->arguments.n_operands;
    plot p = { .runs = s->arguments.n_operands,
               .names = (const char **)s->arguments.operands,
               .curves = f2b_calloc(runs, sizeof *p.curves, F2B_TAG_OTHER) };
    f2b_status status = p.curves != NULL ? F2B_OK : f2b_last_status();
    for (int k = 0; k < LOSSES && status == F2B_OK; k++) {
        p.series[k] = f2b_calloc(2 * runs, sizeof *p.series[k], F2B_TAG_OTHER);
        if (p.series[k] == NULL) status = f2b_last_status();
    }
    for (int64_t i = 0; i < p.runs && status == F2B_OK; i++) status = read_run(&p, i, s->smooth);
    if (status == F2B_OK) status = draw(&p, s);
    for (int k = 0; k < LOSSES; k++) f2b_free(p.series[k]);
    for (int64_t i = 0; p.curves != NULL && i < p.runs; i++)
        for (int k = 0; k < LOSSES; k++) f2b_free(p.curves[i][k].x);
    f2b_free(p.curves);
    return status;
}
