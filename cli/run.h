/* What `flexjit run` has in its hands, shared by its files: inputs, block mask, check, report. */
#ifndef FJ_CLI_RUN_H
#define FJ_CLI_RUN_H

#include "cli/call.h"
#include "cli/mod.h"

/* How an output differs from the reference, in its own unit: compare.c has the definitions. */
typedef struct cli_comparison {
    double max, mean, bound;
    double unfused; /* the mean of the unfused pass */
    double usual;   /* the same, in units of each row's noise */
    double worst;   /* the largest error of a row, over the row's bound */
    size_t row;     /* which one */
    bool ok;
} cli_comparison;

typedef struct cli_run {
    const cli_args *args;
    const char *input_path;
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    fj_block_mask *block_mask; /* of --block-mask, or NULL */
    cli_bindings bindings;
    cli_call_options options;
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

/* run_mask.c: reads the file of --block-mask, for the shape of the call. */
int cli_run_mask(cli_run *run);

/* run_check.c: the reference and the unfused pass, and the comparison of every output. Status 1 when one is BAD. */
int cli_run_check(cli_run *run);

/* The same in steps: what a call should give is computed once, then the outputs of any kernel are compared with it. Of a
 * run its context, mod, options, inputs and backward are read, by comparing its list too, one comparison for each. */
typedef struct cli_check cli_check;
int cli_check_open(const cli_run *run, cli_check **ret_check);
int cli_check_compare(const cli_check *check, const cli_run *run, cli_comparison *comparisons, bool *ret_ok);
/* What rounding does to an element of an output, the root of the mean of the squares. */
double cli_check_noise(const cli_check *check, size_t output);
void cli_check_close(cli_check **check); /* takes NULL */

/* What an output is judged by. */
typedef struct cli_evidence {
    const cli_view *x, *reference;
    const cli_view *noise;                       /* what rounding does to x, before it is stored */
    const cli_view *unfused, *unfused_reference; /* the yardstick and what it should have been */
    double unfused_scale;                        /* from its error to that of x's dtype */
    const cli_view
        *masked;          /* the reference's lse when rows of x are its rows, else NULL: where -inf, x is 0 */
    size_t heads;         /* 0: in the same order; else rows are [T, heads], and lse is [heads, T] */
    size_t rows;          /* that x consists of */
    double factor, slack; /* F and A */
    bool overflows;       /* where unfused is not finite, x need not be */
    bool statistic;       /* of lse and max, -inf says that a row sees nothing: it is none of other numbers */
} cli_evidence;

/* compare.c. The evidence by kind of output, without the views of the passes; lse: the reference's. */
cli_evidence cli_evidence_of(const cli_output *x, const cli_call_options *options, fj_dtype dtype,
                             const cli_view *lse);
int cli_compare(const cli_evidence *of, cli_comparison *ret_comparison);
/* A comparison as the contract has it: "errors" of run and sdpa. */
struct json_t *cli_comparison_json(const cli_comparison *comparison);

/* run_report.c */
void cli_run_print_line(const cli_run *run, fj_direction direction);
void cli_run_print_comparisons(const cli_run *run);
int cli_run_print_json(const cli_run *run);

#endif
