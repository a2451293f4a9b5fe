/*
 * Line charts: panels above each other with one x axis' meaning and one legend.
 */
#ifndef F2B_INFER_SVG_CHART_H
#define F2B_INFER_SVG_CHART_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"

/** Points of a line; a y that is not finite makes a gap. Borrowed. */
typedef struct f2b_series {
    const double *x, *y;        /* [n], x rising: whole numbers (steps, layers) */
    int64_t n;
    int colour;                 /* which name of the legend it belongs to */
    bool faint;                 /* in the background */
} f2b_series;

typedef struct f2b_panel {
    const char *title;
    const f2b_series *series;
    int64_t n_series;
} f2b_panel;

typedef struct f2b_chart {
    const char *title, *x_label;
    const char *const *legend;  /* [n_legend] names, borrowed */
    int64_t n_legend;
    const f2b_panel *panels;
    int64_t n_panels;
    bool marks;                 /* a dot at each point: for few points */
} f2b_chart;

/** Draw and write. errors: F2B_ERR_DATA: no finite point at all; F2B_ERR_IO, F2B_ERR_MEMORY. */
f2b_status f2b_chart_write(const f2b_chart *chart, const char *path) F2B_MUST_USE;

/** Round steps for an axis: the step (1, 2 or 5 times a power of ten) that puts about `wanted`
 *  ticks into [low, high]. low < high, both finite. */
double f2b_chart_step(double low, double high, int wanted);

#endif
