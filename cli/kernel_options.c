/* --kernel and --option: parameters of kernels by value. Which values are legal is the library's to say. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/report.h"

/* As fj_option has them. words: those that may stand for the numbers from 0. */
static const struct {
    const char *name, *words[4];
} kernel_options[] = {
    {"tile_q", {NULL}},     {"tile_kv", {NULL}},     {"isa", {"portable", "avx2", "avx512", "avx512bf16"}},
    {"stages", {NULL}},     {"warps", {NULL}},       {"splits", {NULL}},
    {"pack", {NULL}},       {"direct", {NULL}},      {"wide", {NULL}},
    {"mod_chunks", {NULL}}, {"mask_unroll", {NULL}}, {"one_copy", {NULL}},
};
#define KNOWN_OPTIONS (sizeof kernel_options / sizeof kernel_options[0])
_Static_assert(KNOWN_OPTIONS <= CLI_KERNEL_OPTIONS, "each once");

static void list_names(char names[CLI_KERNEL_OPTION_NAMES]) {
    size_t at = 0;
    for (size_t i = 0; i < KNOWN_OPTIONS; i++)
        at += (size_t)snprintf(names + at, CLI_KERNEL_OPTION_NAMES - at, "%s%s", i > 0 ? ", " : "",
                               kernel_options[i].name);
}

static bool read_value(size_t known, const char *text, int64_t *ret_value) {
    for (int i = 0; i < 4; i++) {
        const char *word = kernel_options[known].words[i];
        if (word != NULL && strcmp(word, text) == 0) return *ret_value = i, true;
    }
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    const bool digits = text[0] != '\0' && text[strspn(text, "-0123456789")] == '\0';
    *ret_value = value;
    return digits && *end == '\0' && errno == 0;
}

bool cli_kernel_option_parse(const char *name, size_t length, const char *value, fj_option *ret_option,
                             char names[CLI_KERNEL_OPTION_NAMES]) {
    size_t known = 0;
    while (known < KNOWN_OPTIONS && (strlen(kernel_options[known].name) != length ||
                                     memcmp(kernel_options[known].name, name, length) != 0))
        known++;
    names[0] = '\0';
    if (known == KNOWN_OPTIONS) list_names(names);
    if (known == KNOWN_OPTIONS) return false;
    ret_option->name = kernel_options[known].name;
    return read_value(known, value, &ret_option->value);
}

static int read_kernel_option(const cli_args *args, const char *text, cli_call_options *options) {
    const size_t length = strcspn(text, "=");
    char names[CLI_KERNEL_OPTION_NAMES];
    fj_option option;
    if (text[length] == '\0' || length == 0)
        return cli_usage(args->verb, "option '--option' takes NAME=VALUE, not '%s'", text);
    const bool parsed = cli_kernel_option_parse(text, length, text + length + 1, &option, names);
    if (names[0] != '\0')
        return cli_usage(args->verb, "unknown kernel option '%.*s': there are %s", (int)length, text, names);
    if (!parsed)
        return cli_usage(args->verb, "kernel option '%s' takes %s, not '%s'", option.name,
                         strcmp(option.name, "isa") == 0 ? "portable, avx2, avx512 or avx512bf16"
                                                         : "an integer",
                         text + length + 1);
    for (size_t i = 0; i < options->kernel_option_count; i++)
        if (strcmp(options->kernel_options[i].name, option.name) == 0)
            return cli_usage(args->verb, "kernel option '%s' is given twice", option.name);
    options->kernel_options[options->kernel_option_count++] = option;
    return CLI_EXIT_OK;
}

int cli_read_kernel_options(const cli_args *args, cli_call_options *options) {
    static const char *const kernels[] = {"simt", "mma", "wgmma"};
    int kernel, status = cli_args_choice(args, CLI_OPT_KERNEL, -1, &kernel);
    const char *text;
    if (status == CLI_EXIT_OK && kernel >= 0) options->kernel = kernels[kernel];
    for (size_t i = 0; status == CLI_EXIT_OK && (text = cli_args_nth(args, CLI_OPT_OPTION, i)) != NULL; i++)
        status = read_kernel_option(args, text, options);
    if (status != CLI_EXIT_OK || !cli_args_has(args, CLI_OPT_VARIANT)) return status;
    if (options->kernel == NULL && options->kernel_option_count == 0) return status;
    return cli_usage(args->verb, "'--variant' names a kernel with its options: '%s' does not go with it",
                     options->kernel != NULL ? "--kernel" : "--option");
}
