/* The processor's peak for products of this data type: the yardstick of every share of the peak.
 *
 * One item per worker, each the same known number of operations on registers alone: tile_step, the
 * one instruction of every product (fused multiply-add; dot products of BF16 pairs), on enough
 * independent sums to hide its latency. fj_cpu_peak_flops operations per item, multiplications and
 * additions counted apart, so peak = items * fj_cpu_peak_flops / time. One item takes about 10 ms;
 * the best of several is the peak.
 */
#include "abi.h"

#include "prim.h"

#include "tile.h"

#define FJ_SUMS (FJ_TILE_ROWS(1) - 2) /* leaves registers for the two factors */
#define FJ_STEPS (1 << 22)

extern const double fj_cpu_peak_flops;
__attribute__((visibility("default"))) const double fj_cpu_peak_flops =
    2.0 * (1 + FJ_PAIRS) * FJ_LANES * FJ_SUMS * FJ_STEPS;

static size_t peak_workspace(const struct fj_cpu_args *a) {
    return sizeof(fj_f) * (size_t)(a->workers > 0 ? a->workers : 1);
}

static int64_t peak_items(const struct fj_cpu_args *a, int phase) { return phase ? -1 : a->workers; }

static void peak_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {
    (void)phase, (void)item;
    fj_real *to = (fj_real *)a->workspace + (int64_t)worker * FJ_LANES;
    fj_f sum[FJ_SUMS], all = tile_splat(0);
    /* Bit patterns of ordinary small numbers in every type, hidden from the optimiser. */
    volatile int seed = 0x3c003c00;
    fj_opd one = (fj_opd)seed;
    fj_ov x = tile_operand(&one), y = x;
    FJ_UNROLL for (int i = 0; i < FJ_SUMS; i++) sum[i] = tile_splat((fj_real)i);
    for (int n = 0; n < FJ_STEPS; n++)
        FJ_UNROLL for (int i = 0; i < FJ_SUMS; i++) sum[i] = tile_step(sum[i], x, y);
    FJ_UNROLL for (int i = 0; i < FJ_SUMS; i++) all = all + sum[i];
    tile_store(to, all);
}

static void peak_blocks(const struct fj_cpu_args *a, int64_t counts[3]) {
    (void)a;
    counts[0] = counts[1] = counts[2] = 0;
}

extern const struct fj_cpu_kernel fj_cpu_kernel;
__attribute__((visibility("default"))) const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .workspace = peak_workspace,
    .items = peak_items,
    .run = peak_run,
    .blocks = peak_blocks,
};
