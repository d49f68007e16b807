/* What `flexjit prebuild` says: how far it is, and what came of each kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/prebuild.h"
#include "cli/report.h"

enum { SECONDS_BETWEEN_LINES = 10 };

double cli_prebuild_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- Progress ---------------------------------------------------------------------------- */

/* On a terminal a line that moves, else one now and then. Under the lock. */
void cli_prebuild_progress(cli_prebuild *p) {
    bool terminal = isatty(STDERR_FILENO) != 0;
    double now = cli_prebuild_seconds(), passed = now - p->started;
    if (!terminal && now - p->said < SECONDS_BETWEEN_LINES) return;
    p->said = now;
    double left = p->done > 0 ? passed / (double)p->done * (double)(p->wanted - p->done) : 0;
    fprintf(stderr, "%s%zu of %zu kernels, %zu compiled, %zu failed, %.0f s, about %.0f s to go%s",
            terminal ? "\r\033[K" : "", p->done, p->wanted, p->counts[CLI_BUILT], p->counts[CLI_FAILED],
            passed, left, terminal && p->done < p->wanted ? "" : "\n");
}

/* ---- The report -------------------------------------------------------------------------- */

static const char *arch_of(const cli_prebuild *p, size_t place) {
    const char *name = fj_device_name(p->devices[p->builds.items[p->order[place]].device]);
    const char *arch = strchr(name, ':');
    return arch != NULL ? arch + 1 : "";
}

static json_t *row_of(const cli_prebuild *p, size_t place) {
    static const char *const words[] = {"waiting", "hit", "miss", "failed"};
    const cli_build *build = &p->builds.items[p->order[place]];
    const cli_prebuild_row *of = &p->rows[place];
    json_t *object = json_pack(
        "{s:o, s:I, s:s, s:s, s:s, s:o, s:i, s:i, s:i}", "mod", cli_json_text(build->name), "entry",
        (json_int_t)build->entry, "arch", arch_of(p, place), "variant",
        of->info.variant != NULL ? of->info.variant : fj_plan_variant(build->plan), "cache", words[of->how],
        "compile_ms", cli_json_number(of->info.compile_ms), "registers", of->info.registers, "spill_bytes",
        of->info.spill_bytes, "shared_bytes", of->info.shared_bytes);
    if (of->error != NULL) json_object_set_new(object, "error", cli_json_text(of->error));
    if (of->detail != NULL) json_object_set_new(object, "log", cli_json_text(of->detail));
    return object;
}

static void add_once(json_t *list, const char *text) {
    size_t i;
    json_t *known;
    json_array_foreach(list, i, known) {
        if (strcmp(json_string_value(known), text) == 0) return;
    }
    json_array_append_new(list, json_string(text));
}

/* The object of the failures of an entry for one kind of reason; NULL: there is none yet. */
static json_t *find_failure(const json_t *list, size_t entry, fj_status reason) {
    size_t i;
    json_t *of;
    json_array_foreach(list, i, of) {
        if (json_integer_value(json_object_get(of, "entry")) == (json_int_t)entry &&
            json_integer_value(json_object_get(of, "code")) == (json_int_t)reason)
            return of;
    }
    return NULL;
}

typedef struct failed_one {
    size_t build, place;
} failed_one;

static int by_build(const void *a, const void *b) {
    const failed_one *x = a, *y = b;
    return (x->build > y->build) - (x->build < y->build);
}

/* What failed, in the manifest's order: once for each entry and kind of reason, with the first's words. */
static json_t *failures(const cli_prebuild *p) {
    failed_one *failed = calloc(p->counts[CLI_FAILED] + 1, sizeof *failed);
    size_t count = 0;
    json_t *list = json_array();
    for (size_t i = 0; failed != NULL && i < p->wanted; i++)
        if (p->rows[i].how == CLI_FAILED) failed[count++] = (failed_one){p->order[i], i};
    if (count > 1) qsort(failed, count, sizeof *failed, by_build);
    for (size_t k = 0; k < count; k++) {
        const size_t i = failed[k].place;
        const cli_build *build = &p->builds.items[failed[k].build];
        json_t *of = find_failure(list, build->entry, p->rows[i].reason);
        if (of == NULL) {
            of = json_pack("{s:o, s:I, s:i, s:i, s:[], s:o}", "mod", cli_json_text(build->name), "entry",
                           (json_int_t)build->entry, "code", (int)p->rows[i].reason, "kernels", 0, "archs",
                           "error", cli_json_text(p->rows[i].error));
            json_array_append_new(list, of);
        }
        json_integer_set(json_object_get(of, "kernels"),
                         json_integer_value(json_object_get(of, "kernels")) + 1);
        add_once(json_object_get(of, "archs"), arch_of(p, i));
    }
    free(failed);
    return list;
}

static void print_failures(const cli_prebuild *p) {
    json_t *list = failures(p), *of, *arch;
    size_t i, k;
    json_array_foreach(list, i, of) {
        printf("%s %s: %lld for",
               p->verify ? "missing:" : "failed:", json_string_value(json_object_get(of, "mod")),
               (long long)json_integer_value(json_object_get(of, "kernels")));
        json_array_foreach(json_object_get(of, "archs"), k, arch) {
            printf("%s%s", k > 0 ? "," : " ", json_string_value(arch));
        }
        printf(": %s\n", json_string_value(json_object_get(of, "error")));
    }
    json_decref(list);
}

int cli_prebuild_report(const cli_prebuild *p) {
    double passed = cli_prebuild_seconds() - p->started;
    size_t repeated = p->builds.repeated;
    if (!cli_report_is_json()) {
        printf("%zu kernels: %zu found, %zu compiled", p->done, p->counts[CLI_FOUND], p->counts[CLI_BUILT]);
        if (p->counts[CLI_FAILED] > 0)
            printf(", %zu %s", p->counts[CLI_FAILED], p->verify ? "missing" : "failed");
        if (p->done < p->wanted) printf(", %zu not reached", p->wanted - p->done);
        printf(", %.1f s\n", passed);
        print_failures(p);
        return CLI_EXIT_OK;
    }
    char shard[48];
    snprintf(shard, sizeof shard, "%lld/%lld", p->shard, p->shards);
    json_t *rows = json_array(), *error = cli_take_error();
    for (size_t i = 0; i < p->wanted; i++) json_array_append_new(rows, row_of(p, i));
    json_t *object =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "shard", shard, "kernels",
                  (json_int_t)p->wanted, "found", (json_int_t)p->counts[CLI_FOUND], "compiled",
                  (json_int_t)p->counts[CLI_BUILT], "failed", (json_int_t)p->counts[CLI_FAILED],
                  "not_reached", (json_int_t)(p->wanted - p->done), "repeated", (json_int_t)repeated,
                  "seconds", cli_json_number(passed), "failures", failures(p), "rows", rows);
    if (object != NULL && error != NULL)
        json_object_set_new(object, "error", error);
    else
        json_decref(error);
    return cli_print_json(object);
}
