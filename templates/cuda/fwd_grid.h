// Who computes what in the forward kernels: the rows of a tile, its blocks of keys (grid.h), reads that fail, lse.
//
//  1. The last tiles come first: with a causal mask they are the heaviest.
//  2. Rows past the last one exist in the tile: they take the position of the last one, and are not stored.
#ifndef FJ_CUDA_FWD_GRID_H
#define FJ_CUDA_FWD_GRID_H

#include "grid.h"

#include "softmax.h"

struct fj_forward_args {
    struct fj_cuda_forward call;
#if FJ_BLOCK_MASK
    struct fj_cuda_block_mask blocks;
#endif
#if FJ_CAPTURES
    struct fj_cuda_capture captures[FJ_CAPTURES];
#endif
#if FJ_SCALARS
    struct fj_cuda_scalar scalars[FJ_SCALARS];
#endif
};

// ---- Rows ----------------------------------------------------------------------------------------------

struct fj_tile_coord {
    int32_t b, head, head_kv; // head: the only one, or the first of the group
    int32_t group;            // heads among the rows: 1, or with FJ_PACK_HEADS the GQA ratio
    int32_t first, rows;      // the tile's first row; rows there are of this column
    int32_t block, block_end; // of keys
};

FJ_DEVICE fj_tile_coord fj_tile_coord_of(const fj_cuda_forward &a, uint32_t number_in_grid = fj_block_x()) {
    fj_tile_coord at;
    const int32_t ratio = fj_divide(a.heads_q, a.heads_kv).whole;
    at.group = FJ_PACK_HEADS ? ratio : 1;
    at.rows = a.q_len * at.group;
    const int32_t tiles = FJ_CEIL_DIV(at.rows, FJ_TILE_M), heads = FJ_PACK_HEADS ? a.heads_kv : a.heads_q;
    const fj_grid_tile place =
        fj_grid_tile_of(static_cast<int32_t>(number_in_grid), tiles, a.batch, heads, a.l2_group);
    const fj_quotient column = place.column;
    at.first = (tiles - 1 - place.tile) * FJ_TILE_M;
    at.b = column.whole;
    at.head_kv = FJ_PACK_HEADS ? column.rest : fj_divide(column.rest, ratio).whole;
    at.head = FJ_PACK_HEADS ? at.head_kv * ratio : column.rest;
    const int32_t blocks = FJ_CEIL_DIV(a.kv_len, FJ_TILE_N);
    at.block = 0;
    at.block_end = blocks;
    if (FJ_PARTIAL) {
        const int32_t each = FJ_CEIL_DIV(blocks, static_cast<int32_t>(fj_grid_y()));
        const int32_t start = each * static_cast<int32_t>(fj_block_y());
        at.block = start < blocks ? start : blocks;
        at.block_end = start + each < blocks ? start + each : blocks;
    }
    return at;
}

FJ_DEVICE int32_t fj_row_query(const fj_tile_coord &at, int32_t row) {
    return FJ_PACK_HEADS ? row / at.group : row;
}
FJ_DEVICE int32_t fj_row_head(const fj_tile_coord &at, int32_t row) {
    return FJ_PACK_HEADS ? at.head + row % at.group : at.head;
}
FJ_DEVICE int32_t fj_last_row(const fj_tile_coord &at, int32_t row) {
    return row < at.rows ? row : at.rows - 1;
}

// ---- Blocks of keys --------------------------------------------------------------------------------------

FJ_DEVICE int fj_class_of([[maybe_unused]] const fj_cuda_forward &a, [[maybe_unused]] const fj_mod_args &mod,
                          [[maybe_unused]] const fj_tile_coord &at, int32_t block) {
    const int32_t key = block * FJ_TILE_N, end = key + FJ_TILE_N;
#if FJ_BLOCK_MASK
    const fj_rectangle r = {fj_row_query(at, at.first),
                            fj_row_query(at, fj_last_row(at, at.first + FJ_TILE_M - 1)), key,
                            (end < a.kv_len ? end : a.kv_len) - 1};
    int found = fj_rectangle_class<false>(a, mod, at.b, at.head, r);
    for (int32_t i = 1; i < at.group; i++)
        if (fj_rectangle_class<false>(a, mod, at.b, at.head + i, r) != found) found = FJ_CLASS_PARTIAL;
    return found == FJ_CLASS_FULL && end > a.kv_len ? FJ_CLASS_PARTIAL : found;
#elif FJ_HAS_MASK
    if (FJ_POSITION_TABLE && (a.q_position || a.kv_position)) return FJ_CLASS_PARTIAL;
    const int64_t q = fj_row_query(at, at.first) + a.q_offset;
    const int64_t q_last = fj_row_query(at, fj_last_row(at, at.first + FJ_TILE_M - 1)) + a.q_offset;
    const int64_t kv = key + a.kv_offset, kv_last = (end < a.kv_len ? end : a.kv_len) - 1 + a.kv_offset;
    int found = fj_block_class(&mod, at.b, at.head, q, q_last, kv, kv_last);
    for (int32_t i = 1; i < at.group; i++)
        if (fj_block_class(&mod, at.b, at.head + i, q, q_last, kv, kv_last) != found)
            found = FJ_CLASS_PARTIAL;
    return found == FJ_CLASS_FULL && end > a.kv_len ? FJ_CLASS_PARTIAL : found;
#else
    return end <= a.kv_len ? FJ_CLASS_FULL : FJ_CLASS_PARTIAL;
#endif
}

FJ_DEVICE fj_tile_scheduler fj_tile_start(const fj_tile_coord &at) {
    return fj_tile_start(at.head, at.block);
}
FJ_DEVICE fj_streamed_tile fj_tile_next(const fj_cuda_forward &a, const fj_mod_args &mod,
                                        const fj_tile_coord &at, fj_tile_scheduler &tiles) {
    return fj_tile_take<false>(tiles, at.block_end, 0,
                               [&](int32_t, int32_t block) { return fj_class_of(a, mod, at, block); });
}

// ---- Faults ------------------------------------------------------------------------------------------------

// Whether a read of this tile may fail in a block of keys: interval analysis clears most blocks.
FJ_DEVICE bool fj_suspects([[maybe_unused]] const fj_cuda_forward &a, [[maybe_unused]] const fj_mod_args &mod,
                           [[maybe_unused]] const fj_tile_coord &at, [[maybe_unused]] int32_t key) {
#if FJ_HAS_FAULT
    if (FJ_POSITION_TABLE && (a.q_position || a.kv_position)) return true;
    const int32_t end = key + FJ_TILE_N < a.kv_len ? key + FJ_TILE_N : a.kv_len;
    const int64_t q = fj_row_query(at, at.first) + a.q_offset;
    const int64_t q_last = fj_row_query(at, fj_last_row(at, at.first + FJ_TILE_M - 1)) + a.q_offset;
    for (int32_t i = 0; i < at.group; i++)
        if (fj_may_fault(&mod, at.b, at.head + i, q, q_last, key + a.kv_offset, end - 1 + a.kv_offset))
            return true;
#endif
    return false;
}

// Where a mod reads badly, it may do so at every score: after the first, none waits for an atomic operation on this
// one address.
FJ_DEVICE void fj_note_fault(const fj_cuda_forward &a, int32_t b, int32_t h, int32_t q, int32_t kv) {
    if (fj_load_relaxed_u32(&a.fault->found) || fj_atomic_fetch_max(&a.fault->found, 1)) return;
    a.fault->b = b;
    a.fault->h = h;
    a.fault->q = q;
    a.fault->kv = kv;
}

// ---- Results ---------------------------------------------------------------------------------------------------

// A row's lse, at the same place in either part.
FJ_DEVICE void fj_store_lse(const fj_cuda_tensor &high, const fj_cuda_tensor &low, const fj_row_end &end,
                            int32_t b, int32_t h, int32_t q, int64_t split) {
    if (high.data) static_cast<fj_real *>(high.data)[fj_offset(high, b, h, q) + split] = end.lse;
    if (low.data) static_cast<fj_real *>(low.data)[fj_offset(low, b, h, q) + split] = end.lse_low;
}

#endif
