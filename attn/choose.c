/* Which variant a plan takes: the one that is named, the one of a kernel and options, or the best. */
#include <stdio.h>
#include <string.h>

#include "attn/gpu.h"
#include "jit/space.h"

/* What a plan chooses from. */
typedef struct choosing {
    fj_plan *plan;
    const fj_jit_problem *problem;
    const fj_features *features;
    fj_variant list[FJ_JIT_MAX_VARIANTS]; /* best first */
    int count;
    fj_values wanted; /* FJ_VALUE_ANY where nothing is asked for */
    fj_error *error;
} choosing;

/* ---- By name ------------------------------------------------------------------------------------------- */

/* The note lists as many names as fit. */
static fj_status refuse_name(const char *name, const fj_variant *list, int count, bool has_options,
                             fj_error *error) {
    char text[400];
    size_t length = 0;
    int listed = 0;
    for (; listed < count; listed++) {
        const size_t needed = strlen(list[listed].name) + 2;
        if (length + needed >= sizeof text) break;
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", listed ? ", " : "",
                                   list[listed].name);
    }
    (void)fj_error_set(error, FJ_ERR_NAME, "unknown variant '%s' for this problem", name);
    if (listed < count)
        fj_error_note(error,
                      "there are: %s and %d more, and others by their options: flexjit show --stage plan",
                      text, count - listed);
    else
        fj_error_note(error, "there are: %s%s", text,
                      has_options ? ", and others by their options: flexjit show --stage plan" : "");
    return FJ_ERR_NAME;
}

static fj_status find_named(choosing *c, const char *name) {
    if (fj_jit_find_variant(c->problem, c->features, name, &c->plan->variant)) return FJ_OK;
    return refuse_name(name, c->list, c->count, true, c->error);
}

/* ---- By options ------------------------------------------------------------------------------------------ */

static fj_status read_kernel(choosing *c, const char *name) {
    static const char *const names[] = {"simt", "mma"};
    if (strcmp(name, "wgmma") != 0 && strcmp(name, "simt") != 0 && strcmp(name, "mma") != 0) {
        (void)fj_error_set(c->error, FJ_ERR_NAME, "unknown kernel '%s'", name);
        fj_error_note(c->error, "there are: simt, mma, wgmma");
        return FJ_ERR_NAME;
    }
    if (!fj_jit_has_axis(c->features, FJ_AXIS_KERNEL))
        return fj_error_set(
            c->error, FJ_ERR_UNSUPPORTED,
            "kernel '%s' is for cuda and emu: the %s device has one family of kernels, without a name", name,
            fj_device_name(c->plan->device));
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0) return c->wanted.of[FJ_AXIS_KERNEL] = (int)i, FJ_OK;
    (void)fj_error_set(c->error, FJ_ERR_UNSUPPORTED, "flexjit has no %s kernels", name);
    fj_error_note(c->error, "there are: simt, and mma from sm_80 on, but not for F64");
    return FJ_ERR_UNSUPPORTED;
}

static void put_options(const choosing *c, char *text, size_t size) {
    size_t length = 0;
    text[0] = '\0';
    for (int i = 0; i < FJ_AXIS_COUNT; i++)
        if (i != FJ_AXIS_KERNEL && fj_jit_has_axis(c->features, (fj_axis)i))
            length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "",
                                       fj_jit_axis_name((fj_axis)i));
}

static fj_status read_option(choosing *c, const fj_option *option) {
    if (!option->name) return fj_error_set(c->error, FJ_ERR_ARGUMENT, "an option has no name");
    const fj_axis axis = fj_jit_axis_find(option->name);
    if (axis == FJ_AXIS_COUNT || axis == FJ_AXIS_KERNEL || !fj_jit_has_axis(c->features, axis)) {
        char known[200];
        put_options(c, known, sizeof known);
        (void)fj_error_set(c->error, FJ_ERR_NAME, "unknown option '%s' of kernels of the %s device",
                           option->name, fj_device_name(c->plan->device));
        fj_error_note(c->error, "there are: %s", known);
        return FJ_ERR_NAME;
    }
    if (c->wanted.of[axis] != FJ_VALUE_ANY)
        return fj_error_set(c->error, FJ_ERR_ARGUMENT, "option '%s' is given twice", option->name);
    /* What no kernel can have: an error of its own, with the legal values, comes of it. */
    const bool small = option->value >= 0 && option->value < INT32_MAX;
    c->wanted.of[axis] = small ? (int)option->value : INT32_MAX;
    return FJ_OK;
}

/* Of the default's template, or of that which is asked for: others are listed because they are all that fits somewhere. */
static bool is_family(const choosing *c, const fj_variant *variant) {
    const bool kernel = variant->mma == c->list[0].mma || c->wanted.of[FJ_AXIS_KERNEL] != FJ_VALUE_ANY;
    const bool pack =
        variant->pack_heads == c->list[0].pack_heads || c->wanted.of[FJ_AXIS_PACK] != FJ_VALUE_ANY;
    const bool isa = variant->isa == c->list[0].isa || c->wanted.of[FJ_AXIS_ISA] != FJ_VALUE_ANY;
    return kernel && pack && isa;
}

static bool has_wanted(const fj_values *wanted, const fj_variant *variant) {
    const fj_values has = fj_jit_values_of(variant);
    for (int i = 0; i < FJ_AXIS_COUNT; i++)
        if (wanted->of[i] != FJ_VALUE_ANY && wanted->of[i] != has.of[i]) return false;
    return true;
}

/* ---- Options that do not go together ---------------------------------------------------------------------- */

static size_t put_value(char *text, size_t size, size_t length, fj_axis axis, int value) {
    if (length >= size) return length;
    const char *comma = length ? ", " : "";
    const int put = axis == FJ_AXIS_KERNEL
                      ? snprintf(text + length, size - length, "%s%s", comma, fj_jit_kernel_name(value))
                  : axis == FJ_AXIS_ISA ? snprintf(text + length, size - length, "%s%d (%s)", comma, value,
                                                   fj_jit_isa_name((fj_isa)value))
                                        : snprintf(text + length, size - length, "%s%d", comma, value);
    return length + (size_t)put;
}

/* "stages=3, warps=4": what is asked for but the axis. */
static void put_others(const fj_values *wanted, fj_axis axis, char *text, size_t size) {
    size_t length = 0;
    text[0] = '\0';
    for (int i = 0; i < FJ_AXIS_COUNT && length < size; i++) {
        if (wanted->of[i] == FJ_VALUE_ANY || i == (int)axis) continue;
        const char *comma = length ? ", " : "";
        length += (size_t)(i == FJ_AXIS_KERNEL ? snprintf(text + length, size - length, "%skernel %s", comma,
                                                          fj_jit_kernel_name(wanted->of[i]))
                                               : snprintf(text + length, size - length, "%s%s=%d", comma,
                                                          fj_jit_axis_name((fj_axis)i), wanted->of[i]));
    }
}

/* This value, with the ones that are legal beside the others. */
static fj_status refuse_value(const choosing *c, const fj_problem *problem, const fj_values *others,
                              fj_axis axis, const int *values, int count) {
    char legal[300] = "", beside[300];
    size_t length = 0;
    for (int i = 0; i < count; i++) length = put_value(legal, sizeof legal, length, axis, values[i]);
    put_others(others, axis, beside, sizeof beside);
    int64_t value = c->wanted.of[axis];
    for (size_t i = 0; i < problem->option_count; i++)
        if (fj_jit_axis_find(problem->options[i].name) == axis) value = problem->options[i].value;
    if (axis == FJ_AXIS_KERNEL)
        (void)fj_error_set(c->error, FJ_ERR_UNSUPPORTED, "no %s kernel is legal for this problem%s%s",
                           problem->kernel, *beside ? " with " : "", beside);
    else
        (void)fj_error_set(c->error, FJ_ERR_UNSUPPORTED, "option %s=%lld is not legal for this problem%s%s",
                           fj_jit_axis_name(axis), (long long)value, *beside ? " with " : "", beside);
    fj_error_note(c->error, "legal %s: %s", count == 1 ? "is" : "are", legal);
    return FJ_ERR_UNSUPPORTED;
}

static bool is_first_blamed(const choosing *c, const fj_problem *problem, fj_values wanted, fj_axis axis,
                            fj_status *ret_status) {
    int values[FJ_AXIS_VALUES];
    if (c->wanted.of[axis] == FJ_VALUE_ANY) return false;
    const int count = fj_jit_legal_values(c->problem, c->features, &wanted, axis, values);
    if (count == 0) return false;
    for (int i = 0; i < count; i++)
        if (values[i] == c->wanted.of[axis]) return false;
    *ret_status = refuse_value(c, problem, &wanted, axis, values, count);
    return true;
}

/* One option that could be changed for the others' sake; else, in the order of the axes, the first that is too much. */
static fj_status refuse_options(const choosing *c, const fj_problem *problem) {
    fj_status status = FJ_ERR_UNSUPPORTED;
    fj_values some;
    for (int i = 0; i < FJ_AXIS_COUNT; i++)
        if (is_first_blamed(c, problem, c->wanted, (fj_axis)i, &status)) return status;
    for (int i = 0; i < FJ_AXIS_COUNT; i++) some.of[i] = FJ_VALUE_ANY;
    for (int i = 0; i < FJ_AXIS_COUNT; i++) {
        if (is_first_blamed(c, problem, some, (fj_axis)i, &status)) return status;
        some.of[i] = c->wanted.of[i];
    }
    return fj_error_set(c->error, status, "no variant for this problem has these options");
}

static fj_status find_by_options(choosing *c, const fj_problem *problem) {
    for (int i = 0; i < FJ_AXIS_COUNT; i++) c->wanted.of[i] = FJ_VALUE_ANY;
    fj_status status = problem->kernel ? read_kernel(c, problem->kernel) : FJ_OK;
    for (size_t i = 0; status == FJ_OK && i < problem->option_count; i++)
        status = read_option(c, &problem->options[i]);
    if (status != FJ_OK) return status;
    for (int i = 0; i < c->count; i++)
        if (has_wanted(&c->wanted, &c->list[i]) && is_family(c, &c->list[i]))
            return c->plan->variant = c->list[i], FJ_OK;
    if (fj_jit_nearest_variant(c->problem, c->features, &c->wanted, &c->list[0], &c->plan->variant))
        return FJ_OK;
    return refuse_options(c, problem);
}

/* ---- Both ------------------------------------------------------------------------------------------------ */

static fj_status choose_compiled(fj_plan *plan, const fj_problem *problem, fj_error *error) {
    choosing c = {
        .plan = plan, .problem = &plan->jit_problem, .features = &plan->device->features, .error = error};
    c.count = fj_jit_variants(c.problem, c.features, c.list);
    if (c.count == 0)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "no kernel of the %s device covers this problem",
                            fj_device_name(plan->device));
    fj_status status = FJ_OK;
    if (problem->variant)
        status = find_named(&c, problem->variant);
    else if (problem->kernel || problem->option_count)
        status = find_by_options(&c, problem);
    else
        plan->variant = c.list[0];
    if (status != FJ_OK || plan->device->traits->text != FJ_TEXT_GPU) return status;
    return fj_attn_gpu_check_parameters(plan, error);
}

static fj_status choose_only(fj_plan *plan, const fj_problem *problem, fj_error *error) {
    const char *only = fj_device_name(plan->device);
    (void)snprintf(plan->variant.name, sizeof plan->variant.name, "%s", only);
    if (problem->kernel || problem->option_count)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no kernels to choose from", only);
    if (!problem->variant || strcmp(problem->variant, only) == 0) return FJ_OK;
    return refuse_name(problem->variant, &plan->variant, 1, false, error);
}

fj_status fj_attn_choose(fj_plan *plan, const fj_problem *problem, fj_error *error) {
    if (problem->variant && (problem->kernel || problem->option_count))
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "a variant is given, and a kernel or options: a variant has them in its name");
    if (problem->option_count && !problem->options)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "options is NULL, and option_count is %zu",
                            problem->option_count);
    plan->named = problem->variant || problem->option_count;
    return plan->device->traits->text == FJ_TEXT_NONE ? choose_only(plan, problem, error)
                                                      : choose_compiled(plan, problem, error);
}
