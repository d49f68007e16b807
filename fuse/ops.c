/* The table of operations, and signatures. */
#include <math.h>
#include <string.h>

#include "fuse/graph.h"

#define POINT(id, name, arity, result, trust, signature, targets, value, text) \
    static double value_##id(double a, double b, double c) {                   \
        (void)a, (void)b, (void)c;                                             \
        return (double)(value);                                                \
    }
#include "fuse/ops.def"

#define RESULT_BOOL true
#define RESULT_SAME false
const fj_node_op_info fj_node_ops[FJ_NODE_OPS] = {
#define OP(id, name, class, signature, targets) {name, class, signature, targets, 0, false, 0, NULL, NULL},
#define POINT(id, name, arity, result, trust, signature, targets, value, text) \
    {name, FJ_CLASS_POINT, signature, targets, arity, RESULT_##result, FJ_TRUST_##trust, text, value_##id},
#include "fuse/ops.def"
};

fj_node_op fj_node_op_find(fj_str name) {
    int op = 0;
    while (op < FJ_NODE_OPS && !fj_str_is(name, fj_node_ops[op].name)) op++;
    return (fj_node_op)op;
}

static bool has_word(const char *words, fj_str word) {
    for (const char *at = words; *at != '\0';) {
        const size_t length = strcspn(at, " ");
        if (length == word.len && memcmp(at, word.data, length) == 0) return true;
        at += length + (at[length] == ' ');
    }
    return false;
}

fj_node_op fj_node_op_target(fj_str target, bool *ret_in_place) {
    const char *dot = memchr(target.data, '.', target.len);
    *ret_in_place = dot != NULL && dot > target.data + 1 && dot[-1] == '_' && dot[-2] != '_';
    if (fj_str_is(target, "detach_.default")) *ret_in_place = false; /* it changes no element */
    for (int op = 0; op < FJ_NODE_OPS; op++)
        if (has_word(fj_node_ops[op].targets, target)) return (fj_node_op)op;
    return FJ_NODE_UNKNOWN;
}

/* ---- Signatures -------------------------------------------------------------------------- */

bool fj_parameter_next(const char **signature, fj_parameter *ret) {
    const char *at = *signature;
    while (*at == ' ') at++;
    if (*at == '\0') return false;
    *ret = (fj_parameter){.is_list = *at == '*'};
    at += ret->is_list;
    const size_t length = strcspn(at, " "), name = strcspn(at, " =");
    ret->name = (fj_str){at, name};
    ret->has_default = name < length;
    if (ret->has_default) ret->otherwise = (fj_str){at + name + 1, length - name - 1};
    *signature = at + length;
    return true;
}

fj_arg fj_arg_default(fj_sizes *sizes, const fj_parameter *parameter) {
    const fj_str text = parameter->otherwise;
    fj_arg arg = {.kind = FJ_ARG_NONE};
    if (fj_str_is(text, "None")) return arg;
    if (fj_str_is(text, "True") || fj_str_is(text, "False"))
        return (fj_arg){.kind = FJ_ARG_BOOL, .flag = text.data[0] == 'T'};
    if (fj_str_is(text, "[]")) return (fj_arg){.kind = FJ_ARG_INTS};
    if (text.data[0] == '\'')
        return (fj_arg){.kind = FJ_ARG_TEXT,
                        .text = fj_arena_strdup(sizes->arena, (fj_str){text.data + 1, text.len - 2})};
    if (memchr(text.data, '.', text.len) || memchr(text.data, 'e', text.len)) {
        double value = 0;
        (void)fj_decimal_parse(text, &value);
        return (fj_arg){.kind = FJ_ARG_FLOAT, .real = value};
    }
    arg.kind = FJ_ARG_INT;
    (void)fj_size_parse(sizes, text, &arg.size);
    return arg;
}
