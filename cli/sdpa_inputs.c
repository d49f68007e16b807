/* `flexjit sdpa`: the tensors of the input file, and room for the results. Shapes are the library's to check. */
#include <string.h>

#include "cli/report.h"
#include "cli/sdpa.h"

static const struct {
    const char *name;
    bool required, backward; /* backward: only then */
} inputs_of[CLI_SDPA_INPUTS] = {
    [CLI_SDPA_Q] = {"q", true, false},
    [CLI_SDPA_K] = {"k", true, false},
    [CLI_SDPA_V] = {"v", true, false},
    [CLI_SDPA_MASK] = {"mask", false, false},
    [CLI_SDPA_CU_SEQLENS_Q] = {"cu_seqlens_q", false, false},
    [CLI_SDPA_CU_SEQLENS_KV] = {"cu_seqlens_kv", false, false},
    [CLI_SDPA_DO] = {"do", true, true},
    [CLI_SDPA_DLSE] = {"dlse", false, true},
};

static int bind_input(cli_sdpa *run, int which) {
    const char *name = inputs_of[which].name;
    const cli_tensor *tensor = cli_st_find(&run->file, name);
    if (tensor == NULL) {
        if (!inputs_of[which].required) return CLI_EXIT_OK;
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' is missing", name);
    }
    if (!tensor->known)
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' is %s, which is not supported",
                             name, tensor->dtype_name);
    if (tensor->rank > 4)
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                             "tensor '%s' has rank %d: ranks up to 4 are allowed", name, tensor->rank);
    int status = cli_check_bools(run->input_path, tensor);
    if (status != CLI_EXIT_OK) return status;
    return cli_view_borrow(&run->inputs.views[which], name, tensor->dtype, tensor->rank, tensor->dims,
                           tensor->data);
}

static bool is_used(const cli_sdpa *run, const char *name) {
    for (int i = 0; i < CLI_SDPA_INPUTS; i++)
        if (strcmp(inputs_of[i].name, name) == 0) return run->backward || !inputs_of[i].backward;
    return false;
}

int cli_sdpa_bind(cli_sdpa *run) {
    int status = cli_st_open(run->input_path, &run->file);
    for (int i = 0; i < CLI_SDPA_INPUTS && status == CLI_EXIT_OK; i++)
        if (run->backward || !inputs_of[i].backward) status = bind_input(run, i);
    for (size_t i = 0; i < run->file.count && status == CLI_EXIT_OK; i++) {
        const char *name = run->file.tensors[i].name;
        if (!is_used(run, name)) cli_warn("%s: nothing uses tensor '%.100s'", run->input_path, name);
    }
    run->inputs.dtype = run->inputs.views[CLI_SDPA_Q].dtype;
    return status;
}

void cli_sdpa_inputs_finish(cli_sdpa_inputs *inputs) {
    for (int i = 0; i < CLI_SDPA_INPUTS; i++) cli_view_finish(&inputs->views[i]);
}

/* ---- Results ------------------------------------------------------------------------------ */

static int allocate_forward(cli_sdpa_outputs *outputs, const cli_sdpa *run, fj_device *device,
                            const cli_sdpa_inputs *inputs, fj_dtype dtype) {
    const fj_sdpa_args args = cli_sdpa_args(run, inputs, outputs);
    const fj_dtype statistics = cli_statistics_dtype(dtype);
    int rank;
    int64_t shape[4], strides[4];
    fj_error error = {0};
    const fj_status result = fj_sdpa_out_layout(device, &args, &rank, shape, strides, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    const bool jagged = args.cu_seqlens_q != NULL || args.cu_seqlens_kv != NULL;
    const int64_t rows[2] = {shape[1], shape[0]};
    int status = cli_view_allocate(&outputs->out, "out", dtype, rank, shape);
    if (status == CLI_EXIT_OK)
        status = cli_view_allocate(&outputs->lse, "lse", statistics, rank - 1, jagged ? rows : shape);
    if (status == CLI_EXIT_OK && run->backward)
        status = cli_view_allocate(&outputs->lse_low, "lse_low", statistics, rank - 1, jagged ? rows : shape);
    return status;
}

static bool has_mask_gradient(const cli_view *mask) {
    return cli_view_is_set(mask) && mask->dtype >= FJ_DTYPE_F8_E4M3;
}

static int allocate_backward(cli_sdpa_outputs *outputs, const cli_sdpa_inputs *inputs, fj_dtype dtype) {
    const struct {
        const char *name;
        cli_view *view;
        cli_sdpa_input of;
        fj_dtype dtype;
    } gradients[] = {{"dq", &outputs->dquery, CLI_SDPA_Q, dtype},
                     {"dk", &outputs->dkey, CLI_SDPA_K, dtype},
                     {"dv", &outputs->dvalue, CLI_SDPA_V, dtype},
                     {"dmask", &outputs->dmask, CLI_SDPA_MASK, cli_statistics_dtype(dtype)}};
    int status = CLI_EXIT_OK;
    for (size_t i = 0; i < 4 && status == CLI_EXIT_OK; i++) {
        const cli_view *of = &inputs->views[gradients[i].of];
        if (gradients[i].of == CLI_SDPA_MASK && !has_mask_gradient(of)) continue;
        status = cli_view_allocate(gradients[i].view, gradients[i].name, gradients[i].dtype, of->tensor.ndim,
                                   of->dims);
    }
    return status;
}

static void list(cli_sdpa_outputs *outputs) {
    static char names[][6] = {"out", "lse", "dq", "dk", "dv", "dmask"};
    const struct {
        cli_output_kind kind;
        const cli_view *view;
    } all[] = {{CLI_OUTPUT_OUT, &outputs->out},   {CLI_OUTPUT_LSE, &outputs->lse},
               {CLI_OUTPUT_DQ, &outputs->dquery}, {CLI_OUTPUT_DK, &outputs->dkey},
               {CLI_OUTPUT_DV, &outputs->dvalue}, {CLI_OUTPUT_GRADIENT, &outputs->dmask}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (cli_view_is_set(all[i].view))
            outputs->items[outputs->count++] = (cli_output){all[i].kind, names[i], all[i].view};
}

int cli_sdpa_outputs_allocate(cli_sdpa_outputs *outputs, const cli_sdpa *run, fj_device *device,
                              const cli_sdpa_inputs *inputs, fj_dtype dtype) {
    int status = allocate_forward(outputs, run, device, inputs, dtype);
    if (status == CLI_EXIT_OK && run->backward) status = allocate_backward(outputs, inputs, dtype);
    if (status == CLI_EXIT_OK) list(outputs);
    return status;
}

void cli_sdpa_outputs_finish(cli_sdpa_outputs *outputs) {
    cli_view *const views[] = {&outputs->out,  &outputs->lse,    &outputs->lse_low, &outputs->dquery,
                               &outputs->dkey, &outputs->dvalue, &outputs->dmask};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) cli_view_finish(views[i]);
    *outputs = (cli_sdpa_outputs){0};
}
