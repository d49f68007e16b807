/* Operations on elements, as terms. */
#include <math.h>
#include <stdlib.h>

#include "base/dtype.h"
#include "fuse/region.h"

static const fj_value *value_of(const fj_region *region, int value) {
    return &region->graph->values.data[value];
}

static fj_term_type type_of(fj_dtype dtype) {
    return dtype == FJ_DTYPE_BOOL ? FJ_TERM_BOOL : fj_dtype_is_float(dtype) ? FJ_TERM_FLOAT : FJ_TERM_INT;
}

static bool is_half(fj_dtype dtype) { return dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16; }

/* Whether removing a conversion changes no bit of what follows. */
static bool widens(fj_dtype from, fj_dtype to) {
    if (from == to) return true;
    if (!fj_dtype_is_float(to))
        return !fj_dtype_is_float(from) && fj_dtype_size(to) > fj_dtype_size(from) && to != FJ_DTYPE_BOOL;
    return fj_dtype_is_float(from) && fj_dtype_size(to) > fj_dtype_size(from);
}

/* What mods compute floats in: an integer as one of these is rounded as in the graph. As a half it loses its last digits there. */
bool fj_is_kernel_float(const fj_region *region, fj_dtype dtype) {
    return dtype == (region->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32);
}

static int cast(fj_region *region, const fj_node *node, int value, int term, const fj_index *index) {
    const fj_value *in = value_of(region, node->args[0].value), *out = value_of(region, value);
    const bool scored = region->terms.data[term].scored;
    const bool before = in->node >= 0 && region->graph->nodes.data[in->node].op == FJ_NODE_CAST;
    const fj_dtype first =
        before ? value_of(region, region->graph->nodes.data[in->node].args[0].value)->dtype : in->dtype;
    if (out->dtype == FJ_DTYPE_BOOL) return fj_term_bool(region, term);
    if (in->dtype == FJ_DTYPE_BOOL &&
        !fj_dtype_is_float(out->dtype)) /* bools are not added as integers are */
        return fj_term_op(
            region, FJ_NODE_WHERE, FJ_TERM_INT, 3,
            (int[]){term, fj_term_number(region, 1, FJ_TERM_INT), fj_term_number(region, 0, FJ_TERM_INT)});
    if (widens(in->dtype, out->dtype) && !(out->dtype == FJ_DTYPE_F64 && region->dtype != FJ_DTYPE_F64))
        return term;
    if (before && first == out->dtype && widens(first, in->dtype)) return term; /* up and down again */
    const bool to_float = fj_dtype_is_float(out->dtype) && !fj_dtype_is_float(in->dtype);
    if (to_float && (in->dtype == FJ_DTYPE_BOOL || fj_is_kernel_float(region, out->dtype)))
        return fj_term_op(region, FJ_NODE_CAST, FJ_TERM_FLOAT, 1, &term);
    if (scored)
        fj_region_raise(region,
                        fj_dtype_is_float(out->dtype) ? FJ_REASON_ROUNDING_DIFFERS
                                                      : FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE,
                        "'%.80s' converts the scores from %s to %s", node->name, fj_dtype_name(in->dtype),
                        fj_dtype_name(out->dtype));
    return fj_term_read(region, value, index);
}

/* A result of a lesser dtype than an operand: an operation in place, or two dtypes that a file contradicts itself in. */
static bool rounds(const fj_value *in, const fj_value *out) {
    return fj_dtype_is_float(in->dtype) && fj_dtype_is_float(out->dtype) && in->dtype != out->dtype &&
           fj_dtype_size(out->dtype) <= fj_dtype_size(in->dtype);
}

/* Whether an operation that the scores have no part in gives the same bits in a kernel as in the graph. */
static bool is_same_in_kernels(const fj_region *region, const fj_node *node, const fj_value *out) {
    const fj_node_op_info *info = &fj_node_ops[node->op];
    if (info->text == NULL) return false;
    for (int i = 0; i < info->arity; i++) {
        if (node->args[i].kind != FJ_ARG_VALUE) continue;
        const fj_dtype dtype = value_of(region, node->args[i].value)->dtype;
        if (dtype == FJ_DTYPE_F64 && region->dtype != FJ_DTYPE_F64) return false;
        if (dtype == FJ_DTYPE_F8_E4M3 || dtype == FJ_DTYPE_F8_E5M2) return false;
        if (rounds(value_of(region, node->args[i].value), out)) return false;
    }
    if (info->bool_result || info->trust == FJ_TRUST_EXACT) {
        const bool wraps = !fj_dtype_is_float(out->dtype) && out->dtype != FJ_DTYPE_I64 &&
                           out->dtype != FJ_DTYPE_I32 && out->dtype != FJ_DTYPE_BOOL;
        return !(out->dtype == FJ_DTYPE_F64 && region->dtype != FJ_DTYPE_F64) && !wraps;
    }
    if (info->trust != FJ_TRUST_BASIC) return false;
    if (fj_dtype_is_float(out->dtype))
        return out->dtype == FJ_DTYPE_F32 && region->dtype != FJ_DTYPE_F64
                 ? true
                 : out->dtype == region->dtype && !is_half(out->dtype);
    return out->dtype == FJ_DTYPE_I64 && (node->op == FJ_NODE_ADD || node->op == FJ_NODE_SUB ||
                                          node->op == FJ_NODE_RSUB || node->op == FJ_NODE_MUL);
}

/* A number as an operand. What is only chosen, not computed with, has the dtype of the result. */
static bool number_of(fj_region *region, const fj_node *node, const fj_arg *arg, const fj_value *out,
                      int *ret) {
    int64_t integer;
    double real;
    if (arg->kind == FJ_ARG_FLOAT)
        real = arg->real;
    else if (arg->kind == FJ_ARG_BOOL)
        return *ret = fj_term_number(region, arg->flag, FJ_TERM_BOOL), true;
    else if (arg->kind != FJ_ARG_INT || !fj_size_is_const(&region->graph->sizes, arg->size, &integer) ||
             llabs(integer) > INT32_MAX)
        return false;
    else
        real = (double)integer;
    if (fj_node_ops[node->op].bool_result) { /* it has the dtype of the tensor that it is compared with */
        for (int i = 0; i < 2; i++) {
            if (node->args[i].kind != FJ_ARG_VALUE) continue;
            const fj_dtype dtype = value_of(region, node->args[i].value)->dtype;
            if (is_half(dtype) || dtype == FJ_DTYPE_F32) real = fj_dtype_round(dtype, real);
        }
    }
    const bool chosen = node->op == FJ_NODE_WHERE || node->op == FJ_NODE_FILL || node->op == FJ_NODE_CLAMP;
    if (chosen && is_half(out->dtype)) real = fj_dtype_round(out->dtype, real);
    if (chosen && out->dtype == FJ_DTYPE_F32 && region->dtype != FJ_DTYPE_F64)
        real = fj_dtype_round(FJ_DTYPE_F32, real);
    const bool is_float = arg->kind == FJ_ARG_FLOAT || (chosen && fj_dtype_is_float(out->dtype));
    *ret = fj_term_number(region, real, is_float ? FJ_TERM_FLOAT : FJ_TERM_INT);
    return true;
}

/* Operations that say more than their row of the table: scores times a number, conditions, three operands. */
static int build(fj_region *region, const fj_node *node, const fj_value *out, int *x) {
    const fj_term_type type = type_of(out->dtype);
    fj_node_op op = node->op;
    if (op == FJ_NODE_ADD || op == FJ_NODE_SUB || op == FJ_NODE_RSUB) {
        const fj_term *alpha = &region->terms.data[x[2]];
        const int scaled = op == FJ_NODE_RSUB ? 0 : 1;
        if (!(alpha->kind == FJ_TERM_NUMBER && alpha->number == 1))
            x[scaled] = fj_term_op(region, FJ_NODE_MUL, type, 2, (int[]){x[scaled], x[2]});
        if (op == FJ_NODE_RSUB) {
            const int first = x[0];
            x[0] = x[1], x[1] = first;
            op = FJ_NODE_SUB;
        }
        if (out->dtype == FJ_DTYPE_BOOL) return fj_term_op(region, FJ_NODE_LOGICAL_OR, type, 2, x);
        return fj_term_op(region, op, type, 2, x);
    }
    if (op == FJ_NODE_FILL)
        return fj_term_op(region, FJ_NODE_WHERE, type, 3, (int[]){fj_term_bool(region, x[1]), x[2], x[0]});
    if (op == FJ_NODE_WHERE) x[0] = fj_term_bool(region, x[0]);
    if (op == FJ_NODE_LOGICAL_AND || op == FJ_NODE_LOGICAL_OR || op == FJ_NODE_LOGICAL_XOR)
        for (int i = 0; i < 2; i++) x[i] = fj_term_bool(region, x[i]);
    if (op == FJ_NODE_MUL && out->dtype == FJ_DTYPE_BOOL)
        return fj_term_op(region, FJ_NODE_LOGICAL_AND, type, 2, x);
    if (op == FJ_NODE_LOGICAL_NOT || (op == FJ_NODE_BIT_NOT && out->dtype == FJ_DTYPE_BOOL))
        return fj_term_not(region, x[0]);
    return fj_term_op(region, op, type, fj_node_ops[op].arity, x);
}

static bool is_language(const fj_region *region, const fj_node *node, const int *x) {
    const fj_node_op_info *info = &fj_node_ops[node->op];
    (void)x;
    if (node->op == FJ_NODE_CLAMP)
        return node->args[1].kind != FJ_ARG_VALUE && node->args[2].kind != FJ_ARG_VALUE;
    if (node->op == FJ_NODE_BIT_NOT)
        return region->graph->values.data[node->outputs[0]].dtype == FJ_DTYPE_BOOL;
    return info->text != NULL;
}

int fj_trace_point(fj_region *region, int value, const fj_index *index) {
    const fj_value *out = value_of(region, value);
    const fj_node *node = &region->graph->nodes.data[out->node];
    const fj_node_op_info *info = &fj_node_ops[node->op];
    fj_index at[FJ_MAX_RANK] = {0};
    int x[3] = {0}, doubtful = -1, rounded = -1;
    bool scored = false, known = true;
    for (int i = 0; i < info->arity; i++) {
        const fj_arg *arg = &node->args[i];
        if (arg->kind == FJ_ARG_VALUE) {
            if (fj_unproven(region, value_of(region, arg->value), out->dims, out->rank) >= 0)
                doubtful = arg->value;
            fj_broadcast(region, value_of(region, arg->value), out->rank, index, at);
            x[i] = fj_trace(region, arg->value, at);
            scored |= region->terms.data[x[i]].scored;
            if (region->terms.data[x[i]].scored && rounds(value_of(region, arg->value), out))
                rounded = arg->value;
        } else if (arg->kind == FJ_ARG_NONE && node->op == FJ_NODE_CLAMP) {
            x[i] = fj_term_number(region, i == 1 ? -HUGE_VAL : HUGE_VAL, FJ_TERM_FLOAT);
        } else {
            known &= number_of(region, node, arg, out, &x[i]);
        }
    }
    if (doubtful >= 0 && scored)
        fj_region_raise(region, FJ_REASON_MASK_DOES_NOT_BROADCAST,
                        "a size of '%.80s' is another symbol than that of '%.80s'",
                        value_of(region, doubtful)->name, out->name);
    if (doubtful >= 0) return fj_term_read(region, value, index);
    if (node->op == FJ_NODE_CAST) return cast(region, node, value, x[0], index);
    if (rounded >= 0)
        fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "'%.80s' rounds the scores from %s to %s",
                        node->name, fj_dtype_name(value_of(region, rounded)->dtype),
                        fj_dtype_name(out->dtype));
    if (!scored) {
        if (!known || !is_same_in_kernels(region, node, out)) return fj_term_read(region, value, index);
        const int made = build(region, node, out, x);
        const fj_term *t = &region->terms.data[made];
        /* Positions have 32 bits in kernels: what multiplies them may overflow. */
        const bool overflows = t->kind == FJ_TERM_OP && t->op == FJ_NODE_MUL && t->type == FJ_TERM_INT;
        return overflows ? fj_term_read(region, value, index) : made;
    }
    if (!known || !is_language(region, node, x)) {
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "'%.80s' (%s) of the scores",
                        node->name, info->name);
        return fj_term_read(region, value, index);
    }
    if (out->dtype == FJ_DTYPE_F64 && region->dtype != FJ_DTYPE_F64)
        fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "'%.80s' computes the scores in F64", node->name);
    if (is_half(out->dtype) && info->trust != FJ_TRUST_EXACT)
        fj_region_note(region, "'%.60s' rounds the scores to %s; kernels keep float32", node->name,
                       fj_dtype_name(out->dtype));
    return build(region, node, out, x);
}
