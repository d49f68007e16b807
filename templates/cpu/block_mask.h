/* Block masks that the caller hands in: what a kernel with FJ_BLOCK_MASK sees of a tile. A position is seen where its block
 * is full, or is partial and the mod's mask holds; the mod is not asked elsewhere. A row of blocks is runs of partial blocks
 * and runs of full ones, both ascending (attn/mask/rows.h).
 *
 * Kernels without one ask the mod's intervals alone. With pages, what is on one that is not there is hidden too. */
#ifndef FJ_BLOCK_MASK_H
#define FJ_BLOCK_MASK_H

#include "prim.h"

#if FJ_BLOCK_MASK
enum { BLOCKS_PARTIAL, BLOCKS_FULL };

/* The first run of the row and kind that ends past `column`, and the end of the runs. */
static inline const struct fj_cpu_run *find_run(const struct fj_cpu_block_mask *mask, int64_t row, int kind,
                                                int64_t column, const struct fj_cpu_run **ret_end) {
    const struct fj_cpu_run *from = mask->runs + mask->starts[2 * row + kind],
                            *to = mask->runs + mask->starts[2 * row + kind + 1];
    *ret_end = to;
    while (from < to) {
        const struct fj_cpu_run *middle = from + (to - from) / 2;
        if (middle->last <= column)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* q: an index, not a position. */
static inline int64_t mask_row(const struct fj_cpu_block_mask *mask, int64_t b, int64_t h, int64_t q) {
    const int64_t plane = (mask->planes_b == 1 ? 0 : b) * mask->planes_h + (mask->planes_h == 1 ? 0 : h);
    return plane * mask->q_blocks + q / mask->block_q;
}

/* Blocks of the kind among [first, last] of a row. */
static inline int64_t count_run(const struct fj_cpu_block_mask *mask, int64_t row, int kind, int64_t first,
                                int64_t last) {
    const struct fj_cpu_run *end, *run = find_run(mask, row, kind, first, &end);
    int64_t count = 0;
    for (; run < end && run->first <= last; run++)
        count += (run->last <= last ? run->last : last + 1) - (run->first > first ? run->first : first);
    return count;
}

/* As fj_block_class, of the rectangle whose bounds are inclusive. */
static __attribute__((noinline)) int listed_class(const struct fj_cpu_args *a, int64_t b, int64_t h,
                                                  int64_t q_first, int64_t q_last, int64_t kv_first,
                                                  int64_t kv_last) {
    const struct fj_cpu_block_mask *mask = a->block_mask;
    const int64_t first = kv_first / mask->block_kv, last = kv_last / mask->block_kv;
    int64_t partial = 0, full = 0, all = 0;
    const int64_t q_end = q_last - a->q_offset;
    for (int64_t q = q_first - a->q_offset; q <= q_end; q = (q / mask->block_q + 1) * mask->block_q) {
        const int64_t row = mask_row(mask, b, h, q);
        partial += count_run(mask, row, BLOCKS_PARTIAL, first, last);
        full += count_run(mask, row, BLOCKS_FULL, first, last);
        all += last - first + 1;
        if (full > 0 && full < all) return 1;
    }
    if (partial + full == 0) return 0;
#if FJ_HAS_MASK
    if (partial == all) return fj_block_class(a, b, h, q_first, q_last, kv_first, kv_last);
    return full == all ? 2 : 1;
#else
    return partial + full == all ? 2 : 1; /* no mod hides anything of a partial block */
#endif
}

/* What a row sees of [key, key + keys), as bits of vectors: where it sees all, and where as much as the mod says. */
struct block_bits {
    uint16_t kind[2][(FJ_TILE_KV + FJ_LANES - 1) / FJ_LANES];
};

static void find_block_bits(const struct fj_cpu_args *a, int64_t b, int64_t h, int64_t q, int64_t key,
                            int keys, struct block_bits *bits) {
    const struct fj_cpu_block_mask *mask = a->block_mask;
    const int64_t row = mask_row(mask, b, h, q - a->q_offset);
    memset(bits, 0, sizeof *bits);
    for (int kind = 0; kind < 2; kind++) {
        const struct fj_cpu_run *end, *run = find_run(mask, row, kind, key / mask->block_kv, &end);
        for (; run < end && run->first * mask->block_kv < key + keys; run++) {
            const int64_t from = run->first * mask->block_kv - key, to = run->last * mask->block_kv - key;
            const int until = to < keys ? (int)to : keys;
            for (int at = from > 0 ? (int)from : 0; at < until;) {
                const int vector = at / FJ_LANES,
                          stop = (vector + 1) * FJ_LANES < until ? (vector + 1) * FJ_LANES : until;
                bits->kind[kind][vector] |= (uint16_t)(((1u << (stop - at)) - 1) << (at - vector * FJ_LANES));
                at = stop;
            }
        }
    }
}

static inline fj_b block_live(const struct block_bits *bits, int vector, fj_b mod) {
    return fj_or_b(fj_unbits_b(bits->kind[BLOCKS_FULL][vector]),
                   fj_and_b(fj_unbits_b(bits->kind[BLOCKS_PARTIAL][vector]), mod));
}
#elif FJ_HAS_MASK
#define listed_class fj_block_class
#else
#define listed_class(a, b, h, q_first, q_last, kv_first, kv_last) 2
#endif

#if FJ_PAGED
/* What of keys [first, last] is on pages that are there: 0 nothing, 1 some, 2 all. */
static int page_class(const struct fj_cpu_args *a, int64_t first, int64_t last) {
    int there = 0, missing = 0;
    for (int64_t i = first / a->page_size; i <= last / a->page_size; i++)
        if (a->pages[i] < 0)
            missing = 1;
        else
            there = 1;
    return there ? 2 - missing : 0;
}

/* The keys of a vector that are on pages that are there. */
static fj_b page_live(const struct fj_cpu_args *a, int64_t key, int keys) {
    uint32_t bits = 0;
    for (int i = 0; i < FJ_LANES && i < keys; i++)
        bits |= (uint32_t)(a->pages[(key + i) / a->page_size] >= 0) << i;
    return fj_unbits_b((uint16_t)bits);
}

static inline int block_class(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t q_first,
                              int32_t q_last, int32_t kv_first, int32_t kv_last) {
    const int there = page_class(a, kv_first, kv_last);
    if (there == 0) return 0;
    const int listed = listed_class(a, b, h, q_first, q_last, kv_first, kv_last);
    return there == 1 && listed == 2 ? 1 : listed;
}
#elif FJ_MASKED
#define block_class listed_class
#endif

#endif
