/* Names: the module's, which are evaluated when they are looked up, and those of functions.
 *
 * Module statements are numbered by their place in the file: their time. A statement is evaluated
 * when a name that it binds is looked up, and sees what was bound before its time, as when Python
 * runs the file; while a mod runs, the time is FJ_TIME_END and the last binding of a name counts.
 */
#include "expr/elaborate.h"

#include <string.h>

/* ---- Loading the module -------------------------------------------------------------------------- */

static size_t hash_name(fj_str name) {
    size_t hash = 5381;
    for (size_t i = 0; i < name.len; i++) hash = hash * 33 ^ (unsigned char)name.data[i];
    return hash;
}

static fj_global **find_slot(const fj_elab *e, fj_str name) {
    size_t at = hash_name(name) & (e->table_cap - 1);
    while (e->table[at] != NULL && !fj_str_equal(e->table[at]->name, name)) at = (at + 1) & (e->table_cap - 1);
    return &e->table[at];
}

static void bind(fj_elab *e, fj_str name, fj_thunk *thunk, bool mutation, size_t import_index) {
    fj_global *global = FJ_NEW(e->arena, fj_global);
    *global = (fj_global){.name = name, .thunk = thunk, .mutation = mutation, .import_index = import_index};
    FJ_PUSH(e->arena, &e->globals, global);
}

static void bind_target(fj_elab *e, const fj_expr *target, fj_thunk *thunk) {
    switch (target->kind) {
    case FJ_EXPR_NAME: bind(e, target->text, thunk, false, 0); break;
    case FJ_EXPR_TUPLE:
    case FJ_EXPR_LIST:
        for (size_t i = 0; i < target->items.len; i++) bind_target(e, target->items.data[i], thunk);
        break;
    case FJ_EXPR_STARRED: bind_target(e, target->left, thunk); break;
    case FJ_EXPR_SUBSCRIPT:
        if (target->left->kind == FJ_EXPR_NAME) bind(e, target->left->text, thunk, true, 0);
        break;
    default: break;
    }
}

/* x.append(...), x.zero_(): changes x. */
static bool is_mutation(const fj_expr *value) {
    static const char *const methods[] = {"append", "extend", "insert", "pop", "remove", "sort",
                                          "reverse", "clear", "update", "add", "discard"};
    if (value == NULL || value->kind != FJ_EXPR_CALL || value->left->kind != FJ_EXPR_ATTRIBUTE) return false;
    if (value->left->left->kind != FJ_EXPR_NAME) return false;
    const fj_str name = value->left->text;
    if (name.len > 1 && name.data[name.len - 1] == '_' && name.data[0] != '_') return true;
    for (size_t i = 0; i < FJ_ARRAY_LEN(methods); i++) {
        if (fj_str_is(name, methods[i])) return true;
    }
    return false;
}

static void load_block(fj_elab *e, const fj_stmt_list *body, const fj_guard *guard);

static void load_if(fj_elab *e, const fj_stmt *stmt, const fj_guard *guard) {
    fj_guard *then = FJ_NEW(e->arena, fj_guard), *otherwise = FJ_NEW(e->arena, fj_guard);
    *then = (fj_guard){stmt->value, true, e->globals.len, guard};
    *otherwise = (fj_guard){stmt->value, false, e->globals.len, guard};
    load_block(e, &stmt->body, then);
    load_block(e, &stmt->orelse, otherwise);
}

static void load_loop_body(fj_elab *e, const fj_stmt_list *body, fj_thunk *thunk) {
    for (size_t i = 0; i < body->len; i++) {
        const fj_stmt *stmt = body->data[i];
        for (size_t j = 0; j < stmt->targets.len; j++) bind_target(e, stmt->targets.data[j], thunk);
        load_loop_body(e, &stmt->body, thunk);
        load_loop_body(e, &stmt->orelse, thunk);
    }
}

static void load_for(fj_elab *e, const fj_stmt *stmt, fj_thunk *thunk) {
    bind_target(e, stmt->targets.data[0], thunk);
    load_loop_body(e, &stmt->body, thunk);
    load_loop_body(e, &stmt->orelse, thunk);
}

static void load_stmt(fj_elab *e, const fj_stmt *stmt, const fj_guard *guard) {
    if (stmt->kind == FJ_STMT_IF) {
        load_if(e, stmt, guard);
        return;
    }
    fj_thunk *thunk = FJ_NEW(e->arena, fj_thunk);
    *thunk = (fj_thunk){.stmt = stmt, .guard = guard, .time = e->globals.len};
    switch (stmt->kind) {
    case FJ_STMT_ASSIGN:
    case FJ_STMT_AUGMENTED:
        for (size_t i = 0; i < stmt->targets.len; i++) bind_target(e, stmt->targets.data[i], thunk);
        break;
    case FJ_STMT_EXPRESSION:
        if (is_mutation(stmt->value)) bind(e, stmt->value->left->left->text, thunk, true, 0);
        break;
    case FJ_STMT_FOR: load_for(e, stmt, thunk); break;
    case FJ_STMT_DEF: bind(e, stmt->function->name, thunk, false, 0); break;
    case FJ_STMT_IMPORT:
        for (size_t i = 0; i < stmt->import_count; i++) bind(e, stmt->imports[i].name, thunk, false, i);
        break;
    case FJ_STMT_UNSUPPORTED:
        for (size_t i = 0; i < stmt->bind_count; i++) bind(e, stmt->binds[i], thunk, false, 0);
        break;
    default: break;
    }
}

static void load_block(fj_elab *e, const fj_stmt_list *body, const fj_guard *guard) {
    for (size_t i = 0; i < body->len; i++) load_stmt(e, body->data[i], guard);
}

void fj_scope_load(fj_elab *e, const fj_module *module) {
    e->module = module;
    if (module != NULL) load_block(e, &module->body, NULL);
    e->table_cap = 16;
    while (e->table_cap < e->globals.len * 2) e->table_cap *= 2;
    e->table = FJ_NEW_ARRAY(e->arena, fj_global *, e->table_cap);
    for (size_t i = 0; i < e->globals.len; i++) {
        fj_global **slot = find_slot(e, e->globals.data[i]->name);
        e->globals.data[i]->before = *slot;
        *slot = e->globals.data[i];
    }
}

/* ---- Running module statements --------------------------------------------------------------------- */

static void enter_module(fj_elab *e, size_t time, fj_frame *frame) {
    e->frame = frame;
    e->time = time;
    e->in_mod = false;
}

/* Evaluates something of the module as it was at a time; keeps where evaluation is. */
#define AT_MODULE(e, at, inside, ...)                                                                          \
    do {                                                                                                       \
        fj_frame *const frame_ = (e)->frame;                                                                   \
        const size_t time_ = (e)->time;                                                                        \
        const bool in_mod_ = (e)->in_mod;                                                                      \
        enter_module((e), (at), (inside));                                                                     \
        __VA_ARGS__;                                                                                           \
        (e)->frame = frame_;                                                                                   \
        (e)->time = time_;                                                                                     \
        (e)->in_mod = in_mod_;                                                                                 \
    } while (0)

static void set_global(fj_elab *e, void *user, fj_str name, fj_value value, fj_place place) {
    fj_thunk *thunk = user;
    for (size_t i = thunk->time; i < e->globals.len && e->globals.data[i]->thunk == thunk; i++) {
        fj_global *global = e->globals.data[i];
        if (!global->mutation && fj_str_equal(global->name, name)) {
            global->value = fj_capture_name(e, value, name, true, place);
        }
    }
}

static void run_assign(fj_elab *e, fj_thunk *thunk) {
    const fj_stmt *stmt = thunk->stmt;
    fj_value value = fj_scope_attempt(e, stmt->value);
    if (stmt->kind == FJ_STMT_AUGMENTED) {
        const fj_value left = fj_elab_expr(e, stmt->targets.data[0]);
        value = fj_operate(e, stmt->op, left, value, stmt->place);
    }
    for (size_t i = 0; i < stmt->targets.len; i++) fj_scope_unpack(e, stmt->targets.data[i], value, set_global, thunk);
}

/* A loop at module level runs in a frame of its own; what it leaves there are the values. */
static void run_for(fj_elab *e, fj_thunk *thunk) {
    FJ_VEC(fj_str) names = {0};
    for (size_t i = thunk->time; i < e->globals.len && e->globals.data[i]->thunk == thunk; i++) {
        FJ_PUSH(e->arena, &names, e->globals.data[i]->name);
    }
    fj_frame *frame = fj_frame_create(e, NULL, names.data, names.len);
    for (size_t i = 0; i < names.len; i++) {
        fj_value value;
        frame->values[i] = fj_scope_module_value(e, names.data[i], thunk->stmt->place, &value) ? value : FJ_UNSET;
    }
    e->frame = frame;
    (void)fj_elab_for(e, thunk->stmt, NULL);
    for (size_t i = 0; i < names.len; i++) set_global(e, thunk, names.data[i], frame->values[i], thunk->stmt->place);
}

static void run_unsupported(fj_elab *e, fj_thunk *thunk) {
    for (size_t i = thunk->time; i < e->globals.len && e->globals.data[i]->thunk == thunk; i++) {
        fj_global *global = e->globals.data[i];
        const char *name = fj_arena_strdup(e->arena, global->name);
        global->value = fj_value_unknown(e->arena, name, fj_arena_strdup(e->arena, thunk->stmt->text));
    }
}

static void run_imports(fj_elab *e, fj_thunk *thunk) {
    for (size_t i = thunk->time; i < e->globals.len && e->globals.data[i]->thunk == thunk; i++) {
        fj_global *global = e->globals.data[i];
        global->value = fj_import_value(e, &thunk->stmt->imports[global->import_index]);
    }
}

static void run_stmt(fj_elab *e, fj_thunk *thunk) {
    const fj_stmt *stmt = thunk->stmt;
    switch (stmt->kind) {
    case FJ_STMT_ASSIGN:
    case FJ_STMT_AUGMENTED: run_assign(e, thunk); break;
    case FJ_STMT_FOR: run_for(e, thunk); break;
    case FJ_STMT_DEF: e->globals.data[thunk->time]->value = fj_elab_define(e, stmt->function); break;
    case FJ_STMT_IMPORT: run_imports(e, thunk); break;
    case FJ_STMT_UNSUPPORTED: run_unsupported(e, thunk); break;
    default: break;
    }
}

static void force(fj_elab *e, fj_thunk *thunk, fj_place place) {
    if (thunk->state == FJ_THUNK_DONE) return;
    if (thunk->state == FJ_THUNK_RUNNING) fj_elab_fail(e, place, "this depends on itself");
    thunk->state = FJ_THUNK_RUNNING;
    thunk->reached = true;
    FJ_PUSH(e->arena, &e->running, thunk);
    AT_MODULE(e, thunk->time, NULL, run_stmt(e, thunk));
    e->running.len--;
    thunk->state = FJ_THUNK_DONE;
}

static bool guard_holds(fj_elab *e, const fj_guard *guard) {
    for (; guard != NULL; guard = guard->outer) {
        bool truth = false;
        AT_MODULE(e, guard->time, NULL,
                  truth = fj_elab_truth(e, fj_elab_expr(e, guard->condition), guard->condition->place,
                                        "the condition of 'if'"));
        if (truth != guard->wanted) return false;
    }
    return true;
}

fj_global *fj_scope_find(fj_elab *e, fj_str name) { return e->module == NULL ? NULL : *find_slot(e, name); }

/* The binding that counts at the current time. */
static fj_global *current(fj_elab *e, fj_global *global, fj_place place) {
    for (; global != NULL; global = global->before) {
        fj_elab_step(e, place, 1);
        if (global->thunk->time < e->time && guard_holds(e, global->thunk->guard)) return global;
    }
    return NULL;
}

static bool original_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value) {
    fj_global *global = current(e, fj_scope_find(e, name), place);
    if (global == NULL) return false;
    const bool mutated = global->mutation;
    const fj_place mutation = global->thunk->stmt->place;
    while (global != NULL && global->mutation) global = current(e, global->before, place);
    if (global == NULL) return false;
    force(e, global->thunk, place);
    if (mutated && global->value.kind != FJ_VALUE_TENSOR) {
        fj_elab_fail(e, mutation, "'%.*s' is changed in place: build it in one expression instead", (int)name.len,
                     name.data);
    }
    /* A literal table that is changed is no literal. */
    if (mutated && global->value.tensor->kind == FJ_TENSOR_CAPTURE && global->value.tensor->table->literal != NULL) {
        fj_table *table = fj_table_create(e, mutation);
        *ret_value = fj_capture_name(e, fj_capture_unnamed(e, table), name, true, mutation);
        global->value = *ret_value;
        return true;
    }
    *ret_value = global->value;
    return ret_value->kind != FJ_VALUE_UNSET;
}

/* ---- Overrides: --param and --runtime-param ---------------------------------------------------------- */

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
    if (v.kind == FJ_VALUE_SCALAR) return v.type == FJ_TYPE_FLOAT ? "a float" : v.type == FJ_TYPE_BOOL ? "a bool" : "an int";
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
                          (int)override->name.len, override->name.data, fj_value_describe(value));
    }
    fj_runtime_scalar scalar = {.name = fj_arena_strdup(e->arena, override->name)};
    scalar.type = fj_value_type(value);
    scalar.f = fj_value_as_double(value);
    scalar.i = value.kind == FJ_VALUE_BOOL ? value.b : value.kind == FJ_VALUE_INT ? value.i : 0;
    FJ_PUSH(e->arena, &e->ir->scalars, scalar);
    return fj_scalar_value(e, fj_ir_scalar(e->ir, (uint32_t)(e->ir->scalars.len - 1)), true);
}

static void run_override(fj_elab *e, fj_override *override) {
    const fj_str name = override->name;
    const fj_place place = option_place(e, name, fj_str_from(override->param ? override->param->expression : ""));
    fj_value original;
    if (!original_value(e, name, place, &original) || original.kind == FJ_VALUE_TENSOR ||
        original.kind == FJ_VALUE_UNKNOWN || fj_value_is_function(original)) {
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
    AT_MODULE(e, FJ_TIME_END, NULL, run_override(e, override));
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

void fj_scope_load_overrides(fj_elab *e) {
    for (size_t i = 0; i < e->desc->param_count; i++) override_of(e, e->desc->params[i].name)->param = &e->desc->params[i];
    for (size_t i = 0; i < e->desc->runtime_param_count; i++) override_of(e, e->desc->runtime_params[i])->runtime = true;
    for (size_t i = 0; i < e->overrides.len; i++) {
        const fj_str name = e->overrides.data[i].name;
        if (fj_scope_find(e, name) != NULL) continue;
        fj_suggestion suggestion = fj_suggest_begin(name);
        for (size_t j = 0; j < e->globals.len; j++) fj_suggest(&suggestion, e->globals.data[j]->name);
        fj_elab_fail_name(e, option_place(e, name, name), NULL, "the module has no constant '%.*s'%s", (int)name.len,
                          name.data, fj_suggest_text(e, &suggestion));
    }
}

/* After the mods: what they do not reach must be right too. */
void fj_scope_check_overrides(fj_elab *e) {
    e->checking = true;
    for (size_t i = 0; i < e->overrides.len; i++) {
        if (e->overrides.data[i].state == FJ_THUNK_FRESH) force_override(e, &e->overrides.data[i]);
    }
}

bool fj_scope_module_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value) {
    fj_override *override = e->overrides.len > 0 ? find_override(e, name) : NULL;
    if (override == NULL || override->state == FJ_THUNK_RUNNING) return original_value(e, name, place, ret_value);
    if (override->state == FJ_THUNK_FRESH) force_override(e, override);
    *ret_value = override->value;
    return true;
}

/* ---- Frames and lookup --------------------------------------------------------------------------------- */

fj_frame *fj_frame_create(fj_elab *e, fj_frame *parent, const fj_str *names, size_t count) {
    fj_frame *frame = FJ_NEW(e->arena, fj_frame);
    *frame = (fj_frame){.parent = parent, .names = names, .count = count};
    frame->values = FJ_NEW_ARRAY(e->arena, fj_value, count);
    return frame;
}

static fj_value *find_local(fj_elab *e, fj_frame *frame, fj_str name, fj_place place) {
    fj_elab_step(e, place, frame->count / 16);
    for (size_t i = 0; i < frame->count; i++) {
        if (fj_str_equal(frame->names[i], name)) return &frame->values[i];
    }
    return NULL;
}

static _Noreturn void fail_unknown(fj_elab *e, fj_str name, fj_place place) {
    fj_suggestion suggestion = fj_suggest_begin(name);
    for (const fj_frame *frame = e->frame; frame != NULL; frame = frame->parent) {
        for (size_t i = 0; i < frame->count; i++) fj_suggest(&suggestion, frame->names[i]);
    }
    for (size_t i = 0; i < e->globals.len; i++) fj_suggest(&suggestion, e->globals.data[i]->name);
    for (size_t i = 0; i < e->desc->binding_count; i++) fj_suggest(&suggestion, fj_str_from(e->desc->bindings[i].name));
    fj_builtin_suggest(&suggestion, FJ_IN_BARE | FJ_IN_PYTHON);
    const char *ending = fj_suggest_text(e, &suggestion);
    const char *file = place.source->name;
    if (strcmp(file, "<score-mod>") == 0 || strcmp(file, "<mask-mod>") == 0) {
        fj_elab_fail_name(e, place, NULL, "unknown name '%.*s'%s", (int)name.len, name.data, ending);
    }
    const char *note = *ending == '\0' ? "a captured tensor needs a tensor of this name from the caller" : NULL;
    fj_elab_fail_note(e, place, note, "unknown name '%.*s'%s", (int)name.len, name.data, ending);
}

/* Whether a name looks like a misspelt one, though it could be a tensor that is bound later. */
static bool is_near_miss(fj_elab *e, fj_str name) {
    fj_suggestion suggestion = fj_suggest_begin(name);
    for (const fj_frame *frame = e->frame; frame != NULL; frame = frame->parent) {
        for (size_t i = 0; i < frame->count; i++) fj_suggest(&suggestion, frame->names[i]);
    }
    for (size_t i = 0; i < e->globals.len; i++) fj_suggest(&suggestion, e->globals.data[i]->name);
    return suggestion.best.data != NULL;
}

static fj_value lookup_builtin(fj_elab *e, fj_str name, fj_place place) {
    const fj_builtin *builtin = fj_builtin_find(name, FJ_IN_PYTHON);
    if (builtin != NULL) return fj_builtin_value(builtin);
    if (fj_str_is(name, "__name__")) return fj_value_str(FJ_STR("mod"));
    if (fj_capture_binding(e, name) != NULL) return fj_capture_free(e, name, place);
    if (fj_str_is(name, "torch") || fj_str_is(name, "math")) {
        return (fj_value){.kind = FJ_VALUE_MODULE, .str = name};
    }
    if (fj_str_is(name, "F")) return (fj_value){.kind = FJ_VALUE_MODULE, .str = FJ_STR("torch.nn.functional")};
    if (fj_str_is(name, "inf")) return fj_value_float(__builtin_inf());
    if (fj_str_is(name, "nan")) return fj_value_float(__builtin_nan(""));
    if (fj_str_is(name, "pi")) return fj_value_float(3.14159265358979323846);
    builtin = fj_builtin_find(name, FJ_IN_BARE | FJ_IN_FLEX);
    if (builtin != NULL) return fj_builtin_value(builtin);
    if (e->desc->bindings_open && !is_near_miss(e, name)) return fj_capture_free(e, name, place);
    fail_unknown(e, name, place);
}

fj_value fj_scope_lookup(fj_elab *e, fj_str name, fj_place place) {
    fj_elab_step(e, place, 1);
    for (fj_frame *frame = e->frame; frame != NULL; frame = frame->parent) {
        const fj_value *local = find_local(e, frame, name, place);
        if (local == NULL) continue;
        if (local->kind == FJ_VALUE_UNSET) {
            fj_elab_fail(e, place, "'%.*s' is read before it is assigned", (int)name.len, name.data);
        }
        return *local;
    }
    fj_value value;
    if (fj_scope_module_value(e, name, place, &value)) return value;
    return lookup_builtin(e, name, place);
}

/* ---- Assignment ------------------------------------------------------------------------------------------- */

void fj_scope_assign(fj_elab *e, fj_str name, fj_value value, fj_place place) {
    fj_value *local = e->frame == NULL ? NULL : find_local(e, e->frame, name, place);
    if (local == NULL) fj_elab_fail(e, place, "'%.*s' cannot be assigned here", (int)name.len, name.data);
    *local = e->in_mod ? value : fj_capture_name(e, value, name, false, place);
}

static void set_local(fj_elab *e, void *user, fj_str name, fj_value value, fj_place place) {
    (void)user;
    fj_scope_assign(e, name, value, place);
}

void fj_scope_assign_target(fj_elab *e, const fj_expr *target, fj_value value) {
    fj_scope_unpack(e, target, value, set_local, NULL);
}

static void unpack_items(fj_elab *e, const fj_expr *target, const fj_sequence *from, fj_scope_setter set, void *user) {
    size_t star = target->items.len;
    for (size_t i = 0; i < target->items.len; i++) {
        if (target->items.data[i]->kind == FJ_EXPR_STARRED) star = i;
    }
    const bool has_star = star < target->items.len;
    const size_t least = target->items.len - has_star;
    if (has_star ? from->len < least : from->len != least) {
        fj_elab_fail(e, target->place, "%zu values cannot be unpacked into %zu names", from->len, target->items.len);
    }
    for (size_t i = 0, at = 0; i < target->items.len; i++) {
        if (i == star) {
            const size_t count = from->len - least;
            const fj_value rest = fj_value_rest(e->arena, FJ_VALUE_LIST, from->items, at, at + count);
            fj_scope_unpack(e, target->items.data[i]->left, rest, set, user);
            at += count;
        } else {
            fj_scope_unpack(e, target->items.data[i], from->items[at++], set, user);
        }
    }
}

void fj_scope_unpack(fj_elab *e, const fj_expr *target, fj_value value, fj_scope_setter set, void *user) {
    fj_value opaque;
    fj_elab_enter(e, target->place);
    switch (target->kind) {
    case FJ_EXPR_NAME: set(e, user, target->text, value, target->place); break;
    case FJ_EXPR_TUPLE:
    case FJ_EXPR_LIST:
        if (fj_gives_opaque(e, value, &opaque)) { /* several tensors at once */
            for (size_t i = 0; i < target->items.len; i++) {
                fj_table *table = fj_table_create(e, target->place);
                table->error = opaque.tensor->table->error;
                table->why = opaque.tensor->table->why;
                fj_scope_unpack(e, target->items.data[i], fj_capture_unnamed(e, table), set, user);
            }
        } else {
            const fj_sequence from = fj_elab_iterate(e, value, target->place);
            unpack_items(e, target, &from, set, user);
        }
        break;
    case FJ_EXPR_ATTRIBUTE:
        if (fj_str_is(target->text, "__name__") || fj_str_is(target->text, "__doc__")) break;
        fj_elab_fail(e, target->place, "attributes cannot be assigned in the mod language");
    case FJ_EXPR_SUBSCRIPT:
        if (e->frame == NULL) break; /* at module level: see fj_global.mutation */
        fj_elab_fail(e, target->place, "elements cannot be assigned in the mod language: make a new value, "
                                       "for instance with torch.where");
    default: fj_elab_fail(e, target->place, "this cannot be assigned");
    }
    fj_elab_leave(e);
}

/* ---- Attempts -------------------------------------------------------------------------------------------- */

typedef struct evaluation {
    const fj_expr *expression;
    fj_value value;
} evaluation;

static void evaluate(fj_elab *e, void *user) {
    evaluation *it = user;
    it->value = fj_elab_expr(e, it->expression);
}

fj_value fj_scope_attempt(fj_elab *e, const fj_expr *expression) {
    if (e->in_mod) return fj_elab_expr(e, expression);
    evaluation it = {expression, FJ_NONE};
    const fj_error *error = fj_elab_try(e, evaluate, &it);
    if (error == NULL) return it.value;
    fj_table *table = fj_table_create(e, expression->place);
    table->error = error;
    return fj_capture_unnamed(e, table);
}
