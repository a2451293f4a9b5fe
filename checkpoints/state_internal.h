/* The parts of state.h: the manifest, and state.h5 itself. */
#ifndef F2B_CHECKPOINTS_STATE_INTERNAL_H
#define F2B_CHECKPOINTS_STATE_INTERNAL_H

#include "checkpoints/file_checksum.h"
#include "checkpoints/state.h"

#define F2BI_STATE_FILE "state.h5"
#define F2BI_MANIFEST_FILE "manifest.json"
enum { F2BI_STATE_MAX_TEXT = 64 << 20 };        /* bytes of an attribute, with the closing zero */

/** Write folder/manifest.json: folder/state.h5 is what `sum` says. */
F2B_MUST_USE f2b_status f2bi_manifest_write(const char *folder, int64_t step, const f2b_file_checksum *sum);

/** Check folder/state.h5 against the manifest. *step gets the step it names. errors: F2B_ERR_FORMAT
 *  (damaged, with what differs), F2B_ERR_NOT_FOUND, F2B_ERR_IO. */
F2B_MUST_USE f2b_status f2bi_manifest_check(const char *folder, int64_t *step);

/** Write state.h5, to the disk; *sum gets its checksum. On failure nothing is left of it. */
F2B_MUST_USE f2b_status f2bi_state_write_file(const char *path, const f2b_state *state,
                                              f2b_file_checksum *sum);

/** Open the state.h5 in `folder`, which the manifest has vouched for, and check its structure. */
f2b_state_file *f2bi_state_open_file(const char *folder, int64_t step);

#endif
