/* Private to expr/lang: what a name means. Names of the module are bound by thunks, run when one is looked up. */
#ifndef FJ_EXPR_LANG_NAMES_H
#define FJ_EXPR_LANG_NAMES_H

#include "expr/lang/elaborate.h"

#define FJ_TIME_END SIZE_MAX

/* The condition of an `if` at module level that a binding stands under. */
typedef struct fj_guard {
    const fj_expr *condition;
    bool wanted;
    size_t time;
    const struct fj_guard *outer;
} fj_guard;

typedef enum fj_thunk_state {
    FJ_THUNK_FRESH,
    FJ_THUNK_RUNNING,
    FJ_THUNK_DONE,
    FJ_THUNK_FAILED
} fj_thunk_state;

/* A statement of the module that binds names; run when one of them is looked up. */
typedef struct fj_thunk {
    const fj_stmt *stmt;
    const fj_guard *guard;
    size_t time; /* sees what was bound before, until a mod runs */
    fj_thunk_state state;
    bool reached;
    const fj_error *error; /* FAILED */
} fj_thunk;

/* What changes lists and dicts in place may run but once. */
static inline bool fj_thunk_mutates(const fj_thunk *thunk) {
    return thunk->stmt->kind == FJ_STMT_FOR || thunk->stmt->kind == FJ_STMT_EXPRESSION;
}

typedef struct fj_global {
    fj_str name;
    fj_thunk *thunk;
    bool mutation; /* x[i] = ..., x.append(...): the value before, if it is a tensor */
    size_t import_index;
    fj_value value;
    struct fj_global *before; /* the earlier binding of the same name */
} fj_global;

/* --param and --runtime-param of one name. */
typedef struct fj_override {
    fj_str name;
    const fj_param *param; /* NULL: none */
    bool runtime;
    fj_thunk_state state;
    fj_value value;
} fj_override;

/* names_module.c */
void fj_names_load(fj_elab *e, const fj_module *module);
fj_global *fj_names_find(fj_elab *e, fj_str name);
/* Whether the module binds name now; gives the value, as the source says. */
bool fj_names_original_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value);
/* Evaluation moves to module level, and back. */
typedef struct fj_whereabouts {
    fj_frame *frame;
    size_t time;
    bool in_mod;
} fj_whereabouts;
fj_whereabouts fj_names_enter_module(fj_elab *e, size_t time);
void fj_names_leave_module(fj_elab *e, fj_whereabouts was);

/* names_global.c */
bool fj_globals_any(const fj_module *module);
/* A statement that stands for the 'global' assignments which one of the module may run; NULL: none. */
fj_stmt *fj_globals_assigned(fj_elab *e, const fj_stmt *stmt);

/* names_param.c */
void fj_names_load_overrides(fj_elab *e);
void fj_names_check_overrides(fj_elab *e);
/* As fj_names_original_value, with the caller's values. */
bool fj_names_module_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value);

/* names.c */
fj_value fj_names_lookup(fj_elab *e, fj_str name, fj_place place);
void fj_names_assign(fj_elab *e, fj_str name, fj_value value, fj_place place);
/* Destructures; set is called for each name. */
typedef void (*fj_names_setter)(fj_elab *e, void *user, fj_str name, fj_value value, fj_place place);
void fj_names_unpack(fj_elab *e, const fj_expr *target, fj_value value, fj_names_setter set, void *user);
/* a, b = [], 1: each by itself, so that no tuple holds them. False: the statement is not of this form. */
bool fj_names_assign_parallel(fj_elab *e, const fj_stmt *stmt, fj_names_setter set, void *user);
bool fj_names_assign_parallel_local(fj_elab *e, const fj_stmt *stmt);
void fj_names_assign_target(fj_elab *e, const fj_expr *target, fj_value value);
/* Evaluates, or gives an unnamed table that keeps the error (only outside of a mod). */
fj_value fj_names_attempt(fj_elab *e, const fj_expr *expression);
fj_value fj_import_value(fj_elab *e, const fj_import *import);
fj_frame *fj_frame_create(fj_elab *e, fj_frame *parent, const fj_str *names, size_t count);

#endif
