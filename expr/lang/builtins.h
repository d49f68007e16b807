/* Private to expr/lang: the functions that mods may call, and the builders of builtins.def. */
#ifndef FJ_EXPR_LANG_BUILTINS_H
#define FJ_EXPR_LANG_BUILTINS_H

#include "expr/lang/tensor.h"

enum {
    FJ_IN_TORCH = 1,      /* torch.f, torch.Tensor.f */
    FJ_IN_FUNCTIONAL = 2, /* torch.nn.functional.f */
    FJ_IN_MATH = 4,
    FJ_IN_METHOD = 8,  /* x.f */
    FJ_IN_BARE = 16,   /* f: an extension, found after everything else */
    FJ_IN_PYTHON = 32, /* built into Python */
    FJ_IN_FLEX = 64,   /* torch.nn.attention.flex_attention.f */
    FJ_IN_FUNCTOOLS = 128,
    FJ_IN_NN = 256,   /* torch.nn.f */
    FJ_IN_LIST = 512, /* methods of lists, of dicts */
    FJ_IN_DICT = 1024,
    FJ_IN_TYPES = 2048,    /* types, argparse, dataclasses */
    FJ_IN_OPERATOR = 4096, /* operator.f */
    FJ_IN_ITERTOOLS = 8192,
};

typedef struct fj_builtin {
    const char *name;
    const char *parameters; /* "input other? *rest": optional ?, the rest * */
    fj_apply build;
    int where, data;
    bool pointwise; /* applies to the elements of tensors */
} fj_builtin;

const fj_builtin *fj_builtin_find(fj_str name, int where);
fj_value fj_builtin_value(const fj_builtin *builtin);
fj_value fj_builtin_call(fj_elab *e, const fj_builtin *builtin, const fj_arguments *arguments,
                         fj_place place);
/* Adds the names of all functions of these places. */
void fj_builtin_suggest(fj_suggestion *suggestion, int where);
/* A member of a module, a constant, a dtype: UNKNOWN where there is none. */
fj_value fj_module_member(fj_elab *e, fj_str module, fj_str name);
/* False: no such dtype. */
bool fj_dtype_by_name(fj_str name, fj_dtype *ret_dtype);
/* The torch dtype that values of a type have. */
fj_dtype fj_type_dtype(fj_type type);

/* ---- The builders, by file --------------------------------------------------------------------- */

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
#define FJ_DECLARE_BUILDER(name) fj_value fj_build_##name(fj_elab *e, const fj_builtin_args *call);
FJ_BUILDERS(FJ_DECLARE_BUILDER)

static inline bool fj_is_given(fj_value v) { return v.kind != FJ_VALUE_UNSET && v.kind != FJ_VALUE_NONE; }
bool fj_is_keep(fj_elab *e, fj_value keepdim, fj_place place);

#endif
