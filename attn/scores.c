/* Scores that a mask leaves, counted without a kernel: for devices whose kernels cannot be asked.
 *
 * Areas come first: what is proven full, or is full in the call's block mask, counts at once; what is proven empty does not;
 * the rest is partial. The second walk evaluates the mask in partial areas, row by row: in all of their rows while these have
 * LOOKED elements at most, else in each n-th, whose share stands for the others. */
#include <string.h>

#include "attn/mask/mask.h"

enum { BLOCK = 64, LOOKED = 1 << 23 /* elements: about half a second */ };

typedef struct count {
    const fj_plan *plan;
    const fj_resolved *all;
    const fj_ir *ir;
    const int64_t *dims; /* of the captures, FJ_MAX_RANK each */
    fj_eval *eval;
    fj_eval_input input;
    int64_t b, h;          /* as a mod sees them */
    int64_t full, partial; /* elements */
    int64_t step, row;     /* of the second walk: each step-th row of partial areas is looked at */
    int64_t looked, found; /* elements */
} count;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Elements --------------------------------------------------------------------------------------- */

static void look_at_row(count *c, int64_t q, int64_t kv, int64_t kv_end) {
    bool mask[FJ_EVAL_LANES];
    for (; kv < kv_end; kv += FJ_EVAL_LANES) {
        const fj_eval_lanes lanes = {.b = (int32_t)c->b,
                                     .h = (int32_t)c->h,
                                     .q = (int32_t)q + c->all->q_offset,
                                     .kv0 = (int32_t)kv,
                                     .count = (int)least(FJ_EVAL_LANES, kv_end - kv)};
        fj_eval_run(c->eval, &c->input, &lanes, NULL, mask, NULL, NULL, NULL);
        for (int i = 0; i < lanes.count; i++) c->found += mask[i];
        c->looked += lanes.count;
    }
}

/* An area of one class, ends not included. */
static void take(count *c, fj_block_class class, int64_t q, int64_t q_end, int64_t kv, int64_t kv_end) {
    const int64_t area = (q_end - q) * (kv_end - kv);
    if (!c->step) {
        if (class == FJ_BLOCK_FULL) c->full += area;
        if (class == FJ_BLOCK_PARTIAL) c->partial += area;
    } else if (class == FJ_BLOCK_PARTIAL) {
        for (; q < q_end; q++)
            if (c->row++ % c->step == 0) look_at_row(c, q, kv, kv_end);
    }
}

/* ---- Areas ------------------------------------------------------------------------------------------ */

/* A square is classed as a whole first; what is neither full nor empty is cut into four, down to a block. */
static void divide(count *c, int64_t q, int64_t q_end, int64_t kv, int64_t kv_end) {
    const fj_block block = {.b = {c->b, c->b},
                            .h = {c->h, c->h},
                            .q = {q + c->all->q_offset, q_end - 1 + c->all->q_offset},
                            .kv = {kv, kv_end - 1}};
    if (q >= q_end || kv >= kv_end) return;
    const fj_block_class class = c->plan->mod->program.tier == FJ_TIER_ELEMENTWISE
                                   ? FJ_BLOCK_PARTIAL
                                   : fj_ir_classify(c->ir, &block, c->all->scalars, c->dims);
    if (class != FJ_BLOCK_PARTIAL || c->plan->mod->program.tier == FJ_TIER_ELEMENTWISE ||
        (q_end - q <= BLOCK && kv_end - kv <= BLOCK)) {
        take(c, class, q, q_end, kv, kv_end);
        return;
    }
    int64_t half = BLOCK;
    while (2 * half < q_end - q || 2 * half < kv_end - kv) half *= 2;
    const int64_t q_half = least(q + half, q_end), kv_half = least(kv + half, kv_end);
    divide(c, q, q_half, kv, kv_half);
    divide(c, q, q_half, kv_half, kv_end);
    divide(c, q_half, q_end, kv, kv_half);
    divide(c, q_half, q_end, kv_half, kv_end);
}

/* The call's block mask: what a partial block leaves is the mod's. */
static void take_blocks(count *c, const fj_block_mask *mask) {
    const fj_mask_shape *shape = &mask->shape;
    const int64_t plane = fj_mask_plane(shape, c->b, c->h);
    for (int32_t i = 0; i < mask->q_blocks; i++) {
        fj_row_cursor row = fj_row_begin(&mask->rows, plane * mask->q_blocks + i);
        for (int32_t at = 0, end; at < mask->kv_blocks; at = end) {
            fj_block_class class = fj_row_stretch(&row, at, &end);
            if (class == FJ_BLOCK_PARTIAL && !c->ir->mask) class = FJ_BLOCK_FULL;
            take(c, class, i * shape->block_q, least((i + 1) * shape->block_q, c->all->q_len),
                 at * shape->block_kv, least(end * shape->block_kv, c->all->kv_len));
        }
    }
}

static void walk(count *c, int64_t batches, int64_t heads) {
    for (int64_t plane = 0; plane < batches * heads; plane++) {
        c->b = plane / heads + c->all->first_batch;
        c->h = plane % heads;
        if (c->all->block_mask)
            take_blocks(c, c->all->block_mask);
        else
            divide(c, 0, c->all->q_len, 0, c->all->kv_len);
    }
}

/* ---- All -------------------------------------------------------------------------------------------- */

/* The captures that the mask reads alone: those of a GPU are copied. */
static void read_captures(fj_scope *scope, count *c) {
    const fj_ir *ir = c->ir;
    int64_t *dims = FJ_NEW_ARRAY(scope->arena, int64_t, ir->captures.len * FJ_MAX_RANK + 1);
    fj_eval_tensor *captures = FJ_NEW_ARRAY(scope->arena, fj_eval_tensor, ir->captures.len + 1);
    bool *used = FJ_NEW_ARRAY(scope->arena, bool, ir->nodes.len);
    used[ir->mask] = true;
    for (size_t i = 0; i < ir->captures.len; i++) {
        captures[i].dtype = c->all->captures[i].dtype;
        memcpy(captures[i].dims, c->all->captures[i].shape, sizeof captures[i].dims);
        memcpy(captures[i].strides, c->all->captures[i].strides, sizeof captures[i].strides);
        memcpy(&dims[i * FJ_MAX_RANK], c->all->captures[i].shape, sizeof captures[i].dims);
    }
    for (fj_ref ref = ir->mask; ref > 0; ref--) {
        const fj_node *node = fj_ir_at(ir, ref);
        if (!used[ref]) continue;
        for (int i = 0; i < node->argc; i++) used[fj_ir_args(ir, ref)[i]] = true;
        if (node->op == FJ_OP_LOAD && !captures[node->imm.i].data)
            captures[node->imm.i].data =
                fj_attn_readable(scope, c->plan, NULL, &c->all->captures[node->imm.i]);
    }
    c->dims = dims;
    c->input = (fj_eval_input){.captures = captures,
                               .scalars = c->all->scalars,
                               .round_f32 =
                                   !c->plan->device->traits->exact && c->plan->problem.dtype != FJ_DTYPE_F64};
}

/* No multiple of 2: the rows of a block are, and each n-th of these would always be the same ones. */
static int64_t step_of(int64_t partial) { return partial <= LOOKED ? 1 : (partial / LOOKED + 1) | 1; }

static int64_t distinct(bool is_read, int64_t planes, int64_t extent) {
    return is_read || planes > 1 ? extent : least(extent, 1);
}

static void count_all(fj_scope *scope, void *argument) {
    count *c = argument;
    const fj_resolved *all = c->all;
    const fj_block_mask *mask = all->block_mask;
    fj_ir ir = fj_ir_view(c->plan->mod->program.ir, scope->arena);
    c->ir = &ir;
    const unsigned leaves = fj_ir_leaves(&ir)[ir.mask];
    const int64_t batches = distinct(leaves & 1, mask ? mask->shape.planes_b : 1, all->batch);
    const int64_t heads = distinct(leaves & 2, mask ? mask->shape.planes_h : 1, all->heads_q);
    if (batches * heads == 0) return;
    const int64_t alike = all->batch / batches * (all->heads_q / heads);
    read_captures(scope, c);
    walk(c, batches, heads);
    if (c->partial > 0) {
        c->eval = fj_eval_create(scope->arena, &ir);
        c->step = step_of(c->partial);
        walk(c, batches, heads);
        c->full += c->looked == c->partial
                     ? c->found
                     : (int64_t)((double)c->found / (double)(c->looked ? c->looked : 1) * (double)c->partial);
    }
    c->full *= alike;
}

int64_t fj_attn_count_scores(const fj_plan *plan, const fj_resolved *all) {
    const int64_t whole = all->batch * all->heads_q * all->q_len * all->kv_len;
    if (whole == 0 || (!plan->mod->program.ir->mask && !all->block_mask)) return whole;
    count c = {.plan = plan, .all = all};
    fj_arena arena;
    fj_arena_init(&arena, &plan->device->context->allocator);
    const fj_status status = fj_scope_run(&arena, NULL, count_all, &c);
    fj_arena_finish(&arena);
    return status == FJ_OK ? c.full : whole;
}
