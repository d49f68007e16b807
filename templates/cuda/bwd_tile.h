// A tile of bwd_mma: its constants, shared memory, its task, and what a thread keeps of resident rows.
#ifndef FJ_CUDA_BWD_TILE_H
#define FJ_CUDA_BWD_TILE_H

#include "bwd_grid.h"

#include "tile_mma.h"

#define THREADS (FJ_WARPS * FJ_WARP)
#define SPLIT FJ_BWD_MMA_SPLIT(FJ_TILE_M, FJ_WARPS)
#define ROW_TILES (FJ_TILE_M * SPLIT / (16 * FJ_WARPS))
#define COLUMN_TILES (FJ_TILE_N / 8 / SPLIT)
#define ROWS (2 * ROW_TILES)                         // of a thread
#define COLUMNS (2 * COLUMN_TILES)                   // of a thread
#define E_PAIRS FJ_CEIL_DIV(FJ_HEAD_PAD / 16, SPLIT) // pairs of column tiles of a warp's d_qk
#define V_PAIRS FJ_CEIL_DIV(FJ_VALUE_PAD / 16, SPLIT)

#define RESIDENT_QK_BYTES (FJ_TILE_M * fj_tile<FJ_HEAD_PAD>::pitch)
#define RESIDENT_BYTES (RESIDENT_QK_BYTES + FJ_TILE_M * fj_tile<FJ_VALUE_PAD>::pitch)
#define STREAMED_QK_BYTES (FJ_TILE_N * fj_tile<FJ_HEAD_PAD>::pitch)
#define STAGE_BYTES (STREAMED_QK_BYTES + FJ_TILE_N * fj_tile<FJ_VALUE_PAD>::pitch)
#define ROW_STATS (RESIDENT_BYTES + FJ_STAGES * STAGE_BYTES)
#define ROW_STATS_BYTES (FJ_TILE_N * 16)
#define P_TILE (ROW_STATS + FJ_STAGES * ROW_STATS_BYTES)
#define FUSED (!FJ_DETERMINISTIC)
#define P_BYTES (FJ_TILE_M * fj_tile<FJ_TILE_N>::pitch)

#define MOD_CHUNKS FJ_TILE_CHUNKS(COLUMN_TILES)

static_assert(FJ_ARCH >= 80, "sm_80 or newer");
static_assert(FJ_IN_DTYPE == FJ_DTYPE_F16 || FJ_IN_DTYPE == FJ_DTYPE_BF16 || FJ_IN_DTYPE == FJ_DTYPE_F32,
              "inputs");
static_assert(FJ_TILE_M * SPLIT % (16 * FJ_WARPS) == 0 && ROW_TILES >= 1, "resident rows of whole warps");
static_assert(FJ_TILE_N % (16 * SPLIT) == 0 && COLUMNS <= 32, "streamed rows of whole warps");
static_assert(FJ_HEAD_PAD == FJ_MMA_PAD(FJ_HEAD_DIM) && FJ_VALUE_PAD == FJ_MMA_PAD(FJ_VALUE_DIM), "padding");
#ifdef FJ_SHARED_BYTES
static_assert(FJ_SHARED_BYTES >= FJ_BWD_MMA_SHARED(FJ_TILE_M, FJ_TILE_N, FJ_HEAD_PAD, FJ_VALUE_PAD, FJ_STAGES,
                                                   FJ_WARPS, FUSED, int(sizeof(fj_raw))),
              "the plan's shared memory");
#endif

typedef float fj_scores[ROW_TILES][COLUMN_TILES][4];
template <int pairs> struct fj_sums { float c[ROW_TILES][2 * pairs][4]; };

// Row r of a thread is row r % 2 * 8 + lane / 4 of row tile r / 2; column j is column j % 2 of column tile j / 2.
struct fj_task {
    fj_own_backward a;
    const fj_mod_args mod;
    const fj_tile_coord at;
    const float product_scale; // fj_product_scale_of
#if FJ_DROPOUT
    const fj_dropper dropper;
    const float kept, kept_scale; // 1 - p and its reciprocal
#endif
    FJ_METHOD explicit fj_task(const fj_backward_args &args, const fj_work &work)
        : a(work.call), mod(fj_mod_of(args)), at(work.at), product_scale(fj_product_scale_of(a))
#if FJ_DROPOUT
          ,
          dropper(fj_dropper_of(args.dropout)), kept(static_cast<float>(args.dropout.kept)),
          kept_scale(static_cast<float>(args.dropout.scale))
#endif
    {
    }
    // What dP's sums begin at, and what sums of values are multiplied with.
    FJ_METHOD float first_grad(float minus_delta) const {
#if FJ_DROPOUT
        return minus_delta * kept;
#else
        return minus_delta;
#endif
    }
    FJ_METHOD float value_scale() const {
#if FJ_DROPOUT
        return kept_scale;
#else
        return 1;
#endif
    }
    FJ_METHOD uint32_t group_row() const { return fj_warp() / SPLIT * 16 * ROW_TILES; }
    FJ_METHOD uint32_t part() const { return fj_warp() % SPLIT; }
    FJ_METHOD int32_t row(int r) const {
        return at.first + static_cast<int32_t>(group_row() + fj_lane() / 4) + r / 2 * 16 + r % 2 * 8;
    }
    FJ_METHOD int32_t last_row(int r) const { return row(r) < at.count ? row(r) : at.count - 1; }
    FJ_METHOD int32_t column(int j) const { // in the tile
        return static_cast<int32_t>(part() * COLUMN_TILES * 8 + fj_lane() % 4 * 2) + j / 2 * 8 + j % 2;
    }
};

// What a thread keeps of its resident rows; and the state of what is streamed.
template <fj_side side> struct fj_resident;
template <> struct fj_resident<FJ_RESIDENT_KEYS> {
    struct fj_col_state state[ROWS];
#if FJ_BLOCK_MASK
    int32_t head; // of queries, that these states are of
#endif
    typedef struct fj_row_state streamed;
};
template <> struct fj_resident<FJ_RESIDENT_QUERIES> {
    struct fj_row_state state[ROWS];
#if FJ_BLOCK_MASK
    int32_t head; // of queries, that these states are of
#endif
    fj_norm norm[ROWS];
    float minus_delta[ROWS];
    bool large; // whether a row is (softmax.h)
    typedef struct fj_col_state streamed;
};

FJ_DEVICE const fj_raw *fj_raw_start(const fj_cuda_tensor &t, int32_t b, int32_t head) {
    return static_cast<const fj_raw *>(t.data) + fj_offset(t, b, head, 0);
}

#endif
