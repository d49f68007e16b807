/* `flexjit doctor`: what was found on this machine. */
#include <stdio.h>
#include <string.h>

#include "cli/mod.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum { NAME_COLUMN = 25 };

static void print_scalar(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_STRING: fputs(json_string_value(value), stdout); break;
    case JSON_INTEGER: printf("%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: printf("%g", json_real_value(value)); break;
    case JSON_TRUE: fputs("yes", stdout); break;
    case JSON_FALSE: fputs("no", stdout); break;
    default: putchar('-');
    }
}

static bool is_flat(const json_t *array) {
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (json_is_object(item) || json_is_array(item)) return false;
    }
    return true;
}

/* One object on one line: its name or path first, as it is, the rest as key value. */
static void print_inline(json_t *object) {
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach(object, key, value) {
        if (json_is_object(value) || json_is_array(value)) continue;
        if (!first) fputs(", ", stdout);
        if (!first || !json_is_string(value)) printf("%s ", key);
        print_scalar(value);
        first = false;
    }
}

static void print_field(const char *name, json_t *value, int indent);

static void print_list(const char *name, json_t *array, int indent) {
    if (is_flat(array)) {
        printf("%*s%-*s", indent, "", NAME_COLUMN - indent, name);
        if (json_array_size(array) == 0) putchar('-');
        for (size_t i = 0; i < json_array_size(array); i++) {
            if (i > 0) putchar(' ');
            print_scalar(json_array_get(array, i));
        }
        putchar('\n');
        return;
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_t *item = json_array_get(array, i);
        printf("%*s%-*s", indent, "", NAME_COLUMN - indent, i == 0 ? name : "");
        if (json_is_object(item)) print_inline(item);
        putchar('\n');
    }
}

static void print_field(const char *name, json_t *value, int indent) {
    if (json_is_object(value)) {
        printf("%*s%s%s%s\n", indent, "", cli_style(stdout, CLI_BOLD), name, cli_style(stdout, CLI_PLAIN));
        const char *key;
        json_t *item;
        json_object_foreach(value, key, item) print_field(key, item, indent + 2);
    } else if (json_is_array(value)) {
        print_list(name, value, indent);
    } else {
        printf("%*s%-*s", indent, "", NAME_COLUMN - indent, name);
        print_scalar(value);
        putchar('\n');
    }
}

/* Status 1: something that was found does not work. */
static int print_findings(json_t *findings) {
    const bool works = json_is_true(json_object_get(findings, "works"));
    const int status = works ? CLI_EXIT_OK : CLI_EXIT_FAILED;
    if (cli_report_is_json()) {
        const int printed = cli_print_json(findings);
        return printed != CLI_EXIT_OK ? printed : status;
    }
    const char *key;
    json_t *value;
    json_object_foreach(findings, key, value) {
        if (strcmp(key, "schema") != 0) print_field(key, value, 0);
    }
    json_decref(findings);
    return status;
}

int cli_verb_doctor(const cli_args *args) {
    if (args->positional_count > 0) return cli_usage(args->verb, "'%s' is too much", args->positionals[0]);
    fj_context *context = NULL;
    int status = cli_context_open(&context);
    if (status != CLI_EXIT_OK) return status;
    fj_text text = {0};
    fj_error error = {0};
    fj_status result = fj_doctor(context, &text, &error);
    if (result == FJ_OK) {
        json_t *findings = json_loadb(text.data, text.length, 0, NULL);
        status = json_is_object(findings) ? print_findings(findings) : cli_no_memory();
        fj_text_finish(&text);
    } else {
        status = cli_fail_library(result, &error);
    }
    fj_context_unref(&context);
    return status;
}
