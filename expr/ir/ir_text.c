/* The text form of a graph: one line per capture, run-time scalar, node and root.
 *
 *     capture 0 F32 [8,-1] "bias"          a literal table: ... = 1.0 2.0
 *     scalar 0 float 0.5 "alpha"
 *     %1 = h
 *     %2 = score
 *     %3 = const_i32 3
 *     %4 = load.float @0 %1, %3
 *     %5 = add.float %2, %4
 *     score %5
 *
 * Nodes are numbered from 1 without gaps. @n is a capture, $n a scalar, #n a loop's number. "gradient"
 * after a name marks a capture or scalar whose gradient exists. A ';' begins a comment. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "expr/ir/ir.h"

/* ---- Printing -------------------------------------------------------------------------------------- */

static void put_quoted(fj_buf *out, const char *text) {
    fj_buf_put(out, "\"");
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at < 32 || *at >= 127 || *at == '"' || *at == '\\')
            fj_buf_printf(out, "\\x%02x", *at);
        else
            fj_buf_write(out, at, 1);
    }
    fj_buf_put(out, "\"");
}

static int64_t value_count(const fj_capture *capture) {
    int64_t count = 1;
    for (int i = 0; i < capture->rank; i++) count *= capture->dims[i];
    return count;
}

static void put_capture(const fj_ir *ir, size_t index, fj_buf *out) {
    const fj_capture *capture = &ir->captures.data[index];
    fj_buf_printf(out, "capture %zu %s [", index, fj_dtype_name(capture->dtype));
    for (int i = 0; i < capture->rank; i++)
        fj_buf_printf(out, "%s%" PRId64, i > 0 ? "," : "", capture->dims[i]);
    fj_buf_put(out, "] ");
    put_quoted(out, capture->name != NULL ? capture->name : "");
    if (capture->gradient) fj_buf_put(out, " gradient");
    if (capture->literal) {
        const int64_t count = value_count(capture);
        fj_buf_put(out, " =");
        for (int64_t i = 0; i < count; i++) {
            fj_buf_put(out, " ");
            if (capture->int_values != NULL)
                fj_buf_printf(out, "%" PRId64, capture->int_values[i]);
            else
                fj_buf_double(out, capture->values[i]);
        }
    }
    fj_buf_put(out, "\n");
}

static void put_runtime_scalar(const fj_ir *ir, size_t index, fj_buf *out) {
    const fj_runtime_scalar *scalar = &ir->scalars.data[index];
    fj_buf_printf(out, "scalar %zu %s ", index, fj_type_names[scalar->type]);
    if (scalar->type == FJ_TYPE_FLOAT)
        fj_buf_double(out, scalar->f);
    else
        fj_buf_printf(out, "%" PRId64, scalar->i);
    fj_buf_put(out, " ");
    put_quoted(out, scalar->name != NULL ? scalar->name : "");
    fj_buf_put(out, scalar->gradient ? " gradient\n" : "\n");
}

/* Whether the type is written: where the op alone does not say it. */
static bool has_suffix(fj_op op) {
    switch (fj_op_table[op].rule) {
    case FJ_RULE_SCALAR:
    case FJ_RULE_LOAD:
    case FJ_RULE_REDUCE_NUM: return true;
    default: return fj_op_is_pointwise(op);
    }
}

static void put_number(const fj_node *node, fj_buf *out) {
    switch ((fj_op)node->op) {
    case FJ_OP_CONST_BOOL: fj_buf_put(out, node->imm.i != 0 ? " true" : " false"); break;
    case FJ_OP_CONST_I32:
    case FJ_OP_CONST_I64: fj_buf_printf(out, " %" PRId64, node->imm.i); break;
    case FJ_OP_CONST_FLOAT:
        fj_buf_put(out, " ");
        fj_buf_double(out, node->imm.f);
        break;
    case FJ_OP_LOAD:
    case FJ_OP_OUT_OF_RANGE:
    case FJ_OP_SCATTER: fj_buf_printf(out, " @%" PRId64, node->imm.i); break;
    case FJ_OP_DIM: fj_buf_printf(out, " @%" PRId64 " %" PRId64, node->imm.i >> 8, node->imm.i & 255); break;
    case FJ_OP_SCALAR:
    case FJ_OP_SCATTER_SCALAR: fj_buf_printf(out, " $%" PRId64, node->imm.i); break;
    case FJ_OP_LOOP: fj_buf_printf(out, " #%" PRId64, node->imm.i); break;
    default: break;
    }
}

static void put_node(const fj_ir *ir, fj_ref ref, fj_ref number, const fj_ref *numbers, fj_buf *out) {
    const fj_node *node = fj_ir_at(ir, ref);
    fj_buf_printf(out, "%%%u = %s", number, fj_op_table[node->op].name);
    if (has_suffix((fj_op)node->op)) fj_buf_printf(out, ".%s", fj_type_names[node->type]);
    put_number(node, out);
    for (int i = 0; i < node->argc; i++) {
        const fj_ref arg = fj_ir_args(ir, ref)[i];
        fj_buf_printf(out, "%s %%%u", i > 0 ? "," : "", numbers != NULL ? numbers[arg] : arg);
    }
    fj_buf_put(out, "\n");
}

static void put_root(const char *name, fj_ref root, const fj_ref *numbers, fj_buf *out) {
    if (root != 0) fj_buf_printf(out, "%s %%%u\n", name, numbers != NULL ? numbers[root] : root);
}

static void put_roots(const fj_ir *ir, const fj_ref *numbers, fj_buf *out) {
    put_root("score", ir->score, numbers, out);
    put_root("mask", ir->mask, numbers, out);
    put_root("fault", ir->fault, numbers, out);
    put_root("dscore", ir->dscore, numbers, out);
    for (size_t i = 0; i < ir->scatters.len; i++) put_root("effect", ir->scatters.data[i], numbers, out);
}

void fj_ir_print(const fj_ir *ir, fj_buf *out) {
    for (size_t i = 0; i < ir->captures.len; i++) put_capture(ir, i, out);
    for (size_t i = 0; i < ir->scalars.len; i++) put_runtime_scalar(ir, i, out);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) put_node(ir, ref, ref, NULL, out);
    put_roots(ir, NULL, out);
}

/* Names, shapes, values of literals and defaults of scalars are data of a call: a kernel does not depend
 * on them, and they are not here. */
void fj_ir_print_canonical(const fj_ir *ir, fj_buf *out) {
    bool *live = FJ_NEW_ARRAY(ir->arena, bool, ir->nodes.len);
    fj_ref *numbers = FJ_NEW_ARRAY(ir->arena, fj_ref, ir->nodes.len), number = 0;
    const fj_ref named[] = {ir->score, ir->mask, ir->fault, ir->dscore};
    for (size_t i = 0; i < FJ_ARRAY_LEN(named); i++) live[named[i]] = true;
    for (size_t i = 0; i < ir->scatters.len; i++) live[ir->scatters.data[i]] = true;
    for (fj_ref ref = (fj_ref)ir->nodes.len - 1; ref > 0; ref--) {
        for (int i = 0; live[ref] && i < fj_ir_at(ir, ref)->argc; i++) live[fj_ir_args(ir, ref)[i]] = true;
    }
    for (size_t i = 0; i < ir->captures.len; i++) {
        const fj_capture *capture = &ir->captures.data[i];
        fj_buf_printf(out, "capture %zu %s rank %d\n", i, fj_dtype_name(capture->dtype), capture->rank);
    }
    for (size_t i = 0; i < ir->scalars.len; i++) {
        fj_buf_printf(out, "scalar %zu %s\n", i, fj_type_names[ir->scalars.data[i].type]);
    }
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (!live[ref]) continue;
        numbers[ref] = ++number;
        put_node(ir, ref, number, numbers, out);
    }
    put_roots(ir, numbers, out);
}
