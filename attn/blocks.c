/* What interval analysis and a block mask prove of blocks, counted without a kernel: for devices whose kernels cannot be asked.
 *
 *     +-------+-------+    A square of blocks is looked at as a whole first: what is proven empty or full is
 *     | full  |   |   |    counted at once, the rest is cut into four. So a mask that is decided away from a
 *     |       |---+---|    line, as most are, costs its length and not the area.
 *     +-------+-------+
 */
#include "attn/mask/mask.h"
#include "attn/objects.h"

typedef struct count {
    const fj_plan *plan;
    const fj_resolved *all;
    const int64_t *dims; /* of the captures, FJ_MAX_RANK each */
    int64_t rows, keys;  /* of a block */
    int64_t found[3];    /* by fj_block_class */
    int64_t b, h;
} count;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* What a block mask says of a rectangle: FJ_BLOCK_PARTIAL and *ret_asked where all of it is partial, so that the mod knows.
 * Without a mod's mask partial blocks are as full ones. */
static fj_block_class by_mask(const count *c, const fj_block *block, bool *ret_asked) {
    const fj_block_mask *mask = c->all->block_mask;
    const bool asks = c->plan->mod->program.ir->mask != 0;
    const fj_mask_shape *shape = &mask->shape;
    const int64_t plane = fj_mask_plane(shape, block->b[0], block->h[0]) * mask->q_blocks;
    const int64_t first = (block->q[0] - c->all->q_offset) / shape->block_q,
                  last = (block->q[1] - c->all->q_offset) / shape->block_q;
    const int32_t from = (int32_t)(block->kv[0] / shape->block_kv),
                  to = (int32_t)(block->kv[1] / shape->block_kv);
    bool found[3] = {false};
    *ret_asked = false;
    for (int64_t row = first; row <= last; row++) {
        fj_row_cursor cursor = fj_row_begin(&mask->rows, plane + row);
        for (int32_t at = from, end = 0; at <= to; at = end) {
            const fj_block_class class = fj_row_stretch(&cursor, at, &end);
            found[class == FJ_BLOCK_PARTIAL && !asks ? FJ_BLOCK_FULL : class] = true;
            if (found[0] + found[1] + found[2] > 1) return FJ_BLOCK_PARTIAL;
        }
    }
    *ret_asked = found[FJ_BLOCK_PARTIAL];
    return found[FJ_BLOCK_FULL] ? FJ_BLOCK_FULL : found[FJ_BLOCK_PARTIAL] ? FJ_BLOCK_PARTIAL : FJ_BLOCK_EMPTY;
}

static fj_block_class classify(const count *c, const fj_block *block) {
    const fj_ir *ir = c->plan->mod->program.ir;
    bool asked = true;
    if (c->all->block_mask) {
        const fj_block_class class = by_mask(c, block, &asked);
        if (!asked) return class;
    }
    if (c->plan->mod->program.tier == FJ_TIER_ELEMENTWISE) return FJ_BLOCK_PARTIAL;
    return fj_ir_classify(ir, block, c->all->scalars, c->dims);
}

/* Blocks [q, q_end) by [kv, kv_end), not none. */
static void look(count *c, int64_t q, int64_t q_end, int64_t kv, int64_t kv_end) {
    const fj_block block = {
        .b = {c->b, c->b},
        .h = {c->h, c->h},
        .q = {q * c->rows + c->all->q_offset, least(q_end * c->rows, c->all->q_len) - 1 + c->all->q_offset},
        .kv = {kv * c->keys, least(kv_end * c->keys, c->all->kv_len) - 1},
    };
    fj_block_class class = classify(c, &block);
    int64_t q_half = (q + q_end + 1) / 2, kv_half = (kv + kv_end + 1) / 2;
    if (class != FJ_BLOCK_PARTIAL || (q_end - q == 1 && kv_end - kv == 1)) {
        c->found[class] += (q_end - q) * (kv_end - kv);
        return;
    }
    for (int i = 0; i < 4; i++) {
        int64_t from = i & 1 ? q_half : q, to = i & 1 ? q_end : q_half;
        int64_t key = i & 2 ? kv_half : kv, key_end = i & 2 ? kv_end : kv_half;
        if (from < to && key < key_end) look(c, from, to, key, key_end);
    }
}

static void look_at_all(fj_scope *scope, void *argument) {
    count *c = argument;
    const fj_resolved *all = c->all;
    fj_ir ir = *c->plan->mod->program.ir;
    ir.arena = scope->arena;
    const fj_block_mask *mask = all->block_mask;
    unsigned leaves = ir.mask != 0 ? fj_ir_leaves(&ir)[ir.mask] : 0;
    if (mask) leaves |= (mask->shape.planes_b > 1 ? 1u : 0) | (mask->shape.planes_h > 1 ? 2u : 0);
    int64_t *dims = FJ_NEW_ARRAY(scope->arena, int64_t, ir.captures.len * FJ_MAX_RANK + 1);
    for (size_t i = 0; i < ir.captures.len * FJ_MAX_RANK; i++)
        dims[i] = all->captures[i / FJ_MAX_RANK].shape[i % FJ_MAX_RANK];
    c->dims = dims;
    /* Batches and heads that are all alike are looked at once. */
    int64_t batches = leaves & 1 ? all->batch : 1, heads = leaves & 2 ? all->heads_q : 1;
    int64_t alike = all->batch / batches * (all->heads_q / heads);
    for (int64_t n = 0; n < batches * heads; n++) {
        c->b = n / heads + all->first_batch;
        c->h = n % heads;
        look(c, 0, (all->q_len + c->rows - 1) / c->rows, 0, (all->kv_len + c->keys - 1) / c->keys);
    }
    for (int i = 0; i < 3; i++) c->found[i] *= alike;
}

fj_block_counts fj_attn_count_blocks(const fj_plan *plan, const fj_resolved *all, int64_t rows,
                                     int64_t keys) {
    count c = {.plan = plan, .all = all, .rows = rows, .keys = keys};
    int64_t blocks =
        all->batch * all->heads_q * ((all->q_len + rows - 1) / rows) * ((all->kv_len + keys - 1) / keys);
    if (blocks == 0) return (fj_block_counts){0};
    if (plan->mod->program.ir->mask == 0 && !all->block_mask) return (fj_block_counts){.full = blocks};
    fj_arena arena;
    fj_arena_init(&arena, &plan->device->context->allocator);
    fj_status status = plan->mod->program.tier == FJ_TIER_ELEMENTWISE && !all->block_mask
                         ? FJ_ERR_UNSUPPORTED
                         : fj_scope_run(&arena, NULL, look_at_all, &c);
    fj_arena_finish(&arena);
    if (status != FJ_OK) return (fj_block_counts){.partial = blocks};
    return (fj_block_counts){.full = c.found[FJ_BLOCK_FULL],
                             .partial = c.found[FJ_BLOCK_PARTIAL],
                             .empty = c.found[FJ_BLOCK_EMPTY]};
}
