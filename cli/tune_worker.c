/* The child of `flexjit tune`: it alone loads, checks and times candidates, and may crash or be killed over one of them.
 *
 * It is the tool itself with the same command line, so that it makes the same rows. Requests come in and answers go out on
 * standard input, a socket; standard output leads nowhere, so that nothing that a library prints is taken for an answer. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/fill.h"
#include "cli/report.h"
#include "cli/tune.h"
#include "cli/verbs.h"

enum { CHANNEL = STDIN_FILENO, LONGEST_REQUEST = 4096 };

/* Times below these parts of what memory and arithmetic allow, and of the default's, are looked at again. */
static const double far_below_roof = 0.8, far_below_default = 0.4;

typedef struct worker {
    cli_tune tune;
    cli_flush flush;
    bool is_begun;
    cli_stage small, whole;
    cli_trial standard; /* the default on the whole shape */
    double standard_ms, flops, bytes, peak;
} worker;

static void end_row(worker *w) {
    cli_trial_close(&w->standard);
    cli_stage_close(&w->small);
    cli_stage_close(&w->whole);
    w->is_begun = false;
}

/* ---- Answers ----------------------------------------------------------------------------- */

static bool send_all(const char *text, size_t size) {
    while (size > 0) {
        const ssize_t sent = send(CHANNEL, text, size, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        text += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* On a line of its own, whatever a candidate has written. */
static bool answer(json_t *object, json_int_t number) {
    if (object != NULL) json_object_set_new(object, "number", json_integer(number));
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    const bool sent = text != NULL && send_all("\n", 1) && send_all(text, strlen(text)) && send_all("\n", 1);
    free(text);
    return sent;
}

/* After an error the child is done: the parent starts another one. */
static json_t *error_of(int status) {
    json_t *error = cli_take_error();
    if (error == NULL) error = json_pack("{s:i, s:s}", "status", status, "text", "a launch failed");
    return json_pack("{s:o}", "error", error);
}

/* To the nanosecond: as the log prints them, so that one that is read again is the same. */
static double rounded(double ms) { return round(ms * 1e6) / 1e6; }

static json_t *samples_json(const cli_samples *samples) {
    json_t *list = json_array();
    for (size_t i = 0; i < samples->count; i++)
        json_array_append_new(list, json_real(rounded(samples->ms[i])));
    return list;
}

/* ---- begin ------------------------------------------------------------------------------- */

/* On the small shape, by the reference. */
static int check_small(worker *w, const char *variant, char wrong[CLI_WRONG_SIZE]) {
    cli_trial trial = {0};
    int status = cli_trial_open(&w->small, variant, &trial);
    if (status == CLI_EXIT_OK) status = cli_trial_check(&w->small, &trial, wrong);
    cli_trial_close(&trial);
    return status;
}

static int measure_peak(worker *w, const cli_tune_row *row) {
    fj_error error = {0};
    if (fj_device_peak(w->tune.device, row->options.dtype, row->options.workers, &w->peak, &error) != FJ_OK) {
        fj_error_finish(&error); /* a device without one */
        w->peak = 0;
    }
    if (w->flush.device != NULL) return CLI_EXIT_OK;
    return cli_flush_open(w->tune.device, &w->flush);
}

static int begin(worker *w, const json_t *request, json_t **ret_reply) {
    const size_t index = (size_t)json_integer_value(json_object_get(request, "row"));
    const char *variant = json_string_value(json_object_get(request, "variant"));
    char wrong[CLI_WRONG_SIZE] = "";
    end_row(w);
    if (index >= w->tune.row_count) return cli_fail(CLI_EXIT_FAILED, "row %zu does not exist", index);
    const cli_tune_row *row = &w->tune.rows[index];
    int status = cli_stage_open(&w->tune, row, true, &w->small);
    if (status == CLI_EXIT_OK) status = check_small(w, variant, wrong);
    if (status == CLI_EXIT_OK) status = cli_stage_open(&w->tune, row, false, &w->whole);
    if (status == CLI_EXIT_OK) status = cli_stage_learn(&w->whole, &w->small);
    if (status == CLI_EXIT_OK) status = cli_trial_open(&w->whole, variant, &w->standard);
    if (status == CLI_EXIT_OK && wrong[0] == '\0') status = cli_trial_check(&w->whole, &w->standard, wrong);
    if (status == CLI_EXIT_OK) status = cli_stage_expect(&w->whole);
    if (status == CLI_EXIT_OK) status = measure_peak(w, row);
    if (status == CLI_EXIT_OK) status = cli_kernel_launch(&w->standard.kernel, &w->standard_ms);
    if (status != CLI_EXIT_OK) return status;
    const cli_kernel *kernel = &w->standard.kernel;
    w->is_begun = true;
    w->flops = cli_flops(&row->options.shape, row->direction, &kernel->blocks);
    w->bytes = cli_launch_bytes(&w->whole.run.inputs, &w->whole.run.outputs, row->direction);
    *ret_reply = wrong[0] != '\0' ? json_pack("{s:s}", "wrong", wrong)
                                  : json_pack("{s:f, s:f, s:f, s:f}", "flops", w->flops, "bytes", w->bytes,
                                              "peak", w->peak, "rate", w->flush.bytes_per_ms * 1e3);
    return CLI_EXIT_OK;
}

/* ---- try, duel --------------------------------------------------------------------------- */

/* What arithmetic and memory need at least. A fill writes; reading may be faster. */
static double roof_ms(const worker *w) {
    const double arithmetic = w->peak > 0 ? w->flops / w->peak * 1e3 : 0;
    const double memory = w->flush.bytes_per_ms > 0 ? w->bytes / (4 * w->flush.bytes_per_ms) : 0;
    return fmax(arithmetic, memory);
}

static bool is_suspicious(const worker *w, double ms) {
    return ms < far_below_roof * roof_ms(w) || ms < far_below_default * w->standard_ms;
}

/* Checked before its time is taken and after it; twice as long where the time is hard to believe. */
static int measure(worker *w, cli_trial *trial, double give_up, char wrong[CLI_WRONG_SIZE],
                   cli_samples *samples, bool *ret_confirmed) {
    int status = cli_trial_check(&w->whole, trial, wrong);
    for (int round = 0; status == CLI_EXIT_OK && wrong[0] == '\0' && round < 2; round++) {
        status = cli_time_kernel(&trial->kernel, &w->flush, give_up, samples);
        if (status == CLI_EXIT_OK) status = cli_trial_check(&w->whole, trial, wrong);
        if (status != CLI_EXIT_OK || !is_suspicious(w, cli_median(samples->ms, samples->count))) break;
        *ret_confirmed = round > 0;
    }
    return status;
}

static int try_variant(worker *w, const char *variant, double give_up, json_t **ret_reply) {
    char wrong[CLI_WRONG_SIZE] = "";
    cli_samples samples = {0};
    bool confirmed = false;
    const double start = cli_seconds();
    int status = check_small(w, variant, wrong);
    const double validated = cli_seconds();
    cli_trial trial = {0};
    if (status == CLI_EXIT_OK && wrong[0] == '\0') {
        status = cli_trial_open(&w->whole, variant, &trial);
        if (status == CLI_EXIT_OK) status = measure(w, &trial, give_up, wrong, &samples, &confirmed);
        cli_trial_close(&trial);
    }
    if (status != CLI_EXIT_OK) return status;
    *ret_reply = wrong[0] != '\0'
                   ? json_pack("{s:s}", "wrong", wrong)
                   : json_pack("{s:f, s:o, s:f, s:b}", "ms", rounded(cli_median(samples.ms, samples.count)),
                               "runtimes", samples_json(&samples), "validation_ms", (validated - start) * 1e3,
                               "confirmed", confirmed);
    return CLI_EXIT_OK;
}

static int duel(worker *w, const char *variant, json_t **ret_reply) {
    cli_trial trial = {0};
    cli_samples standard = {0}, other = {0};
    int status = cli_trial_open(&w->whole, variant, &trial);
    if (status == CLI_EXIT_OK)
        status = cli_time_duel(&w->standard.kernel, &trial.kernel, &w->flush, &standard, &other);
    cli_trial_close(&trial);
    if (status == CLI_EXIT_OK)
        *ret_reply =
            json_pack("{s:o, s:o}", "default", samples_json(&standard), "variant", samples_json(&other));
    return status;
}

/* ---- The loop ---------------------------------------------------------------------------- */

static int serve(worker *w, const json_t *request, json_t **ret_reply) {
    const char *what = json_string_value(json_object_get(request, "do"));
    const char *variant = json_string_value(json_object_get(request, "variant"));
    const json_t *give_up = json_object_get(request, "give_up");
    if (what == NULL || variant == NULL) return cli_fail(CLI_EXIT_FAILED, "a request without a variant");
    if (strcmp(what, "begin") == 0) return begin(w, request, ret_reply);
    if (!w->is_begun) return cli_fail(CLI_EXIT_FAILED, "no row is begun");
    if (strcmp(what, "duel") == 0) return duel(w, variant, ret_reply);
    return try_variant(w, variant, json_is_number(give_up) ? json_number_value(give_up) : HUGE_VAL,
                       ret_reply);
}

/* One line; false at the end of the stream. */
static bool read_request(FILE *stream, json_t **ret_request, json_int_t *ret_number) {
    char line[LONGEST_REQUEST];
    if (fgets(line, sizeof line, stream) == NULL) return false;
    *ret_request = json_loads(line, 0, NULL);
    *ret_number = json_integer_value(json_object_get(*ret_request, "number"));
    return *ret_request != NULL;
}

int cli_tune_worker(const cli_args *args) {
    worker w = {0};
    json_t *request = NULL;
    json_int_t number = 0;
    cli_report_begin(true);
    FILE *stream = fdopen(dup(CHANNEL), "r");
    int status = stream == NULL ? cli_no_memory() : cli_tune_open(args, &w.tune);
    while (status == CLI_EXIT_OK && read_request(stream, &request, &number)) {
        json_t *reply = NULL;
        status = serve(&w, request, &reply);
        json_decref(request);
        if (status == CLI_EXIT_OK && !answer(reply, number)) break;
    }
    if (status != CLI_EXIT_OK && number == 0 && stream != NULL && read_request(stream, &request, &number))
        json_decref(request); /* the start failed: that is the answer */
    if (status != CLI_EXIT_OK) answer(error_of(status), number);
    end_row(&w);
    cli_flush_close(&w.flush);
    cli_tune_close(&w.tune);
    if (stream != NULL) fclose(stream);
    return status;
}
