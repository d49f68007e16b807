/* The intermediate representation of a mod: a hash-consed directed acyclic graph.
 *
 * One fj_ir holds a score mod and a mask mod, or the differentiated score mod, over shared nodes. A mod of the output is one of
 * its own, as a score mod whose score is an element of the output and whose kv is its dimension; a sink's is one of b and h.
 * A node is an operation of ops.def with typed arguments; references are 32-bit indices into
 * fj_ir.nodes, in topological order: an argument always precedes its user.
 *
 * Leaves, what a position supplies:
 *   b h q kv   int32 indices
 *   score      float, after scaling
 *   adjoint    float, d loss / d modified score (gradient graphs)
 *   live       bool, this position is neither masked nor padding (fault and scatter guards)
 *   scalar n   run-time scalar n
 *   dim        a dimension of a captured tensor, int64
 *   load       an element of a captured tensor; arguments are the indices, int32 or int64, one per
 *              dimension; an index in [-n,-1] counts from the end; outside [-n,n) it reads 0
 *   out_of_range  bool, same arguments as a load: whether any index is outside [-n,n)
 *   loop       the int64 counter of a loop: argument 0 is the extent (int64, uniform), imm.i a number
 *              unique in the graph
 * Reductions (reduce_sum, ... argmax): arguments are (loop, body); they bind the loop. An empty
 * reduction gives the neutral element (0, 1, false, true, -inf, inf; argmax 0).
 * Effects, only among the roots of gradient graphs:
 *   scatter    capture imm.i: adds argument 0 (float) at the indices that follow. A free loop in
 *              its arguments repeats it over the loop's extent
 *   scatter_scalar  run-time scalar imm.i: adds argument 0
 *
 * Invariants (fj_ir_validate):
 *   1. args precede users; types follow the op's rule; reference 0 is "no node"
 *   2. equal nodes are one node (loops and scatters are never merged)
 *   3. a loop is bound by at most the reductions whose argument 0 it is; score, mask, dscore and
 *      fault roots have no free loops
 */
#ifndef FJ_EXPR_IR_IR_H
#define FJ_EXPR_IR_IR_H

#include "base/base.h"

typedef uint32_t fj_ref; /* 0: no node */

typedef enum fj_type {
    FJ_TYPE_VOID, /* effects */
    FJ_TYPE_BOOL,
    FJ_TYPE_I32,
    FJ_TYPE_I64,
    FJ_TYPE_FLOAT, /* float32 in kernels; double on the reference device and for F64 inputs */
    FJ_TYPE_COUNT
} fj_type;

/* fj_op: FJ_OP_NONE = 0, then FJ_OP_<NAME> in the order of ops.def, FJ_OP_COUNT. */
#include "expr/ir/ops.h"

typedef struct fj_node {
    uint16_t op;  /* fj_op */
    uint8_t type; /* fj_type */
    uint8_t argc;
    uint32_t args; /* first argument in fj_ir.args */
    union {
        int64_t i; /* const_bool, const_i32, const_i64, scalar, dim (capture << 8 | axis), load... */
        double f;  /* const_float; NaNs are canonical */
    } imm;
} fj_node;

typedef struct fj_capture {
    const char *name;
    fj_dtype dtype;
    int rank;
    int64_t dims[FJ_MAX_RANK]; /* -1: not known at compile time */
    bool literal;              /* a table written in the source: data, not from the caller */
    const double *values;      /* literal: packed row-major (ints below 2^53 are exact), else NULL */
    const int64_t *int_values; /* literal of an integer or bool dtype, else NULL */
    bool constant;             /* the caller wants no gradient of it */
    bool gradient;             /* floating, not constant, and read by a score, output or sink mod */
} fj_capture;

typedef struct fj_runtime_scalar {
    const char *name;
    fj_type type; /* BOOL, I64 or FLOAT */
    double f;     /* default value */
    int64_t i;
    bool gradient; /* float, and read by a score, output or sink mod */
} fj_runtime_scalar;

/* Instructions of a CUDA thread for one score, roughly (cost.c). 0: it is not there. */
typedef struct fj_ir_cost {
    int score, mask;
    int gradient; /* dscore and scatters, of a gradient graph */
} fj_ir_cost;

typedef struct fj_ir {
    fj_arena *arena;
    FJ_VEC(fj_node) nodes; /* nodes.data[0] is unused */
    FJ_VEC(fj_ref) args;
    FJ_VEC(fj_capture) captures;
    FJ_VEC(fj_runtime_scalar) scalars;
    /* Roots; 0 where absent. score 0 means identity, mask 0 means everything is visible. */
    fj_ref score;  /* float */
    fj_ref mask;   /* bool */
    fj_ref fault;  /* bool: a bad read or division at a live position; made by the guard pass */
    fj_ref dscore; /* float, gradient graphs: d loss / d score before the mod */
    FJ_VEC(fj_ref) scatters;
    /* hash-consing table */
    uint32_t *table;
    size_t table_cap;
    uint32_t loop_count;
    fj_ir_cost cost; /* of a graph that fj_ir_optimise made */
} fj_ir;

/* The index that stands for one outside of a slice or a reshape: outside of every dimension, also when a
 * dimension is added to it. */
#define FJ_IR_OUTSIDE (-((int64_t)1 << 62))

#define FJ_IR_MAX_NODES 65536
#define FJ_IR_MAX_ARGS (FJ_MAX_RANK + 1)
#define FJ_IR_MAX_FREE 16 /* loops that are free in one value: nested reductions */

/* Nodes are allocated in the arena, whose scope takes failures (too many nodes: FJ_ERR_MOD). */
fj_ir *fj_ir_create(fj_arena *arena);

/* ---- Builder: typed, hash-consed, no simplification ------------------------------------------ */

fj_ref fj_ir_bool(fj_ir *ir, bool value);
fj_ref fj_ir_i32(fj_ir *ir, int32_t value);
fj_ref fj_ir_i64(fj_ir *ir, int64_t value);
fj_ref fj_ir_float(fj_ir *ir, double value);
fj_ref fj_ir_leaf(fj_ir *ir, fj_op op); /* b h q kv score adjoint live */
fj_ref fj_ir_scalar(fj_ir *ir, uint32_t scalar);
fj_ref fj_ir_dim(fj_ir *ir, uint32_t capture, int axis);
fj_ref fj_ir_load(fj_ir *ir, uint32_t capture, const fj_ref *indices, int count);
fj_ref fj_ir_out_of_range(fj_ir *ir, uint32_t capture, const fj_ref *indices, int count);
fj_ref fj_ir_loop(fj_ir *ir, fj_ref extent);
fj_ref fj_ir_reduce(fj_ir *ir, fj_op op, fj_ref loop, fj_ref body);
/* Pointwise operations. Arguments must already have the types the op's rule asks for: the caller
 * (the elaborator) casts. A wrong type is a bug (assert). */
fj_ref fj_ir_op1(fj_ir *ir, fj_op op, fj_ref a);
fj_ref fj_ir_op2(fj_ir *ir, fj_op op, fj_ref a, fj_ref b);
fj_ref fj_ir_op3(fj_ir *ir, fj_op op, fj_ref a, fj_ref b, fj_ref c);
/* Converts to a type: identity when it has it already. float -> int truncates toward zero and
 * saturates, NaN gives 0; int -> bool is != 0. */
fj_ref fj_ir_cast(fj_ir *ir, fj_ref a, fj_type type);
/* The general form, used by parsers and rewriters. */
fj_ref fj_ir_node(fj_ir *ir, fj_op op, fj_type type, int64_t imm, const fj_ref *args, int argc);
fj_ref fj_ir_scatter(fj_ir *ir, uint32_t capture, fj_ref value, const fj_ref *indices, int count);
fj_ref fj_ir_scatter_scalar(fj_ir *ir, uint32_t scalar, fj_ref value);
/* root with every occurrence of node `from` replaced by `to` (for loops: a new counter). */
fj_ref fj_ir_substitute(fj_ir *ir, fj_ref root, fj_ref from, fj_ref to);

static inline const fj_node *fj_ir_at(const fj_ir *ir, fj_ref ref) { return &ir->nodes.data[ref]; }
static inline fj_type fj_ir_type(const fj_ir *ir, fj_ref ref) { return (fj_type)ir->nodes.data[ref].type; }
static inline const fj_ref *fj_ir_args(const fj_ir *ir, fj_ref ref) {
    return ir->args.data + ir->nodes.data[ref].args;
}

/* NULL, or what is wrong (arena text). */
const char *fj_ir_validate(const fj_ir *ir);
/* A node that is not in the graph yet. */
typedef struct fj_ir_candidate {
    fj_op op;
    fj_type type;
    int64_t imm;
    const fj_ref *args;
    int argc;
} fj_ir_candidate;
/* Whether it may be added: NULL, or what is wrong (arena text). */
const char *fj_ir_check(const fj_ir *ir, const fj_ir_candidate *c);
/* The type that reading a tensor of this dtype gives. */
fj_type fj_ir_value_type(fj_dtype dtype);
/* The same graph, with analyses (rates, leaves, schedules) allocated in another arena: for threads that
 * share a graph. Nothing may be added to it. */
static inline fj_ir fj_ir_view(const fj_ir *ir, fj_arena *arena) {
    fj_ir view = *ir;
    view.arena = arena;
    return view;
}
/* A new graph with the captures and scalars of ir and no nodes. */
fj_ir *fj_ir_create_like(const fj_ir *ir);

/* Text form; parse(print(ir)) prints the same. fj_ir_parse takes any bytes: accepts or reports. */
void fj_ir_print(const fj_ir *ir, fj_buf *out);
fj_ir *fj_ir_parse(fj_arena *arena, fj_scope *scope, fj_str text);

/* ---- Passes (one per file); each returns a new graph in the same arena and keeps the meaning ---- */

/* opt_*: fold, simplify, merge common subexpressions, drop dead nodes; captures and scalars keep
 * their numbers. */
fj_ir *fj_ir_optimise(const fj_ir *ir);
/* Adds the fault root: or over loads and integer divisions that can fail of (fails & guard & live);
 * a guard is the conjunction of the where-conditions under which the value is selected. Absent when
 * nothing can fail. */
fj_ir *fj_ir_guard(const fj_ir *ir);
/* The gradient graph of the score mod: dscore and scatters (see gradient.c's essay), optimised. The
 * other roots are kept. */
fj_ir *fj_ir_gradient(const fj_ir *original);

/* Which loop of the kernel a node belongs to: the least that supplies all its leaves. */
typedef enum fj_rate {
    FJ_RATE_UNIFORM, /* constants, scalars, dimensions */
    FJ_RATE_HEAD,    /* b, h */
    FJ_RATE_ROW,     /* q, and maybe b, h */
    FJ_RATE_COL,     /* kv, and maybe b, h */
    FJ_RATE_PAIR,    /* q and kv, or score, adjoint, live */
    FJ_RATE_COUNT
} fj_rate;
/* One entry per node (arena). Loops have the rate of their extent. */
const fj_rate *fj_ir_rates(const fj_ir *ir);
/* Which of b h q kv a node depends on: bits 1, 2, 4, 8; 16: score, adjoint or live. */
const uint8_t *fj_ir_leaves(const fj_ir *ir);
void fj_ir_print_rates(const fj_ir *ir, fj_buf *out);

/* cost.c: what ir->cost is. */
fj_ir_cost fj_ir_cost_of(const fj_ir *ir);

/* ---- Interval analysis ------------------------------------------------------------------------ */

/* What a mask is over a block: bounds are inclusive. */
typedef struct fj_block {
    int64_t b[2], h[2], q[2], kv[2];
} fj_block;
typedef enum fj_block_class { FJ_BLOCK_EMPTY, FJ_BLOCK_PARTIAL, FJ_BLOCK_FULL } fj_block_class;
/* Sound: EMPTY and FULL are proofs. scalars: current values (NULL: the defaults); dims: per capture
 * FJ_MAX_RANK dimensions (NULL: those of ir->captures). Allocates nothing in the graph's arena. */
fj_block_class fj_ir_classify(const fj_ir *ir, const fj_block *block, const fj_scalar *scalars,
                              const int64_t *dims);
/* Whether the mask's intervals depend on q or kv at all so that blocks can be skipped (tier). tables: where what captured
 * tensors hold is known by minima and maxima, as kernels of the cpu look them up. */
bool fj_ir_mask_has_ranges(const fj_ir *ir, bool tables);

/* Keys [first, last) that some query of a block may see, of which all queries see [first_full, last_full); that may be empty. */
typedef struct fj_key_range {
    int64_t first, first_full, last_full, last;
} fj_key_range;
/* Ranges ascend and do not touch each other. Where a mask has more, near ones are one range, which is partial between them. */
enum { FJ_RANGES = 4 };
typedef struct fj_ranges {
    int count;
    fj_key_range of[FJ_RANGES];
} fj_ranges;
/* Of the keys block->kv; sound as fj_ir_classify is, with the same arguments. */
fj_ranges fj_ir_key_ranges(const fj_ir *ir, const fj_block *block, const fj_scalar *scalars,
                           const int64_t *dims);
void fj_ir_print_ranges(const fj_ir *ir, fj_buf *out);

/* ---- Evaluation: the oracle -------------------------------------------------------------------- */

/* A bound captured tensor: data in its own dtype, strides in elements. */
typedef struct fj_eval_tensor {
    const void *data;
    fj_dtype dtype;
    int64_t dims[FJ_MAX_RANK];
    int64_t strides[FJ_MAX_RANK];
} fj_eval_tensor;

typedef struct fj_eval_input {
    const fj_eval_tensor *captures; /* all of ir->captures; literals are filled by the caller too */
    const fj_scalar *scalars;       /* NULL: defaults */
    bool round_f32;                 /* round every float result to float32 */
} fj_eval_input;

/* Evaluates up to FJ_EVAL_LANES positions that share (b, h, q); kv runs from kv0. */
#define FJ_EVAL_LANES 256
typedef struct fj_eval_lanes {
    int32_t b, h, q, kv0;
    int count;
    const double *score;   /* count values, or NULL */
    const double *adjoint; /* likewise */
    const bool *live;      /* likewise; NULL: all live */
} fj_eval_lanes;

/* Gradients of captures: double, packed row-major in the capture's shape, NULL where unwanted. */
typedef struct fj_eval_grads {
    double *const *captures;
    double *scalars; /* one per scalar, NULL: unwanted */
    bool squares;    /* adds up the squares of what is added */
    /* Each array has as many elements again behind its own: what rounding took from the sums (Knuth's two-sum). */
    bool compensated;
    /* Not NULL: a run only notes what it would add; the next one, with is_second, adds up the squares of the differences. */
    struct fj_eval_noted *noted;
} fj_eval_grads;

typedef struct fj_eval_noted {
    FJ_VEC(double) values; /* in the evaluator's arena */
    size_t at;
    bool is_second;
} fj_eval_noted;

typedef struct fj_eval fj_eval; /* scratch for one thread */
fj_eval *fj_eval_create(fj_arena *arena, const fj_ir *shared);
/* Where roots are wanted, output arrays of `count`; NULL otherwise. mask absent: all true. What depends on
 * neither kv nor the score is kept between calls that share (b, h, q) and input, and go forward in kv: what
 * the input points to must not change between them. */
void fj_eval_run(fj_eval *eval, const fj_eval_input *input, const fj_eval_lanes *lanes, double *score,
                 bool *mask, double *dscore, bool *fault, const fj_eval_grads *grads);
/* After a fault: describes the first bad read or division at this position in one sentence, e.g.
 * "captured tensor 'bias' F32 [8] is read at index 9 (dimension 0) at b=0 h=1 q=3 kv=9". False:
 * nothing is wrong there. */
bool fj_eval_explain(fj_eval *eval, const fj_eval_input *input, int32_t b, int32_t h, int32_t q, int32_t kv,
                     double score, char *text, size_t size);

/* ---- Emission ----------------------------------------------------------------------------------- */

typedef enum fj_emit_target {
    FJ_EMIT_CPU,  /* templates/cpu: lanes of vector values, names of templates/cpu/prim.h */
    FJ_EMIT_CUDA, /* templates/cuda: one scalar per thread */
    FJ_EMIT_MASK, /* templates/cpu/mask.c: as CPU, but fj_block_class has tables of captured tensors (mask_load.h) */
    FJ_EMIT_SCALAR, /* plain C, one position: void fj_scalar_mod(...), used to check emitters */
} fj_emit_target;

/* Appends the hooks (states, fj_score, fj_mask, fj_score_grad, fj_fault, fj_block_class) to out;
 * see templates/cpu/hooks.md for the contract. gradient: a graph of fj_ir_gradient, which keeps the
 * other roots and is then all that is written; or NULL. Failures are out's. Allocates nothing in the
 * graph's arena: threads may share the graph. */
void fj_ir_emit(const fj_ir *ir, const fj_ir *gradient, fj_emit_target target, fj_buf *out);
/* After these the hooks of an output's and of a sink's mod, in graphs of their own (fj_out_..., fj_sink_...: see hooks.md),
 * or, where ir is NULL, that there is none: #define FJ_HAS_OUT 0. FJ_EMIT_MASK has neither. */
void fj_ir_emit_out(const fj_ir *ir, const fj_ir *gradient, fj_emit_target target, fj_buf *out);
void fj_ir_emit_sink(const fj_ir *ir, const fj_ir *gradient, fj_emit_target target, fj_buf *out);
/* What FJ_EMIT_SCALAR text needs before it: types, operations, reads; each hook for one position in
 * double, and fj_scalar_mod calls them all. */
void fj_ir_emit_scalar_header(fj_buf *out);

/* A digest-stable text of the graph, for cache keys: the printed form of the live nodes. */
void fj_ir_print_canonical(const fj_ir *ir, fj_buf *out);

#endif
