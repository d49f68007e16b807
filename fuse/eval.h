/* The state of an evaluation, shared by eval.c and eval_ops.c. */
#ifndef FJ_FUSE_EVAL_H
#define FJ_FUSE_EVAL_H

#include "fuse/fuse.h"

typedef struct fj_eval {
    fj_scope *scope;
    fj_arena *arena; /* of the arrays */
    fj_graph *graph;
    const fj_evaluation *how;
    fj_array *arrays; /* by value; data NULL: not made */
    int64_t *symbols;
    const fj_findings *findings;
} fj_eval;

/* The array of a value, of the dims that the graph declares; not initialised. */
fj_array *fj_eval_make(fj_eval *eval, int index);
/* Fails when nothing made it. */
const fj_array *fj_eval_of(fj_eval *eval, const fj_node *node, int value);
int64_t fj_eval_size(fj_eval *eval, fj_size size);
/* Rounds to the value's dtype. */
void fj_eval_settle(const fj_eval *eval, fj_array *array);
/* What may be false of symbolic sizes only. */
void fj_eval_require(fj_eval *eval, const fj_node *node, bool holds, const char *what);

/* Makes the first result of a node (all of them for splits). */
void fj_eval_node(fj_eval *eval, const fj_node *node);

#endif
