/* One row of a sweep: the default, then the other candidates in batches, then those that might be faster against it.
 *
 * A batch is compiled by all processors, then measured while no compiler runs. Each result is in the log before the next
 * candidate is begun. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/tune.h"

enum { MOST_BATCH = 64, BATCHES_A_JOB = 2 };

/* A candidate may take some times as long as the default did, at least some seconds; the default itself as long as anybody
 * may want to wait. What is some times slower than the best is not sampled to the end. */
static const double least_seconds = 10, times_default = 10, most_begin = 600, give_up = 2.5;

double cli_seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* What goes through the functions of a row. */
typedef struct at_row {
    cli_sweep *sweep;
    const cli_tune_row *row;
    size_t problem;
    const char *standard;
    cli_space space;
    size_t tried, all, failed, measured; /* for progress; measured: by this call */
    double started, best_ms;
} at_row;

/* ---- Progress ---------------------------------------------------------------------------- */

static void show_progress(const at_row *r) {
    if (isatty(STDERR_FILENO) == 0) return;
    const double passed = cli_seconds() - r->started, left = r->sweep->until - cli_seconds();
    const double rate = passed > 0 ? (double)r->measured / passed : 0;
    const double rest = rate > 0 ? (double)(r->all - r->tried) / rate : 0;
    fprintf(stderr, "\r\033[Krow %zu of %zu: %zu of %zu variants, %.1f/s, %zu rejected", r->sweep->row + 1,
            r->sweep->tune->row_count, r->tried, r->all, rate, r->failed);
    if (!isnan(r->best_ms)) fprintf(stderr, ", best %.3f ms", r->best_ms);
    if (r->measured > 0) fprintf(stderr, ", about %.0f s to go", fmax(0, fmin(rest, left)));
}

static void end_progress(void) {
    if (isatty(STDERR_FILENO) != 0) fputs("\r\033[K", stderr);
}

/* ---- Asking the child -------------------------------------------------------------------- */

/* What a request came to: answered, or a rejection; else an exit status ends the row. */
typedef struct outcome {
    json_t *reply;
    const char *rejected;
    char text[CLI_WRONG_SIZE];
} outcome;

static int settle(cli_sweep *sweep, cli_answer answer, outcome *of) {
    const json_t *error = json_object_get(of->reply, "error"), *wrong = json_object_get(of->reply, "wrong");
    const char *text = json_string_value(json_object_get(error, "text"));
    switch (answer) {
    case CLI_ANSWER_TIMEOUT: of->rejected = "timeout"; return CLI_EXIT_OK;
    case CLI_ANSWER_CRASH:
        of->rejected = "crash";
        snprintf(of->text, sizeof of->text, "%s", sweep->child.end);
        return CLI_EXIT_OK;
    case CLI_ANSWER_INTERRUPTED: return CLI_EXIT_INTERRUPTED;
    case CLI_ANSWER_FAILED: return CLI_EXIT_FAILED;
    case CLI_ANSWERED: break;
    }
    if (error != NULL) {
        const json_int_t status = json_integer_value(json_object_get(error, "status"));
        if (status == CLI_EXIT_DEVICE || status == CLI_EXIT_USAGE)
            return cli_fail((int)status, "%s", text != NULL ? text : "the device failed");
        of->rejected = "launch";
        snprintf(of->text, sizeof of->text, "%.300s", text != NULL ? text : "");
    } else if (wrong != NULL) {
        of->rejected = "wrong";
        snprintf(of->text, sizeof of->text, "%.300s", json_string_value(wrong));
    }
    return CLI_EXIT_OK;
}

static int ask(cli_sweep *sweep, json_t *request, double seconds, outcome *ret_outcome) {
    *ret_outcome = (outcome){0};
    const cli_answer answer = cli_child_ask(&sweep->child, request, seconds, &ret_outcome->reply);
    return settle(sweep, answer, ret_outcome);
}

/* FLEXJIT_TUNE_TIMEOUT; 0: it is not set, or no number above 0, which is said once. */
static double wanted_seconds(cli_sweep *sweep) {
    const char *text = getenv("FLEXJIT_TUNE_TIMEOUT");
    char *end = NULL;
    if (text == NULL || *text == '\0') return 0;
    const double seconds = strtod(text, &end);
    if (*end == '\0' && seconds > 0 && seconds < HUGE_VAL) return seconds;
    if (!sweep->warned)
        cli_warn("FLEXJIT_TUNE_TIMEOUT is '%.60s', not a number of seconds above 0: it is not used", text);
    sweep->warned = true;
    return 0;
}

/* A child that has the row's tensors, the reference and the default. */
static int begin(at_row *r, outcome *ret_outcome) {
    cli_sweep *sweep = r->sweep;
    *ret_outcome = (outcome){0};
    if (cli_child_is_there(&sweep->child) && sweep->begun_row == sweep->row) return CLI_EXIT_OK;
    const double start = cli_seconds();
    const int status = ask(
        sweep,
        json_pack("{s:s, s:I, s:s}", "do", "begin", "row", (json_int_t)sweep->row, "variant", r->standard),
        most_begin, ret_outcome);
    if (status != CLI_EXIT_OK || ret_outcome->rejected != NULL) return status;
    sweep->begun_row = sweep->row;
    sweep->longest = fmax(least_seconds, times_default * (cli_seconds() - start));
    const double seconds = wanted_seconds(sweep);
    if (seconds > 0) sweep->longest = seconds;
    json_t *problem = json_array_get(sweep->log->problems, r->problem);
    static const char *const keys[] = {"flops", "bytes", "peak", "rate"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_object_get(problem, keys[i]) == NULL)
            json_object_set(problem, keys[i], json_object_get(ret_outcome->reply, keys[i]));
    return CLI_EXIT_OK;
}

/* ---- Measuring --------------------------------------------------------------------------- */

static int add(at_row *r, const cli_candidate *candidate, const fj_kernel_info *info, const outcome *of) {
    const json_t *ms = json_object_get(of->reply, "ms");
    const cli_tune_result result = {
        .candidate = candidate,
        .rejected = of->rejected,
        .text = of->text[0] != '\0' ? of->text : NULL,
        .compile_ms = info->compile_ms,
        .validation_ms = json_number_value(json_object_get(of->reply, "validation_ms")),
        .ms = json_number_value(ms),
        .runtimes = json_object_get(of->reply, "runtimes"),
    };
    r->tried++;
    r->measured++;
    r->failed += of->rejected != NULL;
    if (of->rejected == NULL && !(result.ms >= r->best_ms)) r->best_ms = result.ms;
    show_progress(r);
    const int status = cli_log_add(r->sweep->log, r->problem, &result);
    r->sweep->ended = status != CLI_EXIT_OK; /* a full disk is full for all rows */
    return status;
}

static int measure(at_row *r, const cli_candidate *candidate, const fj_kernel_info *info) {
    outcome of;
    int status = begin(r, &of);
    if (status == CLI_EXIT_OK && of.rejected != NULL) { /* the default, not the candidate */
        const bool is_default = strcmp(candidate->variant, r->standard) == 0;
        if (is_default) status = add(r, candidate, info, &of);
        if (status == CLI_EXIT_OK)
            status = cli_fail(CLI_EXIT_FAILED, "the default %.100s cannot be tuned: %s %s", r->standard,
                              of.rejected, of.text);
        json_decref(of.reply);
        return status;
    }
    json_decref(of.reply);
    if (status != CLI_EXIT_OK) return status;
    status = ask(r->sweep,
                 json_pack("{s:s, s:s, s:f}", "do", "try", "variant", candidate->variant, "give_up",
                           isnan(r->best_ms) ? 1e300 : r->best_ms * give_up),
                 r->sweep->longest, &of);
    if (status == CLI_EXIT_OK) status = add(r, candidate, info, &of);
    json_decref(of.reply);
    return status;
}

/* ---- Compiling --------------------------------------------------------------------------- */

typedef struct job {
    const cli_candidate *candidate;
    fj_plan *plan;
    fj_kernel_info info;
    fj_status result;
    fj_error error;
} job;

typedef struct batch {
    job jobs[MOST_BATCH];
    size_t count, next;
    pthread_mutex_t lock;
} batch;

static void *compile(void *argument) {
    batch *b = argument;
    for (;;) {
        pthread_mutex_lock(&b->lock);
        const size_t index = b->next < b->count && !cli_interrupted() ? b->next++ : b->count;
        pthread_mutex_unlock(&b->lock);
        if (index == b->count) return NULL;
        job *of = &b->jobs[index];
        of->result = fj_plan_build(of->plan, false, &of->info, &of->error);
    }
}

static void compile_all(const cli_tune *tune, batch *b) {
    pthread_t threads[MOST_BATCH];
    size_t started = 0;
    for (; started + 1 < (size_t)tune->jobs && started + 1 < b->count; started++)
        if (pthread_create(&threads[started], NULL, compile, b) != 0) break;
    (void)compile(b);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
}

/* A compiler that fails is the candidate's fault, a cache that cannot be written is not. */
static int finish_job(at_row *r, job *of) {
    const bool is_default = strcmp(of->candidate->variant, r->standard) == 0;
    outcome not_run = {0};
    if (of->result == FJ_OK && (of->info.spill_bytes == 0 || is_default))
        return measure(r, of->candidate, &of->info);
    r->sweep->ended = of->result == FJ_ERR_IO;
    if (of->result != FJ_OK && of->result != FJ_ERR_COMPILER) return cli_fail_library(of->result, &of->error);
    not_run.rejected = of->result == FJ_OK ? "spill" : "compile";
    snprintf(not_run.text, sizeof not_run.text, "%.300s", of->result == FJ_OK ? "" : of->error.text);
    return add(r, of->candidate, &of->info, &not_run);
}

static bool is_over(const at_row *r) { return cli_seconds() >= r->sweep->until; }

/* The first of a row is tried whatever the budget: without it there is nothing to compare with. */
static int run_batch(at_row *r, batch *b) {
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < b->count; i++)
        status = cli_tune_plan(r->sweep->tune, r->row, b->jobs[i].candidate->variant, &b->jobs[i].plan);
    if (status == CLI_EXIT_OK) compile_all(r->sweep->tune, b);
    for (size_t i = 0; status == CLI_EXIT_OK && i < b->count; i++) {
        if (cli_interrupted()) status = CLI_EXIT_INTERRUPTED;
        if (status == CLI_EXIT_OK && (r->tried == 0 || !is_over(r))) status = finish_job(r, &b->jobs[i]);
    }
    for (size_t i = 0; i < b->count; i++) {
        fj_plan_unref(&b->jobs[i].plan);
        fj_error_finish(&b->jobs[i].error);
    }
    return status;
}

/* What is not listed is not worth its time where its kind is slow; with --strategy all it is tried too. */
static bool is_hopeless(const at_row *r, const cli_candidate *candidate) {
    return r->sweep->tune->strategy == CLI_TUNE_RANDOM && !candidate->is_listed &&
           cli_rank_is_hopeless(r->sweep->log, r->problem, candidate, r->best_ms);
}

/* The default alone comes first, as it is what others are held against. */
static int try_all(at_row *r) {
    const size_t most = (size_t)r->sweep->tune->jobs * BATCHES_A_JOB;
    int status = CLI_EXIT_OK;
    for (size_t at = 0; status == CLI_EXIT_OK && at < r->space.count && (r->tried == 0 || !is_over(r));) {
        batch b = {.lock = PTHREAD_MUTEX_INITIALIZER};
        for (; at < r->space.count && b.count < most && b.count < MOST_BATCH; at++) {
            if (cli_log_find(r->sweep->log, r->problem, r->space.order[at].variant) != NULL) continue;
            if (is_hopeless(r, &r->space.order[at])) {
                r->all--;
                continue;
            }
            b.jobs[b.count++].candidate = &r->space.order[at];
            if (at == 0) {
                at++;
                break;
            }
        }
        if (b.count > 0) status = run_batch(r, &b);
    }
    return cli_interrupted() ? CLI_EXIT_INTERRUPTED : status;
}

/* ---- Finals ------------------------------------------------------------------------------ */

static int hold_duel(at_row *r, const char *variant) {
    outcome of;
    int status = begin(r, &of);
    json_decref(of.reply);
    if (status != CLI_EXIT_OK || of.rejected != NULL) return status;
    status = ask(r->sweep, json_pack("{s:s, s:s}", "do", "duel", "variant", variant), r->sweep->longest, &of);
    if (status == CLI_EXIT_OK) status = cli_log_add_duel(r->sweep->log, r->problem, variant, of.reply);
    json_decref(of.reply);
    return status;
}

static int hold_duels(at_row *r) {
    const char *finalists[CLI_FINALISTS];
    const size_t count = cli_rank_finalists(r->sweep->log, r->problem, finalists);
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < count; i++)
        if (cli_log_duel(r->sweep->log, r->problem, finalists[i]) == NULL)
            status = hold_duel(r, finalists[i]);
    return status;
}

/* ---- The row ----------------------------------------------------------------------------- */

/* What is known already, and the default to the front. */
static void survey(at_row *r) {
    for (size_t i = 1; i < r->space.count; i++) {
        if (strcmp(r->space.order[i].variant, r->standard) != 0) continue;
        const cli_candidate standard = r->space.order[i];
        memmove(&r->space.order[1], &r->space.order[0], i * sizeof standard);
        r->space.order[0] = standard;
    }
    r->all = r->space.count;
    for (size_t i = 0; i < r->space.count; i++) {
        const json_t *result = cli_log_find(r->sweep->log, r->problem, r->space.order[i].variant);
        if (result == NULL) continue;
        r->tried++;
        r->failed += json_object_get(result, "rejected") != NULL;
        r->best_ms = fmin(r->best_ms, cli_result_ms(result)); /* NAN is none */
    }
}

int cli_sweep_row(cli_sweep *sweep, size_t row, size_t problem, double until) {
    at_row r = {.sweep = sweep, .row = &sweep->tune->rows[row], .problem = problem, .best_ms = (double)NAN};
    sweep->row = row;
    sweep->until = until;
    r.started = cli_seconds();
    r.standard = json_string_value(json_object_get(json_array_get(sweep->log->problems, problem), "default"));
    int status = cli_space_open(sweep->tune, r.row, row, &r.space);
    if (status != CLI_EXIT_OK) return status;
    survey(&r);
    show_progress(&r);
    status = try_all(&r);
    if (status == CLI_EXIT_OK) status = hold_duels(&r);
    end_progress();
    cli_space_close(&r.space);
    return status;
}

void cli_sweep_close(cli_sweep *sweep) { cli_child_stop(&sweep->child); }
