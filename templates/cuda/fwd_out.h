// What fwd_mma leaves behind: lse, maximum, output.
#ifndef FJ_CUDA_FWD_OUT_H
#define FJ_CUDA_FWD_OUT_H

#include "fwd_products.h"

// lse and maximum of the rows; returns the factors of their outputs, -1 where a row saw nothing (dead). Each of a row's
// four threads makes the end of another row: it is long, and stands in the text once.
struct fj_factors {
    float of[ROWS];
};
FJ_DEVICE fj_factors fj_finish_rows(const fj_task &t, const fj_rows &rows) {
    const int own = static_cast<int>(fj_lane() % 4) % ROWS;
    float limit = 0, sum = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float all = rows.sum[r] + fj_shuffle_xor(rows.sum[r], 1);
        all += fj_shuffle_xor(all, 2);
        sum = r == own ? all : sum;
        limit = r == own ? rows.limit[r] : limit;
    }
    // What the row's base is in natural logarithms; far: a score, else in units of log2.
    const fj_parts base = rows.is_far(own)
                            ? fj_natural_max(t.a, limit)
                            : fj_exact_product(t.base(limit), fj_natural_of_log2(t.a, t.scale_log2));
    const fj_row_end end = fj_end_row<!FJ_PARTIAL>(t.mod, t.at.b, t.head(own), base, sum);
    if (t.row(own) < t.at.rows && fj_lane() % 4 < ROWS) {
        const int32_t b = t.at.b, h = t.head(own), q = t.query(own);
        const int64_t split = FJ_PARTIAL ? static_cast<int64_t>(fj_block_y()) * t.a.split_lse : 0;
        fj_store_lse(t.a.lse, t.a.lse_low, end, b, h, q, split);
        if (!FJ_PARTIAL) fj_look_at_sink(t.a, t.mod, b, h);
        // Without RESCALE_THRESHOLD, limits are maxima.
        if (FJ_WANT_MAX && t.a.max.data)
            static_cast<float *>(t.a.max.data)[fj_offset(t.a.max, b, h, q) + split] =
                sum != sum && limit < INFINITY ? sum
                : sum == 0                     ? -INFINITY
                                               : limit * fj_natural_scale(t.a);
    }
    fj_factors factors;
#if FJ_DROPOUT
    const float factor = end.factor * t.kept_scale;
#else
    const float factor = end.factor;
#endif
#pragma unroll
    for (uint32_t r = 0; r < ROWS; r++)
        factors.of[r] = fj_shuffle_index(end.dead ? -1.0f : factor, (fj_lane() & ~3u) + r);
    return factors;
}

// dead: of a split, 0 or NaN, and of no weight in what is merged.
// zeros: becomes NaN with what is not finite, where FJ_VOTES_EARLY.
#define FJ_VOTES_EARLY (FJ_MASKED && (FJ_HAS_OUT || FJ_PARTIAL))
FJ_DEVICE float fj_result(float x, float factor, float &zeros) {
    x = !(factor < 0) ? x * factor : FJ_PARTIAL ? x : 0.0f;
    if (FJ_VOTES_EARLY) zeros = fj_fma_rn(x, 0.0f, zeros);
    return x;
}

// ---- Outputs that are not finite ------------------------------------------------------------------------

// Bits of the exponents of a word.
#if FJ_IN_DTYPE == FJ_DTYPE_F16
#define FJ_EXPONENTS 0x7c007c00u
#elif FJ_IN_DTYPE == FJ_DTYPE_BF16
#define FJ_EXPONENTS 0x7f807f80u
#else
#define FJ_EXPONENTS 0x7f800000u
#endif

// Adding 1 to an exponent of ones carries into the place of the sign, and no further.
FJ_DEVICE bool fj_is_finite(const fj_b128 &chunk) {
    constexpr uint32_t signs = FJ_EXPONENTS << 1 & ~FJ_EXPONENTS, ones = FJ_EXPONENTS & ~(FJ_EXPONENTS << 1);
    uint32_t carries = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) carries |= (chunk.r[i] & FJ_EXPONENTS) + ones;
    return (carries & signs) == 0;
}

// What the rows of a thread left. counting: 2^r for a row r whose outputs a value may spread to; bad: an output that it
// stored is not finite, or was not before fj_out (fwd_care.h).
struct fj_stored {
    uint32_t counting;
    bool bad;
};
FJ_DEVICE uint32_t fj_counting(const fj_task &t, float factor, int r) {
    return t.row(r) < t.at.rows && (FJ_PARTIAL || !(factor < 0)) ? 1u << r : 0u;
}

#if FJ_PARTIAL
FJ_DEVICE float *fj_part_row(const fj_task &t, int32_t h, int32_t q) {
    return static_cast<float *>(t.a.out.data) + fj_offset(t.a.out, t.at.b, h, q) +
           static_cast<int64_t>(fj_block_y()) * t.a.split_out;
}
FJ_DEVICE fj_stored fj_store_rows(const fj_task &t, const fj_rows &rows, const fj_sums &o) {
    const fj_factors factors = fj_finish_rows(t, rows);
    uint32_t counting = 0;
    float zeros = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float factor = factors.of[r];
        counting |= fj_counting(t, factor, r);
        if (t.row(r) >= t.at.rows) continue;
        float *to = fj_part_row(t, t.head(r), t.query(r));
#pragma unroll
        for (int n = 0; n < 2 * VALUE_TILES; n++) {
            const int32_t column = n / 2 * 8 + static_cast<int32_t>(fj_lane() % 4) * 2 + n % 2;
            const float x = fj_result(o[r / 2][n / 2][r % 2 * 2 + n % 2], factor, zeros);
            if (column < FJ_VALUE_DIM) to[column] = x;
        }
    }
    return fj_stored{counting, zeros != 0};
}
// One element, after all of its row.
FJ_DEVICE void fj_put_nan(const fj_task &t, int32_t h, int32_t q, int32_t column) {
    fj_part_row(t, h, q)[column] = NAN;
}
#else
// Through shared memory: a warp writes its rows as a tile and reads them by chunks. The barrier: all warps are
// done with blocks, and the queries of a tile without blocks have arrived.

#if FJ_HAS_OUT
// The tile of a warp, before the mod of the output, to where it is wanted.
FJ_DEVICE void fj_store_raw(const fj_task &t) {
    typedef fj_tile<FJ_VALUE_PAD> tile;
#pragma unroll 1
    for (uint32_t i = fj_lane(); i < 16 * ROW_TILES * tile::chunks; i += FJ_WARP) {
        const uint32_t row = fj_warp() * 16 * ROW_TILES + i / tile::chunks, chunk = i % tile::chunks;
        const int32_t in_column = t.at.first + static_cast<int32_t>(row);
        if (!t.raw.data || in_column >= t.at.rows) break;
        fj_raw *to = static_cast<fj_raw *>(t.raw.data) +
                     fj_offset(t.raw, t.at.b, fj_row_head(t.at, in_column), fj_row_query(t.at, in_column));
        fj_put_chunk(to + chunk * FJ_CHUNK, *fj_shared_at<fj_b128>(tile::at(row, chunk)),
                     FJ_VALUE_DIM - static_cast<int32_t>(chunk) * FJ_CHUNK, t.raw_vector);
    }
    fj_warp_sync();
}

// What the output's mod makes of the rows, to their places in the tile, in a loop that stays rolled: each iteration works on the first
// tile of columns and moves it behind the others.
FJ_DEVICE void fj_stage_outputs(const fj_task &t, const fj_sums &sums, const fj_factors &factors) {
    fj_sums o;
#pragma unroll
    for (int n = 0; n < ROW_TILES * VALUE_TILES * 4; n++)
        o[n / 4 / VALUE_TILES][n / 4 % VALUE_TILES][n % 4] =
            sums[n / 4 / VALUE_TILES][n / 4 % VALUE_TILES][n % 4];
    fj_out_place places[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        places[r] = fj_out_place_of(t.mod, t.at.b, t.head(r), fj_q_position(t.a, t.at.b, t.query(r)));
#pragma unroll 1
    for (uint32_t j = 0; j < VALUE_TILES; j++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const uint32_t row = fj_warp() * 16 * ROW_TILES + r / 2 * 16 + r % 2 * 8 + fj_lane() / 4;
            float pair[2], zeros = 0;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int32_t column = static_cast<int32_t>(j * 8 + fj_lane() % 4 * 2) + i;
                const float x = fj_result(o[r / 2][0][r % 2 * 2 + i], factors.of[r], zeros);
                if (t.row(r) < t.at.rows && column < FJ_VALUE_DIM)
                    fj_look_at_out(t.a, t.mod, places[r], t.at.b, t.head(r),
                                   fj_q_position(t.a, t.at.b, t.query(r)), column, x);
                pair[i] = fj_out_of(t.mod, places[r], column, x);
            }
            fj_stage_pair(row, j, fj_lane() % 4, pair[0], pair[1]);
        }
        fj_rotate_tiles<1>(o);
    }
}
#endif

FJ_DEVICE fj_stored fj_store_rows(const fj_task &t, const fj_rows &rows, const fj_sums &o) {
    typedef fj_tile<FJ_VALUE_PAD> tile;
    const uint32_t own = fj_warp() * 16 * ROW_TILES;
    const fj_factors factors = fj_finish_rows(t, rows);
    uint32_t counting = 0;
    float zeros = 0;
    fj_block_sync();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float factor = factors.of[r];
        counting |= fj_counting(t, factor, r);
        const uint32_t row = own + r / 2 * 16 + r % 2 * 8 + fj_lane() / 4;
#pragma unroll
        for (int j = 0; j < VALUE_TILES; j++) {
            const float x = fj_result(o[r / 2][j][r % 2 * 2], factor, zeros);
            const float y = fj_result(o[r / 2][j][r % 2 * 2 + 1], factor, zeros);
            fj_stage_pair(row, j, fj_lane() % 4, x, y);
        }
    }
    fj_warp_sync();
    bool bad = zeros != 0;
#if FJ_HAS_OUT
    fj_store_raw(t);
    if (t.a.out.data) fj_stage_outputs(t, o, factors);
    fj_warp_sync();
#endif
#pragma unroll 1
    for (uint32_t i = fj_lane(); i < 16 * ROW_TILES * tile::chunks; i += FJ_WARP) {
        const uint32_t row = own + i / tile::chunks, chunk = i % tile::chunks;
        const int32_t in_column = t.at.first + static_cast<int32_t>(row);
        if (in_column >= t.at.rows || !t.a.out.data) break;
        fj_raw *to = static_cast<fj_raw *>(t.a.out.data) +
                     fj_offset(t.a.out, t.at.b, fj_row_head(t.at, in_column), fj_row_query(t.at, in_column));
        const fj_b128 x = *fj_shared_at<fj_b128>(tile::at(row, chunk));
        if (FJ_MASKED && !FJ_VOTES_EARLY) bad |= !fj_is_finite(x);
        fj_put_chunk(to + chunk * FJ_CHUNK, x, FJ_VALUE_DIM - static_cast<int32_t>(chunk) * FJ_CHUNK,
                     t.a.vector & FJ_CUDA_VECTOR_OUT);
    }
    return fj_stored{counting, bad};
}
// One element, after all of its row.
FJ_DEVICE void fj_put_nan(const fj_task &t, int32_t h, int32_t q, int32_t column) {
    float x = NAN;
#if FJ_HAS_OUT
    if (t.raw.data)
        (static_cast<fj_raw *>(t.raw.data) + fj_offset(t.raw, t.at.b, h, q))[column] = fj_raw_of(x);
    x = fj_out_of(t.mod, fj_out_place_of(t.mod, t.at.b, h, fj_q_position(t.a, t.at.b, q)), column, x);
#endif
    if (t.a.out.data)
        (static_cast<fj_raw *>(t.a.out.data) + fj_offset(t.a.out, t.at.b, h, q))[column] = fj_raw_of(x);
}
#endif

#endif
