/*
 * Who looks at what (the paper's Figure 4): in pass 1, how each summary token attends to the
 * image's patches; in pass 2, how the answer attends to the summary tokens (of a base model: to the
 * patches). Mean over the heads of one layer.
 */
#ifndef F2B_INFER_INSPECT_ATTENTION_MAP_H
#define F2B_INFER_INSPECT_ATTENTION_MAP_H

#include "infer/compress.h"
#include "nn/pack.h"

/** Attention of some rows of one sequence over all its rows: p [rows, keys], each row sums to 1. */
typedef struct f2b_attention_rows {
    int64_t rows, keys;
    float *p;
} f2b_attention_rows;

/**
 * The mean over heads of one layer's attention in a pass over one sequence.
 *
 * The model itself computes it: the layers below run as they are, and the layer's attention is
 * asked for values that are rows of the identity matrix, which gives back its probabilities. So
 * masks, positions, adapters and grouped heads are the model's own.
 *
 * options  layout of the pass; the wanted rows of f2b_pack_build are the rows of the result.
 * images   rows that F2B_ROW_IMAGE points to, or NULL.
 * out      zero-initialised by the caller; p is the caller's (f2b_free).
 * errors   F2B_ERR_USAGE: no such layer; F2B_ERR_DATA: as f2b_pack_build; F2B_ERR_MEMORY.
 */
f2b_status f2b_attention_probe(const f2b_model *model, f2b_stage stage, const f2b_pack_item *item,
                               const f2b_pack_options *options, f2b_tensor *images, int64_t layer,
                               f2b_attention_rows *out) F2B_MUST_USE;

/** What a picture shows. {0} is an empty one; all pointers are owned. */
typedef struct f2b_attention_map {
    int64_t layer, layers;
    int size;                   /* S */
    uint8_t *pixels;            /* [S, S, 3] as the tower sees the image */
    int64_t side;               /* patches a side */
    int64_t K;                  /* summary tokens; 0 of a base model */
    float *summary;             /* [K, side * side] of summary tokens over patches; or NULL */
    int64_t n_answer, columns;  /* ids of the answer; K, or patches of a base model */
    float *answer;              /* [n_answer, columns], each from the row that predicts the id */
    char **pieces;              /* [n_answer] text of each id */
    char *question, *text;      /* what was asked, and the whole answer; NULL without a question */
} f2b_attention_map;

typedef struct f2b_attention_options {
    const char *question;       /* NULL: pass 1 alone */
    int64_t layer;              /* from 0; -1: the last */
    int64_t max_new_tokens;     /* of the answer */
} f2b_attention_options;

/**
 * Look at an image, and answer a question on it greedily.
 * errors  F2B_ERR_CONFIG: method.forward single, whose summary tokens are the tower's;
 *         F2B_ERR_USAGE: no such layer, or a base model without a question.
 */
f2b_status f2b_attention_look(const f2b_infer *in, const f2b_image *image,
                              const f2b_attention_options *options,
                              f2b_attention_map *map) F2B_MUST_USE;
void f2b_attention_map_clear(f2b_attention_map *map);

/** Draw it: a heat map over the image for each summary token and for their mean; a grid of answer
 *  tokens by summary tokens. errors: F2B_ERR_IO, F2B_ERR_MEMORY. */
f2b_status f2b_attention_draw(const f2b_attention_map *map, const char *path) F2B_MUST_USE;

#endif
