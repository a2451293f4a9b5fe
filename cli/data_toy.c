/* f2b-data toy: writes the toy world. */
#include "cli/data_commands.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "data/toy/toy.h"

static int show(int64_t done, int64_t total, void *user)
{
    f2b_progress_show(user, done == total, "image %lld/%lld", (long long)done, (long long)total);
    return f2b_signals_stop(NULL);
}

int f2b_data_toy(int argc, char **argv)
{
    const char *out = NULL;
    f2b_toy_options toy = f2b_toy_defaults();
    int64_t seed = (int64_t)toy.seed, size = toy.image_size, objects = toy.objects, grid = toy.grid;
    int64_t colours = toy.colours, shapes = toy.shapes, jitter = toy.jitter, turns = toy.turns;
    int64_t described = toy.described_percent, text_only = toy.text_only_percent;
    const f2b_option options[] = {
        { "out", "DIR", F2B_OPTION_TEXT, &out, "folder to write, made if need be", .required = true },
        { "seed", "N", F2B_OPTION_INT, &seed, "the same seed gives the same bytes", 0, 1e15 },
        { "train", "N", F2B_OPTION_INT, &toy.train, "training images", 1, 1e6 },
        { "val", "N", F2B_OPTION_INT, &toy.val, "validation images, each with its own caption", 1, 1e5 },
        { "image-size", "N", F2B_OPTION_INT, &size, "side in pixels, a multiple of 8", 16, 1024 },
        { "objects", "N", F2B_OPTION_INT, &objects, "at most so many objects an image", 1, 9 },
        { "grid", "N", F2B_OPTION_INT, &grid, "places: N x N", 2, 3 },
        { "colors", "N", F2B_OPTION_INT, &colours, "colors used; more are finer", 2, 10 },
        { "shapes", "N", F2B_OPTION_INT, &shapes, "shapes used", 1, 8 },
        { "jitter", "N", F2B_OPTION_INT, &jitter, "how far off the middle of their places objects are, %",
          0, 100 },
        { "turns", "N", F2B_OPTION_INT, &turns, "questions a training conversation", 1, 32 },
        { "described", "N", F2B_OPTION_INT, &described, "images of 100 with a caption to generate", 0, 100 },
        { "text-only", "N", F2B_OPTION_INT, &text_only, "text-only records per 100 images", 0, 50 },
        { 0 }
    };
    const f2b_command command = {
        .name = "f2b-data toy",
        .summary = "Writes the toy world: images of coloured shapes, conversations, captions, a tokenizer "
                   "and a small model folder, for training a base from nothing and Fwd2Bot on it.",
        .options = options,
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    toy.seed = (uint64_t)seed, toy.image_size = (int)size, toy.objects = (int)objects;
    toy.grid = (int)grid, toy.colours = (int)colours, toy.shapes = (int)shapes;
    toy.jitter = (int)jitter, toy.turns = (int)turns;
    toy.described_percent = (int)described, toy.text_only_percent = (int)text_only;

    f2b_signals_install();
    f2b_progress progress = f2b_progress_start(arguments.quiet);
    const f2b_status status = f2b_toy_write(out, &toy, show, &progress);
    f2b_progress_end(&progress);
    return f2b_exit_with(command.name, status);
}
