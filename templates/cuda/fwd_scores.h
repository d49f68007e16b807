// What fwd_mma does with a block of scores: masks, the mod, softmax.
#ifndef FJ_CUDA_FWD_SCORES_H
#define FJ_CUDA_FWD_SCORES_H

#include "fwd_products.h"

// ---- Masks ---------------------------------------------------------------------------------------------------

// Bit j of bits[r]: row r sees key j of this thread.
FJ_DEVICE void fj_mask_bits(const fj_task &t, [[maybe_unused]] const fj_rows &rows, int32_t first,
                            uint32_t (&bits)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) bits[r] = 0;
    uint32_t bit = 1;                   // of column j
    [[maybe_unused]] uint32_t keys = 0; // that are there
#pragma unroll FJ_MASK_UNROLL
    for (int j = 0; j < KEYS; j++) {
        const int32_t kv = t.key(first, j);
        [[maybe_unused]] const int32_t position = fj_kv_position(t.a, t.at.b, kv);
        const bool there = kv < t.a.kv_len && fj_key_is_there(t.a, kv);
#if FJ_HAS_MASK
        struct fj_col_state col;
        if (!FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(0), position, &col);
#endif
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            bool live = there;
#if FJ_HAS_MASK
            if (FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(r), position, &col);
            live = live && fj_mask(&t.mod, rows.head(r), &rows.state[r], &col);
#endif
            bits[r] |= live ? bit : 0;
        }
#if FJ_BLOCK_MASK
        keys |= there ? bit : 0;
#endif
        bit <<= 1;
    }
#if FJ_BLOCK_MASK
    fj_show_blocks<false, fj_fragment_columns<KEYS>>(t.mod, t.at.b, t.key(first, 0), keys, bits, [&](int r) {
        return fj_place{t.head(r), t.query(r)};
    });
#endif
}

// ---- Scores to probabilities -----------------------------------------------------------------------------------

#if FJ_HAS_FAULT
FJ_DEVICE void fj_look_for_fault(const fj_task &t, const fj_rows &rows, int r, int32_t kv,
                                 const struct fj_col_state *col, float x, bool live) {
    if (t.row(r) >= t.at.rows || !fj_fault(&t.mod, rows.head(r), &rows.state[r], col, x, live)) return;
    fj_note_fault(t.a, FJ_CUDA_FAULT_SCORE, t.at.b, t.head(r), fj_q_position(t.a, t.at.b, t.query(r)),
                  fj_kv_position(t.a, t.at.b, kv));
}

// Faults that do not depend on scores: apart from them, in a loop that stays rolled.
FJ_DEVICE void fj_look_for_faults(const fj_task &t, const fj_rows &rows, int32_t first,
                                  const uint32_t (&bits)[ROWS]) {
#pragma unroll 1
    for (int j = 0; j < KEYS; j++) {
        struct fj_col_state col;
        const int32_t kv = t.key(first, j);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (FJ_PACK_HEADS || r == 0)
                fj_col_init(&t.mod, rows.head(r), fj_kv_position(t.a, t.at.b, kv), &col);
            fj_look_for_fault(t, rows, r, kv, &col, 0, bits[r] >> j & 1u);
        }
    }
}
#endif

#define FJ_FAULT_HERE (FJ_HAS_FAULT && FJ_FAULT_READS_SCORE)

// The mod on all scores of a block, and -inf where masked. With FJ_MOD_CHUNKS > 1 in so many chunks, by a loop that
// stays rolled: each works on the first key tiles and moves them behind the others, so that registers have constant
// numbers. Raw products get their sign with the mask: blocks of a scale that is not positive are taken as masked ones.
template <bool masked>
FJ_DEVICE void fj_apply_mod(const fj_task &t, [[maybe_unused]] const fj_rows &rows,
                            [[maybe_unused]] int32_t first, fj_scores &s, const uint32_t (&bits)[ROWS]) {
    [[maybe_unused]] const float scale = static_cast<float>(t.a.scale), sign = fj_sign_of(t.a.scale);
#pragma unroll 1
    for (int from = 0; from < KEYS; from += KEYS / MOD_CHUNKS) {
#pragma unroll
        for (int j = 0; j < KEYS / MOD_CHUNKS; j++) {
#if FJ_HAS_SCORE || FJ_FAULT_HERE
            const int32_t position = fj_kv_position(t.a, t.at.b, t.key(first, from + j));
            struct fj_col_state col;
            if (!FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(0), position, &col);
#endif
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float &x = s[r / 2][j / 2][r % 2 * 2 + j % 2];
                [[maybe_unused]] const bool live = !masked || (bits[r] >> (from + j) & 1u);
#if FJ_HAS_SCORE || FJ_FAULT_HERE
                if (FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(r), position, &col);
                const float before = fj_mul_rn(x, scale);
#endif
#if FJ_HAS_SCORE
                x = fj_score(&t.mod, rows.head(r), &rows.state[r], &col, before);
#endif
#if FJ_FAULT_HERE
                fj_look_for_fault(t, rows, r, t.key(first, from + j), &col, before, live);
#endif
                if (masked && !FJ_HAS_SCORE) x = fj_mul_rn(x, sign);
                if (masked) x = live ? x : -INFINITY;
            }
        }
        if (MOD_CHUNKS > 1) fj_rotate_tiles<KEY_TILES / MOD_CHUNKS>(s);
    }
}

// A row's base M follows its maximum only when that passes its limit, by RESCALE_THRESHOLD ahead of M (invariant 6);
// sums and o move to the new base when a row of the warp has one. Until then threads need not know each other's maxima.
// A row whose base would have a fraction no more goes far (invariant 8). tile_max: of the thread's own scores.
FJ_DEVICE void fj_rescale(const fj_task &t, fj_rows &rows, fj_scores &s, fj_sums &o,
                          const float (&tile_max)[ROWS], float (&base)[ROWS]) {
    const float threshold = RESCALE_THRESHOLD > 0 ? RESCALE_THRESHOLD * fj_rcp_approx(t.scale_log2) : 0.0f;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float row_max = fj_max(tile_max[r], fj_shuffle_xor(tile_max[r], 1)), limit = rows.limit[r],
              factor = 1;
        row_max = fj_max(row_max, fj_shuffle_xor(row_max, 2));
        const bool began = limit > -INFINITY, rises = row_max > limit;
        bool far = rows.is_far(r);
        if (!far && rises && !(fj_abs(row_max * t.scale_log2) < FAR)) {
            far = true;
            rows.far |= 1u << r;
            limit -= threshold; // a score near the base, which may be none of the row's
            factor = fj_ex2_approx(fj_fma_rn(-limit, t.scale_log2, base[r]));
        }
        if (rises) rows.limit[r] = far ? row_max : fj_min(row_max + threshold, FJ_MOST_REAL);
        const float next = far ? 0.0f : t.base(rows.limit[r]);
        const float down =
            far ? fj_base_of(t.a, t.scale_log2, rows.limit[r])(limit) * t.scale_log2 : base[r] - next;
        factor = began && rises ? factor * fj_ex2_approx(down) : 1.0f;
        base[r] = next;
        rows.sum[r] *= factor;
#pragma unroll
        for (int j = 0; j < VALUE_TILES; j++) {
            o[r / 2][j][r % 2 * 2] *= factor;
            o[r / 2][j][r % 2 * 2 + 1] *= factor;
        }
    }
    if (rows.far == 0) return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const fj_base less = fj_base_of(t.a, t.scale_log2, rows.is_far(r) ? rows.limit[r] : 0.0f);
#pragma unroll
        for (int j = 0; j < KEYS; j++)
            s[r / 2][j / 2][r % 2 * 2 + j % 2] = less(s[r / 2][j / 2][r % 2 * 2 + j % 2]);
    }
}

// Scores become probabilities.
FJ_DEVICE void fj_softmax(const fj_task &t, fj_rows &rows, fj_scores &s, fj_sums &o) {
    float tile_max[ROWS], base[ROWS];
    bool ahead = rows.far != 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int i = r / 2, half = r % 2 * 2;
        tile_max[r] = fj_max(s[i][0][half], s[i][0][half + 1]);
#pragma unroll
        for (int j = 1; j < KEY_TILES; j++)
            tile_max[r] = fj_max(tile_max[r], fj_max(s[i][j][half], s[i][j][half + 1]));
        ahead |= tile_max[r] > rows.limit[r];
        base[r] = t.base(rows.limit[r]);
    }
    if (fj_any(ahead)) fj_rescale(t, rows, s, o, tile_max, base);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float sums[KEYS];
#pragma unroll
        for (int j = 0; j < KEYS; j++) {
            float &x = s[r / 2][j / 2][r % 2 * 2 + j % 2];
            x = fj_summed_prob(fj_ex2_approx(fj_fma_rn(x, t.scale_log2, -base[r])));
            sums[j] = x;
        }
        // By pairs: of tied keys exact. Their rounding would be one for all rows that are alike.
#pragma unroll
        for (int width = 1; width < KEYS; width *= 2)
#pragma unroll
            for (int j = 0; j + width < KEYS; j += 2 * width) sums[j] += sums[j + width];
        rows.sum[r] += sums[0];
    }
}

#if FJ_DROPOUT
// What is dropped becomes 0; sums have taken it.
FJ_DEVICE void fj_drop(const fj_task &t, int32_t first, fj_scores &p) {
    uint32_t keep[ROWS];
    fj_keep_columns<KEYS>(
        t.dropper, fj_kv_position(t.a, t.at.b, first), !(FJ_POSITION_TABLE && t.a.kv_position), keep,
        [&](int j) { return fj_kv_position(t.a, t.at.b, t.key(first, j)); },
        [&](int r) {
            return fj_drop_row{fj_dropout_plane(t.a, t.at.b, t.head(r)),
                               fj_q_position(t.a, t.at.b, t.query(r))};
        });
#pragma unroll
    for (int n = 0; n < ROWS * KEYS; n++) {
        const int r = n / KEYS, j = n % KEYS;
        float &x = p[r / 2][j / 2][r % 2 * 2 + j % 2];
        x = keep[r] >> j & 1u ? x : 0.0f;
    }
}
#endif

#endif
