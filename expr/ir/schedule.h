/* Private to expr/: the order in which values are computed, with their loops; shared by the
 * evaluator and the emitters. */
#ifndef FJ_EXPR_IR_SCHEDULE_H
#define FJ_EXPR_IR_SCHEDULE_H

#include "expr/ir/loops.h"

struct fj_sched_block;

/* One step: a value; or a loop over `loop` that runs `body` and, for a reduction, joins it. */
typedef struct fj_sched_item {
    fj_ref ref;   /* the value; 0: a loop that only repeats effects */
    fj_ref loop;  /* 0: no loop */
    bool shadows; /* the loop is open already: values inside hide those outside */
    struct fj_sched_block *body;
} fj_sched_item;

typedef struct fj_sched_block {
    FJ_VEC(fj_sched_item) items;
} fj_sched_block;

/* What to compute, and what is there already. */
typedef struct fj_sched_want {
    const fj_ref *roots;
    size_t root_count;
    const bool *given; /* one per node: is there already (only values without free loops); NULL: none */
} fj_sched_want;

enum { FJ_SCHED_MAX_DEPTH = 16, FJ_SCHED_MAX_ITEMS = 1 << 20 };

/* The block that computes the roots (arena). NULL: loops are nested too deeply, or are too many. */
fj_sched_block *fj_schedule(const fj_ir *ir, const fj_free_loops *free_loops, const fj_sched_want *want);
/* All roots of the graph, in the order score, mask, fault, dscore, scatters; returns their number. */
size_t fj_ir_roots(const fj_ir *ir, const fj_ref **ret_roots);

#endif
