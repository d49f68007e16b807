/* What `flexjit sdpa` has in its hands, shared by its files. */
#ifndef FJ_CLI_SDPA_H
#define FJ_CLI_SDPA_H

#include "cli/run.h"
#include "flexjit/sdpa.h"

/* The tensors of a file, in the order of the table in sdpa_inputs.c. */
typedef enum cli_sdpa_input {
    CLI_SDPA_Q,
    CLI_SDPA_K,
    CLI_SDPA_V,
    CLI_SDPA_MASK,
    CLI_SDPA_CU_SEQLENS_Q,
    CLI_SDPA_CU_SEQLENS_KV,
    CLI_SDPA_DO,
    CLI_SDPA_DLSE,
    CLI_SDPA_INPUTS
} cli_sdpa_input;

typedef struct cli_sdpa_inputs {
    cli_view views[CLI_SDPA_INPUTS];
    fj_dtype dtype; /* of q */
} cli_sdpa_inputs;

typedef struct cli_sdpa_outputs {
    cli_view out, lse, lse_low, dquery, dkey, dvalue, dmask;
    cli_output items[7]; /* those that a file gets; names are literals */
    size_t count;
} cli_sdpa_outputs;

/* One direction on one device. */
typedef struct cli_sdpa_step {
    fj_device *device;
    fj_direction direction;
    fj_sdpa_args args;
    fj_sdpa_report report;
    fj_sdpa_op *op;
    fj_sdpa_info info;
    void *workspace;
    size_t workspace_size;
    fj_timer *timer;
    cli_device_copies copies;
    double time_ms;
} cli_sdpa_step;

typedef struct cli_sdpa {
    const cli_args *args;
    const char *input_path;
    fj_context *context;
    fj_device *device;
    cli_safetensors file;
    fj_sdpa_args call; /* what the command line says: causal, dropout, backends ... */
    double scale;
    int workers;
    bool backward;
    cli_sdpa_inputs inputs;
    cli_sdpa_outputs outputs;
    cli_sdpa_step steps[2];      /* by direction */
    cli_comparison *comparisons; /* one for each of outputs' items, or NULL without --check */
} cli_sdpa;

/* sdpa_inputs.c: the tensors of the file; those that nothing uses are warned of. */
int cli_sdpa_bind(cli_sdpa *run);
void cli_sdpa_inputs_finish(cli_sdpa_inputs *inputs);
/* Shapes as the library says; dtype is that of out and of gradients. */
int cli_sdpa_outputs_allocate(cli_sdpa_outputs *outputs, const cli_sdpa *run, fj_device *device,
                              const cli_sdpa_inputs *inputs, fj_dtype dtype);
void cli_sdpa_outputs_finish(cli_sdpa_outputs *outputs);

/* sdpa.c: the tensors as the library takes them, in the host's memory. */
fj_sdpa_args cli_sdpa_args(const cli_sdpa *run, const cli_sdpa_inputs *inputs,
                           const cli_sdpa_outputs *outputs);
/* Makes ready; runs. The step is closed by the caller, whatever the status. */
int cli_sdpa_open(cli_sdpa_step *step, const cli_sdpa *run, fj_device *device, fj_direction direction,
                  const cli_sdpa_inputs *inputs, const cli_sdpa_outputs *outputs);
int cli_sdpa_step_run(cli_sdpa_step *step, int workers);
void cli_sdpa_close(cli_sdpa_step *step);

/* sdpa_check.c: as cli_run_check. */
int cli_sdpa_check(cli_sdpa *run);

/* sdpa_report.c */
void cli_sdpa_print_line(const cli_sdpa *run, fj_direction direction);
void cli_sdpa_print_comparisons(const cli_sdpa *run);
/* forward_only: backward was not come to. */
int cli_sdpa_print_json(const cli_sdpa *run);

#endif
