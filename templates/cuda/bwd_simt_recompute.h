// fj_bwd_recompute of bwd_simt.cu: what forward's results do not tell exactly enough, lse (FJ_RECOMPUTES_LSE) or delta
// (FJ_RECOMPUTES_DELTA).
#ifndef FJ_CUDA_BWD_SIMT_RECOMPUTE_H
#define FJ_CUDA_BWD_SIMT_RECOMPUTE_H

#include "bwd_simt_tile.h"

#if FJ_RECOMPUTES_LSE
// The maximum of scores after a column, and the sum of exponentials of their difference from it.
struct fj_mass {
    fj_real max, sum;
    FJ_METHOD fj_real base() const { return max == -fj_real(INFINITY) ? fj_real(0) : max; }
    // natural_scale: makes natural scores.
    FJ_METHOD void add(fj_real x, fj_real weight, fj_real natural_scale, fj_real scale_log2) {
        const fj_real before = max;
        max = fj_max_real(before, x);
        const fj_real natural = fj_mul_rn(base(), natural_scale);
        const fj_base less =
            fj_is_large(natural) ? fj_large_base(natural, natural_scale, scale_log2) : fj_plain_base(base());
        const fj_real down = sum == 0 ? fj_real(0) : sum * fj_prob_exp2(less(before) * scale_log2);
        sum = down + weight * fj_prob_exp2(less(x) * scale_log2);
    }
};

// lse in two parts, natural_scale max + log(sum), as P takes it; with the sink of the head.
FJ_DEVICE void fj_put_lse(const fj_simt &t, const fj_row_stats &row_stats, const fj_mass &mass,
                          fj_real natural_scale) {
    const fj_cuda_backward &a = t.a;
#if FJ_HAS_SINK
    const fj_parts base = fj_exact_product(mass.base(), fj_parts{natural_scale, fj_real(0)});
    const fj_row_end end =
        fj_end_row<true>(t.mod, t.at.b, t.at.head,
                         fj_parts{base.high, fj_is_large(base.high) ? fj_real(0) : base.low}, mass.sum);
    fj_put_norm(row_stats, fj_norm_of(a, end.lse, end.lse_low));
    if (end.dead) row_stats[FJ_CUDA_ROW_MINUS_DELTA] = 0;
#else
    const fj_real high = fj_mul_rn(natural_scale, mass.base()), log = fj_log(mass.sum), all = high + log,
                  rest = all - high;
    const fj_real product = fj_is_large(high) ? fj_real(0) : fj_fma_rn(natural_scale, mass.base(), -high);
    const fj_real low = (high - (all - rest)) + (log - rest) + product;
    fj_put_norm(row_stats, fj_norm_of(a, mass.sum == 0 ? -fj_real(INFINITY) : all, low));
    if (mass.sum == 0) row_stats[FJ_CUDA_ROW_MINUS_DELTA] = 0;
#endif
}

// lse of scores as these kernels make them (FJ_RECOMPUTES_LSE).
FJ_KERNEL(fj_bwd_recompute, THREADS, 1, fj_backward_args) {
    const fj_work work = fj_work_of<FJ_RESIDENT_QUERIES>(args);
    if (work.is_idle()) return;
    const fj_simt t = fj_simt_of(args, work);
    const fj_cuda_backward &a = t.a;
    // Without a mod scores are products, signed so that their natural_scale is not negative.
    const fj_real scale = static_cast<fj_real>(a.scale),
                  natural_scale = FJ_HAS_SCORE ? fj_real(1) : fj_abs(scale),
                  scale_log2 = fj_abs(FJ_HAS_SCORE ? FJ_LOG2_E : t.product_scale);
    fj_resident<FJ_RESIDENT_QUERIES> resident;
    struct fj_head_state head;
    fj_mass mass[RESIDENT];
    fj_head_init(&t.mod, t.at.b, t.at.head, &head);
    fj_start_states(t, head, resident); // what the rows hold is written here: no thread may read it
    for (int i = 0; i < RESIDENT; i++) {
        mass[i] = fj_mass{-fj_real(INFINITY), 0};
        resident.norm[i] = fj_norm{0, 0, 0}; // every row sees what its mask lets it see
    }
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    for (;;) {
        const fj_streamed_tile tile = fj_tile_next<FJ_RESIDENT_QUERIES>(a, t.mod, t.at, tiles);
        if (tile.is_end()) break;
        fj_scores s;
        fj_seen seen[RESIDENT];
        fj_find_seen<FJ_RESIDENT_QUERIES>(t, resident, tile.first(), tile.is_full(), seen);
        fj_multiply_rows(t, s, a.query, t.at.head, a.key, t.at.head_kv, tile.first(), FJ_HEAD_DIM);
#pragma unroll
        for (int j = 0; j < STREAMED; j++) {
            const int32_t kv = tile.first() + t.tx + j * TX;
            struct fj_col_state col;
            fj_col_init(&t.mod, &head, fj_kv_position(a, t.at.b, kv), &col);
#pragma unroll
            for (int i = 0; i < RESIDENT; i++) {
                const bool there = kv < t.at.streamed && t.row(i) < t.at.count;
                if (!fj_is_live(t, &head, &resident.state[i], &col, resident.norm[i], tile.is_full(), there,
                                seen[i], j))
                    continue;
                fj_real x = scale < 0 ? -s[i][j] : s[i][j];
#if FJ_HAS_SCORE
                x = fj_score(&t.mod, &head, &resident.state[i], &col, s[i][j] * t.product_scale);
#endif
                mass[i].add(x, 1, natural_scale, scale_log2);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < RESIDENT; i++) {
        for (uint32_t lane = 1; lane < TX; lane *= 2) {
            const fj_real max = fj_neighbour(mass[i].max, lane), sum = fj_neighbour(mass[i].sum, lane);
            if (sum != 0) mass[i].add(max, sum, natural_scale, scale_log2);
        }
        if (t.tx == 0 && t.row(i) < t.at.count)
            fj_put_lse(t, fj_row_stats_of(a, t.at.b, t.at.head, t.row(i)), mass[i], natural_scale);
    }
}
#endif

#if FJ_RECOMPUTES_DELTA
// As bwd_recompute.h, for bwd_simt: the TX lanes of a row add by shuffles.
FJ_KERNEL(fj_bwd_recompute, THREADS, 1, fj_backward_args) {
    const fj_work work = fj_work_of<FJ_RESIDENT_QUERIES>(args);
    if (work.is_idle()) return;
    const fj_simt t = fj_simt_of(args, work);
    const fj_cuda_backward &a = t.a;
    fj_resident<FJ_RESIDENT_QUERIES> resident;
    struct fj_head_state head;
    fj_real sums[RESIDENT];
    fj_head_init(&t.mod, t.at.b, t.at.head, &head);
    fj_start_resident(t, head, resident);
    for (int i = 0; i < RESIDENT; i++) sums[i] = 0;
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    for (;;) {
        const fj_streamed_tile tile = fj_tile_next<FJ_RESIDENT_QUERIES>(a, t.mod, t.at, tiles);
        if (tile.is_end()) break;
        fj_scores s, d;
        fj_seen seen[RESIDENT];
        fj_find_seen<FJ_RESIDENT_QUERIES>(t, resident, tile.first(), tile.is_full(), seen);
        fj_multiply_rows(t, s, a.query, t.at.head, a.key, t.at.head_kv, tile.first(), FJ_HEAD_DIM);
        fj_multiply_rows(t, d, a.dout, t.at.head, a.value, t.at.head_kv, tile.first(), FJ_VALUE_DIM);
        fj_make_near(t, resident, s);
#pragma unroll
        for (int j = 0; j < STREAMED; j++) {
            const int32_t kv = tile.first() + t.tx + j * TX;
            struct fj_col_state col;
            fj_col_init(&t.mod, &head, fj_kv_position(a, t.at.b, kv), &col);
#pragma unroll
            for (int i = 0; i < RESIDENT; i++) {
                const bool there = kv < t.at.streamed && t.row(i) < t.at.count;
                const bool live = fj_is_live(t, &head, &resident.state[i], &col, resident.norm[i],
                                             tile.is_full(), there, seen[i], j);
                const fj_real p = fj_prob_of(t.product_scale, t.mod, &head, &resident.state[i], &col,
                                             resident.norm[i], s[i][j]);
                const fj_real y = fj_grad_of(t, fj_keeps(t, t.at.head, t.row(i), kv), d[i][j], fj_real(0));
                sums[i] += live ? p * y : fj_real(0);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < RESIDENT; i++) {
        for (uint32_t lane = 1; lane < TX; lane *= 2) sums[i] += fj_shuffle_xor(sums[i], lane);
        if (t.tx != 0 || t.row(i) >= t.at.count) continue;
        const fj_row_stats row_stats = fj_row_stats_of(a, t.at.b, t.at.head, t.row(i));
        if (resident.norm[i].lse != fj_real(INFINITY)) row_stats[FJ_CUDA_ROW_MINUS_DELTA] -= sums[i];
    }
}
#endif

#endif
