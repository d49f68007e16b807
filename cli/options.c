/* Parses the command line after the table in options.def. */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"

#define V(verb) (1u << CLI_VERB_##verb)

const cli_verb_info cli_verbs[CLI_VERB_COUNT] = {
#define VERB(id, name, arguments, summary, description) {name, arguments, summary, description},
#include "cli/options.def"
};

const cli_option_info cli_options[CLI_OPTION_COUNT] = {
#define OPTION(id, long_name, short_name, metavar, choices, repeats, verbs, help) \
    {long_name, metavar, choices, help, verbs, short_name, repeats},
#include "cli/options.def"
};

_Static_assert(CLI_VERB_COUNT < 32, "a verb is a bit");

bool cli_option_belongs(cli_option option, cli_verb verb) {
    return (cli_options[option].verbs >> verb & 1) != 0;
}

bool cli_option_is_list(cli_option option) {
    const char *metavar = cli_options[option].metavar;
    return metavar != NULL && strcmp(metavar, "LIST") == 0;
}

bool cli_option_is_file(cli_option option) {
    const char *metavar = cli_options[option].metavar;
    return metavar != NULL && strcmp(metavar, "FILE") == 0;
}

/* ---- Suggestions ------------------------------------------------------------------------- */

/* Edit distance of two short texts, case ignored; names longer than the row are never near. */
static int distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > LONGEST || b_length > LONGEST) return LONGEST;
    int row[LONGEST + 1];
    for (size_t j = 0; j <= b_length; j++) row[j] = (int)j;
    for (size_t i = 1; i <= a_length; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= b_length; j++) {
            bool same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            int best = diagonal + (same ? 0 : 1);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b_length];
}

/* Keeps the nearest name; farther than a third of the word is not a suggestion. */
static void consider(const char *word, const char *name, int *best, const char **nearest) {
    int now = distance(word, name);
    if (now < *best && now <= 1 + (int)strlen(word) / 3) {
        *best = now;
        *nearest = name;
    }
}

const char *cli_verb_suggest(const char *name) {
    int best = 100;
    const char *nearest = NULL;
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) consider(name, cli_verbs[verb].name, &best, &nearest);
    return nearest;
}

static const char *suggest_option(cli_verb verb, const char *name) {
    int best = 100;
    const char *nearest = NULL;
    for (int option = 0; option < CLI_OPTION_COUNT; option++) {
        if (cli_option_belongs(option, verb)) consider(name, cli_options[option].long_name, &best, &nearest);
    }
    return nearest;
}

cli_verb cli_verb_find(const char *name) {
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        if (strcmp(cli_verbs[verb].name, name) == 0) return verb;
    }
    return CLI_VERB_COUNT;
}

/* ---- Parsing ----------------------------------------------------------------------------- */

static cli_option find_long(cli_verb verb, const char *name, size_t length) {
    for (int option = 0; option < CLI_OPTION_COUNT; option++) {
        const char *known = cli_options[option].long_name;
        if (cli_option_belongs(option, verb) && strlen(known) == length && memcmp(known, name, length) == 0) {
            return option;
        }
    }
    return CLI_OPTION_COUNT;
}

static cli_option find_short(cli_verb verb, char name) {
    for (int option = 0; option < CLI_OPTION_COUNT; option++) {
        if (cli_option_belongs(option, verb) && cli_options[option].short_name == name) return option;
    }
    return CLI_OPTION_COUNT;
}

static int unknown_option(cli_verb verb, const char *text) {
    char name[64];
    const char *bare = text + strspn(text, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(bare, "="), bare);
    const char *nearest = text[1] == '-' ? suggest_option(verb, name) : NULL;
    int length = (int)strcspn(text, "=");
    if (nearest == NULL) return cli_usage(verb, "unknown option '%.*s'", length, text);
    return cli_usage(verb, "unknown option '%.*s': did you mean '--%s'?", length, text, nearest);
}

static int add_value(cli_args *args, cli_option option, const char *text) {
    if (!cli_options[option].repeats && cli_options[option].metavar != NULL && cli_args_has(args, option)) {
        return cli_usage(args->verb, "option '--%s' is given twice", cli_options[option].long_name);
    }
    args->values[args->value_count++] = (cli_value){option, text};
    return 0;
}

/* One long option at argv[*at], which moves on past a value that follows. */
static int parse_long(cli_args *args, int argc, char **argv, int *at) {
    const char *text = argv[*at], *name = text + 2;
    size_t length = strcspn(name, "=");
    cli_option option = find_long(args->verb, name, length);
    if (option == CLI_OPTION_COUNT) return unknown_option(args->verb, text);
    bool attached = name[length] == '=';
    if (cli_options[option].metavar == NULL) {
        if (attached) return cli_usage(args->verb, "option '--%.*s' takes no value", (int)length, name);
        return add_value(args, option, NULL);
    }
    if (attached) return add_value(args, option, name + length + 1);
    if (*at + 1 >= argc) return cli_usage(args->verb, "option '--%s' needs a value", name);
    return add_value(args, option, argv[++*at]);
}

/* Short options, which may be joined: the first that takes a value takes the rest. */
static int parse_short(cli_args *args, int argc, char **argv, int *at) {
    for (const char *letter = argv[*at] + 1; *letter != '\0'; letter++) {
        cli_option option = find_short(args->verb, *letter);
        if (option == CLI_OPTION_COUNT) return unknown_option(args->verb, argv[*at]);
        if (cli_options[option].metavar != NULL) {
            if (letter[1] != '\0') return add_value(args, option, letter + 1);
            if (*at + 1 >= argc) return cli_usage(args->verb, "option '-%c' needs a value", *letter);
            return add_value(args, option, argv[++*at]);
        }
        int status = add_value(args, option, NULL);
        if (status != 0) return status;
    }
    return 0;
}

static int parse_all(cli_args *args, int argc, char **argv) {
    bool options = true;
    for (int at = 0; at < argc; at++) {
        const char *text = argv[at];
        int status = 0;
        if (options && strcmp(text, "--") == 0) {
            options = false;
        } else if (options && strncmp(text, "--", 2) == 0) {
            status = parse_long(args, argc, argv, &at);
        } else if (options && text[0] == '-' && text[1] != '\0') {
            status = parse_short(args, argc, argv, &at);
        } else {
            args->positionals[args->positional_count++] = text;
        }
        if (status != 0) return status;
    }
    return 0;
}

int cli_args_parse(cli_verb verb, int argc, char **argv, cli_args *ret_args) {
    size_t letters = 1;
    for (int i = 0; i < argc; i++)
        letters += strlen(argv[i]) + 1; /* joined flags: one value a letter at most */
    cli_args args = {.verb = verb};
    args.values = calloc(letters, sizeof *args.values);
    args.positionals = calloc((size_t)argc + 1, sizeof *args.positionals);
    int status =
        args.values == NULL || args.positionals == NULL ? cli_no_memory() : parse_all(&args, argc, argv);
    if (status != 0) {
        cli_args_finish(&args);
        return status;
    }
    *ret_args = args;
    return 0;
}

void cli_args_finish(cli_args *args) {
    free(args->values);
    free(args->positionals);
    *args = (cli_args){0};
}

/* ---- Values ------------------------------------------------------------------------------ */

const char *cli_args_nth(const cli_args *args, cli_option option, size_t index) {
    for (size_t i = 0; i < args->value_count; i++) {
        if (args->values[i].option == option && index-- == 0) return args->values[i].text;
    }
    return NULL;
}

size_t cli_args_count(const cli_args *args, cli_option option) {
    size_t count = 0;
    for (size_t i = 0; i < args->value_count; i++) count += args->values[i].option == option;
    return count;
}

bool cli_args_has(const cli_args *args, cli_option option) { return cli_args_count(args, option) > 0; }

const char *cli_args_text(const cli_args *args, cli_option option, const char *otherwise) {
    const char *text = cli_args_nth(args, option, 0);
    return text != NULL ? text : otherwise;
}

int cli_args_integer(const cli_args *args, cli_option option, long long minimum, long long maximum,
                     long long *ret_number) {
    const char *text = cli_args_nth(args, option, 0);
    if (text == NULL) return 0;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < minimum || number > maximum) {
        return cli_usage(args->verb, "option '--%s' takes an integer from %lld to %lld, not '%s'",
                         cli_options[option].long_name, minimum, maximum, text);
    }
    *ret_number = number;
    return 0;
}

/* A sign makes it one of two's complement. */
int cli_args_word(const cli_args *args, cli_option option, uint64_t *ret_word) {
    const char *text = cli_args_nth(args, option, 0);
    if (text == NULL) return 0;
    const bool negative = text[0] == '-', digits = text[negative] >= '0' && text[negative] <= '9';
    char *end = NULL;
    errno = 0;
    const uint64_t word = !digits  ? 0
                        : negative ? (uint64_t)strtoll(text, &end, 10)
                                   : (uint64_t)strtoull(text, &end, 10);
    if (errno != 0 || !digits || *end != '\0') {
        return cli_usage(args->verb, "option '--%s' takes an integer of 64 bits, not '%s'",
                         cli_options[option].long_name, text);
    }
    *ret_word = word;
    return 0;
}

int cli_args_real(const cli_args *args, cli_option option, double *ret_number) {
    const char *text = cli_args_nth(args, option, 0);
    if (text == NULL) return 0;
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    bool decimal = text[strspn(text, "+-.0123456789eE")] == '\0'; /* no hex, no names, no blanks */
    bool vanishes = errno == ERANGE && number == 0;
    if (end == text || *end != '\0' || !decimal || vanishes || !isfinite(number)) {
        return cli_usage(args->verb, "option '--%s' takes a finite number in decimal, not '%s'",
                         cli_options[option].long_name, text);
    }
    *ret_number = number;
    return 0;
}

/* The index of a word among blank-separated choices, or -1 and the nearest of them, or "". */
static int find_choice(const char *choices, const char *word, size_t length, char nearest[64]) {
    int index = 0, best = 100;
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)(length < 63 ? length : 63), word);
    nearest[0] = '\0';
    for (const char *choice = choices; *choice != '\0'; index++) {
        size_t size = strcspn(choice, " ");
        if (size == length && memcmp(choice, word, size) == 0) return index;
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)size, choice);
        int now = distance(text, name);
        if (now < best && now <= 1 + (int)length / 3) {
            best = now;
            memcpy(nearest, name, sizeof name);
        }
        choice += size + strspn(choice + size, " ");
    }
    return -1;
}

static int bad_choice(const cli_args *args, cli_option option, const char *word, size_t length,
                      const char *nearest) {
    const cli_option_info *info = &cli_options[option];
    if (nearest[0] != '\0') {
        return cli_usage(args->verb, "unknown %s '%.*s': did you mean '%s'? It is one of %s", info->long_name,
                         (int)length, word, nearest, info->choices);
    }
    return cli_usage(args->verb, "unknown %s '%.*s': it is one of %s", info->long_name, (int)length, word,
                     info->choices);
}

int cli_args_choices(const cli_args *args, cli_option option, int ret_indices[CLI_MAX_CHOICES],
                     size_t *ret_count) {
    size_t count = 0;
    unsigned seen = 0;
    const char *text;
    for (size_t nth = 0; (text = cli_args_nth(args, option, nth)) != NULL; nth++) {
        for (;;) {
            size_t length = strcspn(text, ",");
            char nearest[64];
            int index = find_choice(cli_options[option].choices, text, length, nearest);
            if (index < 0) return bad_choice(args, option, text, length, nearest);
            if ((seen >> index & 1) == 0) ret_indices[count++] = index;
            seen |= 1u << index;
            if (text[length] == '\0') break;
            text += length + 1;
        }
    }
    *ret_count = count;
    return 0;
}

int cli_args_choice(const cli_args *args, cli_option option, int otherwise, int *ret_index) {
    const char *text = cli_args_nth(args, option, 0);
    char nearest[64];
    int index = otherwise;
    if (text != NULL) index = find_choice(cli_options[option].choices, text, strlen(text), nearest);
    if (text != NULL && index < 0) return bad_choice(args, option, text, strlen(text), nearest);
    *ret_index = index;
    return 0;
}
