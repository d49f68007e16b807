/* What values of rows and columns span: the least and greatest of a value of the row or column states (fj_row_span, fj_col_span)
 * over a range of positions. Included where FJ_EMIT_MASK writes the hooks. */
#ifndef FJ_MASK_SPAN_H
#define FJ_MASK_SPAN_H

FJ_IV_FN fj_iv_b fj_span_empty_b(void) { return FJ_IV_OF(fj_iv_b){0, 0}; }
FJ_IV_FN fj_iv fj_span_empty_i(void) { return FJ_IV_OF(fj_iv){INT64_MAX, INT64_MIN}; }
FJ_IV_FN fj_iv fj_span_empty_l(void) { return fj_span_empty_i(); }
FJ_IV_FN fj_iv_f fj_span_empty_f(void) { return FJ_IV_OF(fj_iv_f){(double)INFINITY, -(double)INFINITY, 0}; }

FJ_IV_FN fj_iv_b fj_span_join_b(fj_iv_b a, fj_iv_b b) { return FJ_IV_OF(fj_iv_b){a.f | b.f, a.t | b.t}; }
FJ_IV_FN fj_iv fj_span_join_i(fj_iv a, fj_iv b) { return fj_iv_hull(a, b); }
FJ_IV_FN fj_iv fj_span_join_l(fj_iv a, fj_iv b) { return fj_iv_hull(a, b); }
FJ_IV_FN fj_iv_f fj_span_join_f(fj_iv_f a, fj_iv_f b) {
    return FJ_IV_OF(fj_iv_f){a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi, a.nan | b.nan};
}

/* With one value more. */
FJ_IV_FN fj_iv_b fj_span_add_b(fj_iv_b to, int x) { return fj_span_join_b(to, fj_iv_const_b(x)); }
FJ_IV_FN fj_iv fj_span_add_i(fj_iv to, int64_t x) { return fj_iv_hull(to, fj_iv_const_l(x)); }
FJ_IV_FN fj_iv fj_span_add_l(fj_iv to, int64_t x) { return fj_iv_hull(to, fj_iv_const_l(x)); }
FJ_IV_FN fj_iv_f fj_span_add_f(fj_iv_f to, double x) {
    const fj_iv_f one = {x, x, 0}, nan = {(double)INFINITY, -(double)INFINITY, 1};
    return fj_span_join_f(to, x == x ? one : nan);
}

/* With the first n lanes. */
FJ_IV_FN fj_iv_b fj_span_lanes_b(fj_iv_b to, fj_b x, int n) {
    const uint32_t bits = fj_bits_b(x), there = fj_bits_b(fj_lanes_below(n));
    return fj_span_join_b(to, FJ_IV_OF(fj_iv_b){(~bits & there) != 0, (bits & there) != 0});
}
#define FJ_SPAN_LANES(letter, interval, lanes, element)                                   \
    FJ_IV_FN interval fj_span_lanes_##letter(interval to, lanes x, int n) {               \
        element of[FJ_LANES];                                                             \
        memcpy(of, &x, sizeof of);                                                        \
        for (int i = 0; i < n && i < FJ_LANES; i++) to = fj_span_add_##letter(to, of[i]); \
        return to;                                                                        \
    }
FJ_SPAN_LANES(i, fj_iv, fj_i, int32_t)
FJ_SPAN_LANES(l, fj_iv, fj_l, int64_t)
FJ_SPAN_LANES(f, fj_iv_f, fj_f, fj_real)

/* As an interval: of NaN alone, anything. */
FJ_IV_FN fj_iv_b fj_span_of_b(fj_iv_b v) { return v; }
FJ_IV_FN fj_iv fj_span_of_i(fj_iv v) { return v; }
FJ_IV_FN fj_iv fj_span_of_l(fj_iv v) { return v; }
FJ_IV_FN fj_iv_f fj_span_of_f(fj_iv_f v) { return v.lo <= v.hi ? v : fj_iv_top_f(); }

#endif
