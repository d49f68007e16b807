// fj_bwd_measure of bwd_mma.cu: delta, exact, where gradients of captures need it (FJ_MEASURES).
//
//      own queries:   sums of P dP over all keys   -->   delta = dlse - sum, in the rows of the workspace
//
//  1. P is that of fj_bwd_q, from the same products: what is summed is what delta has to cancel.
//  2. One stage: a step sends for its tile and waits. The four lanes of a row add by shuffles, warps that share rows
//     through shared memory, in one order.
#ifndef FJ_CUDA_BWD_MEASURE_H
#define FJ_CUDA_BWD_MEASURE_H

FJ_DEVICE void fj_measure_step(const fj_task &t, const fj_own<FJ_OWN_QUERIES> &own,
                               const struct fj_head_state &head, const fj_step &step, float (&sums)[ROWS]) {
    const uint32_t shared = fj_shared_address(fj_shared()), walked = shared + OWN_BYTES;
    const int32_t first = step.first();
    fj_scores s, d;
    uint32_t bits[ROWS];
    fj_start_scores<FJ_OWN_QUERIES>(t, own, FACTS, s, d);
    fj_multiply_rows<FJ_OWN_QUERIES, FJ_HEAD_PAD>(t, s, shared, walked);
    fj_multiply_rows<FJ_OWN_QUERIES, FJ_VALUE_PAD>(t, d, shared + X_BYTES, walked + Y_BYTES);
    if (fj_has_large<FJ_OWN_QUERIES>(own, FACTS)) fj_make_near<FJ_OWN_QUERIES>(t, FACTS, s);
    fj_mask_bits<FJ_OWN_QUERIES>(t, own, head, first, step.is_full(), bits);
#pragma unroll 1
    for (int from = 0; from < COLUMNS; from += COLUMNS / MOD_CHUNKS) {
#pragma unroll
        for (int j = 0; j < COLUMNS / MOD_CHUNKS; j++) {
            struct fj_col_state col;
            fj_start_walked<FJ_OWN_QUERIES>(t, head, first + t.column(from + j), col);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float x = s[r / 2][j / 2][r % 2 * 2 + j % 2], y = d[r / 2][j / 2][r % 2 * 2 + j % 2];
                const float p =
                    fj_prob_of(t.product_scale, t.mod, &head, &own.state[r], &col, own.norm[r], x);
                sums[r] += bits[r] >> (from + j) & 1u ? p * y : 0.0f;
            }
        }
        if (MOD_CHUNKS > 1) {
            fj_rotate_tiles<COLUMN_TILES / MOD_CHUNKS>(s);
            fj_rotate_tiles<COLUMN_TILES / MOD_CHUNKS>(d);
        }
    }
}

// Row r's sum over all its lanes and warps; right in the first lane of the row's first warp.
FJ_DEVICE void fj_join_sums(const fj_task &t, float (&sums)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] += fj_shuffle_xor(sums[r], 1u);
        sums[r] += fj_shuffle_xor(sums[r], 2u);
    }
#if SPLIT > 1
    float *parts = fj_shared_at<float>(WEIGHTS); // SPLIT for each own row
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (fj_lane() % 4 == 0)
            parts[static_cast<uint32_t>(t.row(r) - t.at.first) * SPLIT + t.part()] = sums[r];
    fj_block_sync();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] = 0;
#pragma unroll
        for (uint32_t n = 0; n < SPLIT; n++)
            sums[r] += parts[static_cast<uint32_t>(t.row(r) - t.at.first) * SPLIT + n];
    }
#endif
}

FJ_KERNEL(fj_bwd_measure, THREADS, 1, fj_backward_args) {
    const fj_task t(args, fj_place_of<FJ_OWN_QUERIES>(args.call));
    fj_walked<FJ_OWN_QUERIES> walked(t);
    fj_walk walk = fj_walk_start(t.at);
    fj_own<FJ_OWN_QUERIES> own;
    struct fj_head_state head;
    float sums[ROWS];
    fj_load_own<FJ_OWN_QUERIES>(t);
    fj_head_init(&t.mod, t.at.b, t.at.head, &head);
    fj_start_own<FJ_OWN_QUERIES>(t, head, own);
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = own.delta[r] = 0;
#pragma unroll 1
    for (;;) {
        const fj_step step = fj_walk_take<FJ_OWN_QUERIES>(t.a, t.mod, t.at, walk);
        if (step.is_end()) break;
        walked.send(t, step, 0);
        fj_copy_async_commit();
        fj_copy_async_wait<0>();
        fj_block_sync();
        fj_measure_step(t, own, head, step, sums);
        fj_block_sync();
    }
    fj_copy_async_wait<0>(); // own rows of a block without steps
    fj_join_sums(t, sums);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (fj_lane() % 4 != 0 || t.part() != 0 || t.row(r) >= t.at.count) continue;
        const fj_facts facts = fj_row_facts(t.a, t.at.b, t.at.head, t.row(r));
        if (own.norm[r].base != INFINITY) facts[FJ_CUDA_ROW_DELTA] -= sums[r];
    }
}

#endif
