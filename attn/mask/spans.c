/* Trees of spans. */
#include "attn/mask/spans.h"

#include <string.h>

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static fj_status reserve(fj_span_tree *tree, const fj_allocator *allocator, int64_t capacity) {
    if (capacity <= tree->capacity) return FJ_OK;
    char *larger = allocator->resize(allocator->user, tree->nodes, (size_t)tree->capacity, (size_t)capacity);
    if (!larger) return FJ_ERR_MEMORY;
    tree->nodes = larger;
    tree->capacity = capacity;
    return FJ_OK;
}

fj_status fj_span_tree_make(fj_span_tree *tree, const fj_allocator *allocator,
                            const struct fj_cpu_spans *code, const struct fj_cpu_args *args,
                            const fj_span_range *range) {
    const int64_t blocks = fj_mask_blocks(range->count, range->block);
    tree->size = (code->size + 15) / 16 * 16;
    if (code->size == 0 || blocks == 0) return FJ_OK;
    int64_t nodes = 0;
    int levels = 0;
    for (int64_t n = blocks;; n = (n + 1) / 2) {
        tree->first[levels++] = nodes;
        nodes += n;
        if (n == 1) break;
    }
    if (reserve(tree, allocator, nodes * tree->size) != FJ_OK) return FJ_ERR_MEMORY;
    for (int64_t i = 0; i < blocks; i++) {
        const int64_t at = range->first + i * range->block;
        const int64_t end = least(at + range->block, range->first + range->count);
        code->make(args, (int32_t)range->b, (int32_t)range->h, (int32_t)at, (int32_t)(end - 1),
                   tree->nodes + i * tree->size);
    }
    for (int level = 1; level < levels; level++) {
        const int64_t from = tree->first[level - 1], to = tree->first[level];
        for (int64_t i = 0; i < to - from; i++) {
            char *below = tree->nodes + (from + i) * tree->size,
                 *above = tree->nodes + (to + i / 2) * tree->size;
            if (i % 2 == 0)
                memcpy(above, below, (size_t)code->size);
            else
                code->join(above, below);
        }
    }
    return FJ_OK;
}

void fj_span_tree_finish(fj_span_tree *tree, const fj_allocator *allocator) {
    if (tree->nodes) fj_free(allocator, tree->nodes, (size_t)tree->capacity);
    *tree = (fj_span_tree){0};
}

const void *fj_span_tree_at(const fj_span_tree *tree, int64_t block, int64_t end) {
    int level = 0;
    if (tree->size == 0) return NULL;
    while ((INT64_C(1) << level) < end - block) level++;
    return tree->nodes + (tree->first[level] + (block >> level)) * tree->size;
}
