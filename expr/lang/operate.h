/* Private to expr/lang: operators on constants, numbers and scalars. */
#ifndef FJ_EXPR_LANG_OPERATE_H
#define FJ_EXPR_LANG_OPERATE_H

#include "expr/lang/elaborate.h"

/* constants.c: Python on constants */
/* Fails where value is, or holds, a string whose value is not known at compile time. */
void fj_constant_need_text(fj_elab *e, fj_value value, fj_place place);
fj_value fj_constant_binary(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);
fj_value fj_constant_unary(fj_elab *e, fj_operator op, fj_value a, fj_place place);
bool fj_constant_compare(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);

/* operators.c */
fj_value fj_operate(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);
fj_value fj_operate_unary(fj_elab *e, fj_operator op, fj_value a, fj_place place);
fj_value fj_operate_compare(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place);
/* not a; a and b; a or b, of run-time values. */
fj_value fj_operate_not(fj_elab *e, fj_value a, fj_place place);
fj_value fj_operate_logical(fj_elab *e, bool is_and, fj_value a, fj_value b, fj_place place);

/* promote.c: types and nodes of the IR */
fj_value fj_scalar_value(fj_elab *e, fj_ref ref, bool weak);
/* A number or scalar (a tensor of rank 0 becomes one); anything else is an error. */
fj_value fj_operand(fj_elab *e, fj_value value, fj_place place, const char *what);
/* The common type of numbers and scalars; *weak: all are. */
fj_type fj_promote(const fj_value *values, size_t count, bool *weak);
fj_ref fj_to_ref(fj_elab *e, fj_value value, fj_type type, fj_place place);
/* Applies an op of the IR to numbers and scalars, promoted to type (WHERE: but the first); folds
 * constants. */
fj_value fj_pointwise(fj_elab *e, fj_op op, fj_type type, const fj_value *values, int count, fj_place place);
/* What is known of operands at compile time, as of dimensions; false: not of each, or all are constants. */
bool fj_known_values(const fj_value *values, int count, fj_value *ret_known);
fj_value fj_with_known(fj_elab *e, fj_value value, fj_value known);
/* Converts a number or scalar. */
fj_value fj_convert(fj_elab *e, fj_value value, fj_type type, fj_place place);
/* Type of a number or scalar: bool, int64 for an int, float. */
fj_type fj_value_type(fj_value value);
/* Says that an operand has the wrong type; first lets a wrong assumption about a tensor be corrected. */
_Noreturn void fj_type_fail(fj_elab *e, fj_value value, fj_dtype wanted, fj_place place, const char *format,
                            ...) FJ_PRINTF(5, 6);
/* Whether the value depends on nothing but dimensions, run-time scalars and constants. */
bool fj_is_uniform(fj_elab *e, fj_ref ref);
/* The name of a run-time parameter that the value depends on, or "". */
const char *fj_runtime_name(fj_elab *e, fj_ref ref);
/* Which nodes ref is made of: one flag per node up to ref (arena). */
const bool *fj_reachable(fj_elab *e, fj_ref ref);

#endif
