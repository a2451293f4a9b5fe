/*
 * What can go wrong, and how it is told.
 *
 * Everything the outside world can cause (a file, a configuration, a shape, memory, a device) is a
 * status plus a text; the text is kept per thread and names the place and the remedy. What only a
 * bug of ours can cause is F2B_CHECK: it aborts with file and line, in release builds too.
 * No library function prints or exits; only the programs in cli/ show messages.
 */
#ifndef F2B_AUTOGRAD_CORE_STATUS_H
#define F2B_AUTOGRAD_CORE_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* name, value, text. Values are frozen; groups leave gaps. cli/exit_codes.h maps them to exit codes. */
#define F2B_STATUS_LIST(X)                                                                        \
    X(F2B_OK,               0, "ok")                                                              \
    X(F2B_ERR_INVALID,     -1, "invalid argument")                                                \
    X(F2B_ERR_SHAPE,       -2, "shapes do not fit")                                               \
    X(F2B_ERR_DTYPE,       -3, "types do not fit")                                                \
    X(F2B_ERR_USAGE,      -10, "wrong usage")                                                     \
    X(F2B_ERR_CONFIG,     -11, "configuration error")                                             \
    X(F2B_ERR_IO,         -20, "input or output failed")                                          \
    X(F2B_ERR_FORMAT,     -21, "file is damaged or of another format")                            \
    X(F2B_ERR_DATA,       -22, "unusable data")                                                   \
    X(F2B_ERR_NOT_FOUND,  -23, "not found")                                                       \
    X(F2B_ERR_BUSY,       -24, "in use by another process")                                       \
    X(F2B_ERR_MEMORY,     -30, "out of memory")                                                   \
    X(F2B_ERR_DEVICE,     -31, "device error")                                                    \
    X(F2B_ERR_UNSUPPORTED,-32, "not supported on this device")                                    \
    X(F2B_ERR_NUMBERS,    -40, "non-finite numbers")                                              \
    X(F2B_ERR_STOPPED,    -50, "stopped by a signal")

typedef enum f2b_status {
#define F2B_X(name, value, text) name = value,
    F2B_STATUS_LIST(F2B_X)
#undef F2B_X
} f2b_status;

#define F2B_MUST_USE __attribute__((warn_unused_result))
#define F2B_WEAK __attribute__((weak))          /* NULL where nothing of that name is linked */

#define F2B_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/** Short fixed text of a status, e.g. "out of memory". Static storage; never NULL. */
const char *f2b_status_text(f2b_status status);

/**
 * Set this thread's error (code and formatted text, replacing an earlier one) and return `code`,
 * so that a function can end with `return f2b_fail(F2B_ERR_IO, "%s: ...", path);`.
 * The text is cut at 2,047 bytes.
 */
f2b_status f2b_fail(f2b_status code, const char *format, ...) F2B_PRINTF(2, 3);

/** As f2b_fail, with ": " and the text of errno at the end. */
f2b_status f2b_fail_errno(f2b_status code, const char *format, ...) F2B_PRINTF(2, 3);

/** Put "text: " before this thread's error text (where it happened) and return its code. */
f2b_status f2b_fail_context(const char *format, ...) F2B_PRINTF(1, 2);

/** This thread's last error: text ("" if none; valid until the next f2b_fail) and code. */
const char *f2b_last_error(void);
f2b_status f2b_last_status(void);
void f2b_clear_error(void);

/** Hand an error from a worker thread to the thread that joins it: copy out, then f2b_fail with it. */
typedef struct f2b_error {
    f2b_status code;
    char text[2048];
} f2b_error;
void f2b_error_take(f2b_error *out);

__attribute__((noreturn)) void f2bi_check_failed(const char *file, int line, const char *expression);

/* The only macros that hide a return or an abort. */
#define F2B_TRY(expression)                                                                       \
    do {                                                                                          \
        const f2b_status f2b_try_status_ = (expression);                                          \
        if (f2b_try_status_ != F2B_OK) return f2b_try_status_;                                    \
    } while (0)

#define F2B_RETURN_NULL_IF(condition, code, ...)                                                  \
    do {                                                                                          \
        if (condition) {                                                                          \
            (void)f2b_fail((code), __VA_ARGS__);                                                  \
            return NULL;                                                                          \
        }                                                                                         \
    } while (0)

#define F2B_CHECK(expression)                                                                     \
    do {                                                                                          \
        if (!(expression)) f2bi_check_failed(__FILE__, __LINE__, #expression);                    \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
