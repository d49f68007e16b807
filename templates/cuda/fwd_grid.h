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

#ifndef FJ_PACK_HEADS
#define FJ_PACK_HEADS 0 // rows of a tile are (query, head of the group): few queries fill a tile
#endif
#ifndef FJ_POSITION_TABLE
#define FJ_POSITION_TABLE 0
#endif
#ifndef FJ_PARTIAL
#define FJ_PARTIAL 0
#endif
#ifndef FJ_WANT_MAX
#define FJ_WANT_MAX 0
#endif

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

#include "large.h"

// ---- Softmax -------------------------------------------------------------------------------------------------

// Stored scores are raw products without a score mod, signed so that their scale is not negative, and natural
// logarithms with one. This makes the former of the latter.
FJ_DEVICE fj_real fj_natural_scale(const fj_cuda_forward &a) {
    if (FJ_HAS_SCORE) return fj_real(1);
    const fj_real scale = static_cast<fj_real>(a.scale);
    return scale < 0 ? -scale : scale;
}
// And this makes logarithms of base 2.
FJ_DEVICE fj_real fj_scale_log2_of(const fj_cuda_forward &a) {
    const fj_real scale_log2 = fj_natural_scale(a) * FJ_LOG2_E;
    return scale_log2 > FJ_MOST_REAL ? FJ_MOST_REAL : scale_log2 > 0 ? scale_log2 : fj_real(1);
}
// True is a proof: without the arithmetic of doubles, which is slow on most GPUs.
FJ_DEVICE bool fj_is_positive(double x) { return static_cast<int32_t>(fj_bits_from_f64(x) >> 32) > 0; }
// Raw products are stored times this: 0 where the scale is, but for NaN and infinities.
FJ_DEVICE fj_real fj_sign_of(double scale) { return scale < 0 ? fj_real(-1) : fj_cast_float(scale > 0); }

// What is subtracted from the scores of a row with this greatest one.
FJ_DEVICE fj_base fj_base_of(const fj_cuda_forward &a, fj_real scale_log2, fj_real row_max) {
    const fj_real scale = fj_natural_scale(a), natural = fj_mul_rn(row_max, scale);
    return fj_is_large(natural) ? fj_large_base(natural, scale, scale_log2) : fj_plain_base(row_max);
}

// high + low, the second less than the rounding of the first.
struct fj_parts {
    fj_real high, low;
};
FJ_DEVICE fj_parts fj_exact_sum(fj_real a, fj_real b) {
    const fj_real sum = a + b, rest = sum - a;
    return fj_parts{sum, (a - (sum - rest)) + (b - rest)};
}
FJ_DEVICE fj_parts fj_exact_product(fj_real a, const fj_parts &b) {
    const fj_real product = fj_mul_rn(a, b.high);
    return fj_parts{product, fj_fma_rn(a, b.low, fj_fma_rn(a, b.high, -product))};
}
// A row's greatest score as a natural one.
FJ_DEVICE fj_parts fj_natural_max(const fj_cuda_forward &a, fj_real row_max) {
    const fj_parts exact = fj_exact_product(row_max, fj_parts{fj_natural_scale(a), fj_real(0)});
    return fj_parts{exact.high, fj_is_large(exact.high) ? fj_real(0) : exact.low};
}
// fj_scale_log2_of in natural logarithms, nearer than a real: scores near each other then have the same difference,
// wherever they are, in the forward kernels and in the backward ones.
FJ_DEVICE fj_parts fj_natural_of_log2(const fj_cuda_forward &a, fj_real scale_log2) {
    const fj_real scale = fj_natural_scale(a), high = fj_div_rn(scale, scale_log2);
    return fj_parts{high, fj_div_rn(fj_fma_rn(-high, scale_log2, scale), scale_log2)};
}

// What a row ends as: the factor of its output; lse in two parts. dead: it saw nothing, its output is 0.
struct fj_row_end {
    fj_real factor, lse, lse_low;
    bool dead;
};
// sum: of exp(score - base), natural. whole: no other split has keys of the row, so that its sink joins.
template <bool whole>
FJ_DEVICE fj_row_end fj_end_row([[maybe_unused]] const fj_mod_args &mod,
                                [[maybe_unused]] const struct fj_head_state &head, fj_parts base,
                                fj_real sum) {
    fj_row_end end;
    fj_real down = 1;
#if FJ_HAS_SINK
    const fj_real sink = whole ? fj_sink(&mod, &head) : -fj_real(INFINITY);
    // Differences first: both may be large. Where the row saw nothing, so is the sink.
    const fj_real ahead = sum == 0 ? sink - sink : ((sink - base.high) - base.low) * FJ_LOG2_E;
    if (sink > -fj_real(INFINITY) && (ahead > 0 || sum == 0)) {
        down = fj_exp2(-ahead); // sums of the output are still those of the base before
        sum = fj_fma_rn(sum, down, fj_real(1));
        base = fj_parts{sink, fj_real(0)};
    } else if (sink > -fj_real(INFINITY)) {
        sum += fj_exp2(ahead);
    }
#endif
    end.dead = sum == 0;
    end.factor = end.dead ? fj_real(0) : fj_div_rn(down, sum);
    const fj_parts all = fj_exact_sum(base.high, fj_log(sum));
    const fj_real rest = all.low + base.low;
    end.lse = end.dead ? -fj_real(INFINITY) : all.high + rest;
    end.lse_low = fj_abs(end.lse) < fj_real(INFINITY) ? rest - (end.lse - all.high) : fj_real(0);
    return end;
}

// A row's lse, at the same place in either part.
FJ_DEVICE void fj_store_lse(const fj_cuda_tensor &high, const fj_cuda_tensor &low, const fj_row_end &end,
                            int32_t b, int32_t h, int32_t q, int64_t split) {
    if (high.data) static_cast<fj_real *>(high.data)[fj_offset(high, b, h, q) + split] = end.lse;
    if (low.data) static_cast<fj_real *>(low.data)[fj_offset(low, b, h, q) + split] = end.lse_low;
}

#endif
