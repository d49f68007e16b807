/* A graph for each operation of ops.def and each type that it takes, over one set of inputs: what every device must compute.
 *
 * Position p is key p. An argument is the score, or the element p of a captured tensor, so that each operation meets every
 * pair of edges: float arguments are the score and `fb`, so that the gradients with respect to both are dscore and those
 * of `fb`. Results that are ints leave in pieces of 16 bits: query q shows piece q. */
#ifndef FJ_TESTS_OPS_CASES_H
#define FJ_TESTS_OPS_CASES_H

#include "base/dtype.h"
#include "expr/ir/ir.h"

enum {
    OPS_POSITIONS = 576, /* pairs of edges; a multiple of every number of lanes, and of a warp */
    OPS_PIECES = 4,
    OPS_SCALARS = 3, /* a float, an int, a bool */
    OPS_FA = 0,
    OPS_FB,
    OPS_IA,
    OPS_IB,
    OPS_LA,
    OPS_LB,
    OPS_BA,
    OPS_BB,
    OPS_DTYPES, /* one of each dtype */
    OPS_CAPTURES = OPS_DTYPES + FJ_DTYPE_COUNT - 1,
    OPS_MOST_CASES = 400
};

/* The inputs of every case, of one size of reals. */
typedef struct ops_inputs {
    bool f64;
    double score[OPS_POSITIONS], adjoint[OPS_POSITIONS];
    bool live[OPS_POSITIONS];
    fj_eval_tensor captures[OPS_CAPTURES];
    char bytes[OPS_CAPTURES][OPS_POSITIONS * sizeof(double)];
    fj_scalar scalars[OPS_SCALARS];
} ops_inputs;

typedef struct ops_case {
    char name[40]; /* "add f" */
    fj_op op;
    const fj_ir *graph; /* a gradient graph, with all roots */
    int pieces;         /* queries that are looked at */
} ops_case;

typedef struct ops_cases {
    ops_case list[OPS_MOST_CASES];
    int count;
} ops_cases;

void ops_inputs_make(ops_inputs *inputs, bool f64);
/* With f64 those that have floats alone: the others are the same. Without, fails where the graphs lack an operation of the
 * table. */
void ops_cases_make(fj_arena *arena, const ops_inputs *inputs, ops_cases *ret_cases);

/* What a case gives at the positions of one query. */
typedef struct ops_answer {
    double score[OPS_POSITIONS], dscore[OPS_POSITIONS];
    bool fault[OPS_POSITIONS];
    double dcaptures[OPS_CAPTURES][OPS_POSITIONS]; /* of FA and FB; zero before */
    double dscalar;
} ops_answer;

/* round: every float to float32. */
void ops_evaluate(fj_arena *arena, const ops_case *c, const ops_inputs *inputs, int query, bool round,
                  ops_answer *ret);

/* The hooks of all cases, and ops_try(case, ...) around them, as ops_lanes.h and ops_kernel.h take them. */
void ops_emit(const ops_cases *cases, fj_emit_target target, bool f64, fj_buf *out);

#endif
