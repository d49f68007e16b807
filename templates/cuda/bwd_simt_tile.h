// A tile of bwd_simt: its constants, loads, products and scores; resident rows and their results.
#ifndef FJ_CUDA_BWD_SIMT_TILE_H
#define FJ_CUDA_BWD_SIMT_TILE_H

#include "bwd_grid.h"

#include "bwd_care.h"

// Where forward computes scores on tensor cores, these do not have the same last bits, and a large lse not the same
// fraction: then the lse of these is measured, at one product more.
#define FJ_RECOMPUTES_LSE (FJ_IN_DTYPE == FJ_DTYPE_F32 && FJ_ARCH >= 80)

#define THREADS (FJ_WARPS * FJ_WARP)
#define TX 8
#define TY (THREADS / TX)
#define DEPTH FJ_SIMT_DEPTH
#define RESIDENT (FJ_TILE_M / TY) // rows of a thread
#define STREAMED (FJ_TILE_N / TX) // columns of a thread
#define PART (DEPTH / TX)         // columns of a chunk of sums
#define E_CHUNKS FJ_CEIL_DIV(FJ_HEAD_DIM, DEPTH)
#define V_CHUNKS FJ_CEIL_DIV(FJ_VALUE_DIM, DEPTH)

static_assert(FJ_TILE_M % TY == 0 && FJ_TILE_N % TX == 0, "tiles of whole threads");
#ifdef FJ_SHARED_BYTES
static_assert(FJ_SHARED_BYTES >= FJ_BWD_SIMT_SHARED(FJ_TILE_M, FJ_TILE_N, int(sizeof(fj_real))),
              "the plan's shared memory");
#endif

typedef fj_real fj_scores[RESIDENT][STREAMED];

struct fj_simt {
    fj_own_backward a;
    const fj_mod_args mod;
    const fj_tile_coord at;
    const int32_t tx, ty;
    fj_real *resident, *streamed; // chunks: rows of DEPTH + 1
    fj_real *p, *ds;              // rows of FJ_TILE_N + 1
    fj_real *row_stats;           // of streamed queries: FJ_CUDA_ROW_REALS each
    fj_real product_scale;        // fj_product_scale_of
#if FJ_DROPOUT
    fj_dropper dropper;
    fj_real kept_scale;
#endif
    FJ_METHOD int32_t row(int i) const { return at.first + ty + i * TY; }
};

// What a thread keeps of its resident rows.
template <fj_side side> struct fj_resident;
template <> struct fj_resident<FJ_RESIDENT_KEYS> {
    struct fj_col_state state[RESIDENT];
#if FJ_BLOCK_MASK
    int32_t head; // of queries, that these states are of
#endif
};
template <> struct fj_resident<FJ_RESIDENT_QUERIES> {
    struct fj_row_state state[RESIDENT];
#if FJ_BLOCK_MASK
    int32_t head; // of queries, that these states are of
#endif
    fj_real minus_delta[RESIDENT];
    fj_norm norm[RESIDENT];
};

// ---- From global memory ------------------------------------------------------------------------------------

// bwd_care.h of one element of what is streamed.
FJ_DEVICE fj_real fj_clean(fj_real x, int how) {
    const bool finite = fj_is_finite(x);
    if (how == FJ_MARK) return finite ? fj_real(0) : fj_real(1);
    return finite || how == FJ_PLAIN ? x : fj_real(0);
}

// DEPTH elements of each row from column `from`; zero where columns end at `dim` or rows at `count`.
FJ_DEVICE void fj_copy_chunk(fj_real *to, int32_t rows, const fj_cuda_tensor &t, int32_t b, int32_t h,
                             int32_t first, int32_t count, int32_t from, int32_t dim, int how = FJ_PLAIN) {
    for (int32_t i = static_cast<int32_t>(fj_thread_x()); i < rows * DEPTH; i += THREADS) {
        const int32_t row = i / DEPTH, column = from + i % DEPTH;
        const bool there = first + row < count && column < dim;
        to[row * (DEPTH + 1) + i % DEPTH] =
            there ? fj_clean(fj_widen(fj_row_start(t, b, h, first + row)[column]), how) : fj_real(0);
    }
}

// What the rows hold of the streamed queries. The tile before is past its barriers of sums; those
// of this tile follow.
FJ_DEVICE void fj_copy_row_stats(const fj_simt &t, int32_t head, int32_t first) {
    for (int32_t i = static_cast<int32_t>(fj_thread_x()); i < FJ_CUDA_ROW_REALS * FJ_TILE_N; i += THREADS) {
        const int32_t q = first + i / FJ_CUDA_ROW_REALS, which = i % FJ_CUDA_ROW_REALS;
        t.row_stats[i] = q < t.a.q_len ? fj_row_stats_of(t.a, t.at.b, head, q)[which] : fj_real(0);
    }
}

// ---- Products ------------------------------------------------------------------------------------------------

// s = resident rows of x times streamed rows of y, transposed.
FJ_DEVICE void fj_multiply_rows(const fj_simt &t, fj_scores &s, const fj_cuda_tensor &x, int32_t x_head,
                                const fj_cuda_tensor &y, int32_t y_head, int32_t first, int32_t dim) {
    for (int i = 0; i < RESIDENT; i++)
        for (int j = 0; j < STREAMED; j++) s[i][j] = 0;
#pragma unroll 1
    for (int32_t from = 0; from < dim; from += DEPTH) {
        fj_block_sync();
        fj_copy_chunk(t.resident, FJ_TILE_M, x, t.at.b, x_head, t.at.first, t.at.count, from, dim);
        fj_copy_chunk(t.streamed, FJ_TILE_N, y, t.at.b, y_head, first, t.at.streamed, from, dim);
        fj_block_sync();
#pragma unroll 4
        for (int32_t d = 0; d < DEPTH; d++) {
            fj_real resident[RESIDENT], streamed[STREAMED];
#pragma unroll
            for (int i = 0; i < RESIDENT; i++) resident[i] = t.resident[(t.ty + i * TY) * (DEPTH + 1) + d];
#pragma unroll
            for (int j = 0; j < STREAMED; j++) streamed[j] = t.streamed[(t.tx + j * TX) * (DEPTH + 1) + d];
#pragma unroll
            for (int i = 0; i < RESIDENT; i++)
#pragma unroll
                for (int j = 0; j < STREAMED; j++) s[i][j] = fj_fma_rn(resident[i], streamed[j], s[i][j]);
        }
    }
}

// sum += weights (P or dS) times streamed rows of y.
template <int chunks>
FJ_DEVICE void fj_multiply_frag(const fj_simt &t, fj_real (&sum)[chunks][RESIDENT][PART],
                                const fj_real *weights, const fj_cuda_tensor &y, int32_t head, int32_t first,
                                int32_t dim, int how) {
#pragma unroll
    for (int chunk = 0; chunk < chunks; chunk++) {
        fj_block_sync();
        fj_copy_chunk(t.streamed, FJ_TILE_N, y, t.at.b, head, first, t.at.streamed, chunk * DEPTH, dim, how);
        fj_block_sync();
#pragma unroll 1
        for (int32_t n = 0; n < FJ_TILE_N; n++) {
            fj_real w[RESIDENT];
#pragma unroll
            for (int i = 0; i < RESIDENT; i++) w[i] = weights[(t.ty + i * TY) * (FJ_TILE_N + 1) + n];
#pragma unroll
            for (int j = 0; j < PART; j++) {
                const fj_real x = t.streamed[n * (DEPTH + 1) + t.tx + j * TX];
#pragma unroll
                for (int i = 0; i < RESIDENT; i++) sum[chunk][i][j] = fj_fma_rn(w[i], x, sum[chunk][i][j]);
            }
        }
    }
}

// ---- Scores --------------------------------------------------------------------------------------------------

FJ_DEVICE int32_t fj_last_resident(const fj_simt &t, int i) {
    return t.row(i) < t.at.count ? t.row(i) : t.at.count - 1;
}

// What the block mask shows of the columns of this thread, in a tile that is not full.
template <fj_side side>
FJ_DEVICE void fj_find_seen([[maybe_unused]] const fj_simt &t,
                            [[maybe_unused]] const fj_resident<side> &resident,
                            [[maybe_unused]] int32_t first, [[maybe_unused]] bool full,
                            [[maybe_unused]] fj_seen (&seen)[RESIDENT]) {
#if FJ_BLOCK_MASK
    if (full) return;
    fj_find_seen<side == FJ_RESIDENT_KEYS, fj_strided_columns<STREAMED, TX>>(
        t.mod, t.at.b, first + t.tx, seen, [&](int i) {
            return fj_place{resident.head, fj_last_resident(t, i)};
        });
#endif
}

// Whether dropout keeps a pair. head: of queries.
FJ_DEVICE bool fj_keeps([[maybe_unused]] const fj_simt &t, [[maybe_unused]] int32_t head,
                        [[maybe_unused]] int32_t q, [[maybe_unused]] int32_t kv) {
#if FJ_DROPOUT
    return fj_is_kept(t.dropper, fj_dropout_plane(t.a, t.at.b, head), fj_q_position(t.a, t.at.b, q),
                      fj_kv_position(t.a, t.at.b, kv));
#else
    return true;
#endif
}
// dP - delta. d: dP before dropout.
FJ_DEVICE fj_real fj_grad_of([[maybe_unused]] const fj_simt &t, [[maybe_unused]] bool kept, fj_real d,
                             fj_real minus_delta) {
#if FJ_DROPOUT
    d = fj_dropped_grad(kept, t.kept_scale, d, fj_real(0));
#endif
    return d + minus_delta;
}

// What sees nothing is not live, whatever it holds (bwd_care.h). seen: of the thread's columns; this is column j.
FJ_DEVICE bool fj_is_live(const fj_simt &t, const struct fj_head_state *head, const struct fj_row_state *row,
                          const struct fj_col_state *col, const fj_norm &norm, bool full, bool there,
                          [[maybe_unused]] const fj_seen &seen, [[maybe_unused]] int j) {
    if (norm.lse == fj_real(INFINITY)) return false;
    if (full) return true;
#if FJ_MASKED
    return there && FJ_SHOWN(seen, 1u << j, fj_mask(&t.mod, head, row, col));
#else
    (void)t, (void)head, (void)row, (void)col;
    return there;
#endif
}

// S and dP become P and dS, in shared memory. head_index: of queries, as head; first, full: of fj_tile_next.
FJ_DEVICE void fj_apply(const fj_simt &t, const fj_resident<FJ_RESIDENT_KEYS> &resident,
                        const struct fj_head_state &head, [[maybe_unused]] int32_t head_index, int32_t first,
                        bool full, fj_scores &s, fj_scores &d, fj_thread_grads &grads, int how) {
    fj_seen seen[RESIDENT];
    fj_find_seen<FJ_RESIDENT_KEYS>(t, resident, first, full, seen);
#pragma unroll
    for (int j = 0; j < STREAMED; j++) {
        const int32_t in_tile = t.tx + j * TX, q = first + in_tile;
        const fj_real *row_stats = t.row_stats + FJ_CUDA_ROW_REALS * in_tile;
        const fj_norm norm = fj_norm_at(row_stats);
        struct fj_row_state row;
        fj_row_init(&t.mod, &head, fj_q_position(t.a, t.at.b, q), &row);
        if (!FJ_HAS_SCORE && norm.natural != 0)
            for (int i = 0; i < RESIDENT; i++)
                s[i][j] = fj_base_of(t.a, t.product_scale, norm.natural)(s[i][j]);
#pragma unroll
        for (int i = 0; i < RESIDENT; i++) {
            const bool there = q < t.at.streamed && t.row(i) < t.at.count;
            const bool live = fj_is_live(t, &head, &row, &resident.state[i], norm, full, there, seen[i], j);
            const bool kept = fj_keeps(t, head_index, q, t.row(i));
            d[i][j] = fj_grad_of(t, kept, d[i][j], row_stats[FJ_CUDA_ROW_MINUS_DELTA]);
            fj_grad_score(t.product_scale, t.mod, &head, &row, &resident.state[i], norm, live, s[i][j],
                          d[i][j], grads);
            if (how == FJ_MARK) s[i][j] = d[i][j] = live ? fj_real(1) : fj_real(0);
            if (FJ_DROPOUT && !kept) s[i][j] = 0;
        }
    }
}
// Of large rows the products become differences (fj_norm).
FJ_DEVICE void fj_make_near(const fj_simt &t, const fj_resident<FJ_RESIDENT_QUERIES> &resident,
                            fj_scores &s) {
    for (int i = 0; i < RESIDENT && !FJ_HAS_SCORE; i++) {
        if (resident.norm[i].natural == 0) continue;
        const fj_base less = fj_base_of(t.a, t.product_scale, resident.norm[i].natural);
        for (int j = 0; j < STREAMED; j++) s[i][j] = less(s[i][j]);
    }
}
FJ_DEVICE void fj_apply(const fj_simt &t, const fj_resident<FJ_RESIDENT_QUERIES> &resident,
                        const struct fj_head_state &head, int32_t first, bool full, fj_scores &s,
                        fj_scores &d, fj_thread_grads &grads, int how) {
    fj_seen seen[RESIDENT];
    fj_find_seen<FJ_RESIDENT_QUERIES>(t, resident, first, full, seen);
    fj_make_near(t, resident, s);
#pragma unroll
    for (int j = 0; j < STREAMED; j++) {
        const int32_t kv = first + t.tx + j * TX;
        struct fj_col_state col;
        fj_col_init(&t.mod, &head, fj_kv_position(t.a, t.at.b, kv), &col);
#pragma unroll
        for (int i = 0; i < RESIDENT; i++) {
            const bool there = kv < t.at.streamed && t.row(i) < t.at.count;
            const bool live =
                fj_is_live(t, &head, &resident.state[i], &col, resident.norm[i], full, there, seen[i], j);
            d[i][j] = fj_grad_of(t, fj_keeps(t, t.at.head, t.row(i), kv), d[i][j], resident.minus_delta[i]);
            fj_grad_score(t.product_scale, t.mod, &head, &resident.state[i], &col, resident.norm[i], live,
                          s[i][j], d[i][j], grads);
            if (how == FJ_MARK) d[i][j] = live ? fj_real(1) : fj_real(0);
        }
    }
}

FJ_DEVICE void fj_put_probs(const fj_simt &t, fj_real *to, const fj_scores &s) {
#pragma unroll
    for (int i = 0; i < RESIDENT; i++)
#pragma unroll
        for (int j = 0; j < STREAMED; j++) to[(t.ty + i * TY) * (FJ_TILE_N + 1) + t.tx + j * TX] = s[i][j];
}

// ---- Resident rows --------------------------------------------------------------------------------------------------

FJ_DEVICE void fj_start_resident(const fj_simt &t, const struct fj_head_state &head,
                                 [[maybe_unused]] int32_t h, fj_resident<FJ_RESIDENT_KEYS> &resident) {
#if FJ_BLOCK_MASK
    resident.head = h;
#endif
#pragma unroll
    for (int i = 0; i < RESIDENT; i++)
        fj_col_init(&t.mod, &head, fj_kv_position(t.a, t.at.b, fj_last_resident(t, i)), &resident.state[i]);
}
FJ_DEVICE void fj_start_states(const fj_simt &t, const struct fj_head_state &head,
                               fj_resident<FJ_RESIDENT_QUERIES> &resident) {
#if FJ_BLOCK_MASK
    resident.head = t.at.head;
#endif
#pragma unroll
    for (int i = 0; i < RESIDENT; i++)
        fj_row_init(&t.mod, &head, fj_q_position(t.a, t.at.b, fj_last_resident(t, i)), &resident.state[i]);
}
FJ_DEVICE void fj_start_resident(const fj_simt &t, const struct fj_head_state &head,
                                 fj_resident<FJ_RESIDENT_QUERIES> &resident) {
    fj_start_states(t, head, resident);
#pragma unroll
    for (int i = 0; i < RESIDENT; i++) {
        const fj_row_stats row_stats = fj_row_stats_of(t.a, t.at.b, t.at.head, fj_last_resident(t, i));
        resident.norm[i] = fj_norm_at(row_stats);
        resident.minus_delta[i] = row_stats[FJ_CUDA_ROW_MINUS_DELTA];
    }
}

template <int chunks> FJ_DEVICE void fj_clear(fj_real (&sum)[chunks][RESIDENT][PART]) {
#pragma unroll
    for (int n = 0; n < chunks * RESIDENT * PART; n++)
        sum[n / PART / RESIDENT][n / PART % RESIDENT][n % PART] = 0;
}

template <int chunks>
FJ_DEVICE void fj_store(const fj_simt &t, const fj_cuda_tensor &to, int32_t head,
                        const fj_real (&sum)[chunks][RESIDENT][PART], int32_t dim, fj_real scale,
                        bool marks) {
    if (!to.data) return;
#pragma unroll
    for (int i = 0; i < RESIDENT; i++) {
        if (t.row(i) >= t.at.count) continue;
        fj_element *row = static_cast<fj_element *>(to.data) + fj_offset(to, t.at.b, head, t.row(i));
#pragma unroll
        for (int n = 0; n < chunks * PART; n++) {
            const int32_t column = n / PART * DEPTH + t.tx + n % PART * TX;
            const fj_real x = sum[n / PART][i][n % PART];
            if (column >= dim || (marks && x == 0)) continue;
            row[column] = fj_narrow(marks ? fj_real(NAN) : x * scale);
        }
    }
}

FJ_DEVICE fj_simt fj_simt_of(const fj_backward_args &args, const fj_work &work) {
    fj_real *resident = fj_shared_at<fj_real>(0), *streamed = resident + FJ_TILE_M * (DEPTH + 1);
    fj_real *p = streamed + FJ_TILE_N * (DEPTH + 1), *ds = p + FJ_TILE_M * (FJ_TILE_N + 1);
    const int32_t thread = static_cast<int32_t>(fj_thread_x());
    return fj_simt {
        work.call, fj_mod_of(args), work.at, thread % TX, thread / TX, resident, streamed, p, ds,
            ds + FJ_TILE_M *(FJ_TILE_N + 1), fj_product_scale_of(work.call)
#if FJ_DROPOUT
                                                 ,
            fj_dropper_of(args.dropout), static_cast<fj_real>(args.dropout.scale)
#endif
    };
}

#endif
