/* Private to expr/: the state of compile-time evaluation, and what its files share.
 *
 *   mod.c             chooses the mods, applies them to the leaves, makes the graph
 *   elaborate.c       errors, steps, attempts
 *   elaborate_module.c the module's names; elaborate_param.c --param; elaborate_scope.c frames, lookup
 *   elaborate_stmt.c  statements
 *   elaborate_expr.c  expressions
 *   elaborate_call.c  functions
 *   operators.c       operators, promotion; constants.c: Python's arithmetic on constants
 *   capture.c         captured tensors: names, bindings, literal tables
 *   tensor.c          small tensors: elements, broadcasting; index.c: x[...]; reduce.c
 *   builtins*.c       the functions
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

typedef struct fj_frame {
    struct fj_frame *parent; /* lexical; NULL: the module */
    const fj_str *names;
    fj_value *values; /* UNSET: not assigned yet */
    size_t count;
    bool is_comprehension;
    bool is_class; /* the body of a class: its methods do not see it */
} fj_frame;

/* ---- Module names ------------------------------------------------------------------------------ */

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

/* ---- Captured tensors -------------------------------------------------------------------------- */

/* What a captured tensor is, whatever it is called. */
typedef struct fj_table {
    fj_place place;
    bool has_dtype; /* evident from the source: torch.zeros(8, dtype=torch.int32) */
    fj_dtype dtype;
    int rank; /* -1: not evident */
    int64_t dims[FJ_MAX_RANK];
    bool free; /* a free name of the source */
    const fj_capture *literal;
    size_t number;         /* of a literal */
    const char *why;       /* what is outside the language in it; NULL */
    const char *missing;   /* it is computed from a tensor of this name that nobody binds; NULL */
    const fj_error *error; /* evaluating it failed: said when nobody binds it */
    bool constant;         /* what failed is plain arithmetic, which no binding is to replace */
    const void *identity;
} fj_table;

typedef struct fj_names {
    fj_str name;
    const struct fj_names *outer;
} fj_names;

/* One that a mod reads; the number is its place in the graph, -1 until it is read. */
typedef struct fj_captured {
    fj_str name;
    const fj_table *table;
    fj_dtype dtype;
    int rank; /* -1: assumed, not known yet */
    int64_t dims[FJ_MAX_RANK];
    bool bound, wanted, assumed_dtype, assumed_rank;
    int64_t index;
} fj_captured;

/* What was assumed of a tensor that nobody binds, and found wrong: the elaboration starts again. */
typedef struct fj_hint {
    const char *name;
    bool has_dtype;
    fj_dtype dtype;
    int rank; /* -1: none */
} fj_hint;

typedef struct fj_hints {
    FJ_VEC(fj_hint) items;
    bool skip[2];                /* [is_score]: what was guessed to be this mod is none */
    FJ_VEC(uint32_t) not_scores; /* candidates whose result is a bool: offsets of their places */
    bool restart;
} fj_hints;

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
    FJ_VEC(fj_names) free_names;
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
    fj_place returned;        /* the value of the last return */
    bool checking;            /* the mods are done: nothing more enters the graph */
    bool found;               /* a mod, or an expression in its place */
    fj_mod_origin origins[2]; /* [is_score] */
    fj_place results[2];
} fj_elab;

#define FJ_TIME_END SIZE_MAX

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

/* elaborate_module.c */
void fj_scope_load(fj_elab *e, const fj_module *module);
fj_global *fj_scope_find(fj_elab *e, fj_str name);
/* Whether the module binds name now; gives the value, as the source says. */
bool fj_scope_original_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value);
/* Evaluation moves to module level, and back. */
typedef struct fj_whereabouts {
    fj_frame *frame;
    size_t time;
    bool in_mod;
} fj_whereabouts;
fj_whereabouts fj_scope_enter_module(fj_elab *e, size_t time);
void fj_scope_leave_module(fj_elab *e, fj_whereabouts was);

/* elaborate_global.c */
bool fj_globals_any(const fj_module *module);
/* A statement that stands for the 'global' assignments which one of the module may run; NULL: none. */
fj_stmt *fj_globals_assigned(fj_elab *e, const fj_stmt *stmt);

/* elaborate_param.c */
void fj_scope_load_overrides(fj_elab *e);
void fj_scope_check_overrides(fj_elab *e);
/* As fj_scope_original_value, with the caller's values. */
bool fj_scope_module_value(fj_elab *e, fj_str name, fj_place place, fj_value *ret_value);

/* elaborate_scope.c */
fj_value fj_scope_lookup(fj_elab *e, fj_str name, fj_place place);
void fj_scope_assign(fj_elab *e, fj_str name, fj_value value, fj_place place);
/* Destructures; set is called for each name. */
typedef void (*fj_scope_setter)(fj_elab *e, void *user, fj_str name, fj_value value, fj_place place);
void fj_scope_unpack(fj_elab *e, const fj_expr *target, fj_value value, fj_scope_setter set, void *user);
/* a, b = [], 1: each by itself, so that no tuple holds them. False: the statement is not of this form. */
bool fj_scope_assign_parallel(fj_elab *e, const fj_stmt *stmt, fj_scope_setter set, void *user);
bool fj_scope_assign_parallel_local(fj_elab *e, const fj_stmt *stmt);
void fj_scope_assign_target(fj_elab *e, const fj_expr *target, fj_value value);
/* Evaluates, or gives an unnamed table that keeps the error (only outside of a mod). */
fj_value fj_scope_attempt(fj_elab *e, const fj_expr *expression);
fj_value fj_import_value(fj_elab *e, const fj_import *import);
fj_frame *fj_frame_create(fj_elab *e, fj_frame *parent, const fj_str *names, size_t count);

/* elaborate_stmt.c */
typedef enum fj_flow { FJ_FLOW_NEXT, FJ_FLOW_RETURN, FJ_FLOW_BREAK, FJ_FLOW_CONTINUE } fj_flow;
fj_flow fj_elab_block(fj_elab *e, const fj_stmt_list *body, fj_value *ret_value);
fj_flow fj_elab_for(fj_elab *e, const fj_stmt *stmt, fj_value *ret_value);
fj_value fj_elab_define(fj_elab *e, const fj_function *function);
/* The items of what a `for` runs over (arena). */
fj_sequence fj_elab_iterate(fj_elab *e, fj_value value, fj_place place);

/* elaborate_expr.c */
fj_value fj_elab_expr(fj_elab *e, const fj_expr *expression);
fj_value fj_elab_attribute(fj_elab *e, fj_value object, fj_str name, fj_place place);
/* Truth of a condition; what: "the condition of `if`". */
bool fj_elab_truth(fj_elab *e, fj_value value, fj_place place, const char *what);
/* -1: cannot be known now, and need not be (check without bindings); else 0 or 1. */
int fj_elab_claim(fj_elab *e, fj_value value, fj_place place, const char *what);
/* The int that a value has at compile time; what: "range". */
int64_t fj_elab_int(fj_elab *e, fj_value value, fj_place place, const char *what);

/* elaborate_call.c */
fj_value fj_elab_call(fj_elab *e, fj_value callee, const fj_arguments *arguments, fj_place place);
fj_value fj_elab_call_expr(fj_elab *e, const fj_expr *expression);
fj_value fj_elab_call_values(fj_elab *e, fj_value callee, const fj_value *values, size_t count,
                             fj_place place);
fj_value fj_partial_create(fj_elab *e, fj_value callee, const fj_arguments *arguments);

/* constants.c: Python on constants */
/* Fails where value is, or holds, a string whose value is not known at compile time. */
void fj_constant_need_text(fj_elab *e, fj_value value, fj_place place);
fj_value fj_constant_binary(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);
fj_value fj_constant_unary(fj_elab *e, fj_operator op, fj_value a, fj_place place);
bool fj_constant_compare(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);

/* operators.c */
fj_value fj_operate(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);
fj_value fj_operate_unary(fj_elab *e, fj_operator op, fj_value a, fj_place place);
fj_value fj_operate_compare(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);
/* not a; a and b; a or b, of run-time values. */
fj_value fj_operate_not(fj_elab *e, fj_value a, fj_place place);
fj_value fj_operate_logical(fj_elab *e, bool is_and, fj_value a, fj_value b, fj_place place);
fj_value fj_scalar_value(fj_elab *e, fj_ref ref, bool weak);
/* A number or scalar (a tensor of rank 0 becomes one); anything else is an error. */
fj_value fj_operand(fj_elab *e, fj_value value, fj_place place, const char *what);
/* The common type of numbers and scalars; *weak: all are. */
fj_type fj_promote(const fj_value *values, size_t count, bool *weak);
fj_ref fj_to_ref(fj_elab *e, fj_value value, fj_type type, fj_place place);
/* Applies an op of the IR to numbers and scalars, promoted to type (WHERE: but the first); folds
 * constants. */
fj_value fj_pointwise(fj_elab *e, fj_op op, fj_type type, const fj_value *values, int count, fj_place place);
/* Converts a number or scalar. */
fj_value fj_convert(fj_elab *e, fj_value value, fj_type type, fj_place place);
/* Type of a number or scalar: bool, int64 for an int, float. */
fj_type fj_value_type(fj_value value);
/* Says that an operand has the wrong type; first lets a wrong assumption about a tensor be mended. */
_Noreturn void fj_type_fail(fj_elab *e, fj_value value, fj_dtype wanted, fj_place place, const char *format,
                            ...) FJ_PRINTF(5, 6);
/* Whether the value depends on nothing but dimensions, run-time scalars and constants. */
bool fj_is_uniform(fj_elab *e, fj_ref ref);
/* The name of a run-time parameter that the value depends on, or "". */
const char *fj_runtime_name(fj_elab *e, fj_ref ref);
/* Which nodes ref is made of: one flag per node up to ref (arena). */
const bool *fj_reachable(fj_elab *e, fj_ref ref);

/* elaborate_require.c */
/* Must hold at each launch; fails at once where it is known not to. b: 0 for kinds with one operand. */
void fj_require(fj_elab *e, fj_require_kind kind, fj_ref a, fj_ref b, fj_place place);
/* The extent of an operand is that of the result, where it is not broadcast. */
void fj_require_extent(fj_elab *e, fj_value dim, fj_value of, fj_place place);
/* The int that a value has with the run-time parameters' defaults and the extents that are known; false: none. */
bool fj_default_value(fj_elab *e, fj_value value, int64_t *ret_value);

/* capture.c */
fj_value fj_capture_unnamed(fj_elab *e, const fj_table *table);
fj_value fj_capture_free(fj_elab *e, fj_str name, fj_place place);
fj_table *fj_table_create(fj_elab *e, fj_place place);
const fj_binding *fj_capture_binding(fj_elab *e, fj_str name);
/* The value under one more variable name; module: assigned at module level. */
fj_value fj_capture_name(fj_elab *e, fj_value value, fj_str name, bool module, fj_place place);
fj_captured *fj_capture_resolve(fj_elab *e, const struct fj_tensor *tensor, fj_place place);
void fj_capture_want(fj_elab *e, fj_captured *captured, fj_place place);
uint32_t fj_capture_register(fj_elab *e, fj_captured *captured, fj_place place);
const char *fj_capture_note(fj_elab *e, const fj_captured *captured);
/* torch.tensor([...]) */
fj_value fj_capture_literal(fj_elab *e, fj_value list, fj_value dtype, fj_place place);
void fj_capture_report_missing(fj_elab *e);
/* A tensor without a name, which only the caller can supply. */
bool fj_is_opaque(fj_value value);
/* Whether what is computed from value is, here, a tensor without a name: outside of a mod, that also
 * holds for a tensor that nobody binds. */
bool fj_gives_opaque(fj_elab *e, fj_value value, fj_value *ret_value);
_Noreturn void fj_capture_fail_opaque(fj_elab *e, fj_value value, fj_place place);
/* Fails with why a value could not be evaluated, if that is why it is a captured tensor and nobody binds it. */
void fj_capture_fail_broken(fj_elab *e, const struct fj_tensor *tensor, fj_place place);
/* Marks the dimensions that ref depends on as fixed at compile time. */
void fj_capture_specialise(fj_elab *e, fj_ref ref);
/* If ref reads unbound tensors whose dtype was assumed float: restarts with dtype. */
void fj_capture_hint_dtype(fj_elab *e, fj_ref ref, fj_dtype dtype);
/* If value is an element of an unbound tensor whose rank was assumed: restarts with one more. */
void fj_capture_hint_rank(fj_elab *e, fj_value value);
/* It is read with this many indices, or more. */
void fj_capture_hint_indices(fj_elab *e, fj_captured *captured, int count);

/* ---- Small tensors (tensor.c) ------------------------------------------------------------------ */

struct fj_call;
typedef fj_value (*fj_apply)(fj_elab *e, const struct fj_call *call);

/* Arguments of a builder, in the order of its parameters; UNSET where not given. */
typedef struct fj_call {
    fj_value *args;
    int count;
    int data;
    const char *name; /* for messages */
    fj_place place;
    const fj_arguments *arguments; /* as they were given */
} fj_call;

typedef enum fj_tensor_kind {
    FJ_TENSOR_CAPTURE,
    FJ_TENSOR_INDEX,  /* x[...] and reshapes: each axis of base comes from a number or an axis */
    FJ_TENSOR_MAP,    /* a pointwise function of values, broadcast */
    FJ_TENSOR_REDUCE, /* over some axes of base */
    FJ_TENSOR_PICK,   /* base at the greatest or least of one axis */
    FJ_TENSOR_RESHAPE,
    FJ_TENSOR_STACK, /* several along an axis: stack, cat */
} fj_tensor_kind;

/* Where an index of base comes from: fixed, or start + step * (index of axis), or an element of a
 * tensor of indices, which takes the axes from `axis` on. */
typedef struct fj_axis_source {
    enum { FJ_AXIS_FIXED, FJ_AXIS_RANGE, FJ_AXIS_GATHER } kind;
    fj_value value; /* FIXED: the index; RANGE: start; GATHER: a tensor */
    int axis;
    int64_t step;
} fj_axis_source;

typedef struct fj_tensor {
    fj_tensor_kind kind;
    int rank; /* CAPTURE: see fj_tensor_rank */
    int depth;
    fj_value dims[FJ_MAX_RANK]; /* INT, or SCALAR of int64 */
    bool plain[FJ_MAX_RANK];    /* an index of this axis reaches the captured tensor as it is */
    fj_type type;
    bool weak;
    /* CAPTURE */
    const fj_table *table;
    const fj_names *names;
    /* INDEX, REDUCE, PICK */
    const struct fj_tensor *base;
    fj_axis_source sources[FJ_MAX_RANK]; /* INDEX: one per axis of base */
    bool reduced[FJ_MAX_RANK];           /* REDUCE, PICK: axes of base */
    bool keep;                           /* reduced axes stay, with one element */
    fj_op op;                            /* REDUCE, PICK: ARGMAX, ARGMIN */
    /* MAP */
    fj_apply apply;
    fj_call call;
    /* STACK */
    const fj_value *parts; /* tensors of one shape, or values */
    int part_count, axis;
    bool joined; /* cat: the axis is one of theirs */
} fj_tensor;

/* Resolves a captured tensor; -1: its rank is assumed, and not known yet. */
int fj_tensor_rank(fj_elab *e, const fj_tensor *tensor, fj_place place);
fj_value fj_tensor_dim(fj_elab *e, const fj_tensor *tensor, int axis, fj_place place);
fj_type fj_tensor_type(fj_elab *e, const fj_tensor *tensor, fj_place place);
/* With one index per axis, ints. */
fj_value fj_tensor_element(fj_elab *e, const fj_tensor *tensor, const fj_ref *indices, fj_place place);
/* Applies a pointwise function: at once to numbers and scalars, lazily to tensors. */
fj_value fj_tensor_map(fj_elab *e, fj_apply apply, const fj_call *call);
/* A tensor of rank 0 is a scalar; an assumed rank is taken to be 0. Others as they are. */
fj_value fj_tensor_settle(fj_elab *e, fj_value value, fj_place place);
bool fj_value_has_tensor(const fj_value *values, int count);
fj_tensor *fj_tensor_create(fj_elab *e, fj_tensor_kind kind, const fj_tensor *base, fj_place place);
/* A value of rank 0 as a tensor whose dimensions are 1. */
const fj_tensor *fj_tensor_wrap(fj_elab *e, fj_value value, int rank, fj_place place);
/* The common dimension of two that broadcast. */
fj_value fj_dim_join(fj_elab *e, fj_value a, fj_value b, fj_place place);
/* The int that a dimension has at compile time; false: not known. */
bool fj_known_dim(fj_value dim, int64_t *ret_value);
/* The index that a broadcast operand has, for the index of the result along an axis. */
fj_ref fj_dim_index(fj_elab *e, fj_value dim, fj_value of, fj_ref index);
fj_value fj_dim_min(fj_elab *e, fj_value a, fj_value b, fj_place place);
fj_value fj_dim_max(fj_elab *e, fj_value a, fj_value b, fj_place place);
fj_ref fj_dim_ref(fj_elab *e, fj_value dim, fj_place place);
/* An axis that may be negative. */
int fj_tensor_axis(fj_elab *e, fj_value axis, int rank, fj_place place);

/* view.c */
fj_value fj_reshape_element(fj_elab *e, const fj_tensor *tensor, const fj_ref *indices, fj_place place);
fj_value fj_stack_element(fj_elab *e, const fj_tensor *tensor, const fj_ref *indices, fj_place place);

/* index.c */
fj_value fj_tensor_index(fj_elab *e, const fj_tensor *tensor, const fj_value *items, size_t count,
                         fj_place place);
fj_value fj_tensor_unsqueeze(fj_elab *e, fj_value value, fj_value axis, fj_place place);
fj_value fj_tensor_squeeze(fj_elab *e, fj_value value, fj_value axis, fj_place place);
fj_value fj_tensor_transpose(fj_elab *e, fj_value value, fj_value a, fj_value b, fj_place place);

/* reduce.c */
fj_value fj_tensor_reduce(fj_elab *e, fj_op op, fj_value value, fj_value axes, bool keep, fj_place place);
fj_value fj_tensor_pick(fj_elab *e, fj_op op, fj_value value, fj_value axis, bool keep, fj_place place);
fj_value fj_tensor_dot(fj_elab *e, fj_value a, fj_value b, fj_place place);

/* ---- Functions (builtins.c) -------------------------------------------------------------------- */

enum {
    FJ_IN_TORCH = 1,      /* torch.f, torch.Tensor.f */
    FJ_IN_FUNCTIONAL = 2, /* torch.nn.functional.f */
    FJ_IN_MATH = 4,
    FJ_IN_METHOD = 8,  /* x.f */
    FJ_IN_BARE = 16,   /* f: an extension, found after everything else */
    FJ_IN_PYTHON = 32, /* built into Python */
    FJ_IN_FLEX = 64,   /* torch.nn.attention.flex_attention.f */
    FJ_IN_FUNCTOOLS = 128,
    FJ_IN_NN = 256,   /* torch.nn.f */
    FJ_IN_LIST = 512, /* methods of lists, of dicts */
    FJ_IN_DICT = 1024,
    FJ_IN_TYPES = 2048,    /* types, argparse, dataclasses */
    FJ_IN_OPERATOR = 4096, /* operator.f */
    FJ_IN_ITERTOOLS = 8192,
};

typedef struct fj_builtin {
    const char *name;
    int where;
    const char *parameters; /* "input other? *rest": optional ?, the rest * */
    bool pointwise;         /* applies to the elements of tensors */
    fj_apply build;
    int data;
} fj_builtin;

const fj_builtin *fj_builtin_find(fj_str name, int where);
fj_value fj_builtin_value(const fj_builtin *builtin);
fj_value fj_builtin_call(fj_elab *e, const fj_builtin *builtin, const fj_arguments *arguments,
                         fj_place place);
/* Adds the names of all functions of these places. */
void fj_builtin_suggest(fj_suggestion *suggestion, int where);
/* A member of a module, a constant, a dtype: UNKNOWN where there is none. */
fj_value fj_module_member(fj_elab *e, fj_str module, fj_str name);
/* False: no such dtype. */
bool fj_dtype_by_name(fj_str name, fj_dtype *ret_dtype);
/* The torch dtype that values of a type have. */
fj_dtype fj_type_dtype(fj_type type);

#endif
