/* Private to expr/: the builders of builtins.def, by file. */
#ifndef FJ_EXPR_LANG_BUILTINS_H
#define FJ_EXPR_LANG_BUILTINS_H

#include "expr/lang/elaborate.h"

/* builtins_*.c */
/* clang-format off */
#define FJ_BUILDERS(X) \
    X(float1) X(float2) X(math1) X(math_log) X(math_log10) X(math_pow) X(math_fabs) X(math_fmod) \
    X(math_round) X(reciprocal) X(test) X(isfinite) X(gcd) X(isqrt) X(num1) X(square) X(round) \
    X(python_round) X(num2) X(operator) X(div) X(invert) X(clamp) X(clamp_one) X(relu) X(silu) X(gelu) \
    X(softplus) X(leaky_relu) X(logsigmoid) X(compare) X(logical) X(logical_not) X(where) \
    X(where_method) X(masked_fill) X(to) X(cast) X(same) X(like) X(full_like) X(new_tensor) \
    X(new_filled) X(tensor) X(finfo) X(iinfo) X(sized) X(full) X(eye) X(arange) X(randint) X(dim) \
    X(size) X(numel) X(unsqueeze) X(squeeze) X(transpose) X(dot) X(sum) X(mean) X(extreme) X(reduce) \
    X(len) X(range) X(enumerate) X(zip) X(sequence) X(reversed) X(sorted) X(map) X(divmod) \
    X(python_cast) X(str) X(python_extreme) X(python_sum) X(python_prod) X(python_any) X(isinstance) \
    X(callable) X(nothing) X(device) X(never) X(partial) X(functools_reduce) X(causal) X(noop) X(join) \
    X(compose) X(joined) X(composed) \
    X(list_append) X(list_extend) X(list_insert) X(list_pop) X(list_copy) X(list_find) X(dict) \
    X(dict_update) X(dict_get) X(dict_items) X(dict_copy) X(namespace) X(field) X(getattr) \
    X(hasattr) X(register) X(itself) X(apply_function) X(module) X(accumulate) X(chain) X(product) \
    X(log10) X(nan_to_num) X(elu) X(hardtanh) X(softsign) X(logaddexp) X(threshold) X(mish) X(lerp) \
    X(addcmul) X(hardsigmoid) X(hardswish) X(tanhshrink) X(bucketize) X(isin) X(expand) X(flatten) \
    X(reshape) X(permute) X(stack)
/* clang-format on */
#define FJ_DECLARE_BUILDER(name) fj_value fj_build_##name(fj_elab *e, const fj_call *call);
FJ_BUILDERS(FJ_DECLARE_BUILDER)

static inline bool fj_is_given(fj_value v) { return v.kind != FJ_VALUE_UNSET && v.kind != FJ_VALUE_NONE; }
bool fj_is_keep(fj_elab *e, fj_value keepdim, fj_place place);

#endif
