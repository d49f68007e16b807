/* Probabilities of attention, for callers that want to see them: a product of queries and keys for each head, then what the
 * kernel did with its rows. */
#include <math.h>
#include <string.h>

#include "driver/parallel.h"
#include "nn/attend.h"

struct weights {
    const fj_nn_run *run;
    const fj_nn_attention *call;
    fj_nn_mask_view masks;
    double scale;
    int64_t heads, head_dim;
    fj_nn_drop drop;
    bool mean;
    void *scratch, *to;
};

/* A row of scores to probabilities. */
#define ROW_FUNCTION(name, real, EXP)                                                                        \
    static void name(const struct weights *w, int64_t b, int64_t h, int64_t q, void *row, real lse) {        \
        const fj_nn_mask_view *m = &w->masks;                                                                \
        const int64_t at = b * m->mask_strides[0] + h * m->mask_strides[1] + q * m->mask_strides[2];         \
        const uint8_t *hidden = m->mask && m->mask_is_bool ? (const uint8_t *)m->mask + at : NULL;           \
        const real *added = m->mask && !m->mask_is_bool ? (const real *)m->mask + at : NULL;                 \
        const int64_t pad = b * m->padding_stride;                                                           \
        const uint8_t *padded = m->padding && m->padding_is_bool ? (const uint8_t *)m->padding + pad : NULL; \
        const real *lowered = m->padding && !m->padding_is_bool ? (const real *)m->padding + pad : NULL;     \
        const uint64_t plane = (uint64_t)(b * w->heads + h);                                                 \
        for (int64_t kv = 0; kv < w->call->kv_len; kv++) {                                                   \
            real *p = (real *)row + kv;                                                                      \
            const bool seen =                                                                                \
                !(hidden && hidden[kv]) && !(padded && padded[kv]) && !(m->future_is_hidden && kv > q);      \
            const real score = *p * (real)w->scale + (added ? added[kv] : 0) + (lowered ? lowered[kv] : 0);  \
            *p = seen && lse > -(real)INFINITY ? EXP(score - lse) : 0;                                       \
            if (w->drop.threshold == 0) continue;                                                            \
            const bool kept =                                                                                \
                fj_dropout_word(w->drop.key, plane, (uint32_t)q, (uint32_t)kv) >= w->drop.threshold;         \
            *p = kept ? *p * (real)w->drop.scale : 0;                                                        \
        }                                                                                                    \
    }
ROW_FUNCTION(row_f32, float, expf)
ROW_FUNCTION(row_f64, double, exp)

static char *columns_at(const struct weights *w, fj_nn_columns columns, int64_t length, int64_t b,
                        int64_t h) {
    const int64_t row = w->call->batch_first ? b * length : b;
    return fj_nn_at(w->run, columns.data, row * columns.ld + h * w->head_dim);
}

static void fill_head(const struct weights *w, int64_t b, int64_t h, char *to) {
    const fj_nn_attention *call = w->call;
    const int64_t step = call->batch_first ? 1 : call->batch, l = call->q_len, s = call->kv_len;
    const fj_nn_product product = {.trans_b = true,
                                   .m = l,
                                   .n = s,
                                   .k = w->head_dim,
                                   .a = columns_at(w, call->q, l, b, h),
                                   .b = columns_at(w, call->k, s, b, h),
                                   .c = to,
                                   .ld_a = call->q.ld * step,
                                   .ld_b = call->k.ld * step,
                                   .ld_c = s};
    fj_nn_multiply(w->run->dtype, &product);
    for (int64_t q = 0; q < l; q++) {
        const char *lse = fj_nn_at(w->run, call->lse, (b * w->heads + h) * l + q);
        if (w->run->dtype == FJ_DTYPE_F64)
            row_f64(w, b, h, q, fj_nn_at(w->run, to, q * s), *(const double *)(const void *)lse);
        else
            row_f32(w, b, h, q, fj_nn_at(w->run, to, q * s), *(const float *)(const void *)lse);
    }
}

static void divide(const fj_nn_run *run, char *to, int64_t count, int64_t by) {
    for (int64_t i = 0; i < count; i++)
        if (run->dtype == FJ_DTYPE_F64)
            ((double *)(void *)to)[i] /= (double)by;
        else
            ((float *)(void *)to)[i] /= (float)by;
}

/* A head, or the mean of all of a batch. */
static void run_item(void *argument, int64_t item, int worker) {
    const struct weights *w = argument;
    const int64_t count = w->call->q_len * w->call->kv_len;
    char *to = fj_nn_at(w->run, w->to, item * count);
    if (!w->mean) {
        fill_head(w, item / w->heads, item % w->heads, to);
        return;
    }
    char *scratch = fj_nn_at(w->run, w->scratch, worker * count);
    memset(to, 0, (size_t)count * w->run->size);
    for (int64_t h = 0; h < w->heads; h++) {
        fill_head(w, item, h, scratch);
        w->run->rows->sum(to, scratch, count, 1, count);
    }
    divide(w->run, to, count, w->heads);
}

void *fj_nn_weights_take(const fj_nn_run *run, const fj_nn_attention *call, bool mean, fj_nn_cursor *cursor) {
    return mean ? fj_nn_take(cursor, call->q_len * run->workers, call->kv_len, run->size) : NULL;
}

void fj_nn_weights_run(const fj_nn_attend *attend, const fj_nn_run *run, const fj_nn_attention *call,
                       bool mean, void *scratch, void *weights) {
    const fj_nn_attend_desc *desc = fj_nn_attend_describe(attend);
    struct weights w = {.run = run,
                        .call = call,
                        .masks = fj_nn_attend_masks(attend, call),
                        .scale = fj_nn_attend_scale(desc),
                        .heads = desc->heads,
                        .head_dim = desc->head_dim,
                        .drop = fj_nn_drop_of(call->dropout, call->seed, call->offset),
                        .mean = mean,
                        .scratch = scratch,
                        .to = weights};
    fj_driver_parallel(&run->launch, run->workers, call->batch * (mean ? 1 : desc->heads), run_item, &w);
}
