/* From JSON to mods and problems. What the manifest says wrong is reported with its place: entries[2].problems[0]. */
#include "cli/manifest.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/file.h"
#include "cli/manifest_read.h"
#include "cli/mod.h"

enum { MANIFEST_READ = 64 << 20, SOURCE_READ = (1 << 20) + 1, PARAM_NUMBER = 40 };

/* ---- Values ------------------------------------------------------------------------------ */

void cli_manifest_say_wrong(const cli_manifest_reader *r, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cli_say_error(CLI_EXIT_FAILED, r->path, "%s%s%s", r->place, r->place[0] != '\0' ? ": " : "", text);
}

/* ---- Values ------------------------------------------------------------------------------ */

int cli_manifest_check_keys(const cli_manifest_reader *r, json_t *object, const char *const *known) {
    const char *key;
    json_t *value;
    if (!json_is_object(object)) return CLI_MANIFEST_WRONG(r, "an object is expected");
    json_object_foreach(object, key, value) {
        bool found = false;
        for (const char *const *name = known; *name != NULL; name++) found |= strcmp(*name, key) == 0;
        if (!found) return CLI_MANIFEST_WRONG(r, "unknown key '%.60s'", key);
    }
    return CLI_EXIT_OK;
}

/* A string, or NULL where there is none. */
static int read_text(const cli_manifest_reader *r, const json_t *object, const char *key,
                     const char **ret_text) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) return CLI_EXIT_OK;
    if (!json_is_string(value)) return CLI_MANIFEST_WRONG(r, "'%s' is not a string", key);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return CLI_MANIFEST_WRONG(r, "'%s' has a NUL in it", key);
    *ret_text = json_string_value(value);
    return CLI_EXIT_OK;
}

/* ---- Mods -------------------------------------------------------------------------------- */

/* What a mod is made from; its texts are the JSON's except for what is here. */
typedef struct request {
    fj_mod_desc desc;
    char path[PATH_MAX];
    char *source;
    fj_param *params;
    char (*numbers)[PARAM_NUMBER]; /* of params */
    const char **runtime;
    fj_binding *bindings;
} request;

/* Relative to the manifest. */
static int read_source(const cli_manifest_reader *r, const char *mod, request *want) {
    const char *slash = strrchr(r->path, '/');
    int folder = slash == NULL || mod[0] == '/' ? 0 : (int)(slash - r->path + 1);
    int length = snprintf(want->path, sizeof want->path, "%.*s%s", folder, r->path, mod);
    if (length < 0 || (size_t)length >= sizeof want->path)
        return CLI_MANIFEST_WRONG(r, "the path of the mod is too long");
    want->desc.file = want->path;
    int status = cli_read_file(want->path, SOURCE_READ, &want->source, &want->desc.source_length);
    want->desc.source = want->source;
    return status;
}

/* A value as the language writes it, in number where it is not the JSON's own; NULL: it is none. */
static const char *read_param(const json_t *value, char number[PARAM_NUMBER]) {
    if (json_is_boolean(value)) return json_is_true(value) ? "True" : "False";
    if (json_is_integer(value)) {
        snprintf(number, PARAM_NUMBER, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return number;
    }
    if (!json_is_real(value)) {
        const char *text = json_string_value(value);
        return text != NULL && strlen(text) == json_string_length(value) ? text : NULL;
    }
    const int length = snprintf(number, PARAM_NUMBER, "%.17g", json_real_value(value));
    if (strpbrk(number, ".en") == NULL) /* a float stays one */
        snprintf(number + length, PARAM_NUMBER - (size_t)length, ".0");
    return number;
}

static int read_params(const cli_manifest_reader *r, const json_t *object, request *want) {
    json_t *params = json_object_get(object, "params"), *value;
    const json_t *runtime = json_object_get(object, "runtime_params");
    const char *key;
    if (params != NULL && !json_is_object(params)) return CLI_MANIFEST_WRONG(r, "'params' is not an object");
    if (runtime != NULL && !json_is_array(runtime))
        return CLI_MANIFEST_WRONG(r, "'runtime_params' is not a list");
    want->params = calloc(json_object_size(params) + 1, sizeof *want->params);
    want->runtime = calloc(json_array_size(runtime) + 1, sizeof *want->runtime);
    want->numbers = calloc(json_object_size(params) + 1, sizeof *want->numbers);
    if (want->params == NULL || want->runtime == NULL || want->numbers == NULL) return cli_no_memory();
    json_object_foreach(params, key, value) {
        const char *expression = read_param(value, want->numbers[want->desc.param_count]);
        if (expression == NULL)
            return CLI_MANIFEST_WRONG(
                r, "'params': '%.60s' is not a number, a truth value or a string with an expression", key);
        want->params[want->desc.param_count++] = (fj_param){.name = key, .expression = expression};
    }
    for (size_t i = 0; i < json_array_size(runtime); i++) {
        const char *name = json_string_value(json_array_get(runtime, i));
        if (name == NULL) return CLI_MANIFEST_WRONG(r, "'runtime_params' is not a list of names");
        want->runtime[want->desc.runtime_param_count++] = name;
    }
    want->desc.params = want->params;
    want->desc.runtime_params = want->runtime;
    return CLI_EXIT_OK;
}

static int read_bindings(const cli_manifest_reader *r, const json_t *object, request *want) {
    json_t *bind = json_object_get(object, "bind"), *value;
    const char *key;
    if (bind != NULL && !json_is_object(bind)) return CLI_MANIFEST_WRONG(r, "'bind' is not an object");
    want->bindings = calloc(json_object_size(bind) + 1, sizeof *want->bindings);
    if (want->bindings == NULL) return cli_no_memory();
    json_object_foreach(bind, key, value) {
        fj_binding *binding = &want->bindings[want->desc.binding_count];
        if (!json_is_string(value)) return CLI_MANIFEST_WRONG(r, "'bind': '%.60s' is not a string", key);
        const char *wrong = cli_binding_parse(json_string_value(value), binding);
        if (wrong != NULL) return CLI_MANIFEST_WRONG(r, "'bind': '%.60s': %s", key, wrong);
        binding->name = key;
        want->desc.binding_count++;
    }
    want->desc.bindings = want->bindings;
    return CLI_EXIT_OK;
}

static int read_mod(const cli_manifest_reader *r, const json_t *object, request *want, fj_mod **ret_mod) {
    const char *mod = NULL;
    want->desc = (fj_mod_desc){.struct_size = sizeof want->desc, .file = r->path};
    int status = read_text(r, object, "mod", &mod);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "score", &want->desc.score);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "mask", &want->desc.mask);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "score_mod", &want->desc.score_mod);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "mask_mod", &want->desc.mask_mod);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "out", &want->desc.out);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "out_mod", &want->desc.out_mod);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "sink", &want->desc.sink);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "sink_mod", &want->desc.sink_mod);
    if (status == CLI_EXIT_OK) status = read_params(r, object, want);
    if (status == CLI_EXIT_OK) status = read_bindings(r, object, want);
    if (status == CLI_EXIT_OK && mod != NULL) status = read_source(r, mod, want);
    if (status != CLI_EXIT_OK) return status;
    fj_error error = {0};
    fj_status result = fj_mod_create(r->context, &want->desc, ret_mod, &error);
    if (result == FJ_OK) {
        cli_note_guess(&want->desc, *ret_mod);
        return CLI_EXIT_OK;
    }
    if (error.file[0] == '\0' || error.file[0] == '<') { /* nowhere, or "<param W>": what the manifest has */
        char inner[sizeof error.file];
        memcpy(inner, error.file, sizeof inner);
        snprintf(error.file, sizeof error.file, "%.110s: %.70s%s%.60s", r->path, r->place,
                 inner[0] != '\0' ? ": " : "", inner);
    }
    /* A name that is wrong on a command line is its user's; here it is what a file has. */
    return cli_fail_library(result == FJ_ERR_NAME ? FJ_ERR_MOD : result, &error);
}

static void forget(request *want) {
    free(want->source);
    free(want->params);
    free(want->numbers);
    free(want->runtime);
    free(want->bindings);
}

/* ---- Entries ----------------------------------------------------------------------------- */

static char *name_entry(const json_t *object, size_t index) {
    const char *mod = json_string_value(json_object_get(object, "mod"));
    char number[40];
    snprintf(number, sizeof number, "entries[%zu]", index);
    return strdup(mod != NULL ? mod : number);
}

/* As --shape takes them. */
static int read_shapes(const cli_manifest_reader *r, const json_t *object, cli_shapes *shapes) {
    const json_t *list = json_object_get(object, "shapes");
    if (list != NULL && !json_is_array(list)) return CLI_MANIFEST_WRONG(r, "'shapes' is not a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text == NULL) return CLI_MANIFEST_WRONG(r, "'shapes'[%zu] is not a string", i);
        const char *wrong = cli_shapes_add(shapes, text);
        if (wrong != NULL) return CLI_MANIFEST_WRONG(r, "'shapes'[%zu]: '%.60s' %s", i, text, wrong);
    }
    return CLI_EXIT_OK;
}

/* The factor of the scores that the mod is for. */
static int read_scale(const cli_manifest_reader *r, const json_t *object, double *ret_scale) {
    const json_t *scale = json_object_get(object, "scale");
    *ret_scale = scale != NULL ? json_number_value(scale) : (double)NAN;
    if (scale != NULL && !json_is_number(scale)) return CLI_MANIFEST_WRONG(r, "'scale' is not a number");
    return CLI_EXIT_OK;
}

static int read_problems(cli_manifest_reader *r, const json_t *object) {
    const json_t *problems = json_object_get(object, "problems");
    int status = CLI_EXIT_OK;
    for (r->number = 0; status == CLI_EXIT_OK && r->number < json_array_size(problems); r->number++) {
        snprintf(r->place, sizeof r->place, "entries[%zu].problems[%zu]", r->entry, r->number);
        status = cli_manifest_read_problem(r, json_array_get(problems, r->number));
    }
    return status;
}

static int read_entry(cli_manifest_reader *r, json_t *object) {
    static const char *const keys[] = {"mod",      "score",  "mask",           "score_mod",
                                       "mask_mod", "params", "runtime_params", "out",
                                       "out_mod",  "sink",   "sink_mod",       "bind",
                                       "problems", "shapes", "call",           "scale",
                                       NULL}; /* call: of one that was kept, for `tune` */
    cli_manifest_entry *entry = &r->manifest->entries[r->entry];
    request want = {0};
    snprintf(r->place, sizeof r->place, "entries[%zu]", r->entry);
    int status = cli_manifest_check_keys(r, object, keys);
    if (status == CLI_EXIT_OK && !json_is_array(json_object_get(object, "problems")))
        status = CLI_MANIFEST_WRONG(r, "'problems' is not a list");
    entry->name = name_entry(object, r->entry);
    if (status == CLI_EXIT_OK && entry->name == NULL) status = cli_no_memory();
    if (status == CLI_EXIT_OK) status = read_mod(r, object, &want, &entry->mod);
    if (status == CLI_EXIT_OK) status = read_shapes(r, object, &entry->shapes);
    if (status == CLI_EXIT_OK) status = read_scale(r, object, &entry->scale);
    if (status == CLI_EXIT_OK) status = read_problems(r, object);
    forget(&want);
    return status;
}

static int read_all(cli_manifest_reader *r, json_t *root) {
    static const char *const keys[] = {"schema", "entries", "tool", NULL};
    const json_t *schema = json_object_get(root, "schema"), *entries = json_object_get(root, "entries");
    int status = cli_manifest_check_keys(r, root, keys);
    if (status != CLI_EXIT_OK) return status;
    if (!json_is_integer(schema) || json_integer_value(schema) != 1)
        return CLI_MANIFEST_WRONG(r, "'schema' is not 1");
    if (!json_is_array(entries)) return CLI_MANIFEST_WRONG(r, "'entries' is not a list");
    r->manifest->entry_count = json_array_size(entries);
    r->manifest->entries = calloc(r->manifest->entry_count + 1, sizeof *r->manifest->entries);
    if (r->manifest->entries == NULL) return cli_no_memory();
    for (; status == CLI_EXIT_OK && r->entry < r->manifest->entry_count; r->entry++)
        status = read_entry(r, json_array_get(entries, r->entry));
    return status;
}

int cli_manifest_open(const char *path, fj_context *context, cli_manifest *ret_manifest) {
    cli_manifest_reader r = {.path = path, .context = context, .manifest = ret_manifest};
    *ret_manifest = (cli_manifest){.path = path};
    char *text = NULL;
    size_t size = 0;
    int status = cli_read_file(path, MANIFEST_READ, &text, &size);
    if (status != CLI_EXIT_OK) return status;
    json_error_t error;
    ret_manifest->root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (ret_manifest->root == NULL)
        return cli_fail_file(CLI_EXIT_FAILED, path, "line %d: %s", error.line, error.text);
    return read_all(&r, ret_manifest->root);
}

void cli_manifest_close(cli_manifest *manifest) {
    for (size_t i = 0; manifest->entries != NULL && i < manifest->entry_count; i++) {
        fj_mod_unref(&manifest->entries[i].mod);
        cli_shapes_finish(&manifest->entries[i].shapes);
        free(manifest->entries[i].name);
    }
    free(manifest->entries);
    free(manifest->problems);
    for (size_t i = 0; i < manifest->option_lists; i++) free(manifest->options[i]);
    free(manifest->options);
    json_decref(manifest->root);
    *manifest = (cli_manifest){0};
}

const cli_manifest_entry *cli_manifest_find(const cli_manifest *manifest, const char *mod) {
    const char *slash = strrchr(manifest->path, '/');
    struct stat wanted, found;
    char path[PATH_MAX];
    if (stat(mod, &wanted) != 0) return NULL;
    for (size_t i = 0; i < manifest->entry_count; i++) {
        const char *name = manifest->entries[i].name;
        const int folder = slash == NULL || name[0] == '/' ? 0 : (int)(slash - manifest->path + 1);
        const int length = snprintf(path, sizeof path, "%.*s%s", folder, manifest->path, name);
        if (length < 0 || (size_t)length >= sizeof path || stat(path, &found) != 0) continue;
        if (found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino) return &manifest->entries[i];
    }
    return NULL;
}
