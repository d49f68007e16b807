/* `flexjit tune`: the verb, and what it prints. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/tune.h"
#include "cli/verbs.h"

static const double seconds_a_row = 60;

/* ---- What is printed --------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static json_t *side_json(const char *variant, double ms) {
    return variant == NULL ? json_null()
                           : json_pack("{s:s, s:o}", "variant", variant, "median_ms", cli_json_number(ms));
}

static json_t *row_json(const cli_log *log, size_t problem) {
    const json_t *object = json_array_get(log->problems, problem);
    const cli_ranking of = cli_rank(log, problem);
    json_t *rejected = json_object();
    for (size_t i = 0; i < CLI_REJECTIONS; i++)
        json_object_set_new(rejected, cli_rejections[i], json_integer((json_int_t)of.rejected[i]));
    return json_pack("{s:O?, s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:o}", "shape",
                     json_object_get(object, "shape"), "dtype", text_of(object, "dtype"), "direction",
                     text_of(object, "direction"), "default", side_json(of.standard, of.standard_ms), "best",
                     side_json(of.best, of.best_ms), "speedup", cli_json_number(of.speedup), "spread",
                     cli_json_number(of.spread), "tried", (json_int_t)of.tried, "rejected", rejected);
}

enum { NUMBER = 16 };

static const char *number_text(double number, char text[NUMBER]) {
    if (isfinite(number))
        snprintf(text, NUMBER, "%.3f", number);
    else
        snprintf(text, NUMBER, "-");
    return text;
}

static void print_row(const cli_log *log, size_t problem) {
    const json_t *object = json_array_get(log->problems, problem);
    const cli_ranking of = cli_rank(log, problem);
    char *shape = json_dumps(json_object_get(object, "shape"), JSON_COMPACT);
    size_t rejected = 0;
    for (size_t i = 0; i < CLI_REJECTIONS; i++) rejected += of.rejected[i];
    char standard[NUMBER], best[NUMBER], speedup[NUMBER], spread[NUMBER];
    printf("%-30.*s %-5s %-3s %10s %10s %8s %7s %6zu %8zu  %s\n", shape != NULL ? (int)strlen(shape) - 2 : 0,
           shape != NULL ? shape + 1 : "", text_of(object, "dtype"), text_of(object, "direction"),
           number_text(of.standard_ms, standard), number_text(of.best_ms, best),
           number_text(of.speedup, speedup), number_text(of.spread, spread), of.tried, rejected,
           of.best != NULL ? of.best : "-");
    free(shape);
}

static json_t *path_json(const char *path) { return path != NULL ? cli_json_text(path) : json_null(); }

/* problems: which of the log, NULL for all. */
static int print(const cli_log *log, const size_t *problems, size_t count, const char *output) {
    if (!cli_report_is_json()) {
        printf("%-30s %-5s %-3s %10s %10s %8s %7s %6s %8s  %s\n", "B,Hq,Hkv,L,S,E,Ev", "dtype", "dir",
               "default ms", "best ms", "speedup", "spread", "tried", "rejected", "best");
        for (size_t i = 0; i < count; i++) print_row(log, problems != NULL ? problems[i] : i);
        return CLI_EXIT_OK;
    }
    json_t *rows = json_array(), *warnings = cli_take_warnings(), *error = cli_take_error();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(rows, row_json(log, problems != NULL ? problems[i] : i));
    json_t *object =
        json_pack("{s:s, s:o, s:o, s:o}", "device", text_of(json_object_get(log->root, "flexjit"), "device"),
                  "rows", rows, "log", path_json(log->path), "output", path_json(output));
    if (warnings != NULL) json_object_set_new(object, "warnings", warnings);
    if (error != NULL) json_object_set_new(object, "error", error);
    return cli_print_json(object);
}

/* ---- The sweep --------------------------------------------------------------------------- */

typedef struct work {
    cli_tune tune;
    cli_log log;
    fj_plan **plans; /* of the defaults, by row */
    size_t *problems;
    bool are_found; /* all of these */
    double started;
} work;

/* The plan's own choice, compiled: where its kernel spills, another variant is what users get. */
static int find_problem(work *w, size_t row) {
    fj_kernel_info info = {0};
    fj_error error = {0};
    int status = cli_tune_check_options(&w->tune, &w->tune.rows[row]);
    if (status == CLI_EXIT_OK) status = cli_tune_plan(&w->tune, &w->tune.rows[row], NULL, &w->plans[row]);
    if (status != CLI_EXIT_OK) return status;
    const fj_status result = fj_plan_build(w->plans[row], false, &info, &error);
    if (result != FJ_OK && cli_interrupted()) { /* the compiler too */
        fj_error_finish(&error);
        return CLI_EXIT_INTERRUPTED;
    }
    if (result != FJ_OK) return cli_fail_library(result, &error);
    return cli_log_problem(&w->log, &w->tune.rows[row], w->plans[row], info.variant, &w->problems[row]);
}

/* All problems, before anything is measured: a log that has none of them is another one's. */
static int find_problems(work *w) {
    const size_t known = json_array_size(w->log.problems);
    bool found = known == 0;
    w->plans = calloc(w->tune.row_count + 1, sizeof(fj_plan *));
    w->problems = calloc(w->tune.row_count + 1, sizeof *w->problems);
    if (w->plans == NULL || w->problems == NULL) return cli_no_memory();
    for (size_t i = 0; i < w->tune.row_count; i++) {
        if (cli_interrupted()) return CLI_EXIT_INTERRUPTED;
        const int status = find_problem(w, i);
        if (status != CLI_EXIT_OK) return status;
        found = found || w->problems[i] < known;
    }
    if (found) return CLI_EXIT_OK;
    return cli_fail_file(CLI_EXIT_FAILED, w->log.path,
                         "this log is of another problem, mod or version of flexjit: give another --log");
}

/* Where records are added to when no file is given; the library makes it. NULL: nowhere. */
static char *default_output(void) {
    const char *list = getenv("FLEXJIT_TUNE_PATH"), *base = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int length = -1;
    if (list != NULL && list[0] != '\0' && list[strspn(list, ":")] == '\0') return NULL; /* folders: none */
    if (list != NULL && list[0] != '\0')
        length = asprintf(&path, "%.*s/tune.jsonl", (int)strcspn(list + strspn(list, ":"), ":"),
                          list + strspn(list, ":"));
    else if (base != NULL && base[0] == '/')
        length = asprintf(&path, "%s/flexjit/tune/tune.jsonl", base);
    else if (home != NULL && home[0] == '/')
        length = asprintf(&path, "%s/.local/share/flexjit/tune/tune.jsonl", home);
    return length < 0 ? NULL : path;
}

/* Of a default that was compared with nothing there is nothing to say. */
static int add_record(const work *w, size_t row, const char *file) {
    const cli_ranking of = cli_rank(&w->log, w->problems[row]);
    fj_plan *plan = NULL;
    fj_error error = {0};
    if (of.standard == NULL || of.tried < 2) return CLI_EXIT_OK;
    const int status = cli_tune_plan(&w->tune, &w->tune.rows[row], of.best, &plan);
    if (status != CLI_EXIT_OK) return status;
    const fj_tuning_result result = {.struct_size = sizeof result,
                                     .time_ms = of.best_ms,
                                     .default_variant = of.standard,
                                     .default_ms = of.standard_ms};
    const fj_status added = fj_tuning_add(plan, file, &result, &error);
    fj_plan_unref(&plan);
    return added == FJ_OK ? CLI_EXIT_OK : cli_fail_library(added, &error);
}

/* A row that fails leaves its word, and the others go on; what fails for all of them ends it. */
static int sweep_all(work *w) {
    cli_sweep sweep = {.tune = &w->tune, .log = &w->log, .child = {.args = w->tune.args, .channel = -1}};
    double budget = w->tune.budget;
    int first = CLI_EXIT_OK;
    if (isnan(budget) && w->tune.strategy == CLI_TUNE_RANDOM)
        budget = seconds_a_row * (double)w->tune.row_count;
    for (size_t i = 0; i < w->tune.row_count; i++) {
        const double now = cli_seconds(), left = fmax(0, w->started + budget - now);
        const double until = isnan(budget) ? HUGE_VAL : now + left / (double)(w->tune.row_count - i);
        int status = cli_sweep_row(&sweep, i, w->problems[i], until);
        if (status == CLI_EXIT_OK)
            status = add_record(w, i, cli_args_text(w->tune.args, CLI_OPT_TUNE_OUTPUT, NULL));
        if (first == CLI_EXIT_OK) first = status;
        if (status == CLI_EXIT_INTERRUPTED || status == CLI_EXIT_DEVICE || sweep.ended) break;
    }
    cli_sweep_close(&sweep);
    return first;
}

static int sweep(const cli_args *args, work *w) {
    w->started = cli_seconds();
    int status = cli_tune_open(args, &w->tune);
    if (status == CLI_EXIT_OK)
        status = cli_log_open(&w->tune, cli_args_text(args, CLI_OPT_TUNE_LOG, NULL), &w->log);
    if (status != CLI_EXIT_OK) return status;
    fj_error error = {0};
    const fj_status writable =
        fj_tuning_check(w->tune.context, cli_args_text(args, CLI_OPT_TUNE_OUTPUT, NULL), &error);
    if (writable != FJ_OK) return cli_fail_library(writable, &error);
    cli_interrupt_defer();
    status = find_problems(w);
    w->are_found = status == CLI_EXIT_OK;
    if (status == CLI_EXIT_OK) status = sweep_all(w);
    return status;
}

/* ---- The verb ---------------------------------------------------------------------------- */

static int check_options(const cli_args *args) {
    static const cli_option sweeping[] = {CLI_OPT_SHAPE,    CLI_OPT_MANIFEST,    CLI_OPT_FROM,
                                          CLI_OPT_TUNE_LOG, CLI_OPT_TUNE_OUTPUT, CLI_OPT_STRATEGY,
                                          CLI_OPT_BUDGET};
    if (!cli_args_has(args, CLI_OPT_REPLAY)) return CLI_EXIT_OK;
    for (size_t i = 0; i < sizeof sweeping / sizeof sweeping[0]; i++)
        if (cli_args_has(args, sweeping[i]))
            return cli_usage(args->verb, "--replay measures nothing: it does not go with --%s",
                             cli_options[sweeping[i]].long_name);
    if (cli_mod_given(args)) return cli_usage(args->verb, "--replay takes no mod: the log has the results");
    return CLI_EXIT_OK;
}

static bool is_same_file(const char *a, const char *b) {
    struct stat of_a, of_b;
    if (strcmp(a, b) == 0) return true;
    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && of_a.st_ino == of_b.st_ino &&
           of_a.st_dev == of_b.st_dev;
}

/* What is written last would replace what was measured. */
static int check_files(const cli_args *args) {
    static const cli_option files[] = {CLI_OPT_TUNE_LOG, CLI_OPT_REPLAY, CLI_OPT_TUNE_OUTPUT, CLI_OPT_REPORT};
    enum { FILES = sizeof files / sizeof files[0] };
    for (size_t i = 0; i < FILES; i++) {
        for (size_t j = i + 1; j < FILES; j++) {
            const char *a = cli_args_text(args, files[i], NULL), *b = cli_args_text(args, files[j], NULL);
            if (a != NULL && b != NULL && is_same_file(a, b))
                return cli_usage(args->verb, "--%s and --%s are the same file, '%.200s'",
                                 cli_options[files[i]].long_name, cli_options[files[j]].long_name, a);
        }
    }
    return CLI_EXIT_OK;
}

/* A path that is of no use is found before the work, not after it. */
static int check_folder(const char *path) {
    struct stat about;
    if (path == NULL) return CLI_EXIT_OK;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        return cli_fail_file(CLI_EXIT_FAILED, path, "it is a folder, not a file");
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path + 1));
    if (folder == NULL) return cli_no_memory();
    const bool writable = access(folder, W_OK | X_OK) == 0;
    free(folder);
    return writable ? CLI_EXIT_OK
                    : cli_fail_file(CLI_EXIT_FAILED, path, "its folder is missing or cannot be written");
}

int cli_verb_tune(const cli_args *args) {
    work w = {0};
    const char *page = cli_args_text(args, CLI_OPT_REPORT, NULL),
               *replay = cli_args_text(args, CLI_OPT_REPLAY, NULL);
    const char *output = cli_args_text(args, CLI_OPT_TUNE_OUTPUT, NULL);
    char *standard_output = output == NULL && replay == NULL ? default_output() : NULL;
    int status = check_options(args);
    if (status == CLI_EXIT_OK) status = check_files(args);
    if (status == CLI_EXIT_OK && output == NULL && replay == NULL && standard_output == NULL)
        status =
            cli_fail(CLI_EXIT_FAILED, "there is no folder for tuning records: set FLEXJIT_TUNE_PATH or HOME, "
                                      "or give --output");
    if (status == CLI_EXIT_OK) status = check_folder(page);
    if (status == CLI_EXIT_OK) status = check_folder(output);
    if (status == CLI_EXIT_OK) status = replay != NULL ? cli_log_read(replay, &w.log) : sweep(args, &w);
    if (w.log.root != NULL && (replay != NULL || w.are_found)) {
        const size_t count = replay != NULL ? json_array_size(w.log.problems) : w.tune.row_count;
        int more = page != NULL ? cli_tune_report(&w.log, page) : CLI_EXIT_OK;
        if (status == CLI_EXIT_OK) status = more;
        more = print(&w.log, w.problems, count, output != NULL ? output : standard_output);
        if (status == CLI_EXIT_OK) status = more;
    }
    for (size_t i = 0; w.plans != NULL && i < w.tune.row_count; i++) fj_plan_unref(&w.plans[i]);
    free(w.plans);
    free(w.problems);
    free(standard_output);
    cli_log_close(&w.log);
    cli_tune_close(&w.tune);
    return status;
}
