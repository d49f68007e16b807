// The pipeline of asynchronous copies: tiles are sent to shared memory while others are worked on. Shared by fwd_mma
// and bwd_mma.
//
//      stages:   | tile | tile |      tile n lies in stage n % stages; group n of the copies is tile n, and a
//                   0      1          group is committed even when it is empty
//
//  1. Step n sends for tile n + stages - 1 and works on tile n; steps before 0 only send. Step 0 begins when what was
//     sent before the pipeline, which belongs to the first group, is there as well. With one stage a step sends for its
//     own tile, and waits.
//  2. At the barrier of step n all warps are past step n - 1: its stage may be overwritten. Every thread has waited for
//     its own part of tile n before that barrier: so all of tile n is there after it.
//  3. Copies may be under way when the pipeline ends: those of a block without tiles.
#ifndef FJ_CUDA_PIPELINE_H
#define FJ_CUDA_PIPELINE_H

#include "grid.h"

// next(): the next tile to stream; send(tile, stage): its copies; work(tile, stage).
template <int stages, class Next, class Send, class Work>
FJ_DEVICE void fj_pipeline(Next next, Send send, Work work) {
    fj_streamed_tile ahead[stages]; // ahead[i]: what step now + i works on
    uint32_t stage = 0, filled = 0;
#pragma unroll
    for (int i = 0; i < stages; i++) ahead[i] = fj_streamed_tile{0, FJ_TILE_END};
#pragma unroll 1
    for (int32_t step = 1 - stages;; step++) {
        if (step >= 0) {
            fj_copy_async_wait<(stages > 1 ? stages - 2 : 0)>();
            fj_block_sync();
        }
        ahead[stages - 1] = next();
        if (!ahead[stages - 1].is_end()) send(ahead[stages - 1], filled);
        fj_copy_async_commit();
        filled = filled + 1 == stages ? 0 : filled + 1;
        if (step >= 0) {
            if (ahead[0].is_end()) break;
            if (stages == 1) {
                fj_copy_async_wait<0>();
                fj_block_sync();
            }
            work(ahead[0], stage);
            stage = stage + 1 == stages ? 0 : stage + 1;
        }
#pragma unroll
        for (int i = 1; i < stages; i++) ahead[i - 1] = ahead[i];
    }
}

#endif
