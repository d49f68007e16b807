/* The outputs of a call: made for a problem, and listed by name. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/call.h"
#include "cli/report.h"

fj_dtype cli_statistics_dtype(fj_dtype dtype) { return dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32; }

static int allocate_gradients(cli_outputs *outputs, const cli_inputs *inputs, const fj_mod *mod,
                              fj_dtype dtype) {
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < outputs->capture_count; i++) {
        const DLTensor *capture = &inputs->captures[i].tensor;
        fj_input_info info = fj_mod_capture(mod, i);
        if (!info.gradient) continue;
        status = cli_view_allocate(&outputs->dcaptures[i], info.name, dtype, capture->ndim, capture->shape);
    }
    for (size_t i = 0; status == CLI_EXIT_OK && i < outputs->scalar_count; i++) {
        fj_input_info info = fj_mod_scalar(mod, i);
        if (info.gradient) status = cli_view_allocate(&outputs->dscalars[i], info.name, dtype, 0, NULL);
    }
    return status;
}

static int allocate_backward(cli_outputs *outputs, const cli_inputs *inputs, const fj_mod *mod,
                             fj_dtype dtype, fj_dtype statistics) {
    int status = cli_view_allocate(&outputs->dquery, "dq", dtype, 4, inputs->query.dims);
    if (status == CLI_EXIT_OK) status = cli_view_allocate(&outputs->dkey, "dk", dtype, 4, inputs->key.dims);
    if (status == CLI_EXIT_OK)
        status = cli_view_allocate(&outputs->dvalue, "dv", dtype, 4, inputs->value.dims);
    if (status == CLI_EXIT_OK) status = allocate_gradients(outputs, inputs, mod, statistics);
    return status;
}

int cli_outputs_allocate(cli_outputs *outputs, const cli_call_options *options, const cli_inputs *inputs,
                         const fj_mod *mod, bool backward, fj_dtype dtype, fj_dtype statistics) {
    const cli_shape *shape = &options->shape;
    const int64_t dims[4] = {shape->batch, shape->heads, shape->q_len, shape->value_dim};
    *outputs = (cli_outputs){.capture_count = inputs->capture_count, .scalar_count = inputs->scalar_count};
    outputs->dcaptures = calloc(outputs->capture_count + 1, sizeof *outputs->dcaptures);
    outputs->dscalars = calloc(outputs->scalar_count + 1, sizeof *outputs->dscalars);
    int status = CLI_EXIT_OK;
    if (outputs->dcaptures == NULL || outputs->dscalars == NULL) status = cli_no_memory();
    if (status == CLI_EXIT_OK) status = cli_view_allocate(&outputs->out, "out", dtype, 4, dims);
    if (status == CLI_EXIT_OK) status = cli_view_allocate(&outputs->lse, "lse", statistics, 3, dims);
    if (status == CLI_EXIT_OK && backward)
        status = cli_view_allocate(&outputs->lse_low, "lse_low", statistics, 3, dims);
    if (status == CLI_EXIT_OK && options->max) {
        status = cli_view_allocate(&outputs->max, "max", statistics, 3, dims);
    }
    if (status == CLI_EXIT_OK && backward)
        status = allocate_backward(outputs, inputs, mod, dtype, statistics);
    if (status != CLI_EXIT_OK) cli_outputs_finish(outputs);
    return status;
}

void cli_outputs_finish(cli_outputs *outputs) {
    cli_view_finish(&outputs->out);
    cli_view_finish(&outputs->lse);
    cli_view_finish(&outputs->lse_low);
    cli_view_finish(&outputs->max);
    cli_view_finish(&outputs->dquery);
    cli_view_finish(&outputs->dkey);
    cli_view_finish(&outputs->dvalue);
    for (size_t i = 0; outputs->dcaptures != NULL && i < outputs->capture_count; i++) {
        cli_view_finish(&outputs->dcaptures[i]);
    }
    for (size_t i = 0; outputs->dscalars != NULL && i < outputs->scalar_count; i++) {
        cli_view_finish(&outputs->dscalars[i]);
    }
    free(outputs->dcaptures);
    free(outputs->dscalars);
    *outputs = (cli_outputs){0};
}

/* ---- List -------------------------------------------------------------------------------- */

static bool add(cli_output_list *list, cli_output_kind kind, const char *name, const cli_view *view) {
    if (!cli_view_is_set(view)) return true;
    cli_output *output = &list->items[list->count];
    *output = (cli_output){.kind = kind, .view = view};
    if (asprintf(&output->name, "%s%s", kind == CLI_OUTPUT_GRADIENT ? "d_" : "", name) < 0) return false;
    list->count++;
    return true;
}

static bool add_all(cli_output_list *list, const cli_outputs *outputs, const fj_mod *mod) {
    bool ok =
        add(list, CLI_OUTPUT_OUT, "out", &outputs->out) && add(list, CLI_OUTPUT_LSE, "lse", &outputs->lse) &&
        add(list, CLI_OUTPUT_MAX, "max", &outputs->max) && add(list, CLI_OUTPUT_DQ, "dq", &outputs->dquery) &&
        add(list, CLI_OUTPUT_DK, "dk", &outputs->dkey) && add(list, CLI_OUTPUT_DV, "dv", &outputs->dvalue);
    for (size_t i = 0; ok && i < outputs->capture_count; i++) {
        ok = add(list, CLI_OUTPUT_GRADIENT, fj_mod_capture(mod, i).name, &outputs->dcaptures[i]);
    }
    for (size_t i = 0; ok && i < outputs->scalar_count; i++) {
        ok = add(list, CLI_OUTPUT_GRADIENT, fj_mod_scalar(mod, i).name, &outputs->dscalars[i]);
    }
    return ok;
}

int cli_outputs_list(const cli_outputs *outputs, const fj_mod *mod, cli_output_list *ret_list) {
    enum { FIXED = 6 };
    cli_output_list list = {0};
    list.items = calloc(FIXED + outputs->capture_count + outputs->scalar_count, sizeof *list.items);
    if (list.items == NULL || !add_all(&list, outputs, mod)) {
        cli_output_list_finish(&list);
        return cli_no_memory();
    }
    *ret_list = list;
    return CLI_EXIT_OK;
}

void cli_output_list_finish(cli_output_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i].name);
    free(list->items);
    *list = (cli_output_list){0};
}
