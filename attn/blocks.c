/* What interval analysis proves of blocks, counted without a kernel: for devices whose kernels cannot be asked.
 *
 *     +-------+-------+    A square of blocks is looked at as a whole first: what is proven empty or full is
 *     | full  |   |   |    counted at once, the rest is cut into four. So a mask that is decided away from a
 *     |       |---+---|    line, as most are, costs its length and not the area.
 *     +-------+-------+
 */
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

/* Blocks [q, q_end) by [kv, kv_end), not none. */
static void look(count *c, int64_t q, int64_t q_end, int64_t kv, int64_t kv_end) {
    const fj_block block = {
        .b = {c->b, c->b},
        .h = {c->h, c->h},
        .q = {q * c->rows + c->all->q_offset, least(q_end * c->rows, c->all->q_len) - 1 + c->all->q_offset},
        .kv = {kv * c->keys, least(kv_end * c->keys, c->all->kv_len) - 1},
    };
    fj_block_class class = fj_ir_classify(c->plan->mod->program.ir, &block, c->all->scalars, c->dims);
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
    const unsigned leaves = fj_ir_leaves(&ir)[ir.mask];
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
    if (plan->mod->program.ir->mask == 0) return (fj_block_counts){.full = blocks};
    fj_arena arena;
    fj_arena_init(&arena, &plan->device->context->allocator);
    fj_status status = plan->mod->program.tier == FJ_TIER_ELEMENTWISE
                         ? FJ_ERR_UNSUPPORTED
                         : fj_scope_run(&arena, NULL, look_at_all, &c);
    fj_arena_finish(&arena);
    if (status != FJ_OK) return (fj_block_counts){.partial = blocks};
    return (fj_block_counts){.full = c.found[FJ_BLOCK_FULL],
                             .partial = c.found[FJ_BLOCK_PARTIAL],
                             .empty = c.found[FJ_BLOCK_EMPTY]};
}
