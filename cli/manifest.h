/* The manifest of `flexjit prebuild` and `flexjit tune`: mods, the problems that are asked of each, shapes of calls; as JSON.
 *
 * A file is read (manifest.c, manifest_problems.c) without any device; then its problems are planned for devices
 * (manifest_builds.c). */
#ifndef FJ_CLI_MANIFEST_H
#define FJ_CLI_MANIFEST_H

#include "cli/bench.h"
#include "flexjit/flexjit.h"

enum { CLI_MANIFEST_PLACE = 80 };

typedef struct cli_manifest_entry {
    char *name; /* of the mod's file, else its place; for messages */
    fj_mod *mod;
    cli_shapes shapes; /* of calls, for `tune` */
    double scale;      /* of calls, for `tune` and `run`; NaN: 1/sqrt(E) */
} cli_manifest_entry;

/* Its texts live as long as the manifest. */
typedef struct cli_manifest_problem {
    fj_problem problem;
    size_t entry;  /* from 0 */
    size_t number; /* of the entry's problems, from 0 */
    bool
        implied; /* few_queries, where the manifest leaves open whether queries are few: the one before has many */
} cli_manifest_problem;

typedef struct cli_manifest {
    const char *path; /* the caller's */
    json_t *root;
    cli_manifest_entry *entries;
    size_t entry_count;
    cli_manifest_problem *problems;
    size_t problem_count, capacity;
    fj_option **options; /* of the problems; each is a list */
    size_t option_lists;
} cli_manifest;

/* Reads the file and makes its mods. Returns an exit status; the error is reported. Closed by the caller, whatever the
 * status. */
int cli_manifest_open(const char *path, fj_context *context, cli_manifest *ret_manifest);
void cli_manifest_close(cli_manifest *manifest);
/* The entry whose mod is this file; NULL: there is none. */
const cli_manifest_entry *cli_manifest_find(const cli_manifest *manifest, const char *mod);

/* ---- Builds ------------------------------------------------------------------------------ */

/* One kernel to build. */
typedef struct cli_build {
    fj_plan *plan;
    size_t entry;     /* of the manifest, from 0 */
    size_t device;    /* of the devices given */
    const char *name; /* of its mod, for messages; lives as long as the manifest */
} cli_build;

/* Distinct kernels: mods that are written differently, and problems that are listed twice, may ask for one. */
typedef struct cli_builds {
    cli_build *items;
    size_t count, capacity;
    size_t repeated; /* what asked for one of them again */
} cli_builds;

/* Which variants of a problem that names none itself. */
typedef enum cli_variants {
    CLI_VARIANTS_DEFAULT, /* the plan's own choice */
    CLI_VARIANTS_TUNED,   /* and what records of tuning name, at any lengths */
    CLI_VARIANTS_ALL      /* every legal one */
} cli_variants;

/* Plans each problem for each device. Returns an exit status; the error is reported. Closed by the caller, whatever the
 * status, before the manifest. */
int cli_builds_open(const cli_manifest *manifest, fj_device *const *devices, size_t device_count,
                    cli_variants variants, cli_builds *ret_builds);
void cli_builds_close(cli_builds *builds);

#endif
