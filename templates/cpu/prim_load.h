/* Reads of captured tensors and adding to their gradients, lane by lane. Part of prim.h.
 *
 * An index in [-n, -1] counts from the end; outside [-n, n) nothing is read and the value is 0.
 * Lanes that stand next to each other in memory, and lanes that all read one element, are found by
 * comparing their offsets: the first is one vector load.
 *
 *   fj_load_<dtype>_lanes(tensor, rank, indices)             dtype: bool i8 u8 i16 i32 i64
 *   fj_load_<dtype>_mixed(tensor, rank, indices, varying)           f8_e4m3 f8_e5m2 f16 bf16 f32 f64
 *   fj_load_<dtype>_uniform(tensor, rank, indices)
 *
 * give fj_b for bool, fj_l for i64, fj_i for the other ints, fj_f for the rest. `varying` is a constant: bit
 * i is set where index i may differ between lanes; lane 0 of the others counts for all.
 */
#ifndef FJ_PRIM_LOAD_H
#define FJ_PRIM_LOAD_H

/* ---- Small floats ----------------------------------------------------------------------------- */

FJ_INLINE float fjv_float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
/* Exponent and fraction moved in place; a product with a power of two corrects the bias, also of
 * denormals. */
FJ_INLINE float fj_from_f16(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, body = (uint32_t)(x & 0x7fff) << 13;
    float value =
        (x & 0x7c00) == 0x7c00 ? fjv_float_of_bits(0x7f800000 | body) : fjv_float_of_bits(body) * 0x1p112f;
    return sign ? -value : value;
}
FJ_INLINE float fj_from_bf16(uint16_t x) { return fjv_float_of_bits((uint32_t)x << 16); }
FJ_INLINE float fj_from_f8_e5m2(uint8_t x) { return fj_from_f16((uint16_t)(x << 8)); }
/* No infinities: 0x7f is NaN. */
FJ_INLINE float fj_from_f8_e4m3(uint8_t x) {
    float value = (x & 0x7f) == 0x7f ? NAN : fjv_float_of_bits((uint32_t)(x & 0x7f) << 20) * 0x1p120f;
    return x & 0x80 ? -value : value;
}

/* ---- Where lanes read ------------------------------------------------------------------------- */

/* Offsets in elements (0 where outside); returns which lanes are inside. */
FJ_INLINE fj_b fjv_locate(const struct fj_cpu_tensor *tensor, int packed, int rank, const fj_l *indices,
                          unsigned varying, fj_l *offsets) {
    const fj_l zero = fj_splat_l(0);
    fj_l sum = zero;
    fj_b inside = fj_splat_b(1);
    int64_t step = 1, common = 0;
    int common_inside = 1;
    for (int r = rank - 1; r >= 0; r--) {
        const int64_t size = tensor->shape[r], stride = packed ? step : tensor->stride[r];
        step *= size;
        if (varying >> r & 1) {
            fj_l n = fj_splat_l(size), i = indices[r];
            i = fj_where_l(fj_lt_l(i, zero), fj_add_l(i, n), i);
            inside = fj_and_b(inside, fj_and_b(fj_ge_l(i, zero), fj_lt_l(i, n)));
            sum = fj_add_l(sum, fj_mul_l(i, fj_splat_l(stride)));
        } else {
            int64_t i = fj_first_l(indices[r]);
            common_inside &= i >= -size && i < size;
            common += (i < 0 ? i + size : i) * stride;
        }
    }
    if (!common_inside) inside = fj_splat_b(0);
    *offsets = fj_where_l(inside, fj_add_l(sum, fj_splat_l(common)), zero);
    return inside;
}

/* Whether offsets are o, o + 1, o + 2, ... */
FJ_INLINE int fjv_is_run(fj_l offsets) {
    fj_l run = fj_add_l(fj_splat_l(fj_first_l(offsets)), fj_cast_i_l(fj_iota_i()));
    return fj_all(fj_eq_l(offsets, run));
}

/* ---- Rows ------------------------------------------------------------------------------------- */

/* Most reads of a bias or a mask are of a row: only the last index varies, by 1 from lane to lane, and all is inside. Scalars find
 * where, and what is not so is left to functions that are not inlined, so that the mod is. */
struct fjv_row {
    int64_t offset; /* of the row's element 0 */
    int64_t first;  /* the element that lane 0 reads */
    int inside;     /* the other indices are */
};

FJ_INLINE int fjv_is_row(int rank, unsigned varying) {
    return rank > 0 && (varying & ((1u << rank) - 1)) == 1u << (rank - 1);
}
FJ_INLINE struct fjv_row fjv_row_of(const struct fj_cpu_tensor *tensor, int rank, const fj_l *indices) {
    struct fjv_row row = {0, fj_first_l(indices[rank - 1]), 1};
    /* Unrolled, indices are values, not an array in memory. */
    FJ_UNROLL
    for (int r = 0; r < rank - 1; r++) {
        const int64_t i = fj_first_l(indices[r]), n = tensor->shape[r];
        row.inside &= i >= -n && i < n;
        row.offset += (i < 0 ? i + n : i) * tensor->stride[r];
    }
    return row;
}
FJ_INLINE int fjv_is_whole(const struct fj_cpu_tensor *tensor, int rank, struct fjv_row row, fj_l index) {
    return row.inside && row.first >= 0 && row.first <= tensor->shape[rank - 1] - FJ_LANES &&
           fjv_is_run(index);
}
/* Offsets of lanes in a row, as fjv_locate gives them. */
FJ_INLINE fj_b fjv_locate_in_row(const struct fj_cpu_tensor *tensor, int rank, struct fjv_row row, fj_l i,
                                 fj_l *offsets) {
    const fj_l zero = fj_splat_l(0), n = fj_splat_l(tensor->shape[rank - 1]);
    i = fj_where_l(fj_lt_l(i, zero), fj_add_l(i, n), i);
    fj_b inside = fj_and_b(fj_ge_l(i, zero), fj_lt_l(i, n));
    if (!row.inside) inside = fj_splat_b(0);
    i = fj_add_l(fj_mul_l(i, fj_splat_l(tensor->stride[rank - 1])), fj_splat_l(row.offset));
    *offsets = fj_where_l(inside, i, zero);
    return inside;
}
static __attribute__((noinline, unused)) fj_b fjv_outside_row(const struct fj_cpu_tensor *tensor, int rank,
                                                              struct fjv_row row, fj_l index) {
    fj_l offsets;
    return fj_not_b(fjv_locate_in_row(tensor, rank, row, index, &offsets));
}

/* Whether any index is outside [-n, n). */
FJ_INLINE fj_b fj_out_of_range_mixed(const struct fj_cpu_tensor *tensor, int rank, const fj_l *indices,
                                     unsigned varying) {
    fj_l offsets;
    if (fjv_is_row(rank, varying)) {
        const struct fjv_row row = fjv_row_of(tensor, rank, indices);
        if (fjv_is_whole(tensor, rank, row, indices[rank - 1])) return fj_splat_b(0);
        return fjv_outside_row(tensor, rank, row, indices[rank - 1]);
    }
    return fj_not_b(fjv_locate(tensor, 0, rank, indices, varying, &offsets));
}
FJ_INLINE fj_b fj_out_of_range(const struct fj_cpu_tensor *tensor, int rank, const fj_l *indices) {
    return fj_out_of_range_mixed(tensor, rank, indices, ~0u);
}

/* ---- Loads ------------------------------------------------------------------------------------ */

/* Lanes from elements that lie one after the other. element: what memory holds; value: what lanes are gathered as; from: element
 * to value; lanes: an array of FJ_LANES values to the result. */
#define FJ_RUN(name, element, value, result, from, lanes)            \
    FJ_INLINE result fjv_run_##name(const char *data) {              \
        element got[FJ_LANES];                                       \
        value values[FJ_LANES];                                      \
        memcpy(got, data, sizeof got);                               \
        for (int i = 0; i < FJ_LANES; i++) values[i] = from(got[i]); \
        return lanes(values);                                        \
    }

#define FJ_LOAD(name, element, value, result, from, lanes, splat)                                         \
    FJ_INLINE result fjv_gather_##name(const struct fj_cpu_tensor *tensor, fj_l offsets, fj_b inside) {   \
        value values[FJ_LANES];                                                                           \
        int64_t at[FJ_LANES];                                                                             \
        uint32_t in = fj_bits_b(inside);                                                                  \
        if (fj_all(inside) && fjv_is_run(offsets))                                                        \
            return fjv_run_##name(tensor->data + fj_first_l(offsets) * (int64_t)sizeof(element));         \
        memcpy(at, &offsets, sizeof at);                                                                  \
        memset(values, 0, sizeof values);                                                                 \
        for (int i = 0; i < FJ_LANES; i++) {                                                              \
            element got;                                                                                  \
            if (!(in >> i & 1)) continue;                                                                 \
            memcpy(&got, tensor->data + at[i] * (int64_t)sizeof(element), sizeof got);                    \
            values[i] = from(got);                                                                        \
        }                                                                                                 \
        return lanes(values);                                                                             \
    }                                                                                                     \
    static __attribute__((noinline, unused))                                                              \
    result fjv_row_##name(const struct fj_cpu_tensor *tensor, int rank, struct fjv_row row, fj_l index) { \
        fj_l offsets;                                                                                     \
        const fj_b inside = fjv_locate_in_row(tensor, rank, row, index, &offsets);                        \
        return fjv_gather_##name(tensor, offsets, inside);                                                \
    }                                                                                                     \
    FJ_INLINE result fj_load_##name##_mixed(const struct fj_cpu_tensor *tensor, int rank,                 \
                                            const fj_l *indices, unsigned varying) {                      \
        fj_l offsets;                                                                                     \
        if (fjv_is_row(rank, varying)) {                                                                  \
            const struct fjv_row row = fjv_row_of(tensor, rank, indices);                                 \
            if (tensor->stride[rank - 1] != 1 || !fjv_is_whole(tensor, rank, row, indices[rank - 1]))     \
                return fjv_row_##name(tensor, rank, row, indices[rank - 1]);                              \
            return fjv_run_##name(tensor->data + (row.offset + row.first) * (int64_t)sizeof(element));    \
        }                                                                                                 \
        const fj_b inside = fjv_locate(tensor, 0, rank, indices, varying, &offsets);                      \
        return fjv_gather_##name(tensor, offsets, inside);                                                \
    }                                                                                                     \
    FJ_INLINE result fj_load_##name##_lanes(const struct fj_cpu_tensor *tensor, int rank,                 \
                                            const fj_l *indices) {                                        \
        return fj_load_##name##_mixed(tensor, rank, indices, ~0u);                                        \
    }                                                                                                     \
    FJ_INLINE result fj_load_##name##_uniform(const struct fj_cpu_tensor *tensor, int rank,               \
                                              const fj_l *indices) {                                      \
        int64_t offset = 0;                                                                               \
        element got = 0;                                                                                  \
        for (int r = 0; r < rank; r++) {                                                                  \
            int64_t i = fj_first_l(indices[r]), n = tensor->shape[r];                                     \
            if (i < -n || i >= n) return splat(from(got));                                                \
            offset += (i < 0 ? i + n : i) * tensor->stride[r];                                            \
        }                                                                                                 \
        memcpy(&got, tensor->data + offset * (int64_t)sizeof(element), sizeof got);                       \
        return splat(from(got));                                                                          \
    }

#define FJV_SAME(x) (x)
#define FJV_REAL(x) ((fj_real)(x))
#define FJV_FROM_F16(x) ((fj_real)fj_from_f16(x))
#define FJV_FROM_BF16(x) ((fj_real)fj_from_bf16(x))
#define FJV_FROM_F8_E4M3(x) ((fj_real)fj_from_f8_e4m3(x))
#define FJV_FROM_F8_E5M2(x) ((fj_real)fj_from_f8_e5m2(x))

FJ_INLINE fj_i fjv_gathered_i(const int32_t *values) {
    fj_i v;
    memcpy(&v, values, sizeof v);
    return v;
}
FJ_INLINE fj_l fjv_gathered_l(const int64_t *values) {
    fj_l v;
    memcpy(&v, values, sizeof v);
    return v;
}
FJ_INLINE fj_b fjv_gathered_b(const int32_t *values) { return fj_cast_i_b(fjv_gathered_i(values)); }

/* What a bias and a mask usually hold, by vectors: GCC leaves such loops as they are at the level that kernels are compiled at. */
typedef uint8_t fjv_bytes __attribute__((vector_size(FJ_LANES)));
typedef uint16_t fjv_halves __attribute__((vector_size(2 * FJ_LANES)));
typedef uint32_t fjv_words __attribute__((vector_size(4 * FJ_LANES)));
typedef float fjv_floats __attribute__((vector_size(4 * FJ_LANES)));

FJ_INLINE fj_f fjv_real_of(fjv_floats x) {
#if FJ_REAL_F64
    return fjv_widen_f(x);
#else
    return x;
#endif
}
FJ_INLINE fjv_words fjv_words_of(const char *data) {
    fjv_halves x;
    memcpy(&x, data, sizeof x);
#if FJ_ISA_AVX512 && FJ_LANES == 16
    return (fjv_words)_mm512_cvtepu16_epi32((__m256i)x);
#else
    return __builtin_convertvector(x, fjv_words);
#endif
}
FJ_INLINE fj_f fjv_run_f32(const char *data) {
    fjv_floats x;
    memcpy(&x, data, sizeof x);
    return fjv_real_of(x);
}
FJ_INLINE fj_f fjv_run_bf16(const char *data) { return fjv_real_of((fjv_floats)(fjv_words_of(data) << 16)); }
FJ_INLINE fj_f fjv_run_f16(const char *data) {
    const fjv_words x = fjv_words_of(data), body = (x & 0x7fff) << 13;
    const fjv_words special = (fjv_words)((x & 0x7c00) == 0x7c00);
    const fjv_words value = (fjv_words)((fjv_floats)body * 0x1p112f);
    return fjv_real_of(
        (fjv_floats)(((body | 0x7f800000) & special) | (value & ~special) | (x & 0x8000) << 16));
}
FJ_INLINE fj_b fjv_run_bool(const char *data) {
    fjv_bytes x;
    memcpy(&x, data, sizeof x);
    return fj_cast_i_b((fj_i) __builtin_convertvector(x, fjv_words));
}
FJ_RUN(i8, int8_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i)
FJ_RUN(u8, uint8_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i)
FJ_RUN(i16, int16_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i)
FJ_RUN(i32, int32_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i)
FJ_RUN(i64, int64_t, int64_t, fj_l, FJV_SAME, fjv_gathered_l)
FJ_RUN(f8_e4m3, uint8_t, fj_real, fj_f, FJV_FROM_F8_E4M3, fj_get_f)
FJ_RUN(f8_e5m2, uint8_t, fj_real, fj_f, FJV_FROM_F8_E5M2, fj_get_f)
FJ_RUN(f64, double, fj_real, fj_f, FJV_REAL, fj_get_f)

FJ_LOAD(bool, uint8_t, int32_t, fj_b, FJV_SAME, fjv_gathered_b, fj_splat_b)
FJ_LOAD(i8, int8_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i, fj_splat_i)
FJ_LOAD(u8, uint8_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i, fj_splat_i)
FJ_LOAD(i16, int16_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i, fj_splat_i)
FJ_LOAD(i32, int32_t, int32_t, fj_i, FJV_SAME, fjv_gathered_i, fj_splat_i)
FJ_LOAD(i64, int64_t, int64_t, fj_l, FJV_SAME, fjv_gathered_l, fj_splat_l)
FJ_LOAD(f8_e4m3, uint8_t, fj_real, fj_f, FJV_FROM_F8_E4M3, fj_get_f, fj_splat_f)
FJ_LOAD(f8_e5m2, uint8_t, fj_real, fj_f, FJV_FROM_F8_E5M2, fj_get_f, fj_splat_f)
FJ_LOAD(f16, uint16_t, fj_real, fj_f, FJV_FROM_F16, fj_get_f, fj_splat_f)
FJ_LOAD(bf16, uint16_t, fj_real, fj_f, FJV_FROM_BF16, fj_get_f, fj_splat_f)
FJ_LOAD(f32, float, fj_real, fj_f, FJV_REAL, fj_get_f, fj_splat_f)
FJ_LOAD(f64, double, fj_real, fj_f, FJV_REAL, fj_get_f, fj_splat_f)

/* ---- Scatters --------------------------------------------------------------------------------- */

/* The live lanes' sum in double, halves folded onto each other. */
FJ_INLINE fj_acc fjv_sum_live(fj_f value, fj_b live) {
    const fj_dd d = fjv_dd_from_f(fj_where_f(live, value, fj_splat_f(0)));
#if FJ_L_PARTS == 2
    return fjv_sum_d(d.v[0] + d.v[1]);
#else
    return fjv_sum_d(d.v[0]);
#endif
}

/* Adds value at the indices to a gradient (packed row-major in the tensor's shape), in lane order; lanes that
 * all meet in one element add their sum once. Nothing is added outside [-n, n), nor where not live, nor
 * when the gradient is not wanted (NULL). */
FJ_INLINE void fj_scatter_mixed_f(fj_acc *gradient, const struct fj_cpu_tensor *tensor, int rank,
                                  const fj_l *indices, unsigned varying, fj_f value, fj_b live) {
    if (!gradient) return;
    fj_l offsets;
    fj_b inside = fjv_locate(tensor, 1, rank, indices, varying, &offsets);
    fj_b adds = fj_and_b(inside, live);
    const int64_t first = fj_first_l(offsets);
    if ((varying & ((1u << rank) - 1)) == 0 ||
        (fj_all(inside) && fj_all(fj_eq_l(offsets, fj_splat_l(first))))) {
        if (fj_any(adds)) gradient[first] += fjv_sum_live(value, adds);
        return;
    }
    if (fj_all(inside) && fjv_is_run(offsets)) {
        const fj_dd d = fjv_dd_from_f(fj_where_f(adds, value, fj_splat_f(0)));
        for (int p = 0; p < FJ_L_PARTS; p++) {
            fj_vd old;
            memcpy(&old, gradient + first + p * FJ_VD_LANES, sizeof old);
            old += d.v[p];
            memcpy(gradient + first + p * FJ_VD_LANES, &old, sizeof old);
        }
        return;
    }
    fj_real values[FJ_LANES];
    int64_t at[FJ_LANES];
    uint32_t bits = fj_bits_b(adds);
    fj_put_f(values, value);
    memcpy(at, &offsets, sizeof at);
    for (int i = 0; i < FJ_LANES; i++)
        if (bits >> i & 1) gradient[at[i]] += (fj_acc)values[i];
}
FJ_INLINE void fj_scatter_f(fj_acc *gradient, const struct fj_cpu_tensor *tensor, int rank,
                            const fj_l *indices, fj_f value, fj_b live) {
    fj_scatter_mixed_f(gradient, tensor, rank, indices, ~0u, value, live);
}

/* The same for a run-time scalar, which is always there. */
FJ_INLINE void fj_scatter_scalar_f(fj_acc *gradient, fj_f value, fj_b live) {
    *gradient += fjv_sum_live(value, live);
}

#endif
