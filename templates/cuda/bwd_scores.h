// What bwd_mma does with a tile of scores: masks, the mod and its derivative.
#ifndef FJ_CUDA_BWD_SCORES_H
#define FJ_CUDA_BWD_SCORES_H

#include "bwd_care.h"

#include "bwd_load.h"

// ---- Masks ---------------------------------------------------------------------------------------------------

template <fj_side side>
FJ_DEVICE void fj_start_streamed(const fj_task &t, const struct fj_head_state &head, int32_t index,
                                 typename fj_resident<side>::streamed &state) {
    if constexpr (side == FJ_RESIDENT_KEYS)
        fj_row_init(&t.mod, &head, fj_q_position(t.a, t.at.b, index), &state);
    else
        fj_col_init(&t.mod, &head, fj_kv_position(t.a, t.at.b, index), &state);
}

// Bit j of bits[r]: resident row r and column j see each other.
template <fj_side side>
FJ_DEVICE void fj_mask_bits(const fj_task &t, [[maybe_unused]] const fj_resident<side> &resident,
                            [[maybe_unused]] const struct fj_head_state &head, int32_t first, bool full,
                            uint32_t (&bits)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) bits[r] = full ? 0xffffffffu : 0;
    if (full) return;
    uint32_t bit = 1; // of column j
#pragma unroll FJ_MASK_UNROLL
    for (int j = 0; j < COLUMNS; j++) {
        const int32_t index = first + t.column(j);
#if FJ_HAS_MASK
        typename fj_resident<side>::streamed streamed;
        fj_start_streamed<side>(t, head, index, streamed);
#endif
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            bool live = index < t.at.streamed && t.row(r) < t.at.count;
#if FJ_HAS_MASK
            if constexpr (side == FJ_RESIDENT_KEYS)
                live = live && fj_mask(&t.mod, &head, &streamed, &resident.state[r]);
            else
                live = live && fj_mask(&t.mod, &head, &resident.state[r], &streamed);
#endif
            bits[r] |= live ? bit : 0;
        }
        bit <<= 1;
    }
#if FJ_BLOCK_MASK
    fj_show_blocks<side == FJ_RESIDENT_KEYS, fj_fragment_columns<COLUMNS>>(
        t.mod, t.at.b, first + t.column(0),
        fj_columns_before<fj_fragment_columns<COLUMNS>>(first + t.column(0), t.at.streamed), bits,
        [&](int r) {
            return fj_place{resident.head, t.last_row(r)};
        });
#pragma unroll
    for (int r = 0; r < ROWS; r++) bits[r] = t.row(r) < t.at.count ? bits[r] : 0;
#endif
}

// ---- Scores --------------------------------------------------------------------------------------------------

// What the rows hold of two neighbouring streamed queries, from column j, which is even: lse, low; or another one of
// the row stats.
struct fj_pair_norm {
    float lse[2], low[2];
    FJ_METHOD explicit fj_pair_norm(const fj_task &t, uint32_t row_stats, int j) {
        const uint32_t at = fj_row_stat_at(static_cast<uint32_t>(t.column(j)), FJ_CUDA_ROW_LSE);
        const fj_b128 all = *fj_shared_at<fj_b128>(row_stats + at);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            lse[i] = fj_f32_from_bits(all.r[i]);
            low[i] = fj_f32_from_bits(all.r[2 + i]);
        }
    }
};
struct fj_pair_stat {
    float of[2];
    FJ_METHOD explicit fj_pair_stat(const fj_task &t, uint32_t row_stats, int which, int j) {
        const uint32_t at = fj_row_stat_at(static_cast<uint32_t>(t.column(j)), static_cast<uint32_t>(which));
        const fj_b64 both = *fj_shared_at<fj_b64>(row_stats + at);
        of[0] = fj_f32_from_bits(both.r[0]);
        of[1] = fj_f32_from_bits(both.r[1]);
    }
};

// lse and low of the pairs of two neighbouring columns, from j, and all resident rows.
template <fj_side side> struct fj_norms;
template <> struct fj_norms<FJ_RESIDENT_KEYS> {
    const fj_pair_norm pair;
    FJ_METHOD explicit fj_norms(const fj_task &t, const fj_resident<FJ_RESIDENT_KEYS> &, uint32_t row_stats,
                                int j)
        : pair(t, row_stats, j) {}
    FJ_METHOD fj_norm at(int, int half) const { return fj_norm{pair.lse[half], pair.low[half], 0}; }
};
template <> struct fj_norms<FJ_RESIDENT_QUERIES> {
    const fj_resident<FJ_RESIDENT_QUERIES> &resident;
    FJ_METHOD explicit fj_norms(const fj_task &, const fj_resident<FJ_RESIDENT_QUERIES> &rows, uint32_t, int)
        : resident(rows) {}
    FJ_METHOD fj_norm at(int r, int) const { return resident.norm[r]; }
};

// dP starts at -delta; with dropout at what makes that (dropout.h).
template <fj_side side>
FJ_DEVICE void fj_start_scores(const fj_task &t, const fj_resident<side> &resident, uint32_t row_stats,
                               fj_scores &s, fj_scores &d) {
#pragma unroll
    for (int j = 0; j < COLUMNS; j += 2) {
        if constexpr (side == FJ_RESIDENT_KEYS) {
            const fj_pair_stat minus_delta(t, row_stats, FJ_CUDA_ROW_MINUS_DELTA, j);
#pragma unroll
            for (int n = 0; n < 2 * ROWS; n++) d[n / 4][j / 2][n % 4] = t.first_grad(minus_delta.of[n % 2]);
        } else {
#pragma unroll
            for (int n = 0; n < 2 * ROWS; n++)
                d[n / 4][j / 2][n % 4] = t.first_grad(resident.minus_delta[n / 2]);
        }
#pragma unroll
        for (int n = 0; n < 2 * ROWS; n++) s[n / 4][j / 2][n % 4] = 0;
    }
}

// Whether one of the warp's queries is large (softmax.h): of streamed ones lanes take them in turn.
template <fj_side side>
FJ_DEVICE bool fj_has_large([[maybe_unused]] const fj_resident<side> &resident,
                            [[maybe_unused]] uint32_t row_stats) {
    if (FJ_HAS_SCORE) return false;
    if constexpr (side == FJ_RESIDENT_QUERIES) {
        return resident.large;
    } else {
        bool large = false;
#pragma unroll
        for (uint32_t n = 0; n < FJ_TILE_N; n += 2 * FJ_WARP) {
            const uint32_t query = (n + 2 * fj_lane()) % FJ_TILE_N;
            const fj_b64 both = *fj_shared_at<fj_b64>(row_stats + fj_row_stat_at(query, FJ_CUDA_ROW_NATURAL));
            large |= (both.r[0] | both.r[1]) != 0;
        }
        return fj_any(large);
    }
}

// Of large rows the products become differences (fj_norm). Resident rows are read again: few have to.
template <fj_side side> FJ_DEVICE void fj_make_near(const fj_task &t, uint32_t row_stats, fj_scores &s) {
    if constexpr (side == FJ_RESIDENT_KEYS) {
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 2) {
            const fj_pair_stat natural(t, row_stats, FJ_CUDA_ROW_NATURAL, j);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const fj_base less = fj_base_of(t.a, t.product_scale, natural.of[i]);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    s[r / 2][j / 2][r % 2 * 2 + i] = less(s[r / 2][j / 2][r % 2 * 2 + i]);
            }
        }
    } else {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const fj_row_stats row = fj_row_stats_of(t.a, t.at.b, t.at.head, t.last_row(r));
            const fj_base less = fj_base_of(t.a, t.product_scale, row[FJ_CUDA_ROW_NATURAL]);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                s[r / 2][j / 2][r % 2 * 2 + j % 2] = less(s[r / 2][j / 2][r % 2 * 2 + j % 2]);
        }
    }
}

// Whether one of this warp's queries sees nothing.
template <fj_side side> FJ_DEVICE bool fj_has_dead(const fj_task &t, uint32_t row_stats) {
    bool dead = false;
#pragma unroll
    for (int j = 0; j < COLUMNS && side == FJ_RESIDENT_KEYS; j += 2) {
        const fj_pair_norm pair(t, row_stats, j);
        dead |= pair.lse[0] == INFINITY || pair.lse[1] == INFINITY;
    }
    return fj_any(dead);
}

// No bits of queries that see nothing.
template <fj_side side>
FJ_DEVICE void fj_hide_dead(const fj_task &t, [[maybe_unused]] const fj_resident<side> &resident,
                            uint32_t row_stats, uint32_t (&bits)[ROWS]) {
    if constexpr (side == FJ_RESIDENT_KEYS) {
        uint32_t hidden = 0;
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 2) {
            const fj_pair_norm pair(t, row_stats, j);
            hidden |= (pair.lse[0] == INFINITY ? 1u : 0u) << j | (pair.lse[1] == INFINITY ? 2u : 0u) << j;
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) bits[r] &= ~hidden;
    } else {
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (resident.norm[r].lse == INFINITY) bits[r] = 0;
    }
}

#if FJ_DROPOUT
// Bit j of keep[r]: dropout keeps the pair of resident row r and column j. head: of queries.
template <fj_side side>
FJ_DEVICE void fj_keep_bits(const fj_task &t, int32_t head, int32_t first, uint32_t (&keep)[ROWS]) {
    const uint32_t plane = fj_dropout_plane(t.a, t.at.b, head);
    const bool affine = !(FJ_POSITION_TABLE && t.a.kv_position);
    if constexpr (side == FJ_RESIDENT_KEYS) {
        fj_keep_rows<COLUMNS>(
            t.dropper, fj_kv_position(t.a, t.at.b, t.at.first + static_cast<int32_t>(t.group_row())), affine,
            keep, [&](int r) { return fj_kv_position(t.a, t.at.b, t.row(r)); },
            [&](int j) {
                return fj_drop_row{plane, fj_q_position(t.a, t.at.b, first + t.column(j))};
            });
    } else {
        const int32_t own = first + static_cast<int32_t>(t.part()) * COLUMN_TILES * 8;
        fj_keep_columns<COLUMNS>(
            t.dropper, fj_kv_position(t.a, t.at.b, own), affine, keep,
            [&](int j) { return fj_kv_position(t.a, t.at.b, first + t.column(j)); },
            [&](int r) {
                return fj_drop_row{plane, fj_q_position(t.a, t.at.b, t.row(r))};
            });
    }
}

// -delta of two neighbouring columns, from j, and all resident rows.
template <fj_side side> struct fj_minus_deltas;
template <> struct fj_minus_deltas<FJ_RESIDENT_KEYS> {
    const fj_pair_stat pair;
    FJ_METHOD explicit fj_minus_deltas(const fj_task &t, const fj_resident<FJ_RESIDENT_KEYS> &,
                                       uint32_t row_stats, int j)
        : pair(t, row_stats, FJ_CUDA_ROW_MINUS_DELTA, j) {}
    FJ_METHOD float at(int, int half) const { return pair.of[half]; }
};
template <> struct fj_minus_deltas<FJ_RESIDENT_QUERIES> {
    const fj_resident<FJ_RESIDENT_QUERIES> &resident;
    FJ_METHOD explicit fj_minus_deltas(const fj_task &, const fj_resident<FJ_RESIDENT_QUERIES> &rows,
                                       uint32_t, int)
        : resident(rows) {}
    FJ_METHOD float at(int r, int) const { return resident.minus_delta[r]; }
};
#endif

// Of FJ_MARK: 1 for what sees each other.
FJ_DEVICE void fj_mark_scores(const uint32_t (&bits)[ROWS], fj_scores &s, fj_scores &d) {
#pragma unroll
    for (int n = 0; n < ROWS * COLUMNS; n++) {
        const int r = n / COLUMNS, j = n % COLUMNS, i = r % 2 * 2 + j % 2;
        s[r / 2][j / 2][i] = d[r / 2][j / 2][i] = bits[r] >> j & 1u ? 1.0f : 0.0f;
    }
}

// S and dP become P and dS, or marks (bwd_care.h). head_index: of queries, as head. With FJ_MOD_CHUNKS > 1 in chunks, as fj_apply_mod of fwd_scores.h.
template <fj_side side, bool masked>
FJ_DEVICE void fj_apply(const fj_task &t, const fj_resident<side> &resident, const struct fj_head_state &head,
                        [[maybe_unused]] int32_t head_index, int32_t first, bool full, uint32_t row_stats,
                        fj_scores &s, fj_scores &d, fj_thread_grads &grads, int how) {
    [[maybe_unused]] uint32_t bits[ROWS];
    if (masked) fj_mask_bits<side>(t, resident, head, first, full, bits);
#if FJ_DROPOUT
    uint32_t keep[ROWS];
    fj_keep_bits<side>(t, head_index, first, keep);
#endif
    if (masked && (FJ_HAS_CAPTURE_GRADS || FUSED || how != FJ_PLAIN))
        fj_hide_dead<side>(t, resident, row_stats, bits);
#pragma unroll 1
    for (int from = 0; from < COLUMNS; from += COLUMNS / MOD_CHUNKS) {
#pragma unroll
        for (int pair = 0; pair < COLUMNS / MOD_CHUNKS; pair += 2) {
            const fj_norms<side> norms(t, resident, row_stats, from + pair);
#if FJ_DROPOUT
            const fj_minus_deltas<side> minus_deltas(t, resident, row_stats, from + pair);
#endif
#pragma unroll
            for (int j = pair; j < pair + 2; j++) {
                typename fj_resident<side>::streamed streamed;
                fj_start_streamed<side>(t, head, first + t.column(from + j), streamed);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    float &x = s[r / 2][j / 2][r % 2 * 2 + j % 2], &y = d[r / 2][j / 2][r % 2 * 2 + j % 2];
                    const bool live = !masked || (bits[r] >> (from + j) & 1u);
                    const fj_norm norm = norms.at(r, j % 2);
#if FJ_DROPOUT
                    const bool kept = keep[r] >> (from + j) & 1u;
                    y = fj_dropped_grad(kept, t.kept_scale, y, minus_deltas.at(r, j % 2));
#endif
                    if constexpr (side == FJ_RESIDENT_KEYS)
                        fj_grad_score(t.product_scale, t.mod, &head, &streamed, &resident.state[r], norm,
                                      live, x, y, grads);
                    else
                        fj_grad_score(t.product_scale, t.mod, &head, &resident.state[r], &streamed, norm,
                                      live, x, y, grads);
#if FJ_DROPOUT
                    x = kept ? x : 0.0f;
#endif
                }
            }
        }
        if (MOD_CHUNKS > 1) {
            fj_rotate_tiles<COLUMN_TILES / MOD_CHUNKS>(s);
            fj_rotate_tiles<COLUMN_TILES / MOD_CHUNKS>(d);
        }
    }
    if (masked && how == FJ_MARK) fj_mark_scores(bits, s, d);
#if FJ_DROPOUT
#pragma unroll
    for (int n = 0; n < ROWS * COLUMNS && masked; n++) {
        const int r = n / COLUMNS, j = n % COLUMNS;
        float &x = s[r / 2][j / 2][r % 2 * 2 + j % 2];
        if (how == FJ_MARK) x = keep[r] >> j & 1u ? x : 0.0f;
    }
#endif
}

#endif
