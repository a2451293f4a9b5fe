/* Writing a TensorBoard event file. See tensorboard.h for the contract; its bytes are made in
 * tensorboard_format.c. */
#include "train/tensorboard.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "autograd/core/alloc.h"

#define PREFIX "events.out.tfevents."

struct f2b_tensorboard {
    FILE *file;
    char *path;
    double flushed; /* wall time of the last flush */
};

static double wall_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Seconds for the file's name: now, or after the newest that is there, so that ours sorts last. */
static int64_t name_seconds(const char *folder)
{
    int64_t seconds = (int64_t)wall_time();
    DIR *dir = opendir(folder);
    if (dir == NULL) return seconds;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0) continue;
        const long long theirs = strtoll(entry->d_name + strlen(PREFIX), NULL, 10);
        /* Ten digits: a foreign file of the year 5000 must not push ours out of the form. */
        if (theirs >= seconds && theirs < 9999999999) seconds = theirs + 1;
    }
    closedir(dir);
    return seconds;
}

static f2b_status write_record(f2b_tensorboard *board, f2bi_event_kind kind, int64_t step,
                               const f2b_scalar *scalars, int64_t n)
{
    uint8_t record[256 * F2B_TENSORBOARD_MOST_SCALARS];
    const double now = wall_time();
    const size_t bytes =
        f2bi_tensorboard_record(record, sizeof record, kind, now, step, scalars, n);
    if (bytes == 0) return f2b_fail(F2B_ERR_INVALID, "too many values for a TensorBoard record");
    if (fwrite(record, 1, bytes, board->file) != bytes)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", board->path);
    if (now - board->flushed > 2.0) {
        board->flushed = now;
        if (fflush(board->file) != 0)
            return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", board->path);
    }
    return F2B_OK;
}

static f2b_status open_file(f2b_tensorboard *board, const char *folder, int64_t step)
{
    char host[256] = "localhost";
    (void)gethostname(host, sizeof host - 1); /* a cut name will do */
    board->path = f2b_sprintf(F2B_TAG_FILES, "%s/" PREFIX "%010lld.%s.%d.0", folder,
                              (long long)name_seconds(folder), host, (int)getpid());
    if (board->path == NULL) return f2b_last_status();
    board->file = fopen(board->path, "wbxe");
    if (board->file == NULL) return f2b_fail_errno(F2B_ERR_IO, "cannot create %s", board->path);
    F2B_TRY(write_record(board, F2BI_EVENT_VERSION, 0, NULL, 0));
    if (step > 0) F2B_TRY(write_record(board, F2BI_EVENT_START, step + 1, NULL, 0));
    return F2B_OK;
}

f2b_tensorboard *f2b_tensorboard_open(const char *folder, int64_t step)
{
    f2b_tensorboard *board = f2b_calloc(1, sizeof *board, F2B_TAG_FILES);
    if (board == NULL) return NULL;
    if (open_file(board, folder, step) == F2B_OK) return board;
    f2b_error error;
    f2b_error_take(&error);
    (void)f2b_tensorboard_close(board);
    (void)f2b_fail(error.code, "%s", error.text);
    return NULL;
}

f2b_status f2b_tensorboard_write(f2b_tensorboard *board, int64_t step, const f2b_scalar *scalars,
                                 int64_t n)
{
    return write_record(board, F2BI_EVENT_SCALARS, step, scalars, n);
}

f2b_status f2b_tensorboard_metrics(f2b_tensorboard *board, const f2b_metrics_row *row)
{
    const f2b_scalar all[] = {
#define F2B_X(name, kind, text) { "train/" #name, (float)row->name },
        F2B_METRICS_LIST(F2B_X)
#undef F2B_X
    };
    f2b_scalar finite[sizeof all / sizeof all[0]];
    int64_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (isfinite(all[i].value)) finite[n++] = all[i];
    return f2b_tensorboard_write(board, row->step, finite, n);
}

f2b_status f2b_tensorboard_close(f2b_tensorboard *board)
{
    if (board == NULL) return F2B_OK;
    f2b_status status = F2B_OK;
    if (board->file != NULL && (ferror(board->file) | fclose(board->file)) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot write %s", board->path);
    f2b_free(board->path);
    f2b_free(board);
    return status;
}
