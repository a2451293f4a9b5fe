/* Writes a ModelProto with the settings of Llama's tokenizer.model. See tokenizer.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_internal.h"
#include "data/tokenizer/wire.h"

static f2b_status put_piece(f2b_text *out, const char *text, float score, f2b_piece_type type)
{
    f2b_text message = { 0 };
    f2b_status status = f2bi_wire_put_bytes(&message, 1, text, strlen(text));
    if (status == F2B_OK) status = f2bi_wire_put_float(&message, 2, score);
    if (status == F2B_OK && type != F2B_PIECE_NORMAL)
        status = f2bi_wire_put_varint(&message, 3, type);
    if (status == F2B_OK) status = f2bi_wire_put_bytes(out, 1, message.text, message.n);
    f2b_text_free(&message);
    return status;
}

static f2b_status put_pieces(f2b_text *out, const f2b_piece *pieces, int64_t n)
{
    F2B_TRY(put_piece(out, "<unk>", 0, F2B_PIECE_UNKNOWN));
    F2B_TRY(put_piece(out, "<s>", 0, F2B_PIECE_CONTROL));
    F2B_TRY(put_piece(out, "</s>", 0, F2B_PIECE_CONTROL));
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        F2B_TRY(put_piece(out, name, 0, F2B_PIECE_BYTE));
    }
    for (int64_t i = 0; i < n; i++)
        F2B_TRY(put_piece(out, pieces[i].text, pieces[i].score, F2B_PIECE_NORMAL));
    return F2B_OK;
}

/* trainer_spec: 3 model_type BPE, 4 vocab_size, 35 byte_fallback, 40 to 43 ids, 44 to 48 pieces. */
static f2b_status put_trainer(f2b_text *m, int64_t vocabulary)
{
    F2B_TRY(f2bi_wire_put_varint(m, 3, 2));
    F2B_TRY(f2bi_wire_put_varint(m, 4, (uint64_t)vocabulary));
    F2B_TRY(f2bi_wire_put_varint(m, 26, 1));        /* allow_whitespace_only_pieces */
    F2B_TRY(f2bi_wire_put_varint(m, 35, 1));
    F2B_TRY(f2bi_wire_put_varint(m, 40, 0));
    F2B_TRY(f2bi_wire_put_varint(m, 41, 1));
    F2B_TRY(f2bi_wire_put_varint(m, 42, 2));
    F2B_TRY(f2bi_wire_put_varint(m, 43, UINT64_MAX));       /* pad_id -1: none */
    F2B_TRY(f2bi_wire_put_bytes(m, 44, " \xE2\x81\x87 ", 5));
    F2B_TRY(f2bi_wire_put_bytes(m, 45, "<unk>", 5));
    F2B_TRY(f2bi_wire_put_bytes(m, 46, "<s>", 3));
    return f2bi_wire_put_bytes(m, 47, "</s>", 4);
}

/* normalizer_spec: 1 name, 2 no character map, 3 add_dummy_prefix, 4 remove_extra_whitespaces. */
static f2b_status put_normalizer(f2b_text *m)
{
    F2B_TRY(f2bi_wire_put_bytes(m, 1, "identity", 8));
    F2B_TRY(f2bi_wire_put_bytes(m, 2, "", 0));
    F2B_TRY(f2bi_wire_put_varint(m, 3, 1));
    return f2bi_wire_put_varint(m, 4, 0);
}

static f2b_status put_model(f2b_text *out, const f2b_piece *pieces, int64_t n)
{
    f2b_text trainer = { 0 }, normalizer = { 0 };
    f2b_status status = put_pieces(out, pieces, n);
    if (status == F2B_OK) status = put_trainer(&trainer, n + 259);
    if (status == F2B_OK) status = put_normalizer(&normalizer);
    if (status == F2B_OK) status = f2bi_wire_put_bytes(out, 2, trainer.text, trainer.n);
    if (status == F2B_OK) status = f2bi_wire_put_bytes(out, 3, normalizer.text, normalizer.n);
    f2b_text_free(&trainer);
    f2b_text_free(&normalizer);
    return status;
}

/* Our own reader judges the pieces: what it refuses is never written. */
static f2b_status check(const char *path, const f2b_text *model)
{
    f2b_tokenizer *t = f2b_calloc(1, sizeof *t, F2B_TAG_DATA);
    if (t == NULL) return F2B_ERR_MEMORY;
    f2b_status status = f2bi_tokenizer_parse(t, path, (const unsigned char *)model->text, model->n);
    if (status == F2B_ERR_FORMAT)
        status = f2b_fail(F2B_ERR_INVALID, "not written: %s", f2b_last_error());
    f2b_tokenizer_free(t);
    return status;
}

f2b_status f2b_tokenizer_write(const char *path, const f2b_piece *pieces, int64_t n)
{
    f2b_text model = { 0 };
    f2b_status status = put_model(&model, pieces, n);
    if (status == F2B_OK) status = check(path, &model);
    FILE *file = NULL;
    if (status == F2B_OK && (file = fopen(path, "wbe")) == NULL)
        status = f2b_fail_errno(F2B_ERR_IO, "%s", path);
    if (file != NULL) {
        const bool written = fwrite(model.text, 1, model.n, file) == model.n;
        const bool closed = fclose(file) == 0;
        if (!written || !closed) status = f2b_fail_errno(F2B_ERR_IO, "%s: writing", path);
    }
    f2b_text_free(&model);
    return status;
}
