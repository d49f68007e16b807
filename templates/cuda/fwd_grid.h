// Who computes what in the forward kernels: the rows of a tile, its blocks of keys (grid.h), reads that fail, lse.
//
//  1. The last tiles come first: with a causal mask they are the heaviest.
//  2. Rows past the last one exist in the tile: they take the position of the last one, and are not stored.
#ifndef FJ_CUDA_FWD_GRID_H
#define FJ_CUDA_FWD_GRID_H

#include "grid.h"

#include "sequences.h"

#include "softmax.h"

#include "dropout.h"

struct fj_forward_args {
    struct fj_cuda_forward call;
#if FJ_BLOCK_MASK
    struct fj_cuda_block_mask blocks;
#endif
#if FJ_SEQUENCES
    struct fj_cuda_sequences sequences;
#endif
#if FJ_DROPOUT
    struct fj_cuda_dropout dropout;
#endif
#if FJ_HAS_OUT
    struct fj_cuda_epilogue epilogue;
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

// The call that a block of the grid works on, and its tile.
struct fj_work {
    fj_own_forward call;
    fj_tile_coord at;
    FJ_METHOD bool is_idle() const { return FJ_PACKED && at.b < 0; }
};

FJ_DEVICE void fj_find_rows(fj_tile_coord &at, int32_t b, int32_t head, int32_t ratio, int32_t first) {
    at.first = first;
    at.b = b;
    at.head_kv = FJ_PACK_HEADS ? head : fj_divide(head, ratio).whole;
    at.head = FJ_PACK_HEADS ? at.head_kv * ratio : head;
}
FJ_DEVICE void fj_find_keys(fj_tile_coord &at, int32_t kv_len) {
    const int32_t blocks = FJ_CEIL_DIV(kv_len, FJ_TILE_N);
    at.block = 0;
    at.block_end = blocks;
    if (FJ_PARTIAL) {
        const int32_t each = FJ_CEIL_DIV(blocks, static_cast<int32_t>(fj_grid_y()));
        const int32_t start = each * static_cast<int32_t>(fj_block_y());
        at.block = start < blocks ? start : blocks;
        at.block_end = start + each < blocks ? start + each : blocks;
    }
}

FJ_DEVICE fj_work fj_work_of(const fj_forward_args &args, uint32_t number_in_grid = fj_block_x()) {
    const fj_cuda_forward &a = args.call;
    const int32_t number = static_cast<int32_t>(number_in_grid);
    const int32_t ratio = fj_divide(a.heads_q, a.heads_kv).whole;
    fj_tile_coord at;
    at.group = FJ_PACK_HEADS ? ratio : 1;
    const int32_t heads = FJ_PACK_HEADS ? a.heads_kv : a.heads_q;
#if FJ_PACKED
    const fj_quotient place = fj_divide(number, heads);
    const fj_sequence_tile tile =
        fj_find_sequence(args.sequences.cu_q, a.batch, place.whole, at.group, FJ_TILE_M);
    fj_find_rows(at, tile.b, place.rest, ratio, (tile.tiles - 1 - tile.tile) * FJ_TILE_M);
#else
    const int32_t tiles = FJ_CEIL_DIV(a.q_len * at.group, FJ_TILE_M);
    const fj_grid_tile place = fj_grid_tile_of(number, tiles, a.batch, heads, a.l2_group);
    fj_find_rows(at, place.column.whole, place.column.rest, ratio, (tiles - 1 - place.tile) * FJ_TILE_M);
#endif
#if FJ_SEQUENCES
    fj_work work = {fj_call_of_sequence(a, args.sequences, at.b < 0 ? 0 : at.b), at};
    work.at.rows = work.call.q_len * at.group;
    fj_find_keys(work.at, work.call.kv_len);
    return work;
#else
    at.rows = a.q_len * at.group;
    fj_find_keys(at, a.kv_len);
    return fj_work{a, at};
#endif
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

// Whatever is on pages that are not there.
FJ_DEVICE int fj_class_of_keys([[maybe_unused]] const fj_forward_call &a,
                               [[maybe_unused]] const fj_mod_args &mod,
                               [[maybe_unused]] const fj_tile_coord &at, [[maybe_unused]] int32_t key,
                               int32_t end) {
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
FJ_DEVICE int fj_class_of(const fj_forward_call &a, const fj_mod_args &mod, const fj_tile_coord &at,
                          int32_t block) {
    const int32_t key = block * FJ_TILE_N, end = key + FJ_TILE_N;
    const int found = fj_class_of_keys(a, mod, at, key, end);
    return fj_class_of_pages(a, found, key, (end < a.kv_len ? end : a.kv_len) - 1);
}

FJ_DEVICE fj_tile_scheduler fj_tile_start(const fj_tile_coord &at) {
    return fj_tile_start(at.head, at.block);
}
FJ_DEVICE fj_streamed_tile fj_tile_next(const fj_forward_call &a, const fj_mod_args &mod,
                                        const fj_tile_coord &at, fj_tile_scheduler &tiles) {
#if FJ_BLOCK_MASK
    const int32_t q = fj_row_query(at, at.first),
                  q_last = fj_row_query(at, fj_last_row(at, at.first + FJ_TILE_M - 1));
    const int32_t heads = mod.blocks->planes_h == 1 ? 1 : at.group;
    return fj_tile_take<false>(
        tiles, at.block_end, 0, [&](int32_t, int32_t block) { return fj_class_of(a, mod, at, block); },
        [&](int32_t, int32_t block) {
            int32_t next = at.block_end;
            for (int32_t i = 0; i < heads; i++) {
                const int32_t its = fj_next_tile<false>(*mod.blocks, at.b, at.head + i, q, q_last, block,
                                                        FJ_TILE_N, at.block_end);
                next = its < next ? its : next;
            }
            return next;
        });
#else
    return fj_tile_take<false>(tiles, at.block_end, 0,
                               [&](int32_t, int32_t block) { return fj_class_of(a, mod, at, block); });
#endif
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
// one address. where: FJ_CUDA_FAULT_SCORE ...
template <class Call>
FJ_DEVICE void fj_note_fault(const Call &a, [[maybe_unused]] int32_t where, int32_t b, int32_t h, int32_t q,
                             int32_t kv) {
    if (fj_load_relaxed_u32(&a.fault->found) || fj_atomic_fetch_max(&a.fault->found, 1)) return;
    a.fault->b = b;
    a.fault->h = h;
    a.fault->q = q;
    a.fault->kv = kv;
    if (FJ_HAS_OUT_FAULT || FJ_HAS_SINK_FAULT) a.fault->where = where; // zero else
}

// Of the sink, and of a row's element of the output.
template <class Call>
FJ_DEVICE void fj_look_at_sink([[maybe_unused]] const Call &a, [[maybe_unused]] const fj_mod_args &mod,
                               [[maybe_unused]] int32_t b, [[maybe_unused]] int32_t h) {
    if (FJ_HAS_SINK_FAULT && fj_sink_fails(mod, b, h)) fj_note_fault(a, FJ_CUDA_FAULT_SINK, b, h, 0, 0);
}
#if FJ_HAS_OUT
template <class Call>
FJ_DEVICE void fj_look_at_out([[maybe_unused]] const Call &a, [[maybe_unused]] const fj_mod_args &mod,
                              [[maybe_unused]] const fj_out_place &place, [[maybe_unused]] int32_t b,
                              [[maybe_unused]] int32_t h, [[maybe_unused]] int32_t q,
                              [[maybe_unused]] int32_t column, [[maybe_unused]] fj_real x) {
    if (FJ_HAS_OUT_FAULT && fj_out_fails(mod, place, column, x))
        fj_note_fault(a, FJ_CUDA_FAULT_OUT, b, h, q, column);
}

// Where the output before its mod goes: data is NULL where it is not wanted.
FJ_DEVICE fj_cuda_tensor fj_raw_output(const fj_forward_args &args, [[maybe_unused]] int32_t b) {
    fj_cuda_tensor raw = args.epilogue.raw;
#if FJ_PACKED
    if (raw.data) fj_skip_rows(raw, args.sequences.cu_q[b], FJ_IN_BYTES);
#endif
    return raw;
}
#endif

// ---- Results ---------------------------------------------------------------------------------------------------

// A row's lse, at the same place in either part.
FJ_DEVICE void fj_store_lse(const fj_cuda_tensor &high, const fj_cuda_tensor &low, const fj_row_end &end,
                            int32_t b, int32_t h, int32_t q, int64_t split) {
    if (high.data) static_cast<fj_real *>(high.data)[fj_offset(high, b, h, q) + split] = end.lse;
    if (low.data) static_cast<fj_real *>(low.data)[fj_offset(low, b, h, q) + split] = end.lse_low;
}

#endif
