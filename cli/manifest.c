/* From JSON to plans. What the manifest says wrong is reported with its place: entries[2].problems[0].dtype. */
#include "cli/manifest.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/file.h"
#include "cli/mod.h"
#include "cli/report.h"

enum { MANIFEST_READ = 64 << 20, SOURCE_READ = (1 << 20) + 1, MOST_BUILDS = 1000000 };

/* Where we are. */
typedef struct reader {
    const char *path;
    fj_context *context;
    fj_device *const *devices;
    size_t device_count;
    cli_manifest *manifest;
    char place[160]; /* "entries[2]" */
} reader;

#define WRONG(r, ...) (say_wrong((r), __VA_ARGS__), CLI_EXIT_FAILED)

CLI_PRINTF(2, 3)
static void say_wrong(const reader *r, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cli_say_error(CLI_EXIT_FAILED, r->path, "%s%s%s", r->place, r->place[0] != '\0' ? ": " : "", text);
}

/* ---- Values ------------------------------------------------------------------------------ */

static int check_keys(const reader *r, json_t *object, const char *const *known) {
    const char *key;
    json_t *value;
    if (!json_is_object(object)) return WRONG(r, "an object is expected");
    json_object_foreach(object, key, value) {
        bool found = false;
        for (const char *const *name = known; *name != NULL; name++) found |= strcmp(*name, key) == 0;
        if (!found) return WRONG(r, "unknown key '%.60s'", key);
    }
    return CLI_EXIT_OK;
}

/* A string, or NULL where there is none. */
static int read_text(const reader *r, const json_t *object, const char *key, const char **ret_text) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) return CLI_EXIT_OK;
    if (!json_is_string(value)) return WRONG(r, "'%s' is not a string", key);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return WRONG(r, "'%s' has a NUL in it", key);
    *ret_text = json_string_value(value);
    return CLI_EXIT_OK;
}

/* The items of a list; a value that is not a list is a list of one. */
static size_t list_size(const json_t *value) { return json_is_array(value) ? json_array_size(value) : 1; }
static const json_t *list_item(const json_t *value, size_t index) {
    return json_is_array(value) ? json_array_get(value, index) : value;
}

/* ---- Problems ---------------------------------------------------------------------------- */

/* Each reads one value of a problem. */
static int set_dtype(const reader *r, const json_t *value, fj_problem *problem) {
    const char *name = json_string_value(value);
    if (name == NULL || !fj_dtype_parse(name, &problem->dtype))
        return WRONG(r, "'dtype' is not one of F16, BF16, F32, F64");
    return CLI_EXIT_OK;
}

static int set_dim(const reader *r, const json_t *value, const char *key, int *ret_dim) {
    json_int_t dim = json_integer_value(value);
    if (!json_is_integer(value) || dim < 1 || dim > 256)
        return WRONG(r, "'%s' is not an integer from 1 to 256", key);
    *ret_dim = (int)dim;
    return CLI_EXIT_OK;
}

static int set_head_dim(const reader *r, const json_t *value, fj_problem *problem) {
    int status = set_dim(r, value, "head_dim", &problem->head_dim);
    problem->value_dim = problem->head_dim;
    return status;
}

static int set_value_dim(const reader *r, const json_t *value, fj_problem *problem) {
    problem->value_dim = problem->head_dim;
    return json_is_null(value) ? CLI_EXIT_OK : set_dim(r, value, "value_dim", &problem->value_dim);
}

/* Kernels take any ratio at run time; it matters to the plan where queries are few. */
static int set_gqa(const reader *r, const json_t *value, fj_problem *problem) {
    return set_dim(r, value, "gqa", &problem->gqa);
}

static int set_direction(const reader *r, const json_t *value, fj_problem *problem) {
    const char *name = json_string_value(value);
    bool backward = name != NULL && strcmp(name, "bwd") == 0;
    if (!backward && (name == NULL || strcmp(name, "fwd") != 0))
        return WRONG(r, "'direction' is neither fwd nor bwd");
    problem->direction = backward ? FJ_BACKWARD : FJ_FORWARD;
    return CLI_EXIT_OK;
}

static int set_bool(const reader *r, const json_t *value, const char *key, bool *ret_bool) {
    if (!json_is_boolean(value)) return WRONG(r, "'%s' is neither true nor false", key);
    *ret_bool = json_is_true(value);
    return CLI_EXIT_OK;
}

static int set_max(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "max", &problem->max);
}
static int set_dlse(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "dlse", &problem->dlse);
}
static int set_block_mask(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "block_mask", &problem->block_mask);
}
static int set_form(const reader *r, const json_t *value, fj_problem *problem) {
    const char *name = json_string_value(value);
    for (size_t i = 0; name != NULL && i < CLI_FORMS; i++)
        if (strcmp(name, cli_form_names[i]) == 0) return problem->form = (fj_form)i, CLI_EXIT_OK;
    return WRONG(r, "'form' is none of dense, packed, paged");
}
static int set_few_queries(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "few_queries", &problem->few_queries);
}
static int set_q_offset(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "q_offset", &problem->q_offset);
}
static int set_shared_keys(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "shared_keys", &problem->shared_keys);
}
static int set_tf32(const reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "tf32", &problem->tf32);
}
static int set_deterministic(const reader *r, const json_t *value, fj_problem *problem) {
    bool deterministic = true;
    int status = set_bool(r, value, "deterministic", &deterministic);
    problem->nondeterministic = !deterministic;
    return status;
}
static int set_variant(const reader *r, const json_t *value, fj_problem *problem) {
    problem->variant = json_string_value(value);
    return problem->variant != NULL ? CLI_EXIT_OK : WRONG(r, "'variant' is not a string");
}

/* head_dim before value_dim, which it sets too. */
static const struct {
    const char *key;
    int (*set)(const reader *r, const json_t *value, fj_problem *problem);
    bool required;
} fields[] = {
    {"dtype", set_dtype, true},
    {"head_dim", set_head_dim, true},
    {"value_dim", set_value_dim, false},
    {"few_queries", set_few_queries, false},
    {"gqa", set_gqa, false},
    {"direction", set_direction, false},
    {"max", set_max, false},
    {"dlse", set_dlse, false},
    {"deterministic", set_deterministic, false},
    {"tf32", set_tf32, false},
    {"block_mask", set_block_mask, false},
    {"form", set_form, false},
    {"q_offset", set_q_offset, false},
    {"shared_keys", set_shared_keys, false},
    {"variant", set_variant, false},
};
enum { FIELDS = sizeof fields / sizeof fields[0] };
static const char *const field_names[] = {
    "few_queries",   "dtype", "head_dim",   "value_dim", "gqa",      "direction",   "max",     "dlse",
    "deterministic", "tf32",  "block_mask", "form",      "q_offset", "shared_keys", "variant", NULL};
_Static_assert(sizeof field_names / sizeof field_names[0] == FIELDS + 1, "the names of all");

static int add_build(reader *r, const fj_mod *mod, const fj_problem *problem, size_t entry) {
    cli_manifest *manifest = r->manifest;
    for (size_t d = 0; d < r->device_count; d++) {
        if (manifest->count >= MOST_BUILDS) return WRONG(r, "more than %d kernels", MOST_BUILDS);
        if (manifest->count == manifest->capacity) {
            size_t capacity = manifest->capacity * 2 + 64;
            cli_build *grown = realloc(manifest->builds, capacity * sizeof *grown);
            if (grown == NULL) return cli_no_memory();
            manifest->builds = grown;
            manifest->capacity = capacity;
        }
        cli_build build = {.entry = entry, .device = d, .name = manifest->names[entry]};
        fj_error error = {0};
        fj_status result = fj_plan_create(r->devices[d], mod, problem, &build.plan, &error);
        if (result != FJ_OK) {
            if (error.file[0] == '\0') snprintf(error.file, sizeof error.file, "%s: %s", r->path, r->place);
            return cli_fail_library(result, &error);
        }
        manifest->builds[manifest->count++] = build;
    }
    return CLI_EXIT_OK;
}

/* The cross product of all lists: field after field, then the plan. What is listed twice in effect (gqa) is built
 * once, as kernels do not depend on it. */
static int expand(reader *r, json_t *value, const fj_mod *mod, fj_problem problem, size_t field,
                  size_t entry) {
    if (field == FIELDS) return add_build(r, mod, &problem, entry);
    const json_t *values = json_object_get(value, fields[field].key);
    if (values == NULL && fields[field].required) return WRONG(r, "'%s' is missing", fields[field].key);
    if (values == NULL) return expand(r, value, mod, problem, field + 1, entry);
    const bool distinct = fields[field].set != set_gqa || problem.few_queries;
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < list_size(values); i++) {
        status = fields[field].set(r, list_item(values, i), &problem);
        if (status == CLI_EXIT_OK && (distinct || i == 0))
            status = expand(r, value, mod, problem, field + 1, entry);
    }
    return status;
}

static int read_problem(reader *r, json_t *value, const fj_mod *mod, size_t entry) {
    int status = check_keys(r, value, field_names);
    const fj_problem start = {.struct_size = sizeof start};
    return status == CLI_EXIT_OK ? expand(r, value, mod, start, 0, entry) : status;
}

/* ---- Mods -------------------------------------------------------------------------------- */

/* What a mod is made from; its texts are the JSON's except for what is here. */
typedef struct request {
    fj_mod_desc desc;
    char path[PATH_MAX];
    char *source;
    fj_param *params;
    const char **runtime;
    fj_binding *bindings;
} request;

/* Relative to the manifest. */
static int read_source(const reader *r, const char *mod, request *want) {
    const char *slash = strrchr(r->path, '/');
    int folder = slash == NULL || mod[0] == '/' ? 0 : (int)(slash - r->path + 1);
    int length = snprintf(want->path, sizeof want->path, "%.*s%s", folder, r->path, mod);
    if (length < 0 || (size_t)length >= sizeof want->path) return WRONG(r, "the path of the mod is too long");
    want->desc.file = want->path;
    int status = cli_read_file(want->path, SOURCE_READ, &want->source, &want->desc.source_length);
    want->desc.source = want->source;
    return status;
}

static int read_params(const reader *r, const json_t *object, request *want) {
    json_t *params = json_object_get(object, "params"), *value;
    const json_t *runtime = json_object_get(object, "runtime_params");
    const char *key;
    if (params != NULL && !json_is_object(params)) return WRONG(r, "'params' is not an object");
    if (runtime != NULL && !json_is_array(runtime)) return WRONG(r, "'runtime_params' is not a list");
    want->params = calloc(json_object_size(params) + 1, sizeof *want->params);
    want->runtime = calloc(json_array_size(runtime) + 1, sizeof *want->runtime);
    if (want->params == NULL || want->runtime == NULL) return cli_no_memory();
    json_object_foreach(params, key, value) {
        if (!json_is_string(value))
            return WRONG(r, "'params': '%.60s' is not a string with an expression", key);
        want->params[want->desc.param_count++] =
            (fj_param){.name = key, .expression = json_string_value(value)};
    }
    for (size_t i = 0; i < json_array_size(runtime); i++) {
        const char *name = json_string_value(json_array_get(runtime, i));
        if (name == NULL) return WRONG(r, "'runtime_params' is not a list of names");
        want->runtime[want->desc.runtime_param_count++] = name;
    }
    want->desc.params = want->params;
    want->desc.runtime_params = want->runtime;
    return CLI_EXIT_OK;
}

static int read_bindings(const reader *r, const json_t *object, request *want) {
    json_t *bind = json_object_get(object, "bind"), *value;
    const char *key;
    if (bind != NULL && !json_is_object(bind)) return WRONG(r, "'bind' is not an object");
    want->bindings = calloc(json_object_size(bind) + 1, sizeof *want->bindings);
    if (want->bindings == NULL) return cli_no_memory();
    json_object_foreach(bind, key, value) {
        fj_binding *binding = &want->bindings[want->desc.binding_count];
        if (!json_is_string(value)) return WRONG(r, "'bind': '%.60s' is not a string", key);
        const char *wrong = cli_binding_parse(json_string_value(value), binding);
        if (wrong != NULL) return WRONG(r, "'bind': '%.60s': %s", key, wrong);
        binding->name = key;
        want->desc.binding_count++;
    }
    want->desc.bindings = want->bindings;
    return CLI_EXIT_OK;
}

static int read_mod(const reader *r, const json_t *object, request *want, fj_mod **ret_mod) {
    const char *mod = NULL;
    want->desc = (fj_mod_desc){.struct_size = sizeof want->desc, .file = r->path};
    int status = read_text(r, object, "mod", &mod);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "score", &want->desc.score);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "mask", &want->desc.mask);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "score_mod", &want->desc.score_mod);
    if (status == CLI_EXIT_OK) status = read_text(r, object, "mask_mod", &want->desc.mask_mod);
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
    if (error.file[0] == '\0') snprintf(error.file, sizeof error.file, "%s: %s", r->path, r->place);
    return cli_fail_library(result, &error);
}

static void forget(request *want) {
    free(want->source);
    free(want->params);
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

static int read_entry(reader *r, json_t *object, size_t index) {
    static const char *const keys[] = {"mod",    "score",          "mask", "score_mod", "mask_mod",
                                       "params", "runtime_params", "bind", "problems",  NULL};
    request want = {0};
    fj_mod *mod = NULL;
    snprintf(r->place, sizeof r->place, "entries[%zu]", index);
    const json_t *problems = json_object_get(object, "problems");
    int status = check_keys(r, object, keys);
    if (status == CLI_EXIT_OK && !json_is_array(problems)) status = WRONG(r, "'problems' is not a list");
    r->manifest->names[index] = name_entry(object, index);
    if (status == CLI_EXIT_OK && r->manifest->names[index] == NULL) status = cli_no_memory();
    if (status == CLI_EXIT_OK) status = read_mod(r, object, &want, &mod);
    for (size_t i = 0; status == CLI_EXIT_OK && i < json_array_size(problems); i++) {
        snprintf(r->place, sizeof r->place, "entries[%zu].problems[%zu]", index, i);
        status = read_problem(r, json_array_get(problems, i), mod, index);
    }
    fj_mod_unref(&mod);
    forget(&want);
    return status;
}

static int read_all(reader *r, json_t *root) {
    static const char *const keys[] = {"schema", "entries", NULL};
    const json_t *schema = json_object_get(root, "schema"), *entries = json_object_get(root, "entries");
    int status = check_keys(r, root, keys);
    if (status != CLI_EXIT_OK) return status;
    if (!json_is_integer(schema) || json_integer_value(schema) != 1) return WRONG(r, "'schema' is not 1");
    if (!json_is_array(entries)) return WRONG(r, "'entries' is not a list");
    r->manifest->entries = json_array_size(entries);
    r->manifest->names = calloc(r->manifest->entries + 1, sizeof *r->manifest->names);
    if (r->manifest->names == NULL) return cli_no_memory();
    for (size_t i = 0; status == CLI_EXIT_OK && i < r->manifest->entries; i++)
        status = read_entry(r, json_array_get(entries, i), i);
    return status;
}

int cli_manifest_open(const char *path, fj_context *context, fj_device *const *devices, size_t device_count,
                      cli_manifest *ret_manifest) {
    reader r = {.path = path, .context = context, .devices = devices, .device_count = device_count};
    r.manifest = ret_manifest;
    *ret_manifest = (cli_manifest){0};
    char *text = NULL;
    size_t size = 0;
    int status = cli_read_file(path, MANIFEST_READ, &text, &size);
    if (status != CLI_EXIT_OK) return status;
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (root == NULL) return cli_fail_file(CLI_EXIT_FAILED, path, "line %d: %s", error.line, error.text);
    status = read_all(&r, root);
    json_decref(root);
    return status;
}

void cli_manifest_close(cli_manifest *manifest) {
    for (size_t i = 0; i < manifest->count; i++) fj_plan_unref(&manifest->builds[i].plan);
    for (size_t i = 0; manifest->names != NULL && i < manifest->entries; i++) free(manifest->names[i]);
    free(manifest->names);
    free(manifest->builds);
    *manifest = (cli_manifest){0};
}
