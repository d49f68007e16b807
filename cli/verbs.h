/* The verbs: each takes its parsed command line and returns an exit status. */
#ifndef FJ_CLI_VERBS_H
#define FJ_CLI_VERBS_H

#include "cli/options.h"

int cli_verb_run(const cli_args *args);
int cli_verb_sdpa(const cli_args *args);
int cli_verb_check(const cli_args *args);
int cli_verb_show(const cli_args *args);
int cli_verb_mask(const cli_args *args);
int cli_verb_bench(const cli_args *args);
int cli_verb_tune(const cli_args *args);
int cli_verb_fuse(const cli_args *args);
int cli_verb_prebuild(const cli_args *args);
int cli_verb_cache(const cli_args *args);
int cli_verb_doctor(const cli_args *args);
int cli_verb_run_tests(const cli_args *args);

/* A word in a verb's place, for the tool's own use: `tune` starts itself by it, see tune.h. */
#define CLI_TUNE_WORKER "--tune-worker"
int cli_tune_worker(const cli_args *args);

/* help.c: --help of the tool and of a verb, and the same as a man page; completion.c. */
void cli_print_help(void);
void cli_print_verb_help(cli_verb verb);
void cli_print_man(void);
/* shell is bash, zsh or fish; another is a usage error. */
int cli_print_completion(const char *shell);

/* The whole tool, without its process: what main calls. */
int cli_main(int argc, char **argv);

#endif
