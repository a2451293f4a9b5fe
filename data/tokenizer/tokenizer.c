/* Opening a tokenizer, and what it says about itself. See tokenizer.h. */
#include "data/tokenizer/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/tokenizer_internal.h"

enum { MAX_MODEL_BYTES = 1 << 28 };     /* Llama's has half a megabyte, the largest known a few */

/* The whole file; NULL with the error set. */
static unsigned char *read_file(const char *path, size_t *bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        (void)f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO, "%s", path);
        return NULL;
    }
    struct stat st;
    unsigned char *block = NULL;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)f2b_fail(F2B_ERR_IO, "%s: not a regular file", path);
    } else if (st.st_size > MAX_MODEL_BYTES) {
        (void)f2b_fail(F2B_ERR_FORMAT, "%s: too large for a tokenizer.model", path);
    } else if ((block = f2b_alloc_host((size_t)st.st_size, F2B_TAG_FILES)) != NULL) {
        for (*bytes = 0; *bytes < (size_t)st.st_size;) {
            const ssize_t got = read(fd, block + *bytes, (size_t)st.st_size - *bytes);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) {
                (void)f2b_fail_errno(F2B_ERR_IO, "%s: reading", path);
                f2b_free(block);
                block = NULL;
                break;
            }
            *bytes += (size_t)got;
        }
    }
    close(fd);
    return block;
}

static f2b_status refuse(const char *path, const char *setting)
{
    return f2b_fail(F2B_ERR_UNSUPPORTED,
                    "%s: `%s` does not fit LLaVA's prompts, which begin with the "
                    "start token and a space: remove the key",
                    path, setting);
}

/* tokenizer_config.json; a folder without one is all defaults. */
static f2b_status read_config(f2b_tokenizer *t, const char *path)
{
    t->legacy = true;
    if (access(path, F_OK) != 0) return F2B_OK;
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (root == NULL)
        return f2b_fail(F2B_ERR_FORMAT, "%s:%d: %s: correct the JSON", path, error.line,
                        error.text);
    const json_t *legacy = json_object_get(root, "legacy");
    f2b_status status = F2B_OK;
    if (!json_is_object(root) ||
        (legacy != NULL && !json_is_boolean(legacy) && !json_is_null(legacy)))
        status = f2b_fail(F2B_ERR_FORMAT, "%s: `legacy` must be true, false or null", path);
    else if (json_is_false(json_object_get(root, "add_bos_token")))
        status = refuse(path, "add_bos_token: false");
    else if (json_is_true(json_object_get(root, "add_eos_token")))
        status = refuse(path, "add_eos_token: true");
    else if (json_is_false(json_object_get(root, "add_prefix_space")))
        status = refuse(path, "add_prefix_space: false");
    t->legacy = !json_is_false(legacy);
    json_decref(root);
    return status;
}

static f2b_status open_files(f2b_tokenizer *t, const char *model, const char *config)
{
    size_t n = 0;
    unsigned char *bytes = read_file(model, &n);
    if (bytes == NULL) {
        if (f2b_last_status() == F2B_ERR_NOT_FOUND)
            return f2b_fail(F2B_ERR_NOT_FOUND,
                            "%s is missing: a model folder needs SentencePiece's "
                            "tokenizer.model (tokenizer.json is not read)",
                            model);
        return f2b_last_status();
    }
    const f2b_status status = f2bi_tokenizer_parse(t, model, bytes, n);
    f2b_free(bytes);
    F2B_TRY(status);
    return read_config(t, config);
}

f2b_tokenizer *f2b_tokenizer_open(const char *path)
{
    struct stat st;
    const bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    const char *slash = strrchr(path, '/');
    const int folder_bytes = folder ? (int)strlen(path) : slash != NULL ? (int)(slash - path) : 1;
    const char *folder_text = folder || slash != NULL ? path : ".";
    char *model = folder ? f2b_sprintf(F2B_TAG_DATA, "%s/tokenizer.model", path)
                         : f2b_strdup(path, F2B_TAG_DATA);
    char *config =
        f2b_sprintf(F2B_TAG_DATA, "%.*s/tokenizer_config.json", folder_bytes, folder_text);
    f2b_tokenizer *t = f2b_calloc(1, sizeof *t, F2B_TAG_DATA);
    if (model == NULL || config == NULL || t == NULL || open_files(t, model, config) != F2B_OK) {
        f2b_tokenizer_free(t);
        t = NULL;
    }
    f2b_free(model);
    f2b_free(config);
    return t;
}

void f2b_tokenizer_free(f2b_tokenizer *t)
{
    if (t == NULL) return;
    f2b_free(t->pieces);
    f2b_free(t->texts);
    f2b_free(t->table);
    f2b_free(t->unk_surface);
    f2b_free(t);
}

int32_t f2b_tokenizer_pieces(const f2b_tokenizer *t) { return t->n; }
int32_t f2b_tokenizer_bos(const f2b_tokenizer *t) { return t->bos; }
int32_t f2b_tokenizer_eos(const f2b_tokenizer *t) { return t->eos; }
int32_t f2b_tokenizer_unk(const f2b_tokenizer *t) { return t->unk; }
bool f2b_tokenizer_legacy(const f2b_tokenizer *t) { return t->legacy; }

const char *f2b_tokenizer_piece(const f2b_tokenizer *t, int32_t id)
{
    F2B_CHECK(id >= 0 && id < t->n);
    return t->pieces[id].text;
}

f2b_piece_type f2b_tokenizer_piece_type(const f2b_tokenizer *t, int32_t id)
{
    F2B_CHECK(id >= 0 && id < t->n);
    return t->pieces[id].type;
}

int32_t f2b_tokenizer_find(const f2b_tokenizer *t, const char *piece)
{
    return f2bi_tokenizer_lookup(t, piece, strlen(piece));
}
