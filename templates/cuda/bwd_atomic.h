// dQ by atomics, for bwd_mma.cu with FJ_DETERMINISTIC 0: no second kernel recomputes the scores.
//
//      dS [resident keys x streamed queries], in shared memory          dQ sums: floats, in tiles
//        A, read transposed  x  B: resident keys    --atomics-->      zeroed by fj_bwd_delta, rounded by fj_bwd_q
#ifndef FJ_CUDA_BWD_ATOMIC_H
#define FJ_CUDA_BWD_ATOMIC_H

#include "bwd_clean.h"

#include "bwd_load.h"

#include "bwd_products.h"

// The sums of 16 queries and 8 columns, as the threads of a warp hold them: what one instruction adds to is without
// gaps.
//
//      sm_90      | lane 0: 0 1 2 3 | lane 1: 0 1 2 3 | ...     four at a time
//      before     | 0: lane 0 .. 31 | 1: lane 0 .. 31 | 2: ...
FJ_DEVICE float *fj_query_sums(const fj_task &t, int32_t head, int32_t q, uint32_t column) {
    const int64_t row =
        FJ_BWD_SUM_ROWS(fj_workspace_head(t.a, t.at.b, head), t.a.workspace_rows) + q / 16 * 16;
    return t.a.dquery_sums + row * FJ_HEAD_PAD + column / 8 * 128;
}
// Element i of a lane's C.
FJ_DEVICE uint32_t fj_sum_at(uint32_t lane, uint32_t i) {
    return FJ_HAS_ATOMIC_V4 ? lane * 4 + i : i * FJ_WARP + lane;
}
FJ_DEVICE void fj_add_sums(float *sums, const float (&c)[4]) {
#if FJ_HAS_ATOMIC_V4
    fj_atomic_add_v4(sums + fj_sum_at(fj_lane(), 0), c);
#else
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) fj_atomic_add(sums + fj_sum_at(fj_lane(), i), c[i]);
#endif
}

// A: dS, transposed, of 16 queries and a step of resident keys; B: these keys.
#if FJ_IN_DTYPE == FJ_DTYPE_F32
#define DEPTH 8
typedef uint32_t fj_add_a[4];
// Keys as bwd_tf32.h permutes them; dS lies permuted along its queries.
FJ_DEVICE void fj_load_a(fj_add_a &a, uint32_t ds, uint32_t step, uint32_t tile) {
#pragma unroll
    for (uint32_t n = 0; n < 4; n++) {
        const uint32_t key = step * 8 + fj_lane() % 4 * 2 + n / 2, query = fj_lane() / 4;
        const uint32_t depth = query % 2 * 4 + query / 2;
        a[n] = fj_bits_from_f32(fj_tile_element<FJ_TILE_N>(ds, key, tile * 16 + n % 2 * 8 + depth));
    }
}
FJ_DEVICE void fj_multiply_a(float (&c)[2][4], const fj_add_a &bits, uint32_t keys, uint32_t step,
                             uint32_t pair) {
    fj_split<4> a, b;
#pragma unroll
    for (uint32_t n = 0; n < 4; n++) {
        a.set_bits(n, bits[n]);
        b.set(n, fj_tile_element<FJ_HEAD_PAD>(keys, step * 8 + fj_lane() % 4 * 2 + n % 2,
                                              (pair * 2 + n / 2) * 8 + fj_lane() / 4));
    }
    fj_mma_f32(c[0], a, b, 0);
    fj_mma_f32(c[1], a, b, 2);
}
#else
#define DEPTH 16
typedef uint32_t fj_add_a[4];
// Read transposed, with the addresses of a B.
FJ_DEVICE void fj_load_a(fj_add_a &a, uint32_t ds, uint32_t step, uint32_t tile) {
    const fj_read_b<FJ_TILE_N> place(ds);
    fj_ldmatrix_x4_t(a, place.at(step * 16, tile));
}
FJ_DEVICE void fj_multiply_a(float (&c)[2][4], const fj_add_a &a, uint32_t keys, uint32_t step,
                             uint32_t pair) {
    const fj_read_bt<FJ_HEAD_PAD> read_keys(keys);
    uint32_t b[4];
    read_keys.load(b, pair, step);
    FJ_MMA(c[0], a, b[0], b[1]);
    FJ_MMA(c[1], a, b[2], b[3]);
}
#endif

// dQ of the streamed queries += dS of all resident keys, transposed, times these. A warp takes 16 queries and a part of
// the columns.
FJ_DEVICE void fj_add_queries(const fj_task &t, int32_t head, int32_t first, const fj_caring &care) {
    constexpr uint32_t tiles = FJ_TILE_N / 16, parts = FJ_WARPS > tiles ? FJ_WARPS / tiles : 1;
    constexpr uint32_t pairs = FJ_HEAD_PAD / 16, each = (pairs + parts - 1) / parts,
                       steps = FJ_TILE_M / DEPTH;
    constexpr uint32_t chains =
        each % 2 == 0 && pairs % 2 == 0 ? 2 : 1; // products that do not wait for each other
    if (!t.a.dquery_sums) return;
    const bool marks = care.how == FJ_MARK;
    if (care.how != FJ_PLAIN) fj_clean(0, RESIDENT_QK_BYTES, marks);
    const uint32_t shared = fj_shared_address(fj_shared()), ds = shared + P_TILE + P_BYTES;
#pragma unroll 1
    for (uint32_t unit = fj_warp(); unit < tiles * parts; unit += FJ_WARPS) {
        const uint32_t tile = unit % tiles, from = unit / tiles * each,
                       end = from + each < pairs ? from + each : pairs;
        const int32_t q = first + static_cast<int32_t>(tile * 16);
        if (q >= t.at.streamed) continue; // of queries that are not there, of the last tile, the sums are 0
        fj_add_a a[steps];
#pragma unroll
        for (uint32_t step = 0; step < steps; step++) fj_load_a(a[step], ds, step, tile);
#pragma unroll 1
        for (uint32_t pair = from; pair < end; pair += chains) {
            float c[chains][2][4] = {};
#pragma unroll
            for (uint32_t step = 0; step < steps; step++)
#pragma unroll
                for (uint32_t n = 0; n < chains; n++) fj_multiply_a(c[n], a[step], shared, step, pair + n);
            float *sums = fj_query_sums(t, head, q, pair * 16);
#pragma unroll
            for (uint32_t n = 0; n < 2 * chains; n++) {
#pragma unroll
                for (uint32_t i = 0; i < 4; i++)
                    if (marks && c[n / 2][n % 2][i] != 0) c[n / 2][n % 2][i] = NAN;
                fj_add_sums(sums + n * 128, c[n / 2][n % 2]);
            }
        }
    }
    if (care.how == FJ_PLAIN) return; // keys as they are, for the next scores
    fj_block_sync();
    fj_load_resident<FJ_RESIDENT_KEYS>(t);
    fj_copy_async_commit();
    fj_copy_async_wait<0>();
    fj_block_sync();
}

// Sums of the tile's queries to the result.
FJ_DEVICE void fj_round_queries(const fj_task &t) {
    const fj_cuda_tensor &to = t.a.dquery;
    if (!to.data) return;
    const float scale = static_cast<float>(t.a.scale);
    for (int32_t i = static_cast<int32_t>(fj_thread_x()); i < FJ_TILE_M * FJ_HEAD_DIM; i += THREADS) {
        const int32_t q = t.at.first + i / FJ_HEAD_DIM, column = i % FJ_HEAD_DIM;
        if (q >= t.at.count) break;
        fj_element *row = static_cast<fj_element *>(to.data) + fj_offset(to, t.at.b, t.at.head, q);
        const uint32_t x = static_cast<uint32_t>(column), y = static_cast<uint32_t>(q);
        const uint32_t place = fj_sum_at(y % 8 * 4 + x % 8 / 2, y / 8 % 2 * 2 + x % 2);
        row[column] = fj_narrow(fj_query_sums(t, t.at.head, q, x)[place] * scale);
    }
}

#endif
