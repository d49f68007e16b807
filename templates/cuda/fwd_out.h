// What fwd_mma leaves behind: lse, maximum, output. Included by it, after its rows.
#ifndef FJ_CUDA_FWD_OUT_H
#define FJ_CUDA_FWD_OUT_H

// lse and maximum of a row; what it ends as.
FJ_DEVICE fj_row_end fj_finish_row(const fj_task &t, const fj_rows &rows, int r) {
    float sum = rows.sum[r];
    sum += fj_shuffle_xor(sum, 1);
    sum += fj_shuffle_xor(sum, 2);
    // What the row's base is in natural logarithms; far: a score, else in units of log2.
    const fj_parts unit = fj_natural_unit(t.a, t.unit), scale = {fj_natural_scale(t.a), 0.0f};
    const fj_parts base =
        rows.far ? fj_exact_product(rows.limit[r], scale) : fj_exact_product(rows.base(t, r), unit);
    const fj_row_end end = fj_end_row<!FJ_PARTIAL>(t.mod, *rows.head(r), base, sum);
    if (t.row(r) < t.at.rows && fj_lane() % 4 == 0) {
        const int32_t b = t.at.b, h = t.head(r), q = t.query(r);
        const int64_t split = FJ_PARTIAL ? static_cast<int64_t>(fj_block_y()) * t.a.split_lse : 0;
        fj_store_lse(t.a.lse, t.a.lse_low, end, b, h, q, split);
        // Without SLACK, limits are maxima.
        if (FJ_WANT_MAX && t.a.max.data)
            static_cast<float *>(t.a.max.data)[fj_offset(t.a.max, b, h, q) + split] =
                sum != sum ? sum
                : sum == 0 ? -INFINITY
                           : rows.limit[r] * scale.high;
    }
    return end;
}

FJ_DEVICE float fj_result(const fj_task &t, const fj_rows &rows, float x, const fj_row_end &end, int r,
                          int32_t column) {
    x = end.dead ? 0.0f : x * end.factor;
#if FJ_HAS_OUT && !FJ_PARTIAL
    x = fj_out(&t.mod, rows.head(r), &rows.state[r], column, x);
#else
    (void)t, (void)rows, (void)r, (void)column;
#endif
    return x;
}

#if FJ_PARTIAL
FJ_DEVICE void fj_store_rows(const fj_task &t, const fj_rows &rows, const fj_sums &o) {
    const int64_t split = static_cast<int64_t>(fj_block_y()) * t.a.split_out;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const fj_row_end end = fj_finish_row(t, rows, r);
        if (t.row(r) >= t.at.rows) continue;
        float *to =
            static_cast<float *>(t.a.out.data) + fj_offset(t.a.out, t.at.b, t.head(r), t.query(r)) + split;
#pragma unroll
        for (int n = 0; n < 2 * VALUE_TILES; n++) {
            const int32_t column = n / 2 * 8 + static_cast<int32_t>(fj_lane() % 4) * 2 + n % 2;
            const float x = fj_result(t, rows, o[r / 2][n / 2][r % 2 * 2 + n % 2], end, r, column);
            if (column < FJ_VALUE_DIM) to[column] = x;
        }
    }
}
#else
// Through shared memory: a warp writes its rows as a tile and reads them by chunks. The barrier: all warps are
// done with blocks, and the queries of a tile without blocks have arrived.
FJ_DEVICE void fj_store_rows(const fj_task &t, const fj_rows &rows, const fj_sums &o) {
    typedef fj_tile<FJ_VALUE_PAD> tile;
    const uint32_t own = fj_warp() * 16 * ROW_TILES;
    fj_block_sync();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const fj_row_end end = fj_finish_row(t, rows, r);
        const uint32_t row = own + r / 2 * 16 + r % 2 * 8 + fj_lane() / 4;
#pragma unroll
        for (int j = 0; j < VALUE_TILES; j++) {
            const int32_t column = j * 8 + static_cast<int32_t>(fj_lane() % 4) * 2;
            const float x = fj_result(t, rows, o[r / 2][j][r % 2 * 2], end, r, column);
            const float y = fj_result(t, rows, o[r / 2][j][r % 2 * 2 + 1], end, r, column + 1);
            fj_stage_pair(row, j, fj_lane() % 4, x, y);
        }
    }
    fj_warp_sync();
#pragma unroll 1
    for (uint32_t i = fj_lane(); i < 16 * ROW_TILES * tile::chunks; i += FJ_WARP) {
        const uint32_t row = own + i / tile::chunks, chunk = i % tile::chunks;
        const int32_t in_column = t.at.first + static_cast<int32_t>(row);
        if (in_column >= t.at.rows) break;
        fj_raw *to = static_cast<fj_raw *>(t.a.out.data) +
                     fj_offset(t.a.out, t.at.b, fj_row_head(t.at, in_column), fj_row_query(t.at, in_column));
        fj_put_chunk(to + chunk * FJ_CHUNK, *fj_shared_at<fj_b128>(tile::at(row, chunk)),
                     FJ_VALUE_DIM - static_cast<int32_t>(chunk) * FJ_CHUNK, t.a.vector & FJ_CUDA_VECTOR_OUT);
    }
}
#endif

#endif
