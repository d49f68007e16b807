// What the backward kernels do about NaN and infinities at places that do not see each other: there P and dS are 0, and
// a product with 0 would be NaN.
//
//      sweep 0 (FJ_PLAIN)  as if there were none. All sums of the block finite: done
//      sweep 1 (FJ_CLEAN)  S_qk and S_vo of a tile, once S and dP are made of them, get 0 for what is not finite: all
//      that it
//                         does not come into is as if 0 had been there
//      sweep 2 (FJ_MARK)   S_qk and S_vo get 1 for what is not finite, else 0; P and dS 1 for what sees each other. So
//      sums count
//                         what is not finite and seen: a result whose sum is not 0 becomes NaN
//
//  1. So it costs nothing where everything is finite, except for a vote at a block's end. Its resident rows need no
//     care: what they hold comes into their own results alone.
//  2. A row of queries that sees nothing sees nothing in sweeps 1 and 2 either, though its scores may be unmasked and
//     -inf, whatever dP is. Where results leave a sweep before its end, in atomic sums and in gradients of captures,
//     sweep 0 looks as well.
//  3. Gradients of captures, elementwise, are made in sweep 0.
#ifndef FJ_CUDA_BWD_CARE_H
#define FJ_CUDA_BWD_CARE_H

#include "hooks.h"

enum fj_care { FJ_PLAIN, FJ_CLEAN, FJ_MARK };

FJ_DEVICE bool fj_is_finite(fj_real x) { return x - x == 0; }

// Any thread's vote, behind a barrier. words: one of shared memory for each warp, `step` apart, free before and, with a
// barrier more, after it.
template <int warps, int step> FJ_DEVICE bool fj_block_any(uint32_t *words, bool vote) {
    const bool any = fj_any(vote);
    if (fj_lane() == 0) words[fj_warp() * step] = any;
    fj_block_sync();
    bool found = false;
#pragma unroll
    for (int i = 0; i < warps; i++) found |= words[i * step] != 0;
    return found;
}

#endif
