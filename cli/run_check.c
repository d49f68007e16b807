/* `flexjit run --check`: the same call on the reference device, in double; unfused in the dtype of the inputs; and what
 * rounding does to each output. compare.c makes a judgement of them.
 *
 * The error of the unfused pass is the yardstick. In F64 it has none against a reference that is in double itself, so
 * there the yardstick is taken in F32, inputs rounded, and scaled to the unit of F64. */
#include <math.h>
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

static int launch_all(const cli_run *run, const cli_call_options *options, fj_device *device, pass *to) {
    fj_direction last = run->backward ? FJ_BACKWARD : FJ_FORWARD;
    int status = CLI_EXIT_OK;
    for (fj_direction direction = FJ_FORWARD; status == CLI_EXIT_OK && direction <= last; direction++) {
        cli_kernel kernel;
        double time_ms;
        status = cli_kernel_open(&kernel, device, run->mod, options, direction, to->inputs, &to->outputs);
        if (status != CLI_EXIT_OK) break;
        status = cli_kernel_run(&kernel, &time_ms);
        cli_kernel_close(&kernel);
    }
    return status;
}

/* The outputs of the reference and of rounding are F64, whatever the inputs. */
static int compute(const cli_run *run, pass *to) {
    cli_call_options options = run->options;
    options.dtype = to->dtype;
    cli_forget_variants(&options);
    fj_dtype dtype = to->kind == FJ_DEVICE_UNFUSED ? to->dtype : FJ_DTYPE_F64;
    fj_device *device = NULL;
    fj_error error = {0};
    fj_status result = fj_device_create(run->context, to->kind, &device, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    int status = cli_outputs_allocate(&to->outputs, &options, to->inputs, run->mod, run->backward, dtype,
                                      cli_statistics_dtype(dtype));
    if (status == CLI_EXIT_OK) status = launch_all(run, &options, device, to);
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
    for (int i = 0; i < CLI_SEQUENCES; i++) {
        const cli_view *view = &from->sequences[i];
        if (!cli_view_is_set(view)) continue;
        (void)cli_view_borrow(&ret_inputs->sequences[i], "", view->dtype, view->tensor.ndim, view->dims,
                              view->tensor.data); /* aligned already: no copy */
    }
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

/* The passes that the outputs are judged by. In F64 the yardstick's are those of inputs in F32. */
struct cli_check {
    pass reference, rounding, unfused, unfused_reference;
    cli_inputs rounded;
    bool wide;
};

static int compute_all(const cli_run *run, cli_check *all) {
    fj_dtype dtype = run->options.dtype;
    all->wide = dtype == FJ_DTYPE_F64;
    all->reference = (pass){.kind = FJ_DEVICE_REFERENCE, .dtype = dtype, .inputs = &run->inputs};
    all->rounding = (pass){.kind = FJ_DEVICE_ROUNDING, .dtype = dtype, .inputs = &run->inputs};
    all->unfused = (pass){.kind = FJ_DEVICE_UNFUSED, .dtype = dtype, .inputs = &run->inputs};
    int status = compute(run, &all->reference);
    if (status == CLI_EXIT_OK) status = compute(run, &all->rounding);
    if (status == CLI_EXIT_OK && all->wide) {
        status = round_inputs(&run->inputs, &all->rounded);
        all->unfused.dtype = FJ_DTYPE_F32;
        all->unfused.inputs = &all->rounded;
        all->unfused_reference = all->unfused;
        all->unfused_reference.kind = FJ_DEVICE_REFERENCE;
        if (status == CLI_EXIT_OK) status = compute(run, &all->unfused_reference);
    }
    if (status == CLI_EXIT_OK) status = compute(run, &all->unfused);
    return status;
}

static void forget_all(cli_check *all) {
    forget(&all->reference);
    forget(&all->rounding);
    forget(&all->unfused);
    forget(&all->unfused_reference);
    if (all->wide) forget_rounded(&all->rounded);
}

int cli_check_compare(const cli_check *check, const cli_run *run, cli_comparison *comparisons, bool *ret_ok) {
    fj_dtype dtype = run->options.dtype;
    bool ok = true;
    for (size_t i = 0; i < run->list.count; i++) {
        const cli_output *x = &run->list.items[i];
        const pass *exact = check->wide ? &check->unfused_reference : &check->reference;
        cli_evidence evidence = cli_evidence_of(x, &run->options, dtype, &check->reference.outputs.lse);
        if (x->kind == CLI_OUTPUT_OUT && fj_mod_out_origin(run->mod).name != NULL)
            evidence.masked = NULL; /* what its mod makes of 0 */
        evidence.reference = check->reference.list.items[i].view;
        evidence.noise = check->rounding.list.items[i].view;
        evidence.unfused = check->unfused.list.items[i].view;
        evidence.unfused_reference = exact->list.items[i].view;
        evidence.unfused_scale = check->wide ? 0x1p-29 : 1;
        int status = cli_compare(&evidence, &comparisons[i]);
        if (status != CLI_EXIT_OK) return status;
        ok = ok && comparisons[i].ok;
    }
    *ret_ok = ok;
    return CLI_EXIT_OK;
}

int cli_check_open(const cli_run *run, cli_check **ret_check) {
    cli_check *check = calloc(1, sizeof *check);
    int status = check == NULL ? cli_no_memory() : compute_all(run, check);
    if (status == CLI_EXIT_OK)
        *ret_check = check;
    else
        cli_check_close(&check);
    return status;
}

double cli_check_noise(const cli_check *check, size_t output) {
    const cli_view *noise = check->rounding.list.items[output].view;
    double sum = 0;
    size_t finite = 0;
    for (size_t i = 0; i < noise->count; i++) {
        const double value = cli_load(noise->dtype, noise->tensor.data, i);
        if (!isfinite(value)) continue;
        sum += value * value;
        finite++;
    }
    return finite > 0 ? sqrt(sum / (double)finite) : 0;
}

void cli_check_close(cli_check **check) {
    if (*check == NULL) return;
    forget_all(*check);
    free(*check);
    *check = NULL;
}

int cli_run_check(cli_run *run) {
    cli_check *check = NULL;
    bool ok = false;
    cli_comparison *comparisons = calloc(run->list.count + 1, sizeof *comparisons);
    int status = comparisons == NULL ? cli_no_memory() : cli_check_open(run, &check);
    if (status == CLI_EXIT_OK) {
        run->comparisons = comparisons;
        comparisons = NULL;
        status = cli_check_compare(check, run, run->comparisons, &ok);
    }
    free(comparisons);
    cli_check_close(&check);
    return status == CLI_EXIT_OK && !ok ? CLI_EXIT_FAILED : status;
}
