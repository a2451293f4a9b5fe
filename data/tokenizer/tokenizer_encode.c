/*
 * Text to ids, equal to SentencePiece's BPE: symbols are characters; the adjacent pair whose union
 * is the piece of the highest score is merged, the leftmost among equals, until no pair is a piece.
 *
 * No merge can cross a place where no piece could lie. In Llama's vocabulary a space mark only
 * begins pieces (or follows other space marks), so text is cut before each run of space marks and
 * every word is merged by itself: the same ids, with heaps that fit the cache.
 */
#include <limits.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_internal.h"

typedef struct symbol {
    int32_t start, bytes;           /* place in the text; 0 bytes: merged into its left neighbour */
    int32_t prev, next;             /* neighbours, -1 at the ends */
    int32_t id;                     /* of a merged piece; -1 for a single character */
} symbol;

typedef struct pair {
    float score;
    int32_t left, right;
    int32_t bytes;                  /* of the union when it was queued: tells stale entries */
    int32_t id;                     /* of the union */
} pair;

typedef struct work {
    const f2b_tokenizer *tokenizer;
    f2b_text text;                  /* normalised */
    symbol *symbols;                /* [capacity] */
    pair *heap;                     /* [3 * capacity]: n - 1 pairs at first, two more a merge */
    int64_t capacity, n_heap;
    bool after_unknown;             /* the last id is `unk`: a run of unknown characters is one */
    f2b_ids *out;
} work;

/* ---- normalisation --------------------------------------------------------------------------- */

static f2b_status put_space(work *w)
{
    return f2b_text_append(&w->text, F2BI_SPACE_MARK, F2BI_SPACE_MARK_BYTES);
}

/* Append text with spaces marked and malformed bytes replaced; `squeeze` also drops a space after a
 * space. */
static f2b_status put_marked(work *w, const char *text, size_t bytes, bool after_space)
{
    const bool squeeze = w->tokenizer->squeeze;
    uint32_t code;
    for (size_t i = 0; i < bytes;) {
        size_t run = i;             /* bytes that are copied as they are */
        while (run < bytes && text[run] != ' ' && (signed char)text[run] >= 0) run++;
        if (run > i) {
            F2B_TRY(f2b_text_append(&w->text, text + i, run - i));
            i = run, after_space = false;
        } else if (text[i] == ' ') {
            if (!(squeeze && after_space)) F2B_TRY(put_space(w));
            i++, after_space = true;
        } else {
            const int length = f2bi_utf8_decode(text + i, bytes - i, &code);
            F2B_TRY(length > 0 ? f2b_text_append(&w->text, text + i, (size_t)length)
                               : f2b_text_append(&w->text, F2BI_REPLACEMENT, 3));
            i += length > 0 ? (size_t)length : 1, after_space = false;
        }
    }
    return F2B_OK;
}

static bool ends_with_space(const f2b_text *t)
{
    const size_t bytes = F2BI_SPACE_MARK_BYTES;
    return t->n >= bytes && memcmp(t->text + t->n - bytes, F2BI_SPACE_MARK, bytes) == 0;
}

static f2b_status normalise(work *w, const char *text, size_t bytes, bool prefix, bool after_text)
{
    w->text.n = 0;
    if (w->tokenizer->squeeze && !after_text)
        while (bytes > 0 && *text == ' ') text++, bytes--;
    if (bytes == 0) return F2B_OK;
    if (prefix) F2B_TRY(put_space(w));
    F2B_TRY(put_marked(w, text, bytes, false));
    while (w->tokenizer->squeeze && ends_with_space(&w->text)) w->text.n -= F2BI_SPACE_MARK_BYTES;
    return F2B_OK;
}

/* ---- merging --------------------------------------------------------------------------------- */

static bool before(const pair *a, const pair *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(work *w, pair p)
{
    int64_t i = w->n_heap++;
    while (i > 0 && before(&p, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = p;
}

static pair heap_pop(work *w)
{
    const pair top = w->heap[0], last = w->heap[--w->n_heap];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static void consider(work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return;
    const symbol *l = &w->symbols[left], *r = &w->symbols[right];
    const int32_t bytes = l->bytes + r->bytes;
    const int32_t id = f2bi_tokenizer_lookup(w->tokenizer, w->text.text + l->start, (size_t)bytes);
    if (id < 0 || w->tokenizer->pieces[id].type != F2B_PIECE_NORMAL) return;
    heap_push(w, (pair){ w->tokenizer->pieces[id].score, left, right, bytes, id });
}

static void merge(work *w)
{
    while (w->n_heap > 0) {
        const pair p = heap_pop(w);
        symbol *l = &w->symbols[p.left], *r = &w->symbols[p.right];
        if (l->bytes == 0 || r->bytes == 0 || l->bytes + r->bytes != p.bytes) continue;
        l->bytes = p.bytes, l->id = p.id, l->next = r->next;
        if (r->next >= 0) w->symbols[r->next].prev = p.left;
        r->bytes = 0;
        consider(w, l->prev, p.left);
        consider(w, p.left, l->next);
    }
}

/* A character without a piece: its bytes, or one `unk` for a run of such characters. */
static f2b_status put_unknown(work *w, const char *text, int32_t bytes)
{
    if (!w->tokenizer->byte_fallback) {
        if (w->after_unknown) return F2B_OK;
        w->after_unknown = true;
        return f2b_ids_push(w->out, w->tokenizer->unk);
    }
    for (int32_t i = 0; i < bytes; i++)
        F2B_TRY(f2b_ids_push(w->out, w->tokenizer->byte_ids[(unsigned char)text[i]]));
    return F2B_OK;
}

static f2b_status put_symbols(work *w)
{
    for (int32_t i = 0; i >= 0; i = w->symbols[i].next) {
        const symbol *s = &w->symbols[i];
        const char *text = w->text.text + s->start;
        const int32_t id = s->id >= 0 ? s->id
                                      : f2bi_tokenizer_lookup(w->tokenizer, text, (size_t)s->bytes);
        if (id < 0) {
            F2B_TRY(put_unknown(w, text, s->bytes));
            continue;
        }
        w->after_unknown = id == w->tokenizer->unk;
        F2B_TRY(f2b_ids_push(w->out, id));
    }
    return F2B_OK;
}

static f2b_status reserve(work *w, int64_t symbols)
{
    if (symbols <= w->capacity) return F2B_OK;
    const int64_t capacity = symbols < 64 ? 64 : symbols + symbols / 2;
    f2b_free(w->symbols);
    f2b_free(w->heap);
    w->capacity = 0;
    w->symbols = f2b_alloc_host((size_t)capacity * sizeof *w->symbols, F2B_TAG_DATA);
    w->heap = f2b_alloc_host((size_t)capacity * 3 * sizeof *w->heap, F2B_TAG_DATA);
    if (w->symbols == NULL || w->heap == NULL) return F2B_ERR_MEMORY;
    w->capacity = capacity;
    return F2B_OK;
}

/* The normalised text from start to end (valid UTF-8) is one word. */
static f2b_status encode_word(work *w, int32_t start, int32_t end)
{
    F2B_TRY(reserve(w, end - start));
    int32_t n = 0;
    for (int32_t at = start; at < end; n++) {
        uint32_t code;
        const int32_t bytes = f2bi_utf8_decode(w->text.text + at, (size_t)(end - at), &code);
        w->symbols[n] = (symbol){ at, bytes, n - 1, n + 1, -1 };
        at += bytes;
    }
    w->symbols[n - 1].next = -1;
    w->n_heap = 0;
    for (int32_t i = 1; i < n; i++) consider(w, i - 1, i);
    merge(w);
    return put_symbols(w);
}

static f2b_status encode_normalised(work *w)
{
    const char *text = w->text.text;
    const int32_t n = (int32_t)w->text.n;
    w->after_unknown = false;
    for (int32_t start = 0, end; start < n; start = end) {
        end = start;
        bool in_spaces = true;
        while (end < n) {
            const bool space = n - end >= F2BI_SPACE_MARK_BYTES &&
                               memcmp(text + end, F2BI_SPACE_MARK, F2BI_SPACE_MARK_BYTES) == 0;
            if (space && !in_spaces && w->tokenizer->splits_at_spaces) break;
            in_spaces = space;
            end += space ? F2BI_SPACE_MARK_BYTES : 1;
        }
        F2B_TRY(encode_word(w, start, end));
    }
    return F2B_OK;
}

static f2b_status encode_part(work *w, const char *text, size_t bytes, bool prefix, bool after_text)
{
    F2B_TRY(normalise(w, text, bytes, prefix, after_text));
    return encode_normalised(w);
}

/* ---- control words --------------------------------------------------------------------------- */

/* The control word at text (the longest of start, end and unknown piece), or -1. */
static int32_t control_at(const f2b_tokenizer *t, const char *text, size_t bytes)
{
    const int32_t words[3] = { t->bos, t->eos, t->unk };
    int32_t found = -1;
    for (int i = 0; i < 3; i++) {
        const f2bi_piece *p = &t->pieces[words[i]];
        if (p->bytes <= bytes && memcmp(p->text, text, p->bytes) == 0 &&
            (found < 0 || p->bytes > t->pieces[found].bytes))
            found = words[i];
    }
    return found;
}

/*
 * Parts between control words. `legacy`: each is encoded like a text of its own. Otherwise Hugging
 * Face puts one space before the whole text and encodes each part as going on from "<unk>", which
 * it then removes: only the first part has a space before it, and none if a control word begins the
 * text.
 */
static f2b_status encode_control(work *w, const char *text, size_t bytes, bool prefix,
                                 bool after_text)
{
    const f2b_tokenizer *t = w->tokenizer;
    after_text = after_text || !t->legacy;
    for (size_t start = 0, at; start < bytes;) {
        int32_t word = -1;
        for (at = start; at < bytes && (word = control_at(t, text + at, bytes - at)) < 0;) at++;
        if (at > start) F2B_TRY(encode_part(w, text + start, at - start, prefix, after_text));
        prefix = t->dummy_prefix && t->legacy;
        after_text = !t->legacy;
        if (word >= 0) {
            F2B_TRY(f2b_ids_push(w->out, word));
            at += t->pieces[word].bytes;
        }
        start = at;
    }
    return F2B_OK;
}

f2b_status f2b_tokenizer_encode(const f2b_tokenizer *t, const char *text, size_t bytes,
                                unsigned flags, f2b_ids *out)
{
    /* Normalising makes at most three bytes of one; all places fit an int32_t. */
    if (bytes > (size_t)512 << 20)
        return f2b_fail(F2B_ERR_DATA, "a text of %zu bytes is too long to tokenise: cut it", bytes);
    work w = { .tokenizer = t, .out = out };
    const bool goes_on = (flags & F2B_ENCODE_CONTINUE) != 0;
    const bool prefix = t->dummy_prefix && !goes_on;
    const f2b_status status = (flags & F2B_ENCODE_CONTROL) != 0
                                  ? encode_control(&w, text, bytes, prefix, goes_on)
                                  : encode_part(&w, text, bytes, prefix, goes_on);
    f2b_text_free(&w.text);
    f2b_free(w.symbols);
    f2b_free(w.heap);
    return status;
}
