/*
 * Every format that comes from outside, as a fuzzer sees it: a name and a function that reads any
 * bytes as such a file and everything in it. A reader may refuse; it may not crash, and what it
 * returns must be in order, else the function aborts.
 */
#ifndef F2B_TESTS_SUPPORT_FUZZ_FORMATS_H
#define F2B_TESTS_SUPPORT_FUZZ_FORMATS_H

#include <stddef.h>
#include <stdint.h>

typedef struct f2b_fuzz_format {
    const char *name;                           /* also the folder of its corpus */
    void (*read)(const uint8_t *bytes, size_t n);
    const char *const *words;                   /* what its files are made of, NULL at the end */
} f2b_fuzz_format;

extern const f2b_fuzz_format f2b_fuzz_formats[];
extern const int f2b_fuzz_n_formats;

/** The format of that name, or NULL. */
const f2b_fuzz_format *f2b_fuzz_find(const char *name);

/** A folder of its own for this process's files, in memory where the system has that; made by the
 *  first read, removed by end. */
void f2b_fuzz_end(void);

#endif
