/* `global` statements of functions that the module may call: they assign names of the module, which the
 * mod language does not do. A name that one may have assigned is an error where it is read.
 */
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"

typedef struct search {
    fj_elab *e;
    FJ_VEC(const fj_function *) reached; /* each once */
    FJ_VEC(fj_str) names;                /* what they declare global */
    unsigned seen;
} search;

static void walk_block(search *s, const fj_stmt_list *body);

/* Looking is cheap: several make one step. */
static void step(search *s, fj_place place) {
    if (s->seen++ % 16 == 0) fj_elab_step(s->e, place, 1);
}

static void reach(search *s, fj_str name, fj_place place) {
    const fj_elab *e = s->e;
    fj_elab_step(s->e, place, e->globals.len / 256);
    for (size_t i = e->globals.len; i-- > 0;) {
        const fj_global *global = e->globals.data[i];
        const fj_stmt *stmt = global->thunk->stmt;
        if (!fj_str_equal(global->name, name)) continue;
        if (stmt->kind != FJ_STMT_DEF && stmt->kind != FJ_STMT_CLASS) return;
        for (size_t k = 0; k < s->reached.len; k++) {
            if (s->reached.data[k] == stmt->function) return;
        }
        FJ_PUSH(e->arena, &s->reached, stmt->function);
        return;
    }
}

static void walk(search *s, const fj_expr *x) {
    if (x == NULL) return;
    step(s, x->place);
    if (x->kind == FJ_EXPR_NAME) reach(s, x->text, x->place);
    walk(s, x->left);
    walk(s, x->right);
    walk(s, x->condition);
    for (size_t i = 0; i < x->items.len; i++) walk(s, x->items.data[i]);
    for (size_t i = 0; i < x->keyword_count; i++) walk(s, x->keywords[i].value);
    for (size_t i = 0; i < x->clause_count; i++) {
        walk(s, x->clauses[i].iterable);
        for (size_t k = 0; k < x->clauses[i].conditions.len; k++) walk(s, x->clauses[i].conditions.data[k]);
    }
    if (x->function != NULL) walk_block(s, &x->function->body);
}

/* Of what a function does, or the module itself. */
static void walk_stmt(search *s, const fj_stmt *stmt) {
    step(s, stmt->place);
    for (size_t i = 0; i < stmt->targets.len; i++) walk(s, stmt->targets.data[i]);
    walk(s, stmt->value);
    if (stmt->kind == FJ_STMT_DEF || stmt->kind == FJ_STMT_CLASS) {
        for (size_t i = 0; i < stmt->function->decorators.len; i++)
            walk(s, stmt->function->decorators.data[i]);
        for (size_t i = 0; i < stmt->function->parameter_count; i++)
            walk(s, stmt->function->parameters[i].default_value);
    }
    for (size_t i = 0; stmt->kind == FJ_STMT_GLOBAL && i < stmt->bind_count; i++)
        FJ_PUSH(s->e->arena, &s->names, stmt->binds[i]);
}

static void walk_block(search *s, const fj_stmt_list *body) {
    for (size_t i = 0; i < body->len; i++) {
        const fj_stmt *stmt = body->data[i];
        walk_stmt(s, stmt);
        walk_block(s, &stmt->body);
        walk_block(s, &stmt->orelse);
        if (stmt->function != NULL) walk_block(s, &stmt->function->body);
    }
}

/* What a statement of the module runs: not the bodies of what it defines. */
static void walk_module(search *s, const fj_stmt *stmt) {
    walk_stmt(s, stmt);
    if (stmt->kind == FJ_STMT_CLASS) walk_block(s, &stmt->function->body);
    if (stmt->kind != FJ_STMT_FOR) return; /* the branches of an 'if' are loaded by themselves */
    walk_block(s, &stmt->body);
    walk_block(s, &stmt->orelse);
}

static bool has_global(const fj_stmt_list *body) {
    for (size_t i = 0; i < body->len; i++) {
        const fj_stmt *stmt = body->data[i];
        if (stmt->kind == FJ_STMT_GLOBAL || has_global(&stmt->body) || has_global(&stmt->orelse)) return true;
        if (stmt->function != NULL && has_global(&stmt->function->body)) return true;
    }
    return false;
}

bool fj_globals_any(const fj_module *module) { return has_global(&module->body); }

fj_stmt *fj_globals_assigned(fj_elab *e, const fj_stmt *stmt) {
    search s = {.e = e};
    if (stmt->kind == FJ_STMT_GLOBAL || stmt->kind == FJ_STMT_IMPORT) return NULL;
    walk_module(&s, stmt);
    for (size_t i = 0; i < s.reached.len; i++) walk_block(&s, &s.reached.data[i]->body);
    if (s.names.len == 0) return NULL;
    fj_stmt *assigned = FJ_NEW(e->arena, fj_stmt);
    *assigned = (fj_stmt){.kind = FJ_STMT_GLOBAL,
                          .place = stmt->value != NULL ? stmt->value->place : stmt->place,
                          .binds = s.names.data,
                          .bind_count = s.names.len};
    return assigned;
}
