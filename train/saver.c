/* See saver.h. */
#include "train/saver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct f2b_saver {
    f2b_snapshot *snapshot;
    f2b_saver_events events;
    int64_t step;               /* of the write that is under way */
    bool writing;               /* `thread` is to be joined */
    pthread_t thread;
    atomic_bool ended;
    f2b_error error;            /* of the write, once it has ended; F2B_OK: none */
};

f2b_saver *f2b_saver_new(f2b_snapshot *snapshot, const f2b_saver_events *events)
{
    f2b_saver *s = f2b_calloc(1, sizeof *s, F2B_TAG_OTHER);
    if (s == NULL) return NULL;
    s->snapshot = snapshot;
    s->events = *events;
    return s;
}

static void write_it(f2b_saver *s)
{
    s->error = (f2b_error){ .code = F2B_OK };
    if (f2b_snapshot_write(s->snapshot, s->events.note, s->events.user) != F2B_OK)
        f2b_error_take(&s->error);
    atomic_store(&s->ended, true);
}

static void *writer(void *saver)
{
    write_it(saver);
    return NULL;
}

/* The write has ended: say so, or pass its error on. */
static f2b_status finish(f2b_saver *s)
{
    char text[64];
    if (s->error.code != F2B_OK) return f2b_fail(s->error.code, "%s", s->error.text);
    snprintf(text, sizeof text, "saved checkpoint step-%08lld", (long long)s->step);
    s->events.note(s->events.user, text);
    return F2B_OK;
}

static void tell(const f2b_saver *s, int64_t step)
{
    if (s->events.saving != NULL) s->events.saving(s->events.user, step);
}

f2b_status f2b_saver_wait(f2b_saver *s)
{
    if (!s->writing) return F2B_OK;
    pthread_join(s->thread, NULL);
    s->writing = false;
    tell(s, 0);
    return finish(s);
}

f2b_status f2b_saver_check(f2b_saver *s)
{
    return s->writing && atomic_load(&s->ended) ? f2b_saver_wait(s) : F2B_OK;
}

f2b_status f2b_saver_save(f2b_saver *s, const f2b_run_position *position, bool beside)
{
    F2B_TRY(f2b_saver_wait(s));
    F2B_TRY(f2b_snapshot_take(s->snapshot, position, beside));
    s->step = position->step;
    atomic_store(&s->ended, false);
    if (beside) tell(s, s->step);
    s->writing = beside && pthread_create(&s->thread, NULL, writer, s) == 0;
    if (s->writing) return F2B_OK;
    write_it(s);                /* also where no thread is to be had */
    if (beside) tell(s, 0);
    return finish(s);
}

void f2b_saver_free(f2b_saver *s)
{
    if (s == NULL) return;
    if (s->writing) pthread_join(s->thread, NULL);
    f2b_free(s);
}
