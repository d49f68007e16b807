/* Forward attention on the cpu: fused, tiled, online softmax.
 *
 *            key block (FJ_TILE_KV)           for each item (fwd_grid.h):
 *           +---------------------+             pack Q; sums = 0, top = -inf
 *   query   |                     |             for each key block, for each query tile:
 *   tile    |  S = Q K^T          |               class: empty, partial, full; the mask as bits
 *   (FJ_    |  score mod, mask    |               first tile that sees any: pack K and V (of few rows: fwd_direct.h)
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

#include "fwd_scores.h"

#if FJ_DIRECT
#include "fwd_direct.h"
#endif

/* How many blocks a unit sees, as far as marks tell. */
static inline int64_t live_of(const struct fj_cpu_args *a, const struct grid *g, int64_t unit) {
    int64_t live = g->blocks;
    if (!g->pieces) return live;
    const uint8_t *marks = grid_marks(a, g, unit);
    for (int64_t block = 0; block < g->blocks; block++) live -= marks[block] == 0;
    return live;
}

/* Sums to results; all splits of a unit to one; what is computed. */
FJ_SHARED void finish_rows(const struct item *it, fj_real *sums, const fj_real *top, const fj_real *sum);
FJ_SHARED void run_merge(const struct fj_cpu_args *a, const struct grid *g, int64_t unit, int worker);
FJ_SHARED void kernel_blocks(const struct fj_cpu_args *a, int64_t counts[COUNTS]);

#if FJ_IN_PART(FJ_RESULT_PART)

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

/* How up to FJ_LANES rows end: their sums times `factor` are results; lse is lse_of(at, natural, log). */
struct ends {
    _Alignas(64) fj_real total[FJ_LANES], log[FJ_LANES];
    fj_real at[FJ_LANES], natural[FJ_LANES], factor[FJ_LANES];
};

/* What the mods of the output and of the sink keep of a head of the unit; -1: of none yet. */
struct epilogue {
    int sink_head, out_head;
    fj_real sink;
#if FJ_HAS_OUT
    struct fj_out_head_state head;
    struct fj_out_col_state cols[FJ_OUT_COL_EMPTY ? 1 : FJ_VECS(FJ_VALUE_DIM)];
#endif
};

#if FJ_HAS_SINK
/* The natural logit that joins a row. */
static fj_real sink_of(const struct item *it, int row, struct epilogue *x) {
    const int head = row / it->per_head;
    struct fj_sink_head_state state;
    if (x->sink_head == head) return x->sink;
    x->sink_head = head;
    (void)state;
#if !FJ_SINK_HEAD_EMPTY
    fj_sink_head_init(it->args, batch_of(it), (int32_t)(it->head + head), &state);
#endif
#if FJ_HAS_SINK_FAULT
    if (fj_any(fj_sink_fault(it->args, &state))) note_fault_at(it, FJ_CPU_FAULT_SINK, it->head + head, 0, 0);
#endif
    return x->sink = fj_first_f(fj_sink(it->args, &state));
}

/* How far a sink is above what sums of a maximum `top` are relative to; not a number where the sink is +inf or NaN. */
static fj_real sink_above(fj_real sink, fj_real top, fj_real natural, int is_alone) {
    const fj_real product = top * natural;
    if (sink == -FJ_INF) return sink;
    if (is_alone) return sink - sink + FJ_INF;
    if (!(__builtin_fabs((double)product) < FJ_LARGE)) return sink - sink + (sink - product);
    return sink - sink + (fj_real)__builtin_fma(-(double)top, (double)natural, (double)sink);
}

/* Brings the sums of rows, or the sink, below the greater of the row's maximum and the sink, and adds the sink to them. What is
 * greater has a factor of exactly 1. A row that sees nothing has the sink alone; a sink of -inf changes nothing. */
static void join_sinks(const struct item *it, int row, int rows, struct ends *e, struct epilogue *x) {
    _Alignas(64) fj_real sums[FJ_LANES] = {0}, sinks[FJ_LANES] = {0};
    for (int i = 0; i < rows; i++) {
        const fj_real sink = sink_of(it, row + i, x);
        const fj_real above = sink_above(sink, e->at[i], e->natural[i], e->total[i] == 0);
        sums[i] = above > 0 ? -above * FJ_LOG2_E : 0;
        sinks[i] = above > 0 ? 0 : above * FJ_LOG2_E;
        if (above > 0) e->at[i] = sink, e->natural[i] = 1;
    }
    const fj_f factor = tile_exp2(tile_load(sums)), all = tile_load(e->total);
    const fj_f sum = fj_where_f(fj_eq_f(all, tile_splat(0)), all, all * factor);
    tile_store(e->total, sum + tile_exp2(tile_load(sinks)));
    fj_put_f(e->factor, factor);
}
#endif

static void find_ends(const struct item *it, int row, const fj_real *top, const fj_real *sum, struct ends *e,
                      struct epilogue *x) {
    const int rows = it->rows - row < FJ_LANES ? it->rows - row : FJ_LANES;
    for (int i = 0; i < FJ_LANES; i++) {
        e->total[i] = i < rows ? sum[row + i] : 0;
        e->at[i] = i < rows ? top[row + i] : 0;
        e->natural[i] = natural_of(it->args);
        e->factor[i] = 1;
    }
    (void)x;
#if FJ_HAS_SINK
    join_sinks(it, row, rows, e, x);
#endif
    tile_store(e->log, fj_log_f(tile_load(e->total)));
    for (int i = 0; i < FJ_LANES; i++) {
#if FJ_DROPOUT
        e->factor[i] *= (fj_real)it->args->dropout_scale;
#endif
        e->factor[i] = e->total[i] == 0 ? 0 : e->factor[i] / e->total[i];
    }
}

static void put_statistics(const struct item *it, int row, fj_real top, fj_real sum, const struct ends *e) {
    const struct fj_cpu_args *a = it->args;
    const int64_t h = it->head + row / it->per_head, q = it->q + row % it->per_head;
    const int i = row % FJ_LANES;
    fj_real lse = -FJ_INF, low = 0;
    if (e->total[i] != 0) lse = lse_of(e->at[i], e->natural[i], e->log[i], &low);
    put_real(&a->lse, it->batch, h, q, lse);
    put_real(&a->lse_low, it->batch, h, q, low);
    if (FJ_WANT_MAX)
        put_real(&a->max, it->batch, h, q,
                 sum != sum && top < FJ_INF ? sum
                 : top > -FJ_INF            ? top * natural_of(a)
                                            : top);
}

#if FJ_HAS_OUT
static void start_output(const struct item *it, int head, struct epilogue *x) {
    x->out_head = head;
#if !FJ_OUT_HEAD_EMPTY
    fj_out_head_init(it->args, batch_of(it), (int32_t)(it->head + head), &x->head);
#endif
#if !FJ_OUT_COL_EMPTY
    for (int v = 0; v < FJ_VECS(FJ_VALUE_DIM); v++)
        fj_out_col_init(it->args, &x->head, fj_add_i(fj_splat_i(v * FJ_LANES), fj_iota_i()), &x->cols[v]);
#endif
}

/* The mod of the output on a row of results, in place. */
static void apply_output(const struct item *it, int row, fj_real *line, struct epilogue *x) {
    const struct fj_cpu_args *a = it->args;
    const int head = row / it->per_head;
    struct fj_out_row_state state;
    (void)state;
    if (x->out_head != head) start_output(it, head, x);
#if !FJ_OUT_ROW_EMPTY
    fj_out_row_init(a, &x->head, position_of(it, row), &state);
#endif
    for (int v = 0; v < FJ_VECS(FJ_VALUE_DIM); v++) {
        const struct fj_out_col_state *col = &x->cols[FJ_OUT_COL_EMPTY ? 0 : v];
        const fj_f value = tile_load(line + v * FJ_LANES);
#if FJ_HAS_OUT_FAULT
        const fj_b live = fj_lanes_below(FJ_VALUE_DIM - v * FJ_LANES);
        const uint32_t bits = fj_bits_b(fj_out_fault(a, &x->head, &state, col, value, live));
        if (__builtin_expect(bits != 0, 0))
            note_fault_at(it, FJ_CPU_FAULT_OUT, it->head + head, position_of(it, row),
                          v * FJ_LANES + __builtin_ctz(bits));
#endif
        tile_store(line + v * FJ_LANES, fj_out(a, &x->head, &state, col, value));
    }
}
#endif

/* A row's sums, as results. */
static void put_row(const struct item *it, int row, fj_real *line, fj_real factor, struct epilogue *x) {
    const struct fj_cpu_args *a = it->args;
    const int64_t h = it->head + row / it->per_head, q = it->q + row % it->per_head;
    (void)x;
#if FJ_HAS_OUT
    for (int col = 0; col < FJ_O_LINE; col += FJ_LANES)
        tile_store(line + col, tile_fma(tile_load(line + col), tile_splat(factor), tile_splat(0)));
    factor = 1;
    if (a->out_raw.data) tile_unpack_row((char *)row_at(&a->out_raw, it->batch, h, q), line, FJ_VALUE_DIM, 1);
    apply_output(it, row, line, x);
#endif
    tile_unpack_row((char *)row_at(&a->out, it->batch, h, q), line, FJ_VALUE_DIM, factor);
}

FJ_SHARED void finish_rows(const struct item *it, fj_real *sums, const fj_real *top, const fj_real *sum) {
    struct ends e;
    struct epilogue x = {.sink_head = -1, .out_head = -1};
    for (int row = 0; row < it->rows; row++) {
        fj_real *line = sums + (int64_t)row * FJ_O_LINE;
        if (row % FJ_LANES == 0) find_ends(it, row, top, sum, &e, &x);
        /* Nothing to see: zeros, whatever 0 * V left in the sums. */
        if (sum[row] == 0) memset(line, 0, sizeof(fj_real) * FJ_O_LINE);
        put_row(it, row, line, e.factor[row % FJ_LANES], &x);
        put_statistics(it, row, top[row], sum[row], &e);
    }
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
FJ_SHARED void run_merge(const struct fj_cpu_args *a, const struct grid *g, int64_t unit, int worker) {
    const struct item it = item_of(a, g, unit * g->splits, worker);
    struct scratch *own = it.own;
    const int64_t parts = parts_of(g, live_of(a, g, unit));
    for (int row = 0; row < it.rows; row++) {
        const int64_t at_top = (int64_t)it.rows * FJ_O_LINE + row, at_sum = at_top + it.rows;
        fj_real top = -FJ_INF, sum = 0, *line = own->sums + (int64_t)row * FJ_O_LINE;
        for (int64_t i = 0; i < parts; i++) {
            fj_real m = grid_partial(a, g, unit, i)[at_top];
            if (m > top) top = m;
        }
        memset(line, 0, sizeof(fj_real) * FJ_O_LINE);
        for (int64_t i = 0; i < parts; i++) {
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

/* In grains: what is computed is about the full and the partial ones. */
FJ_SHARED void kernel_blocks(const struct fj_cpu_args *a, int64_t counts[COUNTS]) {
    count_blocks(a, FJ_GRAIN, counts);
}

#endif

#if FJ_IN_PART(1)

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* The block's keys, once some tile sees anything of them and does not read them where they lie. */
static void need_keys(const struct pass *p) {
    const struct item *it = p->it;
    if (it->own->packed_keys) return;
    it->own->packed_keys = 1;
    const struct key_rows keys = keys_of(p);
    tile_pack_columns(it->own->keys, keys.first, keys.stride, p->keys, FJ_HEAD_DIM);
}

static void need_values(const struct pass *p) {
    const struct item *it = p->it;
    if (it->own->packed_values) return;
    it->own->packed_values = 1;
    const struct key_rows values = values_of(p);
    it->own->value_rows = values;
    it->own->nonfinite = tile_pack_depth(it->own->values, values.first, values.stride, p->keys, FJ_VALUE_DIM);
    if (__builtin_expect(it->own->nonfinite, 0))
        it->own->nonfinite = tile_clear_nonfinite(it->own->values, values.first, values.stride, p->keys,
                                                  FJ_VALUE_DIM, it->own->nonfinite_keys);
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

/* Of a row of the tile and a key of the block. */
static inline int is_kept(const struct scratch *own, int row, int key) {
#if FJ_DROPOUT
    return own->keep[row][key / FJ_KEEP_KEYS] >> key % FJ_KEEP_KEYS & 1;
#else
    return (void)own, (void)row, (void)key, 1;
#endif
}

/* What the values that are not finite give to the rows that see them. */
static __attribute__((noinline)) void add_nonfinite(const struct pass *p, int first, int rows, int class) {
    const struct item *it = p->it;
    const struct scratch *own = it->own;
    for (int i = 0; i < own->nonfinite; i++) {
        const int key = own->nonfinite_keys[i];
        const char *value = own->value_rows.first + key * own->value_rows.stride;
        for (int row = 0; row < rows; row++)
            if ((class == 2 || own->masks[row][key / FJ_LANES] >> key % FJ_LANES & 1) &&
                is_kept(own, row, key))
                tile_add_nonfinite(it->own->sums + (int64_t)(first + row) * FJ_O_LINE, value, FJ_VALUE_DIM);
    }
}

static void multiply_keys(const struct pass *p, int first, int rows) {
#if FJ_DIRECT
    if (p->it->way == WAY_WIDE) return wide_scores(p, rows);
    if (p->it->way == WAY_NARROW) return narrow_scores(p, rows);
#endif
    need_keys(p);
    tile_scores(p, first, rows);
}

static void multiply_values(const struct pass *p, int first, int rows, int class) {
#if FJ_DIRECT
    if (p->it->way != WAY_PACKED && direct_values(p, rows)) return;
#endif
    need_values(p);
    tile_values(p, first, rows);
    if (FJ_WATCH && __builtin_expect(p->it->own->nonfinite, 0)) add_nonfinite(p, first, rows, class);
}

static void do_tile(struct pass p, int first, int rows, int class) {
    const struct item *it = p.it;
    p.runs = 1, p.run[0].from = 0, p.run[0].to = p.keys;
    if (class == 1 || p.keys % (2 * FJ_LANES)) class = mask_tile(&p, first, rows);
    if (!class) return;
#if FJ_DROPOUT
    keep_tile(&p, first, rows);
#endif
    multiply_keys(&p, first, rows);
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
    multiply_values(&p, first, rows, class);
}

/* known: the class of the block for all rows of the unit; -1: each tile finds its own. */
static void do_block(const struct item *it, int64_t block, int known) {
    const int64_t key = block * FJ_TILE_KV, left = it->args->kv_len - key;
    const struct pass p = {.it = it,
                           .key = key,
                           .keys = (int)(left < FJ_TILE_KV ? left : FJ_TILE_KV),
                           .natural = natural_of(it->args),
                           .unit = unit_of(it->args)};
    it->own->packed_keys = it->own->packed_values = 0;
    it->own->cols_of = -1;
    if (FJ_MASKED && known < 0 && it->rows > FJ_TILE_Q) { /* all tiles at once */
        const int class = tile_class(it, 0, it->rows, key, p.keys);
        if (class != 1) known = class;
    }
    for (int row = 0; row < it->rows && known != 0; row += FJ_TILE_Q) {
        const int end = row + FJ_TILE_Q < it->rows ? row + FJ_TILE_Q : it->rows;
        const int class = known >= 0 ? known : tile_class(it, row, end, key, p.keys);
        if (class) do_tile(p, row, end - row, class);
    }
}

/* What a unit, of one tile, sees of a piece of its blocks. */
static void mark_piece(const struct fj_cpu_args *a, const struct grid *g, int64_t number) {
    const struct item it = item_of(a, g, number / g->pieces * g->splits, 0);
    const int64_t from = number % g->pieces * FJ_PIECE,
                  to = from + FJ_PIECE < g->blocks ? from + FJ_PIECE : g->blocks;
    uint8_t *marks = grid_marks(a, g, it.unit);
    for (int64_t block = from; block < to; block++) {
        const int64_t key = block * FJ_TILE_KV, left = a->kv_len - key;
        marks[block] =
            (uint8_t)tile_class(&it, 0, it.rows, key, (int)(left < FJ_TILE_KV ? left : FJ_TILE_KV));
    }
}

/* The blocks [from, to) of those that a unit sees. */
static void do_part(const struct item *it, const struct grid *g, int64_t from, int64_t to) {
    if (!g->pieces) {
        for (int64_t block = from; block < to; block++) do_block(it, block, -1);
        return;
    }
    const uint8_t *marks = grid_marks(it->args, g, it->unit);
    for (int64_t block = 0, live = 0; live < to; block++) {
        if (!marks[block]) continue;
        if (live >= from) do_block(it, block, marks[block]);
        live++;
    }
}

static void run_item(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    const struct item it = item_of(a, g, number, worker);
    struct scratch *own = it.own;
    int64_t from, to;
    part_of(g, live_of(a, g, it.unit), it.split, &from, &to);
    if (from == to && g->splits > 1) return;
    start_rows(&it);
#if FJ_HAS_NO_ROW
    memset(own->no_row, 0, sizeof own->no_row);
#endif
#if FJ_DIRECT
    start_direct(&it);
#endif
    do_part(&it, g, from, to);
    if (g->splits == 1) {
        finish_rows(&it, own->sums, own->top, own->sum);
        return;
    }
    fj_real *partial = grid_partial(a, g, it.unit, it.split);
    memcpy(partial, own->sums, sizeof(fj_real) * FJ_O_LINE * (size_t)it.rows);
    memcpy(partial + (int64_t)it.rows * FJ_O_LINE, own->top, sizeof(fj_real) * (size_t)it.rows);
    memcpy(partial + (int64_t)it.rows * (FJ_O_LINE + 1), own->sum, sizeof(fj_real) * (size_t)it.rows);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

static int64_t kernel_items(const struct fj_cpu_args *a, int phase) {
    const struct grid g = grid_of(a);
    if (g.pieces && phase-- == 0) return g.units * g.pieces;
    if (phase == 0) return g.units * g.splits;
    return phase == 1 && g.splits > 1 ? g.units : -1;
}

static void kernel_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {
    const struct grid g = grid_of(a);
    if (g.pieces && phase-- == 0)
        mark_piece(a, &g, item);
    else if (phase == 0)
        run_item(a, &g, item, worker);
    else
        run_merge(a, &g, item, worker);
}

extern const struct fj_cpu_kernel fj_cpu_kernel;
FJ_CPU_EXPORT const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .scratch = sizeof(struct scratch),
    .workspace = grid_workspace,
    .items = kernel_items,
    .run = kernel_run,
    .blocks = kernel_blocks,
};

#endif
