/* Mods: the public handle of a compiled program, its captures and scalars. All of it lives in the mod's arena and is made
 * here, once. A gradient that cannot be made is not an error until a backward plan asks for it. */
#include <string.h>

#include "attn/objects.h"
#include "base/dtype.h"
#include "expr/lang/mod.h"

/* ---- Copying the descriptor -------------------------------------------------------------------------- */

static const char *copy_text(fj_scope *scope, const char *text) {
    return text ? fj_arena_strdup(scope->arena, fj_str_from(text)) : NULL;
}

static void copy_bindings(fj_scope *scope, fj_mod_desc *desc) {
    fj_binding *bindings = FJ_NEW_ARRAY(scope->arena, fj_binding, desc->binding_count);
    for (size_t i = 0; i < desc->binding_count; i++) {
        bindings[i] = desc->bindings[i];
        const char *name = bindings[i].name;
        if (!name) fj_fail(scope, FJ_ERR_ARGUMENT, "binding %zu has no name", i);
        if (bindings[i].rank < 0 || bindings[i].rank > FJ_MAX_RANK)
            fj_fail(scope, FJ_ERR_ARGUMENT, "binding '%s' has rank %d: 0 to %d are possible", name,
                    bindings[i].rank, FJ_MAX_RANK);
        if ((unsigned)bindings[i].dtype >= FJ_DTYPE_COUNT)
            fj_fail(scope, FJ_ERR_ARGUMENT, "binding '%s' has an unknown dtype", name);
        for (int axis = 0; axis < bindings[i].rank; axis++)
            if (bindings[i].dims[axis] < -1)
                fj_fail(scope, FJ_ERR_ARGUMENT, "binding '%s' has a negative dimension", name);
        bindings[i].name = copy_text(scope, name);
    }
    desc->bindings = bindings;
}

static const char *const *copy_names(fj_scope *scope, const char *what, const char *const *from,
                                     size_t count) {
    const char **names = FJ_NEW_ARRAY(scope->arena, const char *, count);
    for (size_t i = 0; i < count; i++) {
        if (!from[i]) fj_fail(scope, FJ_ERR_ARGUMENT, "%s %zu has no name", what, i);
        names[i] = copy_text(scope, from[i]);
    }
    return names;
}

/* Replaces every pointer by a copy: the mod outlives the caller's texts. */
static void copy_desc(fj_scope *scope, fj_mod_desc *desc) {
    if ((desc->param_count && !desc->params) || (desc->runtime_param_count && !desc->runtime_params) ||
        (desc->binding_count && !desc->bindings) || (desc->constant_count && !desc->constants) ||
        (desc->source_length && !desc->source))
        fj_fail(scope, FJ_ERR_ARGUMENT, "fj_mod_desc: a count is given without its array");
    if (desc->source)
        desc->source = fj_arena_strdup(scope->arena, (fj_str){desc->source, desc->source_length});
    desc->file = copy_text(scope, desc->file ? desc->file : "<mod>");
    desc->score = copy_text(scope, desc->score);
    desc->mask = copy_text(scope, desc->mask);
    desc->score_mod = copy_text(scope, desc->score_mod);
    desc->mask_mod = copy_text(scope, desc->mask_mod);
    desc->out = copy_text(scope, desc->out);
    desc->out_mod = copy_text(scope, desc->out_mod);
    desc->sink = copy_text(scope, desc->sink);
    desc->sink_mod = copy_text(scope, desc->sink_mod);
    fj_param *params = FJ_NEW_ARRAY(scope->arena, fj_param, desc->param_count);
    for (size_t i = 0; i < desc->param_count; i++) {
        if (!desc->params[i].name || !desc->params[i].expression)
            fj_fail(scope, FJ_ERR_ARGUMENT, "parameter %zu has no name or no expression", i);
        params[i].name = copy_text(scope, desc->params[i].name);
        params[i].expression = copy_text(scope, desc->params[i].expression);
    }
    desc->params = params;
    desc->runtime_params =
        copy_names(scope, "run-time parameter", desc->runtime_params, desc->runtime_param_count);
    desc->constants = copy_names(scope, "constant", desc->constants, desc->constant_count);
    copy_bindings(scope, desc);
}

/* ---- Literal tables ------------------------------------------------------------------------------------ */

static void store_int(fj_dtype dtype, void *data, int64_t index, int64_t value) {
    switch (dtype) {
    case FJ_DTYPE_BOOL: ((uint8_t *)data)[index] = value != 0; break;
    case FJ_DTYPE_I8: ((int8_t *)data)[index] = (int8_t)value; break;
    case FJ_DTYPE_U8: ((uint8_t *)data)[index] = (uint8_t)value; break;
    case FJ_DTYPE_I16: ((int16_t *)data)[index] = (int16_t)value; break;
    case FJ_DTYPE_I32: ((int32_t *)data)[index] = (int32_t)value; break;
    default: ((int64_t *)data)[index] = value; break;
    }
}

/* The packed tensor of a table that the source spells out. */
static fj_tensor literal_tensor(fj_scope *scope, const fj_capture *capture) {
    fj_tensor tensor = {.present = true, .dtype = capture->dtype, .rank = capture->rank};
    int64_t count = 1;
    for (int i = 0; i < FJ_MAX_RANK; i++) tensor.shape[i] = 1;
    for (int i = capture->rank - 1; i >= 0; i--) {
        tensor.shape[i] = capture->dims[i];
        tensor.strides[i] = count;
        count *= capture->dims[i];
    }
    tensor.data = fj_arena_alloc(scope->arena, (size_t)count * fj_dtype_size(capture->dtype));
    bool floats = fj_dtype_is_float(capture->dtype);
    for (int64_t i = 0; i < count; i++) {
        if (floats)
            fj_dtype_store_float(capture->dtype, tensor.data, i, capture->values[i]);
        else
            store_int(capture->dtype, tensor.data, i,
                      capture->int_values ? capture->int_values[i] : (int64_t)capture->values[i]);
    }
    return tensor;
}

/* ---- What the mod reaches --------------------------------------------------------------------------------- */

static bool is_bound(const fj_mod_desc *desc, const char *name) {
    for (size_t i = 0; i < desc->binding_count; i++)
        if (strcmp(desc->bindings[i].name, name) == 0) return true;
    return false;
}

static void list_captures(fj_scope *scope, fj_mod *mod) {
    size_t count = mod->program.ir->captures.len;
    mod->captures = FJ_NEW_ARRAY(scope->arena, fj_input_info, count);
    mod->capture_index = FJ_NEW_ARRAY(scope->arena, uint32_t, count);
    mod->literals = FJ_NEW_ARRAY(scope->arena, fj_tensor, count);
    for (size_t i = 0; i < count; i++) {
        const fj_capture *capture = &mod->program.ir->captures.data[i];
        if (capture->literal) {
            mod->literals[i] = literal_tensor(scope, capture);
            continue;
        }
        if (!mod->unbound && !is_bound(&mod->desc, capture->name)) mod->unbound = capture->name;
        mod->capture_index[mod->capture_count] = (uint32_t)i;
        mod->captures[mod->capture_count++] = (fj_input_info){
            .name = capture->name,
            .is_float = fj_dtype_is_float(capture->dtype),
            .gradient = capture->gradient,
            .dtype = capture->dtype,
            .rank = capture->rank,
        };
    }
}

static void list_scalars(fj_scope *scope, fj_mod *mod) {
    size_t count = mod->program.ir->scalars.len;
    mod->scalars = FJ_NEW_ARRAY(scope->arena, fj_input_info, count);
    mod->scalar_values = FJ_NEW_ARRAY(scope->arena, fj_scalar, count);
    mod->scalar_count = count;
    for (size_t i = 0; i < count; i++) {
        const fj_runtime_scalar *scalar = &mod->program.ir->scalars.data[i];
        bool is_float = scalar->type == FJ_TYPE_FLOAT;
        mod->scalars[i] = (fj_input_info){
            .name = scalar->name,
            .is_scalar = true,
            .is_float = is_float,
            .gradient = scalar->gradient,
            .dtype = is_float ? FJ_DTYPE_F64 : FJ_DTYPE_I64,
            .value = is_float ? scalar->f : (double)scalar->i,
            .int_value = is_float ? 0 : scalar->i,
        };
        if (is_float)
            mod->scalar_values[i].f = scalar->f;
        else
            mod->scalar_values[i].i = scalar->i;
    }
}

/* ---- Compiling ---------------------------------------------------------------------------------------------- */

static void compile(fj_scope *scope, void *argument) {
    fj_mod *mod = argument;
    copy_desc(scope, &mod->desc);
    fj_expr_build(scope, &mod->desc, &mod->program);
    list_captures(scope, mod);
    list_scalars(scope, mod);
}

static void mod_destroy(fj_mod *mod) {
    fj_context *context = mod->context;
    fj_error_finish(&mod->program.gradient_error);
    fj_arena_finish(&mod->arena);
    fj_free(&context->allocator, mod, sizeof *mod);
    fj_context_unref(&context);
}

fj_status fj_mod_create(fj_context *context, const fj_mod_desc *desc, fj_mod **ret_mod, fj_error *error) {
    if (!context || !ret_mod) return fj_error_set(error, FJ_ERR_ARGUMENT, "context or ret_mod is NULL");
    fj_mod_desc all;
    fj_status status = fj_attn_read_desc(&all, sizeof all, desc, "fj_mod_desc", error);
    if (status != FJ_OK) return status;
    fj_mod *mod = fj_alloc_zeroed(&context->allocator, sizeof *mod);
    if (!mod) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    atomic_init(&mod->refs, 1);
    mod->context = fj_attn_context_ref(context);
    mod->desc = all;
    fj_arena_init(&mod->arena, &context->allocator);
    status = fj_scope_run(&mod->arena, error, compile, mod);
    if (status != FJ_OK) {
        mod_destroy(mod);
        return status;
    }
    *ret_mod = mod;
    return FJ_OK;
}

/* The count is the only part of a mod that changes. */
fj_mod *fj_attn_mod_ref(const fj_mod *mod) {
    fj_mod *shared = (fj_mod *)(uintptr_t)mod;
    (void)atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
    return shared;
}

void fj_mod_unref(fj_mod **mod) {
    if (!mod || !*mod) return;
    fj_mod *last = *mod;
    *mod = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) == 1) mod_destroy(last);
}

/* ---- Asking it ---------------------------------------------------------------------------------------------- */

size_t fj_mod_capture_count(const fj_mod *mod) { return mod->capture_count; }
size_t fj_mod_scalar_count(const fj_mod *mod) { return mod->scalar_count; }

fj_input_info fj_mod_capture(const fj_mod *mod, size_t index) {
    return index < mod->capture_count ? mod->captures[index] : (fj_input_info){0};
}

fj_input_info fj_mod_scalar(const fj_mod *mod, size_t index) {
    return index < mod->scalar_count ? mod->scalars[index] : (fj_input_info){0};
}

fj_mod_origin fj_mod_score_origin(const fj_mod *mod) { return mod->program.origins.score; }
fj_mod_origin fj_mod_mask_origin(const fj_mod *mod) { return mod->program.origins.mask; }
fj_mod_origin fj_mod_out_origin(const fj_mod *mod) { return mod->program.origins.out; }
fj_mod_origin fj_mod_sink_origin(const fj_mod *mod) { return mod->program.origins.sink; }

fj_mask_tier fj_mod_mask_tier(const fj_mod *mod) { return mod->program.tier; }

const char *fj_mask_tier_name(fj_mask_tier tier) {
    static const char *const names[] = {"none", "ranges", "blocks", "elementwise"};
    return (unsigned)tier < FJ_ARRAY_LEN(names) ? names[tier] : "?";
}
