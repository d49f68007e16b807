// A tile of fwd_mma: its constants, its task, and what a thread keeps of its rows.
#ifndef FJ_CUDA_FWD_TILE_H
#define FJ_CUDA_FWD_TILE_H

#include "fwd_grid.h"

#include "tile_mma.h"

#define THREADS (FJ_WARPS * FJ_WARP)
#define ROW_TILES (FJ_TILE_M / (16 * FJ_WARPS))
#define KEY_TILES (FJ_TILE_N / 8)
#define VALUE_TILES (FJ_VALUE_PAD / 8)
#define ROWS (2 * ROW_TILES) // of a thread
#define KEYS (2 * KEY_TILES) // of a thread

#define Q_BYTES (FJ_TILE_M * fj_tile<FJ_HEAD_PAD>::pitch)
#define K_BYTES (FJ_TILE_N * fj_tile<FJ_HEAD_PAD>::pitch)
#define STAGE_BYTES (K_BYTES + FJ_TILE_N * fj_tile<FJ_VALUE_PAD>::pitch)

#define RESCALE_THRESHOLD (FJ_WANT_MAX ? 0.0f : 8.0f)
#define FAR 16777216.0f // 2^24, in units of log2

#define MOD_CHUNKS FJ_TILE_CHUNKS(KEY_TILES)

static_assert(FJ_ARCH >= 80, "sm_80 or newer");
static_assert(FJ_IN_DTYPE == FJ_DTYPE_F16 || FJ_IN_DTYPE == FJ_DTYPE_BF16 || FJ_IN_DTYPE == FJ_DTYPE_F32,
              "inputs");
static_assert(FJ_TILE_M % (16 * FJ_WARPS) == 0 && FJ_TILE_N % 16 == 0 && FJ_TILE_N <= 128, "tiles");
static_assert(ROW_TILES == 1 || ROW_TILES == 2, "a row's four threads end one row each (fwd_out.h)");
static_assert(FJ_HEAD_PAD == FJ_MMA_PAD(FJ_HEAD_DIM) && FJ_VALUE_PAD == FJ_MMA_PAD(FJ_VALUE_DIM), "padding");
#ifdef FJ_SHARED_BYTES
static_assert(FJ_SHARED_BYTES >=
                  FJ_FWD_MMA_SHARED(FJ_TILE_M, FJ_TILE_N, FJ_HEAD_PAD, FJ_VALUE_PAD, FJ_STAGES) *
                      int(sizeof(fj_raw)) / 2,
              "the plan's shared memory");
#endif

typedef float fj_scores[ROW_TILES][KEY_TILES][4];
typedef float fj_sums[ROW_TILES][VALUE_TILES][4];

FJ_DEVICE const fj_raw *fj_row_start(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t row) {
    return static_cast<const fj_raw *>(t.data) + fj_offset(t, b, h, row);
}

struct fj_task {
    fj_own_forward a;
    const fj_mod_args mod;
    const fj_tile_coord at;
    const fj_copier<FJ_HEAD_PAD, FJ_TILE_N, THREADS> keys;
    const fj_copier<FJ_VALUE_PAD, FJ_TILE_N, THREADS> values;
    const float scale_log2; // fj_scale_log2_of
#if FJ_DROPOUT
    const fj_dropper dropper;
    const float kept_scale; // of outputs
#endif
#if FJ_HAS_OUT
    const fj_cuda_tensor raw; // fj_raw_output
    const bool raw_vector;
#endif
    FJ_METHOD explicit fj_task(const fj_forward_args &args, const fj_work &work)
        : a(work.call), mod(fj_mod_of(args)), at(work.at),
          keys(fj_row_start(a.key, at.b, at.head_kv, 0), a.key.stride[2]),
          values(fj_row_start(a.value, at.b, at.head_kv, 0), a.value.stride[2]),
          scale_log2(fj_scale_log2_of(a))
#if FJ_DROPOUT
          ,
          dropper(fj_dropper_of(args.dropout)), kept_scale(static_cast<float>(args.dropout.scale))
#endif
#if FJ_HAS_OUT
          ,
          raw(fj_raw_output(args, work.at.b)), raw_vector(args.epilogue.raw_vector != 0)
#endif
    {
    }
    // M of a row, in units of log2, where it is not far: computed where it is used, and so the same each time.
    FJ_METHOD float base(float limit) const {
        return fj_max(fj_fma_rn(limit, scale_log2, -RESCALE_THRESHOLD), -FJ_MOST_REAL);
    }
    FJ_METHOD int32_t row(int r) const {
        const int32_t in_warp = r / 2 * 16 + r % 2 * 8 + static_cast<int32_t>(fj_lane() / 4);
        return at.first + static_cast<int32_t>(fj_warp()) * 16 * ROW_TILES + in_warp;
    }
    // Index and head of row r, or of the last one.
    FJ_METHOD int32_t query(int r) const { return fj_row_query(at, fj_last_row(at, row(r))); }
    FJ_METHOD int32_t head(int r) const { return fj_row_head(at, fj_last_row(at, row(r))); }
    FJ_METHOD int32_t key(int32_t first, int j) const { // j: of KEYS
        return first + j / 2 * 8 + j % 2 + 2 * static_cast<int32_t>(fj_lane() % 4);
    }
};

// What a thread keeps of its rows; row r is row r % 2 * 8 + lane / 4 of row tile r / 2.
struct fj_rows {
    float limit[ROWS], sum[ROWS]; // limit: a score
    uint32_t far;                 // bit r: row r is
    struct fj_row_state state[ROWS];
    struct fj_head_state heads[FJ_PACK_HEADS ? ROWS : 1];
    FJ_METHOD bool is_far(int r) const { return far >> r & 1u; }
    FJ_METHOD const struct fj_head_state *head(int r) const { return &heads[FJ_PACK_HEADS ? r : 0]; }
};

#endif
