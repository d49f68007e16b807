/* Interval analysis of the mask: what a block of positions can be, at compile time and at run time.
 *
 * requires: a valid graph
 * keeps: the graph
 *
 * Each value gets the interval of all it can be over the block (expr/ir/interval_rules.h); what is
 * captured is unknown. A correlation between two occurrences of one value is lost, so that a class
 * may come out PARTIAL where it is FULL or EMPTY, never the other way round. */
#include "expr/ir/interval.h"

#include "expr/ir/interval_rules.h"
#include "expr/ir/interval_table.inc"

/* ---- Kinds ------------------------------------------------------------------------------------------ */

static const fj_iv_kind kinds[FJ_OP_COUNT] = {
#define KIND_IV FJ_IV_CALL
#define KIND_TOP FJ_IV_UNKNOWN
#define KIND_INC(f) FJ_IV_INCREASING
#define OP(NAME, name, arity, RULE, INT, FLOAT, CUDA, COST, D, INTERVAL, DOC) \
    [FJ_OP_##NAME] = KIND_##INTERVAL,
#include "expr/ir/ops.def"
};

fj_iv_kind fj_iv_kind_of(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    switch ((fj_op)node->op) {
    case FJ_OP_B:
    case FJ_OP_H:
    case FJ_OP_Q:
    case FJ_OP_KV: return FJ_IV_POSITION;
    case FJ_OP_SCALAR: return FJ_IV_SCALAR;
    case FJ_OP_DIM: return FJ_IV_DIM;
    case FJ_OP_LOOP: return FJ_IV_LOOP;
    case FJ_OP_REDUCE_ANY:
    case FJ_OP_REDUCE_ALL: return FJ_IV_REDUCE;
    case FJ_OP_REDUCE_MAX:
    case FJ_OP_REDUCE_MIN: return FJ_IV_BODY;
    default: return fj_op_is_const((fj_op)node->op) ? FJ_IV_CONSTANT : kinds[node->op];
    }
}

const bool *fj_iv_needed(const fj_ir *ir) {
    bool *needed = FJ_NEW_ARRAY(ir->arena, bool, ir->nodes.len);
    if (ir->mask != 0) needed[ir->mask] = true;
    for (fj_ref ref = ir->mask; ref > 0; ref--) {
        const fj_iv_kind kind = fj_iv_kind_of(ir, ref);
        if (!needed[ref] || kind == FJ_IV_UNKNOWN) continue;
        for (int i = 0; i < fj_ir_at(ir, ref)->argc; i++) needed[fj_ir_args(ir, ref)[i]] = true;
    }
    return needed;
}

/* ---- Analysis -------------------------------------------------------------------------------------------- */

struct fj_iv_analysis {
    const fj_ir *ir;
    const fj_block *block;
    const fj_scalar *scalars;
    const int64_t *dims;
    const bool *needed;
    fj_iv_value *values;
};
typedef fj_iv_analysis analysis;

static fj_iv_value unknown(fj_type type) {
    switch (type) {
    case FJ_TYPE_BOOL: return (fj_iv_value){.b = fj_iv_top_b()};
    case FJ_TYPE_I32: return (fj_iv_value){.i = fj_iv_top_i()};
    case FJ_TYPE_I64: return (fj_iv_value){.i = fj_iv_top_l()};
    default: return (fj_iv_value){.f = fj_iv_top_f()};
    }
}

static fj_iv_value constant(fj_type type, int64_t i, double f) {
    if (type == FJ_TYPE_BOOL) return (fj_iv_value){.b = fj_iv_const_b(i)};
    if (type == FJ_TYPE_FLOAT) return (fj_iv_value){.f = fj_iv_const_f(f)};
    return (fj_iv_value){.i = fj_iv_const_l(i)};
}

static fj_iv_value position(const fj_block *block, fj_op op) {
    const int64_t *ends = op == FJ_OP_B ? block->b
                        : op == FJ_OP_H ? block->h
                        : op == FJ_OP_Q ? block->q
                                        : block->kv;
    return (fj_iv_value){.i = fj_iv_range(ends[0], ends[1])};
}

static fj_iv_value scalar(const analysis *an, const fj_node *node) {
    const fj_runtime_scalar *s = &an->ir->scalars.data[node->imm.i];
    const fj_scalar *given = an->scalars != NULL ? &an->scalars[node->imm.i] : NULL;
    return constant((fj_type)node->type, given != NULL ? given->i : s->i, given != NULL ? given->f : s->f);
}

static fj_iv_value dimension(const analysis *an, const fj_node *node) {
    const int64_t capture = node->imm.i >> 8, axis = node->imm.i & 255;
    const int64_t known =
        an->dims != NULL ? an->dims[capture * FJ_MAX_RANK + axis] : an->ir->captures.data[capture].dims[axis];
    return (fj_iv_value){.i = known >= 0 ? fj_iv_const_l(known) : fj_iv_range(0, INT64_MAX)};
}

static fj_iv_value call(const analysis *an, fj_ref ref) {
    const fj_node *node = fj_ir_at(an->ir, ref);
    const fj_ref *args = fj_ir_args(an->ir, ref);
    const fj_iv_value *arguments[3] = {NULL, NULL, NULL};
    for (int i = 0; i < node->argc; i++) arguments[i] = &an->values[args[i]];
    return fj_iv_table[node->op][fj_ir_type(an->ir, args[node->op == FJ_OP_WHERE ? 1 : 0])](arguments);
}

static fj_iv_value reduction(const analysis *an, fj_ref ref) {
    const fj_node *node = fj_ir_at(an->ir, ref);
    const fj_ref *args = fj_ir_args(an->ir, ref);
    const fj_iv extent = an->values[fj_ir_args(an->ir, args[0])[0]].i;
    const fj_iv_value *body = &an->values[args[1]];
    if (node->op == FJ_OP_REDUCE_ANY) return (fj_iv_value){.b = fj_iv_reduce_any(extent, body->b)};
    if (node->op == FJ_OP_REDUCE_ALL) return (fj_iv_value){.b = fj_iv_reduce_all(extent, body->b)};
    return extent.lo >= 1 ? *body : unknown((fj_type)node->type);
}

static fj_iv_value analyse(const analysis *an, fj_ref ref) {
    const fj_node *node = fj_ir_at(an->ir, ref);
    const fj_ref *args = fj_ir_args(an->ir, ref);
    switch (fj_iv_kind_of(an->ir, ref)) {
    case FJ_IV_CALL: return call(an, ref);
    case FJ_IV_INCREASING:
        return (fj_iv_value){.f = fj_iv_increasing(an->values[args[0]].f, fj_iv_increasing_table[node->op])};
    case FJ_IV_CONSTANT: return constant((fj_type)node->type, node->imm.i, node->imm.f);
    case FJ_IV_POSITION: return position(an->block, (fj_op)node->op);
    case FJ_IV_SCALAR: return scalar(an, node);
    case FJ_IV_DIM: return dimension(an, node);
    case FJ_IV_LOOP: return (fj_iv_value){.i = fj_iv_counter(an->values[args[0]].i)};
    case FJ_IV_REDUCE:
    case FJ_IV_BODY: return reduction(an, ref);
    default: return unknown((fj_type)node->type);
    }
}

fj_iv_analysis *fj_iv_prepare(const fj_ir *ir, const fj_scalar *scalars, const int64_t *dims) {
    fj_iv_analysis *an = FJ_NEW(ir->arena, fj_iv_analysis);
    an->ir = ir;
    an->scalars = scalars;
    an->dims = dims;
    an->needed = fj_iv_needed(ir);
    an->values = FJ_NEW_ARRAY(ir->arena, fj_iv_value, ir->mask + 1);
    return an;
}

fj_block_class fj_iv_classify(fj_iv_analysis *an, const fj_block *block) {
    an->block = block;
    for (fj_ref ref = 1; ref <= an->ir->mask; ref++) {
        if (an->needed[ref]) an->values[ref] = analyse(an, ref);
    }
    return (fj_block_class)fj_iv_class(an->values[an->ir->mask].b);
}
_Static_assert(FJ_BLOCK_EMPTY == 0 && FJ_BLOCK_PARTIAL == 1 && FJ_BLOCK_FULL == 2, "fj_iv_class");

typedef struct classify_call {
    const fj_ir *ir;
    const fj_block *block;
    const fj_scalar *scalars;
    const int64_t *dims;
    fj_block_class class;
} classify_call;

static void classify_body(fj_scope *scope, void *argument) {
    classify_call *call = argument;
    const fj_ir view = fj_ir_view(call->ir, scope->arena);
    call->class = fj_iv_classify(fj_iv_prepare(&view, call->scalars, call->dims), call->block);
}

fj_block_class fj_ir_classify(const fj_ir *ir, const fj_block *block, const fj_scalar *scalars,
                              const int64_t *dims) {
    if (ir->mask == 0) return FJ_BLOCK_FULL;
    classify_call call = {ir, block, scalars, dims, FJ_BLOCK_PARTIAL};
    fj_arena arena;
    fj_arena_init(&arena, ir->arena->allocator);
    const fj_status status = fj_scope_run(&arena, NULL, classify_body, &call);
    fj_arena_finish(&arena);
    return status == FJ_OK ? call.class : FJ_BLOCK_PARTIAL;
}

/* ---- What the analysis can do for a mask --------------------------------------------------------------- */

/* A comparison decides blocks when both its sides are known and one of them depends on q or kv. */
static bool decides(const fj_ir *ir, fj_ref ref, const bool *opaque, const uint8_t *leaves) {
    const fj_node *node = fj_ir_at(ir, ref);
    return fj_op_table[node->op].rule == FJ_RULE_COMPARE && !opaque[ref] && (leaves[ref] & 12) != 0;
}

bool fj_ir_mask_has_ranges(const fj_ir *ir, bool tables) {
    const bool *needed = fj_iv_needed(ir);
    const uint8_t *leaves = fj_ir_leaves(ir);
    bool *opaque = FJ_NEW_ARRAY(ir->arena, bool, ir->mask + 1);
    for (fj_ref ref = 1; ref <= ir->mask; ref++) {
        const bool looked_up = tables && fj_ir_at(ir, ref)->op == FJ_OP_LOAD;
        opaque[ref] = fj_iv_kind_of(ir, ref) == FJ_IV_UNKNOWN && !looked_up;
        for (int i = 0; i < fj_ir_at(ir, ref)->argc; i++) opaque[ref] |= opaque[fj_ir_args(ir, ref)[i]];
        if (needed[ref] && decides(ir, ref, opaque, leaves)) return true;
    }
    return false;
}
