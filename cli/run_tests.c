/* `flexjit run-tests`: tests of the language, each an expression, its bindings and the value expected. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/file.h"
#include "cli/interrupt.h"
#include "cli/mod.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum { GROUP_LINES = 3, MOST_TEXT = 1 << 28 };

typedef struct tests {
    fj_context *context;
    const char *path;
    size_t passed, failed;
    json_t *failures; /* NULL without --json */
} tests;

/* ---- Expectations ------------------------------------------------------------------------ */

/* Floats agree to 12 digits, as the functions of two C libraries do; an int is not a float; bools are as in Python too. */
static bool same_word(const char *a, size_t a_size, const char *b, size_t b_size) {
    if (a_size == b_size && memcmp(a, b, a_size) == 0) return true;
    if (a_size == 4 && strncmp(a, "true", 4) == 0) return b_size == 4 && strncmp(b, "True", 4) == 0;
    if (a_size == 5 && strncmp(a, "false", 5) == 0) return b_size == 5 && strncmp(b, "False", 5) == 0;
    char *a_end, *b_end;
    const double x = strtod(a, &a_end), y = strtod(b, &b_end);
    const bool numbers = a_end == a + a_size && b_end == b + b_size,
               a_is_int = strspn(a, "+-0123456789") >= a_size, b_is_int = strspn(b, "+-0123456789") >= b_size;
    if (!numbers || a_is_int || b_is_int) return false;
    return x == y || (isfinite(x) && isfinite(y) && fabs(x - y) <= 1e-12 * fabs(y));
}

/* Whether a value is the one expected, except for blanks and for how its words are spelled. */
static bool same_value(const char *a, const char *b) {
    for (;;) {
        a += strspn(a, " \t");
        b += strspn(b, " \t");
        if (*a == '\0' || *b == '\0') return *a == *b;
        size_t a_size = strcspn(a, " \t,[]()"), b_size = strcspn(b, " \t,[]()");
        if (a_size == 0 || b_size == 0) {
            if (*a++ != *b++) return false;
            continue;
        }
        if (!same_word(a, a_size, b, b_size)) return false;
        a += a_size;
        b += b_size;
    }
}

static void fail(tests *run, size_t line, const char *expression, const char *expected, const char *got) {
    run->failed++;
    if (run->failures == NULL) {
        printf("%s:%zu: %s\n    expected %s\n    got      %s\n", run->path, line, expression, expected, got);
        return;
    }
    json_array_append_new(run->failures,
                          json_pack("{s:o, s:I, s:o, s:o, s:o}", "file", cli_json_text(run->path), "line",
                                    (json_int_t)line, "expression", cli_json_text(expression), "expected",
                                    cli_json_text(expected), "got", cli_json_text(got)));
}

static void run_one(tests *run, size_t line, const char *expression, const char *bindings,
                    const char *expected) {
    static const char error_word[] = "error:";
    bool wants_error = strncmp(expected, error_word, sizeof error_word - 1) == 0;
    const char *wanted = wants_error ? expected + sizeof error_word - 1 : expected;
    wanted += strspn(wanted, " \t");
    fj_text text = {0};
    fj_error error = {0};
    fj_status result = fj_evaluate(run->context, expression, bindings, &text, &error);
    bool ok;
    char got[1100];
    if (result == FJ_OK) {
        ok = !wants_error && same_value(text.data, wanted);
        snprintf(got, sizeof got, "%s", text.data);
    } else {
        ok = wants_error && (strstr(error.text, wanted) != NULL || strstr(error.note, wanted) != NULL);
        snprintf(got, sizeof got, "error: %s%s%s", error.text, error.note[0] != '\0' ? "; " : "", error.note);
    }
    if (ok) {
        run->passed++;
    } else {
        fail(run, line, expression, expected, got);
    }
    fj_text_finish(&text);
    fj_error_finish(&error);
}

/* ---- Files ------------------------------------------------------------------------------- */

static char *trim(char *line) {
    line += strspn(line, " \t\r");
    size_t length = strlen(line);
    while (length > 0 && strchr(" \t\r\n", line[length - 1]) != NULL) line[--length] = '\0';
    return line;
}

/* A group is over. Two lines are a test without bindings. */
static void run_group(tests *run, char *lines[GROUP_LINES], size_t count, size_t line) {
    if (count == 0) return;
    if (count < 2 || count > GROUP_LINES) {
        fail(run, line, lines[0], "an expression, bindings, a value",
             count < 2 ? "one line" : "more than 3 lines");
        return;
    }
    const char *bindings = count == GROUP_LINES && strcmp(lines[1], "-") != 0 ? lines[1] : "";
    run_one(run, line, lines[0], bindings, lines[count - 1]);
}

static void run_lines(tests *run, char *text, size_t size) {
    char *lines[GROUP_LINES];
    size_t count = 0, first = 0, number = 0;
    for (char *at = text, *next; at < text + size && !cli_interrupted(); at = next) {
        size_t length = strcspn(at, "\n");
        next = at + length + 1;
        at[length] = '\0';
        number++;
        char *line = trim(at);
        if (line[0] == '#') continue;
        if (line[0] == '\0') {
            run_group(run, lines, count, first);
            count = 0;
            continue;
        }
        if (count == 0) first = number;
        if (count < GROUP_LINES) lines[count] = line;
        count++;
    }
    run_group(run, lines, count, first);
}

static int run_file(tests *run, const char *path) {
    char *text = NULL;
    size_t size = 0;
    int status = cli_read_file(path, MOST_TEXT, &text, &size);
    run->path = path;
    const size_t mark = size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; /* of UTF-8 */
    if (status == CLI_EXIT_OK) run_lines(run, text + mark, size - mark);
    free(text);
    return status;
}

static int summarise(tests *run) {
    if (run->failures == NULL) {
        printf("%zu passed, %zu failed\n", run->passed, run->failed);
    } else {
        json_t *report = json_pack("{s:I, s:I, s:O}", "passed", (json_int_t)run->passed, "failed",
                                   (json_int_t)run->failed, "failures", run->failures);
        int status = cli_print_json(report);
        if (status != CLI_EXIT_OK) return status;
    }
    if (cli_interrupted()) return CLI_EXIT_INTERRUPTED;
    return run->failed > 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

int cli_verb_run_tests(const cli_args *args) {
    if (args->positional_count == 0) return cli_usage(args->verb, "FILE.test is missing");
    tests run = {0};
    int status = cli_context_open(&run.context);
    if (status != CLI_EXIT_OK) return status;
    run.failures = cli_report_is_json() ? json_array() : NULL;
    cli_interrupt_defer();
    for (size_t i = 0; status == CLI_EXIT_OK && i < args->positional_count; i++) {
        status = run_file(&run, args->positionals[i]);
    }
    if (status == CLI_EXIT_OK) status = summarise(&run);
    json_decref(run.failures);
    fj_context_unref(&run.context);
    return status;
}
