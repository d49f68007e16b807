/* `flexjit sdpa`: scaled dot product attention of the tensors of a file. */
#include "cli/sdpa.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/patience.h"
#include "cli/report.h"
#include "cli/verbs.h"

/* ---- The command line --------------------------------------------------------------------- */

static int read_causal(cli_sdpa *run) {
    const bool upper = cli_args_has(run->args, CLI_OPT_CAUSAL),
               lower = cli_args_has(run->args, CLI_OPT_CAUSAL_LOWER_RIGHT);
    if (upper && lower)
        return cli_usage(run->args->verb, "'--causal' and '--causal-lower-right' exclude each other");
    run->call.causal = upper ? FJ_SDPA_UPPER_LEFT : lower ? FJ_SDPA_LOWER_RIGHT : FJ_SDPA_NOT_CAUSAL;
    return CLI_EXIT_OK;
}

static int read_backends(cli_sdpa *run) {
    int indices[CLI_MAX_CHOICES];
    size_t count = 0;
    const int status = cli_args_choices(run->args, CLI_OPT_BACKEND, indices, &count);
    for (size_t i = 0; i < count && status == CLI_EXIT_OK; i++) run->call.backends |= 1u << indices[i];
    return status;
}

static int read_options(cli_sdpa *run) {
    cli_call_options options = {0};
    int status = cli_read_call_options(run->args, &options);
    if (status == CLI_EXIT_OK) status = read_causal(run);
    if (status == CLI_EXIT_OK) status = read_backends(run);
    if (status == CLI_EXIT_OK) status = cli_args_real(run->args, CLI_OPT_SCALE, &run->scale);
    if (status != CLI_EXIT_OK) return status;
    if (cli_args_has(run->args, CLI_OPT_SCALE)) run->call.scale = &run->scale;
    run->call.nondeterministic = options.nondeterministic;
    run->call.tf32 = options.tf32;
    run->call.dropout = options.dropout_rate;
    run->call.dropout_seed = options.dropout_seed;
    run->workers = options.workers;
    return CLI_EXIT_OK;
}

static int begin(cli_sdpa *run) {
    const cli_args *args = run->args;
    int device;
    if (args->positional_count > 0)
        return cli_usage(args->verb, "unexpected argument '%s': tensors come from --input",
                         args->positionals[0]);
    if (!cli_args_has(args, CLI_OPT_INPUT)) return cli_usage(args->verb, "--input FILE is missing");
    if (!cli_args_has(args, CLI_OPT_OUTPUT)) return cli_usage(args->verb, "--output FILE is missing");
    run->input_path = cli_args_text(args, CLI_OPT_INPUT, NULL);
    cli_report_input(run->input_path);
    run->backward = cli_args_has(args, CLI_OPT_BACKWARD);
    run->call.struct_size = sizeof run->call;
    int status = read_options(run);
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_DEVICE, CLI_DEVICE_AUTO, &device);
    if (status == CLI_EXIT_OK) status = cli_context_open(&run->context);
    if (status == CLI_EXIT_OK) status = cli_device_open(run->context, args, (cli_device)device, &run->device);
    return status;
}

/* ---- A step ------------------------------------------------------------------------------- */

static const DLTensor *tensor_of(const cli_view *view) {
    return cli_view_is_set(view) ? &view->tensor : NULL;
}

fj_sdpa_args cli_sdpa_args(const cli_sdpa *run, const cli_sdpa_inputs *inputs,
                           const cli_sdpa_outputs *outputs) {
    const cli_view *in = inputs->views;
    fj_sdpa_args args = run->call;
    args.query = tensor_of(&in[CLI_SDPA_Q]);
    args.key = tensor_of(&in[CLI_SDPA_K]);
    args.value = tensor_of(&in[CLI_SDPA_V]);
    args.mask = tensor_of(&in[CLI_SDPA_MASK]);
    args.cu_seqlens_q = tensor_of(&in[CLI_SDPA_CU_SEQLENS_Q]);
    args.cu_seqlens_kv = tensor_of(&in[CLI_SDPA_CU_SEQLENS_KV]);
    args.out = tensor_of(&outputs->out);
    args.lse = tensor_of(&outputs->lse);
    args.lse_low = tensor_of(&outputs->lse_low);
    args.dout = tensor_of(&in[CLI_SDPA_DO]);
    args.dlse = tensor_of(&in[CLI_SDPA_DLSE]);
    args.dquery = tensor_of(&outputs->dquery);
    args.dkey = tensor_of(&outputs->dkey);
    args.dvalue = tensor_of(&outputs->dvalue);
    args.dmask = tensor_of(&outputs->dmask);
    return args;
}

/* The same on a device with memory of its own. */
static int place(cli_sdpa_step *step, const cli_sdpa_inputs *inputs, const cli_sdpa_outputs *outputs) {
    const cli_view *in = inputs->views;
    const bool backward = step->direction == FJ_BACKWARD;
    fj_sdpa_args *args = &step->args;
    const struct {
        const cli_view *view;
        const DLTensor **to;
        bool is_input, is_output;
    } slots[] = {
        {&in[CLI_SDPA_Q], &args->query, true, false},
        {&in[CLI_SDPA_K], &args->key, true, false},
        {&in[CLI_SDPA_V], &args->value, true, false},
        {&in[CLI_SDPA_MASK], &args->mask, true, false},
        {&in[CLI_SDPA_CU_SEQLENS_Q], &args->cu_seqlens_q, true, false},
        {&in[CLI_SDPA_CU_SEQLENS_KV], &args->cu_seqlens_kv, true, false},
        {&in[CLI_SDPA_DO], &args->dout, true, false},
        {&in[CLI_SDPA_DLSE], &args->dlse, true, false},
        {&outputs->out, &args->out, backward, !backward},
        {&outputs->lse, &args->lse, backward, !backward},
        {&outputs->lse_low, &args->lse_low, backward, !backward},
        {&outputs->dquery, &args->dquery, false, true},
        {&outputs->dkey, &args->dkey, false, true},
        {&outputs->dvalue, &args->dvalue, false, true},
        {&outputs->dmask, &args->dmask, false, true},
    };
    enum { SLOTS = sizeof slots / sizeof slots[0], FORWARD = 11 };
    int status = cli_device_copies_begin(&step->copies, step->device, SLOTS);
    for (size_t i = 0; i < (backward ? SLOTS : FORWARD) && status == CLI_EXIT_OK; i++)
        status = cli_device_copies_add(&step->copies, slots[i].view, slots[i].is_input, slots[i].is_output,
                                       slots[i].to);
    return status;
}

static fj_status make(cli_sdpa_step *step, fj_error *error) {
    step->report.struct_size = sizeof step->report;
    fj_status result = fj_sdpa_backends(step->device, step->direction, &step->args, &step->report, error);
    cli_interrupt_hold();
    cli_patience_begin();
    if (result == FJ_OK)
        result = fj_sdpa_create(step->device, step->direction, &step->args, &step->op, error);
    cli_patience_end();
    cli_interrupt_release();
    if (result == FJ_OK) step->info = fj_sdpa_describe(step->op);
    if (result == FJ_OK) result = fj_timer_create(step->device, &step->timer, error);
    return result;
}

int cli_sdpa_open(cli_sdpa_step *step, const cli_sdpa *run, fj_device *device, fj_direction direction,
                  const cli_sdpa_inputs *inputs, const cli_sdpa_outputs *outputs) {
    *step = (cli_sdpa_step){
        .device = device, .direction = direction, .args = cli_sdpa_args(run, inputs, outputs)};
    if (device != run->device) step->args.backends = 0;
    const int status = place(step, inputs, outputs);
    if (status != CLI_EXIT_OK) return status;
    fj_error error = {0};
    const fj_launch launch = {.struct_size = sizeof launch, .workers = run->workers};
    fj_status result = make(step, &error);
    if (result == FJ_OK)
        result = fj_sdpa_workspace(step->op, &step->args, &launch, &step->workspace_size, &error);
    if (result == FJ_OK) result = fj_device_alloc(device, step->workspace_size, &step->workspace, &error);
    if (result == FJ_OK) return CLI_EXIT_OK;
    if (cli_interrupted()) {
        fj_error_finish(&error);
        return CLI_EXIT_INTERRUPTED;
    }
    return cli_fail_library(result, &error);
}

int cli_sdpa_step_run(cli_sdpa_step *step, int workers) {
    const fj_launch launch = {.struct_size = sizeof launch, .workers = workers};
    fj_error error = {0};
    const int status = cli_device_copies_put(&step->copies);
    if (status != CLI_EXIT_OK) return status;
    fj_status result = fj_timer_start(step->timer, NULL, &error);
    if (result == FJ_OK)
        result =
            fj_sdpa_launch(step->op, &step->args, &launch, step->workspace, step->workspace_size, &error);
    if (result == FJ_OK) result = fj_timer_stop(step->timer, NULL, &error);
    if (result == FJ_OK) result = fj_timer_read(step->timer, &step->time_ms, &error);
    return result == FJ_OK ? cli_device_copies_get(&step->copies) : cli_fail_library(result, &error);
}

void cli_sdpa_close(cli_sdpa_step *step) {
    fj_sdpa_unref(&step->op);
    fj_timer_unref(&step->timer);
    fj_device_free(step->device, &step->workspace);
    cli_device_copies_finish(&step->copies);
    *step = (cli_sdpa_step){0};
}

/* ---- The verb ----------------------------------------------------------------------------- */

static int compute(cli_sdpa *run) {
    int status = CLI_EXIT_OK;
    const fj_direction last = run->backward ? FJ_BACKWARD : FJ_FORWARD;
    for (fj_direction d = FJ_FORWARD; d <= last && status == CLI_EXIT_OK; d++)
        status = cli_sdpa_open(&run->steps[d], run, run->device, d, &run->inputs, &run->outputs);
    for (fj_direction d = FJ_FORWARD; d <= last && status == CLI_EXIT_OK; d++)
        status = cli_sdpa_step_run(&run->steps[d], run->workers);
    return status;
}

/* The output file is begun before the work, so that one that cannot be written costs none. */
static int compute_and_save(cli_sdpa *run) {
    cli_tensor tensors[sizeof run->outputs.items / sizeof run->outputs.items[0]];
    const cli_sdpa_outputs *outputs = &run->outputs;
    cli_st_writer writer = {0};
    for (size_t i = 0; i < outputs->count; i++) {
        const cli_view *view = outputs->items[i].view;
        tensors[i] = (cli_tensor){
            .name = outputs->items[i].name,
            .dtype = view->dtype,
            .rank = view->tensor.ndim,
            .dims = view->tensor.shape,
            .size = view->count * fj_dtype_size(view->dtype),
            .data = view->tensor.data,
        };
    }
    int status =
        cli_st_create(cli_args_text(run->args, CLI_OPT_OUTPUT, NULL), tensors, outputs->count, &writer);
    if (status != CLI_EXIT_OK) return status;
    status = compute(run);
    if (status == CLI_EXIT_OK) return cli_st_commit(&writer);
    cli_st_discard(&writer);
    return status;
}

static int execute(cli_sdpa *run) {
    int status = begin(run);
    if (status == CLI_EXIT_OK) status = cli_sdpa_bind(run);
    if (status == CLI_EXIT_OK)
        status = cli_sdpa_outputs_allocate(&run->outputs, run, run->device, &run->inputs, run->inputs.dtype);
    return status == CLI_EXIT_OK ? compute_and_save(run) : status;
}

static int report(cli_sdpa *run) {
    const bool json = cli_report_is_json();
    int status = CLI_EXIT_OK;
    for (fj_direction d = FJ_FORWARD; !json && d <= (run->backward ? FJ_BACKWARD : FJ_FORWARD); d++)
        cli_sdpa_print_line(run, d);
    if (cli_args_has(run->args, CLI_OPT_CHECK)) {
        status = cli_sdpa_check(run);
        if (!json) cli_sdpa_print_comparisons(run);
        if (status == CLI_EXIT_FAILED && run->comparisons != NULL)
            status = cli_fail(CLI_EXIT_FAILED, "an output is out of the bounds of the check");
    }
    return status;
}

static void finish(cli_sdpa *run) {
    free(run->comparisons);
    cli_sdpa_close(&run->steps[FJ_FORWARD]);
    cli_sdpa_close(&run->steps[FJ_BACKWARD]);
    cli_sdpa_outputs_finish(&run->outputs);
    cli_sdpa_inputs_finish(&run->inputs);
    cli_st_close(&run->file);
    fj_device_unref(&run->device);
    fj_context_unref(&run->context);
}

int cli_verb_sdpa(const cli_args *args) {
    cli_sdpa run = {.args = args};
    int status = execute(&run);
    if (status == CLI_EXIT_OK) status = report(&run);
    /* What is known of the backends is also reported where none is left. */
    if (cli_report_is_json() && run.steps[FJ_FORWARD].report.struct_size > 0) {
        const int printed = cli_sdpa_print_json(&run);
        if (status == CLI_EXIT_OK) status = printed;
    }
    finish(&run);
    return status;
}
