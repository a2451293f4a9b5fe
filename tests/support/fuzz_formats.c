/* See fuzz_formats.h. */
#include "tests/support/fuzz_formats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/gguf.h"
#include "checkpoints/method_json.h"
#include "checkpoints/model_folder.h"
#include "checkpoints/safetensors.h"
#include "data/image/image.h"
#include "data/source/source.h"
#include "data/tokenizer/tokenizer_internal.h"
#include "train/config.h"

static char folder[64], path[128];

static void demand(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "fuzz: %s (last error: %s)\n", what, f2b_last_error());
    abort();
}

static const char *put(const char *name, const uint8_t *bytes, size_t n)
{
    if (folder[0] == '\0') {
        strcpy(folder, access("/dev/shm", W_OK) == 0 ? "/dev/shm/f2b_fuzz_XXXXXX"
                                                     : "/tmp/f2b_fuzz_XXXXXX");
        demand(mkdtemp(folder) != NULL, "no folder");
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    demand(file != NULL, "no file");
    demand(fwrite(bytes, 1, n, file) == n && fclose(file) == 0, "no room");
    return path;
}

void f2b_fuzz_end(void)
{
    static const char *const names[] = { "a.json", "a.tsv",  "a.tar",
                                         "a.st",   "a.gguf", "config.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names && folder[0] != '\0'; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    if (folder[0] != '\0') (void)rmdir(folder);
    folder[0] = '\0';
}

/* A refusal has a reason, and memory is not among them: no file asks for that much. */
static void refused(void)
{
    demand(f2b_last_status() != F2B_OK, "refused without a reason");
    demand(f2b_last_status() != F2B_ERR_MEMORY, "out of memory");
    demand(f2b_last_error()[0] != '\0', "no message");
}

/* ---- Sources: open, all records, their images' bytes ---- */

static void source(f2b_source_role role, const char *file)
{
    const f2b_source_options o = { .role = role, .name = "fuzz[0]", .path = file };
    f2b_source *s = f2b_source_open(&o);
    if (s == NULL) {
        refused();
        return;
    }
    f2b_record r = { 0 };
    for (int64_t i = 0; i < f2b_source_count(s); i++) {
        demand(f2b_source_read(s, i, &r) == F2B_OK, "a record is not read");
        (void)f2b_source_image_key(s, i);
        (void)f2b_source_stem_key(s, i);
        if (r.fault != F2B_FAULT_NONE) continue;
        demand(role == F2B_SOURCE_CONVERSATIONS || r.caption != NULL, "no caption");
        if (r.image == NULL || role == F2B_SOURCE_CONVERSATION_CAPTIONS) continue;
        uint8_t *bytes;
        int64_t n;
        demand(f2b_source_image(s, &r, &bytes, &n) == F2B_OK, "an image is not read");
        f2b_free(bytes);
    }
    f2b_record_clear(&r);
    f2b_source_free(s);
}

static void llava(const uint8_t *bytes, size_t n)
{
    source(F2B_SOURCE_CONVERSATIONS, put("a.json", bytes, n));
}

static void coco(const uint8_t *bytes, size_t n)
{
    source(F2B_SOURCE_CONVERSATION_CAPTIONS, put("a.json", bytes, n));
    source(F2B_SOURCE_CAPTIONS, path);
}

static void tsv(const uint8_t *bytes, size_t n)
{
    source(F2B_SOURCE_CAPTIONS, put("a.tsv", bytes, n));
}

/* As it is; then with each header's checksum made right, for no mutation finds that by chance. */
static void tar(const uint8_t *bytes, size_t n)
{
    source(F2B_SOURCE_CAPTIONS, put("a.tar", bytes, n));
    uint8_t *copy = malloc(n + 1);
    memcpy(copy, bytes, n);
    for (size_t at = 0; at + 512 <= n;) {
        uint8_t *h = copy + at;
        unsigned sum = 0;
        if (h[0] != 0) {
            memset(h + 148, ' ', 8);
            for (int i = 0; i < 512; i++) sum += h[i];
            char text[8];
            snprintf(text, sizeof text, "%06o", sum & 0777777u);
            memcpy(h + 148, text, 7);
        }
        char size[13] = { 0 };
        memcpy(size, h + 124, 12);
        const unsigned long long data = strtoull(size, NULL, 8);
        at += 512 + (data < n ? (size_t)(data + 511) / 512 * 512 : 0);
    }
    source(F2B_SOURCE_CAPTIONS, put("a.tar", copy, n));
    free(copy);
}

/* ---- Files in memory ---- */

static void image(const uint8_t *bytes, size_t n)
{
    f2b_image picture;
    if (f2b_image_decode(bytes, (int64_t)n, "fuzz", &picture) != F2B_OK) {
        refused();
        demand(picture.rgb == NULL, "a refused picture is not empty");
        return;
    }
    demand(picture.width >= 1 && picture.height >= 1 && picture.rgb != NULL, "an empty picture");
    unsigned sum = 0;
    for (int64_t i = 0; i < picture.width * picture.height * 3; i += 97) sum += picture.rgb[i];
    demand(sum != 1u << 31, "every pixel is there");
    f2b_image_free(&picture);
}

static void tokenizer(const uint8_t *bytes, size_t n)
{
    f2b_tokenizer *t = f2b_calloc(1, sizeof *t, F2B_TAG_OTHER);
    demand(t != NULL, "no memory");
    if (f2bi_tokenizer_parse(t, "fuzz.model", bytes, n) != F2B_OK) refused();
    else {
        static const char text[] = "Hello  w\xc3\xb6rld\n<image></s> 123 \xff\xe2\x96\x81";
        f2b_ids ids = { 0 };
        demand(f2b_tokenizer_encode(t, text, sizeof text - 1, F2B_ENCODE_CONTROL, &ids) == F2B_OK,
               "text is not encoded");
        char *back = f2b_tokenizer_decode(t, ids.ids, ids.n);
        demand(back != NULL, "ids are not decoded");
        f2b_free(back);
        f2b_ids_free(&ids);
    }
    f2b_tokenizer_free(t);
}

static char *text_of(const uint8_t *bytes, size_t n)
{
    char *text = malloc(n + 1);
    memcpy(text, bytes, n);
    text[n] = '\0';
    return text;
}

static void config(const uint8_t *bytes, size_t n)
{
    char *text = text_of(bytes, n);
    f2b_config *c = f2b_config_parse(text, "fuzz.yaml", "/nowhere", NULL, 0);
    free(text);
    if (c == NULL) {
        refused();
        return;
    }
    char *resolved = f2b_config_write(c);
    demand(resolved != NULL, "not written");
    f2b_config *same = f2b_config_parse(resolved, "resolved.yaml", "/nowhere", NULL, 0);
    demand(same != NULL, "what was written is not read");
    char *again = f2b_config_write(same);
    demand(again != NULL && strcmp(resolved, again) == 0, "what was written is read otherwise");
    f2b_free(again);
    f2b_free(resolved);
    f2b_config_free(same);
    f2b_config_free(c);
}

static void method(const uint8_t *bytes, size_t n)
{
    char *text = text_of(bytes, n);
    f2b_method m;
    if (f2b_method_from_json(&m, text, "fuzz.json") != F2B_OK) refused();
    free(text);
}

/* ---- Mapped files: every byte of every tensor is in the file ---- */

static unsigned touch(const void *data, int64_t bytes)
{
    unsigned sum = 0;
    for (int64_t i = 0; i < bytes; i++) sum += ((const uint8_t *)data)[i];
    return sum;
}

static void safetensors(const uint8_t *bytes, size_t n)
{
    f2b_safetensors *file = f2b_safetensors_open(put("a.st", bytes, n));
    if (file == NULL) {
        refused();
        return;
    }
    for (int64_t i = 0; i < f2b_safetensors_count(file); i++) {
        const f2b_safetensor *t = f2b_safetensors_at(file, i);
        f2b_named_array array;
        demand(f2b_safetensors_find(file, t->name) != NULL, "a tensor is not found");
        (void)touch(t->data, t->bytes);
        if (f2b_safetensors_array(file, t, &array) != F2B_OK) refused();
        else demand(f2b_named_array_bytes(&array) == t->bytes, "an array of another size");
    }
    f2b_safetensors_close(file);
}

static void gguf(const uint8_t *bytes, size_t n)
{
    f2b_gguf *file = f2b_gguf_open(put("a.gguf", bytes, n));
    if (file == NULL) {
        refused();
        return;
    }
    for (int64_t i = 0; i < f2b_gguf_keys(file); i++) {
        const f2b_gguf_value *v = f2b_gguf_value_at(file, i);
        demand(f2b_gguf_find(file, f2b_gguf_key(file, i)) == v, "a key is not found");
        if (v->type == F2B_GGUF_STRING) (void)touch(v->as.text.bytes, v->as.text.n);
        if (v->type != F2B_GGUF_ARRAY) continue;
        const void *cursor = v->as.array.first;
        for (int64_t k = 0; k < v->as.array.n; k++) {
            const f2b_gguf_value item = f2b_gguf_next(v, &cursor);
            if (item.type == F2B_GGUF_STRING) (void)touch(item.as.text.bytes, item.as.text.n);
        }
    }
    for (int64_t i = 0; i < f2b_gguf_tensors(file); i++) {
        const f2b_gguf_tensor *t = f2b_gguf_tensor_at(file, i);
        (void)touch(t->data, t->bytes);
    }
    f2b_gguf_close(file);
}

static void model(const uint8_t *bytes, size_t n)
{
    f2b_model_config c;
    (void)put("config.json", bytes, n);
    if (f2b_model_config_load(folder, NULL, &c) != F2B_OK) refused();
    else demand(c.text.hidden > 0 && c.text.heads % c.text.kv_heads == 0, "sizes");
}

/* ---- The table ---- */

#define WORDS(name, ...) static const char *const name##_words[] = { __VA_ARGS__, NULL }
WORDS(json, "{", "}", "[", "]", "\"", ":", ",", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "null",
      "true", "-1e999", "99999999999999999999", "\"id\": ", "\"image\": ", "\"conversations\": ",
      "\"from\": \"human\", ", "\"value\": ", "\"<image>\\n", "\"gpt\"", "\"images\": ",
      "\"file_name\": ", "\"annotations\": ", "\"image_id\": ", "\"caption\": ", "\xff", "\xc0\x80",
      "\"../\"", "\\u0000");
WORDS(tsv, "\t", "\n", "\r\n", "a.jpg", "../", "/etc", "\xff", "\xc3\xa9", "\"", "http://x/");
WORDS(tar, "PaxHeader", "./", ".jpg", ".txt", ".json", "11 path=a\n", "21 path=a/long.jpg\n",
      "9 size=9\n", "00000000010", "77777777777", "\x80", "ustar", "x", "g", "L", "K",
      "{\"caption\": \"c\"}", "99999999999 path=");
WORDS(image, "\xff\xd8", "\xff\xd9", "\xff\xc0", "\xff\xc2", "\xff\xc4", "\xff\xda", "\xff\xdb",
      "\xff\xdd", "\xff\xee", "Adobe", "IHDR", "PLTE", "IDAT", "IEND", "tRNS", "GIF89a", "BM", "P6",
      "P5", "P3", "P2", " 65535 ", "\xff\xff\xff\xff", "RIFF");
WORDS(wire, "\x0a", "\x12", "\x1d", "\x18", "\xff\xff\xff\xff\x0f", "\x80\x80", "<0x00>",
      "\xe2\x96\x81");
WORDS(yaml, "model: ", "path: ", "lora: ", "targets: ", "[q_proj]", "data: ", "captions: ", "&a",
      "*a", "<<: *a", "!!binary", "---", "? ", "- ", "null", "1e999", "run: {dir: x}", "{path: x}",
      "train: {steps: 1}", "\"\\x00\"", "|", "  ");
WORDS(safetensors, "\"dtype\":", "\"F32\"", "\"shape\":", "\"data_offsets\":", "[0,0]",
      "__metadata__", "18446744073709551615", "9223372036854775807", "-1", "{", "}");
WORDS(gguf, "GGUF", "\x03", "general.architecture", "general.alignment",
      "\xff\xff\xff\xff\xff\xff\xff\x7f", "\x08", "\x09", "\x0c");
WORDS(model, "\"model_type\": ", "\"llava\"", "\"llama\"", "\"text_config\": ",
      "\"vision_config\": ", "\"hidden_size\": ", "0", "-1", "9223372036854775807", "1e300", "null",
      "[", "{", "}", "\"num_attention_heads\": ", "\"rope_scaling\": ");

const f2b_fuzz_format f2b_fuzz_formats[] = {
    { "llava", llava, json_words },
    { "coco", coco, json_words },
    { "tsv", tsv, tsv_words },
    { "tar", tar, tar_words },
    { "image", image, image_words },
    { "tokenizer", tokenizer, wire_words },
    { "config", config, yaml_words },
    { "safetensors", safetensors, safetensors_words },
    { "gguf", gguf, gguf_words },
    { "model", model, model_words },
    { "method", method, json_words },
};
const int f2b_fuzz_n_formats = (int)(sizeof f2b_fuzz_formats / sizeof *f2b_fuzz_formats);

const f2b_fuzz_format *f2b_fuzz_find(const char *name)
{
    for (int i = 0; i < f2b_fuzz_n_formats; i++)
        if (strcmp(f2b_fuzz_formats[i].name, name) == 0) return &f2b_fuzz_formats[i];
    return NULL;
}
