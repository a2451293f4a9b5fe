/* What f2b-inspect does: a report, or one of its pictures. Each has its file, cli/inspect_*.c. */
#ifndef F2B_CLI_INSPECT_TASKS_H
#define F2B_CLI_INSPECT_TASKS_H

#include "cli/options.h"

/** What the command line asked for. Texts are NULL where nothing was given. */
typedef struct f2b_inspect_settings {
    bool json, verify, norms, lora_norms;
    int64_t limit, layer, smooth;
    const char *svg, *plot, *attention;
    const char *checkpoint, *model, *vision, *image, *question, *precision;
    f2b_arguments arguments;
} f2b_inspect_settings;

f2b_status f2b_inspect_run_report(const f2b_inspect_settings *s) F2B_MUST_USE;
f2b_status f2b_inspect_run_lora_norms(const f2b_inspect_settings *s) F2B_MUST_USE;
f2b_status f2b_inspect_run_plot(const f2b_inspect_settings *s) F2B_MUST_USE;
f2b_status f2b_inspect_run_attention(const f2b_inspect_settings *s) F2B_MUST_USE;

/** Print a text of a file on stdout: control characters, which could move the cursor, as '?'. */
void f2b_inspect_print_text(const char *text, int width);

#endif
