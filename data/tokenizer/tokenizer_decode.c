/*
 * Ids to text, equal to SentencePiece's decoder, one id at a time: bytes of byte pieces wait until
 * they are a character or cannot become one.
 */
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_internal.h"

/* Take what can be decided out of the pending bytes; `final`: nothing follows. */
static f2b_status flush(f2b_decoder *d, bool final, f2b_text *out)
{
    while (d->n_pending > 0) {
        const char *bytes = (const char *)d->pending;
        uint32_t code;
        int length = f2bi_utf8_decode(bytes, (size_t)d->n_pending, &code);
        if (length == 0 && !final && f2bi_utf8_is_prefix(bytes, (size_t)d->n_pending))
            return F2B_OK;
        F2B_TRY(length > 0 ? f2b_text_append(out, bytes, (size_t)length)
                           : f2b_text_append(out, F2BI_REPLACEMENT, 3));
        if (length == 0) length = 1;
        d->n_pending -= length;
        memmove(d->pending, d->pending + length, (size_t)d->n_pending);
        d->started = true;
    }
    return F2B_OK;
}

static f2b_status put_piece(const f2b_tokenizer *t, f2b_decoder *d, const char *text, f2b_text *out)
{
    if (!d->started && !d->space_dropped && (t->dummy_prefix || t->squeeze) &&
        strncmp(text, F2BI_SPACE_MARK, F2BI_SPACE_MARK_BYTES) == 0) {
        text += F2BI_SPACE_MARK_BYTES;
        d->space_dropped = !t->squeeze;     /* a squeezed text has no leading spaces at all */
    }
    if (*text != '\0') d->started = true;
    for (const char *mark; (mark = strstr(text, F2BI_SPACE_MARK)) != NULL;
         text = mark + F2BI_SPACE_MARK_BYTES) {
        F2B_TRY(f2b_text_append(out, text, (size_t)(mark - text)));
        F2B_TRY(f2b_text_append(out, " ", 1));
    }
    return f2b_text_add(out, text);
}

f2b_status f2b_tokenizer_decode_next(const f2b_tokenizer *t, f2b_decoder *d, int32_t id,
                                     f2b_text *out)
{
    if (id < 0 || id >= t->n)
        return f2b_fail(F2B_ERR_INVALID, "id %d is no piece of this tokenizer (it has %d)", id,
                        t->n);
    const f2bi_piece *p = &t->pieces[id];
    if (p->type == F2B_PIECE_BYTE) {
        d->pending[d->n_pending++] = p->byte;   /* at most three were waiting */
        return flush(d, false, out);
    }
    F2B_TRY(flush(d, true, out));
    switch (p->type) {
    case F2B_PIECE_CONTROL: return F2B_OK;
    case F2B_PIECE_UNKNOWN:
        d->started = d->started || t->unk_surface[0] != '\0';
        return f2b_text_add(out, t->unk_surface);
    default: return put_piece(t, d, p->text, out);
    }
}

f2b_status f2b_tokenizer_decode_end(f2b_decoder *d, f2b_text *out)
{
    return flush(d, true, out);
}

char *f2b_tokenizer_decode(const f2b_tokenizer *t, const int32_t *ids, int64_t n)
{
    f2b_decoder d = { 0 };
    f2b_text out = { 0 };
    f2b_status status = f2b_text_add(&out, "");     /* no ids are an empty text, not NULL */
    for (int64_t i = 0; i < n && status == F2B_OK; i++)
        status = f2b_tokenizer_decode_next(t, &d, ids[i], &out);
    if (status == F2B_OK) status = f2b_tokenizer_decode_end(&d, &out);
    if (status == F2B_OK) return out.text;
    f2b_text_free(&out);
    return NULL;
}
