/* Emits the facts that kernels are told about hooks, as macros: what there is, which states are empty, where gradients of
 * captures may meet. */
#include "expr/ir/emit.h"

/* Which of b h q kv an index is, bare or widened. */
static int bare_axis(const fj_ir *ir, fj_ref index) {
    const fj_node *node = fj_ir_at(ir, index);
    if (node->op == FJ_OP_CAST_I64) node = fj_ir_at(ir, fj_ir_args(ir, index)[0]);
    switch ((fj_op)node->op) {
    case FJ_OP_B: return 1;
    case FJ_OP_H: return 2;
    case FJ_OP_Q: return 4;
    case FJ_OP_KV: return 8;
    default: return 0;
    }
}

/* The axes that are the same bare index, in the same dimension, of every scatter to the capture: then two
 * items that differ there cannot meet in one element. (bias[q, kv] and bias[kv, q] meet.) -1: no scatter. */
static int grad_axes(const fj_ir *ir, int64_t capture) {
    int at[FJ_MAX_RANK] = {0}, axes = 0;
    bool any = false;
    for (size_t i = 0; i < ir->scatters.len; i++) {
        const fj_node *node = fj_ir_at(ir, ir->scatters.data[i]);
        const fj_ref *args = fj_ir_args(ir, ir->scatters.data[i]);
        if (node->op != FJ_OP_SCATTER || node->imm.i != capture) continue;
        for (int d = 0; d + 1 < node->argc; d++) at[d] = (any ? at[d] : 15) & bare_axis(ir, args[d + 1]);
        any = true;
    }
    for (int d = 0; any && d < ir->captures.data[capture].rank; d++) axes |= at[d];
    return any ? axes : -1;
}

static void put_grad_axes(fj_emit *emit, const char *name) {
    fj_buf_printf(emit->out, "#define FJ_%s_GRAD_AXES {", name);
    for (size_t capture = 0; capture < emit->ir->captures.len; capture++) {
        fj_buf_printf(emit->out, "%d, ", grad_axes(emit->ir, (int64_t)capture));
    }
    fj_buf_put(emit->out, "-1}\n");
}

/* Whether a value depends on the score. */
static bool reads_score(const fj_emit *emit, fj_ref root) {
    bool *reached = FJ_NEW_ARRAY(emit->arena, bool, emit->ir->nodes.len);
    reached[root] = true;
    for (fj_ref ref = root; ref > 0; ref--) {
        const fj_node *node = fj_ir_at(emit->ir, ref);
        if (!reached[ref]) continue;
        if (node->op == FJ_OP_SCORE) return true;
        for (int i = 0; i < node->argc; i++) reached[fj_ir_args(emit->ir, ref)[i]] = true;
    }
    return false;
}

static void put_fact(fj_emit *emit, const char *name, int value) {
    fj_buf_printf(emit->out, "#define FJ_%s %d\n", name, value);
}

void fj_emit_facts(fj_emit *emit, fj_emit_empty empty, bool gradient) {
    const fj_ir *ir = emit->ir;
    const bool cuda = emit->target == FJ_EMIT_CUDA;
    put_fact(emit, "HAS_SCORE", ir->score != 0);
    put_fact(emit, "HAS_MASK", ir->mask != 0);
    put_fact(emit, "HAS_FAULT", ir->fault != 0);
    if (cuda) put_fact(emit, "FAULT_READS_SCORE", ir->fault != 0 && reads_score(emit, ir->fault));
    put_fact(emit, "HAS_CAPTURE_GRADS", gradient && ir->scatters.len > 0);
    put_fact(emit, "HEAD_EMPTY", empty.head);
    put_fact(emit, "ROW_EMPTY", empty.row);
    put_fact(emit, "COL_EMPTY", empty.col);
    put_fact(emit, "CAPTURES", (int)ir->captures.len);
    put_fact(emit, "SCALARS", (int)ir->scalars.len);
    put_grad_axes(emit, "CAPTURE");
    if (emit->target == FJ_EMIT_CPU && ir->mask != 0) put_fact(emit, "MASK_AXES", emit->leaves[ir->mask]);
    if (cuda)
        fj_buf_printf(emit->out, "// instructions per score, roughly: score %d, mask %d, gradient %d\n",
                      ir->cost.score, ir->cost.mask, ir->cost.gradient);
    fj_buf_put(emit->out, "\n");
}

void fj_emit_out_facts(fj_emit *emit, fj_emit_empty empty, bool gradient) {
    put_fact(emit, "HAS_OUT", 1);
    put_fact(emit, "HAS_OUT_FAULT", emit->ir->fault != 0);
    put_fact(emit, "HAS_OUT_GRADS", gradient && emit->ir->scatters.len > 0);
    put_fact(emit, "OUT_HEAD_EMPTY", empty.head);
    put_fact(emit, "OUT_ROW_EMPTY", empty.row);
    put_fact(emit, "OUT_COL_EMPTY", empty.col);
    put_grad_axes(emit, "OUT");
    fj_buf_put(emit->out, "\n");
}

void fj_emit_sink_facts(fj_emit *emit, fj_emit_empty empty, bool gradient) {
    put_fact(emit, "HAS_SINK", 1);
    put_fact(emit, "HAS_SINK_FAULT", emit->ir->fault != 0);
    put_fact(emit, "HAS_SINK_GRADS", gradient && emit->ir->scatters.len > 0);
    put_fact(emit, "SINK_HEAD_EMPTY", empty.head);
    put_grad_axes(emit, "SINK");
    fj_buf_put(emit->out, "\n");
}
