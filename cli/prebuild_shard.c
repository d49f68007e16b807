/* Which part of a manifest a process builds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/prebuild.h"
#include "cli/report.h"

enum { MOST_SHARDS = 1 << 20 };

/* Where launchers of parallel jobs say which process of how many this is, from 0. mpirun of Open MPI may itself run under
 * Slurm: it is asked first. In a step of srun the number of its tasks is the step's. */
static const struct {
    const char *rank, *size;
} launchers[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, /* Open MPI */
    {"PMI_RANK", "PMI_SIZE"},                         /* MPICH, and what is made of it */
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
    {"SLURM_PROCID", "SLURM_NTASKS"},
};
enum { LAUNCHERS = sizeof launchers / sizeof launchers[0] };

static bool parse_number(const char *text, long long least, long long *ret_number) {
    char *end;
    if (text == NULL || *text < '0' || *text > '9' || strlen(text) > 9) return false;
    *ret_number = strtoll(text, &end, 10);
    return *end == '\0' && *ret_number >= least && *ret_number <= MOST_SHARDS;
}

static int shard_of_launcher(const cli_args *args, long long *ret_shard, long long *ret_shards) {
    for (size_t i = 0; i < LAUNCHERS; i++) {
        const char *rank = getenv(launchers[i].rank), *size = getenv(launchers[i].size);
        if (rank == NULL || size == NULL) continue;
        if (!parse_number(size, 1, ret_shards) || !parse_number(rank, 0, ret_shard) ||
            *ret_shard >= *ret_shards)
            return cli_usage(args->verb,
                             "'--shard auto': %s is '%s' and %s is '%s', not a number below another",
                             launchers[i].rank, rank, launchers[i].size, size);
        ++*ret_shard;
        cli_note("shard %lld/%lld, by %s", *ret_shard, *ret_shards, launchers[i].rank);
        return CLI_EXIT_OK;
    }
    return cli_usage(args->verb,
                     "'--shard auto' finds no launcher: Open MPI sets OMPI_COMM_WORLD_RANK and _SIZE, MPICH "
                     "PMI_RANK and PMI_SIZE, Slurm SLURM_PROCID and SLURM_NTASKS");
}

int cli_prebuild_shard(const cli_args *args, long long *ret_shard, long long *ret_shards) {
    const char *text = cli_args_text(args, CLI_OPT_SHARD, "1/1");
    if (strcmp(text, "auto") == 0) return shard_of_launcher(args, ret_shard, ret_shards);
    char first[16];
    const char *slash = strchr(text, '/');
    snprintf(first, sizeof first, "%.*s", slash != NULL ? (int)(slash - text) : 0, text);
    if (slash == NULL || slash - text >= (long)sizeof first || !parse_number(first, 1, ret_shard) ||
        !parse_number(slash + 1, 1, ret_shards) || *ret_shard > *ret_shards)
        return cli_usage(args->verb, "'--shard %s' is not auto and not of the form I/N, with I from 1 to N",
                         text);
    return CLI_EXIT_OK;
}
