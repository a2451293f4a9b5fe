/*
 * The SentencePiece BPE tokenizer of Llama, Vicuna and LLaVA: reads `tokenizer.model`, encodes and
 * decodes exactly as the reference library does, and writes such files for the toy world.
 *
 * Only what Llama's files use is read: BPE with the identity normaliser. Anything else (unigram
 * models, character maps, user-defined pieces) is refused by name, never half understood.
 *
 * source  google/sentencepiece src/{bpe_model,normalizer,sentencepiece_processor}.cc;
 *         huggingface/transformers models/llama/tokenization_llama.py (control words, `legacy`).
 */
#ifndef F2B_DATA_TOKENIZER_TOKENIZER_H
#define F2B_DATA_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "data/tokenizer/buffers.h"

typedef struct f2b_tokenizer f2b_tokenizer;     /* immutable: any number of threads may use one */

/* Values as in the file. */
typedef enum f2b_piece_type {
    F2B_PIECE_NORMAL = 1,
    F2B_PIECE_UNKNOWN = 2,
    F2B_PIECE_CONTROL = 3,
    F2B_PIECE_BYTE = 6,
} f2b_piece_type;

/**
 * Open a model folder (its `tokenizer.model`) or a `tokenizer.model` file.
 *
 * path    folder or file. `tokenizer_config.json` beside the model, if there is one, says `legacy`
 *         (true where it is silent).
 * return  the tokenizer, for f2b_tokenizer_free; NULL on error.
 * errors  F2B_ERR_NOT_FOUND no tokenizer.model; F2B_ERR_IO; F2B_ERR_FORMAT a damaged file, or one
 *         of another kind (the text says which setting); F2B_ERR_UNSUPPORTED add_bos_token false,
 *         add_eos_token true or add_prefix_space false, with which LLaVA's prompts don't work.
 */
f2b_tokenizer *f2b_tokenizer_open(const char *path);
void f2b_tokenizer_free(f2b_tokenizer *tokenizer);

/* How to encode; flags are or-ed. */
enum {
    F2B_ENCODE_PLAIN = 0, /* SentencePiece itself: a space goes before; `</s>` is four characters */
    F2B_ENCODE_CONTINUE = 1, /* no space before: the text goes on where other text ended */
    F2B_ENCODE_CONTROL = 2,  /* as Hugging Face's slow LlamaTokenizer: `<s>`, `</s>` and `<unk>` are
                                their ids, and text after one gets a space if `legacy` */
};

/**
 * Append the ids of a text to `out`. No start token is added. Malformed UTF-8 reads as U+FFFD; an
 * empty text has no ids.
 *
 * text    `bytes` bytes, NULs allowed.
 * errors  F2B_ERR_MEMORY; F2B_ERR_DATA a text of more than 512 MiB.
 */
F2B_MUST_USE f2b_status f2b_tokenizer_encode(const f2b_tokenizer *tokenizer, const char *text,
                                             size_t bytes, unsigned flags, f2b_ids *out);

/**
 * Decoding in steps, for text that appears while it is generated. Characters come out as soon as
 * they are complete, so byte pieces may wait for their successors. Zero-initialise; copy to branch.
 */
typedef struct f2b_decoder {
    unsigned char pending[4];   /* bytes of a character that is not yet complete */
    int n_pending;
    bool started;               /* something came out: a leading space is text from now on */
    bool space_dropped;         /* the one space that encoding put before the text is gone */
} f2b_decoder;

/**
 * Append what `id` adds to the text: control pieces nothing, the unknown piece " U+2047 ", byte
 * pieces their UTF-8 (U+FFFD where invalid), U+2581 a space. The first space of all is dropped.
 *
 * errors  F2B_ERR_INVALID an id that is no piece (the model's padding rows, F2B_IMAGE_ID).
 */
F2B_MUST_USE f2b_status f2b_tokenizer_decode_next(const f2b_tokenizer *tokenizer,
                                                  f2b_decoder *state, int32_t id, f2b_text *out);

/** Append what is pending as U+FFFD, one for each byte that ends no character. */
F2B_MUST_USE f2b_status f2b_tokenizer_decode_end(f2b_decoder *state, f2b_text *out);

/** The text of n ids: f2b_tokenizer_decode_next for each, then the end. f2b_free; NULL on error. */
char *f2b_tokenizer_decode(const f2b_tokenizer *tokenizer, const int32_t *ids, int64_t n);

/** Number of pieces; ids are 0 to that minus 1 (a model's embedding may have more rows). */
int32_t f2b_tokenizer_pieces(const f2b_tokenizer *tokenizer);

/** The piece's own text (U+2581 for a space; borrowed) and type; id must be a piece. */
const char *f2b_tokenizer_piece(const f2b_tokenizer *tokenizer, int32_t id);
f2b_piece_type f2b_tokenizer_piece_type(const f2b_tokenizer *tokenizer, int32_t id);

/** The id of a piece by its own text, or -1. */
int32_t f2b_tokenizer_find(const f2b_tokenizer *tokenizer, const char *piece);

int32_t f2b_tokenizer_bos(const f2b_tokenizer *tokenizer);
int32_t f2b_tokenizer_eos(const f2b_tokenizer *tokenizer);
int32_t f2b_tokenizer_unk(const f2b_tokenizer *tokenizer);
bool f2b_tokenizer_legacy(const f2b_tokenizer *tokenizer);

/** A normal piece to write: its text (U+2581 for a space) and score (the highest merges first). */
typedef struct f2b_piece {
    const char *text;
    float score;
} f2b_piece;

/**
 * Write a `tokenizer.model` that this reader, the reference library and Hugging Face's classes
 * read: ids 0 to 258 are `<unk>`, `<s>`, `</s>` and the 256 byte pieces, then come the given normal
 * pieces in order; the settings are Llama's. A piece of several characters is reached only if it is
 * the concatenation of two pieces or characters that are reached, so give the intermediate ones
 * too.
 *
 * errors  F2B_ERR_INVALID an empty, repeated or malformed piece; F2B_ERR_IO a failed write.
 */
F2B_MUST_USE f2b_status f2b_tokenizer_write(const char *path, const f2b_piece *pieces, int64_t n);

#endif
