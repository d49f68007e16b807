/* One region that may be attention, while it is looked at.
 *
 *   variables   b, h, q, kv: the position of a score; e: of an element of a row of q, k or v
 *   terms       what the score at (b, h, q, kv) is: a DAG over the product q.k, numbers, positions and elements of captured
 *               values. Every term is a scalar
 *
 * A rule of the walk that cannot go on either captures a value, which is always right where the value does not depend on the
 * scores, or raises a reason. */
#ifndef FJ_FUSE_REGION_H
#define FJ_FUSE_REGION_H

#include "fuse/fuse.h"
#include "fuse/index.h"

enum { FJ_VAR_B, FJ_VAR_H, FJ_VAR_Q, FJ_VAR_KV, FJ_VAR_E, FJ_VAR_GROUP, FJ_VAR_IN_GROUP, FJ_VARS };

typedef enum fj_term_kind {
    FJ_TERM_SCORE,
    FJ_TERM_NUMBER,
    FJ_TERM_INDEX,
    FJ_TERM_READ,
    FJ_TERM_OP
} fj_term_kind;
typedef enum fj_term_type { FJ_TERM_BOOL, FJ_TERM_INT, FJ_TERM_FLOAT } fj_term_type;

typedef struct fj_term {
    fj_term_kind kind;
    fj_term_type type;
    bool scored;           /* it depends on the product */
    bool printable;        /* its indices have numbers for sizes */
    double number;         /* NUMBER; SCORE: the factor of q.k */
    fj_index index;        /* INDEX */
    int value;             /* READ */
    fj_node_op op;         /* OP; CAST: to a float */
    int count;             /* READ, OP */
    int args[FJ_MAX_RANK]; /* terms */
} fj_term;

/* q, k or v: a value of the graph and where the element (b, h, row, e) lies in it. */
typedef struct fj_operand {
    int value;
    fj_index index[FJ_MAX_RANK];
    double scale;  /* what it is to be multiplied with */
    int64_t group; /* heads of queries for each of its own */
    int cost;
} fj_operand;

/* What a mod computes: terms; mask and sink may be -1. */
typedef struct fj_roots {
    int score, mask, sink;
} fj_roots;

enum { FJ_MOST_CANDIDATES = 24 };
typedef struct fj_candidates {
    fj_operand items[FJ_MOST_CANDIDATES];
    int count;
} fj_candidates;

typedef struct fj_memo {
    int value, term;
    fj_index index[FJ_MAX_RANK];
    int next;
} fj_memo;

typedef struct fj_region {
    fj_arena *arena;
    fj_graph *graph;
    const fj_fuse_options *options;
    fj_indices indices;
    FJ_VEC(fj_term) terms;
    FJ_VEC(fj_memo) memo;
    int *memo_of; /* by value, the last one's index + 1 */
    int depth;
    fj_index vars[FJ_VARS];
    fj_size extents[FJ_VARS];
    fj_dtype dtype; /* of the problem */
    int product;    /* the node of q.k; -1: not met */
    int factors[2]; /* its values: that of the queries, that of the keys */
    fj_index factor_index[2][FJ_MAX_RANK];
    unsigned reasons; /* bits */
    const char *details[FJ_REASONS_COUNT];
    FJ_VEC(const char *) notes;
} fj_region;

void fj_region_init(fj_region *region, fj_graph *graph, const fj_fuse_options *options);
void fj_region_extents(fj_region *region, fj_size batch, fj_size heads, fj_size q_len, fj_size kv_len);
void fj_region_raise(fj_region *region, fj_reason reason, const char *format, ...) FJ_PRINTF(3, 4);
/* Once each. */
void fj_region_note(fj_region *region, const char *format, ...) FJ_PRINTF(2, 3);

/* ---- Terms (terms.c) --------------------------------------------------------------------- */

int fj_term_make(fj_region *region, fj_term term);
int fj_term_number(fj_region *region, double number, fj_term_type type);
int fj_term_index(fj_region *region, fj_index index);
/* Folds numbers, positions and factors of the score. */
int fj_term_op(fj_region *region, fj_node_op op, fj_term_type type, int count, const int *args);
int fj_term_bool(fj_region *region, int term); /* term != 0 */
int fj_term_not(fj_region *region, int term);

/* ---- The walk (trace.c) ------------------------------------------------------------------ */

/* The element of a value at an index. */
int fj_trace(fj_region *region, int value, const fj_index *index);
/* The same of what an operation on elements gives (trace_point.c). */
int fj_trace_point(fj_region *region, int value, const fj_index *index);
/* A value as it is: captured. */
int fj_term_read(fj_region *region, int value, const fj_index *index);
/* Whether mods compute floats in this dtype. */
bool fj_is_kernel_float(const fj_region *region, fj_dtype dtype);
/* The first dimension that is not known to be 1 or that of the result, whose last ones dims are; or -1. */
int fj_unproven(const fj_region *region, const fj_value *in, const fj_size *dims, int rank);
/* Indices of an operand that broadcasts to a result. */
void fj_broadcast(fj_region *region, const fj_value *in, int out_rank, const fj_index *index, fj_index *ret);

/* ---- Operands (operand.c) ---------------------------------------------------------------- */

/* Where an operand may be taken from: the value, and those before it that are the same elements, perhaps scaled. */
void fj_operand_find(fj_region *region, int value, const fj_index *index, int row_var, fj_candidates *ret);
/* The best of dtype that serves heads in groups of `group`; false: there is none. */
bool fj_operand_choose(const fj_region *region, const fj_candidates *candidates, int64_t group,
                       fj_operand *ret);
/* Nodes that bring it to [B, H / group, rows, columns]; the last value. */
int fj_operand_emit(fj_region *region, const fj_operand *operand, int row_var, const char *name);

/* ---- Masks and text ---------------------------------------------------------------------- */

/* Whether it is neither infinite nor NaN where q, k and captured tensors are finite, overflow apart. */
bool fj_term_is_finite(const fj_region *region, int term);
/* Takes constant branches of -inf off a score: what remains, and the condition under which it is seen, or -1. */
int fj_split_mask(fj_region *region, int term, int *ret_mask);
/* Makes all scores of one factor, which is returned; *term changes where they have several. */
double fj_take_scale(fj_region *region, int *term);
/* The mod file; names captures in the order of their first use. */
void fj_emit_mod(fj_region *region, fj_fused *fused, const fj_roots *roots);

#endif
