/* What interval analysis proves of the blocks that a kernel skips or computes, counted for reports. */
#ifndef FJ_BLOCKS_H
#define FJ_BLOCKS_H

#include "block_mask.h"

#include "tile.h"

/* Blocks of FJ_TILE_Q queries and `keys` keys, over all batches and query heads: full, partial, empty. */
static void count_blocks(const struct fj_cpu_args *a, int64_t keys, int64_t counts[3]) {
    const int64_t tiles = (a->q_len + FJ_TILE_Q - 1) / FJ_TILE_Q, blocks = (a->kv_len + keys - 1) / keys;
    counts[0] = counts[1] = counts[2] = 0;
#if FJ_MASKED
    for (int64_t n = 0; n < a->batch * a->heads_q * tiles * blocks; n++) {
        const int64_t key = n % blocks * keys, q = n / blocks % tiles * FJ_TILE_Q, bh = n / blocks / tiles;
        const int64_t key_end = key + keys < a->kv_len ? key + keys : a->kv_len;
        const int64_t q_end = q + FJ_TILE_Q < a->q_len ? q + FJ_TILE_Q : a->q_len;
        const int class = block_class(a, (int32_t)(bh / a->heads_q), (int32_t)(bh % a->heads_q), (int32_t)q,
                                      (int32_t)q_end - 1, (int32_t)key, (int32_t)key_end - 1);
        counts[2 - class]++;
    }
#else
    counts[0] = a->batch * a->heads_q * tiles * blocks;
#endif
}

#endif
