/* `flexjit prebuild`, shared by its files. */
#ifndef FJ_CLI_PREBUILD_H
#define FJ_CLI_PREBUILD_H

#include <pthread.h>

#include "cli/manifest.h"
#include "cli/options.h"

enum { CLI_MOST_ARCHS = 32 };

typedef enum cli_outcome { CLI_WAITING, CLI_FOUND, CLI_BUILT, CLI_FAILED } cli_outcome;

/* What came of a kernel. */
typedef struct cli_prebuild_row {
    cli_outcome how;
    fj_kernel_info info;
    fj_status reason; /* of one that failed, and the next two */
    char *error, *detail;
} cli_prebuild_row;

typedef struct cli_prebuild {
    const cli_args *args;
    fj_context *context;
    fj_device *devices[CLI_MOST_ARCHS];
    size_t device_count;
    cli_manifest manifest;
    cli_builds builds;
    long long shard, shards; /* the shard-th of shards, from 1 */
    long long jobs;
    cli_variants variants;
    bool verify;
    size_t *order; /* of this shard's kernels, the order in which they are built: indices into the builds */
    size_t wanted;
    double started;
    /* What the threads share: guarded by the lock. */
    pthread_mutex_t lock;
    size_t next, done, counts[CLI_FAILED + 1];
    cli_prebuild_row *rows; /* one for each of order */
    bool stopping;          /* that a Ctrl-C came was said */
    bool no_room;           /* the layer cannot be written: there is no use in going on */
    int status;
    double said; /* when progress was */
} cli_prebuild;

/* prebuild_shard.c: --shard, by number or from the launcher. Status 2. */
int cli_prebuild_shard(const cli_args *args, long long *ret_shard, long long *ret_shards);

/* prebuild_report.c: on a terminal a line that moves, else one now and then; under the lock. */
void cli_prebuild_progress(cli_prebuild *p);
/* What was built, and at the end what failed. */
int cli_prebuild_report(const cli_prebuild *p);
double cli_prebuild_seconds(void); /* of a clock that only goes on */

#endif
