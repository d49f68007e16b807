/* The manifest of `flexjit prebuild`: pairs of mods and problems, as JSON. */
#ifndef FJ_CLI_MANIFEST_H
#define FJ_CLI_MANIFEST_H

#include "flexjit/flexjit.h"

/* One kernel to build. */
typedef struct cli_build {
    fj_plan *plan;
    size_t entry;     /* of the manifest, from 0 */
    size_t device;    /* of the devices given */
    const char *name; /* of its mod, for messages; lives as long as the manifest */
} cli_build;

typedef struct cli_manifest {
    cli_build *builds;
    size_t count, capacity;
    char **names; /* one for each entry */
    size_t entries;
} cli_manifest;

/* Reads the file, makes its mods, and plans each problem for each device. Returns an exit status; the error is
 * reported. Closed by the caller, whatever the status. */
int cli_manifest_open(const char *path, fj_context *context, fj_device *const *devices, size_t device_count,
                      cli_manifest *ret_manifest);
void cli_manifest_close(cli_manifest *manifest);

#endif
