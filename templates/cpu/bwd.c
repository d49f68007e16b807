/* Backward attention on the cpu: fused, tiled; scores are computed again, nothing of size L x S is kept.
 *
 *            key block (FJ_TILE_KV)           first, for each row:     delta = rowsum(O dO) - dlse
 *           +---------------------+           rounds (bwd_grid.h), for each item:
 *   query   | S  = Q K^T          |             for each key block:
 *   tile    | P  = exp(mod(S)-lse)|               pack K and V
 *   (FJ_    | dP = dO V^T         |               for each query tile that is not empty there:
 *   TILE_Q) | dS = mod'(P(dP-     |                 pack Q and dO; S, dP; P and dS in place
 *           |            delta))  |                 dV += P^T dO   dK += dS^T Q   dQ += dS K
 *           +---------------------+           last phase: sums to dQ, dK, dV, captured gradients
 *
 * Five products of tile.h; between them one pass over the tile, row by row, with lanes along the keys.
 * The hooks of the mod stand before this file, staged by rate: fj_head_state once per head of a key
 * block, fj_col_state with it, fj_row_state once per row of a tile, fj_score, fj_mask and fj_score_grad on
 * lanes. Their sums of gradients of captures are those of the item's slot (bwd_capture_grads.h).
 *
 * Invariants
 *  1. P and dS are selected to 0 after the mod where a position is masked or past the last key; rows past
 *     the last query are in no product's depth. Packing zeroes what is past the last key of K and V. So
 *     padding, NaN or not, reaches no result.
 *     Elements of K, Q and dO that are not finite would still meet a P or dS of 0 in dQ, dK and dV. Where
 *     there is a mask they are 0 in those products and added apart, to what sees them only (tile.h).
 *  2. P = exp2(unit (S - base) + low): base is the score nearest to lse, in units of S; the difference of two
 *     large numbers comes first and is exact where they are near. low is the rest of lse and lse_low (0
 *     where it is not given) beside base. So P is as good at scores of 1e30 as at 1 (bwd_rows.h).
 *     A dead row (lse = -inf: it sees nothing, or scores of -inf only) is left out: its P and dS are 0, no
 *     hook is called, its Q and dO are 0 in the products, and so is its dQ. A row whose lse is NaN or +inf has P = NaN wherever it sees.
 *  3. Without a score mod S stays as multiplied and the scale is in `unit`, but in rows of large scores, where
 *     it is multiplied in before; with one, the mod sees scale * S. S has the bits that the forward kernel
 *     saw. dS is with respect to the scaled score: dQ and dK are multiplied by the scale once, on their way
 *     out.
 *  4. Accumulators are fj_real. With FJ_PAIRS the operands P and dS are rounded to BF16, as Q, K, V and dO
 *     are; delta, dP and the adjoints of captures are not.
 *  5. Only a partial block, or one that ends within a pair of vectors, takes the masked copy of the pass.
 *  6. Faults are the forward kernel's to report.
 *  7. Gradients of captures are sums of dS over keys, in which the true delta cancels P dP to the last
 *     digit, and one made of O in 16 bits leaves an error a thousand times larger. So with gradients of captures and
 *     16-bit inputs delta is measured, rowsum(P dP), by a phase of its own: two products more.
 *
 * What limits it, with figures: tests/kern/README.md. The products take nine tenths of the time in F32 and eight in
 * BF16 at E = Ev = 64; larger query tiles amortise the loads and stores of dV and dK, larger key blocks those of
 * dQ, both cost cache.
 */
#include "abi.h"

#include "prim.h"

#include "identity.h"

#include "bwd_grid.h"

#define FJ_LOG2_E ((fj_real)1.44269504088896340736)

#include "bwd_capture_grads.h"

#include "bwd_rows.h"

#include "blocks.h"

/* ---- Rounds: tiles --------------------------------------------------------------------------------- */

struct pass {
    const struct item *it;
    const struct grid *grid;
    int64_t head, q, key; /* the tile's head, first row and first key */
    int rows, keys;
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

/* One vector of a row: P of S, whether masked or not; *ret_score is what the mod saw. */
FJ_INLINE fj_f prob_vector(const struct pass *p, int row, int at, fj_f raw, struct exponent x,
                           fj_f *ret_score) {
    const struct scratch *own = p->it->own;
    const struct fj_row_state *state = &own->rows[FJ_ROW_EMPTY ? 0 : row];
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

/* The lanes of a vector that are neither masked nor past the last key. */
FJ_INLINE fj_b live_vector(const struct pass *p, int row, int at) {
    fj_b live = fj_lanes_below(p->keys - at);
    (void)row;
#if FJ_HAS_MASK
    const struct scratch *own = p->it->own;
    live = fj_and_b(live, fj_mask(p->it->args, &own->head, &own->rows[FJ_ROW_EMPTY ? 0 : row],
                                  &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES]));
#endif
    return live;
}

/* One vector of a row: S and dP become P and dS. */
FJ_INLINE void grad_vector(struct pass *p, int row, int at, fj_real *s, fj_real *d, struct exponent x,
                           fj_f delta, const int masked) {
    const fj_f zero = tile_splat(0);
    fj_f score, prob = prob_vector(p, row, at, tile_load(s + at), x, &score);
    fj_f ds = prob * (tile_load(d + at) - delta);
    fj_b live = fj_splat_b(1);
    if (masked) {
        live = live_vector(p, row, at);
        prob = fj_where_f(live, prob, zero);
        ds = fj_where_f(live, ds, zero);
    }
#if FJ_HAS_SCORE
    const struct scratch *own = p->it->own;
    ds = fj_score_grad(p->it->args, &own->head, &own->rows[FJ_ROW_EMPTY ? 0 : row],
                       &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES], score, ds, live, &p->grads);
    if (masked) ds = fj_where_f(live, ds, zero);
#endif
    tile_store(s + at, prob);
    tile_store(d + at, ds);
}

static inline int is_dead(const struct scratch *own, int row) { return own->base[row] == -FJ_INF; }

/* A row of S, where its scores are large. */
FJ_INLINE void open_row(const struct pass *p, int row, fj_real *s, int count) {
    if (!FJ_HAS_SCORE && __builtin_expect(p->it->own->natural[row], 0))
        tile_scale_line(s, count, (fj_real)p->it->args->scale);
}

FJ_INLINE void grad_rows(struct pass *p, const int masked) {
    struct scratch *own = p->it->own;
    const int count = FJ_ROUND(p->keys, 2 * FJ_LANES);
    for (int row = 0; row < p->rows; row++) {
        fj_real *s = own->scores + (int64_t)row * FJ_S_LINE, *d = own->adjoints + (int64_t)row * FJ_S_LINE;
        if (is_dead(own, row)) {
            memset(s, 0, sizeof(fj_real) * (size_t)count);
            memset(d, 0, sizeof(fj_real) * (size_t)count);
            continue;
        }
        open_row(p, row, s, count);
        const struct exponent x = exponent_of(own, row);
        const fj_f delta = tile_splat(own->delta[row]);
        for (int at = 0; at < count; at += FJ_LANES) grad_vector(p, row, at, s, d, x, delta, masked);
    }
}
/* Flat, so that what fj_score and fj_score_grad both compute is computed once. */
static __attribute__((noinline, flatten)) void grad_masked(struct pass *p) { grad_rows(p, 1); }
static __attribute__((noinline, flatten)) void grad_full(struct pass *p) { grad_rows(p, 0); }

#if FJ_MEASURED_DELTA
/* delta += rowsum(P dP) of the tile. */
static __attribute__((noinline, flatten)) void measure_rows(const struct pass *p) {
    const struct scratch *own = p->it->own;
    fj_real *delta = grid_delta(p->it->args, p->grid, p->it->batch, p->head) + p->q;
    for (int row = 0; row < p->rows; row++) {
        const fj_real *s = own->scores + (int64_t)row * FJ_S_LINE,
                      *d = own->adjoints + (int64_t)row * FJ_S_LINE;
        fj_f sum = tile_splat(0), score;
        if (is_dead(own, row)) continue;
        const struct exponent x = exponent_of(own, row);
        for (int at = 0; at < FJ_ROUND(p->keys, 2 * FJ_LANES); at += FJ_LANES) {
            fj_f part = prob_vector(p, row, at, tile_load(s + at), x, &score) * tile_load(d + at);
            sum += fj_where_f(live_vector(p, row, at), part, tile_splat(0));
        }
        delta[row] += sum_lanes(sum);
    }
}
#endif

#if FJ_PAIRS
/* P and dS as operands: along the queries for dV and dK, along the keys for dQ. */
static __attribute__((noinline)) void make_pairs(const struct pass *p) {
    struct scratch *own = p->it->own;
    const int count = FJ_ROUND(p->keys, 2 * FJ_LANES);
    const fj_f zero = tile_splat(0);
    for (int row = 0; row < p->rows; row += 2) {
        const int64_t at = (int64_t)row * FJ_S_LINE;
        const int both = row + 1 < p->rows;
        const fj_real *s = own->scores + at, *d = own->adjoints + at;
        fj_opd *p_row = own->p_rows + at / 2, *ds_row = own->ds_rows + at / 2;
        fj_opd *keys = own->ds_keys + (int64_t)row * FJ_K_LINE;
        for (int j = 0; j < count; j += 2 * FJ_LANES) {
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

/* A B operand of rows of input without what is not finite; the rows that hold some are listed and counted. */
static int pack_rows(fj_opd *packed, const char *src, const struct fj_cpu_tensor *t, int rows, int columns,
                     uint16_t *list) {
    const int64_t stride = t->stride[2] * FJ_IN_SIZE;
    if (!tile_pack_depth(packed, src, stride, rows, columns)) return 0;
    return tile_clear_nonfinite(packed, src, stride, rows, columns, list);
}

/* Q, dO, lse and delta of the tile, and the states of its rows. */
static void load_tile(const struct pass *p) {
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
#if !FJ_ROW_EMPTY
        fj_row_init(a, &own->head, (int32_t)q, &own->rows[row]);
#endif
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
static void multiply_in(const struct pass *p) {
    struct scratch *own = p->it->own;
    struct tile_product qk = {.a = own->queries,
                              .a_row = FJ_Q_OPERANDS,
                              .a_depth = 1,
                              .b = own->keys,
                              .c = own->scores,
                              .c_row = FJ_S_LINE,
                              .depth = FJ_DEPTH(FJ_HEAD_DIM)};
    tile_multiply(qk, p->rows, p->keys, (int64_t)FJ_DEPTH(FJ_HEAD_DIM) * FJ_PANEL, TILE_SET);
    struct tile_product ov = {.a = own->douts,
                              .a_row = FJ_O_OPERANDS,
                              .a_depth = 1,
                              .b = own->values,
                              .c = own->adjoints,
                              .c_row = FJ_S_LINE,
                              .depth = FJ_DEPTH(FJ_VALUE_DIM)};
    tile_multiply(ov, p->rows, p->keys, (int64_t)FJ_DEPTH(FJ_VALUE_DIM) * FJ_PANEL, TILE_SET);
}

/* dV += P^T dO, dK += dS^T Q, dQ += dS K. */
static void multiply_out(const struct pass *p) {
    const struct item *it = p->it;
    struct scratch *own = it->own;
#if FJ_PAIRS
    const fj_opd *p_rows = own->p_rows, *ds_rows = own->ds_rows, *ds_keys = own->ds_keys;
    const int64_t ds_line = FJ_K_LINE;
#else
    const fj_opd *p_rows = own->scores, *ds_rows = own->adjoints, *ds_keys = own->adjoints;
    const int64_t ds_line = FJ_S_LINE;
#endif
    const int64_t rows = FJ_DEPTH(p->rows), keys = FJ_DEPTH(p->keys);
    struct tile_product dv = {.a = p_rows,
                              .a_row = 1,
                              .a_depth = FJ_S_LINE,
                              .b = own->dout_rows,
                              .c = p->dvalue,
                              .c_row = FJ_V_LINE,
                              .depth = rows};
    tile_multiply(dv, p->keys, FJ_VALUE_DIM, rows * FJ_PANEL, TILE_ADD);
    struct tile_product dk = {.a = ds_rows,
                              .a_row = 1,
                              .a_depth = FJ_S_LINE,
                              .b = own->query_rows,
                              .c = p->dkey,
                              .c_row = FJ_E_LINE,
                              .depth = rows};
    tile_multiply(dk, p->keys, FJ_HEAD_DIM, rows * FJ_PANEL, TILE_ADD);
    struct tile_product dq = {.a = ds_keys,
                              .a_row = ds_line,
                              .a_depth = 1,
                              .b = own->key_rows,
                              .c = grid_dquery(it->args, p->grid, it->dquery_copy, it->batch, p->head, p->q),
                              .c_row = FJ_E_LINE,
                              .depth = keys};
    tile_multiply(dq, p->rows, FJ_HEAD_DIM, keys * FJ_PANEL, TILE_ADD);
}

#if FJ_WATCH
/* ---- Rounds: what is not finite -------------------------------------------------------------------- */

static __attribute__((noinline)) uint32_t live_bits(const struct pass *p, int row, int at, int masked) {
    if (is_dead(p->it->own, row)) return 0;
    return fj_bits_b(masked ? live_vector(p, row, at) : fj_lanes_below(p->keys - at));
}

/* A row of Q or dO to the sums of the keys that it sees. */
static void add_to_keys(const struct pass *p, int row, const char *src, int columns, fj_real *sums, int line,
                        int masked) {
    for (int at = 0; at < p->keys; at += FJ_LANES)
        for (uint32_t bits = live_bits(p, row, at, masked); bits; bits &= bits - 1)
            tile_add_nonfinite(sums + (int64_t)(at + __builtin_ctz(bits)) * line, src, columns);
}

/* What elements of K, Q and dO that are not finite give to dQ, dK and dV of what sees them. */
static __attribute__((noinline)) void add_nonfinite(const struct pass *p, int masked) {
    const struct item *it = p->it;
    const struct fj_cpu_args *a = it->args;
    const struct scratch *own = it->own;
    for (int i = 0; i < own->nonfinite_douts; i++)
        add_to_keys(p, own->dout_list[i], row_at(&a->dout, it->batch, p->head, p->q + own->dout_list[i]),
                    FJ_VALUE_DIM, p->dvalue, FJ_V_LINE, masked);
    for (int i = 0; i < own->nonfinite_queries; i++)
        add_to_keys(p, own->query_list[i], row_at(&a->query, it->batch, p->head, p->q + own->query_list[i]),
                    FJ_HEAD_DIM, p->dkey, FJ_E_LINE, masked);
    for (int i = 0; i < own->nonfinite_keys; i++) {
        const int key = own->key_list[i], at = key / FJ_LANES * FJ_LANES;
        const char *src = row_at(&a->key, it->batch, it->head_kv, p->key + key);
        fj_real *sums = grid_dquery(a, p->grid, it->dquery_copy, it->batch, p->head, p->q);
        for (int row = 0; row < p->rows; row++)
            if (live_bits(p, row, at, masked) >> (key - at) & 1)
                tile_add_nonfinite(sums + (int64_t)row * FJ_E_LINE, src, FJ_HEAD_DIM);
    }
}
#endif

/* ---- Rounds: blocks -------------------------------------------------------------------------------- */

/* 0 nothing of the tile is visible, 1 some, 2 all. */
static int class_of(const struct pass *p) {
#if FJ_HAS_MASK
    return fj_block_class(p->it->args, (int32_t)p->it->batch, (int32_t)p->head, (int32_t)p->q,
                          (int32_t)(p->q + p->rows - 1), (int32_t)p->key, (int32_t)(p->key + p->keys - 1));
#else
    (void)p;
    return 2;
#endif
}

static void start_block(const struct pass *p) {
    const struct fj_cpu_args *a = p->it->args;
    struct scratch *own = p->it->own;
    const int64_t b = p->it->batch, h = p->it->head_kv;
    const char *key = row_at(&a->key, b, h, p->key), *value = row_at(&a->value, b, h, p->key);
    tile_pack_columns(own->keys, key, a->key.stride[2] * FJ_IN_SIZE, p->keys, FJ_HEAD_DIM);
    own->nonfinite_keys = pack_rows(own->key_rows, key, &a->key, p->keys, FJ_HEAD_DIM, own->key_list);
    tile_pack_columns(own->values, value, a->value.stride[2] * FJ_IN_SIZE, p->keys, FJ_VALUE_DIM);
}

static void start_head(const struct pass *p) {
    const struct fj_cpu_args *a = p->it->args;
    struct scratch *own = p->it->own;
    (void)a, (void)own;
#if !FJ_HEAD_EMPTY
    fj_head_init(a, (int32_t)p->it->batch, (int32_t)p->head, &own->head);
#endif
#if !FJ_COL_EMPTY
    for (int at = 0; at < FJ_ROUND(p->keys, 2 * FJ_LANES); at += FJ_LANES)
        fj_col_init(a, &own->head, fj_add_i(fj_splat_i((int32_t)p->key + at), fj_iota_i()),
                    &own->cols[at / FJ_LANES]);
#endif
}

/* Where dK and dV of the block are summed. */
static void open_sums(struct pass *p) {
    const struct item *it = p->it;
    struct scratch *own = it->own;
    if (p->grid->sums_in_scratch) {
        memset(own->dkey, 0, sizeof own->dkey);
        memset(own->dvalue, 0, sizeof own->dvalue);
        p->dkey = own->dkey;
        p->dvalue = own->dvalue;
        return;
    }
    p->dkey = grid_dkey(it->args, p->grid, it->dkv_copy, it->batch, it->head_kv, p->key);
    p->dvalue = grid_dvalue(it->args, p->grid, it->dkv_copy, it->batch, it->head_kv, p->key);
}

static void do_tile(struct pass *p, int class) {
    load_tile(p);
    multiply_in(p);
#if FJ_MEASURED_DELTA
    if (p->measures) {
        measure_rows(p);
        return;
    }
#endif
    const int masked = class == 1 || p->keys % (2 * FJ_LANES);
    (masked ? grad_masked : grad_full)(p);
#if FJ_PAIRS
    make_pairs(p);
#endif
    multiply_out(p);
#if FJ_WATCH
    const struct scratch *own = p->it->own;
    if (__builtin_expect(own->nonfinite_keys | own->nonfinite_queries | own->nonfinite_douts, 0))
        add_nonfinite(p, class == 1);
#endif
}

/* The units of the item that see something of a block. */
static void do_units(struct pass *p) {
    const struct item *it = p->it;
    int packed = 0;
    int64_t head = -1;
    for (int64_t unit = it->unit; unit < it->unit_end; unit++) {
        p->head = it->head_kv * p->grid->group + unit / p->grid->tiles;
        p->q = unit % p->grid->tiles * FJ_TILE_Q;
        p->rows = (int)least(FJ_TILE_Q, it->args->q_len - p->q);
        const int class = class_of(p);
        if (class == 0) continue;
        if (!packed) start_block(p), packed = 1;
        if (head != p->head) start_head(p), head = p->head;
        do_tile(p, class);
    }
}

static void set_block(struct pass *p, int64_t block) {
    p->key = block * FJ_TILE_KV;
    p->keys = (int)least(FJ_TILE_KV, p->it->args->kv_len - p->key);
}

static void do_block(struct pass *p, int64_t block) {
    const struct item *it = p->it;
    const struct fj_cpu_args *a = it->args;
    set_block(p, block);
    open_sums(p);
    do_units(p);
    if (p->grid->sums_in_scratch)
        for (int64_t i = 0; i < p->keys; i++)
            write_dkv(a, it->batch, it->head_kv, p->key + i, p->dkey + i * FJ_E_LINE,
                      p->dvalue + i * FJ_V_LINE);
}

#if FJ_MEASURED_DELTA
/* Chunks of a key head's units; what a row gets does not depend on them. */
static inline int64_t measure_chunks(const struct fj_cpu_args *a, const struct grid *g) {
    const int64_t wanted = divide_up(FJ_ITEMS, most(1, a->batch * a->heads_kv));
    return most(1, least(wanted, g->units / FJ_LEAST_UNITS));
}

static void run_measure(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    const int64_t chunks = measure_chunks(a, g), chunk = number % chunks, head = number / chunks;
    const struct item it = {.args = a,
                            .own = (struct scratch *)a->workspace + worker,
                            .batch = head / a->heads_kv,
                            .head_kv = head % a->heads_kv,
                            .unit = chunk * g->units / chunks,
                            .unit_end = (chunk + 1) * g->units / chunks};
    struct pass p = {.it = &it, .grid = g, .measures = 1};
    for (int64_t block = 0; block < g->blocks; block++) {
        set_block(&p, block);
        do_units(&p);
    }
}
#endif

static void run_item(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t round,
                     int64_t number, int64_t slot, int worker) {
    const struct item it = item_of(a, g, round, number, worker);
    struct pass p = {.it = &it, .grid = g};
#if FJ_HAS_SCORE
    for (int i = 0; i < FJ_CAPTURES; i++)
        p.grads.capture[i] = s->captures[i].count ? grad_array(a, s, i, slot) : NULL;
    p.grads.scalar = grad_scalars(a, s, slot);
#else
    (void)s, (void)slot;
#endif
    for (int64_t block = it.block; block < it.block_end; block++) do_block(&p, block);
}

static void run_slot(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t round,
                     int64_t slot, int worker) {
    const int64_t end = (slot + 1) * s->classes / s->slots;
    for (int64_t class = slot * s->classes / s->slots; class < end; class ++) {
        if (s->classes == g->items) {
            run_item(a, g, s, round, class, slot, worker);
            continue;
        }
        for (int64_t item = 0; item < g->items; item++)
            if (grad_class(a, s->apart, item) == class) run_item(a, g, s, round, item, slot, worker);
    }
}

/* ---- The kernel ------------------------------------------------------------------------------------ */

#define FJ_ZERO_TASK ((int64_t)1 << 18) /* bytes */

static size_t kernel_workspace(const struct fj_cpu_args *a) {
    const struct grid g = grid_of(a);
    return (size_t)grads_of(a, &g).end;
}

static int64_t kernel_items(const struct fj_cpu_args *a, int phase) {
    const struct grid g = grid_of(a);
    const struct grads s = grads_of(a, &g);
    const int64_t queries = row_tasks(a->batch, a->heads_q, a->q_len);
    if (phase == 0) return queries + divide_up(s.end - g.dquery, FJ_ZERO_TASK);
#if FJ_MEASURED_DELTA
    if (--phase == 0) return a->batch * a->heads_kv * measure_chunks(a, &g);
#endif
    if (phase <= g.rounds) return FJ_HAS_CAPTURE_GRADS ? least(s.slots, g.items) : g.items;
    if (phase > g.rounds + 1) return -1;
    const int64_t keys = g.sums_in_scratch ? 0 : row_tasks(a->batch, a->heads_kv, a->kv_len);
    return queries + keys + grad_tasks(&s) + (FJ_HAS_CAPTURE_GRADS && FJ_SCALARS > 0);
}

static void run_first(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t item,
                      int worker) {
    const int64_t queries = row_tasks(a->batch, a->heads_q, a->q_len);
    if (item < queries) return run_delta(a, g, item, worker);
    const int64_t at = g->dquery + (item - queries) * FJ_ZERO_TASK;
    memset(a->workspace + at, 0, (size_t)least(FJ_ZERO_TASK, s->end - at));
}

static void run_last(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t item) {
    const int64_t queries = row_tasks(a->batch, a->heads_q, a->q_len);
    const int64_t keys = g->sums_in_scratch ? 0 : row_tasks(a->batch, a->heads_kv, a->kv_len);
    if (item < queries) return run_dquery(a, g, item);
    if ((item -= queries) < keys) return run_dkv(a, g, item);
    if ((item -= keys) < grad_tasks(s)) return grad_reduce_task(a, s, item);
    grad_reduce_scalars(a, s);
}

static void kernel_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {
    const struct grid g = grid_of(a);
    const struct grads s = grads_of(a, &g);
    if (phase == 0) return run_first(a, &g, &s, item, worker);
#if FJ_MEASURED_DELTA
    if (--phase == 0) return run_measure(a, &g, item, worker);
#endif
    if (phase > g.rounds) return run_last(a, &g, &s, item);
    if (FJ_HAS_CAPTURE_GRADS) return run_slot(a, &g, &s, phase - 1, item, worker);
    run_item(a, &g, &s, phase - 1, item, 0, worker);
}

static void kernel_blocks(const struct fj_cpu_args *a, int64_t counts[3]) {
    count_blocks(a, FJ_TILE_KV, counts);
}

__attribute__((visibility("default"))) const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .workspace = kernel_workspace,
    .items = kernel_items,
    .run = kernel_run,
    .blocks = kernel_blocks,
};
