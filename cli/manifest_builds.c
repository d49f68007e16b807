/* The kernels that the problems of a manifest ask for, on some devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/manifest.h"
#include "cli/report.h"

enum { MOST_BUILDS = 1000000 };

/* ---- Plans ------------------------------------------------------------------------------- */

static int add_build(cli_builds *builds, const cli_build *build) {
    if (builds->count == builds->capacity) {
        size_t capacity = builds->capacity * 2 + 64;
        cli_build *grown = realloc(builds->items, capacity * sizeof *grown);
        if (grown == NULL) return cli_no_memory();
        builds->items = grown;
        builds->capacity = capacity;
    }
    builds->items[builds->count++] = *build;
    return CLI_EXIT_OK;
}

/* What is being planned. */
typedef struct planner {
    const cli_manifest *manifest;
    fj_device *const *devices;
    cli_variants variants;
    cli_builds *builds;
} planner;

static int add_plan(planner *p, const cli_manifest_problem *of, const fj_problem *problem, size_t device) {
    const cli_manifest *manifest = p->manifest;
    const cli_manifest_entry *entry = &manifest->entries[of->entry];
    if (p->builds->count >= MOST_BUILDS)
        return cli_fail_file(CLI_EXIT_FAILED, manifest->path, "more than %d kernels", MOST_BUILDS);
    cli_build build = {.entry = of->entry, .device = device, .name = entry->name};
    fj_error error = {0};
    fj_status result = fj_plan_create(p->devices[device], entry->mod, problem, &build.plan, &error);
    if (result == FJ_ERR_NAME && problem->variant != NULL && of->problem.variant == NULL) {
        fj_error_finish(&error); /* a record's, of a problem that is alike, or of another release */
        return CLI_EXIT_OK;
    }
    if (result != FJ_OK) {
        if (error.file[0] == '\0')
            snprintf(error.file, sizeof error.file, "%s: entries[%zu].problems[%zu]", manifest->path,
                     of->entry, of->number);
        return cli_fail_library(result, &error);
    }
    int status = add_build(p->builds, &build);
    if (status != CLI_EXIT_OK) fj_plan_unref(&build.plan);
    return status;
}

/* The names that the library lists of a plan's variants: strings, or objects with one. */
static int list_variants(const fj_plan *plan, cli_variants which, json_t **ret_list) {
    fj_error error = {0};
    fj_text text = {0};
    const fj_status result = which == CLI_VARIANTS_ALL ? fj_plan_variants(plan, &text, &error)
                                                       : fj_plan_tuned_variants(plan, &text, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    json_t *object = json_loadb(text.data, text.length, 0, NULL);
    fj_text_finish(&text);
    *ret_list = json_incref(json_object_get(object, "variants"));
    json_decref(object);
    return *ret_list != NULL ? CLI_EXIT_OK : cli_no_memory();
}

static int plan_problem(planner *p, const cli_manifest_problem *of, size_t device) {
    fj_problem problem = of->problem;
    const bool asked = problem.variant != NULL || problem.kernel != NULL || problem.option_count > 0;
    problem.untuned = !asked;
    int status = add_plan(p, of, &problem, device);
    if (status != CLI_EXIT_OK || asked || p->variants == CLI_VARIANTS_DEFAULT) return status;
    json_t *list = NULL, *item;
    size_t i;
    status = list_variants(p->builds->items[p->builds->count - 1].plan, p->variants, &list);
    json_array_foreach(list, i, item) {
        const json_t *name = json_is_object(item) ? json_object_get(item, "variant") : item;
        problem.variant = json_string_value(name);
        if (status == CLI_EXIT_OK) status = add_plan(p, of, &problem, device);
    }
    json_decref(list);
    return status;
}

/* ---- Distinct kernels -------------------------------------------------------------------- */

/* The text of which a kernel's request key is made. */
static int key_text(const cli_build *build, fj_text *ret_text) {
    fj_error error = {0};
    fj_status result = fj_plan_show(build->plan, "key", ret_text, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

typedef struct keyed {
    fj_text text;
    size_t index;
} keyed;

static int by_text(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    size_t shorter = x->text.length < y->text.length ? x->text.length : y->text.length;
    int order = memcmp(x->text.data, y->text.data, shorter);
    if (order == 0) order = (x->text.length > y->text.length) - (x->text.length < y->text.length);
    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

static bool same_text(const keyed *a, const keyed *b) {
    return a->text.length == b->text.length && memcmp(a->text.data, b->text.data, a->text.length) == 0;
}

/* Drops what is marked. */
static void keep_some(cli_builds *builds, const bool *drop) {
    size_t kept = 0;
    for (size_t i = 0; i < builds->count; i++) {
        if (drop[i])
            fj_plan_unref(&builds->items[i].plan);
        else
            builds->items[kept++] = builds->items[i];
    }
    builds->repeated += builds->count - kept;
    builds->count = kept;
}

/* Of builds that are one kernel the first stays. */
static int keep_distinct(cli_builds *builds) {
    keyed *keys = calloc(builds->count + 1, sizeof *keys);
    bool *drop = calloc(builds->count + 1, sizeof *drop);
    int status = keys != NULL && drop != NULL ? CLI_EXIT_OK : cli_no_memory();
    for (size_t i = 0; status == CLI_EXIT_OK && i < builds->count; i++) {
        keys[i].index = i;
        status = key_text(&builds->items[i], &keys[i].text);
    }
    if (status == CLI_EXIT_OK && builds->count > 0) qsort(keys, builds->count, sizeof *keys, by_text);
    for (size_t i = 1; status == CLI_EXIT_OK && i < builds->count; i++)
        drop[keys[i].index] = same_text(&keys[i - 1], &keys[i]);
    for (size_t i = 0; keys != NULL && i < builds->count; i++) fj_text_finish(&keys[i].text);
    if (status == CLI_EXIT_OK) keep_some(builds, drop);
    free(keys);
    free(drop);
    return status;
}

int cli_builds_open(const cli_manifest *manifest, fj_device *const *devices, size_t device_count,
                    cli_variants variants, cli_builds *ret_builds) {
    planner p = {.manifest = manifest, .devices = devices, .variants = variants, .builds = ret_builds};
    int status = CLI_EXIT_OK;
    *ret_builds = (cli_builds){0};
    for (size_t i = 0; status == CLI_EXIT_OK && i < manifest->problem_count; i++)
        for (size_t d = 0; status == CLI_EXIT_OK && d < device_count; d++)
            status = plan_problem(&p, &manifest->problems[i], d);
    return status == CLI_EXIT_OK ? keep_distinct(ret_builds) : status;
}

void cli_builds_close(cli_builds *builds) {
    for (size_t i = 0; i < builds->count; i++) fj_plan_unref(&builds->items[i].plan);
    free(builds->items);
    *builds = (cli_builds){0};
}
