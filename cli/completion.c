/* Shell completions, made from the table. */
#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "cli/verbs.h"

static void print_verbs(void) {
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++)
        printf("%s%s", verb > 0 ? " " : "", cli_verbs[verb].name);
}

/* For text within single quotes, in which each shell has its own escape for a quote. */
static void print_quoted(const char *text, const char *quote, const char *special) {
    putchar('\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            fputs(quote, stdout);
        } else {
            if (strchr(special, *text) != NULL) putchar('\\');
            putchar(*text);
        }
    }
    putchar('\'');
}

/* The words of a verb whose first argument is one of several: "list|show"; with blanks for bars. "": another. */
static const char *actions_of(cli_verb verb, char words[128]) {
    const char *arguments = cli_verbs[verb].arguments;
    snprintf(words, 128, "%.*s", strchr(arguments, '|') != NULL ? (int)strcspn(arguments, " ") : 0,
             arguments);
    for (char *bar = words; (bar = strchr(bar, '|')) != NULL;) *bar = ' ';
    return words;
}

/* ---- bash -------------------------------------------------------------------------------- */

static void print_bash_value(cli_verb verb, cli_option option) {
    const cli_option_info *info = &cli_options[option];
    printf("    %s:--%s", cli_verbs[verb].name, info->long_name);
    if (info->short_name != 0) printf(" | %s:-%c", cli_verbs[verb].name, info->short_name);
    if (cli_option_is_file(option)) {
        printf(") mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return ;;\n");
    } else if (info->choices != NULL) {
        printf(") mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$word\"); return ;;\n", info->choices);
    } else {
        printf(") return ;;\n");
    }
}

static void print_bash(void) {
    printf(
        "# bash completion of flexjit\n_flexjit() {\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}\n"
        "    if ((COMP_CWORD == 1)); then\n        mapfile -t COMPREPLY < <(compgen -W '");
    print_verbs();
    printf(" --help --version' -- \"$word\")\n        return\n    fi\n");
    printf("    COMPREPLY=()\n    case $verb:$previous in\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        for (int option = 0; option < CLI_OPTION_COUNT; option++) {
            bool takes = cli_option_belongs(option, verb) && cli_options[option].metavar != NULL;
            if (takes) print_bash_value(verb, option);
        }
    }
    printf("    esac\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        char words[128];
        if (*actions_of(verb, words) == '\0') continue;
        printf("    if ((COMP_CWORD == 2)) && [[ $verb == %s && $word != -* ]]; then\n"
               "        mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$word\")\n        return\n    fi\n",
               cli_verbs[verb].name, words);
    }
    printf(
        "    if [[ $word != -* ]]; then\n        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n        return\n"
        "    fi\n    case $verb in\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        printf("    %s) mapfile -t COMPREPLY < <(compgen -W '", cli_verbs[verb].name);
        for (int option = 0; option < CLI_OPTION_COUNT; option++) {
            if (cli_option_belongs(option, verb)) printf(" --%s", cli_options[option].long_name);
        }
        printf("' -- \"$word\") ;;\n");
    }
    printf("    esac\n}\ncomplete -o filenames -F _flexjit flexjit\n");
}

/* ---- zsh --------------------------------------------------------------------------------- */

static void print_zsh_option(cli_option option, char short_name) {
    const cli_option_info *info = &cli_options[option];
    char text[600];
    int at = short_name != 0
               ? snprintf(text, sizeof text, "%s-%c", info->repeats ? "*" : "", short_name)
               : snprintf(text, sizeof text, "%s--%s", info->repeats ? "*" : "", info->long_name);
    printf(" \\\n            ");
    fputs("'", stdout);
    printf("%.*s[", at, text);
    for (const char *help = info->help; *help != '\0'; help++) {
        if (*help == '\'') {
            fputs("'\\''", stdout);
        } else {
            if (strchr("[]:\\", *help) != NULL) putchar('\\');
            putchar(*help);
        }
    }
    putchar(']');
    if (info->metavar != NULL) {
        putchar(':');
        for (const char *name = info->metavar; *name != '\0'; name++) {
            if (strchr("[]:\\", *name) != NULL) putchar('\\');
            putchar(*name);
        }
        if (cli_option_is_file(option)) {
            printf(":_files");
        } else if (info->choices != NULL) {
            printf(cli_option_is_list(option) ? ":_sequence compadd - %s" : ":(%s)", info->choices);
        } else {
            printf(": ");
        }
    }
    putchar('\'');
}

static void print_zsh(void) {
    printf("#compdef flexjit\n_flexjit() {\n    if ((CURRENT == 2)); then\n        local -a verbs=(\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        printf("            '%s:%s'\n", cli_verbs[verb].name, cli_verbs[verb].summary);
    }
    printf(
        "        )\n        _describe verb verbs\n        _arguments --help --version\n        return\n    fi\n"
        "    local verb=$words[2]\n    shift words\n    ((CURRENT--))\n    case $verb in\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        printf("    %s)\n        _arguments", cli_verbs[verb].name);
        for (int option = 0; option < CLI_OPTION_COUNT; option++) {
            if (!cli_option_belongs(option, verb)) continue;
            print_zsh_option(option, 0);
            if (cli_options[option].short_name != 0) print_zsh_option(option, cli_options[option].short_name);
        }
        char words[128];
        if (*actions_of(verb, words) != '\0') printf(" \\\n            '1:action:(%s)'", words);
        printf(" \\\n            '*:file:_files'\n        ;;\n");
    }
    printf("    esac\n}\n_flexjit \"$@\"\n");
}

/* ---- fish -------------------------------------------------------------------------------- */

static void print_fish_option(cli_verb verb, cli_option option) {
    const cli_option_info *info = &cli_options[option];
    printf("complete -c flexjit -n '__fish_seen_subcommand_from %s' -l %s", cli_verbs[verb].name,
           info->long_name);
    if (info->short_name != 0) printf(" -s %c", info->short_name);
    if (cli_option_is_file(option)) {
        printf(" -r -F");
    } else if (info->choices != NULL) {
        printf(" -x -a '%s'", info->choices);
    } else if (info->metavar != NULL) {
        printf(" -x");
    }
    printf(" -d ");
    print_quoted(info->help, "\\'", "\\");
    putchar('\n');
}

static void print_fish(void) {
    printf(
        "# fish completion of flexjit\ncomplete -c flexjit -n __fish_use_subcommand -f -l version -d 'the version'\n");
    for (int verb = 0; verb < CLI_VERB_COUNT; verb++) {
        char words[128];
        if (*actions_of(verb, words) != '\0')
            printf("complete -c flexjit -n '__fish_seen_subcommand_from %s' -a '%s'\n", cli_verbs[verb].name,
                   words);
        printf("complete -c flexjit -n __fish_use_subcommand -f -a %s -d ", cli_verbs[verb].name);
        print_quoted(cli_verbs[verb].summary, "\\'", "\\");
        putchar('\n');
        for (int option = 0; option < CLI_OPTION_COUNT; option++) {
            if (cli_option_belongs(option, verb)) print_fish_option(verb, option);
        }
    }
}

int cli_print_completion(const char *shell) {
    if (strcmp(shell, "bash") == 0) {
        print_bash();
    } else if (strcmp(shell, "zsh") == 0) {
        print_zsh();
    } else if (strcmp(shell, "fish") == 0) {
        print_fish();
    } else {
        return cli_usage_tool("--dump-completion is for bash, zsh or fish");
    }
    return CLI_EXIT_OK;
}
