/* Rates: which loop of a kernel a value belongs to.
 *
 * requires: a valid graph
 * keeps: the graph; gives one entry per node
 *
 * A value needs what its arguments need. A loop counter needs what its extent needs: a reduction is
 * placed at the rate of its whole body, and what it holds that does not depend on the counter has a
 * rate of its own. */
#include "expr/ir/ir.h"

enum { LEAF_B = 1, LEAF_H = 2, LEAF_Q = 4, LEAF_KV = 8, LEAF_PAIR = 16 };

static uint8_t leaf_of(fj_op op) {
    switch (op) {
    case FJ_OP_B: return LEAF_B;
    case FJ_OP_H: return LEAF_H;
    case FJ_OP_Q: return LEAF_Q;
    case FJ_OP_KV: return LEAF_KV;
    case FJ_OP_SCORE:
    case FJ_OP_ADJOINT:
    case FJ_OP_LIVE: return LEAF_PAIR;
    default: return 0;
    }
}

const uint8_t *fj_ir_leaves(const fj_ir *ir) {
    uint8_t *leaves = FJ_NEW_ARRAY(ir->arena, uint8_t, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        const fj_node *node = fj_ir_at(ir, ref);
        const fj_ref *args = fj_ir_args(ir, ref);
        leaves[ref] = leaf_of((fj_op)node->op);
        for (int i = 0; i < node->argc; i++) leaves[ref] |= leaves[args[i]];
    }
    return leaves;
}

static fj_rate rate_of(uint8_t leaves) {
    if (leaves & LEAF_PAIR) return FJ_RATE_PAIR;
    if (leaves & LEAF_Q) return leaves & LEAF_KV ? FJ_RATE_PAIR : FJ_RATE_ROW;
    if (leaves & LEAF_KV) return FJ_RATE_COL;
    return leaves != 0 ? FJ_RATE_HEAD : FJ_RATE_UNIFORM;
}

const fj_rate *fj_ir_rates(const fj_ir *ir) {
    const uint8_t *leaves = fj_ir_leaves(ir);
    fj_rate *rates = FJ_NEW_ARRAY(ir->arena, fj_rate, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) rates[ref] = rate_of(leaves[ref]);
    return rates;
}

void fj_ir_print_rates(const fj_ir *ir, fj_buf *out) {
    static const char *const names[FJ_RATE_COUNT] = {"uniform", "head", "row", "column", "pair"};
    const fj_rate *rates = fj_ir_rates(ir);
    for (int rate = 0; rate < FJ_RATE_COUNT; rate++) {
        fj_buf_printf(out, "%s:", names[rate]);
        for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
            if (rates[ref] == (fj_rate)rate && fj_ir_at(ir, ref)->op != FJ_OP_LOOP) {
                fj_buf_printf(out, " %%%u:%s", ref, fj_op_table[fj_ir_at(ir, ref)->op].name);
            }
        }
        fj_buf_put(out, "\n");
    }
}
