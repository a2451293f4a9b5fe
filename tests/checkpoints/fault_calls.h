/*
 * Faults at calls to the file system, for tests that are one source file. The calls that
 * checkpoints/ and HDF5 make are taken over here: the n-th ends the process (as kill -9 would), fails
 * with ENOSPC, or hangs until it is let go, as on a file system that does not answer. A thread can be
 * spared all that.
 */
#ifndef F2B_TESTS_CHECKPOINTS_FAULT_CALLS_H
#define F2B_TESTS_CHECKPOINTS_FAULT_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static enum { PASS, KILL, FAIL, HANG } mode = PASS;
static int calls_left;
static _Thread_local bool spared;

static pthread_mutex_t hanging = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool hangs, let_go;

/* Until let_calls_go, or for a minute: a test that fails must end. */
static inline void hang(void)
{
    struct timespec late;
    clock_gettime(CLOCK_REALTIME, &late);
    late.tv_sec += 60;
    pthread_mutex_lock(&hanging);
    hangs = true;
    pthread_cond_broadcast(&changed);
    while (!let_go && pthread_cond_timedwait(&changed, &hanging, &late) == 0) {}
    hangs = false;
    pthread_mutex_unlock(&hanging);
}

/* Wait until a call hangs. */
static inline void await_hanging(void)
{
    pthread_mutex_lock(&hanging);
    while (!hangs) pthread_cond_wait(&changed, &hanging);
    pthread_mutex_unlock(&hanging);
}

static inline void let_calls_go(void)
{
    pthread_mutex_lock(&hanging);
    let_go = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&hanging);
}

/* True where the call must fail; does not return where the process must die. */
static bool fault(void)
{
    if (mode == PASS || spared || --calls_left >= 0) return false;
    if (mode == HANG) {
        hang();
        return false;
    }
    if (mode == KILL) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = ENOSPC;
    return true;
}

/* The program's own functions come before the C library's, for HDF5 too. */
#define TAKE_OVER(name, number, parameters, ...)                                                  \
    int name parameters;                                                                          \
    int name parameters { return fault() ? -1 : (int)syscall(number, __VA_ARGS__); }
#define TAKE_OVER_WRITE(name, number, parameters, ...)                                            \
    ssize_t name parameters;                                                                      \
    ssize_t name parameters { return fault() ? -1 : syscall(number, __VA_ARGS__); }

TAKE_OVER_WRITE(write, SYS_write, (int fd, const void *p, size_t n), fd, p, n)
TAKE_OVER_WRITE(pwrite, SYS_pwrite64, (int fd, const void *p, size_t n, off_t at), fd, p, n, at)
TAKE_OVER_WRITE(pwrite64, SYS_pwrite64, (int fd, const void *p, size_t n, off_t at), fd, p, n, at)
TAKE_OVER(fsync, SYS_fsync, (int fd), fd)
TAKE_OVER(rename, SYS_rename, (const char *a, const char *b), a, b)
TAKE_OVER(renameat2, SYS_renameat2, (int da, const char *a, int db, const char *b, unsigned flags),
          da, a, db, b, flags)
TAKE_OVER(mkdir, SYS_mkdir, (const char *path, mode_t m), path, m)
TAKE_OVER(fallocate, SYS_fallocate, (int fd, int m, off_t at, off_t n), fd, m, at, n)
TAKE_OVER(ftruncate, SYS_ftruncate, (int fd, off_t n), fd, n)
TAKE_OVER(ftruncate64, SYS_ftruncate, (int fd, off_t n), fd, n)

static inline int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; ++fd) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

#endif
