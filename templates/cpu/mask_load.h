/* What a read of a captured tensor can give, where its indices are intervals: from the minima and maxima of abi.h's tables,
 * and the elements at the ends that no node of them covers. Included where FJ_EMIT_MASK writes the hooks.
 *
 *     elements   . . [. . . . . . . . . .] . . .     an interval of indices
 *     level 0      |   e e|  n  |  n  |e |           its nodes n, and elements e
 *
 * As any read: an index in [-n, -1] counts from the end; outside [-n, n) the value is 0.
 */
#ifndef FJ_MASK_LOAD_H
#define FJ_MASK_LOAD_H

#include "block_load.h"

#include "mask_span.h"

#define FJ_TABLE_MOST 256 /* elements that are looked at where there are no nodes */

/* The level of the largest node that begins at an element and ends before `end`, or with the row; -1: none. */
FJ_IV_FN int fjt_level(const struct fj_cpu_table *table, int64_t at, int64_t end, int64_t n,
                       int64_t *ret_size) {
    int64_t size = FJ_CPU_TABLE_LEAF;
    int level = -1;
    *ret_size = 1;
    while (level + 1 < table->levels && at % size == 0 && (at + size <= end || end == n)) {
        *ret_size = size;
        size *= FJ_CPU_TABLE_FAN;
        level++;
    }
    return level;
}

/* element: what memory holds; number: int64_t or double; from: element to number; member: of a node; take: adds a number
 * to lo, hi and nan. */
#define FJ_IV_LOAD(name, element, number, from, member, least, most, result, give, unknown)               \
    FJ_IV_FN result fj_iv_load_##name(const struct fj_cpu_args *a, int capture, int rank,                 \
                                      const fj_iv *index) {                                               \
        const struct fj_cpu_tensor *tensor = &a->captures[capture];                                       \
        const struct fj_cpu_table *table = ((const struct fj_cpu_mask_args *)a)->tables + capture;        \
        const struct fjt_box box = fjt_box_of(tensor, rank, index);                                       \
        const int64_t n = rank > 0 ? tensor->shape[rank - 1] : 1,                                         \
                      stride = rank > 0 ? tensor->stride[rank - 1] : 0;                                   \
        const int64_t first = rank > 0 ? box.lo[rank - 1] : 0, end = rank > 0 ? box.hi[rank - 1] + 1 : 1; \
        int64_t at[FJ_CPU_MAX_RANK];                                                                      \
        number lo = (number)(most), hi = (number)(least);                                                 \
        int nan = 0;                                                                                      \
        if (box.is_outside) lo = hi = 0;                                                                  \
        if (box.is_empty) return give;                                                                    \
        if (box.rows > FJ_BOX_ROWS || (!table->nodes && box.rows * (end - first) > FJ_TABLE_MOST))        \
            return unknown;                                                                               \
        for (int r = 0; r < rank; r++) at[r] = box.lo[r];                                                 \
        do {                                                                                              \
            int64_t offset = 0, row = 0;                                                                  \
            for (int r = 0; r + 1 < rank; r++) {                                                          \
                offset += at[r] * tensor->stride[r];                                                      \
                row = row * tensor->shape[r] + at[r];                                                     \
            }                                                                                             \
            for (int64_t i = first, size; i < end; i += size) {                                           \
                const int level = fjt_level(table, i, end, n, &size);                                     \
                if (level >= 0) {                                                                         \
                    const struct fj_cpu_node *node =                                                      \
                        table->nodes + row * table->row + table->first[level] + i / size;                 \
                    const number below = node->lo.member, above = node->hi.member;                        \
                    if (below != below) return unknown; /* NaN */                                         \
                    if (below < lo) lo = below;                                                           \
                    if (above > hi) hi = above;                                                           \
                } else {                                                                                  \
                    element got;                                                                          \
                    memcpy(&got, tensor->data + (offset + i * stride) * (int64_t)sizeof got, sizeof got); \
                    const number x = from(got);                                                           \
                    nan |= x != x;                                                                        \
                    if (x < lo) lo = x;                                                                   \
                    if (x > hi) hi = x;                                                                   \
                }                                                                                         \
            }                                                                                             \
        } while (fjt_next_row(&box, rank, at));                                                           \
        return give;                                                                                      \
    }

#define FJ_IV_LOAD_INT(name, element, unknown)                                    \
    FJ_IV_LOAD(name, element, int64_t, (int64_t), i, INT64_MIN, INT64_MAX, fj_iv, \
               FJ_IV_OF(fj_iv){lo FJT_COMMA hi}, unknown)
#define FJ_IV_LOAD_FLOAT(name, element, from)                                                \
    FJ_IV_LOAD(name, element, double, from, f, -(double)INFINITY, (double)INFINITY, fj_iv_f, \
               lo <= hi ? fj_iv_rounded(lo, hi, nan) : fj_iv_top_f(), fj_iv_top_f())
#define FJT_IS(x) ((int64_t)((x) != 0))

FJ_IV_LOAD(bool, uint8_t, int64_t, FJT_IS, i, INT64_MIN, INT64_MAX, fj_iv_b,
           FJ_IV_OF(fj_iv_b){lo <= 0 FJT_COMMA hi >= 1}, fj_iv_top_b())
FJ_IV_LOAD_INT(i8, int8_t, fj_iv_range(INT8_MIN, INT8_MAX))
FJ_IV_LOAD_INT(u8, uint8_t, fj_iv_range(0, UINT8_MAX))
FJ_IV_LOAD_INT(i16, int16_t, fj_iv_range(INT16_MIN, INT16_MAX))
FJ_IV_LOAD_INT(i32, int32_t, fj_iv_top_i())
FJ_IV_LOAD_INT(i64, int64_t, fj_iv_top_l())
FJ_IV_LOAD_FLOAT(f8_e4m3, uint8_t, fj_from_f8_e4m3)
FJ_IV_LOAD_FLOAT(f8_e5m2, uint8_t, fj_from_f8_e5m2)
FJ_IV_LOAD_FLOAT(f16, uint16_t, fj_from_f16)
FJ_IV_LOAD_FLOAT(bf16, uint16_t, fj_from_bf16)
FJ_IV_LOAD_FLOAT(f32, float, (double))
FJ_IV_LOAD_FLOAT(f64, double, (double))

#endif
