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
    at.block = 0;
    at.block_end = FJ_CEIL_DIV(kv_len, FJ_TILE_N);
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

#if FJ_PARTIAL
// ---- Parts of the keys -----------------------------------------------------------------------------------
//
//      blocks   | . F F | . . P | F F . | F . . |      32 lanes look at as many blocks each, and count those that are live
//      part         ^-------------^-------------^      parts have as many live blocks, but for one
//
//  The parts of a tile are those of its live blocks, in order: a part without any has no blocks, and writes what says so.

// The first of the items of part `part`, of so many.
FJ_DEVICE int32_t fj_part_start(int32_t items, int32_t part, int32_t parts) {
    const fj_quotient each = fj_divide(items, parts);
    return each.whole * part + (part < each.rest ? part : each.rest);
}

#if FJ_HAS_MASK || FJ_BLOCK_MASK
// Of live(block): whether the mask leaves something of it; pages that are not there are not looked up.
struct fj_live_blocks {
    int32_t each, before, own; // blocks of a lane; live ones before this lane's, and its own
    int32_t all;
};
template <class Live> FJ_DEVICE fj_live_blocks fj_count_live(int32_t blocks, Live live) {
    const int32_t lane = static_cast<int32_t>(fj_lane());
    fj_live_blocks count = {FJ_CEIL_DIV(blocks, FJ_WARP), 0, 0, 0};
#pragma unroll 1
    for (int32_t i = 0; i < count.each; i++) {
        const int32_t block = lane * count.each + i;
        count.own += block < blocks && live(block) ? 1 : 0;
    }
    int32_t end = count.own;
#pragma unroll 1
    for (int32_t step = 1; step < FJ_WARP; step *= 2) {
        const uint32_t other =
            fj_shuffle_index(static_cast<uint32_t>(end), static_cast<uint32_t>(lane - step) % FJ_WARP);
        if (lane >= step) end += static_cast<int32_t>(other);
    }
    count.before = end - count.own;
    count.all = static_cast<int32_t>(fj_shuffle_index(static_cast<uint32_t>(end), FJ_WARP - 1));
    return count;
}

// The live block with this number; past the last one: `blocks`.
template <class Live>
FJ_DEVICE int32_t fj_find_live(const fj_live_blocks &count, int32_t number, int32_t blocks, Live live) {
    if (number >= count.all) return blocks;
    const uint32_t owners = fj_ballot(count.before <= number && number < count.before + count.own);
    const uint32_t owner = fj_popcount((owners & (0u - owners)) - 1);
    int32_t left =
        number - static_cast<int32_t>(fj_shuffle_index(static_cast<uint32_t>(count.before), owner));
#pragma unroll 1
    for (int32_t i = 0;; i += FJ_WARP) {
        const int32_t in = i + static_cast<int32_t>(fj_lane());
        const int32_t block = static_cast<int32_t>(owner) * count.each + in;
        uint32_t seen = fj_ballot(in < count.each && block < blocks && live(block));
        const int32_t some = static_cast<int32_t>(fj_popcount(seen));
        if (left >= some) {
            left -= some;
            continue;
        }
        for (; left > 0; left--) seen &= seen - 1;
        return static_cast<int32_t>(owner) * count.each + i +
               static_cast<int32_t>(fj_popcount((seen & (0u - seen)) - 1));
    }
}
#endif

FJ_DEVICE void fj_find_part([[maybe_unused]] const fj_forward_args &args,
                            [[maybe_unused]] const fj_forward_call &a, fj_tile_coord &at) {
    const int32_t part = static_cast<int32_t>(fj_block_y()), parts = static_cast<int32_t>(fj_grid_y());
    const int32_t blocks = at.block_end;
#if FJ_HAS_MASK || FJ_BLOCK_MASK
    if (FJ_PACKED && at.b < 0) return; // nobody's
    const fj_mod_args mod = fj_mod_of(args);
    const auto live = [&](int32_t block) {
        const int32_t key = block * FJ_TILE_N;
        return fj_class_of_keys(a, mod, at, key, key + FJ_TILE_N) != FJ_CLASS_EMPTY;
    };
    const fj_live_blocks count = fj_count_live(blocks, live);
    at.block = fj_find_live(count, fj_part_start(count.all, part, parts), blocks, live);
    at.block_end = fj_find_live(count, fj_part_start(count.all, part + 1, parts), blocks, live);
#else
    at.block = fj_part_start(blocks, part, parts);
    at.block_end = fj_part_start(blocks, part + 1, parts);
#endif
}
#endif

// ---- Who works on what --------------------------------------------------------------------------------------

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
#if FJ_PARTIAL
    fj_find_part(args, work.call, work.at);
#endif
    return work;
#else
    at.rows = a.q_len * at.group;
    fj_find_keys(at, a.kv_len);
#if FJ_PARTIAL
    fj_find_part(args, a, at);
#endif
    return fj_work{a, at};
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
