/*
 * The means of a shard: one row of length 1 an image, f16, in a file beside the shard.
 *
 *   shard-00000.h5.means    header (which shard, by its checksum; images, d, rows of a block), the
 *                           rows [images, d], an XXH3-64 of each block of rows, and one of header
 *                           and these.
 *
 * The file is a help, never a need: it is written whole or not at all, used only if it is of this
 * shard's contents, and each block is checked whenever it is read. What does not fit is made anew
 * from the tokens, after these were checked; where it cannot be written, the means are computed for
 * one search. It may be deleted at any time.
 */
#ifndef F2B_INFER_SEARCH_MEANS_H
#define F2B_INFER_SEARCH_MEANS_H

#include "infer/search_scan.h"

#define F2B_MEANS_SUFFIX ".means"

/** The mean of tokens [K, d] (f16 bits) scaled to length 1, summed in f64, rounded to f16: out[d].
 *  sum[d] is work space. false: they are not finite. */
bool f2b_search_mean(const uint16_t *tokens, int64_t K, int64_t d, double *sum, uint16_t *out);

/**
 * Search the means of one shard, which are made if need be.
 * errors  of f2b_search_scan; F2B_ERR_FORMAT: the shard is damaged; F2B_ERR_NUMBERS: tokens that
 *         are not finite.
 */
f2b_status f2b_search_shard(f2b_search *search, const f2b_store *store, int64_t shard,
                            const f2b_search_hooks *hooks) F2B_MUST_USE;

#endif
