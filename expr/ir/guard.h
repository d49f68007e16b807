/* Private to expr/: the conditions under which values are selected; for guard.c and gradient.c. */
#ifndef FJ_EXPR_IR_GUARD_H
#define FJ_EXPR_IR_GUARD_H

#include "expr/ir/loops.h"

/* A graph that grows while it is analysed, with the free loops of all its nodes. */
typedef struct fj_guards {
    fj_ir *ir;
    FJ_VEC(fj_free_loops) loops;
    fj_ref *guard; /* per node of the graph as it was: a bool; 0: never selected, or not asked for */
    fj_ref size;   /* nodes of the graph as it was */
} fj_guards;

/* A copy with the same references. */
fj_ir *fj_ir_copy(const fj_ir *ir);

const fj_free_loops *fj_guards_loops(fj_guards *guards, fj_ref ref);
void fj_guards_init(fj_guards *guards, fj_ir *ir);
/* Gives the nodes that are marked, and reached from roots through marked nodes, their guards. */
void fj_guards_find(fj_guards *guards, const fj_ref *roots, size_t root_count, const bool *marked);
/* The condition under which `user` takes its argument `at`, as long as the user's loops are open. */
fj_ref fj_guards_edge(fj_guards *guards, fj_ref user, int at);
/* The loops that run between a value and its user's argument: those that the user repeats it in. */
fj_free_loops fj_guards_between(fj_guards *guards, fj_ref user, int at);

/* Whether a node itself may fail: a read out of range, an integer division by zero. */
bool fj_guards_can_fail(const fj_ir *ir, fj_ref ref);

/* Simplified bools. */
fj_ref fj_guards_and(fj_ir *ir, fj_ref a, fj_ref b);
fj_ref fj_guards_or(fj_ir *ir, fj_ref a, fj_ref b);
bool fj_guards_is_true(const fj_ir *ir, fj_ref guard);

#endif
