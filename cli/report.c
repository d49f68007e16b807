/* Errors, warnings and JSON on their way out. */
#include "cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The one place with state: a process has one report. */
static struct {
    bool json;
    bool failed;
    const char *input; /* where tensors come from; NULL: from nowhere in particular */
    json_t *error;
    json_t *warnings;
} report;

void cli_report_begin(bool json) { report.json = json; }

void cli_report_input(const char *path) { report.input = path; }

bool cli_report_is_json(void) { return report.json; }

const char *cli_style(FILE *stream, const char *code) {
    const char *no_color = getenv("NO_COLOR");
    bool plain = (no_color != NULL && no_color[0] != '\0') || isatty(fileno(stream)) == 0;
    return plain ? "" : code;
}

/* ---- Errors ------------------------------------------------------------------------------ */

typedef struct place {
    const char *file; /* "": none */
    int line, column;
    const char *code, *note;
} place;

static void remember(int status, const place *at, const char *text) {
    if (report.failed) return;
    report.failed = true;
    if (!report.json) return;
    report.error = json_pack("{s:i, s:o, s:i, s:i, s:o}", "status", status, "file", cli_json_text(at->file),
                             "line", at->line, "column", at->column, "text", cli_json_text(text));
    if (at->code[0] != '\0') json_object_set_new(report.error, "code", json_string(at->code));
    if (at->note[0] != '\0') json_object_set_new(report.error, "note", cli_json_text(at->note));
}

/* Names of tensors come from files: what would steer a terminal is not for it. */
static void disarm(char *text) {
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
    }
}

static void print_error(const char *file, const char *text) {
    fprintf(stderr, "flexjit: %serror:%s %s%s%s\n", cli_style(stderr, CLI_RED), cli_style(stderr, CLI_PLAIN),
            file, file[0] != '\0' ? ": " : "", text);
}

CLI_PRINTF(3, 0)
static void say(int status, const char *file, const char *format, va_list arguments) {
    char text[1024];
    vsnprintf(text, sizeof text, format, arguments);
    disarm(text);
    fflush(stdout);
    print_error(file, text);
    remember(status, &(place){.file = file, .code = "", .note = ""}, text);
}

void cli_say_error(int status, const char *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(status, file, format, arguments);
    va_end(arguments);
}

void cli_say_usage(const char *verb, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(CLI_EXIT_USAGE, "", format, arguments);
    va_end(arguments);
    fprintf(stderr, "Try 'flexjit %s%s--help'.\n", verb, verb[0] != '\0' ? " " : "");
}

/* ---- The library's errors ---------------------------------------------------------------- */

static const struct {
    fj_status status;
    int exit_status;
    const char *code;
} failures[] = {
    {FJ_ERR_MEMORY, CLI_EXIT_FAILED, "memory"},
    {FJ_ERR_ARGUMENT, CLI_EXIT_FAILED, "argument"},
    {FJ_ERR_MOD, CLI_EXIT_FAILED, "mod"},
    {FJ_ERR_NAME, CLI_EXIT_USAGE, "name"},
    {FJ_ERR_TENSOR, CLI_EXIT_FAILED, "tensor"},
    {FJ_ERR_INDEX, CLI_EXIT_FAILED, "index"},
    {FJ_ERR_UNSUPPORTED, CLI_EXIT_FAILED, "unsupported"},
    {FJ_ERR_DEVICE, CLI_EXIT_DEVICE, "device"},
    {FJ_ERR_COMPILER, CLI_EXIT_FAILED, "compiler"},
    {FJ_ERR_IO, CLI_EXIT_FAILED, "io"},
    {FJ_ERR_NO_JIT, CLI_EXIT_FAILED, "no_jit"},
};
_Static_assert(sizeof failures / sizeof failures[0] == -FJ_ERR_NO_JIT, "every status has its exit status");

/* The library's own rendering has file, caret and note; a place is what makes it worth more than the text. */
static void print_library_error(const fj_error *error) {
    size_t length = fj_error_format(error, NULL, 0);
    char *text = malloc(length + 1);
    if (text != NULL) {
        fj_error_format(error, text, length + 1);
        if (error->line > 0) {
            fprintf(stderr, "%s%s", text, length > 0 && text[length - 1] == '\n' ? "" : "\n");
        } else {
            print_error(error->file, error->text);
            if (error->note[0] != '\0') fprintf(stderr, "  note: %s\n", error->note);
        }
    }
    free(text);
    if (error->detail != NULL && error->detail[0] != '\0') {
        size_t size = strlen(error->detail);
        fprintf(stderr, "%s%s", error->detail, error->detail[size - 1] == '\n' ? "" : "\n");
    }
}

int cli_say_library_error(fj_status status, fj_error *error) {
    const char *code = "";
    int exit_status = CLI_EXIT_FAILED;
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        if (failures[i].status != status) continue;
        exit_status = failures[i].exit_status;
        code = failures[i].code;
    }
    if (error->text[0] == '\0') {
        snprintf(error->text, sizeof error->text, "%s",
                 status == FJ_ERR_MEMORY ? "not enough memory" : "the library failed without a word");
    }
    const bool of_tensors = status == FJ_ERR_TENSOR && report.input != NULL && error->file[0] == '\0';
    if (of_tensors) snprintf(error->file, sizeof error->file, "%s", report.input);
    fflush(stdout);
    print_library_error(error);
    place at = {error->file, error->line, error->column, code, error->note};
    remember(exit_status, &at, error->text);
    if (report.error != NULL && error->detail != NULL) {
        json_object_set_new(report.error, "detail", cli_json_text(error->detail));
    }
    fj_error_finish(error);
    return exit_status;
}

/* ---- Warnings ---------------------------------------------------------------------------- */

void cli_note(const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    disarm(text);
    fprintf(stderr, "flexjit: note: %s\n", text);
}

void cli_warn(const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    disarm(text);
    fprintf(stderr, "flexjit: %swarning:%s %s\n", cli_style(stderr, CLI_YELLOW), cli_style(stderr, CLI_PLAIN),
            text);
    if (!report.json) return;
    if (report.warnings == NULL) report.warnings = json_array();
    json_array_append_new(report.warnings, cli_json_text(text));
}

json_t *cli_take_warnings(void) {
    json_t *warnings = report.warnings;
    report.warnings = NULL;
    return warnings;
}

json_t *cli_take_error(void) {
    json_t *error = report.error;
    report.error = NULL;
    return error;
}

/* ---- JSON -------------------------------------------------------------------------------- */

json_t *cli_json_text(const char *text) {
    json_t *string = json_string(text);
    if (string != NULL) return string;
    char *copy = strdup(text);
    if (copy == NULL) return NULL;
    for (char *at = copy; *at != '\0'; at++) {
        if ((unsigned char)*at >= 0x80) *at = '?';
    }
    string = json_string(copy);
    free(copy);
    return string;
}

json_t *cli_json_number(double number) { return isfinite(number) ? json_real(number) : json_null(); }

int cli_print_json(json_t *object) {
    json_t *whole = json_pack("{s:i}", "schema", CLI_JSON_SCHEMA);
    char *text = NULL;
    if (object != NULL && whole != NULL && json_object_update_missing(whole, object) == 0) {
        text = json_dumps(whole, JSON_COMPACT | JSON_REAL_PRECISION(12));
    }
    json_decref(whole);
    json_decref(object);
    if (text == NULL) return cli_no_memory();
    puts(text);
    fflush(stdout); /* who reads lines sees each when it is there */
    free(text);
    return CLI_EXIT_OK;
}

int cli_report_end(int status) {
    json_t *error = cli_take_error();
    if (error != NULL) cli_print_json(json_pack("{s:o}", "error", error));
    json_decref(cli_take_warnings());
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        fprintf(stderr, "flexjit: cannot write to standard output: %s\n", strerror(errno));
        if (status == CLI_EXIT_OK) status = CLI_EXIT_FAILED;
    }
    return status;
}
