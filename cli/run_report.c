/* `flexjit run`: what it prints. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "cli/run.h"

static double tflops(const cli_run *run, fj_direction direction) {
    double flops = cli_flops(&run->options.shape, direction, &run->kernels[direction].blocks);
    return run->time_ms[direction] > 0 ? flops / run->time_ms[direction] * 1e-9 : 0;
}

void cli_run_print_line(const cli_run *run, fj_direction direction) {
    const cli_shape *shape = &run->options.shape;
    const cli_kernel *kernel = &run->kernels[direction];
    const bool is_tuned = strncmp(kernel->info.decision, "tuning", 6) == 0;
    printf(
        "%s (%lld,%lld,%lld,%lld,%lld,%lld,%lld) %s %s %s %.3f ms %.3f TFLOP/s mask %s, %.1f %% of blocks%s%s",
        direction == FJ_FORWARD ? "fwd" : "bwd", (long long)shape->batch, (long long)shape->heads,
        (long long)shape->kv_heads, (long long)shape->q_len, (long long)shape->kv_len,
        (long long)shape->head_dim, (long long)shape->value_dim, fj_dtype_name(run->options.dtype),
        fj_device_name(run->device), kernel->info.variant, run->time_ms[direction], tflops(run, direction),
        fj_mask_tier_name(fj_plan_mask_tier(kernel->plan)), 100 * cli_computed_share(&kernel->blocks),
        run->options.form != FJ_FORM_DENSE ? ", " : "",
        run->options.form != FJ_FORM_DENSE ? cli_form_names[run->options.form] : "");
    if (run->options.dropout) printf(", dropout %g", run->options.dropout_rate);
    if (kernel->splits > 1) printf(", keys in %" PRId64 " parts", kernel->splits);
    printf("%s%s\n", is_tuned ? ", by " : "", is_tuned ? kernel->info.decision : "");
    fflush(stdout);
}

void cli_run_print_comparisons(const cli_run *run) {
    if (run->comparisons == NULL) return;
    int width = 4;
    for (size_t i = 0; i < run->list.count; i++) {
        int length = (int)strlen(run->list.items[i].name);
        if (length > width) width = length;
    }
    printf("%-*s  %-11s  %-11s  %-11s\n", width, "", "max error", "mean error", "bound of mean");
    for (size_t i = 0; i < run->list.count; i++) {
        const cli_comparison *row = &run->comparisons[i];
        printf("%-*s  %-11.3e  %-11.3e  %-11.3e  %s%s%s", width, run->list.items[i].name, row->max, row->mean,
               row->bound, cli_style(stdout, row->ok ? CLI_GREEN : CLI_RED), row->ok ? "ok" : "BAD",
               cli_style(stdout, CLI_PLAIN));
        if (row->worst > 1) printf(" (row %zu: %.3g times its bound)", row->row, row->worst);
        printf("\n");
    }
}

/* ---- JSON -------------------------------------------------------------------------------- */

static json_t *comparisons_json(const cli_run *run, fj_direction direction) {
    json_t *errors = json_object();
    for (size_t i = 0; i < run->list.count; i++) {
        const cli_output *output = &run->list.items[i];
        const cli_comparison *row = &run->comparisons[i];
        bool backward = output->kind >= CLI_OUTPUT_DQ;
        if (backward != (direction == FJ_BACKWARD)) continue;
        json_object_set_new(errors, output->name, cli_comparison_json(row));
    }
    return errors;
}

static json_t *direction_json(const cli_run *run, fj_direction direction) {
    const cli_kernel *kernel = &run->kernels[direction];
    const cli_shape *shape = &run->options.shape;
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:f, s:f, s:f, s:o, s:s, s:{s:I, s:I, s:I}, s:I, s:s, s:s, s:[I,I,I,I,I,I,I]}", //
        "device", fj_device_name(run->device), "variant", kernel->info.variant, "cache",
        kernel->info.cache_hit ? "hit" : "miss", "compile_ms", kernel->info.compile_ms, "load_ms",
        kernel->info.load_ms, "time_ms", run->time_ms[direction], "tflops",
        cli_json_number(tflops(run, direction)), "tier", fj_mask_tier_name(fj_plan_mask_tier(kernel->plan)),
        "blocks", "full", (json_int_t)kernel->blocks.full, "partial", (json_int_t)kernel->blocks.partial,
        "empty", (json_int_t)kernel->blocks.empty, "scores", (json_int_t)cli_scores(shape, &kernel->blocks),
        "dtype", fj_dtype_name(run->options.dtype), "form", cli_form_names[run->options.form], "shape",
        (json_int_t)shape->batch, (json_int_t)shape->heads, (json_int_t)shape->kv_heads,
        (json_int_t)shape->q_len, (json_int_t)shape->kv_len, (json_int_t)shape->head_dim,
        (json_int_t)shape->value_dim);
    if (object != NULL && run->options.dropout) {
        char seed[24]; /* more digits than a number of JSON has everywhere */
        snprintf(seed, sizeof seed, "%" PRIu64, run->options.dropout_seed);
        json_object_set_new(object, "dropout", cli_json_number(run->options.dropout_rate));
        json_object_set_new(object, "seed", json_string(seed));
    }
    if (object != NULL) json_object_set_new(object, "splits", json_integer(kernel->splits));
    if (object != NULL) json_object_set_new(object, "decided", cli_json_text(kernel->info.decision));
    if (object != NULL && run->comparisons != NULL) {
        json_object_set_new(object, "errors", comparisons_json(run, direction));
    }
    return object;
}

int cli_run_print_json(const cli_run *run) {
    json_t *object = direction_json(run, FJ_FORWARD);
    if (object == NULL) return cli_no_memory();
    if (run->backward) json_object_set_new(object, "backward", direction_json(run, FJ_BACKWARD));
    json_t *warnings = cli_take_warnings(), *error = cli_take_error();
    if (warnings != NULL) json_object_set_new(object, "warnings", warnings);
    if (error != NULL) json_object_set_new(object, "error", error);
    return cli_print_json(object);
}
