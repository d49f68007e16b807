/* What a call computes, counted for reports: blocks as the kernel's own analysis finds them, and scores that the mask leaves.
 *
 * Scores are counted in two walks over the blocks. The first classes them: a full one counts for its area. The second looks
 * at the elements of the partial ones, row by row: at all of them while they are FJ_COUNT_LOOKED at most, else at each n-th
 * row, whose share stands for the others. So the count is exact for one head of 16k x 16k whatever the mask, and never more
 * than the full and partial blocks hold. */
#ifndef FJ_BLOCKS_H
#define FJ_BLOCKS_H

#include "block_mask.h"

#include "tile.h"

enum { COUNT_FULL, COUNT_PARTIAL, COUNT_EMPTY, COUNT_SCORES, COUNTS };

#if FJ_MASKED

#ifndef FJ_COUNT_LOOKED
#define FJ_COUNT_LOOKED ((int64_t)1 << 29) /* elements: at most about a second */
#endif

struct count {
    const struct fj_cpu_args *args;
    int64_t b, h;          /* of the plane, as a mod sees it */
    int64_t keys;          /* of a block */
    int64_t *counts;       /* of the first walk */
    int64_t partial;       /* elements of partial blocks */
    int64_t step, row;     /* of the second: each step-th row of a partial block is looked at */
    int64_t looked, found; /* elements */
};

/* What a row sees of a block. q: its position, as b below is a mod's. */
static int64_t row_scores(const struct count *c, const struct fj_head_state *head,
                          const struct fj_row_state *row, const struct fj_col_state *cols, int64_t q,
                          int64_t key, int keys) {
    int64_t seen = 0;
#if FJ_BLOCK_MASK
    struct block_bits bits;
    find_block_bits(c->args, c->b, c->h, q, key, keys, &bits);
#endif
    (void)q, (void)key;
    for (int at = 0, v = 0; at < keys; at += FJ_LANES, v++) {
        fj_b live = fj_mask(c->args, head, row, &cols[v]);
#if FJ_BLOCK_MASK
        live = block_live(&bits, v, live);
#endif
#if FJ_PAGED
        live = fj_and_b(live, page_live(c->args, key + at, keys - at));
#endif
        seen += __builtin_popcount(fj_bits_b(fj_and_b(live, fj_lanes_below(keys - at))));
    }
    return seen;
}

static __attribute__((noinline)) void count_partial(struct count *c, const struct fj_head_state *head,
                                                    const struct fj_row_state *rows, int64_t q, int64_t q_end,
                                                    int64_t key, int keys) {
    struct fj_col_state cols[(FJ_TILE_KV + FJ_LANES - 1) / FJ_LANES];
    for (int at = 0; at < keys; at += FJ_LANES)
        fj_col_init(c->args, head, fj_add_i(fj_splat_i((int32_t)key + at), fj_iota_i()),
                    &cols[at / FJ_LANES]);
    for (int64_t i = q; i < q_end; i++) {
        if (c->row++ % c->step) continue;
        c->found += row_scores(c, head, &rows[i - q], cols, i + c->args->q_offset, key, keys);
        c->looked += keys;
    }
}

/* The blocks of one tile of queries; with a step the partial ones alone. */
static void count_tile(struct count *c, int64_t q, int64_t q_end) {
    const struct fj_cpu_args *a = c->args;
    struct fj_head_state head;
    struct fj_row_state rows[FJ_TILE_Q];
    int ready = 0;
    for (int64_t key = 0; key < a->kv_len; key += c->keys) {
        const int64_t end = key + c->keys < a->kv_len ? key + c->keys : a->kv_len;
        const int class = block_class(a, (int32_t)c->b, (int32_t)c->h, (int32_t)q + a->q_offset,
                                      (int32_t)q_end - 1 + a->q_offset, (int32_t)key, (int32_t)end - 1);
        if (!c->step) {
            const int64_t area = (q_end - q) * (end - key);
            c->counts[2 - class]++;
            if (class == 2) c->counts[COUNT_SCORES] += area;
            if (class == 1) c->partial += area;
        } else if (class == 1) {
            if (!ready) {
                fj_head_init(a, (int32_t)c->b, (int32_t)c->h, &head);
                for (int64_t i = q; i < q_end; i++)
                    fj_row_init(a, &head, (int32_t)i + a->q_offset, &rows[i - q]);
                ready = 1;
            }
            count_partial(c, &head, rows, q, q_end, key, (int)(end - key));
        }
    }
}

/* The planes of which the mask differs; the others are like these. */
static int64_t count_planes(struct count *c, int64_t batches, int64_t heads) {
    for (int64_t plane = 0; plane < batches * heads; plane++) {
        c->b = plane / heads + c->args->first_batch, c->h = plane % heads;
        for (int64_t q = 0; q < c->args->q_len; q += FJ_TILE_Q)
            count_tile(c, q, q + FJ_TILE_Q < c->args->q_len ? q + FJ_TILE_Q : c->args->q_len);
    }
    return batches * heads;
}

/* No multiple of 2 or 3: the rows of a block are, and each n-th of these would always be the same ones. */
static int64_t count_step(int64_t partial) {
    int64_t step = partial / FJ_COUNT_LOOKED + (partial % FJ_COUNT_LOOKED != 0);
    while (step > 1 && (step % 2 == 0 || step % 3 == 0)) step++;
    return step;
}

static int64_t distinct(int is_read, int64_t planes, int64_t extent) {
    return is_read || planes > 1 || extent < 1 ? extent : 1;
}

#endif

/* Blocks of FJ_TILE_Q queries and `keys` keys (at most FJ_TILE_KV), over all batches and query heads: full, partial, empty;
 * and scores. */
static void count_blocks(const struct fj_cpu_args *a, int64_t keys, int64_t counts[COUNTS]) {
    for (int i = 0; i < COUNTS; i++) counts[i] = 0;
#if FJ_MASKED
    struct count c = {.args = a, .keys = keys, .counts = counts};
    int64_t planes_b = 1, planes_h = 1;
#if FJ_BLOCK_MASK
    planes_b = a->block_mask->planes_b, planes_h = a->block_mask->planes_h;
#endif
    const int64_t batches = distinct(FJ_MASK_AXES & 1, planes_b, a->batch);
    const int64_t heads = distinct(FJ_MASK_AXES & 2, planes_h, a->heads_q);
    const int64_t planes = count_planes(&c, batches, heads);
    if (planes == 0) return;
    c.step = count_step(c.partial);
    if (c.step) count_planes(&c, batches, heads);
    if (c.looked)
        counts[COUNT_SCORES] += c.looked == c.partial
                                  ? c.found
                                  : (int64_t)((double)c.found / (double)c.looked * (double)c.partial);
    for (int i = 0; i < COUNTS; i++) counts[i] *= a->batch * a->heads_q / planes;
#else
    const int64_t tiles = (a->q_len + FJ_TILE_Q - 1) / FJ_TILE_Q, blocks = (a->kv_len + keys - 1) / keys;
    counts[COUNT_FULL] = a->batch * a->heads_q * tiles * blocks;
    counts[COUNT_SCORES] = a->batch * a->heads_q * a->q_len * a->kv_len;
#endif
}

#endif
