/* Private to expr/: nodes that are simplified as they are made. */
#ifndef FJ_EXPR_IR_OPTIMISE_H
#define FJ_EXPR_IR_OPTIMISE_H

#include "expr/ir/ir.h"

/* fj_ir_node, folded and simplified: the same value, bit for bit (a NaN is a NaN). */
fj_ref fj_opt_node(fj_ir *ir, fj_op op, fj_type type, int64_t imm, const fj_ref *args, int argc);

/* optimise_fold.c: the constant, or 0 when an argument is none. */
fj_ref fj_opt_fold(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args, int argc);
fj_ref fj_opt_const(fj_ir *ir, fj_type type, int64_t i, double f);

/* optimise_rules.c: an equal value that is cheaper, or 0. */
fj_ref fj_opt_rule(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args);

static inline bool fj_opt_is_const(const fj_ir *ir, fj_ref ref) {
    return fj_op_is_const((fj_op)fj_ir_at(ir, ref)->op);
}

#endif
