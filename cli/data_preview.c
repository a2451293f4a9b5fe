/* f2b-data preview: one sample as the model will see it, for people or (--json) for programs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "checkpoints/model_folder.h"
#include "cli/data_commands.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "train/dataset_options.h"

typedef struct preview_options {
    const char *config, *sample, *image;
    bool json;
} preview_options;

/* Pass 2 where there is a conversation, else pass 1 of the caption. */
static const f2b_sequence *shown(const f2b_preview *p)
{
    return p->kind == F2B_BATCH_CAPTION ? &p->sample.caption_prompt : &p->sample.conversation;
}

static f2b_status print_json(const f2b_preview *p)
{
    const f2b_sequence *s = shown(p);
    json_t *ids = json_array(), *labels = json_array();
    int bad = 0;
    for (int64_t i = 0; i < s->n; i++) {
        bad |= json_array_append_new(ids, json_integer(s->ids[i]));
        bad |= json_array_append_new(labels, json_integer(s->labels != NULL ? s->labels[i]
                                                                            : F2B_NO_LABEL));
    }
    json_t *root = json_pack("{s:s, s:s, s:o, s:o, s:s?}", "id", p->sample.id, "prompt", p->text,
                             "ids", ids, "labels", labels, "image", p->image);
    if (root == NULL || bad != 0) {
        json_decref(root);
        return f2b_fail(F2B_ERR_DATA, "%s: its prompt or image name is not UTF-8 text",
                        p->sample.id);
    }
    json_dumpf(root, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(root);
    return F2B_OK;
}

/* A piece with its spaces visible only as spaces and its line feeds as \n. */
static void print_piece(const char *piece)
{
    if (strcmp(piece, "<0x0A>") == 0) piece = "\\n";
    for (const char *p = piece; *p != '\0';) {
        const bool space = strncmp(p, "\xe2\x96\x81", 3) == 0;
        putchar(space ? ' ' : *p);
        p += space ? 3 : 1;
    }
}

/* Tokens one after the other; what the loss covers is green, or in [brackets] without colour. What
 * stands for rows that are no tokens, `<image>` and the summary, is blue. */
static void print_tokens(const char *title, const f2b_tokenizer *tokenizer, const f2b_sequence *s,
                         int64_t summary)
{
    const bool colour = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL;
    const char *on = colour ? "\033[32m" : "[", *off = colour ? "\033[0m" : "]";
    const char *blue = colour ? "\033[36m" : "", *plain = colour ? "\033[0m" : "";
    printf("\n%s%s%s:\n", colour ? "\033[1m" : "", title, plain);
    bool labelled = false;
    for (int64_t i = 0; i <= s->n; i++) {
        const bool now = i < s->n && s->labels != NULL && s->labels[i] != F2B_NO_LABEL;
        if (now != labelled) fputs(now ? on : off, stdout);
        labelled = now;
        if (i == s->n) break;
        if (s->ids[i] == F2B_IMAGE_ID) printf("%s" F2B_IMAGE_MARK "%s", blue, plain);
        else print_piece(f2b_tokenizer_piece(tokenizer, s->ids[i]));
    }
    if (summary > 0) printf("%s<%lld summary tokens>%s", blue, (long long)summary, plain);
    putchar('\n');
}

/* "31 text + 576 image + 14 text + 16 summary = 637 rows" */
static void print_rows(const char *name, const f2b_sequence *s, int64_t image_rows,
                       const char *image_name, int64_t summary)
{
    printf("%-20s", name);
    int64_t run = 0, total = summary;
    const char *join = "";
    for (int64_t i = 0; i <= s->n; i++) {
        const bool image = i < s->n && s->ids[i] == F2B_IMAGE_ID;
        total += i == s->n ? 0 : image ? image_rows : 1;
        if (!image && i < s->n) {
            run++;
            continue;
        }
        if (run > 0) printf("%s%lld text", join, (long long)run), join = " + ";
        if (image) printf("%s%lld %s", join, (long long)image_rows, image_name), join = " + ";
        run = 0;
    }
    if (summary > 0) printf("%s%lld summary", join, (long long)summary);
    printf(" = %lld rows\n", (long long)total);
}

static void print_for_people(const f2b_preview *p, const f2b_config *config,
                             const f2b_model_config *model, const f2b_tokenizer *tokenizer)
{
    const f2b_sample *s = &p->sample;
    const int64_t visual = f2b_image_tokens(model), K = config->summary.tokens;
    const bool base = config->method.forward == F2B_FORWARD_BASE;
    const bool single = config->method.forward == F2B_FORWARD_SINGLE;
    const char *image_title = single ? "contrastive, image" : "pass 1, image";
    const char *caption_title = single ? "contrastive, text" : "pass 1, caption";
    int64_t labelled = 0;
    for (int64_t i = 0; i < s->conversation.n; i++)
        labelled += s->conversation.labels[i] != F2B_NO_LABEL;
    static const char *const losses[F2B_BATCH_KINDS] = {
        [F2B_BATCH_CONVERSATION] = "autoregressive", [F2B_BATCH_CAPTION] = "contrastive",
        [F2B_BATCH_BOTH] = "autoregressive and contrastive",
    };
    printf("sample              %s\nloss                %s\nimage               %s\n", s->id,
           losses[p->kind], p->image != NULL ? p->image : "none");
    if (s->conversation.n > 0)
        printf("labelled tokens     %lld of %lld%s\n", (long long)labelled,
               (long long)s->conversation.n,
               s->conversation.n - (p->image != NULL) + (p->image != NULL) * (base ? visual : K) >=
                       config->data.max_length ? " (cut at data.max_length)" : "");
    if (single && p->image != NULL)
        printf("%-20s%lld patches + %lld summary\n", "vision tower", (long long)visual,
               (long long)K);
    if (s->image_prompt.n > 0)
        print_rows(image_title, &s->image_prompt, single ? K : visual,
                   single ? "compressed" : "image", single ? 0 : K);
    if (s->caption_prompt.n > 0)
        print_rows(caption_title, &s->caption_prompt, 0, "", single ? 0 : K);
    if (s->conversation.n > 0)
        print_rows(base || single ? "language model" : "pass 2", &s->conversation,
                   base ? visual : K, base ? "image" : "compressed", 0);
    if (s->conversation.n > 0)
        print_tokens("conversation, with what the loss covers marked", tokenizer, &s->conversation,
                     0);
    if (s->image_prompt.n > 0)
        print_tokens(image_title, tokenizer, &s->image_prompt, single ? 0 : K);
    if (s->caption_prompt.n > 0)
        print_tokens(caption_title, tokenizer, &s->caption_prompt, single ? 0 : K);
}

static f2b_status write_image(const f2b_preview *p, const f2b_dataset *d, const char *path)
{
    if (p->sample.pixels == NULL)
        return p->note != NULL
                   ? f2b_fail(F2B_ERR_DATA, "%s: %s", p->sample.id, p->note)
                   : f2b_fail(F2B_ERR_USAGE, "%s has no image to write to %s", p->sample.id, path);
    const int size = f2b_dataset_settings(d)->image.size;
    return f2b_image_write_png(path, p->sample.pixels, size, size);
}

static f2b_status show(const preview_options *o, const f2b_config *config)
{
    f2b_model_config model;
    F2B_TRY(f2b_model_config_load(config->model.path, config->model.vision_path, &model));
    f2b_dataset *d = f2b_config_dataset(config, &model, (f2b_fault_policy){ .max_fraction = 1 });
    if (d == NULL) return f2b_last_status();
    f2b_preview p;
    f2b_status status = f2b_dataset_preview(d, o->sample, &p);
    if (status == F2B_OK && o->image != NULL) status = write_image(&p, d, o->image);
    if (status == F2B_OK && o->json) status = print_json(&p);
    else if (status == F2B_OK)
        print_for_people(&p, config, &model, f2b_dataset_tokenizer(d));
    if (status == F2B_OK && p.note != NULL)
        fprintf(stderr, "f2b-data preview: %s is shown without its image, training leaves it out: %s\n",
                o->sample, p.note);
    f2b_preview_clear(&p);
    f2b_dataset_free(d);
    return status;
}

int f2b_data_preview(int argc, char **argv)
{
    preview_options o = { .sample = "conversations[0]:0" };
    const f2b_option options[] = {
        { "config", "FILE", F2B_OPTION_TEXT, &o.config, "configuration (YAML)", .required = true },
        { "sample", "ID", F2B_OPTION_TEXT, &o.sample,
          "SOURCE:RECORD as in metrics.jsonl; two joined by + for both losses" },
        { "json", NULL, F2B_OPTION_FLAG, &o.json,
          "one JSON object: id, prompt, ids (-200: image), labels (-100: no loss), image" },
        { "image", "FILE.png", F2B_OPTION_TEXT, &o.image,
          "also write the image as it is after preprocessing" },
        { 0 }
    };
    const f2b_command command = {
        .name = "f2b-data preview",
        .summary =
            "Show a sample as the model will see it: tokens, what the loss covers, the rows of "
            "both passes, the image.",
        .options = options,
        .overrides = true,
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    f2b_config *config =
        f2b_config_load_data(o.config, (const char *const *)arguments.operands, arguments.n_operands);
    const f2b_status status = config != NULL ? show(&o, config) : f2b_last_status();
    f2b_config_free(config);
    return f2b_exit_with(command.name, status);
}
