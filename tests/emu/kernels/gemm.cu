// C = A * B^T through asynchronous copies, ldmatrix and mma, in tiles of 64 x 64 x 64, two stages deep.
//
// A sample for the emulator: FJ_PLANT_* each remove one thing that makes it right.
#include "prim.h"

#if FJ_HAS_MMA_BF16

struct gemm_args {
    const fj_bf16 *a, *b; // [m, k], [n, k]
    float *c;             // [m, n]
    int32_t m, n, k;      // k: a multiple of 8
};

constexpr uint32_t tile = 64, row_bytes = 128, tile_bytes = tile * row_bytes, stage_bytes = 2 * tile_bytes;
constexpr uint32_t threads = 128;

FJ_DEVICE void copy_tile(uint32_t shared, const fj_bf16 *matrix, int32_t first_row, int32_t rows,
                         int32_t first_k, int32_t k) {
    for (uint32_t i = fj_thread_x(); i < tile * 8; i += threads) {
        const int32_t row = first_row + static_cast<int32_t>(i / 8),
                      column = first_k + static_cast<int32_t>(i % 8 * 8);
        const bool inside = row < rows && column < k;
        const fj_bf16 *from = inside ? matrix + static_cast<int64_t>(row) * k + column : matrix;
        fj_copy_async_16(shared + fj_swizzle<row_bytes>(i * 16), from, inside ? 16 : 0); // line: copy
    }
}

FJ_DEVICE void copy_stage(const gemm_args &args, uint32_t shared, int32_t step) {
    const int32_t first_k = step * static_cast<int32_t>(tile);
    shared += static_cast<uint32_t>(step % 2) * stage_bytes;
    copy_tile(shared, args.a, static_cast<int32_t>(fj_block_y() * tile), args.m, first_k, args.k);
    copy_tile(shared + tile_bytes, args.b, static_cast<int32_t>(fj_block_x() * tile), args.n, first_k,
              args.k);
}

// 16 rows of A times all columns of B.
FJ_DEVICE void multiply_stage(float (&c)[8][4], uint32_t shared) {
    const uint32_t lane = fj_lane();
    const uint32_t a_row = fj_warp() * 16 + lane % 16, a_chunk = lane / 16;
    const uint32_t b_row = lane / 16 * 8 + lane % 8, b_chunk = lane / 8 % 2;
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t a[4];
#ifdef FJ_PLANT_SWIZZLE
        const uint32_t a_byte = a_row * row_bytes + (2 * k + a_chunk) * 16;
#else
        const uint32_t a_byte = fj_swizzle<row_bytes>(a_row * row_bytes + (2 * k + a_chunk) * 16);
#endif
        fj_ldmatrix_x4(a, shared + a_byte); // line: read
        for (uint32_t pair = 0; pair < 4; pair++) {
            uint32_t b[4];
            fj_ldmatrix_x4(
                b, shared + tile_bytes +
                       fj_swizzle<row_bytes>((pair * 16 + b_row) * row_bytes + (2 * k + b_chunk) * 16));
            fj_mma_m16n8k16_bf16(c[2 * pair], a, b[0], b[1]);
            fj_mma_m16n8k16_bf16(c[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

FJ_DEVICE void store(const gemm_args &args, const float (&c)[8][4]) {
    for (uint32_t i = 0; i < 32; i++) {
        const uint32_t row = fj_block_y() * tile + fj_warp() * 16 + fj_mma_c_row(fj_lane(), i % 4);
        const uint32_t column = fj_block_x() * tile + i / 4 * 8 + fj_mma_c_column(fj_lane(), i % 4);
#ifndef FJ_PLANT_GUARD
        if (row >= static_cast<uint32_t>(args.m) || column >= static_cast<uint32_t>(args.n)) continue;
#endif
        args.c[static_cast<int64_t>(row) * args.n + column] = c[i / 4][i % 4]; // line: write
    }
}

FJ_KERNEL(gemm, threads, 1, gemm_args) {
    const uint32_t shared = fj_shared_address(fj_shared());
    const int32_t steps = (args.k + static_cast<int32_t>(tile) - 1) / static_cast<int32_t>(tile);
    float c[8][4] = {};
    copy_stage(args, shared, 0);
    fj_copy_async_commit();
    for (int32_t step = 0; step < steps; step++) {
        if (step + 1 < steps) copy_stage(args, shared, step + 1);
        fj_copy_async_commit();
#ifndef FJ_PLANT_WAIT
        fj_copy_async_wait<1>();
#endif
#ifndef FJ_PLANT_BARRIER
        fj_block_sync();
#endif
        multiply_stage(c, shared + static_cast<uint32_t>(step % 2) * stage_bytes);
#ifndef FJ_PLANT_REUSE
        fj_block_sync();
#endif
    }
    store(args, c);
}

#endif
