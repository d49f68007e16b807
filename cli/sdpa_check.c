/* `flexjit sdpa --check`: the same call on the reference device, unfused, and what rounding does, as run_check.c has it. */
#include <stdlib.h>

#include "cli/number.h"
#include "cli/report.h"
#include "cli/sdpa.h"

typedef struct pass {
    fj_device_kind kind;
    const cli_sdpa_inputs *inputs;
    cli_sdpa_outputs outputs;
} pass;

typedef struct passes {
    pass reference, rounding, unfused, unfused_reference;
    cli_sdpa_inputs rounded;
    bool wide;
} passes;

/* The outputs of the reference and of rounding are F64, whatever the inputs. */
static int compute(const cli_sdpa *run, pass *to) {
    const fj_dtype dtype = to->kind == FJ_DEVICE_UNFUSED ? to->inputs->dtype : FJ_DTYPE_F64;
    const fj_direction last = run->backward ? FJ_BACKWARD : FJ_FORWARD;
    fj_device *device = NULL;
    fj_error error = {0};
    const fj_status result = fj_device_create(run->context, to->kind, &device, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    int status = cli_sdpa_outputs_allocate(&to->outputs, run, device, to->inputs, dtype);
    for (fj_direction d = FJ_FORWARD; d <= last && status == CLI_EXIT_OK; d++) {
        cli_sdpa_step step;
        status = cli_sdpa_open(&step, run, device, d, to->inputs, &to->outputs);
        if (status == CLI_EXIT_OK) status = cli_sdpa_step_run(&step, run->workers);
        cli_sdpa_close(&step);
    }
    fj_device_unref(&device);
    return status;
}

/* In F64 the yardstick is that of inputs in F32; the mask and the lists stay as they are. */
static int round_inputs(const cli_sdpa_inputs *from, cli_sdpa_inputs *to) {
    static const int rounded[] = {CLI_SDPA_Q, CLI_SDPA_K, CLI_SDPA_V, CLI_SDPA_DO, CLI_SDPA_DLSE};
    int status = CLI_EXIT_OK;
    to->dtype = FJ_DTYPE_F32;
    for (int i = CLI_SDPA_MASK; i <= CLI_SDPA_CU_SEQLENS_KV; i++) {
        const cli_view *view = &from->views[i];
        if (cli_view_is_set(view)) /* aligned already: no copy */
            (void)cli_view_borrow(&to->views[i], "", view->dtype, view->tensor.ndim, view->dims,
                                  view->tensor.data);
    }
    for (size_t n = 0; n < sizeof rounded / sizeof rounded[0] && status == CLI_EXIT_OK; n++) {
        const cli_view *view = &from->views[rounded[n]];
        cli_view *copy = &to->views[rounded[n]];
        if (!cli_view_is_set(view)) continue;
        status = cli_view_allocate(copy, "a tensor in F32", FJ_DTYPE_F32, view->tensor.ndim, view->dims);
        for (size_t i = 0; i < view->count && status == CLI_EXIT_OK; i++)
            cli_store(FJ_DTYPE_F32, copy->tensor.data, i, cli_load(view->dtype, view->tensor.data, i));
    }
    return status;
}

static int compute_all(const cli_sdpa *run, passes *all) {
    all->wide = run->inputs.dtype == FJ_DTYPE_F64;
    all->reference = (pass){.kind = FJ_DEVICE_REFERENCE, .inputs = &run->inputs};
    all->rounding = (pass){.kind = FJ_DEVICE_ROUNDING, .inputs = &run->inputs};
    all->unfused = (pass){.kind = FJ_DEVICE_UNFUSED, .inputs = all->wide ? &all->rounded : &run->inputs};
    all->unfused_reference = (pass){.kind = FJ_DEVICE_REFERENCE, .inputs = &all->rounded};
    int status = compute(run, &all->reference);
    if (status == CLI_EXIT_OK) status = compute(run, &all->rounding);
    if (status == CLI_EXIT_OK && all->wide) status = round_inputs(&run->inputs, &all->rounded);
    if (status == CLI_EXIT_OK && all->wide) status = compute(run, &all->unfused_reference);
    if (status == CLI_EXIT_OK) status = compute(run, &all->unfused);
    return status;
}

static int compare(const cli_sdpa *run, const passes *all, cli_comparison *comparisons, bool *ret_ok) {
    const bool jagged = run->file.count > 0 && (cli_view_is_set(&run->inputs.views[CLI_SDPA_CU_SEQLENS_Q]) ||
                                                cli_view_is_set(&run->inputs.views[CLI_SDPA_CU_SEQLENS_KV]));
    const cli_view *lse = &all->reference.outputs.lse;
    const cli_call_options options = {
        .form = jagged ? FJ_FORM_PACKED : FJ_FORM_DENSE,
        .shape = {.heads = jagged ? lse->dims[0] : 0},
    };
    const pass *exact = all->wide ? &all->unfused_reference : &all->reference;
    *ret_ok = true;
    for (size_t i = 0; i < run->outputs.count; i++) {
        cli_evidence evidence = cli_evidence_of(&run->outputs.items[i], &options, run->inputs.dtype, lse);
        if (evidence.rows != lse->count) evidence.masked = NULL; /* a query that is broadcast */
        evidence.reference = all->reference.outputs.items[i].view;
        evidence.noise = all->rounding.outputs.items[i].view;
        evidence.unfused = all->unfused.outputs.items[i].view;
        evidence.unfused_reference = exact->outputs.items[i].view;
        evidence.unfused_scale = all->wide ? 0x1p-29 : 1;
        const int status = cli_compare(&evidence, &comparisons[i]);
        if (status != CLI_EXIT_OK) return status;
        *ret_ok = *ret_ok && comparisons[i].ok;
    }
    return CLI_EXIT_OK;
}

int cli_sdpa_check(cli_sdpa *run) {
    passes all = {0};
    bool ok = false;
    cli_comparison *comparisons = calloc(run->outputs.count + 1, sizeof *comparisons);
    int status = comparisons == NULL ? cli_no_memory() : compute_all(run, &all);
    if (status == CLI_EXIT_OK) status = compare(run, &all, comparisons, &ok);
    if (status == CLI_EXIT_OK) {
        run->comparisons = comparisons;
        comparisons = NULL;
    }
    free(comparisons);
    cli_sdpa_outputs_finish(&all.reference.outputs);
    cli_sdpa_outputs_finish(&all.rounding.outputs);
    cli_sdpa_outputs_finish(&all.unfused.outputs);
    cli_sdpa_outputs_finish(&all.unfused_reference.outputs);
    cli_sdpa_inputs_finish(&all.rounded);
    return status == CLI_EXIT_OK && !ok ? CLI_EXIT_FAILED : status;
}
