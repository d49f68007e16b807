/* A tensor graph: values, and the operations that make them, in an order in which each follows what it reads.
 *
 * Everything lives in an arena. Failures leave its scope (base.h). A value is an index; so is a node. Semantics are those of
 * values: nothing of a graph depends on strides, aliases or devices (an operation in place is read as the one that makes a
 * new value, where nobody can tell; see fj_graph.mutation). */
#ifndef FJ_FUSE_GRAPH_H
#define FJ_FUSE_GRAPH_H

#include "fuse/size.h"

typedef enum fj_node_class {
    FJ_CLASS_POINT,
    FJ_CLASS_GELU,
    FJ_CLASS_VIEW,
    FJ_CLASS_SPLIT,
    FJ_CLASS_CREATE,
    FJ_CLASS_TRIANGLE,
    FJ_CLASS_MATMUL,
    FJ_CLASS_LINEAR,
    FJ_CLASS_ADDMM,
    FJ_CLASS_CONV,
    FJ_CLASS_SOFTMAX,
    FJ_CLASS_SAME,
    FJ_CLASS_SDPA,
    FJ_CLASS_NORM,
    FJ_CLASS_REDUCE,
    FJ_CLASS_CUMSUM,
    FJ_CLASS_CAT,
    FJ_CLASS_STACK,
    FJ_CLASS_INDEX,
    FJ_CLASS_EMBEDDING,
    FJ_CLASS_GATHER,
    FJ_CLASS_ATTENTION,
    FJ_CLASS_UNKNOWN
} fj_node_class;

typedef enum fj_node_op {
#define OP(id, name, class, signature, targets) FJ_NODE_##id,
#define POINT(id, name, arity, result, trust, signature, targets, value, text) FJ_NODE_##id,
#include "fuse/ops.def"
    FJ_NODE_OPS
} fj_node_op;

typedef enum fj_trust { FJ_TRUST_EXACT, FJ_TRUST_BASIC, FJ_TRUST_LIBRARY } fj_trust;

typedef struct fj_node_op_info {
    const char *name;
    fj_node_class class;
    const char *signature, *targets;
    int arity; /* POINT: operands */
    bool bool_result;
    fj_trust trust;
    const char *text; /* POINT: in the mod language */
    double (*value)(double a, double b, double c);
} fj_node_op_info;
extern const fj_node_op_info fj_node_ops[FJ_NODE_OPS];

/* The operation of this name of ours, or FJ_NODE_OPS. */
fj_node_op fj_node_op_find(fj_str name);
/* That of a target of torch.export, such as "add.Tensor"; FJ_NODE_UNKNOWN. in_place: it changes its first argument. */
fj_node_op fj_node_op_target(fj_str target, bool *ret_in_place);

/* ---- Arguments --------------------------------------------------------------------------- */

typedef enum fj_arg_kind {
    FJ_ARG_NONE,
    FJ_ARG_VALUE,
    FJ_ARG_VALUES, /* items[i] may be -1: None */
    FJ_ARG_INT,
    FJ_ARG_INTS,
    FJ_ARG_FLOAT,
    FJ_ARG_BOOL,
    FJ_ARG_DTYPE,
    FJ_ARG_TEXT,
} fj_arg_kind;

typedef struct fj_arg {
    fj_arg_kind kind;
    int count; /* VALUES, INTS */
    union {
        int value;
        int *values;
        fj_size size;
        fj_size *sizes;
        double real;
        bool flag;
        fj_dtype dtype;
        const char *text;
    };
} fj_arg;

enum { FJ_MAX_ARGS = 9 };

/* One parameter of a signature: what next_parameter gave. False at the end. */
typedef struct fj_parameter {
    fj_str name;
    bool is_list, has_default;
    fj_str otherwise; /* the default's text */
} fj_parameter;
bool fj_parameter_next(const char **signature, fj_parameter *ret);
/* The argument that stands for a default. */
fj_arg fj_arg_default(fj_sizes *sizes, const fj_parameter *parameter);

/* ---- Values and nodes -------------------------------------------------------------------- */

typedef enum fj_value_kind {
    FJ_VALUE_INPUT,     /* the caller's */
    FJ_VALUE_PARAMETER, /* learned */
    FJ_VALUE_BUFFER,    /* kept with the model */
    FJ_VALUE_CONSTANT,
    FJ_VALUE_RESULT /* of a node */
} fj_value_kind;

typedef struct fj_value {
    const char *name;
    fj_value_kind kind;
    fj_dtype dtype;
    int rank;
    fj_size dims[FJ_MAX_RANK];
    const char *device; /* NULL: not said */
    int node, output;   /* RESULT */
    /* What is kept with the model: packed elements, little endian, NULL where they are not at hand; where they lie. */
    const void *data;
    const char *member; /* of the model's file; NULL: not in a file */
    const char *file;   /* beside the model, in its folder; NULL: the model's own */
    uint64_t offset;    /* from the beginning of the file */
    bool is_output;
} fj_value;

typedef struct fj_node {
    fj_node_op op;
    const char *name; /* as the file has it, for messages */
    const char *target;
    fj_arg args[FJ_MAX_ARGS];
    int arg_count;
    int *outputs;
    int output_count;
    bool in_place;
} fj_node;

/* A softmax that the reader could not bring into the graph, and why. */
typedef struct fj_unread {
    const char *name, *reason;
} fj_unread;

typedef struct fj_graph {
    fj_arena *arena;
    fj_sizes sizes;
    FJ_VEC(fj_value) values;
    FJ_VEC(fj_node) nodes;
    FJ_VEC(int) inputs; /* every value that no node makes */
    FJ_VEC(int) outputs;
    const char *weights; /* the file's name that members are of; NULL: none */
    int mutation;        /* the first node that changes what others may see; -1: there is none */
    FJ_VEC(const char *) notes;
    FJ_VEC(fj_unread) unread;
} fj_graph;

void fj_graph_init(fj_graph *graph, fj_arena *arena);
int fj_graph_value(fj_graph *graph, const char *name, fj_value_kind kind, fj_dtype dtype, int rank,
                   const fj_size *dims);
/* Appends a node whose arguments are copied; outputs are values that know their node from now on. */
int fj_graph_node(fj_graph *graph, fj_node_op op, const char *name, const fj_arg *args, int arg_count,
                  const int *outputs, int output_count);

/* Every value that an argument list of a node names, in order: for (int i = 0; (v = fj_node_input(n, i)) >= 0; i++), None apart. */
int fj_node_input(const fj_node *node, int index);
/* Toward zero, to the nearest that there is; 0 of NaN. */
static inline int64_t fj_to_int(double x) {
    return x >= 9223372036854775807.0  ? INT64_MAX
         : x <= -9223372036854775808.0 ? INT64_MIN
         : x != x                      ? 0
                                       : (int64_t)x;
}
/* An element of a value's data, which may lie at any address. */
double fj_value_element(const fj_value *value, int64_t index);
/* The bytes of its elements; false: a size is a symbol, or they are too many. */
bool fj_value_size(const fj_graph *graph, const fj_value *value, uint64_t *ret_bytes);
bool fj_value_is_number(const fj_graph *graph, int value, double *ret); /* a constant of one element */

/* Checks order, arguments, ranks and sizes of every node: fj_fail names the node. Finds mutations. */
void fj_graph_validate(fj_graph *graph);
/* Drops nodes whose results nobody reads. */
void fj_graph_sweep(fj_graph *graph);

/* ---- Views (view.c) ---------------------------------------------------------------------- */

/* Where an element of a view lies in its argument: index d of the argument is
 *     mod(index[from[d]] , ...)   see the kinds
 * RESHAPED: the same place in row-major order. */
typedef enum fj_move_kind {
    FJ_MOVE_FIXED,  /* offset */
    FJ_MOVE_AFFINE, /* offset + step * index[from] */
    FJ_MOVE_WRAPS,  /* index[from] mod extent of the argument */
    FJ_MOVE_SHARES, /* index[from] / repeats */
} fj_move_kind;
typedef struct fj_move {
    fj_move_kind kind;
    int from;
    fj_size offset;
    int64_t step; /* SHARES: repeats */
} fj_move;
/* False: it is a reshape. Views and outputs of splits. */
bool fj_view_moves(fj_graph *graph, const fj_node *node, int output, fj_move moves[FJ_MAX_RANK]);
/* A dimension from a number that may be negative; fails with the node's name. */
int fj_node_dim(fj_graph *graph, const fj_node *node, const fj_arg *arg, int rank);
_Noreturn void fj_node_fail(fj_graph *graph, const fj_node *node, const char *format, ...) FJ_PRINTF(3, 4);

#endif
