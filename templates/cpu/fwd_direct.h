/* Products with keys and values where they lie in memory: for units of few rows, where packing would cost more than the
 * products. Each byte of a key and a value is read once, in order.
 *
 *   narrow (up to FJ_NARROW rows)        wide (up to 48 rows)              values, of both
 *
 *        keys ->                             rows ->                           columns ->
 *   q d [k k k k]   d < FJ_LANES       k d [q q q q][q q q q]            p key [v v v v][v v v v]
 *   FJ_LANES x FJ_LANES elements of    the queries are turned once;      vectors of the value as it lies;
 *   keys are turned in registers and   an element of a key is splat.     a probability is splat
 *   meet an element of each row        S comes transposed, and is
 *                                      turned back in squares
 *
 * Invariants
 *  1. Sums are those of tile.h, invariant 5, to the last bit: which way a unit goes shows in no result, and
 *     backward, whose products are packed, finds the scores that the logarithms of sums are of.
 *  2. 0 times a value that is not finite is NaN, in the sums of every row: so where the sums of a masked kernel are finite
 *     after a block, its values were. Where not, the block is taken back and goes through packing, which
 *     sorts out who sees what.
 *  3. Nothing past the last key is read: it stands in for those that fill its vector up, and their scores are masked.
 */
#ifndef FJ_FWD_DIRECT_H
#define FJ_FWD_DIRECT_H

#include "fwd_scores.h"

/* Products of a tile with the keys of its runs, and what the rows of an item need for that. */
FJ_SHARED void narrow_scores(const struct pass *p, int rows);
FJ_SHARED void wide_scores(const struct pass *p, int rows);
FJ_SHARED void start_direct(const struct item *it);
/* Products of probabilities with values. Returns 0 and leaves the sums as they were where something is not finite that a
 * mask may hide (invariant 2). */
FJ_SHARED int direct_values(const struct pass *p, int rows);

#if FJ_IN_PART(2)

/* Memory is kept busy by asking for rows some time before they are needed: the keys that come next, then the block's
 * values, then the keys of the next block. */
#define FJ_ROW_SIZE (FJ_IN_SIZE * (FJ_HEAD_DIM > FJ_VALUE_DIM ? FJ_HEAD_DIM : FJ_VALUE_DIM))
#define FJ_AHEAD (FJ_ROW_SIZE > 256 ? 32 : FJ_ROUND(8192 / FJ_ROW_SIZE, 16)) /* rows */

/* The key `next` of the block, or of those that follow. */
static inline const char *next_key(const struct pass *p, int next) {
    return key_row(p->it, p->key + (p->key + next < p->it->args->kv_len ? next : 0));
}
/* What is needed that many rows after key `key` of the block, when keys are at work. */
static inline const char *after_key(const struct pass *p, int key) {
    const int next = key + FJ_AHEAD;
    if (next < p->keys) return key_row(p->it, p->key + next);
    if (!wants_output(p->it)) return next_key(p, next);
    return value_row(p->it, p->key + (next - p->keys < p->keys ? next - p->keys : 0));
}
static inline const char *after_value(const struct pass *p, int key) {
    const int next = key + FJ_AHEAD;
    if (next < p->keys) return value_row(p->it, p->key + next);
    return next_key(p, next);
}

/* ---- Narrow: scores of a few rows -------------------------------------------------------------- */

struct narrow {
    const char *key[FJ_LANES], *next[FJ_LANES], *ahead[FJ_LANES]; /* rows: of now, of next time, of later */
    const fj_opd *queries;
    fj_real *scores;
};

/* n operands of depth from k on of turned keys, times those of the rows [from, to). */
FJ_INLINE void narrow_rows(const fj_ov *m, const fj_opd *queries, int k, const int from, const int to,
                           const int n, fj_f *sum) {
    FJ_UNROLL for (int i = 0; i < n; i++) FJ_UNROLL for (int row = from; row < to; row++) sum[row] =
        tile_step(sum[row], tile_operand(queries + row * FJ_Q_LINE + k + i), m[i]);
}

/* The first n operands of depth of FJ_LANES keys, turned, times those of the rows. */
FJ_INLINE void narrow_step(const struct narrow *t, int k, int rows, const int n, fj_f *sum) {
    fj_ov m[FJ_LANES];
    const int64_t at = (int64_t)k * (1 + FJ_PAIRS);
    FJ_UNROLL for (int i = 0; i < FJ_LANES; i++) m[i] = tile_input_depth(
        t->key[i] + at * FJ_IN_SIZE, n == FJ_LANES ? FJ_OPERAND_ELEMENTS : FJ_HEAD_DIM - (int)at);
    tile_transpose(m);
    narrow_rows(m, t->queries, k, 0, 1, n, sum);
    if (FJ_NARROW > 1 && rows > 1) narrow_rows(m, t->queries, k, 1, FJ_NARROW > 1 ? 2 : 1, n, sum);
    if (FJ_NARROW > 2 && rows > 2) narrow_rows(m, t->queries, k, 2, FJ_NARROW > 2 ? 4 : 2, n, sum);
    if (FJ_NARROW > 4 && rows > 4) narrow_rows(m, t->queries, k, 4, FJ_NARROW > 4 ? 8 : 4, n, sum);
}

/* A vector of scores of each of the rows. One text for all numbers of them: to compile it takes long, most of it turns keys. */
static __attribute__((noinline)) void narrow_vector(const struct narrow *t, int rows) {
    const int depth = FJ_DEPTH(FJ_HEAD_DIM), whole = depth - depth % FJ_LANES, steps = FJ_VECS(depth);
    fj_f sum[FJ_NARROW];
    FJ_UNROLL for (int row = 0; row < FJ_NARROW; row++) sum[row] = tile_splat(0);
    for (int step = 0; step < steps; step++) {
        for (int i = FJ_LANES * step / steps; i < FJ_LANES * (step + 1) / steps; i++) {
            tile_fetch(t->ahead[i], FJ_ROW_SIZE);
            tile_fetch_near(t->next[i], FJ_HEAD_DIM * FJ_IN_SIZE);
        }
        if (whole == depth || step + 1 < steps)
            narrow_step(t, step * FJ_LANES, rows, FJ_LANES, sum);
        else
            narrow_step(t, whole, rows, depth - whole, sum);
    }
    FJ_UNROLL for (int row = 0; row < FJ_NARROW; row++) if (row < rows)
        tile_store(t->scores + row * FJ_TILE_KV, sum[row]);
}

FJ_SHARED void narrow_scores(const struct pass *p, int rows) {
    struct narrow t = {.queries = p->it->own->queries};
    for (int r = 0; r < p->runs; r++)
        for (int at = p->run[r].from; at < FJ_ROUND(p->run[r].to, 2 * FJ_LANES); at += FJ_LANES) {
            for (int i = 0; i < FJ_LANES; i++) {
                const int key = at + i, last = p->keys - 1;
                t.key[i] = key_row(p->it, p->key + (key < last ? key : last));
                t.next[i] = key_row(p->it, p->key + (key + FJ_LANES < last ? key + FJ_LANES : last));
                t.ahead[i] = after_key(p, key);
            }
            t.scores = p->it->own->scores + at;
            narrow_vector(&t, rows);
        }
}

/* ---- Wide: scores of some rows ----------------------------------------------------------------- */

#define FJ_WIDE_VECS (FJ_PANEL_VECS < 3 ? FJ_PANEL_VECS : 3) /* of a panel of queries */
#define FJ_WIDE_PANEL (FJ_WIDE_VECS * FJ_LANES)

/* Keys that are taken at once: as many as hide the latency of the instruction. FJ_CHUNK_KEYS is a multiple. */
#define FJ_WIDE_KEYS(vecs) (FJ_TILE_ROWS(vecs) < 8 ? FJ_TILE_ROWS(vecs) : 8)

/* The vectors of the panel that begins at a row. */
static inline int panel_vecs(int rows, int row) {
    return rows - row < FJ_WIDE_PANEL ? FJ_VECS(rows - row) : FJ_WIDE_VECS;
}

/* A square of operands whose lines lie from_line apart, transposed to `lines` lines. One copy: it takes long to compile. */
static __attribute__((noinline)) void turn_square(fj_opd *to, int64_t to_line, int lines, const fj_opd *from,
                                                  int64_t from_line) {
    fj_ov m[FJ_LANES];
    FJ_UNROLL for (int i = 0; i < FJ_LANES; i++) m[i] = tile_operands(from + i * from_line);
    tile_transpose(m);
    if (lines == FJ_LANES)
        FJ_UNROLL for (int i = 0; i < FJ_LANES; i++) * (fj_ov *)(to + i * to_line) = m[i];
    else
        for (int i = 0; i < lines; i++) *(fj_ov *)(to + i * to_line) = m[i];
}

/* The unit's queries, transposed to panels without gaps: their lines share the nearest cache with the keys'. */
static void turn_queries(const struct item *it) {
    struct scratch *own = it->own;
    const int depth = FJ_DEPTH(FJ_HEAD_DIM), end = FJ_ROUND(it->rows, FJ_LANES);
    memset(own->queries + (int64_t)it->rows * FJ_Q_LINE, 0,
           sizeof(fj_opd) * FJ_Q_LINE * (size_t)(end - it->rows));
    for (int row = 0; row < end; row += FJ_LANES) {
        const int panel = row / FJ_WIDE_PANEL * FJ_WIDE_PANEL, line = panel_vecs(it->rows, panel) * FJ_LANES;
        fj_opd *to = own->turned_queries + (int64_t)panel * depth + row - panel;
        for (int k = 0; k < depth; k += FJ_LANES)
            turn_square(to + (int64_t)k * line, line, depth - k < FJ_LANES ? depth - k : FJ_LANES,
                        own->queries + (int64_t)row * FJ_Q_LINE + k, FJ_Q_LINE);
    }
}

struct wide {
    const fj_opd *keys, *queries;
    int64_t stride; /* of keys, in operands */
    fj_real *scores;
    int count;
    const struct pass *pass; /* from whose key `from` on rows are asked for; NULL: they were already */
    int from;
};

/* Keys in groups that fill the registers, the last of which may be of more than there are; a panel of `vecs` vectors. */
FJ_INLINE void wide_panel(const struct wide *t, const int vecs) {
    const int depth = FJ_DEPTH(FJ_HEAD_DIM), height = FJ_WIDE_KEYS(vecs), steps = FJ_VECS(depth);
    const int64_t stride = t->stride;
    for (int key = 0; key < t->count; key += height) {
        const fj_opd *a = t->keys + key * stride, *b = t->queries;
        fj_f sum[8][FJ_WIDE_VECS];
        FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] =
            tile_splat(0);
        for (int step = 0; step < steps; step++) {
            for (int i = height * step / steps; t->pass && i < height * (step + 1) / steps; i++)
                tile_fetch(after_key(t->pass, t->from + key + i), FJ_ROW_SIZE);
            const int end = (step + 1) * FJ_LANES < depth ? (step + 1) * FJ_LANES : depth;
            for (int k = step * FJ_LANES; k < end; k++, a++, b += vecs * FJ_LANES) {
                fj_ov line[FJ_WIDE_VECS];
                FJ_UNROLL for (int j = 0; j < vecs; j++) line[j] = tile_operands(b + j * FJ_LANES);
                FJ_UNROLL for (int i = 0; i < height; i++) {
                    const fj_ov x = tile_operand(a + i * stride);
                    FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] = tile_step(sum[i][j], x, line[j]);
                }
            }
        }
        FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++)
            tile_store(t->scores + (key + i) * FJ_WIDE + j * FJ_LANES, sum[i][j]);
    }
}

#define FJ_DEFINE_WIDE(vecs)                                                        \
    static __attribute__((noinline)) void wide_panel_##vecs(const struct wide *t) { \
        wide_panel(t, vecs < FJ_WIDE_VECS ? vecs : FJ_WIDE_VECS);                   \
    }
FJ_DEFINE_WIDE(1)
FJ_DEFINE_WIDE(2)
FJ_DEFINE_WIDE(3)

/* `keys` keys as operands, and what fills up the last group: where they lie, or copied. */
static const fj_opd *line_up_keys(const struct pass *p, int from, int keys, int64_t *ret_stride) {
    struct scratch *own = p->it->own;
    const char *first = key_row(p->it, p->key + from);
    const int64_t stride = p->it->args->key.stride[2];
#if FJ_PAGED
    const int as_it_is = 0;
#elif FJ_PAIRS
    const int as_it_is = FJ_HEAD_DIM % 2 == 0 && stride % 2 == 0 && (uintptr_t)first % 4 == 0;
#else
    const int as_it_is = FJ_IN_SIZE == sizeof(fj_real);
#endif
    *ret_stride = stride / (1 + FJ_PAIRS);
    if (as_it_is && p->key + from + FJ_CHUNK_KEYS <= p->it->args->kv_len) return (const fj_opd *)first;
    *ret_stride = FJ_Q_LINE;
    for (int i = 0; i < keys; i++)
        tile_pack_row(own->line_keys + (int64_t)i * FJ_Q_LINE, FJ_Q_LINE, key_row(p->it, p->key + from + i),
                      FJ_HEAD_DIM, 0);
    memset(own->line_keys + (int64_t)keys * FJ_Q_LINE, 0,
           sizeof(fj_opd) * FJ_Q_LINE * (size_t)(FJ_CHUNK_KEYS - keys));
    return own->line_keys;
}

/* Products of keys [from, from + keys) of the block, to the lines of scores: keys are rounded up to vectors. */
static void wide_chunk(const struct pass *p, int rows, int from, int keys) {
    struct scratch *own = p->it->own;
    struct wide t = {.count = keys, .from = from};
    t.keys = line_up_keys(p, from, keys, &t.stride);
    for (int row = 0; row < rows; row += FJ_WIDE_PANEL) {
        const int vecs = panel_vecs(rows, row);
        t.queries = own->turned_queries + (int64_t)row * FJ_DEPTH(FJ_HEAD_DIM);
        t.scores = own->turned_scores + row;
        t.pass = row == 0 ? p : NULL;
        (vecs == 1 ? wide_panel_1 : vecs == 2 ? wide_panel_2 : wide_panel_3)(&t);
    }
    for (int key = 0; key < keys; key += FJ_LANES)
        for (int row = 0; row < rows; row += FJ_LANES)
            turn_square((fj_opd *)own->scores + (int64_t)row * FJ_TILE_KV + from + key, FJ_TILE_KV, FJ_LANES,
                        (const fj_opd *)own->turned_scores + key * FJ_WIDE + row, FJ_WIDE);
}

FJ_SHARED void wide_scores(const struct pass *p, int rows) {
    for (int r = 0; r < p->runs; r++) {
        const int to = p->run[r].to, end = FJ_ROUND(to, FJ_LANES);
        for (int from = p->run[r].from; from < to; from += FJ_CHUNK_KEYS)
            wide_chunk(p, rows, from, to - from < FJ_CHUNK_KEYS ? to - from : FJ_CHUNK_KEYS);
        for (int row = 0; end % (2 * FJ_LANES) && row < rows; row++)
            tile_store(p->it->own->scores + (int64_t)row * FJ_TILE_KV + end, tile_splat(0));
    }
}

FJ_SHARED void start_direct(const struct item *it) {
    if (it->way == WAY_WIDE) turn_queries(it);
}

/* ---- Values ------------------------------------------------------------------------------------ */

/* Keys whose values stay in the nearest cache for all rows and columns. Of few rows memory is the limit, and it rests while
 * values are read a second time: so they are fewer then. */
#define FJ_VALUE_KEYS 32
#define FJ_FEW_VALUE_KEYS (FJ_ROW_SIZE > 256 ? 8 : FJ_ROW_SIZE > 128 ? 16 : FJ_VALUE_KEYS)

/* Operands of one step of depth, of `columns` columns from `column` on. */
FJ_INLINE void value_line(const char *const *value, int64_t k, int column, const int columns, fj_ov *line) {
#if FJ_PAIRS
    const char *a = value[2 * k] + column * 2, *b = value[2 * k + 1] + column * 2;
    FJ_UNROLL for (int j = 0; j < FJ_VECS(columns); j++) {
        const int left = columns - j * FJ_LANES;
        if (j % 2 == 0 && left >= 2 * FJ_LANES)
            tile_input_zips(a + j * 32, b + j * 32, &line[j], &line[j + 1]);
        else if (j % 2 == 0 || left + FJ_LANES < 2 * FJ_LANES)
            line[j] = tile_input_zip(a + j * 32, b + j * 32, left < FJ_LANES ? left : FJ_LANES);
    }
#else
    const char *a = value[k] + (int64_t)column * FJ_IN_SIZE;
    FJ_UNROLL for (int j = 0; j < FJ_VECS(columns); j++) {
        const int left = columns - j * FJ_LANES;
        const char *from = a + j * FJ_LANES * FJ_IN_SIZE;
        line[j] = left >= FJ_LANES ? tile_input(from) : tile_input_part(from, left);
    }
#endif
}

struct value_product {
    const char *const *value, *const *ahead; /* rows of FJ_VALUE_KEYS keys, or fewer */
    const fj_opd *p;                         /* FJ_TILE_KV operands a row */
    fj_real *sums;
    const fj_real *factor; /* NULL: 1 */
    int64_t depth;
    int passes, pass; /* over them: each asks for its share of the rows ahead */
};

/* `height` rows, and columns [column, column + columns). As tile_registers. */
FJ_INLINE void value_registers(struct value_product *t, int row, const int height, int column,
                               const int columns) {
    const int vecs = FJ_VECS(columns);
    const fj_opd *p = t->p + (int64_t)row * FJ_TILE_KV;
    fj_real *c = t->sums + (int64_t)row * FJ_O_LINE + column;
    const int64_t fetch = t->depth * t->pass / t->passes, fetch_end = t->depth * (t->pass + 1) / t->passes;
    t->pass++;
    fj_f sum[6][FJ_TILE_ROWS(1) / 2];
    FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] =
        tile_load(c + i * FJ_O_LINE + j * FJ_LANES);
    if (t->factor)
        FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] =
            sum[i][j] * tile_splat(t->factor[row + i]);
    for (int64_t k = 0; k < t->depth; k++) {
        fj_ov line[FJ_TILE_ROWS(1) / 2];
        value_line(t->value, k, column, columns, line);
        for (int64_t i = k * (1 + FJ_PAIRS); k >= fetch && k < fetch_end && i < (k + 1) * (1 + FJ_PAIRS); i++)
            tile_fetch(t->ahead[i], FJ_ROW_SIZE);
        FJ_UNROLL for (int i = 0; i < height; i++) {
            const fj_ov x = tile_operand(p + i * FJ_TILE_KV + k);
            FJ_UNROLL for (int j = 0; j < vecs; j++) sum[i][j] = tile_step(sum[i][j], x, line[j]);
        }
    }
    FJ_UNROLL for (int i = 0; i < height; i++) FJ_UNROLL for (int j = 0; j < vecs; j++)
        tile_store(c + i * FJ_O_LINE + j * FJ_LANES, sum[i][j]);
}

#define FJ_REST (FJ_VALUE_DIM % FJ_PANEL)
#define FJ_DEFINE_VALUES(height)                                                                  \
    static __attribute__((noinline)) void value_rows_##height(struct value_product *t, int row) { \
        int column = 0;                                                                           \
        for (; column + FJ_PANEL <= FJ_VALUE_DIM; column += FJ_PANEL)                             \
            value_registers(t, row, height, column, FJ_PANEL);                                    \
        if (FJ_REST) value_registers(t, row, height, column, FJ_REST ? FJ_REST : 1);              \
    }
FJ_DEFINE_VALUES(2)
FJ_DEFINE_VALUES(4)
FJ_DEFINE_VALUES(6)

/* Two rows and all columns, where registers hold them: memory is read as one stream. What turns elements into operands is done
 * for four rows at once. */
#define FJ_WHOLE (FJ_VECS(FJ_VALUE_DIM) > FJ_PANEL_VECS && 2 * FJ_VECS(FJ_VALUE_DIM) <= FJ_TILE_ROWS(1))
static __attribute__((noinline)) void value_rows_whole(struct value_product *t, int row) {
    value_registers(t, row, 2, 0, FJ_WHOLE ? FJ_VALUE_DIM : 1);
}

/* The rows that are taken at once of those that are left, or all columns of two: 0. */
static inline int rows_at_once(int rows, int row) {
    const int left = rows - row;
    if (FJ_WHOLE && (left <= 2 || (FJ_IN_SIZE > 2 && row == 0 && rows <= FJ_NARROW))) return 0;
    return left <= 2 ? 2 : left <= 4 || left == 7 || left == 8 ? 4 : 6;
}

static void add_values(const struct pass *p, int rows, int run, int from, int to) {
    struct scratch *own = p->it->own;
    const char *value[FJ_VALUE_KEYS + 1], *ahead[FJ_VALUE_KEYS + 1];
    const int keys = to - from, start = p->run[run].from;
    struct value_product t = {.value = value,
                              .ahead = ahead,
                              .p = (const fj_opd *)own->scores + start + FJ_DEPTH(from - start),
                              .sums = own->sums,
                              .factor = run == 0 && from == start ? own->factor : NULL,
                              .depth = FJ_DEPTH(keys)};
    for (int i = 0; i < keys; i++) {
        value[i] = value_row(p->it, p->key + from + i);
        ahead[i] = after_value(p, from + i);
    }
    value[keys] = ahead[keys] = own->no_row;
    for (int row = 0, taken; row < rows; row += taken ? taken : 2) {
        taken = rows_at_once(rows, row);
        t.passes += taken ? FJ_PANELS(FJ_VALUE_DIM) : 1;
    }
    for (int row = 0, taken; row < rows; row += taken ? taken : 2) {
        taken = rows_at_once(rows, row);
        (taken == 0   ? value_rows_whole
         : taken == 2 ? value_rows_2
         : taken == 4 ? value_rows_4
                      : value_rows_6)(&t, row);
    }
}

/* Whether the sums of all rows are finite. */
static int are_finite(const fj_real *sums, int64_t count) {
    fj_f zero = tile_splat(0);
    for (int64_t i = 0; i < count; i += FJ_LANES) zero = tile_fma(tile_load(sums + i), tile_splat(0), zero);
    return !fj_any(fj_isnan_f(zero));
}

FJ_SHARED int direct_values(const struct pass *p, int rows) {
    struct scratch *own = p->it->own;
    const size_t size = sizeof(fj_real) * FJ_O_LINE * (size_t)rows;
    const int step = rows > 2 && rows <= FJ_NARROW ? FJ_FEW_VALUE_KEYS : FJ_VALUE_KEYS;
    if (FJ_WATCH) memcpy(own->saved, own->sums, size);
    for (int r = 0; r < p->runs; r++)
        for (int from = p->run[r].from; from < p->run[r].to; from += step) {
            const int to = from + step < p->run[r].to ? from + step : p->run[r].to;
            add_values(p, rows, r, from, to);
        }
    if (!FJ_WATCH || are_finite(own->sums, (int64_t)rows * FJ_O_LINE)) return 1;
    memcpy(own->sums, own->saved, size);
    return 0;
}

#endif

#endif
