/* Private to expr/lang: small tensors. They are lazy: an element is computed where a mod reads it. */
#ifndef FJ_EXPR_LANG_TENSOR_H
#define FJ_EXPR_LANG_TENSOR_H

#include "expr/lang/elaborate.h"

struct fj_builtin_args;
typedef fj_value (*fj_apply)(fj_elab *e, const struct fj_builtin_args *call);

/* Arguments of a builder, in the order of its parameters; UNSET where not given. */
typedef struct fj_builtin_args {
    fj_value *args;
    int count;
    int data;
    const char *name; /* for messages */
    fj_place place;
    const fj_arguments *arguments; /* as they were given */
} fj_builtin_args;

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

typedef struct fj_lazy_tensor {
    fj_tensor_kind kind;
    int rank; /* CAPTURE: see fj_tensor_rank */
    int depth;
    fj_value dims[FJ_MAX_RANK]; /* INT, or SCALAR of int64 */
    bool plain[FJ_MAX_RANK];    /* an index of this axis reaches the captured tensor as it is */
    fj_type type;
    bool weak;
    /* CAPTURE */
    const fj_table *table;
    const fj_name_list *names;
    /* INDEX, REDUCE, PICK */
    const struct fj_lazy_tensor *base;
    fj_axis_source sources[FJ_MAX_RANK]; /* INDEX: one per axis of base */
    bool reduced[FJ_MAX_RANK];           /* REDUCE, PICK: axes of base */
    bool keep;                           /* reduced axes stay, with one element */
    fj_op op;                            /* REDUCE, PICK: ARGMAX, ARGMIN */
    /* MAP */
    fj_apply apply;
    fj_builtin_args call;
    /* STACK */
    const fj_value *parts; /* tensors of one shape, or values */
    int part_count, axis;
    bool joined; /* cat: the axis is one of theirs */
} fj_lazy_tensor;

/* Resolves a captured tensor; -1: its rank is assumed, and not known yet. */
int fj_tensor_rank(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place);
fj_value fj_tensor_dim(fj_elab *e, const fj_lazy_tensor *tensor, int axis, fj_place place);
fj_type fj_tensor_type(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place);
/* With one index per axis, ints. */
fj_value fj_tensor_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place);
/* Applies a pointwise function: at once to numbers and scalars, lazily to tensors. */
fj_value fj_tensor_map(fj_elab *e, fj_apply apply, const fj_builtin_args *call);
/* A tensor of rank 0 is a scalar; an assumed rank is taken to be 0. Others as they are. */
fj_value fj_tensor_settle(fj_elab *e, fj_value value, fj_place place);
bool fj_value_has_tensor(const fj_value *values, int count);
fj_lazy_tensor *fj_tensor_create(fj_elab *e, fj_tensor_kind kind, const fj_lazy_tensor *base, fj_place place);
/* A value of rank 0 as a tensor whose dimensions are 1. */
const fj_lazy_tensor *fj_tensor_wrap(fj_elab *e, fj_value value, int rank, fj_place place);

/* tensor_dims.c */
bool fj_dim_is_one(fj_value dim); /* known to be */
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
fj_value fj_reshape_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place);
fj_value fj_stack_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place);

/* index.c */
fj_value fj_tensor_index(fj_elab *e, const fj_lazy_tensor *tensor, const fj_value *given, size_t count,
                         fj_place place);
fj_value fj_tensor_unsqueeze(fj_elab *e, fj_value value, fj_value axis, fj_place place);
fj_value fj_tensor_squeeze(fj_elab *e, fj_value value, fj_value axis, fj_place place);
fj_value fj_tensor_transpose(fj_elab *e, fj_value value, fj_value a, fj_value b, fj_place place);

/* reduce.c */
fj_value fj_tensor_reduce(fj_elab *e, fj_op op, fj_value value, fj_value axes, bool keep, fj_place place);
fj_value fj_tensor_pick(fj_elab *e, fj_op op, fj_value value, fj_value axis, bool keep, fj_place place);
fj_value fj_tensor_dot(fj_elab *e, fj_value a, fj_value b, fj_place place);

#endif
