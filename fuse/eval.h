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

/* ---- Operands (eval_ops.c) --------------------------------------------------------------- */

/* An operand that broadcasts to a result: its strides along the result's dimensions, or a number. */
typedef struct fj_spread {
    const double *data;
    double number;
    int64_t strides[FJ_MAX_RANK];
} fj_spread;

/* keep: how many of the last dimensions are not the broadcast's. */
fj_spread fj_spread_of(fj_eval *eval, const fj_node *node, const fj_array *in, const fj_array *out, int keep);
int64_t fj_spread_offset(const fj_spread *operand, const int64_t *index, int rank);
fj_spread fj_eval_argument(fj_eval *eval, const fj_node *node, int index, const fj_array *out);
/* The next index in row-major order; false after the last. */
bool fj_next_index(const int64_t *dims, int rank, int64_t *index);

/* ---- Classes (eval_products.c, eval_rows.c) ---------------------------------------------- */

void fj_eval_multiply(fj_eval *eval, const fj_node *node, const fj_array *a, const fj_array *b,
                      fj_array *out);
void fj_eval_linear(fj_eval *eval, const fj_node *node);
void fj_eval_convolution(fj_eval *eval, const fj_node *node);
void fj_eval_addmm(fj_eval *eval, const fj_node *node);
void fj_eval_sdpa(fj_eval *eval, const fj_node *node);
void fj_eval_softmax(fj_eval *eval, const fj_node *node);
void fj_eval_cumsum(fj_eval *eval, const fj_node *node);
void fj_eval_norm(fj_eval *eval, const fj_node *node);
void fj_eval_reduce(fj_eval *eval, const fj_node *node);
/* safe: a row of -inf becomes 0, not NaN. */
void fj_eval_softmax_row(double *row, int64_t length, int64_t step, bool logarithm, bool safe);

/* Makes the first result of a node (all of them for splits). */
void fj_eval_node(fj_eval *eval, const fj_node *node);

#endif
