/* What a mod costs: instructions of a CUDA thread for one score, by the COST column of ops.def.
 *
 * requires: a valid graph
 * keeps: the graph
 *
 * 1. Values of pair rate count, and what stands in the loops of a reduction of pair rate; all others are made once per
 *    row, column or head, and kept.
 * 2. What is in a loop counts as often as it turns, UNKNOWN_TURNS where that is not a constant.
 * 3. A value counts once, however often it is used.
 * 4. An int divided by what is not a constant takes a routine. */
#include "expr/ir/ir.h"
#include "expr/ir/loops.h"

enum { MOST = 1 << 20, UNKNOWN_TURNS = 8, INT_DIVISION = 40 };

static int64_t turns_of(const fj_ir *ir, const fj_free_loops *loops) {
    int64_t turns = 1;
    for (uint32_t i = 0; i < loops->count; i++) {
        const fj_node *extent = fj_ir_at(ir, fj_ir_args(ir, loops->loops[i])[0]);
        int64_t own = extent->op == FJ_OP_CONST_I64 ? extent->imm.i : UNKNOWN_TURNS;
        if (own > 1) turns = own < MOST / turns ? turns * own : MOST;
    }
    return turns;
}

static int cost_of_node(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    const fj_op op = (fj_op)node->op;
    const bool divides = op == FJ_OP_FLOORDIV || op == FJ_OP_FLOORMOD || op == FJ_OP_FMOD;
    if (divides && node->type != FJ_TYPE_FLOAT &&
        !fj_op_is_const((fj_op)fj_ir_at(ir, fj_ir_args(ir, ref)[1])->op))
        return INT_DIVISION;
    return fj_op_table[op].cost;
}

typedef struct count {
    const fj_ir *ir;
    const fj_rate *rates;
    const fj_free_loops *free_loops;
} count;

static int cost_of(const count *c, const fj_ref *roots, size_t root_count) {
    const fj_ir *ir = c->ir;
    bool *reached = FJ_NEW_ARRAY(ir->arena, bool, ir->nodes.len);
    int64_t sum = 0;
    for (size_t i = 0; i < root_count; i++) reached[roots[i]] = true;
    for (fj_ref ref = (fj_ref)ir->nodes.len - 1; ref > 0; ref--) { /* arguments come before their users */
        const fj_node *node = fj_ir_at(ir, ref);
        const fj_free_loops *loops = &c->free_loops[ref];
        if (!reached[ref] || (c->rates[ref] != FJ_RATE_PAIR && loops->count == 0)) continue;
        sum += cost_of_node(ir, ref) * turns_of(ir, loops);
        if (sum > MOST) return MOST;
        for (int i = 0; i < node->argc; i++) reached[fj_ir_args(ir, ref)[i]] = true;
    }
    return (int)sum;
}

fj_ir_cost fj_ir_cost_of(const fj_ir *ir) {
    const count c = {ir, fj_ir_rates(ir), fj_ir_free_loops(ir)};
    FJ_VEC(fj_ref) gradient = {0};
    if (ir->dscore) FJ_PUSH(ir->arena, &gradient, ir->dscore);
    for (size_t i = 0; i < ir->scatters.len; i++) FJ_PUSH(ir->arena, &gradient, ir->scatters.data[i]);
    return (fj_ir_cost){
        .score = cost_of(&c, &ir->score, 1),
        .mask = cost_of(&c, &ir->mask, 1),
        .gradient = cost_of(&c, gradient.data, gradient.len),
    };
}
