/* What the files of the lifter share: lift.c and lift_sdpa.c walk a region, second.c and sink.c are parts of that, lift_result.c makes of
 * it a fused attention or a reason, rewrite.c the graph after. */
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

/* Where queries, keys and values may come from; how many columns they have. */
typedef struct fj_sources {
    fj_candidates candidates[3];
    fj_size columns[3];
} fj_sources;

typedef struct fj_interior {
    bool *depends; /* values that are made of the product */
    bool *leads;   /* values that the second product is made of */
    int count;
} fj_interior;

/* ---- Regions (lift.c, lift_sdpa.c) ------------------------------------------------------- */

/* Variables of a tensor [..., rows, columns]: two dimensions before these are batch and heads, more are a batch and heads in
 * parts, one is heads. index: those of its dimensions but the last two. */
void fj_lift_leading(fj_lifter *lifter, fj_region *region, const fj_value *value, fj_size q_len,
                     fj_size kv_len, fj_index *index);
/* How many elements a row of q, k or v has. */
void fj_lift_set_columns(fj_region *region, fj_size columns);
/* Marks what lies between the first product and the second one, `last`. */
void fj_lift_mark(fj_lifter *lifter, int product, int last, int weights, fj_interior *ret);
/* Raises a reason where a value inside is used outside. */
void fj_lift_check_inside(fj_lifter *lifter, fj_region *region, int last, fj_interior *inside);
/* The first of the reasons that were raised. */
void fj_lift_refuse(fj_lifter *lifter, fj_region *region, const char *softmax);
/* The score's term, and what else hides it, to a mod and a plan. */
void fj_lift_finish(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, const fj_sources *from,
                    int last, bool transposed, const fj_roots *roots, const bool *depends, int nodes,
                    bool safe, const char *guard);
/* The node of this index, to a fused attention or a reason. */
void fj_lift_sdpa(fj_lifter *lifter, int index);

/* ---- Sinks (sink.c) ---------------------------------------------------------------------- */

/* Sets scores and sink of an anchor. */
void fj_sink_find(fj_graph *graph, fj_anchor *anchor);
/* The sink's term, at an index of the scores; raises a reason where it is none for each head. */
int fj_sink_trace(fj_region *region, const fj_anchor *anchor, const fj_index *scores);
/* An index of the scores becomes one of the softmax's result. */
void fj_sink_columns(fj_region *region, const fj_anchor *anchor, fj_index *index);

void fj_rewrite(fj_lifter *lifter);

#endif
