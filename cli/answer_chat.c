/* f2b-answer as a chat: a question a line, each with what was said before. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/answer_tasks.h"
#include "infer/chat.h"

/* Ctrl-C stops an answer, or clears the line that is typed; it does not end the program. */
static volatile sig_atomic_t interrupted;
static int wake[2] = { -1, -1 };        /* a byte goes in with every Ctrl-C */

static void on_interrupt(int number)
{
    (void)number;
    const int keep = errno;
    interrupted = 1;
    if (wake[1] >= 0 && write(wake[1], "", 1) < 0) errno = keep;    /* full: it tells already */
    errno = keep;
}

static bool stop(void *context)
{
    (void)context;
    return interrupted != 0;
}

static f2b_status catch_interrupts(void)
{
    struct sigaction action;
    if (pipe2(wake, O_NONBLOCK | O_CLOEXEC) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot make a pipe");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt; /* without SA_RESTART: it ends the reading of a line */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    return F2B_OK;
}

typedef struct talk {
    f2b_answer_settings *settings;
    f2b_chat *chat;
    bool terminal;
    int64_t number;
} talk;

/* The answer as JSON or streamed; both end with a line of what it took. */
static f2b_status answer(talk *t, const char *question)
{
    f2b_answer_settings *s = t->settings;
    const f2b_answer_costs before = s->costs;
    s->costs = (f2b_answer_costs){ .questions = 1 };
    if (t->number == 0) s->costs.model = before.model, s->costs.image = before.image;
    bool ended = false;
    f2b_answer_watch watch = f2b_answer_watch_start(s, &ended, !s->json);
    f2b_generate_options o = f2b_answer_options(&watch);
    o.stop = stop;
    f2b_chat_reply reply;
    interrupted = 0;
    const f2b_status asked = f2b_chat_ask(t->chat, question, &o, &reply);
    watch.stream = watch.stream && asked == F2B_OK;
    const f2b_status shown = f2b_answer_watch_end(&watch);
    if (asked != F2B_OK) return asked;
    s->costs.visual_rows = reply.read_image_rows;
    s->costs.other_rows = reply.read_rows - reply.read_image_rows;
    f2b_status status = shown;
    if (status == F2B_OK && s->json) {
        json_t *id = json_integer(t->number);
        const f2b_answered a = { .question_id = id,
                                 .question = question,
                                 .image = s->image != NULL ? s->image : s->id,
                                 .text = reply.text,
                                 .ids = &reply.ids,
                                 .image_rows = reply.image_rows,
                                 .prompt_rows = reply.prompt_rows,
                                 .ended = ended,
                                 .costs = &s->costs };
        status = f2b_answer_print_json(s, &a);
        json_decref(id);
    }
    if (reply.text[0] == '\0' || reply.stopped)
        f2b_progress_note(&s->progress,
                          reply.text[0] == '\0' ? "(no answer; forgotten)" : "(stopped)");
    f2b_answer_tell_costs(s, &s->costs);
    f2b_chat_reply_clear(&reply);
    t->number++;
    return status;
}

/* A line that begins with a slash. false: leave. */
static bool command(talk *t, const char *line)
{
    if (strcmp(line, "/quit") == 0) return false;
    if (strcmp(line, "/reset") == 0) {
        f2b_chat_reset(t->chat);
        t->number = 0;
    } else {
        f2b_progress_note(&t->settings->progress,
                          "/reset forgets what was said, /quit or Ctrl-D leaves, Ctrl-C stops an "
                          "answer");
    }
    return true;
}

/* Show the prompt of a terminal and wait for a line. The pipe tells of a Ctrl-C that falls between the
 * two, or that another thread was given. false: it came. */
static bool wait_for_line(const talk *t)
{
    struct pollfd in[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = wake[0], .events = POLLIN } };
    char told[64];
    while (read(wake[0], told, sizeof told) > 0) continue;
    interrupted = 0;
    if (!t->settings->arguments.quiet) fputs("> ", stderr);
    while (poll(in, 2, -1) < 0 && errno == EINTR) continue;
    return !interrupted;
}

/* The next line without its end; NULL at the end of the input, or with *status. */
static char *read_line(const talk *t, char **line, size_t *capacity, f2b_status *status)
{
    for (;;) {
        errno = 0, interrupted = 0;
        const ssize_t n = t->terminal && !wait_for_line(t) ? -1 : getline(line, capacity, stdin);
        if (n >= 0) {
            if ((*line)[n - 1] == '\n') (*line)[n - 1] = '\0';
            return *line;
        }
        if (interrupted == 0 || feof(stdin)) break;
        clearerr(stdin);
        fputc('\n', stderr);
    }
    if (!feof(stdin)) *status = f2b_fail_errno(F2B_ERR_IO, "reading the questions");
    return NULL;
}

/* A question that cannot be asked ends a script, but not a conversation at a terminal. */
static f2b_status converse(talk *t)
{
    char *line = NULL;
    size_t capacity = 0;
    f2b_status status = F2B_OK;
    while (status == F2B_OK && read_line(t, &line, &capacity, &status) != NULL) {
        if (line[strspn(line, " \t\r")] == '\0') continue;
        if (line[0] == '/') {
            if (!command(t, line)) break;
            continue;
        }
        status = answer(t, line);
        if (status != F2B_ERR_DATA || !t->terminal) continue;
        fprintf(stderr, "%s (/reset begins anew)\n", f2b_last_error());
        status = F2B_OK;
    }
    free(line); /* getline's own */
    return status;
}

f2b_status f2b_answer_conversation(f2b_answer_settings *s)
{
    const char *name = s->image != NULL ? s->image : s->id;
    f2b_tensor *rows = NULL;
    int64_t failed;
    F2B_TRY(f2b_answer_open(s));
    F2B_TRY(f2b_answer_images(s, &name, name != NULL, &rows, &failed));
    talk t = { .settings = s, .terminal = isatty(STDIN_FILENO) != 0 };
    t.chat = f2b_chat_new(&s->answerer, rows);
    f2b_status status = t.chat != NULL ? catch_interrupts() : f2b_last_status();
    if (status == F2B_OK) status = converse(&t);
    f2b_chat_free(t.chat);
    f2b_tensor_free(rows);
    return status;
}
