/* --help and the man page, made from the table. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "cli/verbs.h"

enum { WIDTH = 100, OPTION_COLUMN = 34 };

static const struct {
    const char *name, *text;
} environment[] = {
    {"FLEXJIT_CACHE_PATH", "colon list of kernel caches; the first is written"},
    {"FLEXJIT_CACHE_SIZE", "bytes that the first may have, with K, M or G; default 2G"},
    {"FLEXJIT_NO_JIT", "1: a kernel that is in no cache is an error"},
    {"FLEXJIT_CC", "C compiler of the cpu device; else cc, gcc, clang"},
    {"FLEXJIT_CXX", "C++ compiler of the emu device; else c++, g++, clang++"},
    {"FLEXJIT_EMU_MMA",
     "how the emu device rounds matrix products: nearest (the default), or truncate, as GPUs do"},
    {"FLEXJIT_NVRTC", "the NVRTC library, or its folder; else it is looked for"},
    {"FLEXJIT_LIBCUDA", "the NVIDIA driver's library; else libcuda.so.1"},
    {"FLEXJIT_TEMPLATE_PATH", "folder with kernel templates, in place of those built in"},
    {"FLEXJIT_CAPTURE", "a pattern of variants: calls of those are kept, as by `run --capture`"},
    {"FLEXJIT_CAPTURE_DIR", "the folder that they are kept in; default the current one"},
    {"FLEXJIT_TUNE_PATH", "colon list of folders with records of tuning; the first is written"},
    {"FLEXJIT_TUNE_TIMEOUT", "seconds that `tune` gives a variant; else ten times what the default takes"},
    {"FLEXJIT_LOG", "debug, info, warn (the default) or error"},
    {"OMP_NUM_THREADS", "worker threads"},
    {"NO_COLOR", "no colours, also on a terminal"},
};

static const struct {
    int status;
    const char *text;
} statuses[] = {
    {CLI_EXIT_OK, "success"},
    {CLI_EXIT_FAILED,
     "the mod, tensors or files are wrong or missing, a compiler failed, a disk is full, or a check did "
     "not hold"},
    {CLI_EXIT_USAGE, "usage: unknown verb, option, device or name"},
    {CLI_EXIT_DEVICE, "the device or toolchain asked for is not there"},
    {CLI_EXIT_INTERRUPTED, "interrupted; what was finished is saved"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- --help ------------------------------------------------------------------------------ */

/* Prints text, which begins at column `at`, with lines broken at blanks and continued at column `indent`. */
static void print_wrapped(const char *text, int at, int indent) {
    while (*text != '\0') {
        int length = (int)strcspn(text, " \n");
        if (at > indent && at + length > WIDTH) {
            printf("\n%*s", indent, "");
            at = indent;
        }
        printf("%.*s", length, text);
        at += length;
        text += length;
        for (; *text == '\n'; text++) {
            printf("\n%*s", text[1] == '\n' ? 0 : indent, "");
            at = indent;
        }
        if (*text == ' ') {
            if (at + 1 + (int)strcspn(text + 1, " \n") <= WIDTH) {
                putchar(' ');
                at++;
            } else {
                printf("\n%*s", indent, "");
                at = indent;
            }
            text++;
        }
    }
    putchar('\n');
}

static void print_row(const char *name, const char *text, int column) {
    int at = printf("  %s", name);
    if (at + 2 > column) {
        putchar('\n');
        at = 0;
    }
    printf("%*s", column - at, "");
    print_wrapped(text, column, column);
}

static void print_option(cli_option option) {
    const cli_option_info *info = &cli_options[option];
    char name[64], help[512];
    int at = 0;
    if (info->short_name != 0) at = snprintf(name, sizeof name, "-%c, ", info->short_name);
    at += snprintf(name + at, sizeof name - (size_t)at, "--%s", info->long_name);
    if (info->metavar != NULL) snprintf(name + at, sizeof name - (size_t)at, " %s", info->metavar);
    snprintf(help, sizeof help, "%s%s%s%s%s", info->help, info->choices != NULL ? " (" : "",
             info->choices != NULL ? info->choices : "", info->choices != NULL ? ")" : "",
             info->repeats ? "; may be repeated" : "");
    print_row(name, help, OPTION_COLUMN);
}

void cli_print_verb_help(cli_verb verb) {
    const cli_verb_info *info = &cli_verbs[verb];
    printf("usage: flexjit %s%s%s [OPTION...]\n\n", info->name, info->arguments[0] != '\0' ? " " : "",
           info->arguments);
    print_wrapped(info->description, 0, 0);
    printf("\nOptions:\n");
    for (int option = 0; option < CLI_OPTION_COUNT; option++) {
        if (cli_option_belongs(option, verb)) print_option(option);
    }
}

void cli_print_help(void) {
    printf(
        "usage: flexjit VERB [OPTION...]\n\nFlexAttention without Python: attention with a score mod and a mask mod, "
        "compiled at run time.\n\nVerbs:\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++)
        print_row(cli_verbs[verb].name, cli_verbs[verb].summary, 16);
    printf("\nOptions:\n");
    print_row("--help", "this help; after a verb, its own", 16);
    print_row("--version", "the version", 16);
    printf("\nEnvironment:\n");
    for (size_t i = 0; i < COUNT(environment); i++) print_row(environment[i].name, environment[i].text, 26);
    printf("\nExit status:\n");
    for (size_t i = 0; i < COUNT(statuses); i++) {
        char number[8];
        snprintf(number, sizeof number, "%d", statuses[i].status);
        print_row(number, statuses[i].text, 8);
    }
}

/* ---- Man page ---------------------------------------------------------------------------- */

/* Text as roff shows it: no requests at the beginning of a line, hyphens that can be copied. */
static void print_roff(const char *text) {
    bool line_begins = true;
    for (; *text != '\0'; text++) {
        if (line_begins && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        line_begins = *text == '\n';
        switch (*text) {
        case '\\': fputs("\\e", stdout); break;
        case '-': fputs("\\-", stdout); break;
        case '\'': fputs("\\(aq", stdout); break;
        case '`': fputs("\\(ga", stdout); break;
        case '\n':
            if (text[1] == '\n') {
                fputs("\n.PP", stdout);
                break;
            }
            fputs("\n.br\n", stdout);
            break;
        default: putchar(*text);
        }
    }
    putchar('\n');
}

static void print_roff_option(cli_option option) {
    const cli_option_info *info = &cli_options[option];
    fputs(".TP\n", stdout);
    if (info->short_name != 0) printf("\\fB\\-%c\\fR, ", info->short_name);
    fputs("\\fB\\-\\-", stdout);
    for (const char *at = info->long_name; *at != '\0'; at++)
        fputs(*at == '-' ? "\\-" : (char[]){*at, '\0'}, stdout);
    fputs("\\fR", stdout);
    if (info->metavar != NULL) printf(" \\fI%s\\fR", info->metavar);
    putchar('\n');
    char help[512];
    snprintf(help, sizeof help, "%s%s%s.%s", info->help, info->choices != NULL ? ": one of " : "",
             info->choices != NULL ? info->choices : "", info->repeats ? " May be repeated." : "");
    print_roff(help);
}

static void print_roff_verb(cli_verb verb) {
    const cli_verb_info *info = &cli_verbs[verb];
    fputs(".SS \"flexjit ", stdout);
    for (const char *at = info->name; *at != '\0'; at++)
        fputs(*at == '-' ? "\\-" : (char[]){*at, '\0'}, stdout);
    printf("%s%s\"\n", info->arguments[0] != '\0' ? " " : "", info->arguments);
    printf("%c", toupper((unsigned char)info->summary[0]));
    fputs(info->summary + 1, stdout);
    fputs(".\n.PP\n", stdout);
    print_roff(info->description);
    for (int option = 0; option < CLI_OPTION_COUNT; option++) {
        if (cli_option_belongs(option, verb)) print_roff_option(option);
    }
}

void cli_print_man(void) {
    printf(
        ".TH FLEXJIT 1 \"\" \"flexjit " FJ_VERSION "\" \"User Commands\"\n"
        ".SH NAME\nflexjit \\- FlexAttention without Python\n"
        ".SH SYNOPSIS\n.B flexjit\n.I VERB\n.RI [ OPTION ...]\n"
        ".SH DESCRIPTION\nComputes attention with a score mod and a mask mod, given as a Python file that PyTorch\\(aqs "
        "FlexAttention can run or as expressions, in kernels that are compiled at run time.\n"
        "Data goes to standard output, diagnostics to standard error.\n.SH VERBS\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) print_roff_verb(verb);
    printf(".SH ENVIRONMENT\n");
    for (size_t i = 0; i < COUNT(environment); i++) {
        printf(".TP\n.B %s\n", environment[i].name);
        print_roff(environment[i].text);
    }
    printf(".SH \"EXIT STATUS\"\n");
    for (size_t i = 0; i < COUNT(statuses); i++) {
        printf(".TP\n.B %d\n", statuses[i].status);
        print_roff(statuses[i].text);
    }
}
