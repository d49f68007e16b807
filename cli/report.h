/* What the tool says: errors, warnings, exit statuses, JSON. Data goes to standard output, everything else to standard
 * error; with --json an error is also an object on standard output. */
#ifndef FJ_CLI_REPORT_H
#define FJ_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "cli/options.h"
#include "flexjit/flexjit.h"

enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1, /* mod, tensors, files, compiler, disk, or a check that did not hold */
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_DEVICE = 3,
    CLI_EXIT_INTERRUPTED = 130
};

enum { CLI_JSON_SCHEMA = 1 };

#define CLI_PRINTF(text, first) __attribute__((format(printf, text, first)))

/* Before anything else. json: errors are to be objects on standard output too. */
void cli_report_begin(bool json);
/* Errors of tensors that come without a file name this one. The path stays the caller's. */
void cli_report_input(const char *path);
bool cli_report_is_json(void);

/* These print and remember an error, and are the exit status; the first error is the one that counts. Macros, so that
 * every reader of the code, tools too, sees that the status is not 0.
 *
 *   cli_fail(status, format, ...)              cli_fail_file(status, file, format, ...)
 *   cli_usage(verb, format, ...)  status 2     cli_usage_tool(format, ...)  status 2     cli_no_memory()  status 1 */
void cli_say_error(int status, const char *file, const char *format, ...) CLI_PRINTF(3, 4);
void cli_say_usage(const char *verb, const char *format, ...) CLI_PRINTF(2, 3);
#define cli_fail(status, ...) (cli_say_error((status), "", __VA_ARGS__), (status))
#define cli_fail_file(status, file, ...) (cli_say_error((status), (file), __VA_ARGS__), (status))
#define cli_usage(verb, ...) (cli_say_usage(cli_verbs[verb].name, __VA_ARGS__), CLI_EXIT_USAGE)
#define cli_usage_tool(...) (cli_say_usage("", __VA_ARGS__), CLI_EXIT_USAGE)
#define cli_no_memory() cli_fail(CLI_EXIT_FAILED, "not enough memory")
/* An error of the library, which is finished here; never 0. */
int cli_say_library_error(fj_status status, fj_error *error);
static inline int cli_fail_library(fj_status status, fj_error *error) {
    int exit_status = cli_say_library_error(status, error);
    return exit_status != CLI_EXIT_OK ? exit_status : CLI_EXIT_FAILED;
}

/* A warning, also kept for cli_take_warnings. */
void cli_warn(const char *format, ...) CLI_PRINTF(1, 2);
/* A line on standard error; JSON says the same under keys of its own. */
void cli_note(const char *format, ...) CLI_PRINTF(1, 2);
json_t *cli_take_warnings(void);

/* The error object for a report that also has results, or NULL. */
json_t *cli_take_error(void);

/* Prints an object with the schema number and a newline, and frees it. NULL is a lack of memory. */
int cli_print_json(json_t *object);
/* A number, or null where JSON has none: infinities and NaN. */
json_t *cli_json_number(double number);
/* A string; text that is not UTF-8, such as the name of a file, loses what is not ASCII. */
json_t *cli_json_text(const char *text);

/* The last words: prints the error that was not taken, checks that standard output was written. Returns the status. */
int cli_report_end(int status);

/* Escape codes when the stream is a terminal and NO_COLOR is not set, else "". */
const char *cli_style(FILE *stream, const char *code);
#define CLI_BOLD "\033[1m"
#define CLI_RED "\033[1;31m"
#define CLI_GREEN "\033[32m"
#define CLI_YELLOW "\033[1;33m"
#define CLI_PLAIN "\033[0m"

#endif
