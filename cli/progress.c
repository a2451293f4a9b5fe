/* The progress line. See progress.h for the contract. */
#include "cli/progress.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const double TERMINAL_SECONDS = 0.1, PLAIN_SECONDS = 10.0;

double f2b_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

f2b_progress f2b_progress_start(bool quiet)
{
    const double now = f2b_seconds();
    return (f2b_progress){ .out = stderr,
                           .quiet = quiet,
                           .terminal = isatty(STDERR_FILENO) == 1,
                           .started = now,
                           .painted = now - 2 * PLAIN_SECONDS };
}

static int terminal_width(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col;
    return 80;
}

/* Blanks over what stands there, rather than an escape sequence that a dumb terminal would
 * print. */
static void wipe(f2b_progress *progress)
{
    if (progress->shown > 0) fprintf(progress->out, "\r%*s\r", progress->shown, "");
    progress->shown = 0;
}

void f2b_progress_show(f2b_progress *progress, bool force, const char *format, ...)
{
    if (progress->quiet) return;
    const double now = f2b_seconds();
    const double pause = progress->terminal ? TERMINAL_SECONDS : PLAIN_SECONDS;
    if (!force && now - progress->painted < pause) return;
    progress->painted = now;

    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!progress->terminal) {
        fprintf(progress->out, "%s\n", line);
    } else {
        const int width = terminal_width(progress->out) - 1;
        if ((int)strlen(line) > width) line[width] = '\0';
        const int length = (int)strlen(line);
        fprintf(progress->out, "\r%s%*s", line,
                progress->shown > length ? progress->shown - length : 0, "");
        progress->shown = length;
    }
    fflush(progress->out);
}

void f2b_progress_note(f2b_progress *progress, const char *format, ...)
{
    if (progress->quiet) return;
    wipe(progress);
    va_list args;
    va_start(args, format);
    vfprintf(progress->out, format, args);
    va_end(args);
    fputc('\n', progress->out);
    fflush(progress->out);
}

void f2b_progress_end(f2b_progress *progress)
{
    if (progress->shown > 0) fputc('\n', progress->out);
    progress->shown = 0;
    fflush(progress->out);
}

double f2b_progress_eta(const f2b_progress *progress, int64_t done, int64_t total)
{
    if (done <= 0 || total < done) return -1;
    return (f2b_seconds() - progress->started) / (double)done * (double)(total - done);
}

f2b_short_text f2b_format_duration(double seconds)
{
    f2b_short_text t;
    if (!(seconds >= 0 && seconds < 1e10)) {
        snprintf(t.text, sizeof t.text, "-");
        return t;
    }
    const long long whole = llround(seconds), days = whole / 86400;
    const unsigned h = whole / 3600 % 24, m = whole / 60 % 60, s = whole % 60;
    if (days > 0)
        snprintf(t.text, sizeof t.text, "%lld day%s %u:%02u:%02u", days, days == 1 ? "" : "s", h, m,
                 s);
    else if (h > 0) snprintf(t.text, sizeof t.text, "%u:%02u:%02u", h, m, s);
    else snprintf(t.text, sizeof t.text, "%u:%02u", m, s);
    return t;
}

f2b_short_text f2b_format_bytes(int64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    f2b_short_text t;
    double value = (double)bytes;
    int unit = 0;
    while (fabs(value) >= 1023.95 && unit < 5) {
        value /= 1024;
        unit++;
    }
    snprintf(t.text, sizeof t.text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return t;
}
