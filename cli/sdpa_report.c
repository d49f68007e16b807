/* `flexjit sdpa`: what it prints. */
#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "cli/sdpa.h"

static const char *shape_text(const DLTensor *tensor, char text[96]) {
    size_t at = (size_t)snprintf(text, 96, "[");
    for (int i = 0; i < tensor->ndim && at < 96; i++)
        at += (size_t)snprintf(text + at, 96 - at, "%s%lld", i > 0 ? "," : "", (long long)tensor->shape[i]);
    if (at < 96) (void)snprintf(text + at, 96 - at, "]");
    return text;
}

void cli_sdpa_print_line(const cli_sdpa *run, fj_direction direction) {
    const cli_sdpa_step *step = &run->steps[direction];
    const cli_view *in = run->inputs.views;
    char q[96], k[96], v[96];
    printf("%s q %s k %s v %s %s %s backend %s %s %.3f ms\n", direction == FJ_FORWARD ? "fwd" : "bwd",
           shape_text(&in[CLI_SDPA_Q].tensor, q), shape_text(&in[CLI_SDPA_K].tensor, k),
           shape_text(&in[CLI_SDPA_V].tensor, v), fj_dtype_name(run->inputs.dtype),
           fj_device_name(run->device), fj_sdpa_backend_name(step->info.backend), step->info.kernel.variant,
           step->time_ms);
    if (step->report.copies[0] != '\0') printf("    %s\n", step->report.copies);
    fflush(stdout);
}

void cli_sdpa_print_comparisons(const cli_sdpa *run) {
    if (run->comparisons == NULL) return;
    printf("%-5s  %-11s  %-11s  %-11s\n", "", "max error", "mean error", "bound of mean");
    for (size_t i = 0; i < run->outputs.count; i++) {
        const cli_comparison *row = &run->comparisons[i];
        printf("%-5s  %-11.3e  %-11.3e  %-11.3e  %s%s%s", run->outputs.items[i].name, row->max, row->mean,
               row->bound, cli_style(stdout, row->ok ? CLI_GREEN : CLI_RED), row->ok ? "ok" : "BAD",
               cli_style(stdout, CLI_PLAIN));
        if (row->worst > 1) printf(" (row %zu: %.3g times its bound)", row->row, row->worst);
        printf("\n");
    }
}

/* ---- JSON -------------------------------------------------------------------------------- */

static json_t *refused_json(const fj_sdpa_report *report) {
    json_t *list = json_array();
    for (int i = 0; i < FJ_SDPA_BACKENDS; i++)
        if (report->refused[i][0] != '\0')
            json_array_append_new(list, json_pack("{s:s, s:o}", "backend", fj_sdpa_backend_name(i), "reason",
                                                  cli_json_text(report->refused[i])));
    return list;
}

static json_t *comparisons_json(const cli_sdpa *run, fj_direction direction) {
    json_t *errors = json_object();
    for (size_t i = 0; i < run->outputs.count; i++) {
        const cli_output *output = &run->outputs.items[i];
        const cli_comparison *row = &run->comparisons[i];
        if ((output->kind >= CLI_OUTPUT_DQ) != (direction == FJ_BACKWARD)) continue;
        json_object_set_new(errors, output->name, cli_comparison_json(row));
    }
    return errors;
}

static json_t *step_json(const cli_sdpa *run, fj_direction direction) {
    const cli_sdpa_step *step = &run->steps[direction];
    const bool taken = step->report.backend < FJ_SDPA_BACKENDS;
    json_t *object = json_pack("{s:s, s:o, s:o}", "device", fj_device_name(run->device), "backend",
                               taken ? json_string(fj_sdpa_backend_name(step->report.backend)) : json_null(),
                               "refused", refused_json(&step->report));
    if (object == NULL || step->op == NULL) return object;
    const fj_kernel_info *kernel = &step->info.kernel;
    json_t *more = json_pack(
        "{s:s, s:s, s:f, s:f, s:f, s:s, s:s, s:o}", "variant", kernel->variant, "cache",
        kernel->cache_hit ? "hit" : "miss", "compile_ms", kernel->compile_ms, "load_ms", kernel->load_ms,
        "time_ms", step->time_ms, "dtype", fj_dtype_name(run->inputs.dtype), "form",
        cli_form_names[step->args.cu_seqlens_q != NULL || step->args.cu_seqlens_kv != NULL ? FJ_FORM_PACKED
                                                                                           : FJ_FORM_DENSE],
        "copies", cli_json_text(step->report.copies));
    if (more != NULL) json_object_update(object, more);
    json_decref(more);
    if (run->comparisons != NULL) json_object_set_new(object, "errors", comparisons_json(run, direction));
    return object;
}

int cli_sdpa_print_json(const cli_sdpa *run) {
    json_t *object = step_json(run, FJ_FORWARD);
    if (object == NULL) return cli_no_memory();
    if (run->backward && run->steps[FJ_BACKWARD].report.struct_size > 0)
        json_object_set_new(object, "backward", step_json(run, FJ_BACKWARD));
    json_t *warnings = cli_take_warnings(), *error = cli_take_error();
    if (warnings != NULL) json_object_set_new(object, "warnings", warnings);
    if (error != NULL) json_object_set_new(object, "error", error);
    return cli_print_json(object);
}
