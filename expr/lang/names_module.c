/* The names of the module, which are evaluated when they are looked up.
 *
 * Module statements are numbered by their place in the file: their time. A statement is evaluated
 * when a name that it binds is looked up, and sees what was bound before its time, as when Python
 * runs the file; while a mod runs, the time is FJ_TIME_END and the last binding of a name counts.
 */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Loading the module -------------------------------------------------------------------------- */

static size_t hash_name(fj_str name) {
    size_t hash = 5381;
    for (size_t i = 0; i < name.len; i++) hash = hash * 33 ^ (unsigned char)name.data[i];
    return hash;
}

static fj_global **find_slot(const fj_elab *e, fj_str name) {
    size_t at = hash_name(name) & (e->table_cap - 1);
    while (e->table[at] != NULL && !fj_str_equal(e->table[at]->name, name))
        at = (at + 1) & (e->table_cap - 1);
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
    case FJ_EXPR_ATTRIBUTE:
        if (target->text.len > 2 && target->text.data[0] == '_' && target->text.data[1] == '_') break;
        if (target->left->kind == FJ_EXPR_NAME) bind(e, target->left->text, thunk, true, 0);
        break;
    case FJ_EXPR_SUBSCRIPT:
        if (target->left->kind == FJ_EXPR_NAME) bind(e, target->left->text, thunk, true, 0);
        break;
    default: break;
    }
}

/* x.append(...), x.zero_(): changes x. */
static bool is_mutation(const fj_expr *value) {
    static const char *const methods[] = {"append",          "extend",
                                          "insert",          "pop",
                                          "remove",          "sort",
                                          "reverse",         "clear",
                                          "update",          "add",
                                          "discard",         "setdefault",
                                          "register_buffer", "register_parameter"};
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
        if (stmt->kind == FJ_STMT_EXPRESSION && is_mutation(stmt->value))
            bind(e, stmt->value->left->left->text, thunk, true, 0);
        load_loop_body(e, &stmt->body, thunk);
        load_loop_body(e, &stmt->orelse, thunk);
    }
}

static void load_for(fj_elab *e, const fj_stmt *stmt, fj_thunk *thunk) {
    bind_target(e, stmt->targets.data[0], thunk);
    load_loop_body(e, &stmt->body, thunk);
    load_loop_body(e, &stmt->orelse, thunk);
}

/* What functions assign by 'global' while stmt runs: before what it binds itself. */
static void load_globals(fj_elab *e, const fj_stmt *stmt, const fj_guard *guard) {
    const fj_stmt *assigned = e->has_global ? fj_globals_assigned(e, stmt) : NULL;
    if (assigned == NULL) return;
    for (size_t i = 0; i < assigned->bind_count; i++) {
        fj_thunk *thunk = FJ_NEW(e->arena, fj_thunk);
        *thunk = (fj_thunk){.stmt = assigned, .guard = guard, .time = e->globals.len};
        bind(e, assigned->binds[i], thunk, false, 0);
    }
}

static void load_stmt(fj_elab *e, const fj_stmt *stmt, const fj_guard *guard) {
    load_globals(e, stmt, guard);
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
    case FJ_STMT_CLASS:
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

void fj_names_load(fj_elab *e, const fj_module *module) {
    e->module = module;
    e->has_global = module != NULL && fj_globals_any(module);
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

fj_whereabouts fj_names_enter_module(fj_elab *e, size_t time) {
    const fj_whereabouts was = {e->frame, e->time, e->in_mod};
    e->frame = NULL;
    e->time = time;
    e->in_mod = false;
    return was;
}

void fj_names_leave_module(fj_elab *e, fj_whereabouts was) {
    e->frame = was.frame;
    e->time = was.time;
    e->in_mod = was.in_mod;
}

static void set_global(fj_elab *e, void *user, fj_str name, fj_value value, fj_place place) {
    fj_thunk *thunk = user;
    for (size_t i = thunk->time; i < e->globals.len && e->globals.data[i]->thunk == thunk; i++) {
        fj_global *global = e->globals.data[i];
        fj_elab_step(e, place, 1);
        if (!global->mutation && fj_str_equal(global->name, name)) {
            global->value = fj_capture_name(e, value, name, true, place);
        }
    }
}

static void run_assign(fj_elab *e, fj_thunk *thunk) {
    const fj_stmt *stmt = thunk->stmt;
    if (fj_names_assign_parallel(e, stmt, set_global, thunk)) return;
    fj_value value = fj_names_attempt(e, stmt->value);
    if (stmt->kind == FJ_STMT_AUGMENTED) {
        const fj_value left = fj_elab_expr(e, stmt->targets.data[0]);
        value = fj_operate(e, stmt->op, left, value, stmt->place);
    }
    for (size_t i = 0; i < stmt->targets.len; i++)
        fj_names_unpack(e, stmt->targets.data[i], value, set_global, thunk);
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
        frame->values[i] =
            fj_names_module_value(e, names.data[i], thunk->stmt->place, &value) ? value : FJ_UNSET;
    }
    e->frame = frame;
    (void)fj_elab_for(e, thunk->stmt, NULL);
    for (size_t i = 0; i < names.len; i++)
        set_global(e, thunk, names.data[i], frame->values[i], thunk->stmt->place);
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
    case FJ_STMT_CLASS: e->globals.data[thunk->time]->value = fj_class_define(e, stmt); break;
    case FJ_STMT_EXPRESSION: (void)fj_elab_expr(e, stmt->value); break;
    case FJ_STMT_IMPORT: run_imports(e, thunk); break;
    case FJ_STMT_UNSUPPORTED: run_unsupported(e, thunk); break;
    case FJ_STMT_GLOBAL: {
        const fj_str name = e->globals.data[thunk->time]->name;
        fj_elab_fail_note(e, stmt->place,
                          "'global' is not in the mod language: assign the name at module level instead",
                          "what runs here may assign '%.*s' by 'global'", (int)name.len, name.data);
    }
    default: break;
    }
}

static void force(fj_elab *e, fj_thunk *thunk, fj_place place) {
    if (thunk->state == FJ_THUNK_DONE) return;
    if (thunk->state == FJ_THUNK_RUNNING) fj_elab_fail(e, place, "this depends on itself");
    if (thunk->state == FJ_THUNK_FAILED) fj_elab_fail_again(e, thunk->error);
    thunk->state = FJ_THUNK_RUNNING;
    thunk->reached = true;
    FJ_PUSH(e->arena, &e->running, thunk);
    const fj_whereabouts was = fj_names_enter_module(e, thunk->time);
    run_stmt(e, thunk);
    fj_names_leave_module(e, was);
    e->running.len--;
    thunk->state = FJ_THUNK_DONE;
}

static bool guard_holds(fj_elab *e, const fj_guard *guard) {
    for (; guard != NULL; guard = guard->outer) {
        const fj_expr *condition = guard->condition;
        const fj_whereabouts was = fj_names_enter_module(e, guard->time);
        const bool truth =
            fj_elab_truth(e, fj_elab_expr(e, condition), condition->place, "the condition of 'if'");
        fj_names_leave_module(e, was);
        if (truth != guard->wanted) return false;
    }
    return true;
}

fj_global *fj_names_find(fj_elab *e, fj_str name) { return e->module == NULL ? NULL : *find_slot(e, name); }

/* The binding that counts at the current time. */
static fj_global *current(fj_elab *e, fj_global *global, fj_place place) {
    for (; global != NULL; global = global->before) {
        fj_elab_step(e, place, 1);
        if (global->thunk->time < e->time && guard_holds(e, global->thunk->guard)) return global;
    }
    return NULL;
}

/* Lists, dicts and objects are changed by the statements that name them, once and in order. */
static bool changes(fj_value value) {
    return value.kind == FJ_VALUE_LIST || value.kind == FJ_VALUE_DICT || value.kind == FJ_VALUE_OBJECT ||
           value.kind == FJ_VALUE_CLASS;
}

/* Those before one that has run have run too. */
static void run_mutations(fj_elab *e, fj_global *last, fj_place place) {
    FJ_VEC(fj_thunk *) waiting = {0};
    for (fj_global *at = last; at != NULL && at->mutation; at = current(e, at->before, place)) {
        if (at->thunk->state == FJ_THUNK_DONE || at->thunk->state == FJ_THUNK_RUNNING) break;
        FJ_PUSH(e->arena, &waiting, at->thunk);
    }
    while (waiting.len > 0) {
        fj_thunk *thunk = waiting.data[--waiting.len];
        if (thunk->state != FJ_THUNK_DONE) force(e, thunk, place);
    }
}

bool fj_names_original_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value) {
    fj_global *global = current(e, fj_names_find(e, name), place);
    if (global == NULL) return false;
    fj_global *const last = global;
    const bool mutated = global->mutation;
    const fj_place mutation = global->thunk->stmt->place;
    while (global != NULL && global->mutation) global = current(e, global->before, place);
    if (global == NULL) return false;
    force(e, global->thunk, place);
    if (mutated && changes(global->value)) {
        *ret_value = global->value;
        run_mutations(e, last, place);
        return true;
    }
    if (mutated && (fj_value_is_function(global->value) || global->value.kind == FJ_VALUE_UNKNOWN)) {
        *ret_value = global->value; /* f.register(...): what a function computes stays */
        return true;
    }
    if (mutated && global->value.kind != FJ_VALUE_TENSOR) {
        fj_elab_fail(e, mutation, "'%.*s' is changed in place: build it in one expression instead",
                     (int)name.len, name.data);
    }
    /* A literal table that is changed is not a literal. */
    if (mutated && global->value.tensor->kind == FJ_TENSOR_CAPTURE &&
        global->value.tensor->table->literal != NULL) {
        fj_table *table = fj_table_create(e, mutation);
        *ret_value = fj_capture_name(e, fj_capture_unnamed(e, table), name, true, mutation);
        global->value = *ret_value;
        return true;
    }
    *ret_value = global->value;
    return ret_value->kind != FJ_VALUE_UNSET;
}
