/* Reading a manifest, shared by its files. */
#ifndef FJ_CLI_MANIFEST_READ_H
#define FJ_CLI_MANIFEST_READ_H

#include "cli/manifest.h"
#include "cli/report.h"

/* Where we are. */
typedef struct cli_manifest_reader {
    const char *path;
    fj_context *context;
    cli_manifest *manifest;
    char place[CLI_MANIFEST_PLACE]; /* "entries[2]" */
    size_t entry, number;           /* of a problem */
    bool implied;
} cli_manifest_reader;

/* An error with its place: entries[2].problems[0]: 'dtype' is not ... */
void cli_manifest_say_wrong(const cli_manifest_reader *r, const char *format, ...) CLI_PRINTF(2, 3);
#define CLI_MANIFEST_WRONG(r, ...) (cli_manifest_say_wrong((r), __VA_ARGS__), CLI_EXIT_FAILED)

/* It is an object, and has no other keys than these (NULL at the end). */
int cli_manifest_check_keys(const cli_manifest_reader *r, json_t *object, const char *const *known);

/* manifest_problems.c: one problem of the last entry, whose lists give several. */
int cli_manifest_read_problem(cli_manifest_reader *r, json_t *value);

#endif
