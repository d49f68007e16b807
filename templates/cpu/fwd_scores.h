/* What forward does with the rows of a unit and their scores: which blocks they see, the mask as bits, the score mod,
 * maxima and exponentials. The invariants are at the head of fwd.c. */
#ifndef FJ_FWD_SCORES_H
#define FJ_FWD_SCORES_H

#include "fwd_grid.h"

#define FJ_INF ((fj_real)__builtin_inf())
#define FJ_LOG2_E ((fj_real)1.44269504088896340736)

/* The factor that turns stored scores into natural ones (invariant 1), as backward has it. */
static inline fj_real natural_of(const struct fj_cpu_args *a) {
    return FJ_HAS_SCORE ? 1 : (fj_real)__builtin_fabs(a->scale);
}

/* And into logarithms of base 2; 1 where the scale is 0, as stored scores are 0 already. */
static inline fj_real unit_of(const struct fj_cpu_args *a) {
    const fj_real natural = natural_of(a);
    return natural > 0 ? (fj_real)((double)natural * 1.44269504088896340736) : 1;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static void start_rows(const struct item *it) {
    const struct fj_cpu_args *a = it->args;
    struct scratch *own = it->own;
#if !FJ_HEAD_EMPTY
    for (int i = 0; i < it->heads; i++)
        fj_head_init(a, batch_of(it), (int32_t)(it->head + i), &own->heads[i]);
#endif
    for (int row = 0; row < FJ_ROUND(it->rows, FJ_LANES); row++) {
        own->top[row] = -FJ_INF;
        own->sum[row] = 0;
    }
    memset(own->sums, 0, sizeof(fj_real) * FJ_O_LINE * (size_t)it->rows);
    for (int row = 0; row < it->rows; row++) {
        const int head = row / it->per_head;
        const int64_t q = it->q + row % it->per_head;
        own->head[row] = head;
        own->q[row] = position_of(it, row);
        fj_opd *line = own->queries + (int64_t)row * FJ_Q_LINE;
        tile_pack_row(line, FJ_Q_LINE, row_at(&a->query, it->batch, it->head + head, q), FJ_HEAD_DIM,
                      !FJ_HAS_SCORE && a->scale < 0);
        if (natural_of(a) == 0) tile_annul(line, FJ_Q_LINE);
#if !FJ_ROW_EMPTY
        fj_row_init(a, &own->heads[head], own->q[row], &own->rows[row]);
#endif
    }
    memset(own->queries + (int64_t)it->rows * FJ_Q_LINE, 0, sizeof(fj_opd) * FJ_ROW_PAD * FJ_Q_LINE);
}

/* What the rows [row, end) of one head see of a key block: 0 nothing, 1 some, 2 all. */
static int class_of(const struct item *it, int row, int end, int64_t key, int keys) {
#if FJ_MASKED
    return block_class(it->args, batch_of(it), (int32_t)(it->head + row / it->per_head), position_of(it, row),
                       position_of(it, end - 1), (int32_t)key, (int32_t)(key + keys - 1));
#else
    (void)it, (void)row, (void)end, (void)key, (void)keys;
    return 2;
#endif
}

/* The end of the run of rows of one head that starts at row. */
static inline int run_end(const struct item *it, int row, int end) {
    int next = (row / it->per_head + 1) * it->per_head;
    return next < end ? next : end;
}

static int tile_class(const struct item *it, int row, int end, int64_t key, int keys) {
    int all = -1;
    while (row < end) {
        int next = run_end(it, row, end), class = class_of(it, row, next, key, keys);
        all = all < 0 || all == class ? class : 1;
        row = next;
    }
    return all;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

struct pass {
    const struct item *it;
    int64_t key; /* the block's first key, and how many keys it has */
    int keys;
    fj_real natural, unit;
    /* What the tile at work sees of them: ranges of whole grains, except for the last key. */
    int runs;
    struct {
        int from, to;
    } run[FJ_TILE_KV / FJ_GRAIN];
};

#if FJ_HAS_FAULT || FJ_HAS_OUT_FAULT || FJ_HAS_SINK_FAULT
/* Of those of a worker the one with the least position stays. */
static void note_fault_at(const struct item *it, int32_t of, int64_t h, int32_t q, int32_t kv) {
    struct fj_cpu_fault *f = it->args->faults + it->worker, new = {of, batch_of(it), (int32_t)h, q, kv};
    if (f->found) {
        int order = new.b != f->b ? (new.b < f->b) : new.h != f->h ? (new.h < f->h) : -1;
        if (order < 0)
            order = new.q != f->q ? new.q < f->q : new.kv != f->kv ? new.kv < f->kv : of < f->found;
        if (!order) return;
    }
    *f = new;
}
#endif
#if FJ_HAS_FAULT
static __attribute__((noinline)) void note_fault(const struct item *it, int row, int64_t key, uint32_t bits) {
    note_fault_at(it, FJ_CPU_FAULT_SCORE, it->head + it->own->head[row], it->own->q[row],
                  (int32_t)(key + __builtin_ctz(bits)));
}
#endif

/* ---- Keys and values ----------------------------------------------------------------------- */

#if FJ_PAGED
/* Copies rows [key, key + keys) out of their pages. */
static struct key_rows gather_rows(const struct item *it, const struct fj_cpu_tensor *t, int64_t key,
                                   int keys, int dim, char *to) {
    const size_t row = (size_t)dim * FJ_IN_SIZE;
    for (int i = 0; i < keys; i++) memcpy(to + (size_t)i * row, kv_row(it, t, key + i), row);
    return (struct key_rows){to, (int64_t)row};
}
#endif

static struct key_rows keys_of(const struct pass *p) {
    const struct item *it = p->it;
#if FJ_PAGED
    return gather_rows(it, &it->args->key, p->key, p->keys, FJ_HEAD_DIM, it->own->page_keys);
#else
    return (struct key_rows){key_row(it, p->key), it->args->key.stride[2] * FJ_IN_SIZE};
#endif
}
static struct key_rows values_of(const struct pass *p) {
    const struct item *it = p->it;
#if FJ_PAGED
    return gather_rows(it, &it->args->value, p->key, p->keys, FJ_VALUE_DIM, it->own->page_values);
#else
    return (struct key_rows){value_row(it, p->key), it->args->value.stride[2] * FJ_IN_SIZE};
#endif
}

/* ---- Masks ----------------------------------------------------------------------------------- */

/* The column states of the block for one head of the unit, unless they are at hand. */
static inline void need_cols(const struct pass *p, int head) {
#if !FJ_COL_EMPTY
    struct scratch *own = p->it->own;
    if (own->cols_of == head) return;
    own->cols_of = head;
    for (int j = 0; j < FJ_ROUND(p->keys, 2 * FJ_LANES) / FJ_LANES; j++) {
        fj_i kv = fj_add_i(fj_splat_i((int32_t)p->key + j * FJ_LANES), fj_iota_i());
        fj_col_init(p->it->args, &own->heads[head], kv, &own->cols[j]);
    }
#else
    (void)p, (void)head;
#endif
}

/* The masks of the rows [row, end) of one head as bits, and what each grain holds of them. */
static __attribute__((noinline)) void mask_rows(const struct pass *p, int first, int row, int end,
                                                uint32_t any[], uint32_t *all) {
    struct scratch *own = p->it->own;
    for (; row < end; row++) {
#if FJ_BLOCK_MASK
        struct block_bits blocks;
        find_block_bits(p->it->args, batch_of(p->it), p->it->head + own->head[row], own->q[row], p->key,
                        p->keys, &blocks);
#endif
        for (int at = 0; at < p->keys; at += FJ_LANES) {
            fj_b live = fj_lt_i(fj_iota_i(), fj_splat_i(p->keys - at));
#if FJ_MASKED
            fj_b seen = fj_mask(p->it->args, &own->heads[own->head[row]], &own->rows[FJ_ROW_EMPTY ? 0 : row],
                                &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES]);
#if FJ_BLOCK_MASK
            seen = block_live(&blocks, at / FJ_LANES, seen);
#endif
#if FJ_PAGED
            seen = fj_and_b(seen, page_live(p->it->args, p->key + at, p->keys - at));
#endif
            live = fj_and_b(live, seen);
#endif
            const uint32_t bits = fj_bits_b(live);
            own->masks[row - first][at / FJ_LANES] = (uint16_t)bits;
            any[at / FJ_GRAIN] |= bits;
            *all &= bits;
        }
    }
}

/* Evaluates a tile's mask over the block, finds the runs of grains that hold anything. Returns the
 * tile's class. */
static int mask_tile(struct pass *p, int first, int rows) {
    const struct item *it = p->it;
    uint32_t any[FJ_TILE_KV / FJ_GRAIN] = {0}, all = FJ_ALL_BITS;
    for (int row = first; row < first + rows;) {
        const int end = run_end(it, row, first + rows);
        need_cols(p, it->own->head[row]);
        mask_rows(p, first, row, end, any, &all);
        row = end;
    }
    /* Past the last whole vector lies one that only loops over pairs of vectors see. */
    const int odd = FJ_ROUND(p->keys, FJ_LANES) % (2 * FJ_LANES);
    for (int row = 0; odd && row < rows; row++)
        it->own->masks[row][FJ_ROUND(p->keys, FJ_LANES) / FJ_LANES] = 0;
    p->runs = 0;
    for (int grain = 0; grain * FJ_GRAIN < p->keys; grain++) {
        const int from = grain * FJ_GRAIN, to = from + FJ_GRAIN < p->keys ? from + FJ_GRAIN : p->keys;
        if (!any[grain]) continue;
        if (p->runs && p->run[p->runs - 1].to == from)
            p->run[p->runs - 1].to = to;
        else
            p->run[p->runs].from = from, p->run[p->runs++].to = to;
    }
    return p->runs ? (all == FJ_ALL_BITS && !odd ? 2 : 1) : 0;
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* The mod and the mask on one vector of a row's scores. */
FJ_INLINE fj_f score_vector(const struct pass *p, int first, int row, int at, fj_real *s, const int masked) {
    const struct fj_cpu_args *a = p->it->args;
    struct scratch *own = p->it->own;
    const struct fj_head_state *head = &own->heads[own->head[row]];
    const struct fj_row_state *rows = &own->rows[FJ_ROW_EMPTY ? 0 : row];
    const struct fj_col_state *col = &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES];
    fj_f x = tile_load(s), y = x;
    (void)a, (void)head, (void)rows, (void)col, (void)first;
#if FJ_HAS_SCORE
    x = x * tile_splat((fj_real)a->scale);
    y = fj_score(a, head, rows, col, x);
#endif
#if FJ_HAS_FAULT
    fj_b live = fj_splat_b(1);
#else
    fj_b live;
#endif
    if (masked) {
        live = fj_unbits_b(own->masks[row - first][at / FJ_LANES]);
        y = fj_where_f(live, y, tile_splat(-FJ_INF));
    }
#if FJ_HAS_FAULT
    uint32_t bits = fj_bits_b(fj_fault(a, head, rows, col, x, live));
    if (__builtin_expect(bits != 0, 0)) note_fault(p->it, row, p->key + at, bits);
#endif
    if (FJ_HAS_SCORE || masked) tile_store(s, y);
    return y;
}

/* The mod on the rows [row, end) of one head; their maxima, lane by lane, go to top[0, end - row). */
FJ_INLINE void score_rows(const struct pass *p, int first, int row, int end, fj_f *top, const int masked) {
    struct scratch *own = p->it->own;
    for (; row < end; row++, top++) {
        fj_real *s = own->scores + (int64_t)(row - first) * FJ_TILE_KV;
        fj_f top0 = tile_splat(-FJ_INF), top1 = top0;
        for (int r = 0; r < p->runs; r++)
            for (int at = p->run[r].from; at < p->run[r].to; at += 2 * FJ_LANES) {
                const int next = at + FJ_LANES;
                top0 = tile_max(top0, score_vector(p, first, row, at, s + at, masked));
                top1 = tile_max(top1, score_vector(p, first, row, next, s + next, masked));
            }
        *top = tile_max(top0, top1);
    }
}

static __attribute__((noinline)) void rows_masked(const struct pass *p, int first, int row, int end,
                                                  fj_f *top) {
    score_rows(p, first, row, end, top, 1);
}
static __attribute__((noinline)) void rows_full(const struct pass *p, int first, int row, int end,
                                                fj_f *top) {
    score_rows(p, first, row, end, top, 0);
}

#if !FJ_HAS_SCORE
/* Rows with large maxima go on with natural scores (invariant 2). */
static __attribute__((noinline)) void make_natural(const struct pass *p, int at, int rows, uint32_t large,
                                                   fj_real *bases, fj_real *units) {
    for (int i = 0; i < rows; i++) {
        if (!(large >> i & 1)) continue;
        fj_real *line = p->it->own->scores + (int64_t)(at + i) * FJ_TILE_KV;
        for (int r = 0; r < p->runs; r++)
            tile_scale_line(line + p->run[r].from, p->run[r].to - p->run[r].from, p->natural);
        bases[i] *= p->natural;
        units[i] = FJ_LOG2_E;
    }
}

/* The rows whose maximum is large, of FJ_LANES. */
FJ_INLINE fj_b large_of(fj_f top, fj_real natural) {
    const fj_f size = fj_abs_f(top * tile_splat(natural));
    return fj_and_b(fj_ge_f(size, tile_splat(FJ_LARGE)), fj_lt_f(size, tile_splat(FJ_INF)));
}
#endif

/* ---- Probabilities --------------------------------------------------------------------------- */

#if FJ_DROPOUT
/* Which probabilities of the tile are kept, of the keys that it sees. */
static void keep_tile(const struct pass *p, int first, int rows) {
    const struct item *it = p->it;
    for (int row = first; row < first + rows;) {
        const int end = run_end(it, row, first + rows);
        for (int r = 0; r < p->runs; r++) {
            const int from = p->run[r].from / FJ_KEEP_KEYS;
            const struct dropout_rows t = {.args = it->args,
                                           .b = batch_of(it),
                                           .h = it->head + row / it->per_head,
                                           .q = position_of(it, row),
                                           .rows = end - row,
                                           .group = p->key / FJ_KEEP_KEYS + from,
                                           .groups = (p->run[r].to - 1) / FJ_KEEP_KEYS + 1 - from,
                                           .keep = &it->own->keep[row - first][from],
                                           .line = FJ_TILE_KV / FJ_KEEP_KEYS};
            dropout_bits(&t);
        }
        row = end;
    }
}
#endif

/* P = exp2(unit * (score - m)) over a row of the tile, in place, as operands; returns its sum, lane by lane, of which nothing is
 * dropped. */
FJ_INLINE fj_f exponentials(const struct pass *p, int row, fj_real base, fj_real unit) {
    fj_real *line = p->it->own->scores + (int64_t)row * FJ_TILE_KV;
    const fj_f c = tile_splat(unit), m = tile_splat(base);
    fj_f sum0 = tile_splat(0), sum1 = sum0;
    for (int r = 0; r < p->runs; r++) {
        const fj_real *s = line + p->run[r].from, *end = line + p->run[r].to;
        fj_opd *to = (fj_opd *)s;
        for (; s < end; s += 2 * FJ_LANES) {
            fj_f p0 = tile_exp2((tile_load(s) - m) * c);
            fj_f p1 = tile_exp2((tile_load(s + FJ_LANES) - m) * c);
            sum0 += p0;
            sum1 += p1;
#if FJ_DROPOUT
            const uint64_t *keep = p->it->own->keep[row];
            p0 = fj_where_f(dropout_lanes(keep, s - line), p0, tile_splat(0));
            p1 = fj_where_f(dropout_lanes(keep, s + FJ_LANES - line), p1, tile_splat(0));
#endif
            tile_store_depth(to, p0, p1);
            to += FJ_PAIRS ? FJ_LANES : 2 * FJ_LANES;
        }
    }
    return sum0 + sum1;
}

/* Scores to probabilities for up to FJ_LANES rows from place `at` of the tile; top: their maxima. */
static void exponential_rows(const struct pass *p, int first, int at, int rows, fj_f top[FJ_LANES]) {
    struct scratch *own = p->it->own;
    const fj_f old = tile_load(own->top + first + at);
    const fj_f new = tile_max(old, tile_reduce_max(top));
    const fj_f base = fj_where_f(fj_eq_f(new, tile_splat(-FJ_INF)), tile_splat(0), new);
    fj_f factor = tile_exp2((old - base) * tile_splat(p->unit));
    fj_real bases[FJ_LANES] __attribute__((aligned(64))), units[FJ_LANES] __attribute__((aligned(64)));
    fj_f sum[FJ_LANES];
    tile_store(bases, base);
    tile_store(units, tile_splat(p->unit));
#if !FJ_HAS_SCORE
    const fj_b large = large_of(base, p->natural);
    if (__builtin_expect(fj_any(large), 0)) {
        const fj_f natural = tile_splat(p->natural), step = old * natural - base * natural;
        factor = fj_where_f(large, tile_exp2(step * tile_splat(FJ_LOG2_E)), factor);
        make_natural(p, at, rows, fj_bits_b(large), bases, units);
    }
#endif
    tile_store(own->factor + at, factor);
    tile_store(own->top + first + at, new);
    for (int i = 0; i < FJ_LANES; i++) sum[i] = tile_splat(0);
    for (int i = 0; i < rows; i++) sum[i] = exponentials(p, at + i, bases[i], units[i]);
    fj_real *total = own->sum + first + at;
    tile_store(total, tile_fma(tile_load(total), factor, tile_reduce_sum(sum)));
}

#endif
