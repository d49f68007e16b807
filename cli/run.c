/* `flexjit run`: attention on the tensors of a file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/manifest.h"
#include "cli/report.h"
#include "cli/run.h"
#include "cli/verbs.h"

/* What the manifest that `flexjit fuse` wrote says of the mod; --scale wins. */
static int read_manifest(cli_run *run) {
    const char *path = cli_args_text(run->args, CLI_OPT_MANIFEST, NULL);
    cli_manifest manifest = {0};
    if (path == NULL) return CLI_EXIT_OK;
    if (run->args->positional_count == 0)
        return cli_usage(run->args->verb, "--manifest says the scale of a mod's file, which is missing");
    int status = cli_manifest_open(path, run->context, &manifest);
    const cli_manifest_entry *entry =
        status == CLI_EXIT_OK ? cli_manifest_find(&manifest, run->args->positionals[0]) : NULL;
    if (status == CLI_EXIT_OK && entry == NULL)
        status =
            cli_fail_file(CLI_EXIT_FAILED, path, "no entry has the mod '%.200s'", run->args->positionals[0]);
    if (entry != NULL && isnan(run->options.scale)) run->options.scale = entry->scale;
    cli_manifest_close(&manifest);
    return status;
}

static int begin(cli_run *run) {
    const cli_args *args = run->args;
    if (!cli_args_has(args, CLI_OPT_INPUT)) return cli_usage(args->verb, "--input FILE is missing");
    if (!cli_args_has(args, CLI_OPT_OUTPUT)) return cli_usage(args->verb, "--output FILE is missing");
    run->input_path = cli_args_text(args, CLI_OPT_INPUT, NULL);
    cli_report_input(run->input_path);
    run->backward = cli_args_has(args, CLI_OPT_BACKWARD);
    run->options.gradients = cli_args_text(args, CLI_OPT_GRADIENTS, NULL);
    run->options.scale = (double)NAN;
    int device;
    int status = cli_read_call_options(args, &run->options);
    if (status == CLI_EXIT_OK) status = cli_args_real(args, CLI_OPT_SCALE, &run->options.scale);
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_DEVICE, CLI_DEVICE_AUTO, &device);
    if (status == CLI_EXIT_OK) status = cli_context_open(&run->context);
    if (status == CLI_EXIT_OK) status = cli_device_open(run->context, args, (cli_device)device, &run->device);
    return status == CLI_EXIT_OK ? read_manifest(run) : status;
}

/* Every name of --gradients is that of a gradient. */
static int check_gradients(const cli_run *run) {
    const char *at = run->options.gradients;
    if (at == NULL) return CLI_EXIT_OK;
    if (!run->backward) return cli_usage(run->args->verb, "option '--gradients' is for --backward");
    for (;; at++) {
        const int length = (int)strcspn(at, ",");
        bool known = length == 2 &&
                     (strncmp(at, "dq", 2) == 0 || strncmp(at, "dk", 2) == 0 || strncmp(at, "dv", 2) == 0);
        const size_t captures = fj_mod_capture_count(run->mod), scalars = fj_mod_scalar_count(run->mod);
        for (size_t i = 0; i < captures + scalars && !known && length > 2 && strncmp(at, "d_", 2) == 0; i++) {
            const fj_input_info info =
                i < captures ? fj_mod_capture(run->mod, i) : fj_mod_scalar(run->mod, i - captures);
            known = info.gradient && strlen(info.name) == (size_t)length - 2 &&
                    memcmp(info.name, at + 2, (size_t)length - 2) == 0;
        }
        if (!known)
            return cli_usage(run->args->verb, "'--gradients': '%.*s' is not a gradient of this call", length,
                             at);
        at += length;
        if (*at == '\0') return CLI_EXIT_OK;
    }
}

/* The tensors come first, so that what the mod captures is known. */
static int load(cli_run *run) {
    int status = cli_bindings_open(run->args, &run->bindings);
    if (status == CLI_EXIT_OK)
        status = cli_mod_open(run->context, run->args, &run->bindings, false, &run->mod);
    if (status == CLI_EXIT_OK) status = check_gradients(run);
    if (status == CLI_EXIT_OK) status = cli_inputs_begin(&run->inputs, run->mod);
    if (status == CLI_EXIT_OK) status = cli_run_shape(run);
    if (status == CLI_EXIT_OK) status = cli_run_bind(run);
    if (status == CLI_EXIT_OK) status = cli_run_mask(run);
    if (status == CLI_EXIT_OK && isnan(run->options.scale)) {
        run->options.scale =
            run->options.shape.head_dim > 0 ? 1 / sqrt((double)run->options.shape.head_dim) : 1;
    }
    return status;
}

/* Before it runs, so that a call that brings the process down is there too. */
static int keep_call(cli_run *run, cli_kernel *kernel) {
    const char *folder = cli_args_text(run->args, CLI_OPT_CAPTURE, NULL);
    if (folder == NULL) return CLI_EXIT_OK;
    fj_error error = {0};
    fj_text file = {0};
    const int status = cli_kernel_put(kernel);
    if (status != CLI_EXIT_OK) return status;
    const fj_status result =
        fj_kernel_capture(kernel->kernel, &kernel->args, &kernel->launch, folder, &file, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    if (!cli_report_is_json()) printf("kept in %s\n", file.data);
    fj_text_finish(&file);
    return CLI_EXIT_OK;
}

static int compute(cli_run *run) {
    int status = CLI_EXIT_OK;
    fj_direction last = run->backward ? FJ_BACKWARD : FJ_FORWARD;
    for (fj_direction d = FJ_FORWARD; status == CLI_EXIT_OK && d <= last; d++) {
        status = cli_kernel_open(&run->kernels[d], run->device, run->mod, &run->options, d, &run->inputs,
                                 &run->outputs);
    }
    for (fj_direction d = FJ_FORWARD; status == CLI_EXIT_OK && d <= last; d++) {
        status = keep_call(run, &run->kernels[d]);
        if (status == CLI_EXIT_OK) status = cli_kernel_run(&run->kernels[d], &run->time_ms[d]);
    }
    return status;
}

/* The output file is begun before the work, so that one that cannot be written costs none. */
static int compute_and_save(cli_run *run, cli_tensor *tensors) {
    for (size_t i = 0; i < run->list.count; i++) {
        const cli_view *view = run->list.items[i].view;
        tensors[i] = (cli_tensor){
            .name = run->list.items[i].name,
            .dtype = view->dtype,
            .rank = view->tensor.ndim,
            .dims = view->tensor.shape,
            .size = view->count * fj_dtype_size(view->dtype),
            .data = view->tensor.data,
        };
    }
    cli_st_writer writer = {0};
    int status =
        cli_st_create(cli_args_text(run->args, CLI_OPT_OUTPUT, NULL), tensors, run->list.count, &writer);
    if (status != CLI_EXIT_OK) return status;
    status = compute(run);
    if (status == CLI_EXIT_OK) return cli_st_commit(&writer);
    cli_st_discard(&writer);
    return status;
}

static int execute(cli_run *run) {
    int status = begin(run);
    if (status == CLI_EXIT_OK) status = load(run);
    if (status == CLI_EXIT_OK) {
        fj_dtype dtype = run->options.dtype;
        status = cli_outputs_allocate(&run->outputs, &run->options, &run->inputs, run->mod, run->backward,
                                      dtype, cli_statistics_dtype(dtype));
    }
    if (status == CLI_EXIT_OK) status = cli_outputs_list(&run->outputs, run->mod, &run->list);
    if (status != CLI_EXIT_OK) return status;
    cli_tensor *tensors = calloc(run->list.count, sizeof *tensors);
    status = tensors == NULL ? cli_no_memory() : compute_and_save(run, tensors);
    free(tensors);
    return status;
}

static int report(cli_run *run) {
    bool json = cli_report_is_json();
    if (!json) {
        cli_run_print_line(run, FJ_FORWARD);
        if (run->backward) cli_run_print_line(run, FJ_BACKWARD);
    }
    int status = CLI_EXIT_OK;
    if (cli_args_has(run->args, CLI_OPT_CHECK)) {
        status = cli_run_check(run);
        if (status == CLI_EXIT_FAILED && run->comparisons != NULL) {
            if (!json) cli_run_print_comparisons(run);
            status = cli_fail(CLI_EXIT_FAILED, "an output is out of the bounds of the check");
        } else if (!json) {
            cli_run_print_comparisons(run);
        }
    }
    if (json) {
        int printed = cli_run_print_json(run);
        if (status == CLI_EXIT_OK) status = printed;
    }
    return status;
}

int cli_verb_run(const cli_args *args) {
    cli_run run = {.args = args};
    int status = execute(&run);
    if (status == CLI_EXIT_OK) status = report(&run);
    free(run.comparisons);
    cli_kernel_close(&run.kernels[FJ_FORWARD]);
    cli_kernel_close(&run.kernels[FJ_BACKWARD]);
    cli_output_list_finish(&run.list);
    cli_outputs_finish(&run.outputs);
    cli_inputs_finish(&run.inputs);
    fj_block_mask_unref(&run.block_mask);
    fj_mod_unref(&run.mod);
    cli_bindings_close(&run.bindings);
    fj_device_unref(&run.device);
    fj_context_unref(&run.context);
    return status;
}
