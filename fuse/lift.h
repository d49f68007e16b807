/* What lift.c and second.c share. */
#ifndef FJ_FUSE_LIFT_H
#define FJ_FUSE_LIFT_H

#include "fuse/region.h"

/* A softmax: of `input`, giving `output`. */
typedef struct fj_anchor {
    int node, input, output;
    const char *pattern;
    int scores,
        sink; /* input without what is beside them (sink.c); the value of a column beside the scores, -1: none */
    bool sink_first; /* it is before them */
} fj_anchor;

/* What takes the place of a node. */
typedef struct fj_plan_of {
    fj_region *region;
    fj_operand operands[3];
    int node;           /* the second product */
    bool transposed;    /* its result has queries in columns */
    fj_size columns[3]; /* of q, k, v */
    size_t fused;
} fj_plan_of;

typedef struct fj_lifter {
    fj_model *model;
    fj_graph *graph;
    const fj_fuse_options *options;
    int *user_begin, *users; /* by value: users[user_begin[v]] to users[user_begin[v + 1]] are nodes */
    FJ_VEC(fj_plan_of) plans;
} fj_lifter;

/* The weights' way to the second product. */
typedef struct fj_second {
    int node, place;   /* the product; which of its factors they are */
    bool safe;         /* rows without anything to see are 0 */
    const char *guard; /* the node that hides NaN, of whatever it comes; NULL: there is none */
    fj_dtype narrow;   /* the least dtype on the way */
} fj_second;

int fj_user_count(const fj_lifter *lifter, int value);
int fj_user(const fj_lifter *lifter, int value, int index);
/* False: a reason was raised. */
bool fj_second_find(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, fj_second *ret);
/* From an index of the product's factor back to that of the anchor's output. */
bool fj_second_back(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, const fj_second *second,
                    const fj_index *index, fj_index *ret);
/* Softmaxes that are written out: exp(x - max) / sum. */
bool fj_written_out(fj_lifter *lifter, int node, fj_anchor *ret, const char **ret_detail);
/* The value whose rows a reduction over the last dimension reduces, for a value that broadcasts to these rows as they are; or
 * -1. */
int fj_row_reduced(fj_graph *graph, int value, fj_node_op op, const fj_value *rows);

/* ---- Sinks (sink.c) ---------------------------------------------------------------------- */

/* Sets scores and sink of an anchor. */
void fj_sink_find(fj_graph *graph, fj_anchor *anchor);
/* The sink's term, at an index of the scores; raises a reason where it is none for each head. */
int fj_sink_trace(fj_region *region, const fj_anchor *anchor, const fj_index *scores);
/* An index of the scores becomes one of the softmax's result. */
void fj_sink_columns(fj_region *region, const fj_anchor *anchor, fj_index *index);

void fj_rewrite(fj_lifter *lifter);

#endif
