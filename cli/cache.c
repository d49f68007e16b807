/* `flexjit cache ACTION`: the kernel cache. The library reports in JSON; here it becomes text. */
#include "cli/cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/mod.h"
#include "cli/report.h"
#include "cli/verbs.h"

/* Bits count from the first of the verb's options. */
#define O(option) ((uint64_t)1 << (CLI_OPT_##option - CLI_OPT_FILTER))
_Static_assert(CLI_OPT_DRY_RUN > CLI_OPT_FILTER && CLI_OPT_DRY_RUN < CLI_OPT_FILTER + 64,
               "an option is a bit");

/* What an action needs; the report of the library goes to print, which takes it over. */
typedef struct request {
    fj_context *context;
    const char *const *names;
    fj_cache_filter filter;
    long long bytes, seconds; /* of gc; -1: not given */
    bool dry_run;
} request;

typedef struct action {
    const char *name;
    size_t arguments;
    const char *missing; /* what an argument is */
    uint64_t options;
    fj_status (*ask)(const request *r, fj_text *ret_json, fj_error *error);
    int (*print)(json_t *report);
} action;

static fj_status ask_list(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_list(r->context, &r->filter, ret_json, error);
}
static fj_status ask_show(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_show(r->context, r->names[0], &r->filter, ret_json, error);
}
static fj_status ask_explain(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_explain(r->context, r->names[0], r->names[1], ret_json, error);
}
static fj_status ask_verify(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_verify(r->context, ret_json, error);
}
static fj_status ask_gc(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_collect(r->context, r->bytes, r->seconds, r->dry_run, ret_json, error);
}
static fj_status ask_export(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_export(r->context, r->names[0], &r->filter, ret_json, error);
}
static fj_status ask_import(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_import(r->context, r->names[0], ret_json, error);
}
static fj_status ask_path(const request *r, fj_text *ret_json, fj_error *error) {
    return fj_cache_path(r->context, ret_json, error);
}

static const action actions[] = {
    {"list", 0, "", O(FILTER) | O(CACHE_ARCH), ask_list, cli_cache_print_list},
    {"show", 1, "KEY or VARIANT", O(CACHE_ARCH), ask_show, cli_cache_print_show},
    {"explain", 2, "KEY", 0, ask_explain, cli_cache_print_explain},
    {"verify", 0, "", 0, ask_verify, cli_cache_print_verify},
    {"gc", 0, "", O(SIZE) | O(AGE) | O(DRY_RUN), ask_gc, cli_cache_print_gc},
    {"export", 1, "FILE", O(FILTER) | O(CACHE_ARCH), ask_export, cli_cache_print_export},
    {"import", 1, "FILE", 0, ask_import, cli_cache_print_import},
    {"path", 0, "", 0, ask_path, cli_cache_print_path},
};

/* ---- Options ----------------------------------------------------------------------------- */

typedef struct unit {
    char letter;
    long long factor;
} unit;

/* A number and a unit: a size, an age. */
static int read_amount(const cli_args *args, cli_option option, const unit *units, const char *like,
                       long long *ret_amount) {
    const char *text = cli_args_text(args, option, NULL);
    if (text == NULL) return CLI_EXIT_OK;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10), factor = *end == '\0' ? 1 : 0;
    for (const unit *at = units; *end != '\0' && at->letter != '\0'; at++) {
        if (at->letter == *end && end[1] == '\0') factor = at->factor;
    }
    bool sound = text[0] >= '0' && text[0] <= '9' && errno == 0 && factor > 0 && number <= INT64_MAX / factor;
    if (!sound)
        return cli_usage(args->verb, "option '--%s' takes %s, not '%s'", cli_options[option].long_name, like,
                         text);
    *ret_amount = number * factor;
    return CLI_EXIT_OK;
}

static int read_options(const cli_args *args, const action *what, request *r) {
    static const unit sizes[] = {{'K', 1 << 10}, {'M', 1 << 20}, {'G', 1 << 30}, {0, 0}};
    static const unit ages[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {0, 0}};
    for (int option = 0; option < CLI_OPTION_COUNT; option++) {
        bool common = option == CLI_OPT_JSON || option == CLI_OPT_HELP;
        if (common || !cli_args_has(args, option)) continue;
        if ((what->options >> (option - CLI_OPT_FILTER) & 1) != 0) continue;
        return cli_usage(args->verb, "'flexjit cache %s' has no option '--%s'", what->name,
                         cli_options[option].long_name);
    }
    r->filter.variant = cli_args_text(args, CLI_OPT_FILTER, NULL);
    r->filter.arch = cli_args_text(args, CLI_OPT_CACHE_ARCH, NULL);
    r->dry_run = cli_args_has(args, CLI_OPT_DRY_RUN);
    int status = read_amount(args, CLI_OPT_SIZE, sizes, "a size such as 500M", &r->bytes);
    if (status == CLI_EXIT_OK)
        status = read_amount(args, CLI_OPT_AGE, ages, "an age such as 30d", &r->seconds);
    return status;
}

static int find_action(const cli_args *args, const action **ret_action) {
    const char *name = args->positional_count > 0 ? args->positionals[0] : "";
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        const action *at = &actions[i];
        if (strcmp(at->name, name) != 0) continue;
        size_t given = args->positional_count - 1;
        if (given < at->arguments) return cli_usage(args->verb, "%s is missing", at->missing);
        if (given > at->arguments)
            return cli_usage(args->verb, "'%s' is too much", args->positionals[1 + at->arguments]);
        *ret_action = at;
        return CLI_EXIT_OK;
    }
    if (name[0] == '\0')
        return cli_usage(args->verb, "an action is missing: %s", cli_verbs[args->verb].arguments);
    return cli_usage(args->verb, "unknown action '%s': it is one of %s", name,
                     cli_verbs[args->verb].arguments);
}

/* ---- The verb ---------------------------------------------------------------------------- */

/* A Ctrl-C waits until a file is whole, or gone. */
static int ask(const request *r, const action *what) {
    fj_text text = {0};
    fj_error error = {0};
    cli_interrupt_hold();
    fj_status result = what->ask(r, &text, &error);
    cli_interrupt_release();
    if (result != FJ_OK) return cli_fail_library(result, &error);
    json_t *report = json_loadb(text.data, text.length, 0, NULL);
    fj_text_finish(&text);
    if (!json_is_object(report)) {
        json_decref(report);
        return cli_no_memory();
    }
    return what->print(report);
}

int cli_verb_cache(const cli_args *args) {
    const action *what = NULL;
    request r = {.filter = {.struct_size = sizeof r.filter}, .bytes = -1, .seconds = -1};
    int status = find_action(args, &what);
    if (status == CLI_EXIT_OK) status = read_options(args, what, &r);
    if (status == CLI_EXIT_OK) status = cli_context_open(&r.context);
    if (status != CLI_EXIT_OK) return status;
    r.names = args->positionals + 1;
    status = ask(&r, what);
    fj_context_unref(&r.context);
    return status;
}
