/* Private to expr/: the evaluator's inside, shared by eval.c, eval_read.c and eval_explain.c. */
#ifndef FJ_EXPR_IR_EVAL_H
#define FJ_EXPR_IR_EVAL_H

#include "expr/ir/schedule.h"

/* How one value of the graph is computed. */
typedef struct fj_eval_value {
    void *lanes; /* width elements: bool, int32_t, int64_t or double; NULL: effects */
    bool varies; /* differs along the lanes: depends on kv, score, adjoint or live */
    bool spread; /* does not vary, but is read by values that do: lane 0 is copied to all */
} fj_eval_value;

/* Which outputs a value serves, and a call asks for. */
enum { FJ_EVAL_SCORE = 1, FJ_EVAL_MASK = 2, FJ_EVAL_DSCORE = 4, FJ_EVAL_FAULT = 8, FJ_EVAL_EFFECTS = 16 };

/* A loop that shadows an open one saves what it overwrites. */
typedef struct fj_eval_saved {
    const fj_sched_item *item;
    void *bytes;
} fj_eval_saved;

struct fj_eval {
    const fj_ir *ir;
    fj_arena *arena;
    int width; /* lanes that are worked on at once */
    fj_eval_value *values;
    const fj_sched_block *top;
    /* The items of top: those before row_items do not vary, and are kept while (b, h, q) stays. */
    fj_sched_item *items;
    size_t row_items, item_count;
    uint8_t *outputs; /* per item */
    FJ_VEC(fj_eval_saved) saved;
    int spread_count; /* how many lanes a value that does not vary is copied to now */
    int64_t *offsets; /* scratch of reads: element offset per lane, -1: outside */
    bool *flags;
    /* What the row items were computed for. */
    bool cached;
    const fj_eval_input *cached_input;
    unsigned cached_outputs;
    int32_t b, h, q, kv_end;
    /* The call. */
    const fj_eval_input *input;
    const fj_eval_grads *grads;
};

size_t fj_eval_type_size(fj_type type);
void fj_eval_item_run(fj_eval *eval, const fj_sched_item *item, int lanes);

/* eval_read.c */
void fj_eval_load(fj_eval *eval, fj_ref ref, int count);
void fj_eval_out_of_range(fj_eval *eval, fj_ref ref, int count);
void fj_eval_scatter(fj_eval *eval, fj_ref ref, int count);
/* The index of lane 0 and argument `at` of a read, whatever its type. */
int64_t fj_eval_index(const fj_eval *eval, fj_ref index);

#endif
