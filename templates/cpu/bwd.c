/* Backward attention on the cpu: fused, tiled; scores are computed again, nothing of size L x S is kept.
 *
 *            key block (FJ_TILE_KV)           first, for each row:     delta = rowsum(O dO) - dlse
 *           +---------------------+           rounds (bwd_grid.h), for each item:
 *   query   | S  = Q K^T          |             for each key block:
 *   tile    | P  = exp(mod(S)-lse)|               pack K and V
 *   (FJ_    | dP = dO V^T         |               for each query tile that is not empty there:
 *   TILE_Q) | dS = mod'(P(dP-     |                 pack Q and dO; S, dP; P and dS in place
 *           |            delta))  |                 dV += P^T dO   dK += dS^T Q   dQ += dS K
 *           +---------------------+           last phase: sums to dQ, dK, dV, captured gradients
 *
 * Five products of tile.h; between them one pass over the tile, row by row, with lanes along the keys.
 * The hooks of the mod stand before this file, staged by rate: fj_head_state once per head of a key
 * block, fj_col_state with it, fj_row_state once per row of a tile, fj_score, fj_mask and fj_score_grad on
 * lanes. Their sums of gradients of captures are those of the item's slot (bwd_capture_grads.h).
 *
 * Invariants
 *  1. P and dS are selected to 0 after the mod where a position is masked or past the last key; rows past
 *     the last query are in no product's depth. Packing zeroes what is past the last key of K and V. So
 *     padding, NaN or not, reaches no result.
 *     Elements of K, Q and dO that are not finite would still meet a P or dS of 0 in dQ, dK and dV. Where
 *     there is a mask they are 0 in those products and added apart, to what sees them only (tile.h).
 *  2. P = exp2(unit (S - base) + low): base is the score nearest to lse, in units of S; the difference of two
 *     large numbers comes first and is exact where they are near. low is the rest of lse and lse_low (0
 *     where it is not given) beside base. So P is as good at scores of 1e30 as at 1 (bwd_rows.h).
 *     A dead row (lse = -inf: it sees nothing, or scores of -inf only) is left out: its P and dS are 0, no
 *     hook is called, its Q and dO are 0 in the products, and so is its dQ. A row whose lse is NaN or +inf has P = NaN wherever it sees.
 *  3. Without a score mod S stays as multiplied and the scale is in `unit`, but in rows of large scores, where
 *     it is multiplied in before; with one, the mod sees scale * S. S has the bits that the forward kernel
 *     saw. dS is with respect to the scaled score: dQ and dK are multiplied by the scale once, on their way
 *     out.
 *  4. Accumulators are fj_real. With FJ_PAIRS the operands P and dS are rounded to BF16, as Q, K, V and dO
 *     are; delta, dP and the adjoints of captures are not.
 *  5. Where analysis finds a tile partial (or the block ends within a pair of vectors), the mask comes first, as bits. What
 *     no row sees is left out of everything, in grains of rows and of keys; only a tile with some bits clear takes the masked
 *     copy of the pass. Adding zeros is exact, so what is left out does not show in results.
 *  6. Faults are the forward kernel's to report.
 *  7. Gradients of captures are sums of dS over keys, in which the true delta cancels P dP to the last
 *     digit, and one made of O in 16 bits leaves an error a thousand times larger. So with gradients of captures and
 *     16-bit inputs delta is measured, rowsum(P dP), by a phase of its own: two products more.
 *  8. Dropout: P as it multiplies dO has exact zeros, and dV is multiplied by 1 / (1 - p) on its way out; dP has zeros there too,
 *     and the factor. dS is of the whole P. delta, rowsum(O dO), is that of the kept ones already.
 *  9. With a mod of the output O is what was before it, and dO what bwd_mods.h makes of the given one.
 *
 * What limits it, with figures: tests/kern/README.md. The products take nine tenths of the time in F32 and eight in
 * BF16 at E = Ev = 64; larger query tiles amortise the loads and stores of dV and dK, larger key blocks those of
 * dQ, both cost cache.
 */
#include "abi.h"

#include "prim.h"

#include "identity.h"

#include "bwd_grid.h"

#include "bwd_capture_grads.h"

#include "bwd_rows.h"

#include "bwd_tiles.h"

#if FJ_HAS_OUT || FJ_HAS_SINK_GRADS
#include "bwd_mods.h"
#endif

#include "blocks.h"

#if FJ_IN_PART(1)

/* ---- Rounds: blocks -------------------------------------------------------------------------------- */

/* 0 nothing of the tile is visible, 1 some, 2 all. */
static int class_of(const struct pass *p) {
#if FJ_MASKED
    const struct fj_cpu_args *a = p->it->args;
    const int32_t q = (int32_t)p->q + a->q_offset;
    return block_class(a, batch_of(p->it), (int32_t)p->head, q, q + p->rows - 1, (int32_t)p->key,
                       (int32_t)(p->key + p->keys - 1));
#else
    (void)p;
    return 2;
#endif
}

static void start_block(const struct pass *p) {
    const struct fj_cpu_args *a = p->it->args;
    struct scratch *own = p->it->own;
    const int64_t b = p->it->batch, h = p->it->head_kv;
    const char *key = row_at(&a->key, b, h, p->key), *value = row_at(&a->value, b, h, p->key);
    tile_pack_columns(own->keys, key, a->key.stride[2] * FJ_IN_SIZE, p->keys, FJ_HEAD_DIM);
    own->nonfinite_keys = pack_rows(own->key_rows, key, &a->key, p->keys, FJ_HEAD_DIM, own->key_list);
    tile_pack_columns(own->values, value, a->value.stride[2] * FJ_IN_SIZE, p->keys, FJ_VALUE_DIM);
}

static void start_head(const struct pass *p) {
    const struct fj_cpu_args *a = p->it->args;
    struct scratch *own = p->it->own;
    (void)a, (void)own;
#if !FJ_HEAD_EMPTY
    fj_head_init(a, batch_of(p->it), (int32_t)p->head, &own->head);
#endif
#if !FJ_COL_EMPTY
    for (int at = 0; at < FJ_ROUND(p->keys, 2 * FJ_LANES); at += FJ_LANES)
        fj_col_init(a, &own->head, fj_add_i(fj_splat_i((int32_t)p->key + at), fj_iota_i()),
                    &own->cols[at / FJ_LANES]);
#endif
}

/* Where dK and dV of the block are summed. */
static void open_sums(struct pass *p) {
    const struct item *it = p->it;
    struct scratch *own = it->own;
    if (p->grid->sums_in_scratch) {
        memset(own->dkey, 0, sizeof own->dkey);
        memset(own->dvalue, 0, sizeof own->dvalue);
        p->dkey = own->dkey;
        p->dvalue = own->dvalue;
        return;
    }
    p->dkey = grid_dkey(it->args, p->grid, it->dkv_copy, it->batch, it->head_kv, p->key);
    p->dvalue = grid_dvalue(it->args, p->grid, it->dkv_copy, it->batch, it->head_kv, p->key);
}

/* Of a tile that sees something of the block, as far as intervals tell. */
static void do_tile(struct pass *p, int class) {
    const int masked = class == 1 || p->to % (2 * FJ_LANES);
    load_tile(p);
#if FJ_DROPOUT
    keep_tile(p);
#endif
    multiply_in(p);
#if FJ_MEASURED_DELTA
    if (p->measures) {
        measure_rows(p, masked);
        return;
    }
#endif
    (masked ? grad_masked : grad_full)(p);
#if FJ_PAIRS
    make_pairs(p);
#endif
    multiply_out(p);
#if FJ_WATCH
    const struct scratch *own = p->it->own;
    if (__builtin_expect(own->nonfinite_keys | own->nonfinite_queries | own->nonfinite_douts, 0))
        add_nonfinite(p, class == 1);
#endif
}

/* The tiles of `count` units of one head. */
static void set_units(struct pass *p, int64_t unit, int64_t count) {
    const int64_t tile = unit % p->grid->tiles;
    p->head = p->it->head_kv * p->grid->group + unit / p->grid->tiles;
    p->q = tile * FJ_TILE_Q;
    p->rows = (int)least(count * FJ_TILE_Q, p->it->args->q_len - p->q);
    p->skipped = p->from = 0, p->to = p->keys;
}

static void start_rows(const struct pass *p) {
#if !FJ_ROW_EMPTY
    for (int row = 0; row < p->rows; row++)
        fj_row_init(p->it->args, &p->it->own->head, (int32_t)p->q + row + p->it->args->q_offset,
                    &p->it->own->rows[row]);
#else
    (void)p;
#endif
}

/* The units of the item that see something of a block. Far from what is seen several are left out at once. */
static void do_units(struct pass *p) {
    const struct item *it = p->it;
    int packed = 0;
    int64_t head = -1;
    for (int64_t unit = it->unit; unit < it->unit_end; unit++) {
        const int64_t left = least(it->unit_end - unit, p->grid->tiles - unit % p->grid->tiles);
        if (FJ_MASKED && (unit - it->unit) % FJ_UNITS_AT_ONCE == 0 && left >= FJ_UNITS_AT_ONCE) {
            set_units(p, unit, FJ_UNITS_AT_ONCE);
            if (class_of(p) == 0) {
                unit += FJ_UNITS_AT_ONCE - 1;
                continue;
            }
        }
        set_units(p, unit, 1);
        int class = class_of(p);
        if (class == 0) continue;
        if (head != p->head) start_head(p), head = p->head;
        start_rows(p);
        if (class == 1 || p->keys % (2 * FJ_LANES)) class = mask_tile(p);
        if (class == 0) continue;
        if (!packed) start_block(p), packed = 1;
        do_tile(p, class);
    }
}

static void set_block(struct pass *p, int64_t block) {
    p->key = block * FJ_TILE_KV;
    p->keys = (int)least(FJ_TILE_KV, p->it->args->kv_len - p->key);
}

static void do_block(struct pass *p, int64_t block) {
    const struct item *it = p->it;
    const struct fj_cpu_args *a = it->args;
    set_block(p, block);
    open_sums(p);
    do_units(p);
    if (p->grid->sums_in_scratch)
        for (int64_t i = 0; i < p->keys; i++)
            write_dkv(a, it->batch, it->head_kv, p->key + i, p->dkey + i * FJ_E_LINE,
                      p->dvalue + i * FJ_V_LINE);
}

#if FJ_MEASURED_DELTA
/* Chunks of a key head's units; what a row gets does not depend on them. */
static inline int64_t measure_chunks(const struct fj_cpu_args *a, const struct grid *g) {
    const int64_t wanted = divide_up(FJ_ITEMS, most(1, a->batch * a->heads_kv));
    return most(1, least(wanted, g->units / FJ_LEAST_UNITS));
}

static void run_measure(const struct fj_cpu_args *a, const struct grid *g, int64_t number, int worker) {
    const int64_t chunks = measure_chunks(a, g), chunk = number % chunks, head = number / chunks;
    const struct item it = {.args = a,
                            .own = (struct scratch *)a->scratch + worker,
                            .batch = head / a->heads_kv,
                            .head_kv = head % a->heads_kv,
                            .unit = chunk * g->units / chunks,
                            .unit_end = (chunk + 1) * g->units / chunks};
    struct pass p = {.it = &it, .grid = g, .measures = 1};
    for (int64_t block = 0; block < g->blocks; block++) {
        set_block(&p, block);
        do_units(&p);
    }
}
#endif

static void run_item(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t round,
                     int64_t number, int64_t slot, int worker) {
    const struct item it = item_of(a, g, round, number, worker);
    struct pass p = {.it = &it, .grid = g};
#if FJ_HAS_SCORE
    for (int i = 0; i < FJ_CAPTURES; i++)
        p.grads.capture[i] = s->captures[i].count ? grad_array(a, s, i, slot) : NULL;
    p.grads.scalar = grad_scalars(a, s, slot);
#else
    (void)s, (void)slot;
#endif
    for (int64_t block = it.block; block < it.block_end; block++) do_block(&p, block);
}

/* The rows of an item of a walk over them, and the number that it has among tasks of rows. */
static inline int64_t rows_task(const struct walk *w, int64_t number) {
    const int64_t h = number % w->heads, b = number / w->heads % w->batch;
    return (b * w->heads + h) * w->chunks + number / w->heads / w->batch;
}

static void run_walk_item(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int walk,
                          int64_t round, int64_t number, int64_t slot, int worker) {
    if (walk == WALK_SCORE) return run_item(a, g, s, round, number, slot, worker);
#if FJ_HAS_OUT || FJ_HAS_SINK_GRADS
    struct fj_capture_grads grads = grads_of_slot(a, s, slot);
    const int64_t task = rows_task(&s->walks[walk], number);
    const struct rows rows = rows_of(task, a->heads_q, a->q_len);
#if FJ_HAS_OUT
    if (walk == WALK_OUT) {
        const struct fj_cpu_args past = args_past_output(a, g);
        adjoin_output(a, g, rows, &grads);
        return run_delta(&past, g, task, worker);
    }
#endif
#if FJ_HAS_SINK_GRADS
    adjoin_sink(a, g, rows, &grads);
#endif
#endif
}

/* A task of a walk: one item, or those of a slot's classes in order. */
static void run_task(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int walk,
                     int64_t round, int64_t task, int worker) {
    const struct walk *w = &s->walks[walk];
    const int64_t tasks = walk_tasks(s, walk), end = (task + 1) * w->classes / tasks;
    if (!walk_adds(walk)) return run_walk_item(a, g, s, walk, round, task, 0, worker);
    for (int64_t class = task * w->classes / tasks; class < end; class ++) {
        if (w->classes == w->items) {
            run_walk_item(a, g, s, walk, round, class, task, worker);
            continue;
        }
        for (int64_t item = 0; item < w->items; item++)
            if (grad_class(w, item) == class) run_walk_item(a, g, s, walk, round, item, task, worker);
    }
}

/* ---- The kernel ------------------------------------------------------------------------------------ */

#define FJ_ZERO_TASK ((int64_t)1 << 18) /* bytes */

static size_t kernel_workspace(const struct fj_cpu_args *a) {
    const struct grid g = grid_of(a);
    return (size_t)grads_of(a, &g).end;
}

/* Phases in their order; the number of a phase is left within its kind. */
enum phase { PHASE_FIRST, PHASE_OUT, PHASE_MEASURE, PHASE_SINK, PHASE_ROUND, PHASE_LAST, PHASE_NONE };
static enum phase phase_of(const struct grid *g, int *number) {
    const int64_t counts[] = {1, FJ_HAS_OUT, FJ_MEASURED_DELTA, FJ_HAS_SINK_GRADS, g->rounds, 1};
    int kind = PHASE_FIRST;
    while (kind < PHASE_NONE && *number >= counts[kind]) *number -= (int)counts[kind++];
    return (enum phase)kind;
}

/* Tasks of rows of the first phase. */
static int64_t first_rows(const struct fj_cpu_args *a) {
    return FJ_HAS_OUT ? 0 : row_tasks(a->batch, a->heads_q, a->q_len);
}

static int64_t last_items(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s) {
    const int64_t keys = g->sums_in_scratch ? 0 : row_tasks(a->batch, a->heads_kv, a->kv_len);
    return row_tasks(a->batch, a->heads_q, a->q_len) + keys + grad_tasks(s) +
           (FJ_HAS_ANY_GRADS && FJ_SCALARS > 0);
}

static int64_t kernel_items(const struct fj_cpu_args *a, int phase) {
    const struct grid g = grid_of(a);
    const struct grads s = grads_of(a, &g);
    switch (phase_of(&g, &phase)) {
    case PHASE_FIRST: return first_rows(a) + divide_up(s.end - g.dquery, FJ_ZERO_TASK);
    case PHASE_OUT: return walk_tasks(&s, WALK_OUT);
#if FJ_MEASURED_DELTA
    case PHASE_MEASURE: return a->batch * a->heads_kv * measure_chunks(a, &g);
#endif
    case PHASE_SINK: return walk_tasks(&s, WALK_SINK);
    case PHASE_ROUND: return walk_tasks(&s, WALK_SCORE);
    case PHASE_LAST: return last_items(a, &g, &s);
    default: return -1;
    }
}

static void run_first(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t item,
                      int worker) {
    const int64_t queries = first_rows(a);
    if (item < queries) return run_delta(a, g, item, worker);
    const int64_t at = g->dquery + (item - queries) * FJ_ZERO_TASK;
    memset(a->workspace + at, 0, (size_t)least(FJ_ZERO_TASK, s->end - at));
}

static void run_last(const struct fj_cpu_args *a, const struct grid *g, const struct grads *s, int64_t item) {
    const int64_t queries = row_tasks(a->batch, a->heads_q, a->q_len);
    const int64_t keys = g->sums_in_scratch ? 0 : row_tasks(a->batch, a->heads_kv, a->kv_len);
    if (item < queries) return run_dquery(a, g, item);
    if ((item -= queries) < keys) return run_dkv(a, g, item);
    if ((item -= keys) < grad_tasks(s)) return grad_reduce_task(a, s, item);
    grad_reduce_scalars(a, s);
}

static void kernel_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {
    const struct grid g = grid_of(a);
    const struct grads s = grads_of(a, &g);
    const enum phase kind = phase_of(&g, &phase);
#if FJ_HAS_OUT
    const struct fj_cpu_args past = args_past_output(a, &g);
    if (kind > PHASE_OUT) a = &past;
#endif
    switch (kind) {
    case PHASE_FIRST: return run_first(a, &g, &s, item, worker);
    case PHASE_OUT: return run_task(a, &g, &s, WALK_OUT, 0, item, worker);
#if FJ_MEASURED_DELTA
    case PHASE_MEASURE: return run_measure(a, &g, item, worker);
#endif
    case PHASE_SINK: return run_task(a, &g, &s, WALK_SINK, 0, item, worker);
    case PHASE_ROUND: return run_task(a, &g, &s, WALK_SCORE, phase, item, worker);
    case PHASE_LAST: return run_last(a, &g, &s, item);
    default: return;
    }
}

static void kernel_blocks(const struct fj_cpu_args *a, int64_t counts[COUNTS]) {
    count_blocks(a, FJ_TILE_KV, counts);
}

FJ_CPU_EXPORT const struct fj_cpu_kernel fj_cpu_kernel = {
    .abi = FJ_CPU_ABI,
    .scratch = sizeof(struct scratch),
    .carry = carry_size,
    .workspace = kernel_workspace,
    .items = kernel_items,
    .run = kernel_run,
    .blocks = kernel_blocks,
};

#endif
