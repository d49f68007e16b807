/* The command line, parsed after the table in options.def. */
#ifndef FJ_CLI_OPTIONS_H
#define FJ_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cli_verb {
#define VERB(id, name, arguments, summary, description) CLI_VERB_##id,
#include "cli/options.def"
    CLI_VERB_COUNT
} cli_verb;

typedef enum cli_option {
#define OPTION(id, long_name, short_name, metavar, choices, repeats, verbs, help) CLI_OPT_##id,
#include "cli/options.def"
    CLI_OPTION_COUNT
} cli_option;

typedef struct cli_verb_info {
    const char *name, *arguments, *summary, *description;
} cli_verb_info;

typedef struct cli_option_info {
    const char *long_name;
    const char *metavar; /* NULL: a flag */
    const char *choices; /* NULL: any text */
    const char *help;
    unsigned verbs;  /* bit 1 << verb */
    char short_name; /* 0: none */
    bool repeats;
} cli_option_info;

extern const cli_verb_info cli_verbs[CLI_VERB_COUNT];
extern const cli_option_info cli_options[CLI_OPTION_COUNT];

/* Whether a verb has an option, and whether its value is a list of choices. */
bool cli_option_belongs(cli_option option, cli_verb verb);
bool cli_option_is_list(cli_option option);
bool cli_option_is_file(cli_option option);

/* What was given. Values and positionals point into argv. */
typedef struct cli_value {
    cli_option option;
    const char *text; /* NULL for a flag */
} cli_value;

typedef struct cli_args {
    cli_verb verb;
    cli_value *values;
    size_t value_count;
    const char **positionals;
    size_t positional_count;
} cli_args;

/* Parses what follows the verb. Returns an exit status; 2 is reported. */
int cli_args_parse(cli_verb verb, int argc, char **argv, cli_args *ret_args);
void cli_args_finish(cli_args *args);

bool cli_args_has(const cli_args *args, cli_option option);
/* The value of an option that does not repeat, else otherwise. */
const char *cli_args_text(const cli_args *args, cli_option option, const char *otherwise);
/* The index-th value of an option that repeats, or NULL. */
const char *cli_args_nth(const cli_args *args, cli_option option, size_t index);
size_t cli_args_count(const cli_args *args, cli_option option);

/* Numbers that an option gives; anything else is a usage error, status 2. ret is untouched when the option is absent. */
int cli_args_integer(const cli_args *args, cli_option option, long long minimum, long long maximum,
                     long long *ret_number);
/* An integer of 64 bits, with a sign or without. */
int cli_args_word(const cli_args *args, cli_option option, uint64_t *ret_word);
int cli_args_real(const cli_args *args, cli_option option, double *ret_number);

/* The words of a LIST option over all its occurrences, each one of its choices: indices into them, without
 * duplicates. Status 2 for an unknown word. */
enum { CLI_MAX_CHOICES = 16 };
int cli_args_choices(const cli_args *args, cli_option option, int ret_indices[CLI_MAX_CHOICES],
                     size_t *ret_count);
/* The same for an option that takes one word; otherwise when it is absent. */
int cli_args_choice(const cli_args *args, cli_option option, int otherwise, int *ret_index);

/* The verb of this name, or CLI_VERB_COUNT. */
cli_verb cli_verb_find(const char *name);
/* The name of the verb that comes nearest, or NULL. */
const char *cli_verb_suggest(const char *name);

#endif
