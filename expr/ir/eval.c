/* The evaluator: walks the schedule of a graph over lanes of positions that share (b, h, q).
 *
 * requires: a valid graph
 *
 * 1. A value lives in an array of lanes of its own; an operation is one call of a compiled loop
 *    (ops_lanes.c), so that the walk costs little per position.
 * 2. What does not vary along the lanes is computed on lane 0 and copied to all lanes if a value that
 *    varies reads it. Outside loops it is also kept from call to call, as long as (b, h, q) and the
 *    input stay and the calls move forward in kv.
 * 3. Floats are doubles; with round_f32 every result is rounded to float32. */
#include "expr/ir/eval.h"

#include <string.h>

enum { LEAF_KV = 8, LEAF_PAIR = 16, SCRATCH_BYTES = 32 << 20 };

size_t fj_eval_type_size(fj_type type) {
    static const size_t sizes[FJ_TYPE_COUNT] = {0, sizeof(bool), sizeof(int32_t), sizeof(int64_t),
                                                sizeof(double)};
    return sizes[type];
}

/* ---- Creation ------------------------------------------------------------------------------------ */

static void mark_block(fj_eval *eval, const fj_sched_block *block);

static void mark_item(fj_eval *eval, const fj_sched_item *item) {
    const fj_ir *ir = eval->ir;
    if (item->ref != 0) {
        const fj_node *node = fj_ir_at(ir, item->ref);
        const fj_ref *args = fj_ir_args(ir, item->ref);
        const bool varies = eval->values[item->ref].varies || node->type == FJ_TYPE_VOID;
        for (int i = 0; i < node->argc; i++) {
            if (varies && !eval->values[args[i]].varies) eval->values[args[i]].spread = true;
        }
    }
    if (item->body != NULL) mark_block(eval, item->body);
}

static void mark_block(fj_eval *eval, const fj_sched_block *block) {
    for (size_t i = 0; i < block->items.len; i++) mark_item(eval, &block->items.data[i]);
}

static size_t block_bytes(const fj_eval *eval, const fj_sched_block *block) {
    size_t bytes = 0;
    for (size_t i = 0; i < block->items.len; i++) {
        const fj_sched_item *item = &block->items.data[i];
        if (item->ref != 0) bytes += fj_eval_type_size(fj_ir_type(eval->ir, item->ref)) * (size_t)eval->width;
        if (item->body != NULL) bytes += block_bytes(eval, item->body);
    }
    return bytes;
}

static void find_shadows(fj_eval *eval, const fj_sched_block *block) {
    for (size_t i = 0; i < block->items.len; i++) {
        const fj_sched_item *item = &block->items.data[i];
        if (item->shadows) {
            const size_t bytes = block_bytes(eval, item->body) + sizeof(int64_t) * (size_t)eval->width;
            const fj_eval_saved saved = {item, fj_arena_alloc(eval->arena, bytes)};
            FJ_PUSH(eval->arena, &eval->saved, saved);
        }
        if (item->body != NULL) find_shadows(eval, item->body);
    }
}

/* Which outputs each item is computed for. */
static void find_outputs(fj_eval *eval) {
    const fj_ir *ir = eval->ir;
    uint8_t *serves = FJ_NEW_ARRAY(eval->arena, uint8_t, ir->nodes.len);
    serves[ir->score] |= FJ_EVAL_SCORE;
    serves[ir->mask] |= FJ_EVAL_MASK;
    serves[ir->dscore] |= FJ_EVAL_DSCORE;
    serves[ir->fault] |= FJ_EVAL_FAULT;
    for (size_t i = 0; i < ir->scatters.len; i++) serves[ir->scatters.data[i]] |= FJ_EVAL_EFFECTS;
    for (fj_ref ref = (fj_ref)ir->nodes.len - 1; ref > 0; ref--) {
        const int argc = fj_ir_at(ir, ref)->argc;
        for (int i = 0; i < argc; i++) serves[fj_ir_args(ir, ref)[i]] |= serves[ref];
    }
    eval->outputs = FJ_NEW_ARRAY(eval->arena, uint8_t, eval->item_count + 1);
    for (size_t i = 0; i < eval->item_count; i++) {
        const fj_ref ref = eval->items[i].ref;
        eval->outputs[i] = ref != 0 ? serves[ref] : FJ_EVAL_EFFECTS;
    }
}

/* Row items first: what varies only reads them. Both parts stay in order. */
static void split_items(fj_eval *eval) {
    const fj_sched_block *top = eval->top;
    eval->item_count = top->items.len;
    eval->items = FJ_NEW_ARRAY(eval->arena, fj_sched_item, top->items.len + 1);
    size_t at = 0;
    for (int part = 0; part < 2; part++) {
        for (size_t i = 0; i < top->items.len; i++) {
            const fj_sched_item item = top->items.data[i];
            const bool varies = item.ref == 0 || eval->values[item.ref].varies ||
                                fj_ir_type(eval->ir, item.ref) == FJ_TYPE_VOID;
            if (varies == (part == 1)) eval->items[at++] = item;
        }
        if (part == 0) eval->row_items = at;
    }
}

fj_eval *fj_eval_create(fj_arena *arena, const fj_ir *shared) {
    fj_eval *eval = FJ_NEW(arena, fj_eval);
    fj_ir *ir = FJ_NEW(arena, fj_ir);
    *ir = fj_ir_view(shared, arena);
    const uint8_t *leaves = fj_ir_leaves(ir);
    fj_sched_want want = {0};
    eval->ir = ir;
    eval->arena = arena;
    eval->width = ir->nodes.len * sizeof(double) * FJ_EVAL_LANES <= SCRATCH_BYTES ? FJ_EVAL_LANES : 16;
    eval->values = FJ_NEW_ARRAY(arena, fj_eval_value, ir->nodes.len);
    eval->offsets = FJ_NEW_ARRAY(arena, int64_t, eval->width);
    eval->flags = FJ_NEW_ARRAY(arena, bool, eval->width);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        const size_t size = fj_eval_type_size(fj_ir_type(ir, ref));
        eval->values[ref].lanes = size > 0 ? fj_arena_alloc(arena, size * (size_t)eval->width) : NULL;
        eval->values[ref].varies = (leaves[ref] & (LEAF_KV | LEAF_PAIR)) != 0;
    }
    want.root_count = fj_ir_roots(ir, &want.roots);
    eval->top = fj_schedule(ir, fj_ir_free_loops(ir), &want);
    if (eval->top == NULL) fj_fail(arena->scope, FJ_ERR_MOD, "too many reductions are nested");
    mark_block(eval, eval->top);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (fj_ir_at(ir, ref)->op == FJ_OP_LOOP) eval->values[ref].spread = true;
    }
    split_items(eval);
    find_outputs(eval);
    find_shadows(eval, eval->top);
    return eval;
}

/* ---- Values ---------------------------------------------------------------------------------------- */

/* Copies lane 0 to all lanes. */
static void spread(void *lanes, fj_type type, int width) {
    switch (type) {
    case FJ_TYPE_BOOL: memset(lanes, *(bool *)lanes, (size_t)width); break;
    case FJ_TYPE_I32:
        for (int i = 1; i < width; i++) ((int32_t *)lanes)[i] = *(int32_t *)lanes;
        break;
    case FJ_TYPE_I64:
        for (int i = 1; i < width; i++) ((int64_t *)lanes)[i] = *(int64_t *)lanes;
        break;
    case FJ_TYPE_FLOAT:
        for (int i = 1; i < width; i++) ((double *)lanes)[i] = *(double *)lanes;
        break;
    default: break;
    }
}

static void run_scalar(fj_eval *eval, const fj_node *node, void *lanes) {
    const fj_runtime_scalar *scalar = &eval->ir->scalars.data[node->imm.i];
    const fj_scalar *given = eval->input->scalars != NULL ? &eval->input->scalars[node->imm.i] : NULL;
    const int64_t i = given != NULL ? given->i : scalar->i;
    switch ((fj_type)node->type) {
    case FJ_TYPE_BOOL: *(bool *)lanes = i != 0; break;
    case FJ_TYPE_I32: *(int32_t *)lanes = (int32_t)(uint32_t)i; break;
    case FJ_TYPE_I64: *(int64_t *)lanes = i; break;
    default: *(double *)lanes = given != NULL ? given->f : scalar->f;
    }
}

static void run_leaf(fj_eval *eval, fj_ref ref) {
    const fj_node *node = fj_ir_at(eval->ir, ref);
    void *lanes = eval->values[ref].lanes;
    switch ((fj_op)node->op) {
    case FJ_OP_CONST_BOOL: *(bool *)lanes = node->imm.i != 0; break;
    case FJ_OP_CONST_I32: *(int32_t *)lanes = (int32_t)node->imm.i; break;
    case FJ_OP_CONST_I64: *(int64_t *)lanes = node->imm.i; break;
    case FJ_OP_CONST_FLOAT: *(double *)lanes = node->imm.f; break;
    case FJ_OP_B: *(int32_t *)lanes = eval->b; break;
    case FJ_OP_H: *(int32_t *)lanes = eval->h; break;
    case FJ_OP_Q: *(int32_t *)lanes = eval->q; break;
    case FJ_OP_SCALAR: run_scalar(eval, node, lanes); break;
    case FJ_OP_DIM:
        *(int64_t *)lanes = eval->input->captures[node->imm.i >> 8].dims[node->imm.i & 255];
        break;
    default: break; /* what varies is filled before the walk */
    }
}

static void round_lanes(double *lanes, int count) {
    for (int i = 0; i < count; i++) lanes[i] = (double)(float)lanes[i];
}

static void run_pointwise(fj_eval *eval, fj_ref ref, int count) {
    const fj_node *node = fj_ir_at(eval->ir, ref);
    const fj_ref *args = fj_ir_args(eval->ir, ref);
    const fj_type type = fj_ir_type(eval->ir, args[node->op == FJ_OP_WHERE ? 1 : 0]);
    const void *lanes[3] = {NULL, NULL, NULL};
    for (int i = 0; i < node->argc; i++) lanes[i] = eval->values[args[i]].lanes;
    fj_op_lanes_table[node->op][type](eval->values[ref].lanes, lanes[0], lanes[1], lanes[2], count);
}

/* ---- Loops ------------------------------------------------------------------------------------------ */

static void copy_block(fj_eval *eval, const fj_sched_block *block, char **bytes, bool restore) {
    for (size_t i = 0; i < block->items.len; i++) {
        const fj_sched_item *item = &block->items.data[i];
        const size_t size =
            item->ref != 0 ? fj_eval_type_size(fj_ir_type(eval->ir, item->ref)) * (size_t)eval->width : 0;
        if (size > 0) {
            void *lanes = eval->values[item->ref].lanes;
            if (restore)
                memcpy(lanes, *bytes, size);
            else
                memcpy(*bytes, lanes, size);
            *bytes += size;
        }
        if (item->body != NULL) copy_block(eval, item->body, bytes, restore);
    }
}

static void copy_shadowed(fj_eval *eval, const fj_sched_item *item, bool restore) {
    for (size_t i = 0; i < eval->saved.len; i++) {
        if (eval->saved.data[i].item != item) continue;
        char *bytes = eval->saved.data[i].bytes;
        const size_t size = sizeof(int64_t) * (size_t)eval->width;
        void *counter = eval->values[item->loop].lanes;
        if (restore)
            memcpy(counter, bytes, size);
        else
            memcpy(bytes, counter, size);
        bytes += size;
        copy_block(eval, item->body, &bytes, restore);
    }
}

static void start_reduction(const fj_eval *eval, fj_ref ref, fj_type type, void *lanes, int count) {
    const fj_reduction_info *info = &fj_reduction_table[fj_ir_at(eval->ir, ref)->op];
    switch (type) {
    case FJ_TYPE_BOOL: *(bool *)lanes = info->empty_i32 != 0; break;
    case FJ_TYPE_I32: *(int32_t *)lanes = (int32_t)info->empty_i32; break;
    case FJ_TYPE_I64: *(int64_t *)lanes = info->empty_i64; break;
    default: *(double *)lanes = info->empty;
    }
    spread(lanes, type, count);
}

/* argmax, argmin: takes the counter where the value is better than the best, or is the first NaN. */
static void step_arg(const fj_eval *eval, fj_ref ref, void *best, int64_t counter, int count) {
    const fj_ref body = fj_ir_args(eval->ir, ref)[1];
    const fj_type type = fj_ir_type(eval->ir, body);
    const void *value = eval->values[body].lanes;
    int64_t *result = eval->values[ref].lanes;
    bool better[FJ_EVAL_LANES];
    const fj_op step = fj_reduction_table[fj_ir_at(eval->ir, ref)->op].step;
    fj_op_lanes_table[step][type](better, value, best, NULL, count);
    if (type == FJ_TYPE_FLOAT) {
        const double *v = value, *b = best;
        for (int i = 0; i < count; i++) better[i] |= v[i] != v[i] && b[i] == b[i];
    }
    for (int i = 0; i < count; i++) {
        if (better[i]) result[i] = counter;
    }
    fj_op_lanes_table[FJ_OP_WHERE][type](best, better, value, best, count);
}

static void set_counter(fj_eval *eval, fj_ref loop, int64_t counter) {
    int64_t *lanes = eval->values[loop].lanes;
    for (int i = 0; i < eval->spread_count; i++) lanes[i] = counter;
}

static void run_loop(fj_eval *eval, const fj_sched_item *item, int count) {
    const fj_ref ref = item->ref;
    const fj_ref body = ref != 0 ? fj_ir_args(eval->ir, ref)[1] : 0;
    const int64_t extent = *(const int64_t *)eval->values[fj_ir_args(eval->ir, item->loop)[0]].lanes;
    const bool is_arg = ref != 0 && fj_op_table[fj_ir_at(eval->ir, ref)->op].rule == FJ_RULE_REDUCE_ARG;
    const fj_type type = body != 0 ? fj_ir_type(eval->ir, body) : FJ_TYPE_VOID;
    int64_t best[FJ_EVAL_LANES]; /* room for any type */
    if (item->shadows) copy_shadowed(eval, item, false);
    if (ref != 0) start_reduction(eval, ref, type, is_arg ? (void *)best : eval->values[ref].lanes, count);
    if (is_arg) memset(eval->values[ref].lanes, 0, sizeof(int64_t) * (size_t)eval->width);
    for (int64_t counter = 0; counter < extent; counter++) {
        set_counter(eval, item->loop, counter);
        for (size_t i = 0; i < item->body->items.len; i++) {
            fj_eval_item_run(eval, &item->body->items.data[i], count);
        }
        if (is_arg) {
            step_arg(eval, ref, best, counter, count);
        } else if (ref != 0) {
            void *lanes = eval->values[ref].lanes;
            const fj_op step = fj_reduction_table[fj_ir_at(eval->ir, ref)->op].step;
            fj_op_lanes_table[step][type](lanes, lanes, eval->values[body].lanes, NULL, count);
            if (type == FJ_TYPE_FLOAT && eval->input->round_f32) round_lanes(lanes, count);
        }
    }
    if (item->shadows) copy_shadowed(eval, item, true);
}

/* ---- The walk ---------------------------------------------------------------------------------------- */

void fj_eval_item_run(fj_eval *eval, const fj_sched_item *item, int lanes) {
    if (item->ref == 0) {
        run_loop(eval, item, lanes);
        return;
    }
    const fj_node *node = fj_ir_at(eval->ir, item->ref);
    const fj_eval_value *value = &eval->values[item->ref];
    const int count = value->varies || node->type == FJ_TYPE_VOID ? lanes : 1;
    switch (fj_op_table[node->op].rule) {
    case FJ_RULE_LOAD: fj_eval_load(eval, item->ref, count); break;
    case FJ_RULE_RANGE: fj_eval_out_of_range(eval, item->ref, count); break;
    case FJ_RULE_EFFECT: fj_eval_scatter(eval, item->ref, count); return;
    case FJ_RULE_REDUCE_NUM:
    case FJ_RULE_REDUCE_BOOL:
    case FJ_RULE_REDUCE_ARG: run_loop(eval, item, count); break;
    default:
        if (fj_op_is_pointwise((fj_op)node->op))
            run_pointwise(eval, item->ref, count);
        else
            run_leaf(eval, item->ref);
    }
    if (node->type == FJ_TYPE_FLOAT && eval->input->round_f32) round_lanes(value->lanes, count);
    if (value->spread) spread(value->lanes, (fj_type)node->type, eval->spread_count);
}

/* Fills the leaves that vary. */
static void fill_leaves(fj_eval *eval, const fj_eval_lanes *lanes, int first, int count) {
    for (size_t k = eval->row_items; k < eval->item_count; k++) {
        const fj_ref ref = eval->items[k].ref;
        const fj_op op = (fj_op)fj_ir_at(eval->ir, ref)->op;
        void *to = eval->values[ref].lanes;
        if (op == FJ_OP_KV) {
            for (int i = 0; i < count; i++) ((int32_t *)to)[i] = lanes->kv0 + first + i;
        } else if (op == FJ_OP_SCORE || op == FJ_OP_ADJOINT) {
            const double *from = op == FJ_OP_SCORE ? lanes->score : lanes->adjoint;
            if (from != NULL)
                memcpy(to, from + first, sizeof(double) * (size_t)count);
            else
                memset(to, 0, sizeof(double) * (size_t)count);
        } else if (op == FJ_OP_LIVE) {
            if (lanes->live != NULL)
                memcpy(to, lanes->live + first, sizeof(bool) * (size_t)count);
            else
                memset(to, 1, sizeof(bool) * (size_t)count);
        }
    }
}

static void run_items(fj_eval *eval, size_t from, size_t to, unsigned outputs, int count) {
    for (size_t i = from; i < to; i++) {
        if (eval->outputs[i] & outputs) fj_eval_item_run(eval, &eval->items[i], count);
    }
}

static void run_row(fj_eval *eval, const fj_eval_input *input, const fj_eval_lanes *lanes, unsigned outputs) {
    const bool same = eval->cached && eval->cached_input == input && eval->b == lanes->b &&
                      eval->h == lanes->h && eval->q == lanes->q && lanes->kv0 >= eval->kv_end &&
                      (outputs & ~eval->cached_outputs) == 0;
    eval->input = input;
    eval->kv_end = lanes->kv0 + lanes->count;
    if (same) return;
    eval->cached = true;
    eval->cached_input = input;
    eval->cached_outputs = outputs;
    eval->b = lanes->b;
    eval->h = lanes->h;
    eval->q = lanes->q;
    eval->spread_count = eval->width;
    run_items(eval, 0, eval->row_items, outputs, 1);
}

static void take_float(const fj_eval *eval, fj_ref root, double *to, int count) {
    const double *lanes = eval->values[root].lanes;
    for (int i = 0; i < count; i++) to[i] = lanes[eval->values[root].varies ? i : 0];
}

static void take_bool(const fj_eval *eval, fj_ref root, bool *to, int count) {
    const bool *lanes = eval->values[root].lanes;
    for (int i = 0; i < count; i++) to[i] = lanes[eval->values[root].varies ? i : 0];
}

void fj_eval_run(fj_eval *eval, const fj_eval_input *input, const fj_eval_lanes *lanes, double *score,
                 bool *mask, double *dscore, bool *fault, const fj_eval_grads *grads) {
    const fj_ir *ir = eval->ir;
    const unsigned outputs = (score != NULL ? FJ_EVAL_SCORE : 0) | (mask != NULL ? FJ_EVAL_MASK : 0) |
                             (dscore != NULL ? FJ_EVAL_DSCORE : 0) | (fault != NULL ? FJ_EVAL_FAULT : 0) |
                             (grads != NULL ? FJ_EVAL_EFFECTS : 0);
    run_row(eval, input, lanes, outputs);
    eval->grads = grads;
    for (int first = 0; first < lanes->count; first += eval->width) {
        const int count = lanes->count - first < eval->width ? lanes->count - first : eval->width;
        fill_leaves(eval, lanes, first, count);
        eval->spread_count = count;
        run_items(eval, eval->row_items, eval->item_count, outputs, count);
        if (score != NULL && ir->score != 0) take_float(eval, ir->score, score + first, count);
        if (score != NULL && ir->score == 0 && lanes->score != NULL) {
            memcpy(score + first, lanes->score + first, sizeof(double) * (size_t)count);
        }
        if (mask != NULL && ir->mask != 0) take_bool(eval, ir->mask, mask + first, count);
        if (mask != NULL && ir->mask == 0) memset(mask + first, 1, (size_t)count);
        if (dscore != NULL && ir->dscore != 0) take_float(eval, ir->dscore, dscore + first, count);
        if (fault != NULL && ir->fault != 0) take_bool(eval, ir->fault, fault + first, count);
        if (fault != NULL && ir->fault == 0) memset(fault + first, 0, (size_t)count);
    }
}
