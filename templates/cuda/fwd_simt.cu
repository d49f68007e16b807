// Forward attention without tensor cores: any dtype, any dimension, any architecture. The variant that always
// fits, and the one that computes F32 (and F64) in full precision.
//
//              keys (FJ_TILE_N)             a thread holds rows ty, ty + TY, ... and columns tx, tx + 8, ...
//            +-------------------+
//    rows    |   S = Q K^T       |          for each block of keys that is not empty:
//    (FJ_    |   in registers,   |            for each chunk of the depth: S += Q chunk * K chunk
//    TILE_M) |   FJ_SIMT_DEPTH   |            mod, mask, maximum over the row's 8 lanes
//            |   of depth a time |            P = exp2(c (S - M)) to shared memory
//            +-------------------+            O = factor O + P V
//                                           out = O / sum, lse = M + log(sum), M of natural logarithms
//
//  1. A row's 8 threads are neighbours in a warp: they reduce by shuffles and keep equal maxima and sums.
//  2. A block barrier stands between any two of: chunks are written, are read; P and values are written, are
//     read. (P is written after the last barrier of the products and read after that of the values.)
//  3. A score that is masked, or past the last key, is -inf after the mod; its P is 0, whatever the mod gave.
//  4. M is the maximum, as a score: the difference comes first, so that magnitudes do not matter (softmax.h). M = -inf
//     stands for "nothing yet", is subtracted as 0, so that P is 0 and not NaN.
//  5. A key that a row does not see adds exactly nothing to it, but 0 times NaN is NaN. So where a sum of the block is
//     not finite it sweeps again, with 0 for values that are not finite (CLEAN); and once more, for its masks (SPREAD):
//     sums of rows that see such a value become NaN. Without a mask there is one sweep.
//  6. What is not there (rows, keys, columns) is read as zero. Pitches are odd: no conflicts in columns.
#include "hooks.h"

#include "identity.h"

#include "shapes.h"

#include "fwd_grid.h"

#include "elements.h"

#define THREADS (FJ_WARPS * FJ_WARP)
#define TX 8
#define TY (THREADS / TX)
#define SLICE FJ_FWD_SIMT_SLICE(FJ_VALUE_DIM)
#define THREAD_ROWS (FJ_TILE_M / TY)
#define THREAD_KEYS (FJ_TILE_N / TX)
#define THREAD_VALUES (SLICE / TX)
#define DEPTH FJ_SIMT_DEPTH

static_assert(FJ_TILE_M % TY == 0 && FJ_TILE_N % TX == 0, "tiles of whole threads");
#ifdef FJ_SHARED_BYTES
static_assert(FJ_SHARED_BYTES >=
                  FJ_FWD_SIMT_SHARED(FJ_TILE_M, FJ_TILE_N, FJ_HEAD_DIM, FJ_VALUE_DIM, int(sizeof(fj_real))),
              "the plan's shared memory");
#endif

enum fj_care { FJ_CARE_NONE, FJ_CARE_CLEAN, FJ_CARE_SPREAD };

struct fj_simt {
    const fj_forward_call *a;
    int care; // of this sweep
    fj_mod_args mod;
    fj_tile_coord at;
    int32_t tx, ty, column; // column: the first of the slice
    fj_real *q, *k, *p, *v; // in shared memory
#if FJ_DROPOUT
    fj_dropper dropper;
    fj_real kept_scale; // of outputs
#endif
#if FJ_HAS_OUT
    fj_cuda_tensor raw; // fj_raw_output
#endif
    fj_real s[THREAD_ROWS][THREAD_KEYS], o[THREAD_ROWS][THREAD_VALUES];
    fj_real row_max[THREAD_ROWS], sum[THREAD_ROWS];
    int32_t q_index[THREAD_ROWS], h[THREAD_ROWS]; // of the row, or of the last one
    fj_head_state heads[THREAD_ROWS];
    fj_row_state rows[THREAD_ROWS];
};

// ---- From global memory ----------------------------------------------------------------------------------

FJ_DEVICE const fj_element *fj_row_start(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t row) {
    return static_cast<const fj_element *>(t.data) + fj_offset(t, b, h, row);
}

// `width` elements of each row from column `from`, zero where columns end at `dim` or `row_of` gives NULL. clean: zero
// where they are not finite, too.
template <int width, class F>
FJ_DEVICE void fj_simt_copy(fj_real *to, int32_t pitch, int32_t rows, int32_t from, int32_t dim, F row_of,
                            bool clean = false) {
    for (int32_t i = static_cast<int32_t>(fj_thread_x()); i < rows * width; i += THREADS) {
        const int32_t row = i / width, column = i % width;
        const fj_element *start = row_of(row);
        const bool there = start != nullptr && from + column < dim;
        const fj_real x = there ? fj_widen(start[from + column]) : fj_real(0);
        to[row * pitch + column] = clean && x - x != 0 ? fj_real(0) : x;
    }
}

// ---- Products ----------------------------------------------------------------------------------------------

FJ_DEVICE void fj_simt_scores(fj_simt &t, int32_t key) {
    const fj_forward_call &a = *t.a;
    for (int i = 0; i < THREAD_ROWS; i++)
        for (int j = 0; j < THREAD_KEYS; j++) t.s[i][j] = 0;
#pragma unroll 1
    for (int32_t from = 0; from < FJ_HEAD_DIM; from += DEPTH) {
        fj_block_sync();
        fj_simt_copy<DEPTH>(
            t.q, DEPTH + 1, FJ_TILE_M, from, FJ_HEAD_DIM, [&](int32_t i) -> const fj_element * {
                const int32_t row = t.at.first + i;
                if (row >= t.at.rows) return nullptr;
                return fj_row_start(a.query, t.at.b, fj_row_head(t.at, row), fj_row_query(t.at, row));
            });
        fj_simt_copy<DEPTH>(t.k, DEPTH + 1, FJ_TILE_N, from, FJ_HEAD_DIM,
                            [&](int32_t i) -> const fj_element * {
                                if (key + i >= a.kv_len) return nullptr;
                                return fj_key_start<fj_element>(a, a.key, t.at.b, t.at.head_kv, key + i);
                            });
        fj_block_sync();
#pragma unroll 4
        for (int32_t d = 0; d < DEPTH; d++) {
            fj_real q[THREAD_ROWS], k[THREAD_KEYS];
            for (int i = 0; i < THREAD_ROWS; i++) q[i] = t.q[(t.ty + i * TY) * (DEPTH + 1) + d];
            for (int j = 0; j < THREAD_KEYS; j++) k[j] = t.k[(t.tx + j * TX) * (DEPTH + 1) + d];
            for (int i = 0; i < THREAD_ROWS; i++)
                for (int j = 0; j < THREAD_KEYS; j++) t.s[i][j] = fj_fma_rn(q[i], k[j], t.s[i][j]);
        }
    }
}

// The place of P holds what each row sees.
FJ_DEVICE void fj_simt_spread(fj_simt &t) {
#pragma unroll 1
    for (int32_t n = 0; n < FJ_TILE_N; n++)
        for (int j = 0; j < THREAD_VALUES; j++) {
            const fj_real v = t.v[n * SLICE + t.tx + j * TX];
            for (int i = 0; i < THREAD_ROWS; i++)
                if (v - v != 0 && t.p[(t.ty + i * TY) * (FJ_TILE_N + 1) + n] != 0) t.o[i][j] = fj_real(NAN);
        }
}

FJ_DEVICE void fj_simt_values(fj_simt &t, int32_t key) {
    const fj_forward_call &a = *t.a;
    fj_simt_copy<SLICE>(
        t.v, SLICE, FJ_TILE_N, t.column, FJ_VALUE_DIM,
        [&](int32_t i) -> const fj_element * {
            if (key + i >= a.kv_len) return nullptr;
            return fj_key_start<fj_element>(a, a.value, t.at.b, t.at.head_kv, key + i);
        },
        t.care == FJ_CARE_CLEAN);
    fj_block_sync();
    if (t.care == FJ_CARE_SPREAD) {
        fj_simt_spread(t);
        return;
    }
#pragma unroll 2
    for (int32_t n = 0; n < FJ_TILE_N; n++) {
        fj_real p[THREAD_ROWS];
        for (int i = 0; i < THREAD_ROWS; i++) p[i] = t.p[(t.ty + i * TY) * (FJ_TILE_N + 1) + n];
        for (int j = 0; j < THREAD_VALUES; j++) {
            const fj_real v = t.v[n * SLICE + t.tx + j * TX];
            for (int i = 0; i < THREAD_ROWS; i++) t.o[i][j] = fj_fma_rn(p[i], v, t.o[i][j]);
        }
    }
}

// ---- Scores to probabilities ---------------------------------------------------------------------------------

// Whether dropout keeps a key of a row.
FJ_DEVICE bool fj_simt_keeps([[maybe_unused]] const fj_simt &t, [[maybe_unused]] int i,
                             [[maybe_unused]] int32_t kv) {
#if FJ_DROPOUT
    return fj_is_kept(t.dropper, fj_dropout_plane(*t.a, t.at.b, t.h[i]),
                      fj_q_position(*t.a, t.at.b, t.q_index[i]), fj_kv_position(*t.a, t.at.b, kv));
#else
    return true;
#endif
}

// The mod and the mask on one score, of column j; returns what softmax takes.
FJ_DEVICE fj_real fj_simt_mod(const fj_simt &t, int i, int j, int32_t kv, const fj_col_state &col, fj_real s,
                              const fj_streamed_tile &block, const fj_seen &seen,
                              [[maybe_unused]] bool suspect) {
    const fj_forward_call &a = *t.a;
    fj_real x = s * fj_sign_of(a.scale), y = x;
    if (FJ_HAS_SCORE) {
        x = s * static_cast<fj_real>(a.scale);
        y = fj_score(&t.mod, &t.heads[i], &t.rows[i], &col, x);
    }
    const bool live =
        block.is_full() || (kv < a.kv_len && fj_key_is_there(a, kv) &&
                            FJ_SHOWN(seen, 1u << j, fj_mask(&t.mod, &t.heads[i], &t.rows[i], &col)));
    if (FJ_HAS_FAULT && suspect && t.at.first + t.ty + i * TY < t.at.rows) {
        if (fj_fault(&t.mod, &t.heads[i], &t.rows[i], &col, x, live))
            fj_note_fault(a, FJ_CUDA_FAULT_SCORE, t.at.b, t.h[i], fj_q_position(a, t.at.b, t.q_index[i]),
                          fj_kv_position(a, t.at.b, kv));
    }
    if (t.care == FJ_CARE_SPREAD) return fj_cast_float(live && fj_simt_keeps(t, i, kv));
    return live ? y : -fj_real(INFINITY);
}

FJ_DEVICE void fj_simt_apply(fj_simt &t, const fj_streamed_tile &block) {
    const int32_t key = block.first();
    const bool suspect = fj_suspects(*t.a, t.mod, t.at, key);
    fj_seen seen[THREAD_ROWS];
#if FJ_BLOCK_MASK
    if (!block.is_full())
        fj_find_seen<false, fj_strided_columns<THREAD_KEYS, TX>>(t.mod, t.at.b, key + t.tx, seen, [&](int i) {
            return fj_place{t.h[i], t.q_index[i]};
        });
#endif
#pragma unroll
    for (int j = 0; j < THREAD_KEYS; j++) {
        const int32_t kv = key + t.tx + j * TX, position = fj_kv_position(*t.a, t.at.b, kv);
        fj_col_state col;
        if (!FJ_PACK_HEADS) fj_col_init(&t.mod, &t.heads[0], position, &col);
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; i++) {
            if (FJ_PACK_HEADS) fj_col_init(&t.mod, &t.heads[i], position, &col);
            t.s[i][j] = fj_simt_mod(t, i, j, kv, col, t.s[i][j], block, seen[i], suspect);
        }
    }
}

FJ_DEVICE void fj_simt_softmax(fj_simt &t, [[maybe_unused]] int32_t key, fj_real scale_log2) {
    if (t.care == FJ_CARE_SPREAD) {
        for (int n = 0; n < THREAD_ROWS * THREAD_KEYS; n++) {
            const int i = n / THREAD_KEYS, j = n % THREAD_KEYS;
            t.p[(t.ty + i * TY) * (FJ_TILE_N + 1) + t.tx + j * TX] = t.s[i][j];
        }
        return;
    }
    for (int i = 0; i < THREAD_ROWS; i++) {
        fj_real tile_max = t.s[i][0];
        for (int j = 1; j < THREAD_KEYS; j++) tile_max = fj_max_real(tile_max, t.s[i][j]);
        for (uint32_t lane = 1; lane < TX; lane *= 2)
            tile_max = fj_max_real(tile_max, fj_neighbour(tile_max, lane));
        const fj_real row_max = fj_max_real(t.row_max[i], tile_max);
        fj_real base = row_max == -fj_real(INFINITY) ? fj_real(0) : row_max, before = t.row_max[i];
        const fj_base less = fj_base_of(*t.a, scale_log2, base);
        if (less.scale != 1) { // large
            before = less(before);
            for (int j = 0; j < THREAD_KEYS; j++) t.s[i][j] = less(t.s[i][j]);
            base = 0;
        }
        const fj_real factor = fj_prob_exp2((before - base) * scale_log2);
        fj_real sum = 0;
        for (int j = 0; j < THREAD_KEYS; j++) {
            fj_real p = fj_prob_exp2((t.s[i][j] - base) * scale_log2);
            sum += p;
#if FJ_DROPOUT
            p = fj_simt_keeps(t, i, key + t.tx + j * TX) ? p : fj_real(0);
#endif
            t.p[(t.ty + i * TY) * (FJ_TILE_N + 1) + t.tx + j * TX] = p;
        }
        t.row_max[i] = row_max;
        t.sum[i] = fj_fma_rn(t.sum[i], factor, sum);
        for (int j = 0; j < THREAD_VALUES; j++) t.o[i][j] *= factor;
    }
}

// ---- Results ---------------------------------------------------------------------------------------------------

FJ_DEVICE void fj_simt_finish_row(const fj_simt &t, int i) {
    const fj_forward_call &a = *t.a;
    fj_real sum = t.sum[i];
    for (uint32_t lane = 1; lane < TX; lane *= 2) sum += fj_neighbour(sum, lane);
    if (t.at.first + t.ty + i * TY >= t.at.rows) return;
    const fj_parts base = fj_natural_max(a, t.row_max[i]);
    const fj_row_end end = fj_end_row<!FJ_PARTIAL>(t.mod, t.at.b, t.h[i], base, sum);
    const int64_t split = FJ_PARTIAL ? static_cast<int64_t>(fj_block_y()) : 0;
    if (t.tx == 0 && t.column == 0) {
        fj_store_lse(a.lse, a.lse_low, end, t.at.b, t.h[i], t.q_index[i], split * a.split_lse);
        if (!FJ_PARTIAL) fj_look_at_sink(a, t.mod, t.at.b, t.h[i]);
        const int64_t max = fj_offset(a.max, t.at.b, t.h[i], t.q_index[i]) + split * a.split_lse;
        if (FJ_WANT_MAX && a.max.data)
            static_cast<fj_real *>(a.max.data)[max] = sum != sum && t.row_max[i] < fj_real(INFINITY) ? sum
                                                    : sum == 0 ? -fj_real(INFINITY)
                                                               : t.row_max[i] * fj_natural_scale(a);
    }
    const int64_t place = fj_offset(a.out, t.at.b, t.h[i], t.q_index[i]) + split * a.split_out;
#if FJ_DROPOUT
    const fj_real factor = end.factor * t.kept_scale;
#else
    const fj_real factor = end.factor;
#endif
#if FJ_HAS_OUT && !FJ_PARTIAL
    const int32_t q_position = fj_q_position(a, t.at.b, t.q_index[i]);
    const fj_out_place own = fj_out_place_of(t.mod, t.at.b, t.h[i], q_position);
#endif
    for (int j = 0; j < THREAD_VALUES; j++) {
        const int32_t column = t.column + t.tx + j * TX;
        if (column >= FJ_VALUE_DIM) continue;
        fj_real x = !end.dead ? t.o[i][j] * factor : FJ_PARTIAL ? t.o[i][j] : fj_real(0);
#if FJ_HAS_OUT && !FJ_PARTIAL
        if (t.raw.data)
            static_cast<fj_element *>(t.raw.data)[fj_offset(t.raw, t.at.b, t.h[i], t.q_index[i]) + column] =
                fj_narrow(x);
        if (!a.out.data) continue;
        fj_look_at_out(a, t.mod, own, t.at.b, t.h[i], q_position, column, x);
        x = fj_out_of(t.mod, own, column, x);
#endif
        if (FJ_PARTIAL)
            static_cast<fj_real *>(a.out.data)[place + column] = x;
        else if (a.out.data)
            static_cast<fj_element *>(a.out.data)[place + column] = fj_narrow(x);
    }
}

// ---- The kernel --------------------------------------------------------------------------------------------------

FJ_DEVICE void fj_simt_start(fj_simt &t) {
    for (int i = 0; i < THREAD_ROWS; i++) {
        const int32_t row = fj_last_row(t.at, t.at.first + t.ty + i * TY);
        t.q_index[i] = fj_row_query(t.at, row);
        t.h[i] = fj_row_head(t.at, row);
        fj_head_init(&t.mod, t.at.b, t.h[i], &t.heads[i]);
        fj_row_init(&t.mod, &t.heads[i], fj_q_position(*t.a, t.at.b, t.q_index[i]), &t.rows[i]);
        t.row_max[i] = -fj_real(INFINITY);
        t.sum[i] = 0;
        for (int j = 0; j < THREAD_VALUES; j++) t.o[i][j] = 0;
    }
}

// After a sweep: whether there is another one.
FJ_DEVICE bool fj_simt_again([[maybe_unused]] fj_simt &t) {
#if FJ_MASKED
    if (t.care == FJ_CARE_SPREAD) return false;
    if (t.care == FJ_CARE_CLEAN) return t.care = FJ_CARE_SPREAD, true;
    fj_real zeros = 0;
    for (int n = 0; n < THREAD_ROWS * THREAD_VALUES; n++)
        zeros += t.o[n / THREAD_VALUES][n % THREAD_VALUES] * fj_real(0);
    const bool bad = fj_any(zeros != 0);
    bool again = false;
    fj_block_sync(); // P is read no longer, its place holds the votes
    if (fj_lane() == 0) t.p[fj_warp()] = fj_cast_float(bad);
    fj_block_sync();
    for (int warp = 0; warp < FJ_WARPS; warp++) again |= t.p[warp] != 0;
    if (!again) return false;
    t.care = FJ_CARE_CLEAN; // before P is written there are barriers
    fj_simt_start(t);
    return true;
#else
    return false;
#endif
}

FJ_KERNEL(fj_fwd, THREADS, 1, fj_forward_args) {
    const fj_work work = fj_work_of(args);
    if (work.is_idle()) return;
    fj_simt t;
    t.a = &work.call;
    t.mod = fj_mod_of(args);
    t.at = work.at;
    t.tx = static_cast<int32_t>(fj_thread_x() % TX);
    t.ty = static_cast<int32_t>(fj_thread_x() / TX);
    t.column = static_cast<int32_t>(fj_block_z()) * SLICE;
    t.q = fj_shared_at<fj_real>(0);
    t.k = t.q + FJ_TILE_M * (DEPTH + 1);
    t.p = t.k + FJ_TILE_N * (DEPTH + 1);
    t.v = t.p + FJ_TILE_M * (FJ_TILE_N + 1);
#if FJ_DROPOUT
    t.dropper = fj_dropper_of(args.dropout);
    t.kept_scale = static_cast<fj_real>(args.dropout.scale);
#endif
#if FJ_HAS_OUT
    t.raw = fj_raw_output(args, t.at.b);
#endif
    t.care = FJ_CARE_NONE;
    fj_simt_start(t);
    const fj_real scale_log2 = fj_scale_log2_of(args.call);
    fj_tile_scheduler tiles = fj_tile_start(t.at);
#pragma unroll 1
    for (;;) {
        const fj_streamed_tile block = fj_tile_next(*t.a, t.mod, t.at, tiles);
        if (block.is_end()) {
            if (!fj_simt_again(t)) break;
            tiles = fj_tile_start(t.at);
            continue;
        }
        const int32_t key = block.first();
        fj_simt_scores(t, key);
        fj_simt_apply(t, block);
        fj_simt_softmax(t, key, scale_log2);
        fj_simt_values(t, key);
    }
    for (int i = 0; i < THREAD_ROWS; i++) fj_simt_finish_row(t, i);
}

#if FJ_PARTIAL
#include "fwd_merge.cu"
#endif
