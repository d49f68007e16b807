/* Private to expr/lang: compile-time evaluation, its state and what runs statements and expressions.
 *
 *   mod.c             chooses the mods, applies them to the leaves, makes the graph
 *   elaborate.c       errors, steps, attempts
 *   elaborate_stmt.c  statements; elaborate_expr.c: expressions; elaborate_call.c: functions
 *   elaborate_access.c   attributes, items, slices
 *   elaborate_require.c  what must hold at each launch
 *   names.h           the module's names, --param, frames, lookup
 *   operate.h         operators, promotion, Python's arithmetic on constants
 *   capture.h         captured tensors: names, bindings, literal tables
 *   tensor.h          small tensors: elements, broadcasting, x[...], views, reductions
 *   objects.h         dicts, lists, classes
 *   builtins.h        the functions
 *
 * Two phases: outside of a mod (module level, factories) and inside it. Outside, what is a tensor
 * but cannot be computed in a kernel is a captured tensor as soon as it has a variable name; inside,
 * it is an error.
 */
#ifndef FJ_EXPR_LANG_ELABORATE_H
#define FJ_EXPR_LANG_ELABORATE_H

#include "expr/lang/mod.h"
#include "expr/lang/require.h"
#include "expr/lang/value.h"

enum {
    FJ_ELAB_MAX_STEPS = 1000000,
    FJ_ELAB_MAX_CALLS = 64,    /* nested calls */
    FJ_ELAB_MAX_DEPTH = 1500,  /* nested evaluations of any kind: bounds the C stack */
    FJ_ELAB_MAX_ITEMS = 65536, /* of a list */
};

typedef enum fj_mod_kind { FJ_MOD_MASK, FJ_MOD_SCORE, FJ_MOD_OUT, FJ_MOD_SINK, FJ_MOD_KINDS } fj_mod_kind;

typedef struct fj_frame {
    struct fj_frame *parent; /* lexical; NULL: the module */
    const fj_str *names;
    fj_value *values; /* UNSET: not assigned yet */
    size_t count;
    bool is_comprehension;
    bool is_class; /* the body of a class: its methods do not see it */
} fj_frame;

/* names.h, capture.h */
typedef struct fj_global fj_global;
typedef struct fj_thunk fj_thunk;
typedef struct fj_override fj_override;
typedef struct fj_name_list fj_name_list;
typedef struct fj_captured fj_captured;
typedef struct fj_table fj_table;
typedef struct fj_hints fj_hints;

/* ---- The state --------------------------------------------------------------------------------- */

typedef struct fj_active {
    const fj_closure *closure;
    struct fj_active *outer;
} fj_active;

/* The nodes of a requirement, so that none is made twice. */
typedef struct fj_required {
    fj_require_kind kind;
    fj_ref a, b;
} fj_required;

typedef struct fj_elab {
    fj_scope *scope;
    fj_arena *arena;
    fj_ir *ir;
    const fj_mod_desc *desc;
    fj_hints *hints;
    const fj_module *module;     /* NULL: none */
    FJ_VEC(fj_global *) globals; /* in the order of the file */
    fj_global **table;           /* the latest binding of each name */
    size_t table_cap;
    FJ_VEC(fj_override) overrides;
    bool has_global; /* somewhere in the module, a 'global' statement */
    FJ_VEC(fj_thunk *) running;
    FJ_VEC(const fj_expr *) expressions; /* of the command line */
    FJ_VEC(fj_captured) captured;
    FJ_VEC(fj_table *) free_tables; /* of free names: one table per name */
    FJ_VEC(fj_name_list) free_names;
    FJ_VEC(fj_table *) literals;
    FJ_VEC(const char *) missing;
    FJ_VEC(fj_requirement) requirements;
    FJ_VEC(fj_required) required; /* of the same length */
    fj_place missing_place;
    /* Where evaluation is. */
    fj_frame *frame;
    fj_active *active;
    struct fj_class *class; /* whose body is being run */
    size_t time;
    int64_t steps;
    int depth, calls;
    bool in_mod;
    fj_place returned; /* the value of the last return */
    bool checking;     /* the mods are done: nothing more enters the graph */
    bool found;        /* a mod, or an expression in its place */
    fj_mod_origin origins[FJ_MOD_KINDS];
    fj_place results[FJ_MOD_KINDS];
    fj_value own[FJ_MOD_KINDS]; /* the mods of the output and of the sink: no candidates for others */
    fj_ref out, sink;           /* roots */
} fj_elab;

/* ---- Functions --------------------------------------------------------------------------------- */

/* elaborate.c */
_Noreturn void fj_elab_fail(fj_elab *e, fj_place place, const char *format, ...) FJ_PRINTF(3, 4);
_Noreturn void fj_elab_fail_note(fj_elab *e, fj_place place, const char *note, const char *format, ...)
    FJ_PRINTF(4, 5);
/* With FJ_ERR_NAME. */
_Noreturn void fj_elab_fail_name(fj_elab *e, fj_place place, const char *note, const char *format, ...)
    FJ_PRINTF(4, 5);
/* Says an error that was kept. */
_Noreturn void fj_elab_fail_again(fj_elab *e, const fj_error *error);
/* ": did you mean 'x'?", or "": the end of a sentence. */
typedef struct fj_suggestion {
    fj_str wanted, best;
    int distance;
} fj_suggestion;
fj_suggestion fj_suggest_begin(fj_str wanted);
void fj_suggest(fj_suggestion *suggestion, fj_str candidate);
const char *fj_suggest_text(fj_elab *e, const fj_suggestion *suggestion);
void fj_elab_step(fj_elab *e, fj_place place, size_t steps);
void fj_elab_enter(fj_elab *e, fj_place place);
static inline void fj_elab_leave(fj_elab *e) { e->depth--; }
/* Runs body; NULL, or the error it failed with (arena). Failed allocations and restarts escape. */
const fj_error *fj_elab_try(fj_elab *e, void (*body)(fj_elab *, void *), void *argument);
/* Starts again with a better guess about an unbound tensor. */
_Noreturn void fj_elab_restart(fj_elab *e);

/* elaborate_stmt.c */
typedef enum fj_flow { FJ_FLOW_NEXT, FJ_FLOW_RETURN, FJ_FLOW_BREAK, FJ_FLOW_CONTINUE } fj_flow;
fj_flow fj_elab_block(fj_elab *e, const fj_stmt_list *body, fj_value *ret_value);
fj_flow fj_elab_for(fj_elab *e, const fj_stmt *stmt, fj_value *ret_value);
fj_value fj_elab_define(fj_elab *e, const fj_function *function);
/* The items of what a `for` runs over (arena). */
fj_sequence fj_elab_iterate(fj_elab *e, fj_value value, fj_place place);

/* elaborate_expr.c */
fj_value fj_elab_expr(fj_elab *e, const fj_expr *x);
/* Truth of a condition; what: "the condition of `if`". */
bool fj_elab_truth(fj_elab *e, fj_value value, fj_place place, const char *what);
/* -1: cannot be known now, and need not be (check without bindings); else 0 or 1. */
int fj_elab_claim(fj_elab *e, fj_value value, fj_place place, const char *what);
/* The int that a value has at compile time; what: "range". */
int64_t fj_elab_int(fj_elab *e, fj_value value, fj_place place, const char *what);

/* elaborate_access.c */
fj_value fj_elab_attribute(fj_elab *e, fj_value object, fj_str name, fj_place place);
fj_value fj_elab_attribute_expr(fj_elab *e, const fj_expr *x);
fj_value fj_elab_subscript_expr(fj_elab *e, const fj_expr *x);

/* elaborate_call.c */
fj_value fj_elab_call(fj_elab *e, fj_value callee, const fj_arguments *arguments, fj_place place);
fj_value fj_elab_call_expr(fj_elab *e, const fj_expr *x);
fj_value fj_elab_call_values(fj_elab *e, fj_value callee, const fj_value *values, size_t count,
                             fj_place place);
fj_value fj_partial_create(fj_elab *e, fj_value callee, const fj_arguments *arguments);

/* elaborate_require.c */
/* Must hold at each launch; fails at once where it is known not to. b: 0 for kinds with one operand. */
void fj_require(fj_elab *e, fj_require_kind kind, fj_ref a, fj_ref b, fj_place place);
/* The extent of an operand is that of the result, where it is not broadcast. */
void fj_require_extent(fj_elab *e, fj_value dim, fj_value of, fj_place place);
/* The int that a value has with the run-time parameters' defaults and the extents that are known; false: none. */
bool fj_default_value(fj_elab *e, fj_value value, int64_t *ret_value);

#endif
