/* --param and --runtime-param: constants of the module that the caller replaces. */
#include <string.h>

#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

static fj_override *find_override(fj_elab *e, fj_str name) {
    for (size_t i = 0; i < e->overrides.len; i++) {
        if (fj_str_equal(e->overrides.data[i].name, name)) return &e->overrides.data[i];
    }
    return NULL;
}

static fj_place option_place(fj_elab *e, fj_str name, fj_str text) {
    fj_source *source = FJ_NEW(e->arena, fj_source);
    source->name = fj_arena_printf(e->arena, "<param %.*s>", (int)name.len, name.data);
    source->text = text;
    return (fj_place){source, 0, (uint32_t)text.len};
}

static const char *kind_name(fj_value v) {
    if (v.kind == FJ_VALUE_SCALAR)
        return v.type == FJ_TYPE_FLOAT ? "a float" : v.type == FJ_TYPE_BOOL ? "a bool" : "an int";
    return fj_value_describe(v);
}

static fj_value keep_kind(fj_elab *e, fj_str name, fj_value original, fj_value value, fj_place place) {
    const bool floating = original.kind == FJ_VALUE_FLOAT ||
                          (original.kind == FJ_VALUE_SCALAR && original.type == FJ_TYPE_FLOAT);
    if (floating && value.kind == FJ_VALUE_INT) return fj_value_float((double)value.i);
    if (original.kind == FJ_VALUE_NONE || strcmp(kind_name(original), kind_name(value)) == 0) return value;
    if (fj_value_is_sequence(original) && fj_value_is_sequence(value)) {
        return fj_value_sequence(e->arena, original.kind, value.seq->items, value.seq->len);
    }
    fj_elab_fail(e, place, "the constant '%.*s' is %s, but %s is given for it", (int)name.len, name.data,
                 kind_name(original), kind_name(value));
}

static fj_value runtime_scalar(fj_elab *e, fj_override *override, fj_value value, fj_place place) {
    if (!fj_value_is_number(value)) {
        fj_elab_fail_name(e, place, NULL, "'%.*s' is %s, and only a number can be a run-time parameter",
                          (int) override->name.len, override->name.data, fj_value_describe(value));
    }
    fj_runtime_scalar scalar = {.name = fj_arena_strdup(e->arena, override->name)};
    scalar.type = fj_value_type(value);
    scalar.f = fj_value_as_double(value);
    scalar.i = value.kind == FJ_VALUE_BOOL ? value.b : value.kind == FJ_VALUE_INT ? value.i : 0;
    FJ_PUSH(e->arena, &e->ir->scalars, scalar);
    return fj_scalar_value(e, fj_ir_scalar(e->ir, (uint32_t)(e->ir->scalars.len - 1)), true);
}

/* What lies outside the language, where the caller gives the value. */
static bool is_replaceable(const fj_override *override, fj_value original) {
    if (override->param == NULL || original.kind != FJ_VALUE_TENSOR ||
        original.tensor->kind != FJ_TENSOR_CAPTURE)
        return false;
    return original.tensor->table->error != NULL || original.tensor->table->why != NULL;
}

static void run_override(fj_elab *e, fj_override *override) {
    const fj_str name = override->name;
    const fj_place place =
        option_place(e, name, fj_str_from(override->param ? override->param->expression : ""));
    fj_value original;
    const bool there = fj_names_original_value(e, name, place, &original);
    if (there && is_replaceable(override, original)) original = FJ_NONE;
    if (!there || original.kind == FJ_VALUE_TENSOR || original.kind == FJ_VALUE_UNKNOWN ||
        fj_value_is_function(original)) {
        fj_elab_fail_name(e, place, NULL, "'%.*s' is not a constant of the module", (int)name.len, name.data);
    }
    fj_value value = original;
    if (override->param != NULL) {
        value = fj_elab_expr(e, fj_expr_parse_expression(e->scope, place.source));
        value = keep_kind(e, name, original, value, place);
    }
    override->value = override->runtime && !e->checking ? runtime_scalar(e, override, value, place) : value;
}

static void force_override(fj_elab *e, fj_override *override) {
    override->state = FJ_THUNK_RUNNING;
    const fj_whereabouts was = fj_names_enter_module(e, FJ_TIME_END);
    run_override(e, override);
    fj_names_leave_module(e, was);
    override->state = FJ_THUNK_DONE;
}

static fj_override *override_of(fj_elab *e, const char *name) {
    const fj_str text = fj_str_from(name);
    fj_override *found = find_override(e, text);
    if (found == NULL) {
        FJ_PUSH(e->arena, &e->overrides, (fj_override){.name = text});
        found = &e->overrides.data[e->overrides.len - 1];
    }
    return found;
}

void fj_names_load_overrides(fj_elab *e) {
    for (size_t i = 0; i < e->desc->param_count; i++)
        override_of(e, e->desc->params[i].name)->param = &e->desc->params[i];
    for (size_t i = 0; i < e->desc->runtime_param_count; i++)
        override_of(e, e->desc->runtime_params[i])->runtime = true;
    for (size_t i = 0; i < e->overrides.len; i++) {
        const fj_str name = e->overrides.data[i].name;
        if (fj_names_find(e, name) != NULL) continue;
        fj_suggestion suggestion = fj_suggest_begin(name);
        for (size_t j = 0; j < e->globals.len; j++) fj_suggest(&suggestion, e->globals.data[j]->name);
        fj_elab_fail_name(e, option_place(e, name, name), NULL, "the module has no constant '%.*s'%s",
                          (int)name.len, name.data, fj_suggest_text(e, &suggestion));
    }
}

/* After the mods: what they do not reach must be right too. */
void fj_names_check_overrides(fj_elab *e) {
    e->checking = true;
    for (size_t i = 0; i < e->overrides.len; i++) {
        if (e->overrides.data[i].state == FJ_THUNK_FRESH) force_override(e, &e->overrides.data[i]);
    }
}

bool fj_names_module_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value) {
    fj_override *override = e->overrides.len > 0 ? find_override(e, name) : NULL;
    if (override == NULL || override->state == FJ_THUNK_RUNNING)
        return fj_names_original_value(e, name, place, ret_value);
    if (override->state == FJ_THUNK_FRESH) force_override(e, override);
    *ret_value = override->value;
    return true;
}
