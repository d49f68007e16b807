/* The outputs of a call: made for a problem, and listed by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/report.h"

fj_dtype cli_statistics_dtype(fj_dtype dtype) { return dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32; }

/* One of a list with commas between its names. */
bool cli_wants_gradient(const cli_call_options *options, const char *name) {
    const size_t length = strlen(name);
    const char *at = options->gradients;
    if (at == NULL) return true;
    for (;; at++) {
        const size_t word = strcspn(at, ",");
        if (word == length && memcmp(at, name, length) == 0) return true;
        at += word;
        if (*at == '\0') return false;
    }
}

/* d_NAME, where it is wanted. */
static int allocate_gradient(cli_view *view, const cli_call_options *options, const fj_input_info *info,
                             fj_dtype dtype, int rank, const int64_t *dims) {
    char *name;
    if (!info->gradient) return CLI_EXIT_OK;
    if (asprintf(&name, "d_%s", info->name) < 0) return cli_no_memory();
    int status = CLI_EXIT_OK;
    if (cli_wants_gradient(options, name)) status = cli_view_allocate(view, name, dtype, rank, dims);
    free(name);
    return status;
}

static int allocate_gradients(cli_outputs *outputs, const cli_call_options *options, const cli_inputs *inputs,
                              const fj_mod *mod, fj_dtype dtype) {
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < outputs->capture_count; i++) {
        const DLTensor *capture = &inputs->captures[i].tensor;
        const fj_input_info info = fj_mod_capture(mod, i);
        status =
            allocate_gradient(&outputs->dcaptures[i], options, &info, dtype, capture->ndim, capture->shape);
    }
    for (size_t i = 0; status == CLI_EXIT_OK && i < outputs->scalar_count; i++) {
        const fj_input_info info = fj_mod_scalar(mod, i);
        status = allocate_gradient(&outputs->dscalars[i], options, &info, dtype, 0, NULL);
    }
    return status;
}

static int allocate_backward(cli_outputs *outputs, const cli_call_options *options, const cli_inputs *inputs,
                             const fj_mod *mod, fj_dtype dtype, fj_dtype statistics) {
    const struct {
        const char *name;
        cli_view *view;
        const cli_view *of;
    } gradients[] = {{"dq", &outputs->dquery, &inputs->query},
                     {"dk", &outputs->dkey, &inputs->key},
                     {"dv", &outputs->dvalue, &inputs->value}};
    int status = CLI_EXIT_OK;
    for (size_t i = 0; i < 3 && status == CLI_EXIT_OK; i++)
        if (cli_wants_gradient(options, gradients[i].name))
            status = cli_view_allocate(gradients[i].view, gradients[i].name, dtype,
                                       gradients[i].of->tensor.ndim, gradients[i].of->dims);
    if (status == CLI_EXIT_OK) status = allocate_gradients(outputs, options, inputs, mod, statistics);
    return status;
}

int cli_outputs_allocate(cli_outputs *outputs, const cli_call_options *options, const cli_inputs *inputs,
                         const fj_mod *mod, bool backward, fj_dtype dtype, fj_dtype statistics) {
    const cli_shape *shape = &options->shape;
    const bool packed = options->form == FJ_FORM_PACKED;
    const int64_t dense[4] = {shape->batch, shape->heads, shape->q_len, shape->value_dim};
    const int64_t packed_out[3] = {shape->q_len, shape->heads, shape->value_dim};
    const int64_t packed_rows[2] = {shape->heads, shape->q_len};
    const int64_t *const out = packed ? packed_out : dense, *const rows = packed ? packed_rows : dense;
    const int rank = packed ? 3 : 4;
    *outputs = (cli_outputs){.capture_count = inputs->capture_count, .scalar_count = inputs->scalar_count};
    outputs->dcaptures = calloc(outputs->capture_count + 1, sizeof *outputs->dcaptures);
    outputs->dscalars = calloc(outputs->scalar_count + 1, sizeof *outputs->dscalars);
    int status = CLI_EXIT_OK;
    if (outputs->dcaptures == NULL || outputs->dscalars == NULL) status = cli_no_memory();
    if (status == CLI_EXIT_OK) status = cli_view_allocate(&outputs->out, "out", dtype, rank, out);
    if (status == CLI_EXIT_OK) status = cli_view_allocate(&outputs->lse, "lse", statistics, rank - 1, rows);
    if (status == CLI_EXIT_OK && backward)
        status = cli_view_allocate(&outputs->lse_low, "lse_low", statistics, rank - 1, rows);
    if (status == CLI_EXIT_OK && backward && fj_mod_out_origin(mod).name != NULL)
        status = cli_view_allocate(&outputs->out_raw, "out_raw", dtype, rank, out);
    if (status == CLI_EXIT_OK && options->max) {
        status = cli_view_allocate(&outputs->max, "max", statistics, rank - 1, rows);
    }
    if (status == CLI_EXIT_OK && backward)
        status = allocate_backward(outputs, options, inputs, mod, dtype, statistics);
    if (status != CLI_EXIT_OK) cli_outputs_finish(outputs);
    return status;
}

void cli_outputs_finish(cli_outputs *outputs) {
    cli_view_finish(&outputs->out);
    cli_view_finish(&outputs->lse);
    cli_view_finish(&outputs->lse_low);
    cli_view_finish(&outputs->out_raw);
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
