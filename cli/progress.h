/*
 * Progress on stderr: one repainted line on a terminal, plain lines otherwise (at most one in ten
 * seconds). Also how durations and sizes are written for people.
 */
#ifndef F2B_CLI_PROGRESS_H
#define F2B_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "autograd/core/status.h"

/** Value type; treat the fields as private. Use from one thread. */
typedef struct f2b_progress {
    FILE *out;
    bool quiet, terminal;
    double started, painted;    /* f2b_seconds(); painted < started: nothing shown yet */
    int shown;                  /* columns of the line that stands on the terminal */
} f2b_progress;

/** Progress on stderr; `quiet` shows neither lines nor notes. */
f2b_progress f2b_progress_start(bool quiet);

/**
 * Show where the work is (text without newline; cut at the terminal's width). Throttled, so it may
 * be called for every item; `force` shows it all the same (the last step).
 */
void f2b_progress_show(f2b_progress *progress, bool force, const char *format, ...)
    F2B_PRINTF(3, 4);

/** A line that stays, above the progress line: "saved checkpoint step-00000500". */
void f2b_progress_note(f2b_progress *progress, const char *format, ...) F2B_PRINTF(2, 3);

/** End the repainted line, so that what follows starts on a line of its own. */
void f2b_progress_end(f2b_progress *progress);

/** Seconds of a clock that never goes back. */
double f2b_seconds(void);

/** Seconds to the end, from `done` of `total` units since the start; negative where not known
 * yet. */
double f2b_progress_eta(const f2b_progress *progress, int64_t done, int64_t total);

/** "3:12:05", "12:05", "0:07", "4 days 3:12:05"; "-" for a negative or absurd value. */
typedef struct f2b_short_text { char text[48]; } f2b_short_text;
f2b_short_text f2b_format_duration(double seconds);

/** "812 B", "9.8 GiB". */
f2b_short_text f2b_format_bytes(int64_t bytes);

#endif
