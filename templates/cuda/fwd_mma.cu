// Forward attention on tensor cores by mma.sync, sm_80 and newer: 16-bit inputs (fwd_half.h), and float32 in
// its own precision as three products of TF32 (fwd_tf32.h).
//
//        a warp: 16 * ROW_TILES rows         per block of keys that is not empty:
//      +-------------+-------------+            wait for its keys and values, one barrier,
//      |  S = Q K^T  |             |              send for the block FJ_STAGES - 1 further on
//      |  registers  |   P in the  |            S = Q K^T
//      |      |      |   place of  |            mod, mask (two copies of this part, not of the products)
//      |      v      |   S is the  |            maximum; P = exp2(c S - M)
//      |  O += P V   |   A of P V  |            O = factor O + P V
//      +-------------+-------------+          out = O / sum, lse = ln 2 M + log(sum)
//
//      stages:   | K V | K V |        block n lies in stage n % FJ_STAGES; group n of the asynchronous
//                  0     1            copies is block n, a group is committed even when it is empty
//
//  1. At the barrier of step n all warps are past step n - 1: its stage may be overwritten. Every thread has
//     waited for its own part of block n before that barrier: so all of block n is there after it.
//  2. Rows, keys and columns that are not there are zero in shared memory (tile_mma.h): no NaN leaks.
//  3. A score that is masked, or past the last key, is -inf after the mod: its P is 0, whatever the mod gave.
//     The mask is evaluated before, as bits, by a loop that stays rolled: it does not depend on scores.
//  4. M = -inf stands for "nothing yet", is subtracted as 0, so that P is 0 and not NaN. NaN in a score makes
//     that row NaN and no other: a maximum may lose it, the sum does not.
//  5. A thread has rows lane / 4 and + 8 of each 16; a row's four threads keep equal maxima, and each a part of
//     the sum until the end. Sums are of P before rounding.
//  6. M need not be the maximum: P is at most 2^SLACK, and the final division is by a sum of the same P. So o is
//     seldom rescaled. Where the maximum itself is wanted, SLACK is 0.
//  7. With FJ_STAGES 1 a step sends for its own block, and waits for it behind a second barrier.
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
#define FJ_TILE_Q 64
#define FJ_TILE_KV 64
#define FJ_STAGES 2
#define FJ_WARPS 4
#endif

#include "hooks.h"

#include "identity.h"

#include "shapes.h"

#include "fwd_grid.h"

#include "tile_mma.h"

#define THREADS (FJ_WARPS * FJ_WARP)
#define ROW_TILES (FJ_TILE_Q / (16 * FJ_WARPS))
#define KEY_TILES (FJ_TILE_KV / 8)
#define VALUE_TILES (FJ_VALUE_PAD / 8)
#define ROWS (2 * ROW_TILES) // of a thread
#define KEYS (2 * KEY_TILES) // of a thread

#define Q_BYTES (FJ_TILE_Q * fj_tile<FJ_HEAD_PAD>::pitch)
#define K_BYTES (FJ_TILE_KV * fj_tile<FJ_HEAD_PAD>::pitch)
#define STAGE_BYTES (K_BYTES + FJ_TILE_KV * fj_tile<FJ_VALUE_PAD>::pitch)

// Columns of a thread per turn of the mask's loop: more is faster and longer.
#ifndef FJ_MASK_UNROLL
#define FJ_MASK_UNROLL 2
#endif

#define SLACK (FJ_WANT_MAX ? 0.0f : 8.0f)

// 1: the score mod stands in the text once, with the mask's selects: for mods so costly that these do not matter.
#ifndef FJ_ONE_COPY
#define FJ_ONE_COPY (FJ_HAS_SCORE && FJ_CAPTURES > 0)
#endif

// Turns of the loop of the score mod: more are slower, and shorter by as much.
#ifndef FJ_MOD_TURNS
#define FJ_MOD_TURNS 1
#endif
#define MOD_TURNS FJ_TILE_TURNS(KEY_TILES)

static_assert(FJ_ARCH >= 80, "sm_80 or newer");
static_assert(FJ_IN_DTYPE == FJ_DTYPE_F16 || FJ_IN_DTYPE == FJ_DTYPE_BF16 || FJ_IN_DTYPE == FJ_DTYPE_F32,
              "inputs");
static_assert(FJ_TILE_Q % (16 * FJ_WARPS) == 0 && FJ_TILE_KV % 16 == 0 && FJ_TILE_KV <= 128, "tiles");
static_assert(FJ_HEAD_PAD == FJ_MMA_PAD(FJ_HEAD_DIM) && FJ_VALUE_PAD == FJ_MMA_PAD(FJ_VALUE_DIM), "padding");
#ifdef FJ_SHARED_BYTES
static_assert(FJ_SHARED_BYTES >=
                  FJ_FWD_MMA_SHARED(FJ_TILE_Q, FJ_TILE_KV, FJ_HEAD_PAD, FJ_VALUE_PAD, FJ_STAGES) *
                      int(sizeof(fj_raw)) / 2,
              "the plan's shared memory");
#endif

#if FJ_IN_DTYPE == FJ_DTYPE_F32
#include "fwd_tf32.h"
#else
#include "fwd_half.h"
#endif

// What a thread keeps of its rows; row r is row r % 2 * 8 + lane / 4 of row tile r / 2.
struct fj_rows {
    float top[ROWS], sum[ROWS];
    struct fj_row_state state[ROWS];
    struct fj_head_state heads[FJ_PACK_HEADS ? ROWS : 1];
    FJ_METHOD const struct fj_head_state *head(int r) const { return &heads[FJ_PACK_HEADS ? r : 0]; }
};

struct fj_task {
    const fj_cuda_forward &a;
    const fj_mod_args mod;
    const fj_place at;
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

// ---- From global memory ----------------------------------------------------------------------------------

FJ_DEVICE const fj_raw *fj_row_start(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t row) {
    return static_cast<const fj_raw *>(t.data) + fj_offset(t, b, h, row);
}

FJ_DEVICE void fj_load_queries(const fj_task &t) {
    fj_tile_copy_rows<FJ_HEAD_PAD, FJ_TILE_Q, THREADS>(
        0, FJ_HEAD_DIM, t.a.vector & FJ_CUDA_VECTOR_QUERY, [&](int32_t i) -> const fj_raw * {
            const int32_t row = t.at.first + i;
            if (row >= t.at.rows) return nullptr;
            return fj_row_start(t.a.query, t.at.b, fj_row_head(t.at, row), fj_row_query(t.at, row));
        });
}

// The keys and values of a block of fj_walk_take, into a stage.
FJ_DEVICE void fj_load_block(const fj_task &t, int32_t block, uint32_t stage) {
    const uint32_t to = Q_BYTES + stage * STAGE_BYTES;
    const int32_t first = block / 2 * FJ_TILE_KV, left = t.a.kv_len - first;
    const fj_raw *keys = fj_row_start(t.a.key, t.at.b, t.at.head_kv, first);
    const fj_raw *values = fj_row_start(t.a.value, t.at.b, t.at.head_kv, first);
    fj_tile_copy<FJ_HEAD_PAD, FJ_TILE_KV, THREADS>(to, FJ_HEAD_DIM, t.a.vector & FJ_CUDA_VECTOR_KEY, keys,
                                                   t.a.key.stride[2], left);
    fj_tile_copy<FJ_VALUE_PAD, FJ_TILE_KV, THREADS>(
        to + K_BYTES, FJ_VALUE_DIM, t.a.vector & FJ_CUDA_VECTOR_VALUE, values, t.a.value.stride[2], left);
}

// ---- Masks ---------------------------------------------------------------------------------------------------

// Bit j of bits[r]: row r sees key j of this thread.
FJ_DEVICE void fj_mask_bits(const fj_task &t, [[maybe_unused]] const fj_rows &rows, int32_t first,
                            uint32_t (&bits)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) bits[r] = 0;
#pragma unroll FJ_MASK_UNROLL
    for (int j = 0; j < KEYS; j++) {
        const int32_t kv = t.key(first, j);
        [[maybe_unused]] const int32_t position = fj_kv_position(t.a, t.at.b, kv);
        const bool there = kv < t.a.kv_len;
#if FJ_HAS_MASK
        struct fj_col_state col;
        if (!FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(0), position, &col);
#endif
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            bool live = there;
#if FJ_HAS_MASK
            if (FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(r), position, &col);
            live = live && fj_mask(&t.mod, rows.head(r), &rows.state[r], &col);
#endif
            bits[r] |= static_cast<uint32_t>(live) << j;
        }
    }
}

// ---- Scores to probabilities -----------------------------------------------------------------------------------

#if FJ_HAS_FAULT
FJ_DEVICE void fj_look_for_fault(const fj_task &t, const fj_rows &rows, int r, int32_t kv,
                                 const struct fj_col_state *col, float x, bool live) {
    if (t.row(r) >= t.at.rows || !fj_fault(&t.mod, rows.head(r), &rows.state[r], col, x, live)) return;
    fj_note_fault(t.a, t.at.b, t.head(r), fj_q_position(t.a, t.at.b, t.query(r)),
                  fj_kv_position(t.a, t.at.b, kv));
}

// Faults that do not depend on scores: apart from them, in a loop that stays rolled.
FJ_DEVICE void fj_look_for_faults(const fj_task &t, const fj_rows &rows, int32_t first,
                                  const uint32_t (&bits)[ROWS]) {
#pragma unroll 1
    for (int j = 0; j < KEYS; j++) {
        struct fj_col_state col;
        const int32_t kv = t.key(first, j);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (FJ_PACK_HEADS || r == 0)
                fj_col_init(&t.mod, rows.head(r), fj_kv_position(t.a, t.at.b, kv), &col);
            fj_look_for_fault(t, rows, r, kv, &col, 0, bits[r] >> j & 1u);
        }
    }
}
#endif

#define FJ_FAULT_HERE (FJ_HAS_FAULT && FJ_FAULT_READS_SCORE)

// The mod on all scores of a block, and -inf where masked. With FJ_MOD_TURNS > 1 in so many turns of a loop that stays
// rolled: each works on the first key tiles and moves them behind the others, so that registers have constant numbers.
template <bool masked>
FJ_DEVICE void fj_apply_mod(const fj_task &t, [[maybe_unused]] const fj_rows &rows,
                            [[maybe_unused]] int32_t first, fj_scores &s, const uint32_t (&bits)[ROWS]) {
    [[maybe_unused]] const float scale = static_cast<float>(t.a.scale);
#pragma unroll 1
    for (int from = 0; from < KEYS; from += KEYS / MOD_TURNS) {
#pragma unroll
        for (int j = 0; j < KEYS / MOD_TURNS; j++) {
#if FJ_HAS_SCORE || FJ_FAULT_HERE
            const int32_t position = fj_kv_position(t.a, t.at.b, t.key(first, from + j));
            struct fj_col_state col;
            if (!FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(0), position, &col);
#endif
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float &x = s[r / 2][j / 2][r % 2 * 2 + j % 2];
                [[maybe_unused]] const bool live = !masked || (bits[r] >> (from + j) & 1u);
#if FJ_HAS_SCORE || FJ_FAULT_HERE
                if (FJ_PACK_HEADS) fj_col_init(&t.mod, rows.head(r), position, &col);
                const float before = fj_mul_rn(x, scale);
#endif
#if FJ_HAS_SCORE
                x = fj_score(&t.mod, rows.head(r), &rows.state[r], &col, before);
#endif
#if FJ_FAULT_HERE
                fj_look_for_fault(t, rows, r, t.key(first, from + j), &col, before, live);
#endif
                if (masked) x = live ? x : -INFINITY;
            }
        }
        if (MOD_TURNS > 1) fj_turn_tiles<KEY_TILES / MOD_TURNS>(s);
    }
}

// Scores become probabilities. A row's base M follows its maximum only when that runs ahead by more than SLACK
// (invariant 6); sums and o move to the new base when a row of the warp has one.
FJ_DEVICE void fj_softmax(fj_rows &rows, fj_scores &s, fj_sums &o, float unit) {
    float factor[ROWS];
    bool moved = false;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int i = r / 2, half = r % 2 * 2;
        float most = fj_max(s[i][0][half], s[i][0][half + 1]);
#pragma unroll
        for (int j = 1; j < KEY_TILES; j++) most = fj_max(most, fj_max(s[i][j][half], s[i][j][half + 1]));
        most = fj_max(most, fj_shuffle_xor(most, 1));
        most = fj_max(most, fj_shuffle_xor(most, 2));
        const float old = rows.top[r], top = most * unit > old + SLACK ? most * unit : old;
        const float base = top == -INFINITY ? 0.0f : top;
        factor[r] = fj_ex2_approx(old - base);
        moved |= top != old;
        rows.top[r] = top;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
            for (int e = half; e < half + 2; e++) {
                s[i][j][e] = fj_ex2_approx(fj_fma_rn(s[i][j][e], unit, -base));
                sum += s[i][j][e];
            }
        rows.sum[r] = fj_fma_rn(rows.sum[r], factor[r], sum);
    }
    if (!fj_any(moved)) return;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int j = 0; j < VALUE_TILES; j++) {
            o[r / 2][j][r % 2 * 2] *= factor[r];
            o[r / 2][j][r % 2 * 2 + 1] *= factor[r];
        }
}

#if FJ_HAS_PROB
FJ_DEVICE void fj_apply_prob(const fj_task &t, const fj_rows &rows, int32_t first, fj_scores &p) {
#pragma unroll
    for (int j = 0; j < KEYS; j++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            struct fj_col_state col;
            fj_col_init(&t.mod, rows.head(r), fj_kv_position(t.a, t.at.b, t.key(first, j)), &col);
            float &x = p[r / 2][j / 2][r % 2 * 2 + j % 2];
            x = fj_prob(&t.mod, rows.head(r), &rows.state[r], &col, x);
        }
}
#endif

// One block of keys that is there.
FJ_DEVICE void fj_do_block(const fj_task &t, fj_rows &rows, fj_sums &o, int32_t block, uint32_t stage) {
    const uint32_t shared = fj_shared_address(fj_shared()), keys = shared + Q_BYTES + stage * STAGE_BYTES;
    const int32_t first = block / 2 * FJ_TILE_KV;
    fj_scores s;
    fj_multiply_keys(s, shared, keys);
#if !FJ_HAS_SCORE
    if (!(t.a.scale > 0)) {
#pragma unroll
        for (int n = 0; n < ROW_TILES * KEY_TILES * 4; n++)
            s[n / 4 / KEY_TILES][n / 4 % KEY_TILES][n % 4] =
                fj_signed_product(s[n / 4 / KEY_TILES][n / 4 % KEY_TILES][n % 4], t.a.scale);
    }
#endif
    uint32_t bits[ROWS];
    if (block & 1) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) bits[r] = ~0u;
    } else {
        fj_mask_bits(t, rows, first, bits);
    }
#if FJ_HAS_FAULT && !FJ_FAULT_READS_SCORE
    if (fj_suspects(t.a, t.mod, t.at, first)) fj_look_for_faults(t, rows, first, bits);
#endif
#if FJ_ONE_COPY
    fj_apply_mod<true>(t, rows, first, s, bits);
#else
    if (block & 1)
        fj_apply_mod<false>(t, rows, first, s, bits);
    else
        fj_apply_mod<true>(t, rows, first, s, bits);
#endif
    fj_softmax(rows, s, o, fj_unit_of(t.a));
#if FJ_HAS_PROB
    fj_apply_prob(t, rows, first, s);
#endif
    fj_multiply_values(o, s, keys + K_BYTES);
}

#include "fwd_out.h"

// ---- The kernel --------------------------------------------------------------------------------------------------

FJ_DEVICE void fj_start_rows(const fj_task &t, fj_rows &rows, fj_sums &o) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (FJ_PACK_HEADS || r == 0)
            fj_head_init(&t.mod, t.at.b, t.head(r), &rows.heads[FJ_PACK_HEADS ? r : 0]);
        fj_row_init(&t.mod, rows.head(r), fj_q_position(t.a, t.at.b, t.query(r)), &rows.state[r]);
        rows.top[r] = -INFINITY;
        rows.sum[r] = 0;
    }
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < VALUE_TILES; j++) o[i][j][0] = o[i][j][1] = o[i][j][2] = o[i][j][3] = 0;
}

// Step n sends for block n + FJ_STAGES - 1 and works on block n; steps before 0 only send, and 0 begins when
// the queries, which belong to the first group, are there as well.
FJ_KERNEL(fj_fwd, THREADS, 1, fj_forward_args) {
    const fj_task t = {args.call, fj_mod_of(args), fj_place_of(args.call)};
    fj_walk walk = fj_walk_start(t.at);
    fj_rows rows;
    fj_sums o;
    int32_t ahead[FJ_STAGES]; // ahead[i]: the block that step now + i works on
    uint32_t stage = 0, filled = 0;
    fj_load_queries(t);
    fj_start_rows(t, rows, o);
#pragma unroll
    for (int i = 0; i < FJ_STAGES; i++) ahead[i] = FJ_WALK_END;
#pragma unroll 1
    for (int32_t step = 1 - FJ_STAGES;; step++) {
        if (step >= 0) {
            fj_copy_async_wait<(FJ_STAGES > 1 ? FJ_STAGES - 2 : 0)>();
            fj_block_sync();
        }
        ahead[FJ_STAGES - 1] = fj_walk_take(t.a, t.mod, t.at, walk);
        if (ahead[FJ_STAGES - 1] != FJ_WALK_END) fj_load_block(t, ahead[FJ_STAGES - 1], filled);
        fj_copy_async_commit();
        filled = filled + 1 == FJ_STAGES ? 0 : filled + 1;
        if (step >= 0) {
            if (ahead[0] == FJ_WALK_END) break;
            if (FJ_STAGES == 1) {
                fj_copy_async_wait<0>();
                fj_block_sync();
            }
            fj_do_block(t, rows, o, ahead[0], stage);
            stage = stage + 1 == FJ_STAGES ? 0 : stage + 1;
        }
#pragma unroll
        for (int i = 1; i < FJ_STAGES; i++) ahead[i - 1] = ahead[i];
    }
    fj_copy_async_wait<0>();
    fj_store_rows(t, rows, o);
}
