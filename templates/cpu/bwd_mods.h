/* What backward does with the mods of the output and of the sink, row by row, in phases of their own (bwd.c).
 *
 *   out     do' = fj_out_grad(o, do), o the output before the mod; in what follows it stands for do, and o for out
 *   sink    d loss / d logit = -P (delta - dlse), P = exp(logit - lse): that of a key of which the value is 0
 *
 * Both add to gradients of captures, in the arrays of the slots (bwd_capture_grads.h). A row that sees nothing has a do' and
 * an adjoint of its sink as well, but where its lse is -inf: there the sink is as if it was none. */
#ifndef FJ_BWD_MODS_H
#define FJ_BWD_MODS_H

#include "bwd_capture_grads.h"

#include "bwd_rows.h"

/* Arrays of a slot. */
static struct fj_capture_grads grads_of_slot(const struct fj_cpu_args *a, const struct grads *s,
                                             int64_t slot) {
    struct fj_capture_grads grads;
    for (int i = 0; i < FJ_CAPTURES; i++)
        grads.capture[i] = s->captures[i].count ? grad_array(a, s, i, slot) : NULL;
    grads.capture[FJ_CAPTURES] = NULL;
    grads.scalar = grad_scalars(a, s, slot);
    return grads;
}

#if FJ_HAS_OUT
/* The arguments of what follows the phase that makes do'. */
static struct fj_cpu_args args_past_output(const struct fj_cpu_args *a, const struct grid *g) {
    struct fj_cpu_args past = *a;
    past.out = a->out_raw;
    past.dout.data = a->workspace + g->dout;
    past.dout.stride[3] = 1;
    past.dout.stride[2] = FJ_VALUE_DIM;
    past.dout.stride[1] = a->q_len * FJ_VALUE_DIM;
    past.dout.stride[0] = a->heads_q * past.dout.stride[1];
    return past;
}

/* n columns. */
FJ_INLINE fj_f input_of(const char *p, int n) {
    return n >= FJ_LANES ? tile_input(p) : tile_input_part(p, n);
}

static void adjoin_output(const struct fj_cpu_args *a, const struct grid *g, struct rows r,
                          struct fj_capture_grads *grads) {
    const struct fj_cpu_args past = args_past_output(a, g);
    const int32_t b = (int32_t)r.b + a->first_batch;
    struct fj_out_head_state head;
    struct fj_out_row_state row;
    struct fj_out_col_state cols[FJ_OUT_COL_EMPTY ? 1 : FJ_VECS(FJ_VALUE_DIM)];
    memset(&head, 0, sizeof head), memset(&row, 0, sizeof row), (void)b;
#if !FJ_OUT_HEAD_EMPTY
    fj_out_head_init(a, b, (int32_t)r.h, &head);
#endif
#if FJ_OUT_COL_EMPTY
    memset(cols, 0, sizeof cols);
#else
    for (int v = 0; v < FJ_VECS(FJ_VALUE_DIM); v++)
        fj_out_col_init(a, &head, fj_add_i(fj_splat_i(v * FJ_LANES), fj_iota_i()), &cols[v]);
#endif
    for (int64_t q = r.begin; q < r.end; q++) {
        const char *x = row_at(&a->out_raw, r.b, r.h, q), *from = row_at(&a->dout, r.b, r.h, q);
        char *to = row_at(&past.dout, r.b, r.h, q);
#if !FJ_OUT_ROW_EMPTY
        fj_out_row_init(a, &head, (int32_t)q + a->q_offset, &row);
#endif
        for (int v = 0; v < FJ_VECS(FJ_VALUE_DIM); v++) {
            const int left = FJ_VALUE_DIM - v * FJ_LANES, at = v * FJ_LANES * FJ_IN_SIZE;
            const fj_f dx =
                fj_out_grad(a, &head, &row, &cols[FJ_OUT_COL_EMPTY ? 0 : v], input_of(x + at, left),
                            input_of(from + at, left), fj_lanes_below(left), grads);
            if (left >= FJ_LANES)
                tile_output(to + at, dx);
            else
                tile_output_part(to + at, dx, left);
        }
    }
}
#endif

#if FJ_HAS_SINK_GRADS
static void adjoin_sink(const struct fj_cpu_args *a, const struct grid *g, struct rows r,
                        struct fj_capture_grads *grads) {
    const fj_real *delta = grid_delta(a, g, r.b, r.h);
    struct fj_sink_head_state head;
    memset(&head, 0, sizeof head);
#if !FJ_SINK_HEAD_EMPTY
    fj_sink_head_init(a, (int32_t)r.b + a->first_batch, (int32_t)r.h, &head);
#endif
    const fj_f sink = fj_sink(a, &head);
    for (int64_t q = r.begin; q < r.end; q += FJ_LANES) {
        const int rows = (int)least(FJ_LANES, r.end - q);
        _Alignas(64) fj_real lse[FJ_LANES] = {0}, low[FJ_LANES] = {0}, deltas[FJ_LANES] = {0};
        for (int i = 0; i < rows; i++) {
            lse[i] = real_at(&a->lse, r.b, r.h, q + i);
            if (a->lse_low.data) low[i] = real_at(&a->lse_low, r.b, r.h, q + i);
            deltas[i] = delta[q + i];
        }
        const fj_f all = tile_load(lse), log2_e = tile_splat((fj_real)1.44269504088896340736);
        const fj_f prob = tile_exp2(((sink - all) - tile_load(low)) * log2_e);
        const fj_b live = fj_and_b(fj_lanes_below(rows), fj_ne_f(all, tile_splat(-FJ_INF)));
        const fj_f adjoint = fj_where_f(live, -(prob * tile_load(deltas)), tile_splat(0));
        fj_sink_grad(a, &head, adjoint, live, grads);
    }
}
#endif

#endif
