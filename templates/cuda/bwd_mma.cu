// Backward attention on tensor cores by mma.sync, sm_80 and newer: 16-bit inputs (bwd_half.h), and float32 in its own
// precision as three products of TF32 (bwd_tf32.h).
//
//      own rows (FJ_TILE_M)            walked rows (FJ_TILE_N a time)
//      X: keys      W: values          Y: queries   Z: douts                in fj_bwd_kv
//      X: queries   W: douts           Y: keys      Z: values               in fj_bwd_q
//
//        a warp: 16 * ROW_TILES own rows        for each tile that is not empty:
//      +-----------------+-----------------+      wait for its Y and Z, one barrier, send for the next
//      |  S  = X Y^T     |  dP = W Z^T     |      S, dP (which starts at delta, not at 0)
//      |       |         |       |         |      mod, mask, derivative: P and dS, in place of them
//      |       v         |       v         |      16-bit inputs: rounded; the A of the next products
//      |  dW += P Z      |  dX += dS Y     |      dW (fj_bwd_kv only), dX
//      +-----------------+-----------------+    dX * scale and dW to global memory
//
//      |     X, W      |  Y Z  |  Y Z  | facts of both |  P, dS (2., 3.)  |            shared memory
//                        stage 0 stage 1   lse, low, delta of walked queries
//
//  1. Both passes are the same text, with sides exchanged: own rows are rows of the matrices in registers in either, so
//     that P and dS are the A of what they are multiplied with, without a way through shared memory. Each result
//     has one block, which makes it in one order (bwd_grid.h).
//  2. A warp has 32 own rows where it can (shapes.h): what it reads of Y and Z then serves two products, and with 16
//     the bytes of shared memory would be the limit. With SPLIT > 1 so many warps share these rows: each makes a part
//     of the columns of S and dP, all get P and dS through shared memory, each sums a part of the columns of dW and
//     dX. Large dimensions need it for registers.
//  3. With FJ_DETERMINISTIC 0 there is no second walk: fj_bwd_kv multiplies dS, shared through shared memory, with its
//     keys, adds that to float sums of dQ in global memory, atomically, and fj_bwd_q only rounds them.
//  4. At the barrier of a step all warps are past the step before: its stage, and P and dS, may be overwritten. Every
//     thread has waited for its own part of the step's copies before that barrier.
//  5. Rows and columns that are not there are zero in shared memory (tile_mma.h): no NaN leaks. Of what is there,
//     bwd_care.h.
//  6. P and dS are selected to 0 after the mod where a position is masked or not there. The mask is evaluated before,
//     as bits, by a loop that stays rolled.
//  7. Steps, walks and stages are those of fwd_mma.cu.
#ifndef FJ_IN_DTYPE
#define FJ_DTYPE_F16 1
#define FJ_DTYPE_BF16 2
#define FJ_DTYPE_F32 3
#define FJ_DTYPE_F64 4
#define FJ_IN_DTYPE FJ_DTYPE_BF16
#define FJ_HEAD_DIM 128
#define FJ_VALUE_DIM 128
#define FJ_HEAD_PAD 128
#define FJ_VALUE_PAD 128
#define FJ_TILE_M 64
#define FJ_TILE_N 64
#define FJ_STAGES 2
#define FJ_WARPS 4
#endif

#include "hooks.h"

#include "identity.h"

#include "shapes.h"

#include "bwd_grid.h"

#include "bwd_delta.cu"

#include "bwd_care.h"

#include "tile_mma.h"

#define THREADS (FJ_WARPS * FJ_WARP)
#define SPLIT FJ_BWD_MMA_SPLIT(FJ_TILE_M, FJ_WARPS)
#define ROW_TILES (FJ_TILE_M * SPLIT / (16 * FJ_WARPS))
#define COLUMN_TILES (FJ_TILE_N / 8 / SPLIT)
#define ROWS (2 * ROW_TILES)                         // of a thread
#define COLUMNS (2 * COLUMN_TILES)                   // of a thread
#define E_PAIRS FJ_CEIL_DIV(FJ_HEAD_PAD / 16, SPLIT) // pairs of column tiles of a warp's dX
#define V_PAIRS FJ_CEIL_DIV(FJ_VALUE_PAD / 16, SPLIT)

#define X_BYTES (FJ_TILE_M * fj_tile<FJ_HEAD_PAD>::pitch)
#define OWN_BYTES (X_BYTES + FJ_TILE_M * fj_tile<FJ_VALUE_PAD>::pitch)
#define Y_BYTES (FJ_TILE_N * fj_tile<FJ_HEAD_PAD>::pitch)
#define STAGE_BYTES (Y_BYTES + FJ_TILE_N * fj_tile<FJ_VALUE_PAD>::pitch)
#define FACTS (OWN_BYTES + FJ_STAGES * STAGE_BYTES)
#define FACTS_BYTES (FJ_TILE_N * 16)
#define WEIGHTS (FACTS + FJ_STAGES * FACTS_BYTES)
#define FUSED (!FJ_DETERMINISTIC)
#define WEIGHTS_BYTES (FJ_TILE_M * fj_tile<FJ_TILE_N>::pitch)

// Columns of a thread per iteration of the mask's loop: more is faster and longer.
#ifndef FJ_MASK_UNROLL
#define FJ_MASK_UNROLL 2
#endif
// Full tiles have a copy of the mod of their own, without selection; not where it scatters, which is long.
#ifndef FJ_FULL_COPY
#define FJ_FULL_COPY (!FJ_HAS_CAPTURE_GRADS)
#endif

// Turns of the loop of the score mod and its derivative: more are slower, and shorter by as much.
#ifndef FJ_MOD_CHUNKS
#define FJ_MOD_CHUNKS 1
#endif
#define MOD_CHUNKS FJ_TILE_CHUNKS(COLUMN_TILES)

static_assert(FJ_ARCH >= 80, "sm_80 or newer");
static_assert(FJ_IN_DTYPE == FJ_DTYPE_F16 || FJ_IN_DTYPE == FJ_DTYPE_BF16 || FJ_IN_DTYPE == FJ_DTYPE_F32,
              "inputs");
static_assert(FJ_TILE_M * SPLIT % (16 * FJ_WARPS) == 0 && ROW_TILES >= 1, "own rows of whole warps");
static_assert(FJ_TILE_N % (16 * SPLIT) == 0 && COLUMNS <= 32, "walked rows of whole warps");
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
    const fj_cuda_backward &a;
    const fj_mod_args mod;
    const fj_place at;
    const float product_scale; // fj_product_scale_of
    FJ_METHOD explicit fj_task(const fj_backward_args &args, const fj_place &place)
        : a(args.call), mod(fj_mod_of(args)), at(place), product_scale(fj_product_scale_of(args.call)) {}
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

// What a thread keeps of its own rows; and the state of what is walked.
template <fj_side side> struct fj_own;
template <> struct fj_own<FJ_OWN_KEYS> {
    struct fj_col_state state[ROWS];
    typedef struct fj_row_state walked;
};
template <> struct fj_own<FJ_OWN_QUERIES> {
    struct fj_row_state state[ROWS];
    fj_norm norm[ROWS];
    float delta[ROWS];
    bool large; // whether a row is (large.h)
    typedef struct fj_col_state walked;
};

FJ_DEVICE const fj_raw *fj_raw_start(const fj_cuda_tensor &t, int32_t b, int32_t head) {
    return static_cast<const fj_raw *>(t.data) + fj_offset(t, b, head, 0);
}

#include "bwd_load.h"

#if FJ_IN_DTYPE == FJ_DTYPE_F32
#include "tf32.h"

#include "bwd_tf32.h"
#else
#include "bwd_half.h"
#endif

#include "bwd_clean.h"

#include "bwd_scores.h"

// ---- Own rows --------------------------------------------------------------------------------------------------

template <fj_side side>
FJ_DEVICE void fj_start_own(const fj_task &t, const struct fj_head_state &head, fj_own<side> &own) {
    if constexpr (side == FJ_OWN_QUERIES) own.large = false;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int32_t index = t.last_row(r);
        if constexpr (side == FJ_OWN_KEYS) {
            fj_col_init(&t.mod, &head, fj_kv_position(t.a, t.at.b, index), &own.state[r]);
        } else {
            const fj_facts facts = fj_row_facts(t.a, t.at.b, t.at.head, index);
            fj_row_init(&t.mod, &head, fj_q_position(t.a, t.at.b, index), &own.state[r]);
            own.norm[r] = fj_norm_at(facts);
            own.delta[r] = facts[FJ_CUDA_ROW_DELTA];
            own.large |= own.norm[r].natural != 0;
        }
    }
    if constexpr (side == FJ_OWN_QUERIES) own.large = fj_any(own.large);
}

template <int pairs> FJ_DEVICE void fj_clear(fj_sums<pairs> &sum) {
#pragma unroll
    for (int n = 0; n < ROW_TILES * 2 * pairs * 4; n++)
        sum.c[n / 4 / (2 * pairs)][n / 4 % (2 * pairs)][n % 4] = 0;
}

// Sums to the place of own rows in shared memory, as elements.
template <int pad, int pairs>
FJ_DEVICE void fj_put_sums(const fj_task &t, uint32_t to, const fj_sums<pairs> &sum, float scale) {
#pragma unroll
    for (int j = 0; j < 2 * pairs; j++) {
        const uint32_t tile = t.part() * 2 * pairs + static_cast<uint32_t>(j);
        if (pad / 16 % SPLIT != 0 && tile >= pad / 8) break;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float *c = &sum.c[r / 2][j][r % 2 * 2];
            fj_put_pair<pad>(to, static_cast<uint32_t>(t.row(r) - t.at.first), tile, c[0] * scale,
                             c[1] * scale);
        }
    }
}

template <int pad>
FJ_DEVICE void fj_store(const fj_task &t, const fj_cuda_tensor &to, bool vector, int32_t head, uint32_t from,
                        int32_t dim, bool marks) {
    typedef fj_tile<pad> tile;
    if (!to.data) return;
#pragma unroll 1
    for (uint32_t i = fj_thread_x(); i < FJ_TILE_M * tile::chunks; i += THREADS) {
        const uint32_t row = i / tile::chunks, chunk = i % tile::chunks;
        const int32_t index = t.at.first + static_cast<int32_t>(row),
                      left = dim - static_cast<int32_t>(chunk) * FJ_CHUNK;
        if (index >= t.at.count || left <= 0) continue;
        fj_raw *place =
            static_cast<fj_raw *>(to.data) + fj_offset(to, t.at.b, head, index) + chunk * FJ_CHUNK;
        const fj_b128 x = *fj_shared_at<fj_b128>(from + tile::at(row, chunk));
        if (marks)
            fj_put_marks(place, x, left);
        else
            fj_put_chunk(place, x, left, vector);
    }
}

#if FUSED
#include "bwd_atomic.h"
#endif

// ---- The kernels -------------------------------------------------------------------------------------------------

// dx: sums of dX, of HEAD_PAD columns; dw: of dW, only of keys.
template <fj_side side>
FJ_DEVICE void fj_do_step(const fj_task &t, const fj_own<side> &own, const struct fj_head_state &head,
                          const fj_step &step, uint32_t stage, fj_sums<E_PAIRS> &dx, fj_sums<V_PAIRS> &dw,
                          fj_thread_grads &grads, const fj_caring &care) {
    const uint32_t shared = fj_shared_address(fj_shared()), walked = shared + OWN_BYTES + stage * STAGE_BYTES;
    const uint32_t facts = FACTS + stage * FACTS_BYTES;
    const int32_t first = step.first();
    fj_scores s, d;
    fj_start_scores<side>(t, own, facts, s, d);
    fj_multiply_rows<side, FJ_HEAD_PAD>(t, s, shared, walked);
#if FJ_IN_DTYPE == FJ_DTYPE_F32
    fj_mend_scores(t, s, shared, walked);
#endif
    fj_multiply_rows<side, FJ_VALUE_PAD>(t, d, shared + X_BYTES, walked + Y_BYTES);
    const bool large = fj_has_large<side>(own, facts);
    if (FJ_FULL_COPY && step.is_full() && !care.how && !large && !(FUSED && fj_has_dead<side>(t, facts))) {
        fj_apply<side, false>(t, own, head, first, true, facts, s, d, grads, FJ_PLAIN);
    } else {
        if (large) fj_make_near<side>(t, facts, s);
        fj_apply<side, true>(t, own, head, first, step.is_full(), facts, s, d, grads, care.how);
    }
    if (care.how) fj_clean(OWN_BYTES + stage * STAGE_BYTES, STAGE_BYTES, care.how == FJ_MARK);
    fj_weights p, ds;
    if (side == FJ_OWN_KEYS) fj_round<(SPLIT > 1)>(t, s, p, WEIGHTS);
    fj_round<(SPLIT > 1 || FUSED)>(t, d, ds, WEIGHTS + WEIGHTS_BYTES);
    if (FUSED)
        fj_block_sync();
    else if (SPLIT > 1)
        fj_barrier_sync(1 + fj_warp() / SPLIT, SPLIT * FJ_WARP);
    if (side == FJ_OWN_KEYS) fj_multiply_weights<FJ_VALUE_PAD>(t, dw, p, shared + WEIGHTS, walked + Y_BYTES);
    fj_multiply_weights<FJ_HEAD_PAD>(t, dx, ds, shared + WEIGHTS + WEIGHTS_BYTES, walked);
#if FUSED
    if (care.adds()) fj_add_queries(t, step.head, first, care);
#endif
}

// Step n sends for the tile FJ_STAGES - 1 further on and works on tile n; steps before 0 only send, and 0 begins when
// own rows, which belong to the first group, are there as well. With one stage a step sends for its own tile.
template <fj_side side>
FJ_DEVICE void fj_walk_all(const fj_backward_args &args, const fj_task &t, fj_sums<E_PAIRS> &dx,
                           fj_sums<V_PAIRS> &dw, fj_caring &care) {
    fj_walked<side> walked(t);
    fj_walk walk = fj_walk_start(t.at);
    fj_step ahead[FJ_STAGES]; // ahead[i]: what step now + i works on
    fj_own<side> own;
    fj_thread_grads grads;
    struct fj_head_state head;
    int32_t h = -1; // of `head`
    uint32_t stage = 0, filled = 0;
    fj_load_own<side>(t);
#if FUSED
    fj_look_at_own(care);
#endif
    fj_grads_start<side>(args, grads, care.how != FJ_PLAIN);
    if (side == FJ_OWN_QUERIES) {
        fj_head_init(&t.mod, t.at.b, t.at.head, &head);
        fj_start_own<side>(t, head, own);
    }
#pragma unroll
    for (int i = 0; i < FJ_STAGES; i++) ahead[i] = fj_step{t.at.head, FJ_WALK_END};
#pragma unroll 1
    for (int32_t step = 1 - FJ_STAGES;; step++) {
        if (step >= 0) {
            fj_copy_async_wait<(FJ_STAGES > 1 ? FJ_STAGES - 2 : 0)>();
            fj_block_sync();
        }
        ahead[FJ_STAGES - 1] = fj_walk_take<side>(t.a, t.mod, t.at, walk);
        if (!ahead[FJ_STAGES - 1].is_end()) walked.send(t, ahead[FJ_STAGES - 1], filled);
        fj_copy_async_commit();
        filled = filled + 1 == FJ_STAGES ? 0 : filled + 1;
        if (step >= 0) {
            if (ahead[0].is_end()) break;
            if (FJ_STAGES == 1) {
                fj_copy_async_wait<0>();
                fj_block_sync();
            }
            const int32_t next = ahead[0].head;
            if (side == FJ_OWN_KEYS && next != h) {
                h = next;
                fj_head_init(&t.mod, t.at.b, h, &head);
                fj_start_own<side>(t, head, own);
            }
            fj_do_step<side>(t, own, head, ahead[0], stage, dx, dw, grads, care);
            fj_grads_settle(grads);
            stage = stage + 1 == FJ_STAGES ? 0 : stage + 1;
        }
#pragma unroll
        for (int i = 1; i < FJ_STAGES; i++) ahead[i - 1] = ahead[i];
    }
    fj_copy_async_wait<0>(); // own rows of a block without steps
    fj_grads_end(args, grads);
}

// The task again, from a number that the compiler does not know for the same: not kept in registers through the walk.
template <fj_side side> FJ_DEVICE fj_task fj_task_again(const fj_backward_args &args) {
    return fj_task(args, fj_place_of<side>(args.call, fj_shuffle_index(fj_block_x(), 0u)));
}

#if FJ_MEASURES
#include "bwd_measure.h"
#endif

FJ_KERNEL(fj_bwd_kv, THREADS, 1, fj_backward_args) {
    fj_caring care = {FJ_PLAIN, false};
#pragma unroll 1
    for (;;) {
        fj_sums<E_PAIRS> dkey;
        fj_sums<V_PAIRS> dvalue;
        fj_clear(dkey);
        fj_clear(dvalue);
        fj_walk_all<FJ_OWN_KEYS>(args, fj_task(args, fj_place_of<FJ_OWN_KEYS>(args.call)), dkey, dvalue,
                                 care);
        if (fj_needs_care(care, !fj_all_finite(dkey) || !fj_all_finite(dvalue))) continue;
        const fj_task t = fj_task_again<FJ_OWN_KEYS>(args);
        const bool marks = care.how == FJ_MARK;
        fj_put_sums<FJ_HEAD_PAD>(t, 0, dkey, marks ? 1.0f : static_cast<float>(t.a.scale));
        fj_put_sums<FJ_VALUE_PAD>(t, X_BYTES, dvalue, 1);
        fj_block_sync();
        fj_store<FJ_HEAD_PAD>(t, t.a.dkey, t.a.vector & FJ_CUDA_VECTOR_DKEY, t.at.head_kv, 0, FJ_HEAD_DIM,
                              marks);
        fj_store<FJ_VALUE_PAD>(t, t.a.dvalue, t.a.vector & FJ_CUDA_VECTOR_DVALUE, t.at.head_kv, X_BYTES,
                               FJ_VALUE_DIM, marks);
        if (!fj_has_to_mark(care)) break;
    }
}

FJ_KERNEL(fj_bwd_q, THREADS, 1, fj_backward_args) {
#if FUSED
    fj_round_queries(fj_task(args, fj_place_of<FJ_OWN_QUERIES>(args.call)));
#else
    fj_caring care = {FJ_PLAIN, false};
#pragma unroll 1
    for (;;) {
        fj_sums<E_PAIRS> dquery;
        fj_sums<V_PAIRS> none;
        fj_clear(dquery);
        fj_walk_all<FJ_OWN_QUERIES>(args, fj_task(args, fj_place_of<FJ_OWN_QUERIES>(args.call)), dquery, none,
                                    care);
        if (fj_needs_care(care, !fj_all_finite(dquery))) continue;
        const fj_task t = fj_task_again<FJ_OWN_QUERIES>(args);
        const bool marks = care.how == FJ_MARK;
        fj_put_sums<FJ_HEAD_PAD>(t, 0, dquery, marks ? 1.0f : static_cast<float>(t.a.scale));
        fj_block_sync();
        fj_store<FJ_HEAD_PAD>(t, t.a.dquery, t.a.vector & FJ_CUDA_VECTOR_DQUERY, t.at.head, 0, FJ_HEAD_DIM,
                              marks);
        if (!fj_has_to_mark(care)) break;
    }
#endif
}
