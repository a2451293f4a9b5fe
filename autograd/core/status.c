/* Thread-local error text. See status.h for the contract. */
#include "autograd/core/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local f2b_error current;

const char *f2b_status_text(f2b_status status)
{
    switch (status) {
#define F2B_X(name, value, text) case name: return text;
    F2B_STATUS_LIST(F2B_X)
#undef F2B_X
    }
    return "unknown status";
}

f2b_status f2b_fail(f2b_status code, const char *format, ...)
{
    char text[sizeof current.text];     /* the arguments may point into the current text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(current.text, text, sizeof text);
    current.code = code;
    return code;
}

f2b_status f2b_fail_errno(f2b_status code, const char *format, ...)
{
    const int error = errno;
    char text[sizeof current.text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return f2b_fail(code, "%.1500s: %s", text, strerror(error));
}

f2b_status f2b_fail_context(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return f2b_fail(current.code, "%s: %.1500s", text, current.text);
}

const char *f2b_last_error(void) { return current.text; }
f2b_status f2b_last_status(void) { return current.code; }

void f2b_clear_error(void)
{
    current.code = F2B_OK;
    current.text[0] = '\0';
}

void f2b_error_take(f2b_error *out)
{
    *out = current;
    f2b_clear_error();
}

void f2bi_check_failed(const char *file, int line, const char *expression)
{
    fprintf(stderr, "%s:%d: internal check failed: %s\n", file, line, expression);
    abort();
}
