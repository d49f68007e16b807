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

static int plan_problem(const cli_manifest *manifest, const cli_manifest_problem *of, fj_device *device,
                        size_t device_index, cli_builds *builds) {
    const cli_manifest_entry *entry = &manifest->entries[of->entry];
    if (builds->count >= MOST_BUILDS)
        return cli_fail_file(CLI_EXIT_FAILED, manifest->path, "more than %d kernels", MOST_BUILDS);
    cli_build build = {.entry = of->entry, .device = device_index, .name = entry->name};
    fj_error error = {0};
    fj_status result = fj_plan_create(device, entry->mod, &of->problem, &build.plan, &error);
    if (result != FJ_OK) {
        if (error.file[0] == '\0')
            snprintf(error.file, sizeof error.file, "%s: entries[%zu].problems[%zu]", manifest->path,
                     of->entry, of->number);
        return cli_fail_library(result, &error);
    }
    int status = add_build(builds, &build);
    if (status != CLI_EXIT_OK) fj_plan_unref(&build.plan);
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
                    cli_builds *ret_builds) {
    int status = CLI_EXIT_OK;
    *ret_builds = (cli_builds){0};
    for (size_t i = 0; status == CLI_EXIT_OK && i < manifest->problem_count; i++)
        for (size_t d = 0; status == CLI_EXIT_OK && d < device_count; d++)
            status = plan_problem(manifest, &manifest->problems[i], devices[d], d, ret_builds);
    return status == CLI_EXIT_OK ? keep_distinct(ret_builds) : status;
}

void cli_builds_close(cli_builds *builds) {
    for (size_t i = 0; i < builds->count; i++) fj_plan_unref(&builds->items[i].plan);
    free(builds->items);
    *builds = (cli_builds){0};
}
