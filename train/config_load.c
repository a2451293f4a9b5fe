/*
 * A configuration from its layers: defaults of the table, the file, the overrides. Each layer is
 * YAML and goes through the same walk; a value remembers where it was set. See config.h for the
 * contract.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "autograd/core/nearest.h"
#include "checkpoints/atomic_file.h"
#include "train/config_internal.h"

/* libyaml takes time in the square of the depth of nesting: this bounds it. */
enum { MAX_BYTES = 1 << 17 };

typedef struct loader {
    f2b_config *config;
    bool data_only;                     /* nothing is trained with it */
    f2bi_place places[F2BI_MAX_FIELDS]; /* by field: where its value was set */
} loader;

static f2b_status walk(loader *load, const char *section, yaml_document_t *document,
                       const yaml_node_t *mapping, f2bi_place place);

/* ---- keys ------------------------------------------------------------------------------------ */

/* The key after `section` in a field's name, cut at the next dot: "beta1", "adam", "seed". */
static bool child_of(const char *field, const char *section, char *child)
{
    const size_t n = strlen(section);
    if (n > 0 && (strncmp(field, section, n) != 0 || field[n] != '.')) return false;
    const char *rest = field + n + (n > 0);
    const size_t length = strcspn(rest, ".");
    memcpy(child, rest, length);
    child[length] = '\0';
    return true;
}

/* The valid key to suggest for an unknown one: a near one of the same section; or else one of the
 * same last part, or near as a whole, anywhere. */
static const char *suggestion(const char *section, const char *key, char *out, size_t size)
{
    char children[F2BI_MAX_FIELDS][F2BI_MAX_NAME];
    const char *names[F2BI_MAX_FIELDS] = { NULL }, *all[F2BI_MAX_FIELDS] = { NULL }, *last = NULL;
    for (int i = 0; i < f2bi_n_fields; i++) {
        const char *name = f2bi_fields[i].name;
        names[i] = child_of(name, section, children[i]) ? children[i] : NULL;
        all[i] = name;
        if (last == NULL && strcmp(strrchr(name, '.') + 1, key) == 0) last = name;
    }
    const char *nearest = f2b_nearest_name(key, names, f2bi_n_fields);
    if (nearest != NULL) {
        snprintf(out, size, "%s%s%s", section, section[0] != '\0' ? "." : "", nearest);
        return out;
    }
    if (last != NULL) return last;
    char whole[2 * F2BI_MAX_NAME];
    snprintf(whole, sizeof whole, "%s%s%.60s", section, section[0] != '\0' ? "." : "", key);
    return f2b_nearest_name(whole, all, f2bi_n_fields);
}

static f2b_status unknown_key(const char *section, const char *key, const f2bi_place *place)
{
    char buffer[2 * F2BI_MAX_NAME];
    const char *nearest = suggestion(section, key, buffer, sizeof buffer);
    const char *dot = section[0] != '\0' ? "." : "";
    if (nearest == NULL)
        return f2bi_config_fail(place, "unknown key %s%s%.100s; docs/configuration.md lists all",
                                section, dot, key);
    return f2bi_config_fail(place, "unknown key %s%s%.100s; did you mean %s?", section, dot, key,
                            nearest);
}

/* Set what `name` stands for, a key or a section, from a node. */
static f2b_status read_named(loader *load, const char *section, const char *key,
                             yaml_document_t *document, const yaml_node_t *node, f2bi_place place)
{
    char name[F2BI_MAX_NAME];
    const int length =
        snprintf(name, sizeof name, "%s%s%s", section, section[0] != '\0' ? "." : "", key);
    if (length >= (int)sizeof name || key[0] == '\0') return unknown_key(section, key, &place);
    const int index = f2bi_field_find(name);
    if (index >= 0) {
        load->places[index] = place;
        return f2bi_field_read(load->config, &f2bi_fields[index], document, node, &place);
    }
    if (f2bi_section_find(name) < 0) return unknown_key(section, key, &place);
    const bool empty = node->type == YAML_SCALAR_NODE &&
                       node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
                       f2bi_is_null((const char *)node->data.scalar.value);
    if (empty) return F2B_OK; /* "lora:" with nothing below it */
    if (node->type != YAML_MAPPING_NODE)
        return f2bi_config_fail(&place, "%s is a group of keys, not a value", name);
    return walk(load, name, document, node, place);
}

static f2b_status walk(loader *load, const char *section, yaml_document_t *document,
                       const yaml_node_t *mapping, f2bi_place place)
{
    const yaml_node_pair_t *first = mapping->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(document, pair->key);
        if (place.layer == F2BI_FILE) place.line = (int64_t)key->start_mark.line + 1;
        if (key->type != YAML_SCALAR_NODE)
            return f2bi_config_fail(&place, "a key is a name, not a list or group");
        const char *name = (const char *)key->data.scalar.value;
        for (const yaml_node_pair_t *before = first; before < pair; before++) {
            const yaml_node_t *other = yaml_document_get_node(document, before->key);
            if (strcmp((const char *)other->data.scalar.value, name) == 0)
                return f2bi_config_fail(&place, "%s%s%.100s is given twice; first in line %zu",
                                        section, section[0] != '\0' ? "." : "", name,
                                        other->start_mark.line + 1);
        }
        F2B_TRY(read_named(load, section, name, document,
                           yaml_document_get_node(document, pair->value), place));
    }
    return F2B_OK;
}

/* ---- one YAML text --------------------------------------------------------------------------- */

static f2b_status yaml_error(const yaml_parser_t *parser, f2bi_place place)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return f2b_fail(F2B_ERR_MEMORY, "%s: out of memory", place.name);
    if (place.layer == F2BI_FILE) place.line = (int64_t)parser->problem_mark.line + 1;
    if (parser->error == YAML_READER_ERROR)
        return f2bi_config_fail(&place, "not a UTF-8 text: %s at byte %zu",
                                parser->problem != NULL ? parser->problem : "bad bytes",
                                parser->problem_offset);
    return f2bi_config_fail(
        &place, "broken YAML: %s%s%s", parser->problem != NULL ? parser->problem : "cannot be read",
        parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "");
}

/* Every layer comes down to this: the value for section.key, or with key NULL a whole file. */
static f2b_status read_document(loader *load, const char *key, yaml_document_t *document,
                                f2bi_place place)
{
    const yaml_node_t *root = yaml_document_get_root_node(document);
    if (key == NULL) {
        if (root == NULL) return F2B_OK; /* an empty file: what is required will be missed */
        if (root->type != YAML_MAPPING_NODE)
            return f2bi_config_fail(&place, "a configuration is a group of keys: `model:`, ...");
        return walk(load, "", document, root, place);
    }
    if (root == NULL) return f2bi_config_fail(&place, "%s has no value", key);
    return read_named(load, "", key, document, root, place);
}

typedef f2b_status read_document_fn(loader *load, const char *key, yaml_document_t *document,
                                    f2bi_place place);

static f2b_status read_yaml(loader *load, const char *key, const char *text, f2bi_place place,
                            read_document_fn *read)
{
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser)) return f2b_fail(F2B_ERR_MEMORY, "no memory for YAML");
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    f2b_status status = F2B_OK;
    if (!yaml_parser_load(&parser, &document)) {
        status = yaml_error(&parser, place);
    } else {
        status = read(load, key, &document, place);
        yaml_document_delete(&document);
        if (status == F2B_OK) {
            /* A second document would be ignored without a word. */
            if (!yaml_parser_load(&parser, &document)) {
                status = yaml_error(&parser, place);
            } else {
                if (yaml_document_get_root_node(&document) != NULL)
                    status = f2bi_config_fail(&place, "more than one YAML document");
                yaml_document_delete(&document);
            }
        }
    }
    yaml_parser_delete(&parser);
    return status;
}

/* ---- overrides ------------------------------------------------------------------------------- */

/* "data.captions[0].path": the field's name is cut off in `name`; false if it is not of this
 * form. */
static bool split_item(char *name, int64_t *item, const char **member)
{
    char *bracket = strchr(name, '[');
    if (bracket == NULL) return false;
    char *end = NULL;
    *item = strtoll(bracket + 1, &end, 10);
    if (end == bracket + 1 || end[0] != ']' || end[1] != '.' || strlen(end + 2) == 0) return false;
    *bracket = '\0';
    *member = end + 2;
    return true;
}

static f2b_status read_item(loader *load, const char *key, yaml_document_t *document,
                            f2bi_place place)
{
    char name[2 * F2BI_MAX_NAME];
    int64_t item = 0;
    const char *member = NULL;
    snprintf(name, sizeof name, "%s", key);
    const int index = split_item(name, &item, &member) ? f2bi_field_find(name) : -1;
    const yaml_node_t *root = yaml_document_get_root_node(document);
    if (index < 0 || f2bi_fields[index].type != F2BI_SOURCES || root == NULL)
        return f2bi_config_fail(&place, "%s is no item of a list; write data.captions[0].path=FILE",
                                key);
    load->places[index] = place;
    return f2bi_source_read(load->config, &f2bi_fields[index], item, member, root, &place);
}

/*
 * What follows '=' is YAML where a list or group is meant; for a single value it is taken as it
 * is, so that a prompt may have a colon: then it is quoted here and read like all else.
 */
static f2b_status read_override(loader *load, const char *text, const char *folder)
{
    const f2bi_place place = { F2BI_OVERRIDE, text, 0, folder };
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals - text >= F2BI_MAX_NAME + 32)
        return f2bi_config_fail(&place, "an override reads KEY=VALUE, such as train.seed=7");
    char key[F2BI_MAX_NAME + 32];
    snprintf(key, sizeof key, "%.*s", (int)(equals - text), text);
    const char *value = equals + 1;
    const bool item = strchr(key, '[') != NULL;
    const int index = f2bi_field_find(key);
    const bool single = item || (index >= 0 && f2bi_fields[index].type != F2BI_SUBSET &&
                                 f2bi_fields[index].type != F2BI_SOURCES);
    read_document_fn *read = item ? read_item : read_document;
    if (!single || f2bi_is_null(value) || value[0] == '"' || value[0] == '\'')
        return read_yaml(load, key, value[0] == '\0' ? "null" : value, place, read);
    char *quoted = NULL;
    size_t n = 0;
    FILE *memory = open_memstream(&quoted, &n);
    if (memory == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory for an override");
    f2bi_text_quote(memory, value);
    f2b_status status = fclose(memory) == 0 ? read_yaml(load, key, quoted, place, read)
                                            : f2b_fail(F2B_ERR_MEMORY, "no memory for an override");
    free(quoted);
    return status;
}

/* ---- all layers ------------------------------------------------------------------------------ */

static f2b_status read_defaults(loader *load)
{
    for (int i = 0; i < f2bi_n_fields; i++) {
        const f2bi_field *field = &f2bi_fields[i];
        const f2bi_place place = { F2BI_DEFAULT, field->name, 0, "/" };
        load->places[i] = place;
        if (field->fallback != NULL)
            F2B_TRY(read_yaml(load, field->name, field->fallback, place, read_document));
    }
    return F2B_OK;
}

static f2b_status check_required(const loader *load, const char *name)
{
    for (int i = 0; i < f2bi_n_fields; i++)
        if (f2bi_fields[i].fallback == NULL && load->places[i].layer == F2BI_DEFAULT &&
            !(load->data_only && strcmp(f2bi_fields[i].name, "run.dir") == 0))
            return f2b_fail(F2B_ERR_CONFIG, "%s: %s is missing; it has no default", name,
                            f2bi_fields[i].name);
    return F2B_OK;
}

/* Of epochs and steps, the one of the later layer counts: `train.steps=10` on the command line goes
 * before the file's epochs, as both go before the default. */
static f2b_status choose_length(loader *load)
{
    const int epochs = f2bi_field_find("train.epochs"), steps = f2bi_field_find("train.steps");
    const f2bi_place *e = &load->places[epochs], *s = &load->places[steps];
    f2b_config *c = load->config;
    if (c->train.epochs > 0 && c->train.steps > 0) {
        if (e->layer == s->layer)
            return f2bi_config_fail(s, "train.epochs and train.steps are both given; keep one");
        if (e->layer < s->layer) c->train.epochs = 0;
        else c->train.steps = 0;
    }
    if (!(c->train.epochs > 0) && c->train.steps == 0)
        return f2bi_config_fail(e, "train.epochs and train.steps are both null; give one");
    return F2B_OK;
}

/* `base` has one loss: where none is named, it is that one. */
static void choose_loss(loader *load)
{
    const f2bi_place *loss = &load->places[f2bi_field_find("method.loss")];
    if (load->config->method.forward == F2B_FORWARD_BASE && loss->layer == F2BI_DEFAULT)
        load->config->method.loss = F2B_LOSS_AUTOREGRESSIVE;
    if (load->data_only) f2bi_config_drop_loss(load->config);
}

static f2b_status load_layers(loader *load, const char *text, const char *name, const char *folder,
                              const char *const *overrides, int64_t n_overrides)
{
    F2B_TRY(read_defaults(load));
    const f2bi_place file = { F2BI_FILE, name, 0, folder };
    F2B_TRY(read_yaml(load, NULL, text, file, read_document));
    if (n_overrides > 0) {
        char here[4096];
        if (getcwd(here, sizeof here) == NULL)
            return f2b_fail_errno(F2B_ERR_IO, "cannot tell the current folder");
        for (int64_t i = 0; i < n_overrides; i++) F2B_TRY(read_override(load, overrides[i], here));
        /* `here` ends with this block; relative paths are resolved, messages do not show it. */
        for (int i = 0; i < f2bi_n_fields; i++) load->places[i].folder = folder;
    }
    F2B_TRY(check_required(load, name));
    F2B_TRY(choose_length(load));
    choose_loss(load);
    return f2bi_config_check(load->config, load->places);
}

static f2b_config *parse(const char *text, const char *name, const char *folder,
                         const char *const *overrides, int64_t n_overrides, bool data_only)
{
    if (strlen(text) > MAX_BYTES) {
        (void)f2b_fail(F2B_ERR_CONFIG, "%s: larger than %d bytes; that is no configuration", name,
                       MAX_BYTES);
        return NULL;
    }
    loader load = { .config = f2b_calloc(1, sizeof(f2b_config), F2B_TAG_OTHER),
                    .data_only = data_only };
    if (load.config == NULL) return NULL;
    if (load_layers(&load, text, name, folder, overrides, n_overrides) == F2B_OK)
        return load.config;
    f2b_config_free(load.config);
    return NULL;
}

f2b_config *f2b_config_parse(const char *text, const char *name, const char *folder,
                             const char *const *overrides, int64_t n_overrides)
{
    return parse(text, name, folder, overrides, n_overrides, false);
}

/* The folder that a file is named in, absolute and free of links, so that "../" can be worked off
 * by its text. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *named = slash == NULL   ? f2b_strdup(".", F2B_TAG_OTHER)
                  : slash == path ? f2b_strdup("/", F2B_TAG_OTHER)
                                  : f2b_sprintf(F2B_TAG_OTHER, "%.*s", (int)(slash - path), path);
    if (named == NULL) return NULL;
    char *real = realpath(named, NULL), *folder = NULL;
    if (real == NULL) (void)f2b_fail_errno(F2B_ERR_IO, "the folder of %s", path);
    else folder = f2b_strdup(real, F2B_TAG_OTHER);
    free(real);
    f2b_free(named);
    return folder;
}

static f2b_config *load_file(const char *path, const char *const *overrides, int64_t n_overrides,
                             bool data_only)
{
    int64_t n = 0;
    char *text = f2b_read_file(path, MAX_BYTES, &n);
    if (text == NULL) {
        f2b_error error;
        f2b_error_take(&error);
        (void)f2b_fail(error.code == F2B_ERR_MEMORY ? error.code : F2B_ERR_CONFIG, "%s", error.text);
        return NULL;
    }
    f2b_config *config = NULL;
    char *folder = NULL;
    if ((int64_t)strlen(text) != n)
        (void)f2b_fail(F2B_ERR_CONFIG, "%s: not a text: it has a zero byte", path);
    else folder = folder_of(path);
    if (folder != NULL) config = parse(text, path, folder, overrides, n_overrides, data_only);
    f2b_free(folder);
    f2b_free(text);
    return config;
}

f2b_config *f2b_config_load(const char *path, const char *const *overrides, int64_t n_overrides)
{
    return load_file(path, overrides, n_overrides, false);
}

f2b_config *f2b_config_load_data(const char *path, const char *const *overrides,
                                 int64_t n_overrides)
{
    return load_file(path, overrides, n_overrides, true);
}

void f2b_config_free(f2b_config *config)
{
    if (config == NULL) return;
    for (int i = 0; i < f2bi_n_fields; i++) f2bi_field_clear(config, &f2bi_fields[i]);
    f2b_free(config);
}
