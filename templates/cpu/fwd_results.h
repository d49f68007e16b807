/* How rows of forward end: splits are merged, the sink joins, sums become results, the mod of the output, lse and maximum. The
 * invariants are at the head of fwd.c. */
#ifndef FJ_FWD_RESULTS_H
#define FJ_FWD_RESULTS_H

#include "blocks.h"

#include "fwd_scores.h"

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
        /* A row that sees nothing has an output of 0, whatever its sink is. */
        e->factor[i] = i < rows && sum[row + i] != 0 ? e->factor[i] / e->total[i] : 0;
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
    if (a->out.data) apply_output(it, row, line, x);
#endif
    if (a->out.data) tile_unpack_row((char *)row_at(&a->out, it->batch, h, q), line, FJ_VALUE_DIM, factor);
}

FJ_SHARED void finish_rows(const struct item *it, fj_real *sums, const fj_real *top, const fj_real *sum) {
    struct ends e;
    struct epilogue x = {.sink_head = -1, .out_head = -1};
    const int output = wants_output(it);
    for (int row = 0; row < it->rows; row++) {
        fj_real *line = sums + (int64_t)row * FJ_O_LINE;
        if (row % FJ_LANES == 0) find_ends(it, row, top, sum, &e, &x);
        /* Nothing to see: zeros, whatever 0 * V left in the sums. */
        if (sum[row] == 0) memset(line, 0, sizeof(fj_real) * FJ_O_LINE);
        if (output) put_row(it, row, line, e.factor[row % FJ_LANES], &x);
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

#endif
