/* Spans of rows or columns of blocks, over ranges of them: what `area` of a mask's code is given (templates/cpu/abi.h). */
#ifndef FJ_ATTN_MASK_SPANS_H
#define FJ_ATTN_MASK_SPANS_H

#include "attn/mask/mask.h"

/* A binary tree over blocks: node i of level l is what blocks [i 2^l, (i + 1) 2^l) span, as far as there are any. */
typedef struct fj_span_tree {
    char *nodes; /* NULL: none, or not made yet */
    int64_t size, capacity;
    int64_t first[33]; /* of each level */
} fj_span_tree;

/* Positions [first, first + count) in blocks of `block`, of one plane. The tree's memory is used again. Nothing where the code
 * has no spans. FJ_ERR_MEMORY. */
typedef struct fj_span_range {
    int64_t b, h, first, count, block;
} fj_span_range;
fj_status fj_span_tree_make(fj_span_tree *tree, const fj_allocator *allocator,
                            const struct fj_cpu_spans *code, const struct fj_cpu_args *args,
                            const fj_span_range *range);
void fj_span_tree_finish(fj_span_tree *tree, const fj_allocator *allocator);

/* Blocks [block, end), counted from the tree's first: end is a power of two from block, which is a multiple of it, or the tree's
 * end. NULL: no spans. */
const void *fj_span_tree_at(const fj_span_tree *tree, int64_t block, int64_t end);

#endif
