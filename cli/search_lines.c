/* Texts to search for, or in. See search_program.h. */
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "cli/search_program.h"
#include "data/tokenizer/utf8.h"

#define MAX_BYTES ((int64_t)1 << 30)

static bool is_utf8(const char *text, size_t bytes)
{
    uint32_t code;
    for (int size; bytes > 0; text += size, bytes -= (size_t)size)
        if ((size = f2bi_utf8_decode(text, bytes, &code)) == 0) return false;
    return true;
}

/* Append a text; what is wrong with it, or NULL. */
static const char *add(f2b_lines *out, const char *text, size_t bytes, f2b_status *status)
{
    text = f2bi_strip(text, &bytes);
    if (bytes == 0) return "is empty";
    if (memchr(text, '\0', bytes) != NULL) return "holds a zero byte";
    if (!is_utf8(text, bytes)) return "is not UTF-8";
    char *copy = f2b_alloc_host(bytes + 1, F2B_TAG_DATA);
    if (copy != NULL) {
        memcpy(copy, text, bytes);
        copy[bytes] = '\0';
        out->lines[out->n++] = copy;
    } else {
        *status = f2b_last_status();
    }
    return NULL;
}

static f2b_status add_lines(const char *path, const char *text, size_t bytes, f2b_lines *out)
{
    const size_t length = strlen(path);
    const bool tsv = length > 4 && strcmp(path + length - 4, ".tsv") == 0;
    f2b_status status = F2B_OK;
    for (int64_t number = 1; bytes > 0 && status == F2B_OK; number++) {
        const char *end = memchr(text, '\n', bytes);
        const size_t line = end != NULL ? (size_t)(end - text) : bytes;
        const char *tab = tsv ? memchr(text, '\t', line) : NULL;
        const char *why = add(out, text, tab != NULL ? (size_t)(tab - text) : line, &status);
        if (why != NULL)
            return f2b_fail(F2B_ERR_DATA, "%s:%lld: the line %s", path, (long long)number, why);
        const size_t whole = end != NULL ? line + 1 : line;
        text += whole, bytes -= whole;
    }
    return status;
}

f2b_status f2b_lines_read(const char *path, f2b_lines *out)
{
    int64_t bytes, lines = 1;
    char *text = f2b_read_file(path, MAX_BYTES, &bytes);
    if (text == NULL) return f2b_last_status();
    for (int64_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    out->lines = f2b_calloc((size_t)lines, sizeof *out->lines, F2B_TAG_DATA);
    f2b_status status = out->lines != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) status = add_lines(path, text, (size_t)bytes, out);
    if (status == F2B_OK && out->n == 0)
        status = f2b_fail(F2B_ERR_DATA, "%s holds no text", path);
    f2b_free(text);
    return status;
}

f2b_status f2b_lines_take(char *const *texts, int64_t n, f2b_lines *out)
{
    out->lines = f2b_calloc((size_t)n, sizeof *out->lines, F2B_TAG_DATA);
    f2b_status status = out->lines != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; i < n && status == F2B_OK; i++) {
        const char *why = add(out, texts[i], strlen(texts[i]), &status);
        if (why != NULL)
            status = f2b_fail(F2B_ERR_USAGE, "the text %lld to search for %s", (long long)i + 1,
                              why);
    }
    return status;
}

void f2b_lines_free(f2b_lines *lines)
{
    for (int64_t i = 0; i < lines->n; i++) f2b_free(lines->lines[i]);
    f2b_free(lines->lines);
    *lines = (f2b_lines){ 0 };
}
