/* `fuse`, in two files: what is found and written (fuse.c), and the graph's evaluation (fuse_run.c). */
#ifndef FJ_CLI_FUSE_H
#define FJ_CLI_FUSE_H

#include <jansson.h>

#include "cli/options.h"
#include "cli/safetensors.h"
#include "fuse/fuse.h"

/* The tensors of --run, and what the graph gave before it was rewritten. */
typedef struct cli_fuse_run {
    const cli_args *args;
    cli_safetensors inputs;
    fj_arena arena;
    size_t count;                     /* outputs */
    fj_array *exact, *before, *after; /* exact, before: with --check */
    fj_context *context;
    fj_device *device;
    json_t *errors;    /* of --check, by output */
    json_t *gradients; /* of --backward, by attention */
} cli_fuse_run;

/* Each returns an exit status; errors are reported. Without --run they do nothing. */
int cli_fuse_run_before(cli_fuse_run *run, fj_model *model);
int cli_fuse_run_after(cli_fuse_run *run, fj_model *model);
void cli_fuse_run_finish(cli_fuse_run *run);

#endif
