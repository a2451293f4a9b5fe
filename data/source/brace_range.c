/* "cc3m/{00000..00331}.tar": numbers of fixed width, as a shell expands them. */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

enum { MAX_PATHS = 1000000, MAX_DIGITS = 9 };

typedef struct range {
    size_t begin, end;          /* of the braces in the pattern: [begin, end) */
    int64_t first, last;
    int digits;
} range;

/* Digits at p as a number; *n of them. False if there are none or too many. */
static bool number(const char *p, int64_t *value, int *n)
{
    *value = 0;
    for (*n = 0; p[*n] >= '0' && p[*n] <= '9' && *n <= MAX_DIGITS; ++*n)
        *value = *value * 10 + (p[*n] - '0');
    return *n > 0 && *n <= MAX_DIGITS;
}

static f2b_status find_range(const char *pattern, range *r)
{
    const char *open = strchr(pattern, '{'), *close = open != NULL ? strchr(open, '}') : NULL;
    int n, m;
    if (close == NULL || !number(open + 1, &r->first, &n) || strncmp(open + 1 + n, "..", 2) != 0 ||
        !number(open + 3 + n, &r->last, &m) || open + 3 + n + m != close || r->last < r->first)
        return f2b_fail(F2B_ERR_CONFIG, "a range is written {00000..00331}, with the smaller number first");
    r->digits = n;
    r->begin = (size_t)(open - pattern);
    r->end = (size_t)(close + 1 - pattern);
    return F2B_OK;
}

/* Append the names of one pattern; ranges are expanded from the left. */
static f2b_status expand(const char *pattern, char **paths, int64_t *n)
{
    if (strpbrk(pattern, "{}") == NULL) {
        if (*n == MAX_PATHS) return f2b_fail(F2B_ERR_CONFIG, "names more than %d files", MAX_PATHS);
        paths[*n] = f2b_strdup(pattern, F2B_TAG_DATA);
        return paths[*n] != NULL ? ++*n, F2B_OK : F2B_ERR_MEMORY;
    }
    range r = { 0 };
    F2B_TRY(find_range(pattern, &r));
    for (int64_t i = r.first; i <= r.last; i++) {
        char *name = f2b_sprintf(F2B_TAG_DATA, "%.*s%0*lld%s", (int)r.begin, pattern, r.digits,
                                 (long long)i, pattern + r.end);
        if (name == NULL) return F2B_ERR_MEMORY;
        const f2b_status status = expand(name, paths, n);
        f2b_free(name);
        F2B_TRY(status);
    }
    return F2B_OK;
}

f2b_status f2bi_expand(const char *pattern, char ***paths, int64_t *n)
{
    char **all = f2b_calloc(MAX_PATHS, sizeof *all, F2B_TAG_DATA);
    if (all == NULL) return F2B_ERR_MEMORY;
    int64_t found = 0;
    const f2b_status status = expand(pattern, all, &found);
    char **fitting = status == F2B_OK ? f2b_realloc(all, (size_t)found * sizeof *all, F2B_TAG_DATA)
                                      : NULL;
    if (fitting == NULL) {
        f2bi_paths_free(all, found);
        return status != F2B_OK ? f2b_fail_context("%s", pattern) : F2B_ERR_MEMORY;
    }
    *paths = fitting;
    *n = found;
    return F2B_OK;
}

void f2bi_paths_free(char **paths, int64_t n)
{
    for (int64_t i = 0; paths != NULL && i < n; i++) f2b_free(paths[i]);
    f2b_free(paths);
}
