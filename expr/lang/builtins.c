/* The table of functions; finding and calling them; members of modules. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/tensor.h"

#include <math.h>
#include <string.h>

#define T FJ_IN_TORCH
#define F FJ_IN_FUNCTIONAL
#define M FJ_IN_MATH
#define D FJ_IN_METHOD
#define B FJ_IN_BARE
#define P FJ_IN_PYTHON
#define X FJ_IN_FLEX
#define U FJ_IN_FUNCTOOLS
#define N FJ_IN_NN
#define J FJ_IN_ITERTOOLS
#define O FJ_IN_OPERATOR
#define Y FJ_IN_TYPES
#define I FJ_IN_DICT
#define L FJ_IN_LIST
static const fj_builtin table[] = {
#define FN(name, where, parameters, pointwise, build, data) \
    {name, parameters, build, where, (int)(data), pointwise},
#include "expr/lang/builtins.def"
};
#undef T
#undef F
#undef M
#undef D
#undef B
#undef P
#undef X
#undef U
#undef N
#undef J
#undef O
#undef Y
#undef I
#undef L

/* ---- Finding ------------------------------------------------------------------------------------------- */

const fj_builtin *fj_builtin_find(fj_str name, int where) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(table); i++) {
        const bool there = where == 0 ? table[i].where == 0 : (table[i].where & where) != 0;
        if (there && fj_str_is(name, table[i].name)) return &table[i];
    }
    return NULL;
}

fj_value fj_builtin_value(const fj_builtin *builtin) {
    return (fj_value){.kind = FJ_VALUE_BUILTIN, .builtin = builtin};
}

void fj_builtin_suggest(fj_suggestion *suggestion, int where) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(table); i++) {
        if ((table[i].where & where) != 0) fj_suggest(suggestion, fj_str_from(table[i].name));
    }
}

/* ---- Calling --------------------------------------------------------------------------------------------- */

typedef struct parameter {
    fj_str name;
    bool optional, rest;
} parameter;

enum { MAX_PARAMETERS = 8 };

static int read_parameters(const char *text, parameter *ret_parameters) {
    int count = 0;
    while (*text != '\0' && count < MAX_PARAMETERS) {
        const size_t len = strcspn(text, " ");
        parameter p = {{text, len}, false, false};
        if (p.name.data[0] == '*') p = (parameter){{text + 1, len - 1}, true, true};
        if (p.name.data[p.name.len - 1] == '?') {
            p.name.len--;
            p.optional = true;
        }
        ret_parameters[count++] = p;
        text += len + strspn(text + len, " ");
    }
    return count;
}

/* What a tensor is on, or how it is stored, changes no value. */
static bool is_ignored(fj_str name) {
    static const char *const names[] = {"device",     "requires_grad", "non_blocking", "memory_format",
                                        "pin_memory", "layout",        "copy",         "generator",
                                        "inplace",    "strict",        "out"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (fj_str_is(name, names[i])) return true;
    }
    return false;
}

static const char *alias(fj_str name) {
    return fj_str_is(name, "axis")     ? "dim"
         : fj_str_is(name, "keepdims") ? "keepdim"
         : fj_str_is(name, "self")     ? "input"
                                       : NULL;
}

static void bind_keyword(fj_elab *e, const fj_builtin_args *call, const parameter *parameters, fj_str name,
                         fj_value value) {
    const char *other = alias(name);
    fj_suggestion suggestion = fj_suggest_begin(name);
    for (int i = 0; i < call->count; i++) {
        fj_suggest(&suggestion, parameters[i].name);
        const bool same =
            fj_str_equal(parameters[i].name, name) || (other != NULL && fj_str_is(parameters[i].name, other));
        if (!same || parameters[i].rest) continue;
        if (call->args[i].kind != FJ_VALUE_UNSET) {
            fj_elab_fail(e, call->place, "%s() gets its argument '%.*s' twice", call->name, (int)name.len,
                         name.data);
        }
        call->args[i] = value;
        return;
    }
    if (is_ignored(name)) return;
    fj_elab_fail(e, call->place, "%s() has no parameter '%.*s' in the mod language%s", call->name,
                 (int)name.len, name.data, fj_suggest_text(e, &suggestion));
}

static void bind_arguments(fj_elab *e, fj_builtin_args *call, const parameter *parameters) {
    const fj_arguments *given = call->arguments;
    size_t at = 0;
    for (int i = 0; i < call->count; i++) {
        if (parameters[i].rest) {
            call->args[i] = fj_value_rest(e->arena, FJ_VALUE_TUPLE, given->values, at, given->count);
            at = given->count;
        } else if (at < given->count) {
            call->args[i] = given->values[at++];
        }
    }
    if (at < given->count) {
        fj_elab_fail(e, call->place, "%s() takes %d %s but %zu are given", call->name, call->count,
                     call->count == 1 ? "argument" : "arguments", given->count);
    }
    for (size_t i = 0; i < given->keyword_count; i++)
        bind_keyword(e, call, parameters, given->names[i], given->keywords[i]);
    for (int i = 0; i < call->count; i++) {
        if (call->args[i].kind != FJ_VALUE_UNSET || parameters[i].optional) continue;
        fj_elab_fail(e, call->place, "%s() needs an argument for its parameter '%.*s'", call->name,
                     (int)parameters[i].name.len, parameters[i].name.data);
    }
}

/* Outside of a mod, a function of a tensor without a name gives one. */
static bool find_opaque(fj_elab *e, const fj_builtin *builtin, const fj_arguments *arguments,
                        fj_value *ret_value) {
    if (e->in_mod) return false;
    const bool only_first = builtin->build == fj_build_to || builtin->build == fj_build_same;
    for (size_t i = 0; i < arguments->count + arguments->keyword_count; i++) {
        const bool positional = i < arguments->count;
        const size_t keyword = i - arguments->count;
        if (positional ? only_first && i > 0 : is_ignored(arguments->names[keyword])) continue;
        const fj_value v = positional ? arguments->values[i] : arguments->keywords[keyword];
        if (fj_gives_opaque(e, v, ret_value)) return true;
    }
    return false;
}

static bool keeps_opaque(const fj_builtin *builtin) {
    return builtin->build != fj_build_partial && builtin->build != fj_build_callable &&
           builtin->build != fj_build_isinstance && builtin->build != fj_build_list_append &&
           builtin->build != fj_build_list_insert && builtin->build != fj_build_dict &&
           builtin->build != fj_build_dict_get && builtin->build != fj_build_namespace &&
           builtin->build != fj_build_register && builtin->build != fj_build_apply_function &&
           builtin->build != fj_build_nothing;
}

fj_value fj_builtin_call(fj_elab *e, const fj_builtin *builtin, const fj_arguments *arguments,
                         fj_place place) {
    fj_value opaque;
    if (keeps_opaque(builtin) && find_opaque(e, builtin, arguments, &opaque)) return opaque;
    fj_builtin_args call = {
        .data = builtin->data, .name = builtin->name, .place = place, .arguments = arguments};
    if (strcmp(builtin->parameters, "...") != 0) {
        parameter parameters[MAX_PARAMETERS];
        call.count = read_parameters(builtin->parameters, parameters);
        call.args = FJ_NEW_ARRAY(e->arena, fj_value, call.count);
        bind_arguments(e, &call, parameters);
    }
    return builtin->pointwise ? fj_tensor_map(e, builtin->build, &call) : builtin->build(e, &call);
}

/* ---- Types --------------------------------------------------------------------------------------------------- */

bool fj_dtype_by_name(fj_str name, fj_dtype *ret_dtype) {
    static const struct {
        const char *name;
        fj_dtype dtype;
    } names[] = {
        {"bool", FJ_DTYPE_BOOL},
        {"int8", FJ_DTYPE_I8},
        {"uint8", FJ_DTYPE_U8},
        {"int16", FJ_DTYPE_I16},
        {"short", FJ_DTYPE_I16},
        {"int32", FJ_DTYPE_I32},
        {"int", FJ_DTYPE_I32},
        {"int64", FJ_DTYPE_I64},
        {"long", FJ_DTYPE_I64},
        {"float8_e4m3fn", FJ_DTYPE_F8_E4M3},
        {"float8_e5m2", FJ_DTYPE_F8_E5M2},
        {"float16", FJ_DTYPE_F16},
        {"half", FJ_DTYPE_F16},
        {"bfloat16", FJ_DTYPE_BF16},
        {"float32", FJ_DTYPE_F32},
        {"float", FJ_DTYPE_F32},
        {"float64", FJ_DTYPE_F64},
        {"double", FJ_DTYPE_F64},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (!fj_str_is(name, names[i].name)) continue;
        *ret_dtype = names[i].dtype;
        return true;
    }
    return false;
}

fj_dtype fj_type_dtype(fj_type type) {
    switch (type) {
    case FJ_TYPE_BOOL: return FJ_DTYPE_BOOL;
    case FJ_TYPE_I32: return FJ_DTYPE_I32;
    case FJ_TYPE_I64: return FJ_DTYPE_I64;
    default: return FJ_DTYPE_F32;
    }
}

/* ---- Modules ---------------------------------------------------------------------------------------------------- */

static int functions_of(fj_str module) {
    static const struct {
        const char *module;
        int where;
    } modules[] = {
        {"torch", FJ_IN_TORCH},
        {"torch.special", FJ_IN_TORCH},
        {"torch.nn.functional", FJ_IN_FUNCTIONAL},
        {"torch.nn", FJ_IN_NN},
        {"torch.nn.parameter", FJ_IN_NN},
        {"torch.nn.attention.flex_attention", FJ_IN_FLEX},
        {"math", FJ_IN_MATH},
        {"functools", FJ_IN_FUNCTOOLS},
        {"types", FJ_IN_TYPES},
        {"argparse", FJ_IN_TYPES},
        {"dataclasses", FJ_IN_TYPES},
        {"operator", FJ_IN_OPERATOR},
        {"itertools", FJ_IN_ITERTOOLS},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(modules); i++) {
        if (fj_str_is(module, modules[i].module)) return modules[i].where;
    }
    return 0;
}

static bool constant_of(fj_str module, fj_str name, fj_value *ret_value) {
    static const struct {
        const char *name;
        double value;
    } constants[] = {
        {"inf", (double)INFINITY},       {"nan", (double)NAN},
        {"pi", 3.14159265358979323846},  {"e", 2.71828182845904523536},
        {"tau", 6.28318530717958647692},
    };
    if (!fj_str_is(module, "torch") && !fj_str_is(module, "math")) return false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(constants); i++) {
        if (!fj_str_is(name, constants[i].name)) continue;
        *ret_value = fj_value_float(constants[i].value);
        return true;
    }
    return false;
}

static bool is_submodule(fj_str path) {
    static const char *const paths[] = {
        "torch.nn",  "torch.nn.parameter", "torch.nn.functional", "torch.special",
        "torch.ops", "torch.ops.approx",   "torch.nn.attention",  "torch.nn.attention.flex_attention"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(paths); i++) {
        if (fj_str_is(path, paths[i])) return true;
    }
    return false;
}

static const char *say_unknown(fj_elab *e, fj_str module, fj_str name) {
    fj_suggestion suggestion = fj_suggest_begin(name);
    fj_builtin_suggest(&suggestion, functions_of(module));
    const char *text = fj_arena_printf(e->arena, "'%.*s.%.*s' is not in the mod language", (int)module.len,
                                       module.data, (int)name.len, name.data);
    return fj_arena_printf(e->arena, "%s%s", text, fj_suggest_text(e, &suggestion));
}

fj_value fj_module_member(fj_elab *e, fj_str module, fj_str name) {
    const int where = functions_of(module);
    const fj_builtin *builtin = where == 0 ? NULL : fj_builtin_find(name, where);
    if (builtin != NULL) return fj_builtin_value(builtin);
    fj_value value;
    if (constant_of(module, name, &value)) return value;
    fj_dtype dtype;
    if (fj_str_is(module, "torch") && fj_dtype_by_name(name, &dtype)) return fj_value_dtype(dtype);
    if (fj_str_is(module, "torch.ops.approx") && fj_str_is(name, "tanh")) {
        return fj_builtin_value(fj_builtin_find(FJ_STR("tanh_approx"), 0));
    }
    if (fj_str_is(module, "torch.special") && fj_str_is(name, "expit")) {
        return fj_builtin_value(fj_builtin_find(FJ_STR("sigmoid"), FJ_IN_TORCH));
    }
    const char *path =
        fj_arena_printf(e->arena, "%.*s.%.*s", (int)module.len, module.data, (int)name.len, name.data);
    if (is_submodule(fj_str_from(path))) return (fj_value){.kind = FJ_VALUE_MODULE, .str = fj_str_from(path)};
    return fj_value_unknown(e->arena, path, say_unknown(e, module, name));
}

static bool is_known_module(fj_str module) {
    return fj_str_is(module, "torch") || functions_of(module) != 0 || is_submodule(module);
}

static fj_value foreign(fj_elab *e, const fj_import *import, fj_str name) {
    const fj_str module = import->module;
    const char *why =
        fj_arena_printf(e->arena, "'%.*s' is imported from '%.*s': paste its definition into this file",
                        (int)name.len, name.data, (int)module.len, module.data);
    return fj_value_unknown(e->arena, fj_arena_strdup(e->arena, name), why);
}

fj_value fj_import_value(fj_elab *e, const fj_import *import) {
    if (import->member.len == 0) {
        fj_str module = import->module;
        /* import a.b binds a, import a.b as c binds a.b */
        const bool first = module.len > import->name.len && module.data[import->name.len] == '.' &&
                           fj_str_equal((fj_str){module.data, import->name.len}, import->name);
        if (first) module.len = import->name.len;
        if (is_known_module(module)) return (fj_value){.kind = FJ_VALUE_MODULE, .str = module};
        return foreign(e, import, import->name);
    }
    if (fj_str_is(import->member, "TYPE_CHECKING")) return fj_value_bool(false);
    const fj_builtin *flex = fj_builtin_find(import->member, FJ_IN_FLEX);
    if (flex != NULL) return fj_builtin_value(flex);
    if (!is_known_module(import->module)) return foreign(e, import, import->member);
    return fj_module_member(e, import->module, import->member);
}
