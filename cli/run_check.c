/* `flexjit run --check`: the same call on the reference device, in double, and unfused in the dtype of the inputs.
 *
 * The error of the unfused pass is the yardstick. In F64 it has none against a reference that is in double itself, so
 * there the yardstick is taken in F32, inputs rounded, and scaled to the unit of F64. */
#include <stdlib.h>

#include "cli/number.h"
#include "cli/report.h"
#include "cli/run.h"

/* Outputs of one kind of device for inputs of one dtype. */
typedef struct pass {
    fj_device_kind kind;
    fj_dtype dtype; /* of the inputs */
    const cli_inputs *inputs;
    cli_outputs outputs;
    cli_output_list list;
} pass;

static int launch_all(const cli_run *run, const cli_wish *wish, fj_device *device, pass *to) {
    fj_direction last = run->backward ? FJ_BACKWARD : FJ_FORWARD;
    int status = CLI_EXIT_OK;
    for (fj_direction direction = FJ_FORWARD; status == CLI_EXIT_OK && direction <= last; direction++) {
        cli_kernel kernel;
        double time_ms;
        status = cli_kernel_open(&kernel, device, run->mod, wish, direction, to->inputs, &to->outputs);
        if (status != CLI_EXIT_OK) break;
        status = cli_kernel_run(&kernel, &time_ms);
        cli_kernel_close(&kernel);
    }
    return status;
}

/* The reference's outputs are F64, whatever the inputs. */
static int compute(const cli_run *run, pass *to) {
    cli_wish wish = run->wish;
    wish.dtype = to->dtype;
    wish.variants[FJ_FORWARD] = wish.variants[FJ_BACKWARD] = NULL;
    fj_dtype dtype = to->kind == FJ_DEVICE_REFERENCE ? FJ_DTYPE_F64 : to->dtype;
    fj_device *device = NULL;
    fj_error error = {0};
    fj_status result = fj_device_create(run->context, to->kind, &device, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    int status = cli_outputs_allocate(&to->outputs, &wish, to->inputs, run->mod, run->backward, dtype,
                                      cli_statistics_dtype(dtype));
    if (status == CLI_EXIT_OK) status = launch_all(run, &wish, device, to);
    if (status == CLI_EXIT_OK) status = cli_outputs_list(&to->outputs, run->mod, &to->list);
    fj_device_unref(&device);
    return status;
}

static void forget(pass *to) {
    cli_output_list_finish(&to->list);
    cli_outputs_finish(&to->outputs);
}

/* ---- Inputs in F32 ----------------------------------------------------------------------- */

static int round_view(const char *name, const cli_view *from, cli_view *to) {
    if (!cli_view_is_set(from)) return CLI_EXIT_OK;
    int status = cli_view_allocate(to, name, FJ_DTYPE_F32, from->tensor.ndim, from->dims);
    for (size_t i = 0; status == CLI_EXIT_OK && i < from->count; i++) {
        cli_store(FJ_DTYPE_F32, to->tensor.data, i, cli_load(from->dtype, from->tensor.data, i));
    }
    return status;
}

/* Captures stay as they are bound; ret shares them. */
static int round_inputs(const cli_inputs *from, cli_inputs *ret_inputs) {
    *ret_inputs = (cli_inputs){
        .captures = from->captures,
        .scalars = from->scalars,
        .capture_count = from->capture_count,
        .scalar_count = from->scalar_count,
    };
    int status = round_view("q", &from->query, &ret_inputs->query);
    if (status == CLI_EXIT_OK) status = round_view("k", &from->key, &ret_inputs->key);
    if (status == CLI_EXIT_OK) status = round_view("v", &from->value, &ret_inputs->value);
    if (status == CLI_EXIT_OK) status = round_view("do", &from->dout, &ret_inputs->dout);
    if (status == CLI_EXIT_OK) status = round_view("dlse", &from->dlse, &ret_inputs->dlse);
    return status;
}

static void forget_rounded(cli_inputs *inputs) {
    inputs->captures = NULL;
    inputs->scalars = NULL;
    cli_inputs_finish(inputs);
}

/* ---- Comparing --------------------------------------------------------------------------- */

/* F of the contract. */
static double factor_of(cli_output_kind kind, fj_dtype dtype) {
    double base = dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16 ? 1.1 : 10;
    switch (kind) {
    case CLI_OUTPUT_OUT:
    case CLI_OUTPUT_LSE:
    case CLI_OUTPUT_MAX: return base;
    case CLI_OUTPUT_DQ: return 2.5 * base;
    case CLI_OUTPUT_DK:
    case CLI_OUTPUT_DV:
    case CLI_OUTPUT_GRADIENT: return 4 * base;
    }
    return base;
}

/* The error that an unfused pass makes in each output. */
static void measure(const pass *unfused, const pass *reference, double scale, double *errors) {
    for (size_t i = 0; i < unfused->list.count; i++) {
        errors[i] = scale * cli_mean_error(unfused->list.items[i].view, reference->list.items[i].view);
    }
}

static int measure_f64(const cli_run *run, double *errors) {
    cli_inputs rounded;
    int status = round_inputs(&run->inputs, &rounded);
    pass reference = {.kind = FJ_DEVICE_REFERENCE, .dtype = FJ_DTYPE_F32, .inputs = &rounded};
    pass unfused = {.kind = FJ_DEVICE_UNFUSED, .dtype = FJ_DTYPE_F32, .inputs = &rounded};
    if (status == CLI_EXIT_OK) status = compute(run, &reference);
    if (status == CLI_EXIT_OK) status = compute(run, &unfused);
    if (status == CLI_EXIT_OK) measure(&unfused, &reference, 0x1p-29, errors);
    forget(&reference);
    forget(&unfused);
    forget_rounded(&rounded);
    return status;
}

static int measure_error(const cli_run *run, const pass *reference, double *errors) {
    if (run->wish.dtype == FJ_DTYPE_F64) return measure_f64(run, errors);
    pass unfused = {.kind = FJ_DEVICE_UNFUSED, .dtype = run->wish.dtype, .inputs = &run->inputs};
    int status = compute(run, &unfused);
    if (status == CLI_EXIT_OK) measure(&unfused, reference, 1, errors);
    forget(&unfused);
    return status;
}

/* Rows of out and dq are those of lse. lse and max have their own unit; the gradients of captures, sums of products
 * that were rounded to the inputs' dtype, have that one's. */
static bool compare_all(cli_run *run, const pass *reference, const double *errors) {
    bool ok = true;
    for (size_t i = 0; i < run->list.count; i++) {
        const cli_output *x = &run->list.items[i];
        bool rows = x->kind == CLI_OUTPUT_OUT || x->kind == CLI_OUTPUT_DQ;
        bool statistic = x->kind == CLI_OUTPUT_LSE || x->kind == CLI_OUTPUT_MAX;
        cli_compare(x->view, reference->list.items[i].view, rows ? &reference->outputs.lse : NULL,
                    factor_of(x->kind, run->wish.dtype) * errors[i],
                    statistic ? x->view->dtype : run->wish.dtype, &run->comparisons[i]);
        ok = ok && run->comparisons[i].ok;
    }
    return ok;
}

int cli_run_check(cli_run *run) {
    pass reference = {.kind = FJ_DEVICE_REFERENCE, .dtype = run->wish.dtype, .inputs = &run->inputs};
    double *errors = calloc(run->list.count + 1, sizeof *errors);
    cli_comparison *comparisons = calloc(run->list.count + 1, sizeof *comparisons);
    int status = errors == NULL || comparisons == NULL ? cli_no_memory() : compute(run, &reference);
    if (status == CLI_EXIT_OK) status = measure_error(run, &reference, errors);
    if (status == CLI_EXIT_OK) {
        run->comparisons = comparisons;
        comparisons = NULL;
        status = compare_all(run, &reference, errors) ? CLI_EXIT_OK : CLI_EXIT_FAILED;
    }
    free(comparisons);
    free(errors);
    forget(&reference);
    return status;
}
