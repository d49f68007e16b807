/* Matrix products on packed operands: the products of attention, forward and backward.
 *
 *   C[rows][columns]  (=, +=, factor[row] * C +)  A[rows][depth] * B[depth][columns]
 *
 *                       panel 0          panel 1
 *            depth    +-----------+    +-----------+      B: panels of FJ_PANEL columns, one after
 *              |      | b b b b   |    | b b . .   |      the other. A row of a panel is FJ_PANEL
 *              v      |           |    |           |      operands; a panel is `depth` rows, so the
 *   A: any two        +-----------+    +-----------+      innermost loop reads B as one stream.
 *   strides           +-----------+    +-----------+
 *   rows | a . . .    | C C C C   |    |           |      C: plain rows of fj_real, `c_row` apart.
 *        v            +-----------+    +-----------+
 *
 * Depth counts operands: FJ_DEPTH(n) of them for n elements (prim_tile.h: fj_opd). An operand of A
 * is broadcast, a vector of B is loaded, C stays in registers over the whole depth.
 *
 *   product          A (row, depth strides)       B                                packed by
 *   S  = Q K^T       Q  [q][E]    (ld, 1)         K: columns are keys, depth E     tile_pack_columns
 *   O += P V         P  [q][kv]   (ld, 1)         V: depth is keys, columns Ev     tile_pack_depth
 *   dP = dO V^T      dO [q][Ev]   (ld, 1)         V: columns are keys, depth Ev    tile_pack_columns
 *   dV += P^T dO     P  [q][kv]   (1, ld)         dO: depth is q, columns Ev       tile_pack_depth
 *   dK += dS^T Q     dS [q][kv]   (1, ld)         Q: depth is q, columns E         tile_pack_depth
 *   dQ += dS K       dS [q][kv]   (ld, 1)         K: depth is keys, columns E      tile_pack_depth
 *
 * With FJ_PAIRS the pairs of an operand run along depth. So P and dS take two forms: for O and dQ
 * pairs of keys (tile_store_depth: [q][kv / 2]), for dV and dK pairs of queries (tile_zip of two
 * rows: [q / 2][kv], strides (1, ld)). Without it both forms are one matrix of fj_real.
 *
 * Invariants
 *  1. B, C and every fj_opd buffer are aligned to 64 bytes; c_row is a multiple of FJ_LANES.
 *  2. Rows come in groups of FJ_TILE_ROWS; the rest in groups of up to FJ_ROW_PAD. So A is readable
 *     and C writable FJ_ROW_PAD rows past the last; what is written there is not to be used. Multiples of
 *     48 rows leave no rest.
 *  3. Columns come in whole vectors; the lanes past the last column hold what B holds there, which
 *     packing makes zero.
 *  4. Packing zeroes: columns up to a whole panel, the second half of a last odd operand. Depth
 *     needs no other padding: the loops run over it exactly.
 *  5. The sum of an element of C runs over depth in order, in one accumulator, wherever the element
 *     lies in the tile: results do not depend on how rows are grouped.
 */
#ifndef FJ_TILE_H
#define FJ_TILE_H

#include "prim_tile.h"

#ifndef FJ_WATCH
#define FJ_WATCH 0 /* whether packing looks for elements that are not finite: where masks hide some */
#endif

#ifndef FJ_TILE_PART
#define FJ_TILE_PART \
    1 /* the parts of a kernel that have the products and the packing (prim_isa.h: FJ_SHARED) */
#define FJ_PACK_PART 1
#endif

#define FJ_PANEL (FJ_PANEL_VECS * FJ_LANES)
#define FJ_PANELS(n) (((n) + FJ_PANEL - 1) / FJ_PANEL)
#define FJ_VECS(n) (((n) + FJ_LANES - 1) / FJ_LANES)
#define FJ_ROUND(n, to) (((n) + (to)-1) / (to) * (to))
#define FJ_ROW_PAD 8

/* Operands that a packed B takes: depth in operands, columns in elements. */
#define FJ_PACKED(depth, columns) ((int64_t)(depth)*FJ_PANELS(columns) * FJ_PANEL)

/* Raw products whose natural scores reach this are made natural scores, rounded, before they are subtracted
 * from. Below, lse in two parts holds the maximum's exact product with the scale and the logarithm of the
 * sum; from here on only one of both. (2 bits more than a real has: scores are at least 4 apart.) */
#define FJ_LARGE (FJ_REAL_F64 ? 0x1p54 : (fj_real)0x1p25)

enum tile_start { TILE_SET, TILE_ADD, TILE_SCALE };

/* ---- Products -------------------------------------------------------------------------------- */

struct tile_product {
    const fj_opd *a;
    int64_t a_row, a_depth; /* strides in operands */
    const fj_opd *b;        /* the panel, FJ_PANEL operands a row */
    fj_real *c;
    int64_t c_row;
    int64_t depth;
    const fj_real *factor; /* TILE_SCALE: one per row */
};

/* `height` rows of `vecs` vectors. Inlined with both constant. */
FJ_INLINE void tile_registers(const struct tile_product *t, int64_t row, const int height, const int vecs,
                              enum tile_start start) {
    fj_f sum[24][FJ_PANEL_VECS];
    const fj_opd *a = t->a + row * t->a_row, *b = t->b;
    fj_real *c = t->c + row * t->c_row;
    const int64_t a_row = t->a_row, a_depth = t->a_depth, c_row = t->c_row;
    FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] =
        tile_splat(0);
    if (start != TILE_SET) FJ_UNROLL for (int i = 0; i < height; i++) {
            fj_f f = start == TILE_ADD ? tile_splat(1) : tile_splat(t->factor[row + i]);
            FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] = tile_load(c + i * c_row + j * FJ_LANES) * f;
        }
    for (int64_t k = t->depth; k > 0; k--) {
        fj_ov line[FJ_PANEL_VECS];
        FJ_UNROLL for (int j = 0; j < vecs; j++) line[j] = tile_operands(b + j * FJ_LANES);
        FJ_UNROLL for (int i = 0; i < height; i++) {
            fj_ov x = tile_operand(a + i * a_row);
            FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] = tile_step(sum[i][j], x, line[j]);
        }
        a += a_depth;
        b += FJ_PANEL;
    }
    FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++)
        tile_store(c + i * c_row + j * FJ_LANES, sum[i][j]);
}

/* The widths that products have: of a whole panel, and of what is left of rows of keys and values. A width that none has is
 * not compiled: each takes a compiler longer than the rest of this file. */
#define FJ_REST_VECS(dim) (((dim) % FJ_PANEL + FJ_LANES - 1) / FJ_LANES)
#define FJ_HAS_WIDTH(vecs) \
    ((vecs) == FJ_PANEL_VECS || FJ_REST_VECS(FJ_HEAD_DIM) == (vecs) || FJ_REST_VECS(FJ_VALUE_DIM) == (vecs))

/* All rows against one panel, for a constant number of vectors. The short groups of the remainder
 * keep as few rows as still hide the latency of the instruction. */
#define FJ_ROWS_OF(vecs) \
    FJ_SHARED void tile_rows_##vecs(const struct tile_product *t, int64_t rows, enum tile_start start)
#if FJ_IN_PART(FJ_TILE_PART)
#define FJ_DEFINE_ROWS(vecs)                                                               \
    FJ_ROWS_OF(vecs) {                                                                     \
        const int tall = FJ_TILE_ROWS(vecs), low = 8 / (vecs);                             \
        int64_t row = 0;                                                                   \
        for (; row + tall <= rows; row += tall) tile_registers(t, row, tall, vecs, start); \
        for (; row < rows; row += low) tile_registers(t, row, low, vecs, start);           \
    }
#else
#define FJ_DEFINE_ROWS(vecs) FJ_ROWS_OF(vecs);
#endif
#if FJ_HAS_WIDTH(1)
FJ_DEFINE_ROWS(1)
#endif
#if FJ_HAS_WIDTH(2)
FJ_DEFINE_ROWS(2)
#endif
#if FJ_HAS_WIDTH(3)
FJ_DEFINE_ROWS(3)
#endif
#if FJ_HAS_WIDTH(4)
FJ_DEFINE_ROWS(4)
#endif

/* vecs: one of those widths. */
FJ_INLINE void tile_panel(const struct tile_product *t, int64_t rows, int vecs, enum tile_start start) {
#if FJ_HAS_WIDTH(1)
    if (vecs == 1) return tile_rows_1(t, rows, start);
#endif
#if FJ_HAS_WIDTH(2)
    if (vecs == 2) return tile_rows_2(t, rows, start);
#endif
#if FJ_HAS_WIDTH(3)
    if (vecs == 3) return tile_rows_3(t, rows, start);
#endif
#if FJ_HAS_WIDTH(4)
    if (vecs == 4) return tile_rows_4(t, rows, start);
#endif
}

/* C (start) A * B over `columns` columns, where the panels of B lie b_panel operands apart (at
 * least depth * FJ_PANEL): FJ_HEAD_DIM or FJ_VALUE_DIM as a constant, or any number that is not constant, which
 * is rounded up to whole panels, in C too. */
FJ_INLINE void tile_multiply(struct tile_product t, int64_t rows, int columns, int64_t b_panel,
                             enum tile_start start) {
    const int fixed = __builtin_constant_p(columns);
    const int whole = fixed ? columns / FJ_PANEL : FJ_PANELS(columns);
    const int rest = fixed ? FJ_VECS(columns % FJ_PANEL) : 0;
    for (int p = 0; p < whole; p++) {
        tile_panel(&t, rows, FJ_PANEL_VECS, start);
        t.b += b_panel;
        t.c += FJ_PANEL;
    }
    if (rest) tile_panel(&t, rows, rest, start);
}

/* ---- Packing --------------------------------------------------------------------------------- */

/* Rows of an A operand: dst[row][FJ_DEPTH(columns)], `ld` operands apart, from rows of input
 * elements `stride` bytes apart. ld is a multiple of FJ_LANES; the line is filled up with zeros. */
FJ_INLINE void tile_pack_row(fj_opd *dst, int64_t ld, const char *src, int columns, int negate) {
    for (int k = 0; k < ld; k += FJ_LANES) {
        int at = k * (1 + FJ_PAIRS);
        fj_ov v = tile_input_depth(src + (int64_t)at * FJ_IN_SIZE, columns - at);
        *(fj_ov *)(dst + k) = negate ? tile_negate(v) : v;
    }
}

/* tile_pack_columns: B whose columns are input rows, the transpose. src holds `rows` rows of `columns` elements, stride
 * bytes apart; dst takes FJ_PACKED(FJ_DEPTH(columns), rows) operands. */
FJ_INLINE void tile_turn_rows(fj_opd *dst, const char *src, int64_t stride, int rows, const int columns) {
    const int depth = FJ_DEPTH(columns);
    for (int row = 0; row < FJ_ROUND(rows, FJ_PANEL); row += FJ_LANES) {
        fj_opd *to = dst + (int64_t)(row / FJ_PANEL) * depth * FJ_PANEL + row % FJ_PANEL;
        for (int k = 0; k < depth; k += FJ_LANES) {
            fj_ov m[FJ_LANES];
            const int at = k * (1 + FJ_PAIRS);
            FJ_UNROLL for (int i = 0; i < FJ_LANES; i++) m[i] = (fj_ov){0};
            if (row + FJ_LANES <= rows && at + FJ_OPERAND_ELEMENTS <= columns)
                FJ_UNROLL for (int i = 0; i < FJ_LANES; i++) m[i] = tile_input_depth(
                    src + (row + i) * stride + (int64_t)at * FJ_IN_SIZE, FJ_OPERAND_ELEMENTS);
            else
                for (int i = 0; i < FJ_LANES && row + i < rows; i++)
                    m[i] =
                        tile_input_depth(src + (row + i) * stride + (int64_t)at * FJ_IN_SIZE, columns - at);
            tile_transpose(m);
            const int n = depth - k < FJ_LANES ? depth - k : FJ_LANES;
            for (int i = 0; i < n; i++) *(fj_ov *)(to + (int64_t)(k + i) * FJ_PANEL) = m[i];
        }
    }
}

/* n columns from `col` on of one operand of depth of B, two rows of input with FJ_PAIRS; returns the watch. */
FJ_INLINE fj_watch tile_put_depth(fj_opd *dst, int depth, int k, int col, const char *first,
                                  const char *second, const int n, fj_watch watch) {
    const int64_t at = (int64_t)col * FJ_IN_SIZE;
    fj_ov v = {0};
    if (n > 0)
#if FJ_PAIRS
        v = tile_input_zip(first + at, second ? second + at : NULL, n);
#else
        v = n == FJ_LANES ? tile_input(first + at) : tile_input_part(first + at, n);
#endif
    (void)second;
    *(fj_ov *)(dst + ((int64_t)(col / FJ_PANEL) * depth + k) * FJ_PANEL + col % FJ_PANEL) = v;
    return FJ_WATCH ? tile_watch(watch, v) : watch;
}

/* tile_pack_depth: B whose depth is input rows. dst takes FJ_PACKED(FJ_DEPTH(rows), columns) operands. Panels lie
 * FJ_DEPTH(rows) * FJ_PANEL apart. With FJ_WATCH, returns whether an element is not finite. */
FJ_INLINE int tile_line_up_rows(fj_opd *dst, const char *src, int64_t stride, int rows, const int columns) {
    const int depth = FJ_DEPTH(rows), whole = columns - columns % FJ_LANES;
    fj_watch watch = {0};
    for (int k = 0; k < depth; k++) {
        const char *first = src + (int64_t)k * (1 + FJ_PAIRS) * stride;
        const char *second = !FJ_PAIRS ? first : 2 * k + 1 < rows ? first + stride : NULL;
        for (int col = 0; col < whole; col += FJ_LANES)
            watch = tile_put_depth(dst, depth, k, col, first, second, FJ_LANES, watch);
        for (int col = whole; col < FJ_PANELS(columns) * FJ_PANEL; col += FJ_LANES)
            watch =
                tile_put_depth(dst, depth, k, col, first, second, columns > col ? columns - col : 0, watch);
    }
    return FJ_WATCH && tile_watched(watch);
}

#ifdef FJ_HEAD_DIM
/* Both of them for the numbers of columns that there are: those of keys, and those of values. */
#define FJ_PACKS_OF(name)                                                                            \
    FJ_SHARED void tile_pack_columns_##name(fj_opd *dst, const char *src, int64_t stride, int rows); \
    FJ_SHARED int tile_pack_depth_##name(fj_opd *dst, const char *src, int64_t stride, int rows);
#define FJ_DEFINE_PACKS(name, dim)                                                                    \
    FJ_SHARED void tile_pack_columns_##name(fj_opd *dst, const char *src, int64_t stride, int rows) { \
        tile_turn_rows(dst, src, stride, rows, dim);                                                  \
    }                                                                                                 \
    FJ_SHARED int tile_pack_depth_##name(fj_opd *dst, const char *src, int64_t stride, int rows) {    \
        return tile_line_up_rows(dst, src, stride, rows, dim);                                        \
    }
#define FJ_TWO_DIMS (FJ_HEAD_DIM != FJ_VALUE_DIM)
FJ_PACKS_OF(e)
#if FJ_TWO_DIMS
FJ_PACKS_OF(v)
#endif
#if FJ_IN_PART(FJ_PACK_PART)
FJ_DEFINE_PACKS(e, FJ_HEAD_DIM)
#if FJ_TWO_DIMS
FJ_DEFINE_PACKS(v, FJ_VALUE_DIM)
#endif
#endif
FJ_INLINE void tile_pack_columns(fj_opd *dst, const char *src, int64_t stride, int rows, const int columns) {
#if FJ_TWO_DIMS
    if (columns == FJ_VALUE_DIM) return tile_pack_columns_v(dst, src, stride, rows);
#endif
    (void)columns;
    tile_pack_columns_e(dst, src, stride, rows);
}
FJ_INLINE int tile_pack_depth(fj_opd *dst, const char *src, int64_t stride, int rows, const int columns) {
#if FJ_TWO_DIMS
    if (columns == FJ_VALUE_DIM) return tile_pack_depth_v(dst, src, stride, rows);
#endif
    (void)columns;
    return tile_pack_depth_e(dst, src, stride, rows);
}
#endif

/* Operands times 0: the finite elements of `count` operands become 0, the others stay or become NaN. */
FJ_INLINE void tile_annul(fj_opd *operands, int64_t count) {
    for (int64_t i = 0; i < count; i += FJ_LANES) {
#if FJ_PAIRS
        typedef uint16_t half_lanes __attribute__((vector_size(4 * FJ_LANES), may_alias));
        half_lanes v = *(half_lanes *)(operands + i);
        *(half_lanes *)(operands + i) = v & (half_lanes)((v & 0x7F80) == 0x7F80);
#else
        tile_store(operands + i, tile_load(operands + i) * tile_splat(0));
#endif
    }
}

/* ---- What is not finite ---------------------------------------------------------------------- */

/* In a product over depth, 0 times an element that is not finite is NaN: a row of C would see through its
 * mask. So such elements become 0 in B, their rows are listed, and what they give to the rows of C that see
 * them is added after the product. */

static inline fj_opd *tile_depth_operand(fj_opd *packed, int rows, int row, int column) {
    const int64_t depth = FJ_DEPTH(rows), k = FJ_PAIRS ? row / 2 : row;
    return packed + (column / FJ_PANEL * depth + k) * FJ_PANEL + column % FJ_PANEL;
}

/* An element of what tile_pack_depth made of `rows` rows. */
static inline void tile_clear_element(fj_opd *packed, int rows, int row, int column) {
    fj_opd *x = tile_depth_operand(packed, rows, row, column);
#if FJ_PAIRS
    *x &= row % 2 ? 0xffffu : 0xffff0000u;
#else
    *x = 0;
#endif
}

static __attribute__((noinline, unused)) void tile_clear_row(fj_opd *packed, int rows, int row, int columns) {
    for (int col = 0; col < columns; col++) tile_clear_element(packed, rows, row, col);
}

/* Elements that are not finite become 0; lists their rows and returns how many. src as for tile_pack_depth. */
static __attribute__((noinline, unused)) int tile_clear_nonfinite(fj_opd *packed, const char *src,
                                                                  int64_t stride, int rows, int columns,
                                                                  uint16_t *list) {
    int count = 0;
    for (int row = 0; row < rows; row++) {
        int found = 0;
        for (int col = 0; col < columns; col++)
            if (!__builtin_isfinite(tile_element(src + row * stride + (int64_t)col * FJ_IN_SIZE))) {
                tile_clear_element(packed, rows, row, col);
                found = 1;
            }
        if (found) list[count++] = (uint16_t)row;
    }
    return count;
}

/* Adds the elements of a row of input that are not finite: to see one makes a sum infinite or NaN. */
static inline void tile_add_nonfinite(fj_real *to, const char *src, int columns) {
    for (int col = 0; col < columns; col++) {
        const fj_real x = tile_element(src + (int64_t)col * FJ_IN_SIZE);
        if (!__builtin_isfinite(x)) to[col] += x;
    }
}

/* ---- Results --------------------------------------------------------------------------------- */

/* A line of reals times a factor, in place. */
FJ_INLINE void tile_scale_line(fj_real *line, int count, fj_real factor) {
    for (int i = 0; i < count; i += FJ_LANES) tile_store(line + i, tile_load(line + i) * tile_splat(factor));
}

/* `columns` results to one row of output elements. */
FJ_INLINE void tile_unpack_row(char *dst, const fj_real *src, int columns, fj_real factor) {
    for (int col = 0; col < columns; col += FJ_LANES) {
        fj_f v = tile_fma(tile_load(src + col), tile_splat(factor), tile_splat(0)); /* -0 becomes 0 */
        char *to = dst + (int64_t)col * FJ_IN_SIZE;
        if (columns - col >= FJ_LANES)
            tile_output(to, v);
        else
            tile_output_part(to, v, columns - col);
    }
}

#endif
