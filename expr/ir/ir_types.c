/* The types of nodes: what each operation takes and gives. */
#include "expr/ir/ir.h"

static fj_type arg_type(const fj_ir *ir, const fj_ir_candidate *c, int i) {
    return fj_ir_type(ir, c->args[i]);
}

static bool is_int(fj_type type) { return type == FJ_TYPE_I32 || type == FJ_TYPE_I64; }
static bool is_num(fj_type type) { return is_int(type) || type == FJ_TYPE_FLOAT; }

static const char *check_constant(const fj_ir_candidate *c, fj_type type) {
    if (c->type != type) return "a constant has the wrong type";
    if (c->op == FJ_OP_CONST_BOOL && c->imm != 0 && c->imm != 1) return "a bool constant is neither 0 nor 1";
    if (c->op == FJ_OP_CONST_I32 && (c->imm < INT32_MIN || c->imm > INT32_MAX))
        return "an int32 constant is too large";
    return NULL;
}

static const char *check_leaf(const fj_ir *ir, const fj_ir_candidate *c, fj_type type) {
    if (c->op == FJ_OP_DIM) {
        const uint64_t capture = (uint64_t)c->imm >> 8;
        if (c->imm < 0 || capture >= ir->captures.len) return "there is no such captured tensor";
        if ((c->imm & 255) >= ir->captures.data[capture].rank)
            return "the captured tensor has no such dimension";
    } else if (fj_op_is_const(c->op)) {
        return check_constant(c, type);
    } else if (c->imm != 0) {
        return "a leaf carries a number";
    }
    return c->type == type ? NULL : "a leaf has the wrong type";
}

static const char *check_indices(const fj_ir *ir, const fj_ir_candidate *c, int first) {
    if (c->imm < 0 || (uint64_t)c->imm >= ir->captures.len) return "there is no such captured tensor";
    const fj_capture *capture = &ir->captures.data[c->imm];
    if (c->argc - first != capture->rank)
        return "the number of indices is not the rank of the captured tensor";
    for (int i = first; i < c->argc; i++) {
        if (!is_int(arg_type(ir, c, i))) return "an index is not an integer";
    }
    return NULL;
}

static const char *check_access(const fj_ir *ir, const fj_ir_candidate *c) {
    const char *wrong = check_indices(ir, c, 0);
    if (wrong != NULL) return wrong;
    const fj_type type =
        c->op == FJ_OP_LOAD ? fj_ir_value_type(ir->captures.data[c->imm].dtype) : FJ_TYPE_BOOL;
    return c->type == type ? NULL : "a read has the wrong type";
}

static const char *check_effect(const fj_ir *ir, const fj_ir_candidate *c) {
    if (c->type != FJ_TYPE_VOID) return "an effect has a type";
    if (c->argc < 1 || arg_type(ir, c, 0) != FJ_TYPE_FLOAT) return "an effect adds no float";
    if (c->op == FJ_OP_SCATTER) {
        const char *wrong = check_indices(ir, c, 1);
        if (wrong != NULL) return wrong;
        return ir->captures.data[c->imm].dtype >= FJ_DTYPE_F8_E4M3 ? NULL
                                                                   : "the captured tensor is not floating";
    }
    if (c->imm < 0 || (uint64_t)c->imm >= ir->scalars.len) return "there is no such run-time scalar";
    return ir->scalars.data[c->imm].type == FJ_TYPE_FLOAT ? NULL : "the run-time scalar is not a float";
}

/* The extent of a loop is uniform: it reads neither positions nor tensors nor loops. */
static const char *check_loop(const fj_ir *ir, const fj_ir_candidate *c) {
    if (arg_type(ir, c, 0) != FJ_TYPE_I64 || c->type != FJ_TYPE_I64)
        return "a loop or its extent is not an int64";
    if (c->imm < 0 || c->imm >= FJ_IR_MAX_NODES) return "a loop has a bad number";
    return NULL;
}

static const char *check_reduction(const fj_ir *ir, const fj_ir_candidate *c, fj_rule rule) {
    if (fj_ir_at(ir, c->args[0])->op != FJ_OP_LOOP) return "a reduction does not begin with a loop";
    const fj_type body = arg_type(ir, c, 1);
    if (rule == FJ_RULE_REDUCE_BOOL ? body != FJ_TYPE_BOOL : !is_num(body))
        return "a reduction has a bad argument";
    return c->type == (rule == FJ_RULE_REDUCE_ARG ? FJ_TYPE_I64 : body) ? NULL
                                                                        : "a reduction has the wrong type";
}

static const char *check_pointwise(const fj_ir *ir, const fj_ir_candidate *c) {
    const bool where = c->op == FJ_OP_WHERE;
    const int first = where ? 1 : 0;
    if (where && arg_type(ir, c, 0) != FJ_TYPE_BOOL) return "the condition of where is not a bool";
    for (int i = first + 1; i < c->argc; i++) {
        if (arg_type(ir, c, i) != arg_type(ir, c, first)) return "arguments differ in type";
    }
    const int result = fj_op_result(c->op, (int)arg_type(ir, c, first));
    if (result == FJ_TYPE_VOID) return "the operation does not take arguments of this type";
    return (int)c->type == result ? NULL : "the result has the wrong type";
}

static const char *check_types(const fj_ir *ir, const fj_ir_candidate *c) {
    switch (fj_op_table[c->op].rule) {
    case FJ_RULE_LEAF_BOOL: return check_leaf(ir, c, FJ_TYPE_BOOL);
    case FJ_RULE_LEAF_I32: return check_leaf(ir, c, FJ_TYPE_I32);
    case FJ_RULE_LEAF_I64: return check_leaf(ir, c, FJ_TYPE_I64);
    case FJ_RULE_LEAF_FLOAT: return check_leaf(ir, c, FJ_TYPE_FLOAT);
    case FJ_RULE_SCALAR:
        if (c->imm < 0 || (uint64_t)c->imm >= ir->scalars.len) return "there is no such run-time scalar";
        return c->type == ir->scalars.data[c->imm].type ? NULL : "a scalar has the wrong type";
    case FJ_RULE_LOAD:
    case FJ_RULE_RANGE: return check_access(ir, c);
    case FJ_RULE_LOOP: return check_loop(ir, c);
    case FJ_RULE_REDUCE_NUM:
    case FJ_RULE_REDUCE_BOOL:
    case FJ_RULE_REDUCE_ARG: return check_reduction(ir, c, fj_op_table[c->op].rule);
    case FJ_RULE_EFFECT: return check_effect(ir, c);
    default: return c->imm == 0 ? check_pointwise(ir, c) : "a pointwise operation carries a number";
    }
}

const char *fj_ir_check(const fj_ir *ir, const fj_ir_candidate *c) {
    if (c->op <= FJ_OP_NONE || c->op >= FJ_OP_COUNT) return "there is no such operation";
    const fj_op_info *info = &fj_op_table[c->op];
    if (info->arity >= 0 ? c->argc != info->arity : c->argc < 0 || c->argc > FJ_IR_MAX_ARGS) {
        return "the number of arguments is wrong";
    }
    for (int i = 0; i < c->argc; i++) {
        if (c->args[i] == 0 || c->args[i] >= ir->nodes.len) return "an argument does not precede its user";
        if (arg_type(ir, c, i) == FJ_TYPE_VOID) return "an effect is used as a value";
    }
    return check_types(ir, c);
}
