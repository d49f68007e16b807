/* What the rounds of backward do with a tile: the products, and between them the pass over its rows. The invariants are at
 * the head of bwd.c. */
#ifndef FJ_BWD_TILES_H
#define FJ_BWD_TILES_H

#include "bwd_capture_grads.h"

#include "bwd_rows.h"

#define FJ_LOG2_E ((fj_real)1.44269504088896340736)

/* ---- Rows --------------------------------------------------------------------------------------- */

struct pass {
    const struct item *it;
    const struct grid *grid;
    int64_t head, q, key; /* the tile's head, first row and first key */
    int rows, keys;
    int skipped;            /* rows of the tile before q, which see nothing (own->masks and rows have them) */
    int from, to;           /* keys that rows of the tile see: whole grains, but for the last key */
    fj_real *dkey, *dvalue; /* sums of the block, lines of FJ_E_LINE and FJ_V_LINE */
    int measures;           /* delta instead of gradients (invariant 7) */
#if FJ_HAS_SCORE
    struct fj_capture_grads grads;
#endif
};

/* What a row's exponents are made with (invariant 2). */
struct exponent {
    fj_f base, unit, low;
};
FJ_INLINE struct exponent exponent_of(const struct scratch *own, int row) {
    return (struct exponent){tile_splat(own->base[row]), tile_splat(own->unit[row]),
                             tile_splat(own->low[row])};
}

static inline const struct fj_row_state *row_state(const struct pass *p, int row) {
    return &p->it->own->rows[FJ_ROW_EMPTY ? 0 : p->skipped + row];
}

/* One vector of a row: P of S, whether masked or not; *ret_score is what the mod saw. */
FJ_INLINE fj_f prob_vector(const struct pass *p, int row, int at, fj_f raw, struct exponent x,
                           fj_f *ret_score) {
    const struct scratch *own = p->it->own;
    const struct fj_row_state *state = row_state(p, row);
    const struct fj_col_state *col = &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES];
    (void)state, (void)col;
#if FJ_HAS_SCORE
    const struct fj_cpu_args *a = p->it->args;
    *ret_score = raw * tile_splat((fj_real)a->scale);
    const fj_f score = fj_score(a, &own->head, state, col, *ret_score);
#else
    const fj_f score = *ret_score = raw;
#endif
    return tile_exp2(tile_fma(score - x.base, x.unit, x.low));
}

/* The lanes of a vector that are neither masked nor past the last key, once mask_tile found them. */
FJ_INLINE fj_b live_vector(const struct pass *p, int row, int at) {
    return fj_unbits_b(p->it->own->masks[p->skipped + row][at / FJ_LANES]);
}

#if FJ_DROPOUT
/* Which probabilities of the tile are kept, of the keys that it sees. */
static void keep_tile(const struct pass *p) {
    const struct item *it = p->it;
    const int64_t first = p->key / FJ_KEEP_KEYS, from = (p->key + p->from) / FJ_KEEP_KEYS;
    const struct dropout_rows t = {.args = it->args,
                                   .b = batch_of(it),
                                   .h = p->head,
                                   .q = (int32_t)p->q + it->args->q_offset,
                                   .rows = p->rows,
                                   .group = from,
                                   .groups = (int)((p->key + p->to - 1) / FJ_KEEP_KEYS + 1 - from),
                                   .keep = &it->own->keep[0][from - first],
                                   .line = FJ_TILE_KV / FJ_KEEP_KEYS + 2};
    dropout_bits(&t);
}

FJ_INLINE fj_b kept_vector(const struct pass *p, int row, int at) {
    return dropout_lanes(p->it->own->keep[row], p->key % FJ_KEEP_KEYS + at);
}
#endif

/* dP of dO V^T: what dropout takes has none. */
FJ_INLINE fj_f kept_adjoint(const struct pass *p, int row, int at, fj_f product) {
#if FJ_DROPOUT
    product = fj_where_f(kept_vector(p, row, at), product * tile_splat((fj_real)p->it->args->dropout_scale),
                         tile_splat(0));
#endif
    return (void)p, (void)row, (void)at, product;
}

/* One vector of a row: S and dP become P, as it multiplies dO, and dS. */
FJ_INLINE void grad_vector(struct pass *p, int row, int at, fj_real *s, fj_real *d, struct exponent x,
                           fj_f delta, const int masked) {
    const fj_f zero = tile_splat(0);
    fj_f score, prob = prob_vector(p, row, at, tile_load(s + at), x, &score);
    fj_f ds = prob * (kept_adjoint(p, row, at, tile_load(d + at)) - delta);
    fj_b live = fj_splat_b(1);
    if (masked) {
        live = live_vector(p, row, at);
        prob = fj_where_f(live, prob, zero);
        ds = fj_where_f(live, ds, zero);
    }
#if FJ_HAS_SCORE
    const struct scratch *own = p->it->own;
    ds = fj_score_grad(p->it->args, &own->head, row_state(p, row),
                       &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES], score, ds, live, &p->grads);
    if (masked) ds = fj_where_f(live, ds, zero);
#endif
#if FJ_DROPOUT
    prob = fj_where_f(kept_vector(p, row, at), prob, zero);
#endif
    tile_store(s + at, prob);
    tile_store(d + at, ds);
}

static inline int is_dead(const struct scratch *own, int row) { return own->base[row] == -FJ_INF; }

/* Where loops over pairs of vectors end. */
static inline int end_of(const struct pass *p) { return FJ_ROUND(p->to, 2 * FJ_LANES); }

/* A row of S, where its scores are large. */
FJ_INLINE void open_row(const struct pass *p, int row, fj_real *s) {
    if (!FJ_HAS_SCORE && __builtin_expect(p->it->own->natural[row], 0))
        tile_scale_line(s + p->from, end_of(p) - p->from, (fj_real)p->it->args->scale);
}

FJ_INLINE void grad_rows(struct pass *p, const int masked) {
    struct scratch *own = p->it->own;
    const int end = end_of(p);
    for (int row = 0; row < p->rows; row++) {
        fj_real *s = own->scores + (int64_t)row * FJ_S_LINE, *d = own->adjoints + (int64_t)row * FJ_S_LINE;
        if (is_dead(own, row)) {
            memset(s + p->from, 0, sizeof(fj_real) * (size_t)(end - p->from));
            memset(d + p->from, 0, sizeof(fj_real) * (size_t)(end - p->from));
            continue;
        }
        open_row(p, row, s);
        const struct exponent x = exponent_of(own, row);
        const fj_f delta = tile_splat(own->delta[row]);
        for (int at = p->from; at < end; at += FJ_LANES) grad_vector(p, row, at, s, d, x, delta, masked);
    }
}
/* Flat, so that what fj_score and fj_score_grad both compute is computed once. */
static __attribute__((noinline, flatten)) void grad_masked(struct pass *p) { grad_rows(p, 1); }
static __attribute__((noinline, flatten)) void grad_full(struct pass *p) { grad_rows(p, 0); }

#if FJ_MEASURED_DELTA
/* delta += rowsum(P dP) of the tile. */
static __attribute__((noinline, flatten)) void measure_rows(const struct pass *p, int masked) {
    const struct scratch *own = p->it->own;
    fj_real *delta = grid_delta(p->it->args, p->grid, p->it->batch, p->head) + p->q;
    for (int row = 0; row < p->rows; row++) {
        const fj_real *s = own->scores + (int64_t)row * FJ_S_LINE,
                      *d = own->adjoints + (int64_t)row * FJ_S_LINE;
        fj_f sum = tile_splat(0), score;
        if (is_dead(own, row)) continue;
        const struct exponent x = exponent_of(own, row);
        for (int at = p->from; at < end_of(p); at += FJ_LANES) {
            fj_f part = prob_vector(p, row, at, tile_load(s + at), x, &score);
            part = part * kept_adjoint(p, row, at, tile_load(d + at));
            sum += masked ? fj_where_f(live_vector(p, row, at), part, tile_splat(0)) : part;
        }
        delta[row] += sum_lanes(sum);
    }
}
#endif

#if FJ_PAIRS
/* P and dS as operands: along the queries for dV and dK, along the keys for dQ. */
static __attribute__((noinline)) void make_pairs(const struct pass *p) {
    struct scratch *own = p->it->own;
    const int end = end_of(p);
    const fj_f zero = tile_splat(0);
    for (int row = 0; row < p->rows; row += 2) {
        const int64_t at = (int64_t)row * FJ_S_LINE;
        const int both = row + 1 < p->rows;
        const fj_real *s = own->scores + at, *d = own->adjoints + at;
        fj_opd *p_row = own->p_rows + at / 2, *ds_row = own->ds_rows + at / 2;
        fj_opd *keys = own->ds_keys + (int64_t)row * FJ_K_LINE;
        for (int j = p->from; j < end; j += 2 * FJ_LANES) {
            fj_f d0[2], d1[2];
            FJ_UNROLL for (int k = 0; k < 2; k++) {
                const int c = j + k * FJ_LANES;
                d0[k] = tile_load(d + c);
                d1[k] = both ? tile_load(d + FJ_S_LINE + c) : zero;
                *(fj_ov *)(p_row + c) =
                    tile_zip(tile_load(s + c), both ? tile_load(s + FJ_S_LINE + c) : zero);
                *(fj_ov *)(ds_row + c) = tile_zip(d0[k], d1[k]);
            }
            tile_store_depth(keys + j / 2, d0[0], d0[1]);
            tile_store_depth(keys + FJ_K_LINE + j / 2, d1[0], d1[1]);
        }
    }
}
#endif

/* What a row sees of the block, as bits of vectors. */
static inline void row_bits(const struct pass *p, int row, uint16_t *masks) {
#if FJ_BLOCK_MASK
    struct block_bits blocks;
    find_block_bits(p->it->args, batch_of(p->it), p->head, p->q + row + p->it->args->q_offset, p->key,
                    p->keys, &blocks);
#endif
    (void)row;
    for (int at = 0; at < p->keys; at += FJ_LANES) {
        fj_b live = fj_lanes_below(p->keys - at);
#if FJ_MASKED
        const struct scratch *own = p->it->own;
        fj_b seen =
            fj_mask(p->it->args, &own->head, row_state(p, row), &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES]);
#if FJ_BLOCK_MASK
        seen = block_live(&blocks, at / FJ_LANES, seen);
#endif
        live = fj_and_b(live, seen);
#endif
        masks[at / FJ_LANES] = (uint16_t)fj_bits_b(live);
    }
    /* Past the last whole vector lies one that only loops over pairs of vectors see. */
    if (FJ_ROUND(p->keys, FJ_LANES) % (2 * FJ_LANES)) masks[FJ_ROUND(p->keys, FJ_LANES) / FJ_LANES] = 0;
}

/* Evaluates the mask of the tile over the block, and cuts the tile down to the grains of rows and keys that hold
 * anything. Returns its class. */
static __attribute__((noinline)) int mask_tile(struct pass *p) {
    struct scratch *own = p->it->own;
    const int vectors = FJ_ROUND(p->keys, 2 * FJ_LANES) / FJ_LANES;
    uint32_t any[FJ_ROUND(FJ_TILE_KV, 2 * FJ_LANES) / FJ_LANES] = {0}, all = FJ_ALL_BITS;
    int first = -1, last = 0;
    for (int row = 0; row < p->rows; row++) {
        uint32_t seen = 0;
        row_bits(p, row, own->masks[row]);
        for (int v = 0; v < vectors; v++) {
            const uint32_t bits = own->masks[row][v];
            any[v] |= bits, seen |= bits, all &= bits;
        }
        if (seen) last = row, first = first < 0 ? row : first;
    }
    if (first < 0) return 0;
    int from = 0, to = vectors;
    while (!any[from]) from++;
    while (!any[to - 1]) to--;
    p->from = from * FJ_LANES / FJ_GRAIN * FJ_GRAIN;
    p->to = (int)least(FJ_ROUND(to * FJ_LANES, FJ_GRAIN), p->keys);
    p->skipped = first / FJ_ROW_GRAIN * FJ_ROW_GRAIN;
    p->rows = (int)least(FJ_ROUND(last + 1, FJ_ROW_GRAIN), p->rows) - p->skipped;
    p->q += p->skipped;
    return all == FJ_ALL_BITS ? 2 : 1;
}

/* A B operand of rows of input without what is not finite; the rows that hold some are listed and counted. */
FJ_INLINE int pack_rows(fj_opd *packed, const char *src, const struct fj_cpu_tensor *t, int rows,
                        const int columns, uint16_t *list) {
    const int64_t stride = t->stride[2] * FJ_IN_SIZE;
    if (!tile_pack_depth(packed, src, stride, rows, columns)) return 0;
    return tile_clear_nonfinite(packed, src, stride, rows, columns, list);
}

/* What is loaded and multiplied, before and after the pass. */
FJ_SHARED void load_tile(const struct pass *p);
FJ_SHARED void multiply_in(const struct pass *p);
FJ_SHARED void multiply_out(const struct pass *p);

#if FJ_IN_PART(2)

/* Q, dO, lse and delta of the tile. */
FJ_SHARED void load_tile(const struct pass *p) {
    const struct fj_cpu_args *a = p->it->args;
    struct scratch *own = p->it->own;
    const int64_t b = p->it->batch, h = p->head;
    const fj_real *delta = grid_delta(a, p->grid, b, h) + p->q, scale = FJ_HAS_SCORE ? 1 : (fj_real)a->scale;
    const fj_real unit = scale != 0 ? (fj_real)((double)scale * 1.44269504088896340736) : 1;
    for (int row = 0; row < p->rows; row++) {
        const int64_t q = p->q + row;
        fj_opd *line = own->queries + (int64_t)row * FJ_Q_OPERANDS;
        tile_pack_row(line, FJ_Q_OPERANDS, row_at(&a->query, b, h, q), FJ_HEAD_DIM, 0);
        if (!FJ_HAS_SCORE && (fj_real)a->scale == 0) tile_annul(line, FJ_Q_OPERANDS);
        tile_pack_row(own->douts + (int64_t)row * FJ_O_OPERANDS, FJ_O_OPERANDS, row_at(&a->dout, b, h, q),
                      FJ_VALUE_DIM, 0);
        own->natural[row] = (unsigned char)is_large(real_at(&a->lse, b, h, q));
        own->unit[row] = own->natural[row] ? FJ_LOG2_E : unit;
        own->base[row] = delta[row + grid_base(a)];
        own->low[row] = delta[row + grid_low(a)];
        own->delta[row] = delta[row];
    }
    own->nonfinite_queries = pack_rows(own->query_rows, row_at(&a->query, b, h, p->q), &a->query, p->rows,
                                       FJ_HEAD_DIM, own->query_list);
    own->nonfinite_douts = pack_rows(own->dout_rows, row_at(&a->dout, b, h, p->q), &a->dout, p->rows,
                                     FJ_VALUE_DIM, own->dout_list);
    for (int row = 0; row < p->rows; row++)
        if (__builtin_expect(is_dead(own, row), 0)) {
            tile_clear_row(own->query_rows, p->rows, row, FJ_HEAD_DIM);
            tile_clear_row(own->dout_rows, p->rows, row, FJ_VALUE_DIM);
        }
}

/* S = Q K^T and dP = dO V^T. */
FJ_SHARED void multiply_in(const struct pass *p) {
    struct scratch *own = p->it->own;
    struct tile_product qk = {.a = own->queries,
                              .a_row = FJ_Q_OPERANDS,
                              .a_depth = 1,
                              .b = own->keys + (int64_t)FJ_DEPTH(FJ_HEAD_DIM) * p->from,
                              .c = own->scores + p->from,
                              .c_row = FJ_S_LINE,
                              .depth = FJ_DEPTH(FJ_HEAD_DIM)};
    tile_multiply(qk, p->rows, p->to - p->from, (int64_t)FJ_DEPTH(FJ_HEAD_DIM) * FJ_PANEL, TILE_SET);
    struct tile_product ov = {.a = own->douts,
                              .a_row = FJ_O_OPERANDS,
                              .a_depth = 1,
                              .b = own->values + (int64_t)FJ_DEPTH(FJ_VALUE_DIM) * p->from,
                              .c = own->adjoints + p->from,
                              .c_row = FJ_S_LINE,
                              .depth = FJ_DEPTH(FJ_VALUE_DIM)};
    tile_multiply(ov, p->rows, p->to - p->from, (int64_t)FJ_DEPTH(FJ_VALUE_DIM) * FJ_PANEL, TILE_SET);
}

/* dV += P^T dO, dK += dS^T Q, dQ += dS K; those that are wanted. */
FJ_SHARED void multiply_out(const struct pass *p) {
    const struct item *it = p->it;
    struct scratch *own = it->own;
#if FJ_PAIRS
    const fj_opd *p_rows = own->p_rows, *ds_rows = own->ds_rows, *ds_keys = own->ds_keys;
    const int64_t ds_line = FJ_K_LINE;
#else
    const fj_opd *p_rows = own->scores, *ds_rows = own->adjoints, *ds_keys = own->adjoints;
    const int64_t ds_line = FJ_S_LINE;
#endif
    const int64_t rows = FJ_DEPTH(p->rows), panel = (int64_t)FJ_DEPTH(p->keys) * FJ_PANEL;
    const int from = p->from, keys = p->to - p->from;
    struct tile_product dv = {.a = p_rows + from,
                              .a_row = 1,
                              .a_depth = FJ_S_LINE,
                              .b = own->dout_rows,
                              .c = p->dvalue + (int64_t)from * FJ_V_LINE,
                              .c_row = FJ_V_LINE,
                              .depth = rows};
    if (it->args->dvalue.data) tile_multiply(dv, keys, FJ_VALUE_DIM, rows * FJ_PANEL, TILE_ADD);
    struct tile_product dk = {.a = ds_rows + from,
                              .a_row = 1,
                              .a_depth = FJ_S_LINE,
                              .b = own->query_rows,
                              .c = p->dkey + (int64_t)from * FJ_E_LINE,
                              .c_row = FJ_E_LINE,
                              .depth = rows};
    if (it->args->dkey.data) tile_multiply(dk, keys, FJ_HEAD_DIM, rows * FJ_PANEL, TILE_ADD);
    struct tile_product dq = {.a = ds_keys + FJ_DEPTH(from),
                              .a_row = ds_line,
                              .a_depth = 1,
                              .b = own->key_rows + (int64_t)FJ_DEPTH(from) * FJ_PANEL,
                              .c = grid_dquery(it->args, p->grid, it->dquery_copy, it->batch, p->head, p->q),
                              .c_row = FJ_E_LINE,
                              .depth = FJ_DEPTH(keys)};
    if (it->args->dquery.data) tile_multiply(dq, p->rows, FJ_HEAD_DIM, panel, TILE_ADD);
}

#endif

#if FJ_WATCH
/* ---- What is not finite -------------------------------------------------------------------- */

static __attribute__((noinline)) uint32_t live_bits(const struct pass *p, int row, int at, int masked) {
    if (is_dead(p->it->own, row)) return 0;
    return fj_bits_b(masked ? live_vector(p, row, at) : fj_lanes_below(p->keys - at));
}
/* Of those the ones that dropout keeps. */
static uint32_t kept_bits(const struct pass *p, int row, int at, uint32_t bits) {
#if FJ_DROPOUT
    bits &= fj_bits_b(kept_vector(p, row, at));
#endif
    return (void)p, (void)row, (void)at, bits;
}

/* A row of Q, or of dO, to the sums of the keys that it sees, and keeps. */
static void add_to_keys(const struct pass *p, int row, const char *src, int columns, fj_real *sums, int line,
                        int masked, int is_dout) {
    for (int at = p->from; at < p->to; at += FJ_LANES) {
        const uint32_t live = live_bits(p, row, at, masked);
        for (uint32_t bits = is_dout ? kept_bits(p, row, at, live) : live; bits; bits &= bits - 1)
            tile_add_nonfinite(sums + (int64_t)(at + __builtin_ctz(bits)) * line, src, columns);
    }
}

/* What elements of K, Q and dO that are not finite give to dQ, dK and dV of what sees them. */
static __attribute__((noinline)) void add_nonfinite(const struct pass *p, int masked) {
    const struct item *it = p->it;
    const struct fj_cpu_args *a = it->args;
    const struct scratch *own = it->own;
    for (int i = 0; i < own->nonfinite_douts; i++)
        add_to_keys(p, own->dout_list[i], row_at(&a->dout, it->batch, p->head, p->q + own->dout_list[i]),
                    FJ_VALUE_DIM, p->dvalue, FJ_V_LINE, masked, 1);
    for (int i = 0; i < own->nonfinite_queries; i++)
        add_to_keys(p, own->query_list[i], row_at(&a->query, it->batch, p->head, p->q + own->query_list[i]),
                    FJ_HEAD_DIM, p->dkey, FJ_E_LINE, masked, 0);
    for (int i = 0; i < own->nonfinite_keys; i++) {
        const int key = own->key_list[i], at = key / FJ_LANES * FJ_LANES;
        if (key < p->from || key >= p->to) continue;
        const char *src = row_at(&a->key, it->batch, it->head_kv, p->key + key);
        fj_real *sums = grid_dquery(a, p->grid, it->dquery_copy, it->batch, p->head, p->q);
        for (int row = 0; row < p->rows; row++)
            if (live_bits(p, row, at, masked) >> (key - at) & 1)
                tile_add_nonfinite(sums + (int64_t)row * FJ_E_LINE, src, FJ_HEAD_DIM);
    }
}
#endif

#endif
