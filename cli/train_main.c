/* f2b-train: trains Fwd2Bot from a configuration file. */
#include <stdio.h>
#include <string.h>

#include "autograd/core/profile.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/train_report.h"
#include "train/trainer.h"

typedef struct train_options {
    const char *config, *resume;
    bool check, help_config, profile;
} train_options;

/* A text that was made to be printed; NULL passes the error on. */
static f2b_status print_text(char *text)
{
    if (text == NULL) return f2b_last_status();
    fputs(text, stdout);
    f2b_free(text);
    return F2B_OK;
}

static f2b_status train(f2b_session *session, const train_options *o, f2b_train_view *view)
{
    const f2b_trainer_events events = { f2b_train_note, f2b_train_step, f2b_signals_stop, view,
                                        f2b_train_progress, f2b_train_saving };
    f2b_resume mode = F2B_RESUME_PATH;
    if (strcmp(o->resume, "auto") == 0) mode = F2B_RESUME_AUTO;
    if (strcmp(o->resume, "none") == 0) mode = F2B_RESUME_NONE;
    f2b_train_opening(view->progress, session);
    f2b_profile_enable(o->profile);
    const f2b_status status = f2b_train_run(session, mode, o->resume, &events);
    f2b_progress_end(view->progress);
    f2b_train_summary(view, session, status);
    if (o->profile) f2b_train_profile(stdout);
    return status;
}

static f2b_status run(const train_options *o, const f2b_arguments *arguments)
{
    f2b_progress progress = f2b_progress_start(arguments->quiet);
    f2b_train_view view = { .progress = &progress, .lock = PTHREAD_MUTEX_INITIALIZER };
    f2b_config *config = f2b_config_load(o->config, (const char *const *)arguments->operands,
                                         arguments->n_operands);
    if (config == NULL) return f2b_last_status();
    f2b_signals_install();
    f2b_session *session = f2b_session_open(config, arguments->device, f2b_train_note, &view);
    if (session == NULL) return f2b_last_status();
    const f2b_status status = o->check ? f2b_train_check(session, &view) : train(session, o, &view);
    f2b_session_close(session);
    return status;
}

int main(int argc, char **argv)
{
    train_options o = { .resume = "auto" };
    const f2b_option options[] = {
        { "config", "FILE", F2B_OPTION_TEXT, &o.config, "configuration (YAML); see configs/" },
        { "resume", "HOW", F2B_OPTION_TEXT, &o.resume,
          "auto: go on with the run in run.dir if there is one (default); none: move an earlier "
          "run aside and start anew; or the PATH of a run or checkpoint to go on from" },
        { "check", NULL, F2B_OPTION_FLAG, &o.check,
          "open data and model, print the resolved configuration, counts, memory and a preview of "
          "one batch of each kind, and end" },
        { "profile", NULL, F2B_OPTION_FLAG, &o.profile,
          "print where the time went, op by op, at the end" },
        { "help-config", NULL, F2B_OPTION_FLAG, &o.help_config,
          "print the reference of all configuration keys (Markdown) and end" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-train",
        .options = options,
        .overrides = true,
        .summary = "Train Fwd2Bot from a configuration file.",
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    if (o.help_config) return f2b_exit_with(command.name, print_text(f2b_config_reference()));
    if (o.config == NULL) {
        (void)f2b_fail(F2B_ERR_USAGE, "--config FILE is missing; see --help");
        return f2b_exit_error(command.name);
    }
    return f2b_exit_with(command.name, run(&o, &arguments));
}
