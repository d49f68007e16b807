// Who computes what in the forward kernels, and which blocks of keys a tile streams: shared by fwd_mma and
// fwd_simt.
//
//                    key blocks, FJ_TILE_N each                  columns: (batch, head)
//                 0   1   2   3   4   5   6 ...                   a group of columns at a time, so that
//              +---+---+---+---+---+---+---+                      their keys and values stay in L2; in it
//        tile  | F | F | P |   |   |   |   |                      the last tiles first: with a causal mask
//              +---+---+---+---+---+---+---+                      they are the heaviest
//                F full    P partial    ' ' empty
//
//  1. What a block of the grid computes depends on its number and the arguments alone.
//  2. Every warp finds the same classes: 32 key blocks at a time, one per lane, exchanged by ballots. So no
//     list of blocks is stored, and any number of keys will do. Blocks come in ascending order.
//  3. A class is a proof or "partial"; a block that is cut by the last key is never full.
//  4. Rows past the last one exist in the tile: they take the position of the last one, and are not stored.
#ifndef FJ_CUDA_FWD_GRID_H
#define FJ_CUDA_FWD_GRID_H

struct fj_forward_args {
    struct fj_cuda_forward call;
#if FJ_CAPTURES
    struct fj_cuda_capture captures[FJ_CAPTURES];
#endif
#if FJ_SCALARS
    struct fj_cuda_scalar scalars[FJ_SCALARS];
#endif
};

template <class T> FJ_DEVICE fj_mod_args fj_mod_of([[maybe_unused]] const T &args) {
    fj_mod_args mod = {nullptr, nullptr};
#if FJ_CAPTURES
    mod.captures = args.captures;
#endif
#if FJ_SCALARS
    mod.scalars = args.scalars;
#endif
    return mod;
}

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
    const int32_t columns = a.batch * heads, number = static_cast<int32_t>(number_in_grid);
    const int32_t from = fj_divide(number, a.l2_group * tiles).whole * a.l2_group;
    const int32_t width = columns - from < a.l2_group ? columns - from : a.l2_group;
    const fj_quotient in_group = fj_divide(number - from * tiles, width);
    const fj_quotient column = fj_divide(from + in_group.rest, heads);
    at.first = (tiles - 1 - in_group.whole) * FJ_TILE_M;
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

FJ_DEVICE int64_t fj_offset(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t row) {
    return b * t.stride[0] + h * t.stride[1] + row * t.stride[2];
}

// ---- Positions -----------------------------------------------------------------------------------------

template <class T> FJ_DEVICE int32_t fj_q_position(const T &a, [[maybe_unused]] int32_t b, int32_t q) {
#if FJ_POSITION_TABLE
    if (a.q_position) return a.q_position[b * a.q_position_stride + q];
#endif
    return a.q_offset + q;
}
// A key past the last one has the position that the affine map gives.
FJ_DEVICE int32_t fj_kv_position(const fj_cuda_forward &a, [[maybe_unused]] int32_t b, int32_t kv) {
#if FJ_POSITION_TABLE
    if (a.kv_position && kv < a.kv_len) return a.kv_position[b * a.kv_position_stride + kv];
#endif
    return a.kv_offset + kv;
}

// ---- Blocks of keys --------------------------------------------------------------------------------------

enum { FJ_TILE_END = -1 };

struct fj_tile_scheduler {
    int32_t next; // the first block that was not looked at
#if FJ_HAS_MASK
    int32_t base;        // block of bit 0
    uint32_t live, full; // bit per block; live ones are still to be taken
#endif
};

// What fj_tile_next gives: a block, twice, plus 1 if it is full; FJ_TILE_END after the last.

#if FJ_HAS_MASK

// 0 empty, 1 partial, 2 full
FJ_DEVICE int fj_class_of(const fj_cuda_forward &a, const fj_mod_args &mod, const fj_tile_coord &at,
                          int32_t block) {
    const int32_t key = block * FJ_TILE_N, end = key + FJ_TILE_N;
    if (FJ_POSITION_TABLE && (a.q_position || a.kv_position)) return 1;
    const int64_t q = fj_row_query(at, at.first) + a.q_offset;
    const int64_t q_last = fj_row_query(at, fj_last_row(at, at.first + FJ_TILE_M - 1)) + a.q_offset;
    const int64_t kv = key + a.kv_offset, kv_last = (end < a.kv_len ? end : a.kv_len) - 1 + a.kv_offset;
    int found = fj_block_class(&mod, at.b, at.head, q, q_last, kv, kv_last);
    for (int32_t i = 1; i < at.group; i++)
        if (fj_block_class(&mod, at.b, at.head + i, q, q_last, kv, kv_last) != found) found = 1;
    return found == 2 && end > a.kv_len ? 1 : found;
}

FJ_DEVICE fj_tile_scheduler fj_tile_start(const fj_tile_coord &at) {
    return fj_tile_scheduler{at.block, at.block, 0, 0};
}

FJ_DEVICE int32_t fj_tile_next(const fj_cuda_forward &a, const fj_mod_args &mod, const fj_tile_coord &at,
                               fj_tile_scheduler &tiles) {
    while (!tiles.live && tiles.next < at.block_end) {
        const int32_t block = tiles.next + static_cast<int32_t>(fj_lane());
        const int found = block < at.block_end ? fj_class_of(a, mod, at, block) : 0;
        tiles.live = fj_ballot(found != 0);
        tiles.full = fj_ballot(found == 2);
        tiles.base = tiles.next;
        tiles.next += FJ_WARP;
    }
    if (!tiles.live) return FJ_TILE_END;
    const uint32_t lowest = tiles.live & (0u - tiles.live);
    tiles.live ^= lowest;
    return 2 * (tiles.base + static_cast<int32_t>(fj_popcount(lowest - 1))) + ((tiles.full & lowest) != 0);
}

#else

FJ_DEVICE fj_tile_scheduler fj_tile_start(const fj_tile_coord &at) { return fj_tile_scheduler{at.block}; }
FJ_DEVICE int32_t fj_tile_next(const fj_cuda_forward &a, const fj_mod_args &, const fj_tile_coord &at,
                               fj_tile_scheduler &tiles) {
    if (tiles.next >= at.block_end) return FJ_TILE_END;
    const int32_t block = tiles.next++;
    return 2 * block + ((block + 1) * FJ_TILE_N <= a.kv_len);
}

#endif

// ---- Faults ------------------------------------------------------------------------------------------------

// Whether a read of this tile may fail in a block of keys: most blocks are found innocent at once.
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

#include "softmax.h"

// ---- Results ---------------------------------------------------------------------------------------------------

// A row's lse, at the same place in either part.
FJ_DEVICE void fj_store_lse(const fj_cuda_tensor &high, const fj_cuda_tensor &low, const fj_row_end &end,
                            int32_t b, int32_t h, int32_t q, int64_t split) {
    if (high.data) static_cast<fj_real *>(high.data)[fj_offset(high, b, h, q) + split] = end.lse;
    if (low.data) static_cast<fj_real *>(low.data)[fj_offset(low, b, h, q) + split] = end.lse_low;
}

#endif
