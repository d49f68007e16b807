/* What `flexjit run` has in its hands, shared by its three files: inputs, check, report. */
#ifndef FJ_CLI_RUN_H
#define FJ_CLI_RUN_H

#include "cli/call.h"
#include "cli/mod.h"

/* How an output differs from the reference. */
typedef struct cli_comparison {
    double max, mean, bound;
    bool ok;
} cli_comparison;

typedef struct cli_run {
    const cli_args *args;
    const char *input_path;
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    cli_bindings bindings;
    cli_wish wish;
    cli_inputs inputs;
    cli_outputs outputs;
    cli_output_list list;
    cli_kernel kernels[2]; /* by direction */
    double time_ms[2];
    bool backward;
    cli_comparison *comparisons; /* one for each of list, or NULL without --check */
} cli_run;

/* run_inputs.c: checks the tensors of the file against each other and binds them; warns of those that nothing uses. */
int cli_run_shape(cli_run *run);
int cli_run_bind(cli_run *run);

/* run_check.c: the reference and the unfused pass, and the comparison of every output. Status 1 when one is BAD. */
int cli_run_check(cli_run *run);

/* compare.c: the mean of |x - reference| where both are finite, and x against the reference: the mean may be allowed,
 * plus 4 units in the last place of a dtype. masked: the reference's lse when the rows of x are those of lse, else
 * NULL: rows where it is -inf must be 0. */
double cli_mean_error(const cli_view *x, const cli_view *reference);
void cli_compare(const cli_view *x, const cli_view *reference, const cli_view *masked, double allowed,
                 fj_dtype unit, cli_comparison *ret_comparison);

/* run_report.c */
void cli_run_print_line(const cli_run *run, fj_direction direction);
void cli_run_print_comparisons(const cli_run *run);
int cli_run_print_json(const cli_run *run);

#endif
