// What fwd_mma does where values are not finite: a key that a row does not see, or that is dropped, adds exactly nothing to it, whatever its
// value. But 0 times NaN is NaN, in the products of a block, and so is it with what rounds to infinity
// (fj_is_bad_element). So the block votes whether something that it stored is not finite, and then takes care:
//
//      it sweeps again; values that are not finite are 0 in shared memory, and the outputs are stored again
//      outputs become NaN whose row sees such a value: key by key, from global memory
//
//  1. The second sweep is an iteration of the same loop, of the same text: where all is finite, the vote costs
//     something, at the end of a tile, and one comparison for a block. Without a mask every row sees every key, and
//     there is no vote.
//  2. Outputs whose row sees none of these values have the bits that they have with zeros in their place.
//  3. A row that sees keys, but all with a score of -inf, is 0; of a split it takes part, as others may have its sum.
//  4. A row's outputs are changed by one thread, after a barrier.
#ifndef FJ_CUDA_FWD_CARE_H
#define FJ_CUDA_FWD_CARE_H

#include "fwd_out.h"

// The values of a block, at this byte of shared memory. All of them have arrived, and all threads are here.
FJ_DEVICE void fj_clean_values(uint32_t byte) {
    enum : uint32_t { elements = FJ_TILE_N * FJ_VALUE_PAD };
    fj_raw *values = fj_shared_at<fj_raw>(byte);
#pragma unroll 1
    for (uint32_t i = fj_thread_x(); i < elements; i += THREADS)
        if (fj_is_bad_element(values[i])) values[i] = 0;
    fj_block_sync();
}

#if FJ_MASKED

// A vote of the block. The barriers: keys are read no longer, and their place holds the votes; all have voted.
FJ_DEVICE bool fj_any_of_block(bool vote) {
    uint32_t *votes = fj_shared_at<uint32_t>(Q_BYTES), found = 0;
    vote = fj_any(vote);
    fj_block_sync();
    if (fj_lane() == 0) votes[fj_warp()] = vote;
    fj_block_sync();
#pragma unroll
    for (uint32_t warp = 0; warp < FJ_WARPS; warp++) found |= votes[warp];
    return found != 0;
}

// Whether a value of a key is not finite; the warp looks together.
FJ_DEVICE bool fj_is_bad_key(const fj_raw *value) {
    bool bad = false;
#pragma unroll 1
    for (uint32_t column = fj_lane(); column < FJ_VALUE_DIM; column += FJ_WARP)
        bad |= fj_is_bad_element(value[column]);
    return fj_any(bad);
}

// NaN to the outputs of those rows that see a value that is not finite. counts: of each row, whether it takes part.
FJ_DEVICE void fj_spread(const fj_task &t, const uint8_t *counts) {
    const int32_t own = static_cast<int32_t>(fj_thread_x()), row = fj_last_row(t.at, t.at.first + own);
    const int32_t q = fj_row_query(t.at, row), h = fj_row_head(t.at, row);
    const bool takes_part = own < FJ_TILE_M && counts[own];
    const int32_t end = t.at.block_end * FJ_TILE_N < t.a.kv_len ? t.at.block_end * FJ_TILE_N : t.a.kv_len;
    struct fj_head_state head;
    struct fj_row_state state;
    fj_head_init(&t.mod, t.at.b, h, &head);
    fj_row_init(&t.mod, &head, fj_q_position(t.a, t.at.b, q), &state);
#pragma unroll 1
    for (int32_t kv = t.at.block * FJ_TILE_N; kv < end; kv++) {
        const fj_raw *value = fj_key_start<fj_raw>(t.a, t.a.value, t.at.b, t.at.head_kv, kv);
        if (FJ_PAGED && !value) continue;
        if (!fj_is_bad_key(value)) continue;
        struct fj_col_state col;
        fj_col_init(&t.mod, &head, fj_kv_position(t.a, t.at.b, kv), &col);
        const int shown = fj_class_of_pair(t.mod, t.at.b, h, q, kv);
        if (!takes_part || shown == FJ_CLASS_EMPTY) continue;
        if (shown != FJ_CLASS_FULL && !fj_mask(&t.mod, &head, &state, &col)) continue;
#if FJ_DROPOUT
        if (!fj_is_kept(t.dropper, fj_dropout_plane(t.a, t.at.b, h), fj_q_position(t.a, t.at.b, q),
                        fj_kv_position(t.a, t.at.b, kv)))
            continue;
#endif
#pragma unroll 1
        for (int32_t column = 0; column < FJ_VALUE_DIM; column++)
            if (fj_is_bad_element(value[column])) fj_put_nan(t, h, q, column);
    }
}

#endif

// After a sweep, all is stored: whether there is to be another one, with care. work: of the task.
FJ_DEVICE bool fj_end_sweep(const fj_forward_args &args, [[maybe_unused]] const fj_work &work,
                            const fj_rows &rows, const fj_sums &o, [[maybe_unused]] bool care) {
    // Computed again, from a number that the compiler does not know for the same: not kept in registers until here. But
    // few sums leave room, where the sweep is short.
    constexpr bool keeps = !FJ_MASKED && sizeof(fj_raw) == 2 && ROW_TILES * VALUE_TILES <= 16;
    const fj_task end(args, keeps ? work : fj_work_of(args, fj_shuffle_index(fj_block_x(), 0u)));
    [[maybe_unused]] const fj_stored stored = fj_store_rows(end, rows, o);
#if FJ_MASKED
    if (!care) {
        const bool again = fj_any_of_block(stored.bad);
        if (again) fj_block_sync(); // all have counted
        return again;
    }
    uint8_t *counts = fj_shared_at<uint8_t>(0);
    fj_block_sync(); // all have stored
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (fj_lane() % 4 == 0) counts[end.row(r) - end.at.first] = stored.counting >> r & 1u;
    fj_block_sync();
    fj_spread(end, counts);
#endif
    return false;
}

#endif
