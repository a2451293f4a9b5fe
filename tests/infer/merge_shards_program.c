/*
 * Not a test by itself: a merged export whose files of weights have at most BYTES, for the Python
 * test of merged exports.
 *
 *   merge_shards CHECKPOINT OUT none|compression|generation BYTES
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/export_merged.h"

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    const f2b_merge_options o = {
        .from = argv[1], .to = argv[2], .shard_bytes = atoll(argv[4]),
        .stage = strcmp(argv[3], "compression") == 0  ? F2B_STAGE_COMPRESSION
                 : strcmp(argv[3], "generation") == 0 ? F2B_STAGE_GENERATION
                                                      : F2B_STAGE_NONE,
    };
    f2b_merge_result result;
    if (f2b_export_merged(&o, &result) == F2B_OK) {
        printf("%lld\n", (long long)result.files);
        return 0;
    }
    fprintf(stderr, "merge_shards: %s\n", f2b_last_error());
    return 1;
}
