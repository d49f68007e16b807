/* Forward attention on the cpu: fused, tiled, online softmax.
 *
 *            key block (FJ_TILE_KV)           for each item (fwd_grid.h):
 *           +---------------------+             pack Q; sums = 0, top = -inf
 *   query   |                     |             for each key block, for each query tile:
 *   tile    |  S = Q K^T          |               class: empty, partial, full; the mask as bits
 *   (FJ_    |  score mod, mask    |               first tile that sees any: pack K and V
 *   TILE_Q) |  P = exp2(c (S - m))|               S = Q K^T
 *           |                     |               per row: mod, mask, maximum; P, its sum
 *           +---------------------+               sums = factor sums + P V
 *                                             out = sums / sum, lse = m + log(sum)
 *
 * The hooks of the mod stand before this file, staged by rate: fj_head_state once per head of a
 * unit, fj_row_state once per row of it, fj_col_state once per key block (and head), fj_score and
 * fj_mask on lanes along the keys.
 *
 * Invariants
 *  1. Scores in the scratch are what `unit` multiplies to logarithms of base 2: with a score mod,
 *     natural scores; without, raw products, so that no pass over them is needed but the maximum
 *     (a negative scale goes into the sign of Q: unit is never negative).
 *  2. m (top) is the running maximum of the scores as they are stored, so it is exact, and it is
 *     subtracted before anything is multiplied: equal scores have exponents of 0 and order is kept
 *     for every finite score, however large. A difference that overflows is -inf: P is 0, as it
 *     should be. m = -inf stands for "nothing yet": it is subtracted as 0, so P is 0, not NaN.
 *     Without a score mod, rows whose maximum is FJ_LARGE or more turn products to natural scores first,
 *     so that lse, in two parts, can tell both the maximum and the sum (tile.h); backward does the same.
 *  3. A position that is masked, or past the last key, gets score -inf after the mod: its P is
 *     exactly 0, whatever the mod and K gave. Padding of V is 0, and elements of V that are not finite
 *     are added apart, to the rows that see them only (tile.h). So what a row does not see reaches it
 *     in no bit. A dead row, which sees nothing or scores of -inf only, is 0 with an lse of -inf.
 *  4. NaN or +inf in a score makes that row NaN and no other: a maximum may lose the NaN, the sum does
 *     not, and +inf less itself is NaN.
 *  5. Where analysis finds a block partial (or it ends within a pair of vectors), the mask comes
 *     first, as bits: it does not depend on scores. Grains of FJ_GRAIN keys that no row of the tile
 *     sees are left out of everything; only a tile with some bits clear takes the masked copy of
 *     the score pass. Adding zeros is exact, so what is left out does not show in results.
 */
#include "abi.h"

#include "prim.h"

#include "identity.h"

#include "fwd_grid.h"

#include "blocks.h"

#define FJ_INF ((fj_real)__builtin_inf())
#define FJ_LOG2_E ((fj_real)1.44269504088896340736)

static inline const char *row_at(const struct fj_cpu_tensor *t, int64_t b, int64_t h, int64_t row) {
    return t->data + (b * t->stride[0] + h * t->stride[1] + row * t->stride[2]) * FJ_IN_SIZE;
}

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
        fj_head_init(a, (int32_t)it->batch, (int32_t)(it->head + i), &own->heads[i]);
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
        own->q[row] = (int32_t)q;
        fj_opd *line = own->queries + (int64_t)row * FJ_Q_LINE;
        tile_pack_row(line, FJ_Q_LINE, row_at(&a->query, it->batch, it->head + head, q), FJ_HEAD_DIM,
                      !FJ_HAS_SCORE && a->scale < 0);
        if (natural_of(a) == 0) tile_annul(line, FJ_Q_LINE);
#if !FJ_ROW_EMPTY
        fj_row_init(a, &own->heads[head], (int32_t)q, &own->rows[row]);
#endif
    }
    memset(own->queries + (int64_t)it->rows * FJ_Q_LINE, 0, sizeof(fj_opd) * FJ_ROW_PAD * FJ_Q_LINE);
}

/* What the rows [row, end) of one head see of a key block: 0 nothing, 1 some, 2 all. */
static int class_of(const struct item *it, int row, int end, int64_t key, int keys) {
#if FJ_HAS_MASK
    const struct scratch *own = it->own;
    return fj_block_class(it->args, (int32_t)it->batch, (int32_t)(it->head + own->head[row]), own->q[row],
                          own->q[end - 1], (int32_t)key, (int32_t)(key + keys - 1));
#else
    (void)it, (void)row, (void)end, (void)key, (void)keys;
    return 2;
#endif
}

/* The end of the run of rows of one head that starts at row. */
static inline int run_end(const struct item *it, int row, int end) {
    int next = (it->own->head[row] + 1) * it->per_head;
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
    /* What the tile at work sees of them: ranges of whole grains, but for the last key. */
    int runs;
    struct {
        int from, to;
    } run[FJ_TILE_KV / FJ_GRAIN];
};

#if FJ_HAS_FAULT
static __attribute__((noinline)) void note_fault(const struct item *it, int row, int64_t key, uint32_t bits) {
    struct fj_cpu_fault *f = it->args->faults + it->worker, new = {1, 0, 0, 0, 0};
    new.b = (int32_t)it->batch;
    new.h = (int32_t)(it->head + it->own->head[row]);
    new.q = it->own->q[row];
    new.kv = (int32_t)(key + __builtin_ctz(bits));
    if (f->found) {
        int order = new.b != f->b ? (new.b < f->b) : new.h != f->h ? (new.h < f->h) : -1;
        if (order < 0) order = new.q != f->q ? new.q < f->q : new.kv < f->kv;
        if (!order) return;
    }
    *f = new;
}
#endif

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
    for (; row < end; row++)
        for (int at = 0; at < p->keys; at += FJ_LANES) {
            fj_b live = fj_lt_i(fj_iota_i(), fj_splat_i(p->keys - at));
#if FJ_HAS_MASK
            live = fj_and_b(live, fj_mask(p->it->args, &own->heads[own->head[row]],
                                          &own->rows[FJ_ROW_EMPTY ? 0 : row],
                                          &own->cols[FJ_COL_EMPTY ? 0 : at / FJ_LANES]));
#endif
            const uint32_t bits = fj_bits_b(live);
            own->masks[row - first][at / FJ_LANES] = (uint16_t)bits;
            any[at / FJ_GRAIN] |= bits;
            *all &= bits;
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

/* P = exp2(unit * (score - m)) over a row, in place, as operands; returns its sum, lane by lane. */
FJ_INLINE fj_f exponentials(const struct pass *p, fj_real *line, fj_real base, fj_real unit) {
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
    for (int i = 0; i < rows; i++)
        sum[i] = exponentials(p, own->scores + (int64_t)(at + i) * FJ_TILE_KV, bases[i], units[i]);
    fj_real *total = own->sum + first + at;
    tile_store(total, tile_fma(tile_load(total), factor, tile_reduce_sum(sum)));
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* The block's keys and values, once some tile sees anything of them. */
static void need_packed(const struct pass *p) {
    const struct item *it = p->it;
    const struct fj_cpu_tensor *k = &it->args->key, *v = &it->args->value;
    if (it->own->packed) return;
    it->own->packed = 1;
    tile_pack_columns(it->own->keys, row_at(k, it->batch, it->head_kv, p->key), k->stride[2] * FJ_IN_SIZE,
                      p->keys, FJ_HEAD_DIM);
    const char *value = row_at(v, it->batch, it->head_kv, p->key);
    const int64_t stride = v->stride[2] * FJ_IN_SIZE;
    it->own->nonfinite = tile_pack_depth(it->own->values, value, stride, p->keys, FJ_VALUE_DIM);
    if (__builtin_expect(it->own->nonfinite, 0))
        it->own->nonfinite = tile_clear_nonfinite(it->own->values, value, stride, p->keys, FJ_VALUE_DIM,
                                                  it->own->nonfinite_keys);
}

static void tile_scores(const struct pass *p, int first, int rows) {
    struct scratch *own = p->it->own;
    const int64_t panel = (int64_t)FJ_DEPTH(FJ_HEAD_DIM) * FJ_PANEL;
    for (int r = 0; r < p->runs; r++) {
        const struct tile_product qk = {.a = own->queries + (int64_t)first * FJ_Q_LINE,
                                        .a_row = FJ_Q_LINE,
                                        .a_depth = 1,
                                        .b = own->keys + p->run[r].from / FJ_PANEL * panel,
                                        .c = own->scores + p->run[r].from,
                                        .c_row = FJ_TILE_KV,
                                        .depth = FJ_DEPTH(FJ_HEAD_DIM)};
        tile_multiply(qk, rows, p->run[r].to - p->run[r].from, panel, TILE_SET);
    }
}

static void tile_values(const struct pass *p, int first, int rows) {
    struct scratch *own = p->it->own;
    for (int r = 0; r < p->runs; r++) {
        const struct tile_product pv = {.a = (fj_opd *)own->scores + p->run[r].from,
                                        .a_row = FJ_TILE_KV,
                                        .a_depth = 1,
                                        .b = own->values + (int64_t)FJ_DEPTH(p->run[r].from) * FJ_PANEL,
                                        .c = own->sums + (int64_t)first * FJ_O_LINE,
                                        .c_row = FJ_O_LINE,
                                        .depth = FJ_DEPTH(p->run[r].to - p->run[r].from),
                                        .factor = own->factor};
        tile_multiply(pv, rows, FJ_VALUE_DIM, (int64_t)FJ_DEPTH(p->keys) * FJ_PANEL,
                      r ? TILE_ADD : TILE_SCALE);
    }
}

/* What the values that are not finite give to the rows that see them. */
static __attribute__((noinline)) void add_nonfinite(const struct pass *p, int first, int rows, int class) {
    const struct item *it = p->it;
    const struct scratch *own = it->own;
    for (int i = 0; i < own->nonfinite; i++) {
        const int key = own->nonfinite_keys[i];
        const char *value = row_at(&it->args->value, it->batch, it->head_kv, p->key + key);
        for (int row = 0; row < rows; row++)
            if (class == 2 || own->masks[row][key / FJ_LANES] >> key % FJ_LANES & 1)
                tile_add_nonfinite(it->own->sums + (int64_t)(first + row) * FJ_O_LINE, value, FJ_VALUE_DIM);
    }
}

static void do_tile(struct pass p, int first, int rows, int class) {
    const struct item *it = p.it;
    p.runs = 1, p.run[0].from = 0, p.run[0].to = p.keys;
    if (class == 1 || p.keys % (2 * FJ_LANES)) class = mask_tile(&p, first, rows);
    if (!class) return;
    need_packed(&p);
    tile_scores(&p, first, rows);
    for (int at = 0; at < rows; at += FJ_LANES) {
        const int stop = first + (at + FJ_LANES < rows ? at + FJ_LANES : rows), here = stop - first - at;
        fj_f top[FJ_LANES];
        for (int row = first + at; row < stop;) {
            const int end = run_end(it, row, stop);
            need_cols(&p, it->own->head[row]);
            (class == 1 ? rows_masked : rows_full)(&p, first, row, end, top + (row - first - at));
            row = end;
        }
        for (int i = here; i < FJ_LANES; i++) top[i] = tile_splat(0);
        exponential_rows(&p, first, at, here, top);
    }
    tile_values(&p, first, rows);
    if (FJ_WATCH && __builtin_expect(it->own->nonfinite, 0)) add_nonfinite(&p, first, rows, class);
}

static void do_block(const struct item *it, int64_t block) {
    const int64_t key = block * FJ_TILE_KV, left = it->args->kv_len - key;
    const struct pass p = {.it = it,
                           .key = key,
                           .keys = (int)(left < FJ_TILE_KV ? left : FJ_TILE_KV),
                           .natural = natural_of(it->args),
                           .unit = unit_of(it->args)};
    it->own->packed = 0;
    it->own->cols_of = -1;
    for (int row = 0; row < it->rows; row += FJ_TILE_Q) {
        const int end = row + FJ_TILE_Q < it->rows ? row + FJ_TILE_Q : it->rows;
        const int class = tile_class(it, row, end, key, p.keys);
        if (class) do_tile(p, row, end - row, class);
    }
}

/* ---- Results --------------------------------------------------------------------------------- */

static inline void put_real(const struct fj_cpu_tensor *t, int64_t b, int64_t h, int64_t q, fj_real x) {
    if (t->data) ((fj_real *)t->data)[b * t->stride[0] + h * t->stride[1] + q * t->stride[2]] = x;
}

/* natural * m + log in two parts: the nearest real, and what rounding took from it (0 of what is not
 * finite). From FJ_LARGE on the product counts as rounded, as it did in the sum. */
static inline fj_real lse_of(fj_real m, fj_real natural, fj_real log, fj_real *ret_low) {
    const fj_real product = m * natural, sum = product + log;
    const fj_real back = sum - product, lost = (product - (sum - back)) + (log - back);
    fj_real rest = lost;
    if (__builtin_fabs((double)sum) < FJ_LARGE)
        rest += (fj_real)__builtin_fma((double)m, (double)natural, -(double)product);
    const fj_real lse = sum + rest, low = rest - (lse - sum);
    *ret_low = __builtin_isfinite(lse) ? low : 0;
    return __builtin_isfinite(lse) ? lse : sum;
}

static void put_statistics(const struct item *it, int row, fj_real m, fj_real total, fj_real log) {
    const struct fj_cpu_args *a = it->args;
    const int64_t h = it->head + row / it->per_head, q = it->q + row % it->per_head;
    fj_real lse = -FJ_INF, low = 0;
    if (total != 0) lse = lse_of(m, natural_of(a), log, &low);
    put_real(&a->lse, it->batch, h, q, lse);
    put_real(&a->lse_low, it->batch, h, q, low);
    if (FJ_WANT_MAX)
        put_real(&a->max, it->batch, h, q,
                 total != total && m < FJ_INF ? total
                 : m > -FJ_INF                ? m * natural_of(a)
                                              : m);
}

static void finish_rows(const struct item *it, fj_real *sums, const fj_real *top, const fj_real *sum) {
    const struct fj_cpu_args *a = it->args;
    fj_real log[FJ_LANES] __attribute__((aligned(64)));
    for (int row = 0; row < it->rows; row++) {
        const int64_t h = it->head + row / it->per_head, q = it->q + row % it->per_head;
        const fj_real total = sum[row];
        fj_real *line = sums + (int64_t)row * FJ_O_LINE;
        if (row % FJ_LANES == 0) {
            fj_real t[FJ_LANES] __attribute__((aligned(64))) = {0};
            for (int i = 0; i < FJ_LANES && row + i < it->rows; i++) t[i] = sum[row + i];
            tile_store(log, fj_log_f(tile_load(t)));
        }
        /* Nothing to see: zeros, whatever 0 * V left in the sums. */
        if (total == 0) memset(line, 0, sizeof(fj_real) * FJ_O_LINE);
        tile_unpack_row((char *)row_at(&a->out, it->batch, h, q), line, FJ_VALUE_DIM,
                        total == 0 ? 0 : 1 / total);
        put_statistics(it, row, top[row], total, log[row % FJ_LANES]);
    }
}

static void run_item(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    const struct item it = item_of(a, g, number, worker);
    struct scratch *own = it.own;
    start_rows(&it);
    for (int64_t block = it.block; block < it.block_end; block++) do_block(&it, block);
    if (g->splits == 1) {
        finish_rows(&it, own->sums, own->top, own->sum);
        return;
    }
    fj_real *to = grid_partial(a, g, it.unit, it.split);
    memcpy(to, own->sums, sizeof(fj_real) * FJ_O_LINE * (size_t)it.rows);
    memcpy(to + (int64_t)it.rows * FJ_O_LINE, own->top, sizeof(fj_real) * (size_t)it.rows);
    memcpy(to + (int64_t)it.rows * (FJ_O_LINE + 1), own->sum, sizeof(fj_real) * (size_t)it.rows);
}

/* What brings sums below one maximum below another. */
static fj_real merge_factor(const struct fj_cpu_args *a, fj_real from, fj_real top) {
    const fj_real natural = natural_of(a);
    fj_f x = tile_splat((from - top) * unit_of(a));
#if !FJ_HAS_SCORE
    if (fj_any(large_of(tile_splat(top), natural)))
        x = tile_splat((from * natural - top * natural) * FJ_LOG2_E);
#endif
    (void)natural;
    return fj_first_f(tile_exp2(x));
}

/* All splits of a unit, in their order, onto the common maximum. */
static void run_merge(const struct fj_cpu_args *a, const struct grid *g, int64_t unit, int worker) {
    const struct item it = item_of(a, g, unit * g->splits, worker);
    struct scratch *own = it.own;
    for (int row = 0; row < it.rows; row++) {
        const int64_t at_top = (int64_t)it.rows * FJ_O_LINE + row, at_sum = at_top + it.rows;
        fj_real top = -FJ_INF, sum = 0, *line = own->sums + (int64_t)row * FJ_O_LINE;
        for (int64_t i = 0; i < g->splits; i++) {
            fj_real m = grid_partial(a, g, unit, i)[at_top];
            if (m > top) top = m;
        }
        memset(line, 0, sizeof(fj_real) * FJ_O_LINE);
        for (int64_t i = 0; i < g->splits; i++) {
            const fj_real *from = grid_partial(a, g, unit, i);
            /* Of nothing but scores of -inf the sums are 0, or NaN. */
            fj_f f = tile_splat(0);
            if (from[at_sum] != 0) f = tile_splat(merge_factor(a, from[at_top], top));
            sum += from[at_sum] * f[0];
            for (int j = 0; j < FJ_O_LINE; j += FJ_LANES)
                tile_store(line + j,
                           tile_fma(f, tile_load(from + (int64_t)row * FJ_O_LINE + j), tile_load(line + j)));
        }
        own->top[row] = top;
        own->sum[row] = sum;
    }
    finish_rows(&it, own->sums, own->top, own->sum);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

static int64_t kernel_items(const struct fj_cpu_args *a, int phase) {
    const struct grid g = grid_of(a);
    if (phase == 0) return g.units * g.splits;
    return phase == 1 && g.splits > 1 ? g.units : -1;
}

static void kernel_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {
    const struct grid g = grid_of(a);
    if (phase == 0)
        run_item(a, &g, item, worker);
    else
        run_merge(a, &g, item, worker);
}

/* In grains: what is computed is about the full and the partial ones. */
static void kernel_blocks(const struct fj_cpu_args *a, int64_t counts[3]) {
    count_blocks(a, FJ_GRAIN, counts);
}

extern const struct fj_cpu_kernel fj_cpu_kernel;
__attribute__((visibility("default"))) const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .workspace = grid_workspace,
    .items = kernel_items,
    .run = kernel_run,
    .blocks = kernel_blocks,
};
