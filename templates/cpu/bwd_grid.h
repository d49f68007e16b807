/* How the backward kernel cuts a problem into items, and where everything lies in the workspace.
 *
 *               key chunks ->               A *unit* is a query tile of one head; the units of a key head are
 *             +---+---+---+---+             those of all query heads that share it, head by head, cut into
 *   query     | 0 | 1 | 2 | 3 |             query chunks. Its key blocks are cut into key chunks. A square
 *   chunks    +---+---+---+---+             makes dK and dV of its keys from its units, and dQ of its units
 *     |       | 3 | 0 | 1 | 2 |             from its keys. So squares of one row or one column may not run
 *     v       +---+---+---+---+             together: they run in *rounds* (the numbers), one phase each. An
 *             | 2 | 3 | 0 | 1 |             *item* of a round is one square; all items of a round touch other
 *             +---+---+---+---+             rows and columns, and sums grow in the order of the rounds.
 *
 * Where there are fewer columns than rows (or the reverse), a column has as many *copies* of dK and dV (a row of
 * dQ) as squares of one round meet in it; the last phase adds them in order.
 *
 *   first             delta; zeros for all sums
 *   out               with a mod of the output: do', and then delta (bwd_mods.h)
 *   measure           with a measured delta (bwd.c): that
 *   sink              with gradients of captures by the sink: these (bwd_mods.h)
 *   rounds            R phases
 *   last              dQ, dK, dV and captured gradients to the outputs
 *
 * Invariants
 *  1. Chunks follow from the shapes alone, never from the number of workers: so do all results.
 *  2. A round has FJ_ITEMS items where the problem has as many tiles. Copies come only with an axis that has
 *     few tiles, so that sums never take much more memory than one copy of dQ, dK and dV in fj_real.
 *  3. With a single round and no copies (many heads), dK and dV are summed in the worker's scratch.
 *
 * Workspace: | delta, base and low of rows | do' | sums of dQ | sums of dK and dV | gradients of captures |
 */
#ifndef FJ_BWD_GRID_H
#define FJ_BWD_GRID_H

#define FJ_WATCH (FJ_MASKED || FJ_DROPOUT) /* some positions do not see their key, or their dO */
#define FJ_TILE_PART 2                     /* with bwd_rows.h and other things that no mod changes */
#define FJ_PACK_PART 2

#include "tile.h"

#include "dropout.h"

#ifndef FJ_TILE_Q
#define FJ_TILE_Q (FJ_PAIRS ? 96 : 48)
#endif
#ifndef FJ_TILE_KV
#define FJ_TILE_KV (FJ_HEAD_DIM + FJ_VALUE_DIM <= 256 ? 192 : 128)
#endif
#ifndef FJ_ITEMS
#define FJ_ITEMS 32
#endif
#define FJ_BLOCK_ROWS (FJ_TILE_KV + FJ_ROW_PAD)
/* Keys and rows that a partial tile is cut into: products of so many rows leave no rest (tile.h, invariant 2). */
#define FJ_GRAIN (FJ_PANEL_VECS == 4 ? 64 : 48)
#define FJ_ROW_GRAIN 48
#define FJ_UNITS_AT_ONCE 4 /* whose class is asked for first */
#define FJ_LEAST_UNITS 4   /* of a query chunk, where there are as many: K and V are packed for each */
_Static_assert(FJ_TILE_Q % 48 == 0 && FJ_TILE_Q <= 240, "FJ_TILE_Q: a multiple of 48 up to 240");
_Static_assert(FJ_TILE_KV % FJ_PANEL == 0 && FJ_TILE_KV >= 2 * FJ_PANEL && FJ_TILE_KV <= 1024,
               "FJ_TILE_KV: a multiple of a panel, two of them up to 1024");
_Static_assert(FJ_GRAIN % FJ_PANEL == 0 && FJ_GRAIN % (2 * FJ_LANES) == 0, "FJ_GRAIN: whole panels");
_Static_assert(FJ_HEAD_DIM >= 1 && FJ_HEAD_DIM <= 256, "FJ_HEAD_DIM: 1 to 256");
_Static_assert(FJ_VALUE_DIM >= 1 && FJ_VALUE_DIM <= 256, "FJ_VALUE_DIM: 1 to 256");

#include "block_mask.h"

#define FJ_E_LINE FJ_ROUND(FJ_HEAD_DIM, FJ_LANES) /* reals of a row of dQ and dK, of dV */
#define FJ_V_LINE FJ_ROUND(FJ_VALUE_DIM, FJ_LANES)
#define FJ_Q_OPERANDS FJ_ROUND(FJ_DEPTH(FJ_HEAD_DIM), FJ_LANES) /* operands of a row of Q, of dO */
#define FJ_O_OPERANDS FJ_ROUND(FJ_DEPTH(FJ_VALUE_DIM), FJ_LANES)
/* A row of scores. Not a multiple of many cache lines, as columns of the tile are read too. */
#define FJ_S_LINE (FJ_TILE_KV + 16)
#define FJ_K_LINE (FJ_TILE_KV / 2 + 16) /* the same in pairs of keys */

/* What a worker keeps. */
struct scratch {
    /* Of a key block: K for S, K for dQ, V for dP, and the sums (invariant 3). */
    _Alignas(256) fj_opd keys[FJ_PACKED(FJ_DEPTH(FJ_HEAD_DIM), FJ_TILE_KV)];
    _Alignas(256) fj_opd key_rows[FJ_PACKED(FJ_DEPTH(FJ_TILE_KV), FJ_HEAD_DIM)];
    _Alignas(256) fj_opd values[FJ_PACKED(FJ_DEPTH(FJ_VALUE_DIM), FJ_TILE_KV)];
    _Alignas(256) fj_real dkey[FJ_BLOCK_ROWS * FJ_E_LINE];
    _Alignas(256) fj_real dvalue[FJ_BLOCK_ROWS * FJ_V_LINE];
    /* Of a query tile: Q for S, Q for dK, dO for dP, dO for dV. */
    _Alignas(256) fj_opd queries[(FJ_TILE_Q + FJ_ROW_PAD) * FJ_Q_OPERANDS];
    _Alignas(256) fj_opd query_rows[FJ_PACKED(FJ_DEPTH(FJ_TILE_Q), FJ_HEAD_DIM)];
    _Alignas(256) fj_opd douts[(FJ_TILE_Q + FJ_ROW_PAD) * FJ_O_OPERANDS];
    _Alignas(256) fj_opd dout_rows[FJ_PACKED(FJ_DEPTH(FJ_TILE_Q), FJ_VALUE_DIM)];
    /* S, then P; dP, then dS. */
    _Alignas(256) fj_real scores[(FJ_TILE_Q + FJ_ROW_PAD) * FJ_S_LINE];
    _Alignas(256) fj_real adjoints[(FJ_TILE_Q + FJ_ROW_PAD) * FJ_S_LINE];
#if FJ_PAIRS /* the same as operands: pairs of queries of P and dS, pairs of keys of dS */
    _Alignas(256) fj_opd p_rows[(FJ_TILE_Q / 2 + FJ_ROW_PAD) * FJ_S_LINE];
    _Alignas(256) fj_opd ds_rows[(FJ_TILE_Q / 2 + FJ_ROW_PAD) * FJ_S_LINE];
    _Alignas(256) fj_opd ds_keys[(FJ_TILE_Q + FJ_ROW_PAD) * FJ_K_LINE];
#endif
    /* Per row: what is subtracted from stored scores (as the score is that is lse; -inf of a dead row), what
     * the difference is multiplied by and what is added for exponents of base 2; rowsum(O dO) - dlse. */
    _Alignas(64) fj_real base[FJ_TILE_Q], unit[FJ_TILE_Q], low[FJ_TILE_Q], delta[FJ_TILE_Q];
    unsigned char natural[FJ_TILE_Q]; /* whether products are made natural scores first (tile.h: FJ_LARGE) */
    /* Rows of the block or the tile whose elements are not all finite: how many, and which. */
    int nonfinite_keys, nonfinite_queries, nonfinite_douts;
    uint16_t key_list[FJ_TILE_KV], query_list[FJ_TILE_Q], dout_list[FJ_TILE_Q];
    struct fj_head_state head;
    /* Of the tile's rows, those that are left out among them: what each sees of the block, and its state. */
    uint16_t masks[FJ_TILE_Q][FJ_ROUND(FJ_TILE_KV, 2 * FJ_LANES) / FJ_LANES];
#if FJ_DROPOUT /* of the rows of the tile, from the 64 keys on that the block begins in */
    uint64_t keep[FJ_TILE_Q][FJ_TILE_KV / FJ_KEEP_KEYS + 2];
#endif
    struct fj_row_state rows[FJ_ROW_EMPTY ? 1 : FJ_TILE_Q];
    _Alignas(64) struct fj_col_state cols[FJ_COL_EMPTY ? 1 : FJ_TILE_KV / FJ_LANES];
};

struct grid {
    int64_t group, tiles, units; /* query heads per key head, query tiles of a head, units of a key head */
    int64_t blocks;              /* key blocks */
    int64_t key_chunks, query_chunks, rounds;
    int64_t items; /* of a round */
    int64_t dquery_copies, dkv_copies;
    /* Rows of a head in the sums: FJ_ROW_PAD more than there are; of dK and dV in every block. */
    int64_t q_rows, kv_rows;
    int64_t delta, dout, dquery, dkv, grads; /* offsets in the workspace, in bytes */
    int64_t dquery_copy, dkv_copy;           /* bytes */
    int sums_in_scratch;                     /* of dK and dV */
};

struct item {
    const struct fj_cpu_args *args;
    struct scratch *own;
    int64_t batch, head_kv;
    int64_t dquery_copy, dkv_copy;
    int64_t block, block_end, unit, unit_end;
};

/* As a mod sees it. */
static inline int32_t batch_of(const struct item *it) { return (int32_t)it->batch + it->args->first_batch; }

static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Rows and columns of the picture: near a square where both axes are long. */
static void cut(struct grid *g, int64_t wanted) {
    g->key_chunks = most(1, least(wanted, g->blocks));
    g->query_chunks = most(1, least(wanted, g->units / FJ_LEAST_UNITS));
    const int64_t lesser = least(g->key_chunks, g->query_chunks);
    if (g->key_chunks < 2 * lesser) g->key_chunks = lesser;
    if (g->query_chunks < 2 * lesser) g->query_chunks = lesser;
    g->rounds = lesser;
    g->dquery_copies = divide_up(g->key_chunks, g->query_chunks);
    g->dkv_copies = divide_up(g->query_chunks, g->key_chunks);
}

static struct grid grid_of(const struct fj_cpu_args *a) {
    struct grid g = {.group = a->heads_kv > 0 ? a->heads_q / a->heads_kv : 0};
    const int64_t heads = a->batch * a->heads_kv, size = (int64_t)sizeof(fj_real);
    g.tiles = divide_up(a->q_len, FJ_TILE_Q);
    g.units = g.group * g.tiles;
    g.blocks = divide_up(a->kv_len, FJ_TILE_KV);
    cut(&g, divide_up(FJ_ITEMS, most(1, heads)));
    g.items = heads * most(g.key_chunks, g.query_chunks);
    g.sums_in_scratch = g.rounds == 1 && g.dkv_copies == 1;
    g.q_rows = a->q_len + FJ_ROW_PAD;
    g.kv_rows = g.blocks * FJ_BLOCK_ROWS;
    g.dquery_copy = FJ_ROUND(a->batch * a->heads_q * g.q_rows * FJ_E_LINE * size, 256);
    g.dkv_copy = g.sums_in_scratch ? 0 : FJ_ROUND(heads * g.kv_rows * (FJ_E_LINE + FJ_V_LINE) * size, 256);

    g.dout = g.delta + FJ_ROUND(3 * a->batch * a->heads_q * a->q_len * size, 256);
    g.dquery = g.dout +
               (FJ_HAS_OUT ? FJ_ROUND(a->batch * a->heads_q * a->q_len * FJ_VALUE_DIM * FJ_IN_SIZE, 256) : 0);
    g.dkv = g.dquery + g.dquery_copies * g.dquery_copy;
    g.grads = g.dkv + g.dkv_copies * g.dkv_copy;
    return g;
}

/* The square of a round: the longer axis gives it its number. */
static struct item item_of(const struct fj_cpu_args *a, const struct grid *g, int64_t round, int64_t number,
                           int worker) {
    struct item it = {.args = a, .own = (struct scratch *)a->scratch + worker};
    int64_t row, column;
    it.head_kv = number % a->heads_kv, number /= a->heads_kv;
    it.batch = number % a->batch, number /= a->batch;
    if (g->query_chunks >= g->key_chunks) {
        row = number, column = (number + round) % g->key_chunks;
        it.dkv_copy = row / g->key_chunks;
    } else {
        column = number, row = (number + round) % g->query_chunks;
        it.dquery_copy = column / g->query_chunks;
    }
    it.block = column * g->blocks / g->key_chunks;
    it.block_end = (column + 1) * g->blocks / g->key_chunks;
    it.unit = row * g->units / g->query_chunks;
    it.unit_end = (row + 1) * g->units / g->query_chunks;
    return it;
}

static inline fj_real *grid_delta(const struct fj_cpu_args *a, const struct grid *g, int64_t b, int64_t h) {
    return (fj_real *)(a->workspace + g->delta) + (b * a->heads_q + h) * a->q_len;
}

/* base and low of bwd.c's invariant 2, in reals past the delta of the same row. */
static inline int64_t grid_base(const struct fj_cpu_args *a) { return a->batch * a->heads_q * a->q_len; }
static inline int64_t grid_low(const struct fj_cpu_args *a) { return 2 * grid_base(a); }

/* A row of the sums, in one of the copies. */
static inline fj_real *grid_dquery(const struct fj_cpu_args *a, const struct grid *g, int64_t copy, int64_t b,
                                   int64_t h, int64_t q) {
    fj_real *sums = (fj_real *)(a->workspace + g->dquery + copy * g->dquery_copy);
    return sums + ((b * a->heads_q + h) * g->q_rows + q) * FJ_E_LINE;
}
/* ---- What calls that add up carry: captures, scalars, dK, dV ------------------------------------------- */

/* Lines of keys of a head, then those of all heads. */
static inline int64_t carry_lines(const struct fj_cpu_args *a) { return a->heads_kv * a->kv_len; }
static int64_t carry_grads(const struct fj_cpu_args *a) {
    int64_t count = FJ_SCALARS;
    for (int i = 0; FJ_HAS_ANY_GRADS && i < FJ_CAPTURES; i++) {
        int64_t elements = 1;
        for (int r = 0; r < FJ_CPU_MAX_RANK; r++) elements *= a->captures[i].shape[r];
        count += elements;
    }
    return FJ_ROUND(count * (int64_t)sizeof(fj_acc), 256);
}
static size_t carry_size(const struct fj_cpu_args *a) {
    const int64_t lines = a->shared_keys ? carry_lines(a) * (FJ_E_LINE + FJ_V_LINE) : 0;
    return (size_t)(carry_grads(a) + lines * (int64_t)sizeof(fj_real));
}

/* The sum so far with this call's. */
static inline fj_acc carry_grad(const struct fj_cpu_args *a, int64_t index, fj_acc sum) {
    fj_acc *to = (fj_acc *)a->carry + index;
    if (!a->carry) return sum;
    return *to = a->is_first ? sum : *to + sum;
}
static const fj_real *carry_line(const struct fj_cpu_args *a, fj_real *to, const fj_real *line, int width) {
    for (int i = 0; i < width; i += FJ_LANES)
        tile_store(to + i, a->is_first ? tile_load(line + i) : tile_load(to + i) + tile_load(line + i));
    return to;
}

static inline int64_t block_row(int64_t kv) { return kv / FJ_TILE_KV * FJ_BLOCK_ROWS + kv % FJ_TILE_KV; }
static inline fj_real *grid_dkey(const struct fj_cpu_args *a, const struct grid *g, int64_t copy, int64_t b,
                                 int64_t h, int64_t kv) {
    fj_real *sums = (fj_real *)(a->workspace + g->dkv + copy * g->dkv_copy);
    return sums + ((b * a->heads_kv + h) * g->kv_rows + block_row(kv)) * FJ_E_LINE;
}
static inline fj_real *grid_dvalue(const struct fj_cpu_args *a, const struct grid *g, int64_t copy, int64_t b,
                                   int64_t h, int64_t kv) {
    fj_real *sums = grid_dkey(a, g, copy, 0, 0, 0) + a->batch * a->heads_kv * g->kv_rows * FJ_E_LINE;
    return sums + ((b * a->heads_kv + h) * g->kv_rows + block_row(kv)) * FJ_V_LINE;
}

#endif
