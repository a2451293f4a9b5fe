/* f2b-search: what it was asked for, and the parts that its files share. */
#ifndef F2B_CLI_SEARCH_PROGRAM_H
#define F2B_CLI_SEARCH_PROGRAM_H

#include "cli/model_choice.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "data/image/image.h"
#include "infer/search.h"

/** Texts of one line each: stripped, not empty, UTF-8. */
typedef struct f2b_lines {
    char **lines;               /* [n] */
    int64_t n;
} f2b_lines;

/** Of a file: a line each; of a name that ends in .tsv the part before the first tab. F2B_ERR_DATA
 *  names file and line. */
f2b_status f2b_lines_read(const char *path, f2b_lines *out) F2B_MUST_USE;

/** Of the command line. F2B_ERR_USAGE. */
f2b_status f2b_lines_take(char *const *texts, int64_t n, f2b_lines *out) F2B_MUST_USE;
void f2b_lines_free(f2b_lines *lines);

typedef struct f2b_search_program {
    f2b_model_choice choice;
    const char *store_path, *queries_path, *image_path, *id, *captions_path;
    const char *images, *image_folder, *html;
    int64_t k, batch, max_caption_length;
    bool json;
    f2b_arguments arguments;
    f2b_progress progress;

    f2b_store *store;           /* NULL: not needed */
    f2b_lines queries;          /* n = 0: the query is an image */
    f2b_lines captions;         /* what is searched, if --captions was given; else the store is */
    f2b_image image;            /* of --image */
} f2b_search_program;

/** Print the results on stdout: hits [n, k]. */
f2b_status f2b_search_print(const f2b_search_program *p, const f2b_search_hit *hits, int64_t n,
                            int64_t k) F2B_MUST_USE;

/** Write them to --html. */
f2b_status f2b_search_write_sheet(const f2b_search_program *p, const f2b_search_hit *hits,
                                  int64_t n, int64_t k) F2B_MUST_USE;

#endif
