/* Private to expr/lang: captured tensors, their names and bindings, and what is assumed of those without a binding. */
#ifndef FJ_EXPR_LANG_CAPTURE_H
#define FJ_EXPR_LANG_CAPTURE_H

#include "expr/lang/elaborate.h"

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
    const char *missing;   /* it is computed from a tensor of this name without a binding; NULL */
    const fj_error *error; /* evaluating it failed: said when it has no binding */
    bool constant;         /* what failed is plain arithmetic, which no binding is to replace */
    const void *identity;
} fj_table;

typedef struct fj_name_list {
    fj_str name;
    const struct fj_name_list *outer;
} fj_name_list;

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

/* What was assumed of a tensor without a binding, and found wrong: the elaboration starts again. */
typedef struct fj_hint {
    const char *name;
    bool has_dtype;
    fj_dtype dtype;
    int rank; /* -1: none */
} fj_hint;

typedef struct fj_hints {
    FJ_VEC(fj_hint) items;
    bool skip[FJ_MOD_KINDS];     /* what was guessed to be this mod is none */
    FJ_VEC(uint32_t) not_scores; /* candidates whose result is a bool: offsets of their places */
    bool restart;
} fj_hints;

/* capture.c */
fj_value fj_capture_unnamed(fj_elab *e, const fj_table *table);
fj_value fj_capture_free(fj_elab *e, fj_str name, fj_place place);
const fj_binding *fj_capture_binding(fj_elab *e, fj_str name);
/* The value under one more variable name; module: assigned at module level. */
fj_value fj_capture_name(fj_elab *e, fj_value value, fj_str name, bool module, fj_place place);
fj_captured *fj_capture_resolve(fj_elab *e, const struct fj_lazy_tensor *tensor, fj_place place);
void fj_capture_want(fj_elab *e, fj_captured *captured, fj_place place);
uint32_t fj_capture_register(fj_elab *e, fj_captured *captured, fj_place place);
const char *fj_capture_note(fj_elab *e, const fj_captured *captured);
void fj_capture_report_missing(fj_elab *e);
/* A tensor without a name, which only the caller can supply. */
bool fj_is_opaque(fj_value value);
/* Whether what is computed from value is, here, a tensor without a name: outside of a mod, that also
 * holds for a tensor without a binding. */
bool fj_gives_opaque(fj_elab *e, fj_value value, fj_value *ret_value);
_Noreturn void fj_capture_fail_opaque(fj_elab *e, fj_value value, fj_place place);
/* Fails with why a value could not be evaluated, if that is why it is a captured tensor without a binding. */
void fj_capture_fail_broken(fj_elab *e, const struct fj_lazy_tensor *tensor, fj_place place);
/* Marks the dimensions that ref depends on as fixed at compile time. */
void fj_capture_specialise(fj_elab *e, fj_ref ref);
/* If ref reads unbound tensors whose dtype was assumed float: restarts with dtype. */
void fj_capture_hint_dtype(fj_elab *e, fj_ref ref, fj_dtype dtype);
/* If value is an element of an unbound tensor whose rank was assumed: restarts with one more. */
void fj_capture_hint_rank(fj_elab *e, fj_value value);
/* It is read with this many indices, or more. */
void fj_capture_hint_indices(fj_elab *e, fj_captured *captured, int count);

/* capture_literal.c: tables, and torch.tensor([...]) */
fj_table *fj_table_create(fj_elab *e, fj_place place);
fj_value fj_capture_literal(fj_elab *e, fj_value list, fj_value dtype, fj_place place);

#endif
