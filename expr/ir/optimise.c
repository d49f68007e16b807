/* opt_*: folds constants, simplifies, merges equal values, drops dead ones.
 *
 * requires: a valid graph
 * keeps: the meaning, bit for bit; captures and scalars keep their numbers, loops theirs
 *
 * The graph is rebuilt from what the roots reach, in order; each node is simplified over its new
 * arguments (fold, then rules), and hash-consing merges equals. What a rule leaves unused is dropped by
 * the next round; rounds end when nothing is gained. */
#include "expr/ir/optimise.h"

#include "expr/ir/loops.h"
#include "expr/ir/schedule.h"

enum { MAX_ROUNDS = 4 };

static bool is_commutative(fj_op op, fj_type argument) {
    switch (op) {
    case FJ_OP_ADD:
    case FJ_OP_MUL:
    case FJ_OP_EQ:
    case FJ_OP_NE: return true;
    case FJ_OP_AND:
    case FJ_OP_OR:
    case FJ_OP_XOR:
        return argument != FJ_TYPE_BOOL; /* faults are reported in the order of their conditions */
    default: return false;
    }
}

fj_ref fj_opt_node(fj_ir *ir, fj_op op, fj_type type, int64_t imm, const fj_ref *args, int argc) {
    fj_ref ordered[FJ_IR_MAX_ARGS] = {0};
    for (int i = 0; i < argc; i++) ordered[i] = args[i];
    if (argc == 2 && is_commutative(op, fj_ir_type(ir, args[0]))) {
        const bool left = fj_opt_is_const(ir, args[0]), right = fj_opt_is_const(ir, args[1]);
        if (left != right ? left : args[0] > args[1]) {
            ordered[0] = args[1];
            ordered[1] = args[0];
        }
    }
    fj_ref better = fj_opt_fold(ir, op, type, ordered, argc);
    if (better == 0) better = fj_opt_rule(ir, op, type, ordered);
    if (better == 0 && op == FJ_OP_OUT_OF_RANGE && argc == 0) better = fj_ir_bool(ir, false);
    return better != 0 ? better : fj_ir_node(ir, op, type, imm, ordered, argc);
}

static bool *mark_live(const fj_ir *ir) {
    bool *live = FJ_NEW_ARRAY(ir->arena, bool, ir->nodes.len);
    const fj_ref *roots;
    const size_t count = fj_ir_roots(ir, &roots);
    for (size_t i = 0; i < count; i++) live[roots[i]] = true;
    for (fj_ref ref = (fj_ref)ir->nodes.len - 1; ref > 0; ref--) {
        if (!live[ref]) continue;
        for (int i = 0; i < fj_ir_at(ir, ref)->argc; i++) live[fj_ir_args(ir, ref)[i]] = true;
    }
    return live;
}

static bool adds_nothing(const fj_ir *ir, fj_ref effect) {
    const fj_node *value = fj_ir_at(ir, fj_ir_args(ir, effect)[0]);
    return value->op == FJ_OP_CONST_FLOAT && value->imm.f == 0.0;
}

/* A scatter is repeated by the free loops of its arguments. Where it has lost some, as in the index i - i, its value
 * becomes the sum over each of them. */
static void sum_lost_loops(fj_ir *to, const fj_free_loops *had, const fj_ref *map, fj_ref *args, int argc) {
    if (had->count == 0) return;
    const fj_free_loops *has = fj_ir_free_loops(to);
    fj_ref value = args[0];
    for (uint32_t k = 0; k < had->count; k++) {
        const fj_ref loop = map[had->loops[k]];
        bool lost = true;
        for (int i = 0; i < argc; i++) lost &= !fj_loops_has(&has[args[i]], loop);
        if (lost) value = fj_opt_node(to, FJ_OP_REDUCE_SUM, FJ_TYPE_FLOAT, 0, (fj_ref[]){loop, value}, 2);
    }
    args[0] = value;
}

static fj_ir *rebuild(const fj_ir *ir) {
    fj_ir *to = fj_ir_create_like(ir);
    const bool *live = mark_live(ir);
    const fj_free_loops *loops = ir->scatters.len > 0 ? fj_ir_free_loops(ir) : NULL;
    fj_ref *map = FJ_NEW_ARRAY(ir->arena, fj_ref, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (!live[ref]) continue;
        const fj_node *node = fj_ir_at(ir, ref);
        fj_ref args[FJ_IR_MAX_ARGS] = {0};
        for (int i = 0; i < node->argc; i++) args[i] = map[fj_ir_args(ir, ref)[i]];
        if (loops && node->op == FJ_OP_SCATTER) sum_lost_loops(to, &loops[ref], map, args, node->argc);
        map[ref] = fj_opt_node(to, (fj_op)node->op, (fj_type)node->type, node->imm.i, args, node->argc);
    }
    to->score = map[ir->score];
    to->mask = map[ir->mask];
    to->fault = map[ir->fault];
    to->dscore = map[ir->dscore];
    for (size_t i = 0; i < ir->scatters.len; i++) {
        const fj_ref effect = map[ir->scatters.data[i]];
        if (!adds_nothing(to, effect)) FJ_PUSH(to->arena, &to->scatters, effect);
    }
    if (to->fault != 0 && fj_ir_at(to, to->fault)->op == FJ_OP_CONST_BOOL &&
        fj_ir_at(to, to->fault)->imm.i == 0) {
        to->fault = 0; /* nothing can fail */
    }
    return to;
}

fj_ir *fj_ir_optimise(const fj_ir *ir) {
    fj_ir *best = rebuild(ir);
    for (int round = 1; round < MAX_ROUNDS; round++) {
        fj_ir *next = rebuild(best);
        const bool gained = next->nodes.len < best->nodes.len;
        best = next;
        if (!gained) break;
    }
    best->cost = fj_ir_cost_of(best);
    return best;
}
