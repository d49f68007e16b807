/* How the forward kernel cuts a problem into items, and what an item keeps.
 *
 *             keys ->                     A *unit* is what one pass over the keys serves: the rows
 *           +------+------+------+--      of one chunk of queries of one head, or, when queries are
 *   unit 0  | item | item | item |        few, of several heads that share keys and values. Its
 *           +------+------+------+--      rows are virtual: row v is query v % q of head v / q.
 *   unit 1  |      |      |      |
 *           +------+------+------+--      An *item* is a unit times a range of key blocks: all of
 *             split 0    1     2          them, or a split where units alone would be too few.
 *
 * With a mask, where keys are split, a phase before finds out which blocks a unit sees, and its parts have
 * equal numbers of those.
 *
 * Invariants
 *  1. `splits`, and which blocks are a part's, depend on the problem only. All else may follow the number of workers: a
 *     row's result does not depend on the rows around it (tile.h, invariant 5; a block in which a row is
 *     wholly masked leaves it as it was).
 *  2. Where there are splits, a unit has at most FJ_TILE_Q rows, and the last phase merges them.
 *  3. Items of late queries come first: under a causal mask they are the heaviest.
 */
#ifndef FJ_FWD_GRID_H
#define FJ_FWD_GRID_H

#define FJ_WATCH (FJ_MASKED || FJ_DROPOUT) /* some positions do not see their value */
#ifndef FJ_DIRECT                          /* units of few rows read keys and values where they lie */
#define FJ_DIRECT 1
#endif
/* So that both parts take as long to compile: fwd_direct.h is in the second. */
#define FJ_TILE_PART 2
#define FJ_PACK_PART (FJ_DIRECT ? 1 : 2)
#define FJ_RESULT_PART (FJ_DIRECT ? 1 : 2)

#include "tile.h"

#include "dropout.h"

#ifndef FJ_TILE_Q
#define FJ_TILE_Q 48
#endif
#ifndef FJ_TILE_KV
#define FJ_TILE_KV (FJ_HEAD_DIM + FJ_VALUE_DIM <= 256 ? 256 : 128)
#endif
#ifndef FJ_CHUNK_TILES
#define FJ_CHUNK_TILES 8
#endif
_Static_assert(FJ_TILE_Q % 48 == 0 && FJ_TILE_Q <= 240, "FJ_TILE_Q: a multiple of 48 up to 240");
_Static_assert(FJ_TILE_KV % FJ_PANEL == 0 && FJ_TILE_KV <= 1024,
               "FJ_TILE_KV: a multiple of a panel up to 1024");
_Static_assert(FJ_TILE_KV % 64 == 0, "FJ_TILE_KV: a multiple of 64");
_Static_assert(FJ_CHUNK_TILES >= 1 && FJ_CHUNK_TILES <= 64, "FJ_CHUNK_TILES: 1 to 64");
_Static_assert(FJ_HEAD_DIM >= 1 && FJ_HEAD_DIM <= 256, "FJ_HEAD_DIM: 1 to 256");
_Static_assert(FJ_VALUE_DIM >= 1 && FJ_VALUE_DIM <= 256, "FJ_VALUE_DIM: 1 to 256");

#include "block_mask.h"

#define FJ_ROWS (FJ_TILE_Q * FJ_CHUNK_TILES)     /* rows of a unit, at most */
#define FJ_GRAIN (FJ_PANEL > 64 ? FJ_PANEL : 64) /* keys that a partial block is cut into */
#define FJ_HEADS 64                              /* heads of a unit, at most */
#define FJ_FEW 128                               /* fewer units than this: keys are split, 1024 at least */
#define FJ_Q_LINE FJ_ROUND(FJ_DEPTH(FJ_HEAD_DIM), FJ_LANES)
#define FJ_O_LINE FJ_ROUND(FJ_VALUE_DIM, FJ_LANES)
#define FJ_NARROW (FJ_LANES / 2) /* rows of a unit that turns keys in registers, at most */
#define FJ_WIDE 48               /* of one that broadcasts them */
#define FJ_CHUNK_KEYS 48         /* keys whose products with a unit that broadcasts them are kept */
#define FJ_PIECE 64              /* blocks that an item of the first phase classifies */

/* Zeros, of a page that is not there, and for an odd number of keys whose values are taken in pairs. */
#define FJ_HAS_NO_ROW (FJ_PAGED || FJ_DIRECT)

/* How a unit multiplies with its keys and values (fwd_direct.h). */
enum way { WAY_PACKED, WAY_NARROW, WAY_WIDE };

/* Rows of keys or values, at a stride in bytes. */
struct key_rows {
    const char *first;
    int64_t stride;
};

/* What a worker keeps. */
struct scratch {
    _Alignas(256) fj_opd keys[FJ_PACKED(FJ_DEPTH(FJ_HEAD_DIM), FJ_TILE_KV)];
    _Alignas(256) fj_opd values[FJ_PACKED(FJ_DEPTH(FJ_TILE_KV), FJ_VALUE_DIM)];
    _Alignas(256) fj_real scores[(FJ_TILE_Q + FJ_ROW_PAD) * FJ_TILE_KV]; /* then probabilities */
    _Alignas(256) fj_opd queries[(FJ_ROWS + FJ_ROW_PAD) * FJ_Q_LINE];
    _Alignas(256) fj_real sums[(FJ_ROWS + FJ_ROW_PAD) * FJ_O_LINE]; /* of p * v, not yet divided */
    /* Per row: the maximum of the stored scores, the sum of p, the factor for what was summed before. */
    _Alignas(64) fj_real top[FJ_ROWS], sum[FJ_ROWS], factor[FJ_TILE_Q + FJ_ROW_PAD];
    int32_t head[FJ_ROWS], q[FJ_ROWS];       /* of a row: index into heads, position as a mod sees it */
    int packed_keys, packed_values, cols_of; /* of the block at work: what is packed, whose cols */
    int nonfinite; /* keys of the block whose values are not all finite, and which */
    uint16_t nonfinite_keys[FJ_TILE_KV];
    uint16_t masks[FJ_TILE_Q][FJ_TILE_KV / FJ_LANES];
#if FJ_DROPOUT
    uint64_t keep[FJ_TILE_Q][FJ_TILE_KV / FJ_KEEP_KEYS]; /* of the tile at work */
#endif
    struct key_rows value_rows; /* of the block, once it is packed */
#if FJ_PAGED                    /* its rows, one after the other */
    _Alignas(64) char page_keys[FJ_TILE_KV * FJ_HEAD_DIM * FJ_IN_SIZE];
    _Alignas(64) char page_values[FJ_TILE_KV * FJ_VALUE_DIM * FJ_IN_SIZE];
#endif
    struct fj_head_state heads[FJ_HEADS];
    struct fj_row_state rows[FJ_ROW_EMPTY ? 1 : FJ_ROWS];
    _Alignas(64) struct fj_col_state cols[FJ_COL_EMPTY ? 1 : FJ_TILE_KV / FJ_LANES];
#if FJ_DIRECT /* of units that do not pack keys and values (fwd_direct.h) */
    _Alignas(256) fj_opd turned_queries[FJ_DEPTH(FJ_HEAD_DIM) * FJ_WIDE];
    _Alignas(64) fj_opd line_keys[FJ_CHUNK_KEYS * FJ_Q_LINE];
    _Alignas(64) fj_real turned_scores[FJ_CHUNK_KEYS * FJ_WIDE];
    _Alignas(64) fj_real saved[FJ_WATCH ? FJ_WIDE * FJ_O_LINE : 1]; /* the sums before the block */
#endif
#if FJ_HAS_NO_ROW
    char no_row[(FJ_HEAD_DIM > FJ_VALUE_DIM ? FJ_HEAD_DIM : FJ_VALUE_DIM) * FJ_IN_SIZE]; /* zeros */
#endif
};

struct grid {
    int64_t group;         /* query heads per key head */
    int64_t heads, parts;  /* query heads of a unit, units that share a key head */
    int64_t rows, chunks;  /* queries of a unit, units along the queries */
    int64_t blocks;        /* key blocks */
    int64_t splits, least; /* parts of the keys of a unit, at most; blocks of one, at least */
    int64_t units, pieces; /* pieces of a unit's blocks in the phase that classifies them; 0: there is none */
    enum way way;
};

struct item {
    const struct fj_cpu_args *args;
    struct scratch *own;
    int64_t unit, split;
    int64_t batch, head_kv, head, q; /* head, q: of the first row */
    int rows;
    int heads, per_head; /* rows = heads * per_head */
    enum way way;
    int worker;
};

/* As a mod sees it. */
static inline int32_t batch_of(const struct item *it) { return (int32_t)it->batch + it->args->first_batch; }
/* A row of queries too. */
static inline int32_t position_of(const struct item *it, int row) {
    return (int32_t)(it->q + row % it->per_head) + it->args->q_offset;
}

static inline const char *row_at(const struct fj_cpu_tensor *t, int64_t b, int64_t h, int64_t row) {
    return t->data + (b * t->stride[0] + h * t->stride[1] + row * t->stride[2]) * FJ_IN_SIZE;
}

/* Where a row of keys or values is; of a page that is not there, zeros. */
static inline const char *kv_row(const struct item *it, const struct fj_cpu_tensor *t, int64_t kv) {
#if FJ_PAGED
    const int32_t page = it->args->pages[kv / it->args->page_size];
    if (page < 0) return it->own->no_row;
    return row_at(t, page, it->head_kv, kv % it->args->page_size);
#else
    return row_at(t, it->batch, it->head_kv, kv);
#endif
}
static inline const char *key_row(const struct item *it, int64_t kv) {
    return kv_row(it, &it->args->key, kv);
}
static inline const char *value_row(const struct item *it, int64_t kv) {
    return kv_row(it, &it->args->value, kv);
}

/* Whether anything of the output is wanted, or the logarithms of sums alone. */
static inline int wants_output(const struct item *it) {
    return it->args->out.data != NULL || (FJ_HAS_OUT && it->args->out_raw.data != NULL);
}

static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Whether rows fill vectors so well that broadcasting each key costs less than packing keys. */
static inline int is_wide(int64_t rows) { return rows <= 48 && FJ_ROUND(rows, FJ_LANES) * 3 <= rows * 5; }

static struct grid grid_of(const struct fj_cpu_args *a) {
    struct grid g = {.splits = 1, .blocks = divide_up(a->kv_len, FJ_TILE_KV)};
    if (a->batch < 1 || a->heads_q < 1 || a->q_len < 1) return g;
    const int64_t want = 3 * (int64_t)(a->workers > 1 ? a->workers : 0), keys = a->batch * a->heads_kv;
    g.group = a->heads_q / a->heads_kv;

    g.heads = FJ_ROWS / a->q_len;
    g.heads = g.heads > FJ_HEADS ? FJ_HEADS : g.heads < 1 ? 1 : g.heads;
    if (g.heads > g.group) g.heads = g.group;
    const int few = a->q_len <= FJ_TILE_Q && keys * divide_up(g.group, g.heads) < FJ_FEW;
    const int narrow = g.group * a->q_len <= FJ_NARROW;
    if (few && g.heads * a->q_len > FJ_TILE_Q) g.heads = FJ_TILE_Q / a->q_len;
    while (!few && !narrow && g.heads > 1 && keys * divide_up(g.group, g.heads) < want)
        g.heads = divide_up(g.heads, 2);
    g.parts = divide_up(g.group, g.heads);
    g.heads = divide_up(g.group, g.parts);
    g.parts = divide_up(g.group, g.heads);

    const int64_t tiles = divide_up(a->q_len, FJ_TILE_Q);
    int64_t per = tiles < FJ_CHUNK_TILES ? tiles : FJ_CHUNK_TILES;
    while (per > 1 && keys * g.parts * divide_up(tiles, per) < want) per = divide_up(per, 2);
    g.chunks = divide_up(tiles, per);
    g.rows = divide_up(tiles, g.chunks) * FJ_TILE_Q;
    g.chunks = divide_up(a->q_len, g.rows);
    if (g.rows > a->q_len) g.rows = a->q_len;
    g.units = keys * g.parts * g.chunks;

    g.way = !FJ_DIRECT ? WAY_PACKED : narrow ? WAY_NARROW : is_wide(g.heads * g.rows) ? WAY_WIDE : WAY_PACKED;
    g.least = 1;
    if (few && g.units < FJ_FEW) {
        const int64_t even = divide_up(g.blocks, divide_up(FJ_FEW, g.units));
        g.least = divide_up(1024, FJ_TILE_KV);
        g.splits = divide_up(g.blocks, even > g.least ? even : g.least);
        if (g.splits < 1) g.splits = 1;
    }
    if (FJ_MASKED && g.splits > 1) g.pieces = divide_up(g.blocks, FJ_PIECE);
    return g;
}

/* Of a unit that sees `live` blocks: the parts that they are cut into, as even as can be, and the blocks [from, to) of one,
 * counted among those. Parts past the last are empty. */
static inline int64_t parts_of(const struct grid *g, int64_t live) {
    const int64_t even = divide_up(live, g->splits);
    return divide_up(live, even > g->least ? even : g->least);
}
static inline void part_of(const struct grid *g, int64_t live, int64_t split, int64_t *from, int64_t *to) {
    const int64_t parts = parts_of(g, live);
    *from = split < parts ? live * split / parts : live;
    *to = split < parts ? live * (split + 1) / parts : live;
}

/* One split of one unit: sums, top, sum. */
static inline int64_t partial_size(const struct grid *g) {
    return FJ_ROUND(g->heads * g->rows * (FJ_O_LINE + 2), 256 / (int64_t)sizeof(fj_real));
}

static inline int64_t partials_size(const struct grid *g) {
    return g->splits > 1 ? g->units * g->splits * partial_size(g) * (int64_t)sizeof(fj_real) : 0;
}

static size_t grid_workspace(const struct fj_cpu_args *a) {
    const struct grid g = grid_of(a);
    return (size_t)partials_size(&g) + (g.pieces ? (size_t)(g.units * g.blocks) : 0);
}

static inline fj_real *grid_partial(const struct fj_cpu_args *a, const struct grid *g, int64_t unit,
                                    int64_t split) {
    return (fj_real *)a->workspace + (unit * g->splits + split) * partial_size(g);
}

/* What a unit sees of its blocks, a byte each. */
static inline uint8_t *grid_marks(const struct fj_cpu_args *a, const struct grid *g, int64_t unit) {
    return (uint8_t *)grid_partial(a, g, g->units, 0) + unit * g->blocks;
}

static struct item item_of(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    struct item it = {.args = a, .worker = worker, .split = number % g->splits};
    it.own = (struct scratch *)a->scratch + worker;
    it.unit = number / g->splits;
    int64_t u = it.unit, part, chunk;
    part = u % g->parts, u /= g->parts;
    it.head_kv = u % a->heads_kv, u /= a->heads_kv;
    it.batch = u % a->batch;
    chunk = g->chunks - 1 - u / a->batch;
    int64_t heads = g->group - part * g->heads, rows = a->q_len - chunk * g->rows;
    it.head = it.head_kv * g->group + part * g->heads;
    it.q = chunk * g->rows;
    it.heads = (int)(heads < g->heads ? heads : g->heads);
    it.per_head = (int)(rows < g->rows ? rows : g->rows);
    it.rows = it.heads * it.per_head;
    it.way = g->way;
    return it;
}

#endif
