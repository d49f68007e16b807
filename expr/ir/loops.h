/* Private to expr/: which loops a node's value still depends on. */
#ifndef FJ_EXPR_IR_LOOPS_H
#define FJ_EXPR_IR_LOOPS_H

#include "expr/ir/ir.h"

/* Loops that no reduction below the node binds, ascending. */
typedef struct fj_free_loops {
    uint32_t count;
    fj_ref loops[FJ_IR_MAX_FREE];
} fj_free_loops;

/* Of one node, from those of its arguments (table: of all nodes before it). False: too many. */
bool fj_loops_of_node(const fj_ir *ir, fj_ref ref, const fj_free_loops *table, fj_free_loops *ret);
/* One entry per node (arena). */
const fj_free_loops *fj_ir_free_loops(const fj_ir *ir);

static inline bool fj_loops_has(const fj_free_loops *set, fj_ref loop) {
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->loops[i] == loop) return true;
    }
    return false;
}

#endif
