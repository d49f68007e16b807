/* Free loops: a loop counter is free in every value that reaches it without passing the reduction
 * that binds it. */
#include "expr/ir/loops.h"

static bool insert(fj_free_loops *set, fj_ref loop) {
    uint32_t at = 0;
    while (at < set->count && set->loops[at] < loop) at++;
    if (at < set->count && set->loops[at] == loop) return true;
    if (set->count == FJ_IR_MAX_FREE) return false;
    for (uint32_t i = set->count; i > at; i--) set->loops[i] = set->loops[i - 1];
    set->loops[at] = loop;
    set->count++;
    return true;
}

bool fj_loops_of_node(const fj_ir *ir, fj_ref ref, const fj_free_loops *table, fj_free_loops *ret) {
    const fj_node *node = fj_ir_at(ir, ref);
    const fj_ref *args = fj_ir_args(ir, ref);
    const bool binds = fj_op_is_reduction(node->op);
    ret->count = 0;
    if (node->op == FJ_OP_LOOP) return insert(ret, ref);
    for (int i = binds ? 1 : 0; i < node->argc; i++) {
        const fj_free_loops *set = &table[args[i]];
        for (uint32_t j = 0; j < set->count; j++) {
            if (binds && set->loops[j] == args[0]) continue;
            if (!insert(ret, set->loops[j])) return false;
        }
    }
    return true;
}

const fj_free_loops *fj_ir_free_loops(const fj_ir *ir) {
    fj_free_loops *table = FJ_NEW_ARRAY(ir->arena, fj_free_loops, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (!fj_loops_of_node(ir, ref, table, &table[ref])) {
            fj_fail(ir->arena->scope, FJ_ERR_MOD, "more than %d reductions are nested", FJ_IR_MAX_FREE);
        }
    }
    return table;
}
