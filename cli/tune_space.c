/* Candidates: the plan's list, then the rest of what is legal. */
#include <stdlib.h>
#include <string.h>

#include "cli/number.h"
#include "cli/report.h"
#include "cli/tune.h"

int cli_tune_plan(const cli_tune *tune, const cli_tune_row *row, const char *variant, fj_plan **ret_plan) {
    cli_call_options options = row->options;
    cli_forget_variants(&options); /* they are of candidates */
    fj_problem problem = cli_problem_of(&options, row->direction);
    fj_error error = {0};
    problem.variant = variant;
    problem.untuned = true;
    const fj_status result = fj_plan_create(tune->device, row->mod, &problem, ret_plan, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_tune_check_options(const cli_tune *tune, const cli_tune_row *row) {
    fj_problem problem = cli_problem_of(&row->options, row->direction);
    fj_plan *plan = NULL;
    fj_error error = {0};
    problem.untuned = true;
    const fj_status result = fj_plan_create(tune->device, row->mod, &problem, &plan, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    fj_plan_unref(&plan);
    return CLI_EXIT_OK;
}

static int read_variants(const cli_tune *tune, const cli_tune_row *row, json_t **ret_variants) {
    fj_plan *plan = NULL;
    fj_text text = {0};
    fj_error error = {0};
    int status = cli_tune_plan(tune, row, NULL, &plan);
    if (status != CLI_EXIT_OK) return status;
    const fj_status result = fj_plan_variants(plan, &text, &error);
    fj_plan_unref(&plan);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    json_t *root = json_loadb(text.data, text.length, 0, NULL);
    fj_text_finish(&text);
    *ret_variants = json_incref(json_object_get(root, "variants"));
    json_decref(root);
    return json_is_array(*ret_variants) ? CLI_EXIT_OK : cli_no_memory();
}

/* Whether it has the values that the command line asks for: a number, or of an instruction set its name. */
static bool has_options(const cli_call_options *only, const json_t *parameters) {
    const json_t *kernel = json_object_get(parameters, "kernel");
    if (only->kernel != NULL && (kernel == NULL || strcmp(only->kernel, json_string_value(kernel)) != 0))
        return false;
    for (size_t i = 0; i < only->kernel_option_count; i++) {
        const fj_option *option = &only->kernel_options[i];
        const json_t *value = json_object_get(parameters, option->name);
        char names[CLI_KERNEL_OPTION_NAMES];
        fj_option has = {.value = json_integer_value(value)};
        if (json_is_string(value))
            (void)cli_kernel_option_parse(option->name, strlen(option->name), json_string_value(value), &has,
                                          names);
        if (value == NULL || has.value != option->value) return false;
    }
    return true;
}

/* The same order for the same seed and row, on every machine. */
static void shuffle(cli_candidate *items, size_t count, uint64_t seed) {
    cli_random random = {seed};
    for (size_t i = count; i > 1; i--) {
        const size_t other = (size_t)cli_random_below(&random, (int64_t)i);
        const cli_candidate last = items[i - 1];
        items[i - 1] = items[other];
        items[other] = last;
    }
}

int cli_space_open(const cli_tune *tune, const cli_tune_row *row, size_t index, cli_space *ret_space) {
    cli_space space = {0};
    cli_call_options only = {0};
    size_t listed = 0;
    int status = cli_read_kernel_options(tune->args, &only);
    if (status == CLI_EXIT_OK) status = read_variants(tune, row, &space.all);
    if (status == CLI_EXIT_OK) {
        space.order = calloc(json_array_size(space.all) + 1, sizeof *space.order);
        if (space.order == NULL) status = cli_no_memory();
    }
    for (size_t i = 0; status == CLI_EXIT_OK && i < json_array_size(space.all); i++) {
        const json_t *object = json_array_get(space.all, i);
        const bool is_listed = json_is_true(json_object_get(object, "listed"));
        if (!is_listed && tune->strategy == CLI_TUNE_LIST) continue;
        if (i > 0 && !has_options(&only, json_object_get(object, "parameters"))) continue;
        space.order[space.count++] = (cli_candidate){json_string_value(json_object_get(object, "variant")),
                                                     json_object_get(object, "parameters"), is_listed};
        listed += is_listed;
    }
    if (status == CLI_EXIT_OK && space.count == 1 && json_array_size(space.all) > 1 &&
        !has_options(&only, space.order[0].parameters))
        status = cli_fail(CLI_EXIT_FAILED,
                          "no variant that the plan lists has these options: --strategy random tries others");
    if (tune->strategy == CLI_TUNE_RANDOM && status == CLI_EXIT_OK)
        shuffle(space.order + listed, space.count - listed, (uint64_t)tune->seed * 1000 + index);
    if (status == CLI_EXIT_OK)
        *ret_space = space;
    else
        cli_space_close(&space);
    return status;
}

void cli_space_close(cli_space *space) {
    json_decref(space->all);
    free(space->order);
    *space = (cli_space){0};
}
