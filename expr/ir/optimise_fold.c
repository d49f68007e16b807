/* Folds operations on constants with the very code that the evaluator runs. */
#include "expr/ir/optimise.h"

typedef union element {
    bool b;
    int32_t i;
    int64_t l;
    double f;
} element;

static element element_of(const fj_node *node) {
    switch ((fj_type)node->type) {
    case FJ_TYPE_BOOL: return (element){.b = node->imm.i != 0};
    case FJ_TYPE_I32: return (element){.i = (int32_t)node->imm.i};
    case FJ_TYPE_I64: return (element){.l = node->imm.i};
    default: return (element){.f = node->imm.f};
    }
}

fj_ref fj_opt_const(fj_ir *ir, fj_type type, int64_t i, double f) {
    switch (type) {
    case FJ_TYPE_BOOL: return fj_ir_bool(ir, i != 0);
    case FJ_TYPE_I32: return fj_ir_i32(ir, (int32_t)i);
    case FJ_TYPE_I64: return fj_ir_i64(ir, i);
    default: return fj_ir_float(ir, f);
    }
}

fj_ref fj_opt_fold(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args, int argc) {
    element given[3] = {{0}}, result = {0};
    if (!fj_op_is_pointwise(op)) return 0;
    for (int i = 0; i < argc; i++) {
        if (!fj_opt_is_const(ir, args[i])) return 0;
        given[i] = element_of(fj_ir_at(ir, args[i]));
    }
    const fj_type of = fj_ir_type(ir, args[op == FJ_OP_WHERE ? 1 : 0]);
    fj_op_lanes_table[op][of](&result, &given[0], &given[1], &given[2], 1);
    if (type == FJ_TYPE_FLOAT) return fj_ir_float(ir, result.f);
    return fj_opt_const(ir, type,
                        type == FJ_TYPE_BOOL  ? result.b
                        : type == FJ_TYPE_I32 ? result.i
                                              : result.l,
                        0.0);
}
