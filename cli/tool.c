/* From argv to a verb. */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/verbs.h"

static int (*const run_verb[])(const cli_args *args) = {
    [CLI_VERB_RUN] = cli_verb_run,
    [CLI_VERB_SDPA] = cli_verb_sdpa,
    [CLI_VERB_CHECK] = cli_verb_check,
    [CLI_VERB_SHOW] = cli_verb_show,
    [CLI_VERB_MASK] = cli_verb_mask,
    [CLI_VERB_BENCH] = cli_verb_bench,
    [CLI_VERB_TUNE] = cli_verb_tune,
    [CLI_VERB_PREBUILD] = cli_verb_prebuild,
    [CLI_VERB_CACHE] = cli_verb_cache,
    [CLI_VERB_DOCTOR] = cli_verb_doctor,
    [CLI_VERB_RUN_TESTS] = cli_verb_run_tests,
    [CLI_VERB_FUSE] = cli_verb_fuse,
};
_Static_assert(sizeof run_verb / sizeof run_verb[0] == CLI_VERB_COUNT, "a verb without a function");

/* Even the command line that cannot be parsed may ask for errors in JSON. */
static bool wants_json(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0) return true;
    }
    return false;
}

static int dispatch_verb(cli_verb verb, int argc, char **argv, int (*run)(const cli_args *args)) {
    cli_args args;
    int status = cli_args_parse(verb, argc, argv, &args);
    if (status != CLI_EXIT_OK) return status;
    if (cli_args_has(&args, CLI_OPT_HELP)) {
        cli_print_verb_help(verb);
    } else {
        status = run(&args);
    }
    cli_args_finish(&args);
    return status;
}

/* `flexjit help`, `flexjit help VERB`. */
static int help(int argc, char **argv) {
    if (argc < 3) {
        cli_print_help();
        return CLI_EXIT_OK;
    }
    cli_verb verb = cli_verb_find(argv[2]);
    if (verb == CLI_VERB_COUNT) return cli_usage_tool("unknown verb '%s'", argv[2]);
    cli_print_verb_help(verb);
    return CLI_EXIT_OK;
}

static int dispatch(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    if (word[0] == '\0') return cli_usage_tool("a verb is missing");
    cli_verb verb = cli_verb_find(word);
    if (verb != CLI_VERB_COUNT) return dispatch_verb(verb, argc - 2, argv + 2, run_verb[verb]);
    if (strcmp(word, CLI_TUNE_WORKER) == 0)
        return dispatch_verb(CLI_VERB_TUNE, argc - 2, argv + 2, cli_tune_worker);
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
        return help(argc, argv);
    if (strcmp(word, "--version") == 0) {
        puts("flexjit " FJ_VERSION);
        return CLI_EXIT_OK;
    }
    if (strcmp(word, "--dump-man") == 0) {
        cli_print_man();
        return CLI_EXIT_OK;
    }
    if (strcmp(word, "--dump-completion") == 0) return cli_print_completion(argc > 2 ? argv[2] : "");
    if (word[0] == '-') return cli_usage_tool("unknown option '%s'", word);
    const char *nearest = cli_verb_suggest(word);
    if (nearest != NULL) return cli_usage_tool("unknown verb '%s': did you mean '%s'?", word, nearest);
    return cli_usage_tool("unknown verb '%s'", word);
}

/* Numbers are read and written with a point, whatever the environment or a driver's library sets: this
 * thread has a locale of its own. */
static void pin_locale(void) {
    static locale_t plain;
    plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain != (locale_t)0) uselocale(plain);
}

int cli_main(int argc, char **argv) {
    pin_locale();
    cli_report_begin(wants_json(argc, argv));
    cli_interrupt_begin();
    return cli_report_end(dispatch(argc, argv));
}
