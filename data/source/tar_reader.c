/* See tar_reader.h. All numbers come from the file and are checked before use. */
#include "data/source/tar_reader.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"

enum { BLOCK = 512, WINDOW = 4096, MAX_EXTENDED = 1 << 20 };

/* A window on the file: one pread serves an extended header and the header behind it. */
typedef struct window {
    int fd;
    const char *path;
    int64_t bytes, offset, n;
    unsigned char at[WINDOW];
} window;

/* What extended headers said about the next member. */
typedef struct extended {
    char name[F2BI_TAR_MAX_NAME + 1];
    int64_t size;               /* -1: nothing */
} extended;

static f2b_status damaged(const window *w, int64_t offset, const char *what)
{
    return f2b_fail(F2B_ERR_FORMAT, "%s: byte %lld: %s", w->path, (long long)offset, what);
}

/* The block at `offset`, or NULL with the error set. */
static const unsigned char *block_at(window *w, int64_t offset)
{
    if (offset < 0 || offset > w->bytes - BLOCK) {
        damaged(w, offset, "the archive is cut off");
        return NULL;
    }
    if (offset < w->offset || offset + BLOCK > w->offset + w->n) {
        const ssize_t got = pread(w->fd, w->at, WINDOW, (off_t)offset);
        if (got < 0) f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", w->path);
        else if (got < BLOCK) damaged(w, offset, "the archive is cut off");
        if (got < BLOCK) return NULL;
        w->offset = offset;
        w->n = got;
    }
    return w->at + (offset - w->offset);
}

/* Octal digits with spaces and NULs around, or base 256 where the first bit is set; -1: neither. */
static int64_t number(const unsigned char *field, int n)
{
    uint64_t value = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80) return -1;                /* negative, or more than 88 bits */
        for (int i = 1; i < n; i++) {
            if (value >> 55 != 0) return -1;
            value = value << 8 | field[i];
        }
        return (int64_t)value;
    }
    int i = 0;
    while (i < n && field[i] == ' ') i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) value = value << 3 | (field[i] - '0');
    for (; i < n; i++)
        if (field[i] != ' ' && field[i] != '\0') return -1;
    return (int64_t)value;
}

static bool checksum_fits(const unsigned char *h)
{
    int64_t sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : h[i];
    return number(h + 148, 8) == sum;
}

static bool is_zero(const unsigned char *h)
{
    for (int i = 0; i < BLOCK; i++)
        if (h[i] != 0) return false;
    return true;
}

/* PAX records "27 path=a/very/long/name\n"; the length counts all of it. */
static bool take_pax(char *text, int64_t n, extended *e)
{
    for (char *p = text, *all_end = text + n; p < all_end;) {
        if (*p == '\0') return true;                    /* padding of sloppy writers */
        char *after;
        const long long length = *p >= '1' && *p <= '9' ? strtoll(p, &after, 10) : 0;
        if (length < 5 || length > all_end - p || *after != ' ' || p[length - 1] != '\n')
            return false;
        char *key = after + 1, *end = p + length - 1;
        *end = '\0';
        if (key > end) return false;
        if (strncmp(key, "path=", 5) == 0) {
            const size_t bytes = (size_t)(end - (key + 5));
            if (bytes > F2BI_TAR_MAX_NAME || strlen(key + 5) != bytes) return false;
            memcpy(e->name, key + 5, bytes + 1);
        } else if (strncmp(key, "size=", 5) == 0) {
            char *stop;
            e->size = strtoll(key + 5, &stop, 10);
            if (key[5] < '0' || key[5] > '9' || stop != end || e->size < 0) return false;
        }
        p += length;
    }
    return true;
}

/* The content of an extended header of type x (PAX) or L (GNU long name). */
static f2b_status take_extended(window *w, int64_t data, int64_t size, char type, extended *e)
{
    if (size > MAX_EXTENDED) return damaged(w, data, "an extended header of more than 1 MiB");
    char *text = f2b_alloc_host((size_t)size + 1, F2B_TAG_FILES);
    if (text == NULL) return F2B_ERR_MEMORY;
    f2b_status status = F2B_OK;
    for (int64_t done = 0; done < size && status == F2B_OK;) {
        const unsigned char *block = block_at(w, data + done);
        const int64_t n = size - done < BLOCK ? size - done : BLOCK;
        if (block == NULL) status = f2b_last_status();
        else memcpy(text + done, block, (size_t)n);
        done += n;
    }
    if (status == F2B_OK) {
        text[size] = '\0';
        const size_t length = strlen(text);
        if (type == 'x' && !take_pax(text, size, e))
            status = damaged(w, data, "a broken PAX header");
        else if (type == 'L' && length > F2BI_TAR_MAX_NAME)
            status = damaged(w, data, "a too long name");
        else if (type == 'L') memcpy(e->name, text, length + 1);
    }
    f2b_free(text);
    return status;
}

/* Name of a ustar header: prefix/name, neither with a NUL where it is full. */
static void ustar_name(const unsigned char *h, char *out)
{
    size_t n = 0;
    const bool posix = memcmp(h + 257, "ustar\0", 6) == 0;
    const size_t prefix = posix ? strnlen((const char *)h + 345, 155) : 0;
    if (prefix > 0) {
        memcpy(out, h + 345, prefix);
        n = prefix;
        out[n++] = '/';
    }
    const size_t name = strnlen((const char *)h, 100);
    memcpy(out + n, h, name);
    out[n + name] = '\0';
}

f2b_status f2bi_tar_read(int fd, const char *path, int64_t bytes, int64_t offset,
                         f2bi_tar_member *member, bool *end)
{
    window w;                   /* not cleared as a whole: this runs once a member */
    w.fd = fd, w.path = path, w.bytes = bytes, w.offset = w.n = 0;
    extended e;
    e.name[0] = '\0', e.size = -1;
    *end = offset == bytes;
    if (*end) return F2B_OK;
    for (int64_t at = offset;;) {
        const unsigned char *h = block_at(&w, at);
        if (h == NULL) return f2b_last_status();
        if (is_zero(h)) {
            if (at != offset) return damaged(&w, at, "an extended header without a member");
            *end = true;
            return F2B_OK;
        }
        if (!checksum_fits(h)) return damaged(&w, at, "not a tar header, or a damaged one");
        const char type = (char)h[156];
        const bool extends = type == 'x' || type == 'g' || type == 'L' || type == 'K';
        int64_t size = number(h + 124, 12);
        if (!extends && e.size >= 0) size = e.size;
        const int64_t data = at + BLOCK;
        if (size < 0 || size > bytes - data) return damaged(&w, at, "the archive is cut off");
        const int64_t next = data + (size + BLOCK - 1) / BLOCK * BLOCK;
        if (type == 'x' || type == 'L') F2B_TRY(take_extended(&w, data, size, type, &e));
        if (!extends) {
            if (e.name[0] != '\0') memcpy(member->name, e.name, strlen(e.name) + 1);
            else ustar_name(h, member->name);
            member->regular = type == '0' || type == '\0' || type == '7';
            member->header = offset, member->data = data, member->size = size;
            member->next = next < bytes ? next : bytes;
            return F2B_OK;
        }
        at = next;
    }
}
