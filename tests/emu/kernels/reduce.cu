// The sum of each row of a matrix, by a block per row, in a fixed order.
//
// A sample for the emulator: FJ_PLANT_* each remove one thing that makes it right.
#include "prim.h"

struct reduce_args {
    const float *in; // [rows, columns]
    float *out;      // [rows]
    int32_t columns; // at most 256
    int32_t turn;    // launches before this one
};

FJ_KERNEL(reduce, 256, 1, reduce_args) {
    float *part = fj_shared_at<float>(0);
    const uint32_t column = fj_thread_x();
    const float *row = args.in + static_cast<int64_t>(fj_block_x()) * args.columns;
#ifdef FJ_PLANT_GUARD
    float sum = row[column]; // line: read
#elif defined(FJ_PLANT_ALIGN)
    const fj_b64 *pair = reinterpret_cast<const fj_b64 *>(row + 1);
    float sum = column < static_cast<uint32_t>(args.columns) ? row[column] + (pair->r[0] ? 0 : 1) : 0.0f;
#else
    float sum = column < static_cast<uint32_t>(args.columns) ? row[column] : 0.0f;
#endif
    for (uint32_t step = 16; step > 0; step /= 2) sum = fj_add_rn(sum, fj_shuffle_xor(sum, step));
    if (fj_lane() == 0) part[fj_warp()] = sum; // line: write
#ifndef FJ_PLANT_BARRIER
    fj_block_sync();
#endif
    if (column != 0) return;
    sum = part[0];
#ifdef FJ_PLANT_SHARED
    const uint32_t warps = fj_block_threads() / FJ_WARP + 1;
#else
    const uint32_t warps = fj_block_threads() / FJ_WARP;
#endif
    for (uint32_t warp = 1; warp < warps; warp++) sum = fj_add_rn(sum, part[warp]); // line: sum
#ifdef FJ_PLANT_BLOCKS // in later launches, whose views ThreadSanitizer has from the first
    args.out[args.turn > 0 ? 0 : fj_block_x()] = sum; // line: store
#else
    args.out[fj_block_x()] = sum;
#endif
}
