/* Statements, executed at compile time. */
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/lex.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Iteration --------------------------------------------------------------------------------- */

static fj_sequence iterate_tensor(fj_elab *e, fj_value value, fj_place place) {
    fj_value opaque;
    if (fj_gives_opaque(e, value, &opaque)) fj_capture_fail_opaque(e, opaque, place);
    fj_capture_fail_broken(e, value.tensor, place);
    const int rank = fj_tensor_rank(e, value.tensor, place);
    if (rank < 1) fj_elab_fail(e, place, "a tensor of rank 0 cannot be iterated");
    const int64_t count = fj_elab_int(e, fj_tensor_dim(e, value.tensor, 0, place), place, "a loop");
    if (count > FJ_ELAB_MAX_ITEMS)
        fj_elab_fail(e, place, "a loop over %lld elements is not unrolled", (long long)count);
    fj_sequence items = {.items = FJ_NEW_ARRAY(e->arena, fj_value, count), .len = (size_t)count};
    for (int64_t i = 0; i < count; i++) {
        const fj_value index = fj_value_int(i);
        items.items[i] = fj_tensor_index(e, value.tensor, &index, 1, place);
    }
    return items;
}

static fj_sequence characters(fj_elab *e, fj_str text, fj_place place) {
    fj_sequence items = {.items = FJ_NEW_ARRAY(e->arena, fj_value, text.len)};
    if (text.len > FJ_ELAB_MAX_ITEMS)
        fj_elab_fail(e, place, "a string of more than %d bytes", FJ_ELAB_MAX_ITEMS);
    for (size_t at = 0; at < text.len;) {
        const size_t width = fj_lex_utf8(text.data + at, text.len - at, NULL), count = width > 0 ? width : 1;
        items.items[items.len++] = fj_value_str((fj_str){text.data + at, count});
        at += count;
    }
    return items;
}

fj_sequence fj_elab_iterate(fj_elab *e, fj_value value, fj_place place) {
    if (fj_value_is_sequence(value)) return *value.seq;
    if (value.kind == FJ_VALUE_DICT) return *fj_dict_keys(e, value.dict).seq;
    if (value.kind == FJ_VALUE_TENSOR) return iterate_tensor(e, value, place);
    if (value.kind == FJ_VALUE_STR) fj_constant_need_text(e, value, place);
    if (value.kind == FJ_VALUE_STR) return characters(e, value.str, place);
    if (value.kind == FJ_VALUE_UNKNOWN) fj_elab_fail(e, place, "%s", value.unknown->why);
    fj_elab_fail(e, place,
                 "%s cannot be iterated: loops run over range(...), lists, tuples, enumerate and zip",
                 fj_value_describe(value));
}

/* ---- Loops and conditions ---------------------------------------------------------------------- */

fj_flow fj_elab_for(fj_elab *e, const fj_stmt *stmt, fj_value *ret_value) {
    const fj_sequence items = fj_elab_iterate(e, fj_elab_expr(e, stmt->value), stmt->value->place);
    for (size_t i = 0; i < items.len; i++) {
        fj_elab_step(e, stmt->place, 1);
        fj_names_assign_target(e, stmt->targets.data[0], items.items[i]);
        const fj_flow flow = fj_elab_block(e, &stmt->body, ret_value);
        if (flow == FJ_FLOW_RETURN) return flow;
        if (flow == FJ_FLOW_BREAK) return FJ_FLOW_NEXT;
    }
    return fj_elab_block(e, &stmt->orelse, ret_value);
}

static bool is_raise(const fj_stmt *stmt) {
    return stmt->body.len == 1 && stmt->body.data[0]->kind == FJ_STMT_RAISE && stmt->orelse.len == 0;
}

static fj_flow run_if(fj_elab *e, const fj_stmt *stmt, fj_value *ret_value) {
    const fj_value value = fj_elab_expr(e, stmt->value);
    if (is_raise(stmt)) {
        const int claim = fj_elab_claim(e, value, stmt->value->place, "the condition of 'if ...: raise'");
        if (claim <= 0) return FJ_FLOW_NEXT;
    } else if (!fj_elab_truth(e, value, stmt->value->place, "the condition of 'if'")) {
        return fj_elab_block(e, &stmt->orelse, ret_value);
    }
    return fj_elab_block(e, &stmt->body, ret_value);
}

static const char *message_note(fj_elab *e, const fj_expr *message) {
    if (message == NULL || message->kind != FJ_EXPR_STRING || message->text.len == 0) return NULL;
    const size_t len = message->text.len < 400 ? message->text.len : 400;
    return fj_arena_strdup(e->arena, (fj_str){message->text.data, len});
}

static void run_assert(fj_elab *e, const fj_stmt *stmt) {
    const fj_value value = fj_elab_expr(e, stmt->value);
    if (fj_elab_claim(e, value, stmt->value->place, "the condition of 'assert'") == 0) {
        fj_elab_fail_note(e, stmt->value->place, message_note(e, stmt->message),
                          "this assertion does not hold");
    }
}

static _Noreturn void run_raise(fj_elab *e, const fj_stmt *stmt) {
    const fj_expr *value = stmt->value;
    const char *note = NULL;
    if (value != NULL && value->kind == FJ_EXPR_CALL && value->items.len > 0)
        note = message_note(e, value->items.data[0]);
    fj_elab_fail_note(e, stmt->place, note, "the mod raises this error");
}

/* ---- Assignments -------------------------------------------------------------------------------- */

static void run_assign(fj_elab *e, const fj_stmt *stmt) {
    if (fj_names_assign_parallel_local(e, stmt)) return;
    const fj_value value = fj_names_attempt(e, stmt->value);
    for (size_t i = 0; i < stmt->targets.len; i++) fj_names_assign_target(e, stmt->targets.data[i], value);
}

static void run_augmented(fj_elab *e, const fj_stmt *stmt) {
    const fj_expr *target = stmt->targets.data[0];
    const fj_value left = fj_elab_expr(e, target);
    fj_names_assign_target(e, target,
                           fj_operate(e, stmt->op, left, fj_elab_expr(e, stmt->value), stmt->place));
}

static void run_import(fj_elab *e, const fj_stmt *stmt) {
    for (size_t i = 0; i < stmt->import_count; i++) {
        const fj_import *import = &stmt->imports[i];
        fj_names_assign(e, import->name, fj_import_value(e, import), import->place);
    }
}

/* Calls whose result is dropped: print and the like change nothing here. */
static void run_expression(fj_elab *e, const fj_expr *value) {
    if (value->kind == FJ_EXPR_STRING || value->kind == FJ_EXPR_ELLIPSIS) return;
    if (value->kind == FJ_EXPR_CALL && value->left->kind == FJ_EXPR_NAME &&
        fj_str_is(value->left->text, "print"))
        return;
    if (value->kind == FJ_EXPR_CALL && value->left->kind == FJ_EXPR_ATTRIBUTE) {
        const fj_str name = value->left->text;
        const bool underscore = name.len > 1 && name.data[name.len - 1] == '_' && name.data[0] != '_';
        if (underscore) {
            fj_elab_fail(e, value->place,
                         "'%.*s' changes a value in place, which the mod language does not have: "
                         "make a new value",
                         (int)name.len, name.data);
        }
    }
    (void)fj_elab_expr(e, value);
}

/* del x, (y, z): the names are no longer assigned. */
static void run_del(fj_elab *e, const fj_expr *target) {
    fj_elab_step(e, target->place, 1);
    for (size_t i = 0; i < target->items.len && target->kind != FJ_EXPR_SUBSCRIPT; i++)
        run_del(e, target->items.data[i]);
    if (target->kind == FJ_EXPR_TUPLE || target->kind == FJ_EXPR_LIST) return;
    if (target->kind != FJ_EXPR_NAME)
        fj_elab_fail(e, target->place, "'del' takes names in the mod language, not items or attributes");
    (void)fj_names_lookup(e, target->text, target->place);
    fj_names_assign(e, target->text, FJ_UNSET, target->place);
}

/* ---- Dispatch ------------------------------------------------------------------------------------- */

static fj_flow run_return(fj_elab *e, const fj_stmt *stmt, fj_value *ret_value) {
    *ret_value = stmt->value == NULL ? FJ_NONE : fj_elab_expr(e, stmt->value);
    e->returned = stmt->value == NULL ? stmt->place : stmt->value->place;
    return FJ_FLOW_RETURN;
}

static fj_flow run_stmt(fj_elab *e, const fj_stmt *stmt, fj_value *ret_value) {
    switch (stmt->kind) {
    case FJ_STMT_EXPRESSION: run_expression(e, stmt->value); break;
    case FJ_STMT_ASSIGN: run_assign(e, stmt); break;
    case FJ_STMT_AUGMENTED: run_augmented(e, stmt); break;
    case FJ_STMT_RETURN: return run_return(e, stmt, ret_value);
    case FJ_STMT_IF: return run_if(e, stmt, ret_value);
    case FJ_STMT_FOR: return fj_elab_for(e, stmt, ret_value);
    case FJ_STMT_BREAK: return FJ_FLOW_BREAK;
    case FJ_STMT_CONTINUE: return FJ_FLOW_CONTINUE;
    case FJ_STMT_ASSERT: run_assert(e, stmt); break;
    case FJ_STMT_RAISE: run_raise(e, stmt);
    case FJ_STMT_DEF:
        fj_names_assign(e, stmt->function->name, fj_elab_define(e, stmt->function), stmt->place);
        break;
    case FJ_STMT_IMPORT: run_import(e, stmt); break;
    case FJ_STMT_GLOBAL:
        fj_elab_fail(e, stmt->place,
                     "'global' and 'nonlocal' are not in the mod language: return the value instead");
    case FJ_STMT_CLASS:
        fj_names_assign(e, stmt->function->name, fj_class_define(e, stmt), stmt->place);
        break;
    case FJ_STMT_DEL: run_del(e, stmt->targets.data[0]); break;
    case FJ_STMT_UNSUPPORTED: fj_elab_fail(e, stmt->place, "%.*s", (int)stmt->text.len, stmt->text.data);
    default: break; /* pass, annotations */
    }
    return FJ_FLOW_NEXT;
}

fj_flow fj_elab_block(fj_elab *e, const fj_stmt_list *body, fj_value *ret_value) {
    for (size_t i = 0; i < body->len; i++) {
        fj_elab_enter(e, body->data[i]->place);
        const fj_flow flow = run_stmt(e, body->data[i], ret_value);
        fj_elab_leave(e);
        if (flow != FJ_FLOW_NEXT) return flow;
    }
    return FJ_FLOW_NEXT;
}
