/* A written SVG is well-formed as far as we write them: tags balance, entities are known, and texts
 * have no control characters. */
#ifndef F2B_TESTS_INFER_SVG_CHECK_H
#define F2B_TESTS_INFER_SVG_CHECK_H

#include "tests/checkpoints/fixtures.h"

/* How often a piece stands in a text. */
static inline int count_of(const char *text, const char *piece)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, piece)) != NULL; p++) n++;
    return n;
}

/* The file's text (f2b_free) once it was found sound. */
static inline char *read_svg(const char *path)
{
    int64_t n;
    char *text = read_bytes(path, &n);
    assert_int_equal(strlen(text), n);
    assert_memory_equal(text, "<svg ", 5);
    int depth = 0;
    for (const char *p = text; *p != '\0'; p++) {
        const unsigned char c = (unsigned char)*p;
        assert_true(c >= 0x20 || c == '\n');
        if (*p == '&')
            assert_true(strncmp(p, "&lt;", 4) == 0 || strncmp(p, "&gt;", 4) == 0 ||
                        strncmp(p, "&amp;", 5) == 0 || strncmp(p, "&quot;", 6) == 0);
        if (*p != '<') continue;
        const char *end = strchr(p, '>');
        assert_non_null(end);
        if (p[1] == '/') depth--;
        else if (end[-1] != '/') depth++;
        assert_true(depth >= 0);
    }
    assert_int_equal(depth, 0);
    assert_int_equal(count_of(text, "nan"), 0);
    return text;
}

#endif
