/* What a read of a captured tensor can give in a block, where its indices are intervals: kernels look at the elements. Included
 * where FJ_EMIT_CPU writes fj_block_class, and by mask_load.h, which has tables too.
 *
 * A block of a document mask reads as many elements of each axis as it has rows or columns: to look at them costs a few
 * vectors, to evaluate the mask at every position of the block as many as it has. Of more than FJ_LOOK_MOST elements nothing is
 * known.
 *
 * As any read: an index in [-n, -1] counts from the end; outside [-n, n) the value is 0.
 */
#ifndef FJ_BLOCK_LOAD_H
#define FJ_BLOCK_LOAD_H

#include "abi.h"

#define FJ_BOX_ROWS 64 /* rows that a read may meet: beyond, it can be anything */
#define FJ_LOOK_MOST 1024
#define FJ_LOOK_MOST_SLOW 256 /* without vectors */

/* Indices that a read may meet, within the tensor. */
struct fjt_box {
    int64_t lo[FJ_CPU_MAX_RANK], hi[FJ_CPU_MAX_RANK];
    int64_t rows;
    int is_outside; /* some may be outside of the tensor */
    int is_empty;   /* all are */
};

FJ_IV_FN struct fjt_box fjt_box_of(const struct fj_cpu_tensor *tensor, int rank, const fj_iv *index) {
    struct fjt_box box;
    box.rows = 1, box.is_outside = box.is_empty = 0;
    for (int r = 0; r < rank; r++) {
        const int64_t n = tensor->shape[r];
        int64_t lo = fj_iv_max(index[r].lo, -n), hi = fj_iv_min(index[r].hi, n - 1);
        box.is_outside |= lo != index[r].lo || hi != index[r].hi;
        box.is_empty |= lo > hi;
        if (hi < 0)
            lo += n, hi += n;
        else if (lo < 0)
            lo = 0, hi = n - 1; /* from both sides of 0 */
        box.lo[r] = lo, box.hi[r] = hi;
        if (r + 1 < rank)
            box.rows = fj_iv_min(box.rows, FJ_BOX_ROWS + 1) * fj_iv_min(hi - lo + 1, FJ_BOX_ROWS + 1);
    }
    return box;
}

/* The next row of a box, in `at`; 0 after the last. */
FJ_IV_FN int fjt_next_row(const struct fjt_box *box, int rank, int64_t *at) {
    for (int r = rank - 2; r >= 0; r--) {
        if (at[r]++ < box->hi[r]) return 1;
        at[r] = box->lo[r];
    }
    return 0;
}

/* ---- Least and greatest of elements ----------------------------------------------------------------- */

/* Of `count` elements, `stride` of them apart, to lo and hi. */
#define FJT_ENDS_INT(name, element, size)                                                                    \
    typedef element fjt_##name __attribute__((vector_size(size)));                                           \
    static __attribute__((noinline, unused)) void fjt_ends_##name(const char *data, int64_t stride,          \
                                                                  int64_t count, int64_t *lo, int64_t *hi) { \
        enum { LANES = (size) / sizeof(element) };                                                           \
        int64_t i = 0;                                                                                       \
        element x, l, h;                                                                                     \
        memcpy(&x, data, sizeof x);                                                                          \
        l = h = x;                                                                                           \
        if (stride == 1 && count >= LANES) {                                                                 \
            fjt_##name low, high, v, m;                                                                      \
            memcpy(&low, data, sizeof low);                                                                  \
            high = low;                                                                                      \
            while (i < count) {                                                                              \
                i = i + LANES < count ? i : count - LANES; /* the last ones again */                         \
                memcpy(&v, data + i * (int64_t)sizeof x, sizeof v);                                          \
                m = (fjt_##name)(v < low), low = (v & m) | (low & ~m);                                       \
                m = (fjt_##name)(v > high), high = (v & m) | (high & ~m);                                    \
                i += LANES;                                                                                  \
            }                                                                                                \
            for (int k = 0; k < LANES; k++) l = low[k] < l ? low[k] : l, h = high[k] > h ? high[k] : h;      \
        }                                                                                                    \
        for (; i < count; i++) {                                                                             \
            memcpy(&x, data + i * stride * (int64_t)sizeof x, sizeof x);                                     \
            l = x < l ? x : l, h = x > h ? x : h;                                                            \
        }                                                                                                    \
        *lo = fj_iv_min(*lo, l), *hi = fj_iv_max(*hi, h);                                                    \
    }
FJT_ENDS_INT(u8, uint8_t, 16)
FJT_ENDS_INT(i8, int8_t, 16)
FJT_ENDS_INT(i16, int16_t, 32)
FJT_ENDS_INT(i32, int32_t, 64)
FJT_ENDS_INT(i64, int64_t, 64)

/* Goes over the rows of a box: `look` is given the first element's address, `stride` and `count`. */
#define FJT_EACH_ROW(element, most_elements, look, unknown)                                              \
    const struct fj_cpu_tensor *tensor = &a->captures[capture];                                          \
    const struct fjt_box box = fjt_box_of(tensor, rank, index);                                          \
    const int64_t stride = rank > 0 ? tensor->stride[rank - 1] : 0;                                      \
    const int64_t first = rank > 0 ? box.lo[rank - 1] : 0;                                               \
    const int64_t count = box.is_empty ? 0 : rank > 0 ? box.hi[rank - 1] + 1 - first : 1;                \
    int64_t at[FJ_CPU_MAX_RANK];                                                                         \
    if (!box.is_empty && (box.rows > FJ_BOX_ROWS || box.rows * count > (most_elements))) return unknown; \
    for (int r = 0; r < rank; r++) at[r] = box.lo[r];                                                    \
    if (count > 0) do {                                                                                  \
            int64_t offset = first * stride;                                                             \
            for (int r = 0; r + 1 < rank; r++) offset += at[r] * tensor->stride[r];                      \
            const char *data = tensor->data + offset * (int64_t)sizeof(element);                         \
            look;                                                                                        \
        } while (fjt_next_row(&box, rank, at));

#define FJ_IV_LOOK_INT(name, ends, element, result, give, unknown)                        \
    FJ_IV_FN result fj_iv_look_##name(const struct fj_cpu_args *a, int capture, int rank, \
                                      const fj_iv *index) {                               \
        int64_t lo = INT64_MAX, hi = INT64_MIN;                                           \
        FJT_EACH_ROW(element, stride == 1 ? FJ_LOOK_MOST : FJ_LOOK_MOST_SLOW,             \
                     fjt_ends_##ends(data, stride, count, &lo, &hi), unknown)             \
        if (box.is_outside || box.is_empty) lo = fj_iv_min(lo, 0), hi = fj_iv_max(hi, 0); \
        return give;                                                                      \
    }
#define FJ_IV_LOOK_FLOAT(name, element, from)                                              \
    FJ_IV_FN fj_iv_f fj_iv_look_##name(const struct fj_cpu_args *a, int capture, int rank, \
                                       const fj_iv *index) {                               \
        double lo = (double)INFINITY, hi = -(double)INFINITY;                              \
        int nan = 0;                                                                       \
        FJT_EACH_ROW(                                                                      \
            element, FJ_LOOK_MOST_SLOW,                                                    \
            for (int64_t i = 0; i < count; i++) {                                          \
                element got;                                                               \
                memcpy(&got, data + i * stride * (int64_t)sizeof got, sizeof got);         \
                const double x = (double)from(got);                                        \
                nan |= x != x;                                                             \
                lo = x < lo ? x : lo;                                                      \
                hi = x > hi ? x : hi;                                                      \
            },                                                                             \
            fj_iv_top_f())                                                                 \
        if (box.is_outside || box.is_empty) lo = lo < 0 ? lo : 0, hi = hi > 0 ? hi : 0;    \
        return lo <= hi ? fj_iv_rounded(lo, hi, nan) : fj_iv_top_f();                      \
    }
#define FJT_COMMA ,
#define FJT_INTS \
    FJ_IV_OF(fj_iv) { lo FJT_COMMA hi }

FJ_IV_LOOK_INT(bool, u8, uint8_t, fj_iv_b, FJ_IV_OF(fj_iv_b){lo <= 0 FJT_COMMA hi >= 1}, fj_iv_top_b())
FJ_IV_LOOK_INT(i8, i8, int8_t, fj_iv, FJT_INTS, fj_iv_range(INT8_MIN, INT8_MAX))
FJ_IV_LOOK_INT(u8, u8, uint8_t, fj_iv, FJT_INTS, fj_iv_range(0, UINT8_MAX))
FJ_IV_LOOK_INT(i16, i16, int16_t, fj_iv, FJT_INTS, fj_iv_range(INT16_MIN, INT16_MAX))
FJ_IV_LOOK_INT(i32, i32, int32_t, fj_iv, FJT_INTS, fj_iv_top_i())
FJ_IV_LOOK_INT(i64, i64, int64_t, fj_iv, FJT_INTS, fj_iv_top_l())
FJ_IV_LOOK_FLOAT(f8_e4m3, uint8_t, fj_from_f8_e4m3)
FJ_IV_LOOK_FLOAT(f8_e5m2, uint8_t, fj_from_f8_e5m2)
FJ_IV_LOOK_FLOAT(f16, uint16_t, fj_from_f16)
FJ_IV_LOOK_FLOAT(bf16, uint16_t, fj_from_bf16)
FJ_IV_LOOK_FLOAT(f32, float, )
FJ_IV_LOOK_FLOAT(f64, double, )

#endif
