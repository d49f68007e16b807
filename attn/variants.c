/* The variants of a plan: as JSON, and as text for `flexjit show --stage plan`. */
#include <jansson.h>
#include <string.h>

#include "attn/catalogue.h"
#include "jit/space.h"

/* ---- JSON ------------------------------------------------------------------------------------------------ */

typedef struct listing {
    const fj_plan *plan;
    fj_variant listed[FJ_JIT_MAX_VARIANTS];
    int count;
    json_t *rows; /* NULL: it failed */
} listing;

static json_t *parameters_of(const fj_plan *plan, const fj_variant *variant) {
    const fj_values values = fj_jit_values_of(variant);
    json_t *object = json_object();
    if (plan->device->traits->text == FJ_TEXT_NONE) return object;
    for (int i = 0; i < FJ_AXIS_COUNT; i++) {
        const fj_axis axis = (fj_axis)i;
        if (!fj_jit_has_axis(&plan->device->features, axis)) continue;
        json_t *value = axis == FJ_AXIS_KERNEL ? json_string(fj_jit_kernel_name(values.of[i]))
                      : axis == FJ_AXIS_ISA    ? json_string(fj_jit_isa_name((fj_isa)values.of[i]))
                                               : json_integer(values.of[i]);
        (void)json_object_set_new(object, fj_jit_axis_name(axis), value);
    }
    return object;
}

static void add_row(listing *l, const fj_variant *variant, bool listed) {
    int shared = 0;
    for (int i = 0; i < variant->entry_count; i++)
        if (variant->entries[i].shared > shared) shared = variant->entries[i].shared;
    fj_attn_json_append(&l->rows, json_pack("{s:s, s:o, s:i, s:b}", "variant", variant->name, "parameters",
                                            parameters_of(l->plan, variant), "shared_bytes", shared, "listed",
                                            (int)listed));
}

static bool add_other(void *user, const fj_variant *variant) {
    listing *l = user;
    for (int i = 0; i < l->count; i++)
        if (strcmp(l->listed[i].name, variant->name) == 0) return true;
    add_row(l, variant, false);
    return l->rows != NULL;
}

/* Of captures that need not be wide, what is wide is left to the list: it is never better. */
static fj_values all_values(void) {
    fj_values all;
    for (int i = 0; i < FJ_AXIS_COUNT; i++) all.of[i] = i == FJ_AXIS_WIDE ? FJ_VALUE_PLAN : FJ_VALUE_ANY;
    return all;
}

fj_status fj_plan_variants(const fj_plan *plan, fj_text *ret_json, fj_error *error) {
    if (!plan || !ret_json) return fj_error_set(error, FJ_ERR_ARGUMENT, "plan or ret_json is NULL");
    const bool compiled = plan->device->traits->text != FJ_TEXT_NONE;
    const fj_features *features = &plan->device->features;
    const fj_values all = all_values();
    listing l = {.plan = plan, .listed = {plan->variant}, .count = 1, .rows = json_array()};
    if (compiled) l.count = fj_jit_variants(&plan->jit_problem, features, l.listed);
    for (int i = 0; i < l.count; i++) add_row(&l, &l.listed[i], true);
    if (compiled) fj_jit_visit_variants(&plan->jit_problem, features, &all, add_other, &l);
    json_t *object = json_pack("{s:i, s:o}", "schema", 1, "variants", l.rows);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    *ret_json = (fj_text){text, strlen(text)};
    return FJ_OK;
}

/* ---- Text ------------------------------------------------------------------------------------------------- */

typedef struct summary {
    int count;
    bool has[FJ_AXIS_COUNT][FJ_AXIS_MOST + 1];
} summary;

static bool add_values(void *user, const fj_variant *variant) {
    summary *s = user;
    const fj_values values = fj_jit_values_of(variant);
    for (int i = 0; i < FJ_AXIS_COUNT; i++) s->has[i][values.of[i]] = true;
    s->count++;
    return true;
}

static void put_axis(const summary *s, fj_axis axis, const char *title, fj_buf *out) {
    fj_buf_printf(out, "%-14s%s", title, fj_jit_axis_name(axis));
    for (int value = 0; value <= FJ_AXIS_MOST; value++) {
        if (!s->has[axis][value]) continue;
        if (axis == FJ_AXIS_KERNEL)
            fj_buf_printf(out, " %s", fj_jit_kernel_name(value));
        else if (axis == FJ_AXIS_ISA)
            fj_buf_printf(out, " %d (%s)", value, fj_jit_isa_name((fj_isa)value));
        else
            fj_buf_printf(out, " %d", value);
    }
    fj_buf_put(out, "\n");
}

void fj_attn_put_variants(const fj_plan *plan, fj_buf *out) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    const fj_features *features = &plan->device->features;
    const int count = fj_jit_variants(&plan->jit_problem, features, list);
    const fj_values all = all_values();
    summary s = {0};
    for (int i = 0; i < count; i++) (void)add_values(&s, &list[i]);
    s.count = 0;
    for (int i = 0; i < count; i++)
        fj_buf_printf(out, "%s%s\n", i ? "              " : "legal         ", list[i].name);
    fj_jit_visit_variants(&plan->jit_problem, features, &all, add_values, &s);
    fj_buf_printf(out, "in all        %d, by options; values that some of them have:\n", s.count);
    for (int i = 0; i < FJ_AXIS_COUNT; i++)
        if (fj_jit_has_axis(features, (fj_axis)i)) put_axis(&s, (fj_axis)i, "", out);
}
