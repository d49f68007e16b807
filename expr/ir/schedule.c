/* Orders values into nested loops.
 *
 * requires: a valid graph
 * keeps: the graph
 *
 *     top            values without free loops
 *       loop L1      values with L1 free, and no loop that is not open here
 *         loop L2    values with L2 free, and only loops of {L1, L2}
 *
 * 1. A value is computed in the innermost open loop that is free in it, so that what does not depend
 *    on a counter stays outside.
 * 2. A reduction's loop holds what its body reaches through values in which the loop is free. A body
 *    that two reductions share is computed in both.
 *    A loop may be open already where a reduction binds it again: then everything that depends on it
 *    is computed anew inside, and the outer values are those of the outer counter again afterwards.
 * 3. Arguments come before their users: blocks are in the order of the references. */
#include "expr/ir/schedule.h"

#include <stdlib.h>

typedef FJ_VEC(fj_ref) ref_vec;

typedef struct builder {
    const fj_ir *ir;
    const fj_free_loops *free_loops;
    const bool *given;
    uint32_t *stamps; /* one per node: the last walk that met it */
    uint32_t stamp;
    fj_ref open[FJ_SCHED_MAX_DEPTH];
    int depth;
    size_t items;
    bool failed;
} builder;

static bool is_open(const builder *b, fj_ref loop) {
    for (int i = 0; i < b->depth; i++) {
        if (b->open[i] == loop) return true;
    }
    return false;
}

/* Whether the innermost open loop (top: none) is where this value is computed. */
static bool belongs_here(const builder *b, fj_ref ref) {
    const fj_free_loops *set = &b->free_loops[ref];
    if (b->depth == 0) return set->count == 0;
    for (uint32_t i = 0; i < set->count; i++) {
        if (!is_open(b, set->loops[i])) return false;
    }
    return true;
}

static bool is_reachable_here(const builder *b, fj_ref ref) {
    if (b->given != NULL && b->given[ref]) return false;
    return b->depth == 0 || fj_loops_has(&b->free_loops[ref], b->open[b->depth - 1]);
}

static void visit(builder *b, ref_vec *stack, fj_ref ref) {
    if (b->stamps[ref] == b->stamp || !is_reachable_here(b, ref)) return;
    b->stamps[ref] = b->stamp;
    FJ_PUSH(b->ir->arena, stack, ref);
}

static int compare_refs(const void *left, const void *right) {
    const fj_ref a = *(const fj_ref *)left, b = *(const fj_ref *)right;
    return (a > b) - (a < b);
}

/* The values of this level, in order. */
static ref_vec collect(builder *b, const fj_ref *roots, size_t root_count) {
    ref_vec stack = {0}, found = {0};
    b->stamp++;
    for (size_t i = 0; i < root_count; i++) visit(b, &stack, roots[i]);
    while (stack.len > 0) {
        const fj_ref ref = stack.data[--stack.len];
        const fj_node *node = fj_ir_at(b->ir, ref);
        const fj_ref *args = fj_ir_args(b->ir, ref);
        if (node->op != FJ_OP_LOOP && belongs_here(b, ref)) FJ_PUSH(b->ir->arena, &found, ref);
        for (int i = 0; i < node->argc; i++) visit(b, &stack, args[i]);
    }
    if (found.len > 1) qsort(found.data, found.len, sizeof(fj_ref), compare_refs);
    return found;
}

static void fill_block(builder *b, fj_sched_block *block, const fj_ref *roots, size_t root_count);

/* The body of a loop that computes the roots; NULL when loops are nested too deeply. */
static fj_sched_block *open_loop(builder *b, fj_ref loop, const fj_ref *roots, size_t root_count) {
    if (b->depth == FJ_SCHED_MAX_DEPTH) {
        b->failed = true;
        return NULL;
    }
    b->open[b->depth++] = loop;
    fj_sched_block *body = FJ_NEW(b->ir->arena, fj_sched_block);
    fill_block(b, body, roots, root_count);
    return body;
}

static void add_item(builder *b, fj_sched_block *block, fj_sched_item item) {
    if (++b->items > FJ_SCHED_MAX_ITEMS) b->failed = true;
    if (!b->failed) FJ_PUSH(b->ir->arena, &block->items, item);
}

static void fill_block(builder *b, fj_sched_block *block, const fj_ref *roots, size_t root_count) {
    const ref_vec found = collect(b, roots, root_count);
    for (size_t i = 0; i < found.len && !b->failed; i++) {
        fj_sched_item item = {.ref = found.data[i]};
        if (fj_op_is_reduction((fj_op)fj_ir_at(b->ir, item.ref)->op)) {
            const fj_ref *args = fj_ir_args(b->ir, item.ref);
            item.loop = args[0];
            item.shadows = is_open(b, item.loop);
            item.body = open_loop(b, item.loop, &args[1], 1);
            if (item.body != NULL) b->depth--;
        }
        add_item(b, block, item);
    }
}

/* Effects that repeat over the same free loops, in one nest. */
static void add_effects(builder *b, fj_sched_block *block, const fj_ref *roots, size_t count) {
    const fj_free_loops *set = &b->free_loops[roots[0]];
    for (uint32_t i = 0; i < set->count && !b->failed; i++) {
        fj_sched_item item = {.loop = set->loops[i]};
        item.body = open_loop(b, item.loop, roots, count);
        add_item(b, block, item);
        block = item.body;
    }
    b->depth = 0;
}

static bool same_loops(const fj_free_loops *a, const fj_free_loops *b) {
    if (a->count != b->count) return false;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->loops[i] != b->loops[i]) return false;
    }
    return true;
}

fj_sched_block *fj_schedule(const fj_ir *ir, const fj_free_loops *free_loops, const fj_sched_want *want) {
    builder b = {.ir = ir, .free_loops = free_loops, .given = want->given};
    b.stamps = FJ_NEW_ARRAY(ir->arena, uint32_t, ir->nodes.len);
    fj_sched_block *top = FJ_NEW(ir->arena, fj_sched_block);
    fill_block(&b, top, want->roots, want->root_count);
    for (size_t i = 0, next; i < want->root_count && !b.failed; i = next) {
        const fj_free_loops *set = &free_loops[want->roots[i]];
        for (next = i + 1; next < want->root_count && same_loops(set, &free_loops[want->roots[next]]);)
            next++;
        if (set->count > 0) add_effects(&b, top, &want->roots[i], next - i);
    }
    return b.failed ? NULL : top;
}

size_t fj_ir_roots(const fj_ir *ir, const fj_ref **ret_roots) {
    const fj_ref named[] = {ir->score, ir->mask, ir->fault, ir->dscore};
    FJ_VEC(fj_ref) roots = {0};
    for (size_t i = 0; i < FJ_ARRAY_LEN(named); i++) {
        if (named[i] != 0) FJ_PUSH(ir->arena, &roots, named[i]);
    }
    for (size_t i = 0; i < ir->scatters.len; i++) FJ_PUSH(ir->arena, &roots, ir->scatters.data[i]);
    *ret_roots = roots.data;
    return roots.len;
}
