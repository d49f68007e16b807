/* Forward attention on the cpu: fused, tiled, online softmax.
 *
 *            key block (FJ_TILE_KV)           for each item (fwd_grid.h):
 *           +---------------------+             pack Q; sums = 0, top = -inf
 *   query   |                     |             for each key block, for each query tile:
 *   tile    |  S = Q K^T          |               class: empty, partial, full; the mask as bits
 *   (FJ_    |  score mod, mask    |               first tile that sees any: pack K and V (of few rows: fwd_direct.h)
 *   TILE_Q) |  P = exp2(c (S - m))|               S = Q K^T
 *           |                     |               per row: mod, mask, maximum; P, its sum
 *           +---------------------+               sums = factor sums + P V
 *                                             out = sums / sum, lse = m + log(sum) (fwd_results.h)
 *
 * The hooks of the mod stand before this file, staged by rate: fj_head_state once per head of a
 * unit, fj_row_state once per row of it, fj_col_state once per key block (and head), fj_score and
 * fj_mask on lanes along the keys.
 *
 * Invariants
 *  1. Scores in the scratch are what `unit` multiplies to logarithms of base 2: with a score mod,
 *     natural scores; without, raw products, so that no pass over them is needed but the maximum
 *     (a negative scale goes into the sign of Q: unit is never negative).
 *  2. m (top) is the running maximum of the scores as they are stored, so it is exact, and it is
 *     subtracted before anything is multiplied: equal scores have exponents of 0 and order is kept
 *     for every finite score, however large. A difference that overflows is -inf: P is 0, as it
 *     should be. m = -inf stands for "nothing yet": it is subtracted as 0, so P is 0, not NaN.
 *     Without a score mod, rows whose maximum is FJ_LARGE or more turn products to natural scores first,
 *     so that lse, in two parts, can tell both the maximum and the sum (tile.h); backward does the same.
 *  3. A position that is masked, or past the last key, gets score -inf after the mod: its P is
 *     exactly 0, whatever the mod and K gave. Padding of V is 0, and elements of V that are not finite
 *     are added apart, to the rows that see them only (tile.h). So what a row does not see reaches it
 *     in no bit. A dead row, which sees nothing or scores of -inf only, is 0 with an lse of -inf.
 *  4. NaN or +inf in a score makes that row NaN and no other: a maximum may lose the NaN, the sum does
 *     not, and +inf less itself is NaN.
 *  5. Where analysis finds a block partial (or it ends within a pair of vectors), the mask comes
 *     first, as bits: it does not depend on scores. Grains of FJ_GRAIN keys that no row of the tile
 *     sees are left out of everything; only a tile with some bits clear takes the masked copy of
 *     the score pass. Adding zeros is exact, so what is left out does not show in results.
 *  6. A sink is a key whose value is 0, that joins a row at its end: below the greater of the maximum and itself, so the
 *     row's sums or the sink have a factor of exactly 1. m is that of keys alone. The mod of the output comes after it,
 *     on reals. Both once for a row, after splits are merged.
 *  7. Dropout takes probabilities after they were summed, by bits that are made for a tile (dropout.h): they are exactly 0
 *     as operands, and what is not finite in V is added apart, as under a mask. 1 / (1 - p) is in the factor of invariant 6.
 */
#include "abi.h"

#include "prim.h"

#include "identity.h"

#include "fwd_grid.h"

#include "fwd_scores.h"

#if FJ_DIRECT
#include "fwd_direct.h"
#endif

#include "fwd_results.h"

#if FJ_IN_PART(1)

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* The block's keys, once some tile sees anything of them and does not read them where they lie. */
static void need_keys(const struct pass *p) {
    const struct item *it = p->it;
    if (it->own->packed_keys) return;
    it->own->packed_keys = 1;
    const struct key_rows keys = keys_of(p);
    tile_pack_columns(it->own->keys, keys.first, keys.stride, p->keys, FJ_HEAD_DIM);
}

static void need_values(const struct pass *p) {
    const struct item *it = p->it;
    if (it->own->packed_values) return;
    it->own->packed_values = 1;
    const struct key_rows values = values_of(p);
    it->own->value_rows = values;
    it->own->nonfinite = tile_pack_depth(it->own->values, values.first, values.stride, p->keys, FJ_VALUE_DIM);
    if (__builtin_expect(it->own->nonfinite, 0))
        it->own->nonfinite = tile_clear_nonfinite(it->own->values, values.first, values.stride, p->keys,
                                                  FJ_VALUE_DIM, it->own->nonfinite_keys);
}

static void tile_scores(const struct pass *p, int first, int rows) {
    struct scratch *own = p->it->own;
    const int64_t panel = (int64_t)FJ_DEPTH(FJ_HEAD_DIM) * FJ_PANEL;
    for (int r = 0; r < p->runs; r++) {
        const struct tile_product qk = {.a = own->queries + (int64_t)first * FJ_Q_LINE,
                                        .a_row = FJ_Q_LINE,
                                        .a_depth = 1,
                                        .b = own->keys + p->run[r].from / FJ_PANEL * panel,
                                        .c = own->scores + p->run[r].from,
                                        .c_row = FJ_TILE_KV,
                                        .depth = FJ_DEPTH(FJ_HEAD_DIM)};
        tile_multiply(qk, rows, p->run[r].to - p->run[r].from, panel, TILE_SET);
    }
}

static void tile_values(const struct pass *p, int first, int rows) {
    struct scratch *own = p->it->own;
    for (int r = 0; r < p->runs; r++) {
        const struct tile_product pv = {.a = (fj_opd *)own->scores + p->run[r].from,
                                        .a_row = FJ_TILE_KV,
                                        .a_depth = 1,
                                        .b = own->values + (int64_t)FJ_DEPTH(p->run[r].from) * FJ_PANEL,
                                        .c = own->sums + (int64_t)first * FJ_O_LINE,
                                        .c_row = FJ_O_LINE,
                                        .depth = FJ_DEPTH(p->run[r].to - p->run[r].from),
                                        .factor = own->factor};
        tile_multiply(pv, rows, FJ_VALUE_DIM, (int64_t)FJ_DEPTH(p->keys) * FJ_PANEL,
                      r ? TILE_ADD : TILE_SCALE);
    }
}

/* Of a row of the tile and a key of the block. */
static inline int is_kept(const struct scratch *own, int row, int key) {
#if FJ_DROPOUT
    return own->keep[row][key / FJ_KEEP_KEYS] >> key % FJ_KEEP_KEYS & 1;
#else
    return (void)own, (void)row, (void)key, 1;
#endif
}

/* What the values that are not finite give to the rows that see them. */
static __attribute__((noinline)) void add_nonfinite(const struct pass *p, int first, int rows, int class) {
    const struct item *it = p->it;
    const struct scratch *own = it->own;
    for (int i = 0; i < own->nonfinite; i++) {
        const int key = own->nonfinite_keys[i];
        const char *value = own->value_rows.first + key * own->value_rows.stride;
        for (int row = 0; row < rows; row++)
            if ((class == 2 || own->masks[row][key / FJ_LANES] >> key % FJ_LANES & 1) &&
                is_kept(own, row, key))
                tile_add_nonfinite(it->own->sums + (int64_t)(first + row) * FJ_O_LINE, value, FJ_VALUE_DIM);
    }
}

static void multiply_keys(const struct pass *p, int first, int rows) {
#if FJ_DIRECT
    if (p->it->way == WAY_WIDE) return wide_scores(p, rows);
    if (p->it->way == WAY_NARROW) return narrow_scores(p, rows);
#endif
    need_keys(p);
    tile_scores(p, first, rows);
}

static void multiply_values(const struct pass *p, int first, int rows, int class) {
    if (!wants_output(p->it)) return;
#if FJ_DIRECT
    if (p->it->way != WAY_PACKED && direct_values(p, rows)) return;
#endif
    need_values(p);
    tile_values(p, first, rows);
    if (FJ_WATCH && __builtin_expect(p->it->own->nonfinite, 0)) add_nonfinite(p, first, rows, class);
}

static void do_tile(struct pass p, int first, int rows, int class) {
    const struct item *it = p.it;
    p.runs = 1, p.run[0].from = 0, p.run[0].to = p.keys;
    if (class == 1 || p.keys % (2 * FJ_LANES)) class = mask_tile(&p, first, rows);
    if (!class) return;
#if FJ_DROPOUT
    keep_tile(&p, first, rows);
#endif
    multiply_keys(&p, first, rows);
    for (int at = 0; at < rows; at += FJ_LANES) {
        const int stop = first + (at + FJ_LANES < rows ? at + FJ_LANES : rows), here = stop - first - at;
        fj_f top[FJ_LANES];
        for (int row = first + at; row < stop;) {
            const int end = run_end(it, row, stop);
            need_cols(&p, it->own->head[row]);
            (class == 1 ? rows_masked : rows_full)(&p, first, row, end, top + (row - first - at));
            row = end;
        }
        for (int i = here; i < FJ_LANES; i++) top[i] = tile_splat(0);
        exponential_rows(&p, first, at, here, top);
    }
    multiply_values(&p, first, rows, class);
}

/* known: the class of the block for all rows of the unit; -1: each tile finds its own. */
static void do_block(const struct item *it, int64_t block, int known) {
    const int64_t key = block * FJ_TILE_KV, left = it->args->kv_len - key;
    const struct pass p = {.it = it,
                           .key = key,
                           .keys = (int)(left < FJ_TILE_KV ? left : FJ_TILE_KV),
                           .natural = natural_of(it->args),
                           .unit = unit_of(it->args)};
    it->own->packed_keys = it->own->packed_values = 0;
    it->own->cols_of = -1;
    if (FJ_MASKED && known < 0 && it->rows > FJ_TILE_Q) { /* all tiles at once */
        const int class = tile_class(it, 0, it->rows, key, p.keys);
        if (class != 1) known = class;
    }
    for (int row = 0; row < it->rows && known != 0; row += FJ_TILE_Q) {
        const int end = row + FJ_TILE_Q < it->rows ? row + FJ_TILE_Q : it->rows;
        const int class = known >= 0 ? known : tile_class(it, row, end, key, p.keys);
        if (class) do_tile(p, row, end - row, class);
    }
}

/* What a unit, of one tile, sees of a piece of its blocks. */
static void mark_piece(const struct fj_cpu_args *a, const struct grid *g, int64_t number) {
    const struct item it = item_of(a, g, number / g->pieces * g->splits, 0);
    const int64_t from = number % g->pieces * FJ_PIECE,
                  to = from + FJ_PIECE < g->blocks ? from + FJ_PIECE : g->blocks;
    uint8_t *marks = grid_marks(a, g, it.unit);
    for (int64_t block = from; block < to; block++) {
        const int64_t key = block * FJ_TILE_KV, left = a->kv_len - key;
        marks[block] =
            (uint8_t)tile_class(&it, 0, it.rows, key, (int)(left < FJ_TILE_KV ? left : FJ_TILE_KV));
    }
}

/* The blocks [from, to) of those that a unit sees. */
static void do_part(const struct item *it, const struct grid *g, int64_t from, int64_t to) {
    if (!g->pieces) {
        for (int64_t block = from; block < to; block++) do_block(it, block, -1);
        return;
    }
    const uint8_t *marks = grid_marks(it->args, g, it->unit);
    for (int64_t block = 0, live = 0; live < to; block++) {
        if (!marks[block]) continue;
        if (live >= from) do_block(it, block, marks[block]);
        live++;
    }
}

static void run_item(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    const struct item it = item_of(a, g, number, worker);
    struct scratch *own = it.own;
    int64_t from, to;
    part_of(g, live_of(a, g, it.unit), it.split, &from, &to);
    if (from == to && g->splits > 1) return;
    start_rows(&it);
#if FJ_HAS_NO_ROW
    memset(own->no_row, 0, sizeof own->no_row);
#endif
#if FJ_DIRECT
    start_direct(&it);
#endif
    do_part(&it, g, from, to);
    if (g->splits == 1) {
        finish_rows(&it, own->sums, own->top, own->sum);
        return;
    }
    fj_real *partial = grid_partial(a, g, it.unit, it.split);
    memcpy(partial, own->sums, sizeof(fj_real) * FJ_O_LINE * (size_t)it.rows);
    memcpy(partial + (int64_t)it.rows * FJ_O_LINE, own->top, sizeof(fj_real) * (size_t)it.rows);
    memcpy(partial + (int64_t)it.rows * (FJ_O_LINE + 1), own->sum, sizeof(fj_real) * (size_t)it.rows);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

static int64_t kernel_items(const struct fj_cpu_args *a, int phase) {
    const struct grid g = grid_of(a);
    if (g.pieces && phase-- == 0) return g.units * g.pieces;
    if (phase == 0) return g.units * g.splits;
    return phase == 1 && g.splits > 1 ? g.units : -1;
}

static void kernel_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {
    const struct grid g = grid_of(a);
    if (g.pieces && phase-- == 0)
        mark_piece(a, &g, item);
    else if (phase == 0)
        run_item(a, &g, item, worker);
    else
        run_merge(a, &g, item, worker);
}

extern const struct fj_cpu_kernel fj_cpu_kernel;
FJ_CPU_EXPORT const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .scratch = sizeof(struct scratch),
    .workspace = grid_workspace,
    .items = kernel_items,
    .run = kernel_run,
    .blocks = kernel_blocks,
};

#endif
