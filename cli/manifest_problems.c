/* The problems of a manifest: lists give the cross product. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/manifest_read.h"

enum { MOST_PROBLEMS = 1000000 };

/* The items of a list; a value that is not a list is a list of one. */
static size_t list_size(const json_t *value) { return json_is_array(value) ? json_array_size(value) : 1; }
static const json_t *list_item(const json_t *value, size_t index) {
    return json_is_array(value) ? json_array_get(value, index) : value;
}

/* ---- Problems ---------------------------------------------------------------------------- */

/* Each reads one value of a problem. */
static int set_dtype(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    const char *name = json_string_value(value);
    if (name == NULL || !fj_dtype_parse(name, &problem->dtype))
        return CLI_MANIFEST_WRONG(r, "'dtype' is not one of F16, BF16, F32, F64");
    return CLI_EXIT_OK;
}

static int set_dim(const cli_manifest_reader *r, const json_t *value, const char *key, int *ret_dim) {
    json_int_t dim = json_integer_value(value);
    if (!json_is_integer(value) || dim < 1 || dim > 256)
        return CLI_MANIFEST_WRONG(r, "'%s' is not an integer from 1 to 256", key);
    *ret_dim = (int)dim;
    return CLI_EXIT_OK;
}

static int set_head_dim(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    int status = set_dim(r, value, "head_dim", &problem->head_dim);
    problem->value_dim = problem->head_dim;
    return status;
}

static int set_value_dim(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    problem->value_dim = problem->head_dim;
    return json_is_null(value) ? CLI_EXIT_OK : set_dim(r, value, "value_dim", &problem->value_dim);
}

/* Kernels take any ratio at run time; it matters to the plan where queries are few. */
static int set_gqa(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_dim(r, value, "gqa", &problem->gqa);
}

static int set_direction(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    const char *name = json_string_value(value);
    bool backward = name != NULL && strcmp(name, "bwd") == 0;
    if (!backward && (name == NULL || strcmp(name, "fwd") != 0))
        return CLI_MANIFEST_WRONG(r, "'direction' is neither fwd nor bwd");
    problem->direction = backward ? FJ_BACKWARD : FJ_FORWARD;
    return CLI_EXIT_OK;
}

static int set_bool(const cli_manifest_reader *r, const json_t *value, const char *key, bool *ret_bool) {
    if (!json_is_boolean(value)) return CLI_MANIFEST_WRONG(r, "'%s' is neither true nor false", key);
    *ret_bool = json_is_true(value);
    return CLI_EXIT_OK;
}

static int set_max(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "max", &problem->max);
}
static int set_dlse(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "dlse", &problem->dlse);
}
static int set_block_mask(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "block_mask", &problem->block_mask);
}
static int set_form(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    const char *name = json_string_value(value);
    for (size_t i = 0; name != NULL && i < CLI_FORMS; i++)
        if (strcmp(name, cli_form_names[i]) == 0) return problem->form = (fj_form)i, CLI_EXIT_OK;
    return CLI_MANIFEST_WRONG(r, "'form' is none of dense, packed, paged");
}
static int set_few_queries(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "few_queries", &problem->few_queries);
}
static int set_q_offset(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "q_offset", &problem->q_offset);
}
static int set_shared_keys(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "shared_keys", &problem->shared_keys);
}
static int set_dropout(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "dropout", &problem->dropout);
}
static int set_tf32(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    return set_bool(r, value, "tf32", &problem->tf32);
}
static int set_deterministic(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    bool deterministic = true;
    int status = set_bool(r, value, "deterministic", &deterministic);
    problem->nondeterministic = !deterministic;
    return status;
}
static int set_variant(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    problem->variant = json_string_value(value);
    return problem->variant != NULL ? CLI_EXIT_OK : CLI_MANIFEST_WRONG(r, "'variant' is not a string");
}

static int set_kernel(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    problem->kernel = json_string_value(value);
    return problem->kernel != NULL ? CLI_EXIT_OK : CLI_MANIFEST_WRONG(r, "'kernel' is not a string");
}

/* Room for so many, which the manifest frees. */
static fj_option *add_options(cli_manifest *manifest, size_t count) {
    fj_option **grown = realloc(manifest->options, (manifest->option_lists + 1) * sizeof(void *));
    if (grown == NULL) return NULL;
    manifest->options = grown;
    fj_option *list = calloc(count + 1, sizeof *list);
    if (list != NULL) manifest->options[manifest->option_lists++] = list;
    return list;
}

static int set_options(const cli_manifest_reader *r, const json_t *value, fj_problem *problem) {
    if (!json_is_object(value)) return CLI_MANIFEST_WRONG(r, "'options' is not an object");
    fj_option *list = add_options(r->manifest, json_object_size(value));
    if (list == NULL) return cli_no_memory();
    problem->options = list;
    problem->option_count = 0;
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)value, key, item) {
        char number[32], names[CLI_KERNEL_OPTION_NAMES];
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(item));
        const char *text = json_is_integer(item) ? number
                         : json_is_string(item)  ? json_string_value(item)
                                                 : "";
        const bool parsed =
            cli_kernel_option_parse(key, strlen(key), text, &list[problem->option_count++], names);
        if (names[0] != '\0')
            return CLI_MANIFEST_WRONG(r, "'options': unknown option '%.60s': there are %s", key, names);
        if (!parsed) return CLI_MANIFEST_WRONG(r, "'options': '%s' is not an integer", key);
    }
    return CLI_EXIT_OK;
}

/* head_dim before value_dim, which it sets too; few_queries last: what its absence implies
 * stands beside the other. */
static const struct {
    const char *key;
    int (*set)(const cli_manifest_reader *r, const json_t *value, fj_problem *problem);
    bool required;
} fields[] = {
    {"dtype", set_dtype, true},
    {"head_dim", set_head_dim, true},
    {"value_dim", set_value_dim, false},
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
    {"dropout", set_dropout, false},
    {"variant", set_variant, false},
    {"kernel", set_kernel, false},
    {"options", set_options, false},
    {"few_queries", set_few_queries, false},
};
enum { FIELDS = sizeof fields / sizeof fields[0] };
static const char *const field_names[] = {
    "few_queries", "dtype",         "head_dim", "value_dim",  "gqa",  "direction", "max",
    "dlse",        "deterministic", "tf32",     "block_mask", "form", "q_offset",  "shared_keys",
    "variant",     "kernel",        "options",  "dropout",    NULL};
_Static_assert(sizeof field_names / sizeof field_names[0] == FIELDS + 1, "the names of all");

static int add_problem(cli_manifest_reader *r, const fj_problem *problem) {
    cli_manifest *manifest = r->manifest;
    if (manifest->problem_count >= MOST_PROBLEMS)
        return CLI_MANIFEST_WRONG(r, "more than %d problems", MOST_PROBLEMS);
    if (manifest->problem_count == manifest->capacity) {
        size_t capacity = manifest->capacity * 2 + 64;
        cli_manifest_problem *grown = realloc(manifest->problems, capacity * sizeof *grown);
        if (grown == NULL) return cli_no_memory();
        manifest->problems = grown;
        manifest->capacity = capacity;
    }
    manifest->problems[manifest->problem_count++] = (cli_manifest_problem){
        .problem = *problem, .entry = r->entry, .number = r->number, .implied = r->implied};
    return CLI_EXIT_OK;
}

static int expand(cli_manifest_reader *r, const json_t *value, fj_problem problem, size_t field);

/* Calls have few queries or many, and a manifest that does not say which is for both. */
static int expand_absent(cli_manifest_reader *r, const json_t *value, fj_problem problem, size_t field) {
    if (fields[field].required) return CLI_MANIFEST_WRONG(r, "'%s' is missing", fields[field].key);
    int status = expand(r, value, problem, field + 1);
    if (status != CLI_EXIT_OK || fields[field].set != set_few_queries) return status;
    problem.few_queries = true;
    r->implied = true;
    status = expand(r, value, problem, field + 1);
    r->implied = false;
    return status;
}

/* The cross product of all lists, field after field. */
static int expand(cli_manifest_reader *r, const json_t *value, fj_problem problem, size_t field) {
    if (field == FIELDS) return add_problem(r, &problem);
    const json_t *values = json_object_get(value, fields[field].key);
    if (values == NULL) return expand_absent(r, value, problem, field);
    if (list_size(values) == 0) return CLI_MANIFEST_WRONG(r, "'%s' is an empty list", fields[field].key);
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < list_size(values); i++) {
        status = fields[field].set(r, list_item(values, i), &problem);
        if (status == CLI_EXIT_OK) status = expand(r, value, problem, field + 1);
    }
    return status;
}

int cli_manifest_read_problem(cli_manifest_reader *r, json_t *value) {
    int status = cli_manifest_check_keys(r, value, field_names);
    const fj_problem start = {.struct_size = sizeof start};
    return status == CLI_EXIT_OK ? expand(r, value, start, 0) : status;
}
