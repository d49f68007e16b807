/* Which variant a plan takes: the one that is named, the one of these options, or the plan's own choice. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "attn/catalogue.h"
#include "attn/gpu.h"
#include "jit/space.h"

/* The note lists as many names as fit. */
static void list_variants(const fj_variant *variants, int count, fj_error *error) {
    char list[400];
    size_t length = 0;
    int listed = 0;
    for (; listed < count; listed++) {
        size_t needed = strlen(variants[listed].name) + 2;
        if (length + needed >= sizeof list) break;
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", listed ? ", " : "",
                                   variants[listed].name);
    }
    if (listed < count)
        fj_error_note(error, "there are: %s and %d more (flexjit show --stage plan)", list, count - listed);
    else
        fj_error_note(error, "there are: %s", count ? list : "none");
}

static fj_status find_named(fj_plan *plan, const char *name, const fj_variant *list, int count,
                            fj_error *error) {
    for (int i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0) return plan->variant = list[i], FJ_OK;
    (void)fj_error_set(error, FJ_ERR_NAME, "unknown variant '%s' for this problem", name);
    list_variants(list, count, error);
    return FJ_ERR_NAME;
}

/* The values that are asked for; FJ_VALUE_ANY for the others. */
static fj_status read_options(const fj_problem *problem, const fj_features *features, fj_values *ret_wanted,
                              fj_error *error) {
    fj_values wanted = {{0}};
    for (int i = 0; i < FJ_AXIS_COUNT; i++) wanted.of[i] = FJ_VALUE_ANY;
    if (problem->kernel) wanted.of[FJ_AXIS_KERNEL] = strcmp(problem->kernel, "mma") == 0;
    for (size_t i = 0; i < problem->option_count; i++) {
        const fj_option *option = &problem->options[i];
        const fj_axis parameter = fj_jit_axis_find(option->name);
        if (parameter == FJ_AXIS_COUNT || parameter == FJ_AXIS_KERNEL ||
            !fj_jit_has_axis(features, parameter))
            return fj_error_set(error, FJ_ERR_NAME, "unknown option '%s' of this device's kernels",
                                option->name);
        if (option->value < 0 || option->value > INT32_MAX)
            return fj_error_set(error, FJ_ERR_UNSUPPORTED, "%s=%lld is not legal", option->name,
                                (long long)option->value);
        wanted.of[parameter] = (int)option->value;
    }
    *ret_wanted = wanted;
    return FJ_OK;
}

static fj_status find_optioned(fj_plan *plan, const fj_problem *problem, const fj_variant *list, int count,
                               fj_error *error) {
    fj_values wanted = {{0}};
    fj_status status = read_options(problem, &plan->device->features, &wanted, error);
    if (status != FJ_OK) return status;
    for (int i = 0; i < count; i++) {
        const fj_values has = fj_jit_values_of(&list[i]);
        bool same = true;
        for (int p = 0; p < FJ_AXIS_COUNT; p++)
            same &= wanted.of[p] == FJ_VALUE_ANY || wanted.of[p] == has.of[p];
        if (same) return plan->variant = list[i], FJ_OK;
    }
    return fj_error_set(error, FJ_ERR_UNSUPPORTED, "no variant has these options");
}

static fj_status choose_compiled(fj_plan *plan, const fj_problem *problem, fj_error *error) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    const int count = fj_jit_variants(&plan->jit_problem, &plan->device->features, list);
    if (count == 0)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "no kernel of the %s device covers this problem",
                            fj_device_name(plan->device));
    fj_status status = FJ_OK;
    if (problem->variant)
        status = find_named(plan, problem->variant, list, count, error);
    else if (problem->kernel || problem->option_count)
        status = find_optioned(plan, problem, list, count, error);
    else
        plan->variant = list[0];
    if (status != FJ_OK || plan->device->traits->text != FJ_TEXT_GPU) return status;
    return fj_attn_gpu_check_parameters(plan, error);
}

static fj_status choose_only(fj_plan *plan, const fj_problem *problem, fj_error *error) {
    const char *only = fj_device_name(plan->device);
    (void)snprintf(plan->variant.name, sizeof plan->variant.name, "%s", only);
    if (problem->kernel || problem->option_count)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no kernels to choose among", only);
    return problem->variant ? find_named(plan, problem->variant, &plan->variant, 1, error) : FJ_OK;
}

fj_status fj_attn_choose(fj_plan *plan, const fj_problem *problem, fj_error *error) {
    if (problem->variant && (problem->kernel || problem->option_count))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "a variant is named: it has its kernel and its options");
    if (problem->option_count && !problem->options)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "options is NULL");
    plan->named = problem->variant || problem->option_count;
    return plan->device->traits->text == FJ_TEXT_NONE ? choose_only(plan, problem, error)
                                                      : choose_compiled(plan, problem, error);
}

/* ---- All of them ---------------------------------------------------------------------------------------- */

static json_t *parameters_of(const fj_plan *plan, const fj_variant *variant) {
    const fj_values values = fj_jit_values_of(variant);
    json_t *object = json_object();
    for (int i = 0; i < FJ_AXIS_COUNT; i++) {
        const fj_axis parameter = (fj_axis)i;
        if (!fj_jit_has_axis(&plan->device->features, parameter)) continue;
        json_t *value = parameter == FJ_AXIS_KERNEL ? json_string(fj_jit_kernel_name(values.of[i]))
                      : parameter == FJ_AXIS_ISA    ? json_string(fj_jit_isa_name((fj_isa)values.of[i]))
                                                    : json_integer(values.of[i]);
        (void)json_object_set_new(object, fj_jit_axis_name(parameter), value);
    }
    return object;
}

static void add_variant(const fj_plan *plan, const fj_variant *variant, bool listed, json_t **list) {
    const bool compiled = plan->device->traits->text != FJ_TEXT_NONE;
    int shared = 0;
    for (int i = 0; i < variant->entry_count; i++)
        if (variant->entries[i].shared > shared) shared = variant->entries[i].shared;
    fj_attn_json_append(list, json_pack("{s:s, s:o, s:i, s:b}", "variant", variant->name, "parameters",
                                        compiled ? parameters_of(plan, variant) : json_object(),
                                        "shared_bytes", shared, "listed", (int)listed));
}

fj_status fj_plan_variants(const fj_plan *plan, fj_text *ret_json, fj_error *error) {
    if (!plan || !ret_json) return fj_error_set(error, FJ_ERR_ARGUMENT, "plan or ret_json is NULL");
    fj_variant listed[FJ_JIT_MAX_VARIANTS] = {plan->variant};
    int count = 1;
    if (plan->device->traits->text != FJ_TEXT_NONE)
        count = fj_jit_variants(&plan->jit_problem, &plan->device->features, listed);
    json_t *list = json_array();
    for (int i = 0; i < count; i++) add_variant(plan, &listed[i], true, &list);
    return fj_attn_json_take(json_pack("{s:i, s:o}", "schema", 1, "variants", list), ret_json, error);
}
