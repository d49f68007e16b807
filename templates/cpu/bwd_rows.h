/* The phases of the backward kernel that go over rows: delta at first, sums to outputs at last. */
#ifndef FJ_BWD_ROWS_H
#define FJ_BWD_ROWS_H

#include "bwd_capture_grads.h"

#define FJ_INF ((fj_real)__builtin_inf())
#define FJ_MEASURED_DELTA (FJ_HAS_CAPTURE_GRADS && FJ_IN_SIZE == 2) /* invariant 7 */

static inline char *row_at(const struct fj_cpu_tensor *t, int64_t b, int64_t h, int64_t row) {
    return t->data + (b * t->stride[0] + h * t->stride[1] + row * t->stride[2]) * FJ_IN_SIZE;
}
static inline fj_real real_at(const struct fj_cpu_tensor *t, int64_t b, int64_t h, int64_t row) {
    return ((const fj_real *)t->data)[b * t->stride[0] + h * t->stride[1] + row * t->stride[2]];
}

/* Rows [begin, end) of one (batch, head), for the phases that go over rows. */
struct rows {
    int64_t b, h, begin, end;
};

static struct rows rows_of(int64_t number, int64_t heads, int64_t length) {
    const int64_t chunks = divide_up(length, FJ_ROW_TASK), at = number % chunks * FJ_ROW_TASK;
    number /= chunks;
    return (struct rows){number / heads, number % heads, at, least(at + FJ_ROW_TASK, length)};
}
static inline int64_t row_tasks(int64_t batch, int64_t heads, int64_t length) {
    return batch * heads * divide_up(length, FJ_ROW_TASK);
}

/* Halves folded onto each other: an order that is part of the result. */
static inline fj_real sum_lanes(fj_f v) {
    fj_real t[FJ_LANES];
    fj_put_f(t, v);
    for (int n = FJ_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) t[i] += t[i + n];
    return t[0];
}

/* Whether products that belong to such an lse are made natural scores first (tile.h: FJ_LARGE). */
static inline int is_large(fj_real lse) { return !FJ_HAS_SCORE && __builtin_fabs((double)lse) >= FJ_LARGE; }

/* Tasks of the phases, and one line of dK and dV. */
FJ_SHARED void run_delta(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker);
FJ_SHARED void run_dquery(const struct fj_cpu_args *a, const struct grid *g, int64_t number);
FJ_SHARED void run_dkv(const struct fj_cpu_args *a, const struct grid *g, int64_t number);
FJ_SHARED void write_dkv(const struct fj_cpu_args *a, int64_t b, int64_t h, int64_t kv, const fj_real *dkey,
                         const fj_real *dvalue);

#if FJ_IN_PART(2)

/* ---- The first phase: delta ------------------------------------------------------------------------ */

/* rowsum(O dO) of up to FJ_PANEL rows, by the steps that dP = dO V^T is made by: where a row sees one key only
 * its delta has the bits of that dP, and the difference, which is all of its gradient, is exactly 0. */
static void sum_out_dout(const struct fj_cpu_args *a, struct scratch *own, int64_t b, int64_t h, int64_t q,
                         int rows, fj_real *delta) {
    const int64_t depth = FJ_DEPTH(FJ_VALUE_DIM);
    fj_opd *outs = own->values, *douts = outs + depth * FJ_PANEL;
    fj_f sum[FJ_PANEL_VECS];
    _Alignas(64) fj_real sums[FJ_PANEL];
    tile_pack_columns(outs, row_at(&a->out, b, h, q), a->out.stride[2] * FJ_IN_SIZE, rows, FJ_VALUE_DIM);
    tile_pack_columns(douts, row_at(&a->dout, b, h, q), a->dout.stride[2] * FJ_IN_SIZE, rows, FJ_VALUE_DIM);
    for (int j = 0; j < FJ_PANEL_VECS; j++) sum[j] = tile_splat(0);
    for (int64_t k = 0; k < depth * FJ_PANEL; k += FJ_PANEL)
        for (int j = 0; j < FJ_PANEL_VECS; j++)
            sum[j] = tile_step(sum[j], tile_operands(douts + k + j * FJ_LANES),
                               tile_operands(outs + k + j * FJ_LANES));
    for (int j = 0; j < FJ_PANEL_VECS; j++) tile_store(sums + j * FJ_LANES, sum[j]);
    memcpy(delta, sums, sizeof(fj_real) * (size_t)rows);
}

/* Whether an element of a row is not 0, whatever its dtype (little-endian: the sign is in the last byte). */
static int is_any(const char *row) {
    unsigned char bits = 0;
    for (int i = 0; i < FJ_VALUE_DIM * FJ_IN_SIZE; i++)
        bits |= (unsigned char)row[i] & (i % FJ_IN_SIZE == FJ_IN_SIZE - 1 ? 0x7f : 0xff);
    return bits != 0;
}

/* base and low of a row (bwd.c, invariant 2). lse and its low part hold m scale + log(sum), m being the row's
 * greatest product: divided by the scale they are m to the last bit where products are as far apart as that
 * the logarithm does not reach the next one, and near it elsewhere. */
static void find_base(fj_real scale, fj_real lse, fj_real lse_low, fj_real *ret_base, fj_real *ret_low) {
    const double natural = FJ_HAS_SCORE || is_large(lse) ? 1 : (double)scale;
    double base = natural != 0 ? (double)lse / natural : 0;
    if (natural != 0) base += (__builtin_fma(-base, natural, (double)lse) + (double)lse_low) / natural;
    *ret_base = lse == FJ_INF ? (fj_real)__builtin_nan("") : lse == -FJ_INF ? -FJ_INF : (fj_real)base;
    const double rest = __builtin_fma((double)*ret_base, natural, -(double)lse) - (double)lse_low;
    *ret_low = (fj_real)(rest * 1.44269504088896340736);
}

FJ_SHARED void run_delta(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    const struct rows r = rows_of(number, a->heads_q, a->q_len);
    fj_real *delta = grid_delta(a, g, r.b, r.h);
    struct scratch *own = (struct scratch *)a->scratch + worker;
    for (int64_t q = r.begin; q < r.end && !FJ_MEASURED_DELTA; q += FJ_PANEL)
        sum_out_dout(a, own, r.b, r.h, q, (int)least(FJ_PANEL, r.end - q), delta + q);
    for (int64_t q = r.begin; q < r.end; q++) {
        /* With a sink a row that sees nothing has an lse: its output is 0, and what dO holds is no matter. */
        if (FJ_HAS_SINK && !(delta[q] - delta[q] == 0) && !is_any(row_at(&a->out, r.b, r.h, q))) delta[q] = 0;
        delta[q] = (FJ_MEASURED_DELTA ? 0 : delta[q]) - (a->dlse.data ? real_at(&a->dlse, r.b, r.h, q) : 0);
        find_base((fj_real)a->scale, real_at(&a->lse, r.b, r.h, q),
                  a->lse_low.data ? real_at(&a->lse_low, r.b, r.h, q) : 0, delta + q + grid_base(a),
                  delta + q + grid_low(a));
    }
}

/* ---- The last phase: sums to outputs --------------------------------------------------------------- */

/* The first line with the same line of the other copies added, in order. Copies are bytes apart. */
static void sum_copies(fj_real *first, int64_t copy, int64_t count, int line) {
    for (int64_t i = 1; i < count; i++) {
        const fj_real *other = (const fj_real *)((const char *)first + i * copy);
        for (int col = 0; col < line; col += FJ_LANES)
            tile_store(first + col, tile_load(first + col) + tile_load(other + col));
    }
}

FJ_SHARED void run_dquery(const struct fj_cpu_args *a, const struct grid *g, int64_t number) {
    const struct rows r = rows_of(number, a->heads_q, a->q_len);
    for (int64_t q = r.begin; q < r.end && a->dquery.data; q++) {
        fj_real *line = grid_dquery(a, g, 0, r.b, r.h, q);
        sum_copies(line, g->dquery_copy, g->dquery_copies, FJ_E_LINE);
        if (real_at(&a->lse, r.b, r.h, q) == -FJ_INF) memset(line, 0, sizeof(fj_real) * FJ_E_LINE);
        tile_unpack_row(row_at(&a->dquery, r.b, r.h, q), line, FJ_HEAD_DIM, (fj_real)a->scale);
    }
}

FJ_SHARED void write_dkv(const struct fj_cpu_args *a, int64_t b, int64_t h, int64_t kv, const fj_real *dkey,
                         const fj_real *dvalue) {
    if (a->carry && a->shared_keys) {
        fj_real *const lines = (fj_real *)(a->carry + carry_grads(a));
        const int64_t at = h * a->kv_len + kv;
        dkey = carry_line(a, lines + at * FJ_E_LINE, dkey, FJ_E_LINE);
        dvalue = carry_line(a, lines + carry_lines(a) * FJ_E_LINE + at * FJ_V_LINE, dvalue, FJ_V_LINE);
        if (!a->is_last) return;
    }
    if (a->dkey.data) tile_unpack_row(row_at(&a->dkey, b, h, kv), dkey, FJ_HEAD_DIM, (fj_real)a->scale);
    const fj_real kept = FJ_DROPOUT ? (fj_real)a->dropout_scale : 1;
    if (a->dvalue.data) tile_unpack_row(row_at(&a->dvalue, b, h, kv), dvalue, FJ_VALUE_DIM, kept);
}

FJ_SHARED void run_dkv(const struct fj_cpu_args *a, const struct grid *g, int64_t number) {
    const struct rows r = rows_of(number, a->heads_kv, a->kv_len);
    for (int64_t kv = r.begin; kv < r.end; kv++) {
        fj_real *dkey = grid_dkey(a, g, 0, r.b, r.h, kv), *dvalue = grid_dvalue(a, g, 0, r.b, r.h, kv);
        sum_copies(dkey, g->dkv_copy, g->dkv_copies, FJ_E_LINE);
        sum_copies(dvalue, g->dkv_copy, g->dkv_copies, FJ_V_LINE);
        write_dkv(a, r.b, r.h, kv, dkey, dvalue);
    }
}

#endif

#endif
