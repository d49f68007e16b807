/* What a mask is for blocks of queries and keys: the code that a block mask of a mod is made by.
 *
 *   area    intervals over a rectangle of positions: empty or full are proofs, partial is anything
 *   rows, cols   what values of a range of rows or columns span, where intervals lose much of them (expr/ir/emit_span.c)
 *   block   every position of a rectangle, lanes along the keys, until something seen and something hidden are found
 *
 * A rectangle in which a read may be outside of its tensor (fj_may_fault) is not decided by intervals, unless it is
 * empty: `block` looks at all of it and keeps the least position of a bad read, as forward kernels do.
 */
#include "abi.h"

#include "prim.h"

#include "identity.h"

#define FJ_VECTORS 16 /* of keys whose column states are kept */
#define FJ_PARTS 4    /* of a block's rows, each of which intervals are asked of */

#if FJ_HAS_MASK

static int mask_area(const struct fj_cpu_args *a, int64_t b, int64_t h, int64_t q_first, int64_t q_last,
                     int64_t kv_first, int64_t kv_last, const void *rows, const void *cols) {
    int class = fj_block_class(a, b, h, q_first, q_last, kv_first, kv_last);
    (void)rows, (void)cols;
#if FJ_HAS_SPANS
    if (class == 1) class = fj_span_class(a, b, h, q_first, q_last, kv_first, kv_last, rows, cols);
#endif
#if FJ_HAS_FAULT
    if (class && fj_may_fault(a, b, h, q_first, q_last, kv_first, kv_last)) return 1;
#endif
    return class;
}

#if FJ_HAS_SPANS
static void make_rows(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t first, int32_t last,
                      void *to) {
    struct fj_head_state head;
    struct fj_row_state row;
    struct fj_row_span span;
    fj_head_init(a, b, h, &head);
    fj_row_span_init(&span);
    for (int64_t q = first; q <= last; q++) {
        fj_row_init(a, &head, (int32_t)q, &row);
        fj_row_span_add(&span, &row);
    }
    memcpy(to, &span, sizeof span);
}

static void make_cols(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t first, int32_t last,
                      void *to) {
    struct fj_head_state head;
    struct fj_col_state col;
    struct fj_col_span span;
    fj_head_init(a, b, h, &head);
    fj_col_span_init(&span);
    for (int64_t kv = first; kv <= last; kv += FJ_LANES) {
        const int64_t left = last + 1 - kv;
        fj_col_init(a, &head, fj_add_i(fj_splat_i((int32_t)kv), fj_iota_i()), &col);
        fj_col_span_add(&span, &col, left < FJ_LANES ? (int)left : FJ_LANES);
    }
    memcpy(to, &span, sizeof span);
}

static void join_rows(void *to, const void *from) { fj_row_span_join(to, from); }
static void join_cols(void *to, const void *from) { fj_col_span_join(to, from); }
#endif

/* Some keys of a block, and what was found of its positions. */
struct block {
    const struct fj_cpu_args *args;
    struct fj_head_state head;
    struct fj_col_state cols[FJ_VECTORS];
    int32_t b, h, kv;
    int keys;                   /* from kv on, at most FJ_VECTORS * FJ_LANES */
    uint32_t seen, hidden;      /* lanes */
    struct fj_cpu_fault *fault; /* NULL: none is possible */
};

#if FJ_HAS_FAULT
static void keep_fault(struct block *of, int32_t q, int32_t kv) {
    struct fj_cpu_fault *f = of->fault;
    if (f->found) {
        const int32_t was[] = {f->b, f->h, f->q, f->kv}, is[] = {of->b, of->h, q, kv};
        int i = 0;
        while (i < 3 && was[i] == is[i]) i++;
        if (was[i] <= is[i]) return;
    }
    *f = (struct fj_cpu_fault){1, of->b, of->h, q, kv};
}
#endif

static void look_at_row(struct block *of, int32_t q) {
    struct fj_row_state row;
    fj_row_init(of->args, &of->head, q, &row);
    for (int v = 0; v * FJ_LANES < of->keys; v++) {
        const int left = of->keys - v * FJ_LANES;
        const uint32_t there = left < FJ_LANES ? fj_bits_b(fj_lanes_below(left)) : fj_bits_b(fj_splat_b(1));
        const fj_b mask = fj_mask(of->args, &of->head, &row, &of->cols[v]);
        of->seen |= fj_bits_b(mask) & there;
        of->hidden |= ~fj_bits_b(mask) & there;
#if FJ_HAS_FAULT
        if (!of->fault) continue;
        const fj_b live = fj_and_b(mask, fj_unbits_b(there));
        const uint32_t bad =
            fj_bits_b(fj_fault(of->args, &of->head, &row, &of->cols[v], fj_splat_f(0), live)) & there;
        if (bad) keep_fault(of, q, of->kv + v * FJ_LANES + __builtin_ctz(bad));
#endif
    }
}

/* Whether intervals tell of fewer rows at a time that all the keys at hand are as those that were looked at. */
static int is_alike(const struct block *of, int32_t q_first, int32_t q_last) {
    const int32_t rows = (int32_t)(((int64_t)q_last - q_first) / FJ_PARTS + 1), last = of->kv + of->keys - 1;
    const void *row_span = NULL, *col_span = NULL;
    if (of->fault) return 0;
#if FJ_HAS_SPANS
    struct fj_row_span of_rows;
    struct fj_col_span of_cols;
    row_span = &of_rows, col_span = &of_cols;
    make_cols(of->args, of->b, of->h, of->kv, last, &of_cols);
#endif
    for (int64_t q = q_first; q <= q_last; q += rows) {
        const int32_t end = q + rows - 1 < q_last ? (int32_t)q + rows - 1 : q_last;
#if FJ_HAS_SPANS
        make_rows(of->args, of->b, of->h, (int32_t)q, end, &of_rows);
#endif
        if (mask_area(of->args, of->b, of->h, q, end, of->kv, last, row_span, col_span) != (of->seen ? 2 : 0))
            return 0;
    }
    return 1;
}

static int mask_block(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t q_first, int32_t q_last,
                      int32_t kv_first, int32_t kv_last, int worker) {
    struct block of = {.args = a, .b = b, .h = h};
    (void)worker;
#if FJ_HAS_FAULT
    if (fj_may_fault(a, b, h, q_first, q_last, kv_first, kv_last)) of.fault = &a->faults[worker];
#endif
    fj_head_init(a, b, h, &of.head);
    for (int64_t kv = kv_first; kv <= kv_last; kv += FJ_VECTORS * FJ_LANES) {
        const int64_t left = kv_last + 1 - kv;
        of.kv = (int32_t)kv;
        of.keys = left < FJ_VECTORS * FJ_LANES ? (int)left : FJ_VECTORS * FJ_LANES;
        for (int v = 0; v * FJ_LANES < of.keys; v++)
            fj_col_init(a, &of.head, fj_add_i(fj_splat_i(of.kv + v * FJ_LANES), fj_iota_i()), &of.cols[v]);
        /* The first row and the last differ most often. */
        for (int64_t i = 0, rows = (int64_t)q_last - q_first + 1; i < rows; i++) {
            look_at_row(&of, (int32_t)(i == 0 ? q_first : i == 1 ? q_last : q_first + i - 1));
            if (of.seen && of.hidden && !of.fault) return 1;
            if (i == 1 && rows > 2 * FJ_PARTS && is_alike(&of, q_first, q_last)) break;
        }
    }
    return !of.seen ? 0 : of.hidden ? 1 : 2;
}

#else

static int mask_area(const struct fj_cpu_args *a, int64_t b, int64_t h, int64_t q_first, int64_t q_last,
                     int64_t kv_first, int64_t kv_last, const void *rows, const void *cols) {
    (void)a, (void)b, (void)h, (void)q_first, (void)q_last, (void)kv_first, (void)kv_last;
    (void)rows, (void)cols;
    return 2;
}

static int mask_block(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t q_first, int32_t q_last,
                      int32_t kv_first, int32_t kv_last, int worker) {
    (void)worker;
    return mask_area(a, b, h, q_first, q_last, kv_first, kv_last, NULL, NULL);
}

#endif

extern const struct fj_cpu_mask fj_cpu_mask;
__attribute__((visibility("default"))) const struct fj_cpu_mask fj_cpu_mask = {
    .abi = FJ_CPU_ABI,
    .area = mask_area,
    .block = mask_block,
#if FJ_HAS_MASK && FJ_HAS_SPANS
    .rows = {sizeof(struct fj_row_span), make_rows, join_rows},
    .cols = {sizeof(struct fj_col_span), make_cols, join_cols},
#endif
};

static size_t no_workspace(const struct fj_cpu_args *a) {
    (void)a;
    return 0;
}

static int64_t no_items(const struct fj_cpu_args *a, int phase) {
    (void)a, (void)phase;
    return -1;
}

extern const struct fj_cpu_kernel fj_cpu_kernel;
__attribute__((visibility("default"))) const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .workspace = no_workspace,
    .items = no_items,
};
