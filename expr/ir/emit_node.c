/* One value of the graph as one statement of C or CUDA text.
 *
 * Names are made here and nowhere else: v<ref> a value, i<ref> n<ref> a loop's counter and extent,
 * m<ref> c<ref> the best value of an argmax and whether it gives way. Literals are formatted here.
 * Nothing of the user's text reaches a kernel. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "expr/ir/emit.h"

static bool is_cuda(const fj_emit *emit) { return emit->target == FJ_EMIT_CUDA; }

void fj_emit_indent(fj_emit *emit, int depth) {
    for (int i = 0; i < depth; i++) fj_buf_put(emit->out, "    ");
}

/* ---- Literals --------------------------------------------------------------------------------- */

static void put_double(fj_buf *out, double value) {
    if (value != value)
        fj_buf_put(out, "(fj_real)NAN");
    else if (value == (double)INFINITY)
        fj_buf_put(out, "(fj_real)INFINITY");
    else if (value == -(double)INFINITY)
        fj_buf_put(out, "-(fj_real)INFINITY");
    else {
        fj_buf_put(out, "(fj_real)");
        fj_buf_double(out, value);
    }
}

static void put_literal(fj_buf *out, fj_type type, int64_t i, double f) {
    if (type == FJ_TYPE_FLOAT)
        put_double(out, f);
    else if (type == FJ_TYPE_BOOL)
        fj_buf_put(out, i != 0 ? "1" : "0");
    else if (type == FJ_TYPE_I32 && i == INT32_MIN)
        fj_buf_put(out, "(-2147483647 - 1)");
    else if (type == FJ_TYPE_I64 && i == INT64_MIN)
        fj_buf_put(out, "(-9223372036854775807LL - 1)");
    else
        fj_buf_printf(out, type == FJ_TYPE_I64 ? "%lldLL" : "%lld", (long long)i);
}

/* A number as a value: lanes that are all the same, or on cuda the number. */
static void put_splat(fj_emit *emit, fj_type type, int64_t i, double f) {
    fj_buf_printf(emit->out, is_cuda(emit) ? "(fj_%c)(" : "fj_splat_%c(", fj_type_letters[type]);
    put_literal(emit->out, type, i, f);
    fj_buf_put(emit->out, ")");
}

void fj_emit_value(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    if (fj_op_is_const((fj_op)node->op))
        put_splat(emit, (fj_type)node->type, node->imm.i, node->imm.f);
    else
        fj_buf_printf(emit->out, "v%u", ref);
}

/* ---- Expressions ------------------------------------------------------------------------------- */

/* The CUDA column: a, b, c that stand alone are the arguments. */
static void put_cuda_text(fj_emit *emit, const char *text, const fj_ref *args) {
    for (const char *at = text; *at != '\0'; at++) {
        const bool alone =
            (at == text || (!fj_is_alnum(at[-1]) && at[-1] != '_')) && !fj_is_alnum(at[1]) && at[1] != '_';
        if (alone && *at >= 'a' && *at <= 'c')
            fj_emit_value(emit, args[*at - 'a']);
        else
            fj_buf_write(emit->out, at, 1);
    }
}

static void put_pointwise(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    const fj_ref *args = fj_ir_args(emit->ir, ref);
    const fj_op_info *info = &fj_op_table[node->op];
    if (is_cuda(emit)) {
        put_cuda_text(emit, info->cuda, args);
        return;
    }
    if (info->rule >= FJ_RULE_CAST_BOOL) {
        fj_buf_printf(emit->out, "fj_cast_%c_%c(", fj_emit_letter(emit, args[0]), fj_emit_letter(emit, ref));
    } else {
        const char letter = fj_emit_letter(emit, args[node->op == FJ_OP_WHERE ? 1 : 0]);
        fj_buf_printf(emit->out, "fj_%s_%c(", info->name, letter);
    }
    for (int i = 0; i < node->argc; i++) {
        fj_buf_put(emit->out, i > 0 ? ", " : "");
        fj_emit_value(emit, args[i]);
    }
    fj_buf_put(emit->out, ")");
}

/* The tensor, the rank and the indices: as int64, on cuda as they are. */
static void put_access(fj_emit *emit, int64_t capture, const fj_ref *indices, int rank) {
    fj_buf_printf(emit->out, "&a->captures[%d], %d, ", (int)capture, rank);
    if (rank == 0) {
        fj_buf_put(emit->out, "(const fj_l *)0");
        return;
    }
    fj_buf_put(emit->out, is_cuda(emit) ? "fj_indices{" : "(const fj_l[]){");
    for (int i = 0; i < rank; i++) {
        const bool wide = fj_ir_type(emit->ir, indices[i]) == FJ_TYPE_I64;
        fj_buf_put(emit->out, i > 0 ? ", " : "");
        fj_buf_put(emit->out, wide || is_cuda(emit) ? "" : "fj_cast_i_l(");
        fj_emit_value(emit, indices[i]);
        fj_buf_put(emit->out, wide || is_cuda(emit) ? "" : ")");
    }
    fj_buf_put(emit->out, "}");
}

enum { LEAVES_OF_LANES = 8 | 16 };

/* Of a read or scatter: bit i says whether index i may differ between lanes. */
static unsigned varying_indices(const fj_emit *emit, const fj_ref *indices, int count) {
    unsigned varying = 0;
    for (int i = 0; i < count; i++) {
        if (emit->leaves[indices[i]] & LEAVES_OF_LANES) varying |= 1u << i;
    }
    return varying;
}

static void put_load(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    const char *dtype = fj_dtype_code_name(emit->ir->captures.data[node->imm.i].dtype);
    const unsigned varying = is_cuda(emit) ? 0 : varying_indices(emit, fj_ir_args(emit->ir, ref), node->argc);
    const char *reach = is_cuda(emit) ? "" : varying ? "_mixed" : "_uniform";
    fj_buf_printf(emit->out, "fj_load_%s%s(", dtype, reach);
    put_access(emit, node->imm.i, fj_ir_args(emit->ir, ref), node->argc);
    if (varying) fj_buf_printf(emit->out, ", %uu", varying);
    fj_buf_put(emit->out, ")");
}

static void put_scalar(fj_emit *emit, const fj_node *node) {
    fj_buf_printf(emit->out, is_cuda(emit) ? "(fj_%c)(" : "fj_splat_%c(", fj_type_letters[node->type]);
    fj_buf_printf(emit->out,
                  node->type == FJ_TYPE_FLOAT  ? "(fj_real)a->scalars[%d].f)"
                  : node->type == FJ_TYPE_BOOL ? "a->scalars[%d].i != 0)"
                                               : "a->scalars[%d].i)",
                  (int)node->imm.i);
}

static void put_expression(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    const bool cuda = is_cuda(emit);
    switch ((fj_op)node->op) {
    case FJ_OP_B:
    case FJ_OP_H:
    case FJ_OP_Q: fj_buf_printf(emit->out, cuda ? "%s" : "fj_splat_i(%s)", fj_op_table[node->op].name); break;
    case FJ_OP_KV:
    case FJ_OP_SCORE:
    case FJ_OP_ADJOINT:
    case FJ_OP_LIVE: fj_buf_put(emit->out, fj_op_table[node->op].name); break;
    case FJ_OP_SCALAR: put_scalar(emit, node); break;
    case FJ_OP_DIM:
        fj_buf_printf(emit->out, cuda ? "a->captures[%d].shape[%d]" : "fj_splat_l(a->captures[%d].shape[%d])",
                      (int)(node->imm.i >> 8), (int)(node->imm.i & 255));
        break;
    case FJ_OP_LOAD: put_load(emit, ref); break;
    case FJ_OP_OUT_OF_RANGE:
        fj_buf_put(emit->out, cuda ? "fj_out_of_range(" : "fj_out_of_range_mixed(");
        put_access(emit, node->imm.i, fj_ir_args(emit->ir, ref), node->argc);
        if (!cuda)
            fj_buf_printf(emit->out, ", %uu", varying_indices(emit, fj_ir_args(emit->ir, ref), node->argc));
        fj_buf_put(emit->out, ")");
        break;
    default: put_pointwise(emit, ref);
    }
}

/* ---- Statements ---------------------------------------------------------------------------------- */

static void put_effect(fj_emit *emit, fj_ref ref, int depth) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    const fj_ref *args = fj_ir_args(emit->ir, ref);
    fj_emit_indent(emit, depth);
    if (node->op == FJ_OP_SCATTER) {
        fj_buf_printf(emit->out,
                      is_cuda(emit) ? "fj_scatter_f(grads->capture[%d], "
                                    : "fj_scatter_mixed_f(grads->capture[%d], ",
                      (int)node->imm.i);
        put_access(emit, node->imm.i, args + 1, node->argc - 1);
        if (!is_cuda(emit))
            fj_buf_printf(emit->out, ", %uu", varying_indices(emit, args + 1, node->argc - 1));
    } else {
        fj_buf_printf(emit->out, "fj_scatter_scalar_f(&grads->scalar[%d]", (int)node->imm.i);
    }
    fj_buf_put(emit->out, ", ");
    fj_emit_value(emit, args[0]);
    fj_buf_put(emit->out, ", live);\n");
}

/* A step of argmax or argmin: the counter is taken where the value is better, or is the first NaN. */
static void put_arg_step(fj_emit *emit, fj_ref ref, int depth) {
    const fj_ref *args = fj_ir_args(emit->ir, ref);
    const char letter = fj_emit_letter(emit, args[1]);
    const char *step = fj_op_table[fj_reduction_table[fj_ir_at(emit->ir, ref)->op].step].name;
    const bool cuda = is_cuda(emit);
    fj_emit_indent(emit, depth);
    fj_buf_printf(emit->out, "const fj_b c%u = ", ref);
    if (letter == 'f') fj_buf_put(emit->out, cuda ? "fj_or(" : "fj_or_b(");
    if (cuda)
        fj_buf_printf(emit->out, "(");
    else
        fj_buf_printf(emit->out, "fj_%s_%c(", step, letter);
    fj_emit_value(emit, args[1]);
    fj_buf_printf(emit->out, cuda ? (step[0] == 'g' ? " > m%u)" : " < m%u)") : ", m%u)", ref);
    if (letter == 'f') {
        fj_buf_put(emit->out, cuda ? ", fj_and(fj_isnan(" : ", fj_and_b(fj_isnan_f(");
        fj_emit_value(emit, args[1]);
        fj_buf_printf(emit->out, cuda ? "), fj_not(fj_isnan(m%u))))" : "), fj_not_b(fj_isnan_f(m%u))))", ref);
    }
    fj_buf_put(emit->out, ";\n");
    fj_emit_indent(emit, depth);
    if (cuda)
        fj_buf_printf(emit->out, "v%u = c%u ? v%u : v%u;\n", ref, ref, args[0], ref);
    else
        fj_buf_printf(emit->out, "v%u = fj_where_l(c%u, v%u, v%u);\n", ref, ref, args[0], ref);
    fj_emit_indent(emit, depth);
    fj_buf_printf(emit->out, "m%u = ", ref);
    if (cuda)
        fj_buf_printf(emit->out, "c%u ? ", ref);
    else
        fj_buf_printf(emit->out, "fj_where_%c(c%u, ", letter, ref);
    fj_emit_value(emit, args[1]);
    fj_buf_printf(emit->out, cuda ? " : m%u;\n" : ", m%u);\n", ref);
}

static void put_step(fj_emit *emit, fj_ref ref, int depth) {
    const fj_ref body = fj_ir_args(emit->ir, ref)[1];
    const fj_op_info *step = &fj_op_table[fj_reduction_table[fj_ir_at(emit->ir, ref)->op].step];
    fj_emit_indent(emit, depth);
    if (is_cuda(emit))
        fj_buf_printf(emit->out, "v%u = fj_%s(v%u, ", ref, step->name, ref);
    else
        fj_buf_printf(emit->out, "v%u = fj_%s_%c(v%u, ", ref, step->name, fj_emit_letter(emit, ref), ref);
    fj_emit_value(emit, body);
    fj_buf_put(emit->out, ");\n");
}

static void put_start(fj_emit *emit, fj_ref ref, char name, fj_type type, int depth) {
    const fj_reduction_info *info = &fj_reduction_table[fj_ir_at(emit->ir, ref)->op];
    fj_emit_indent(emit, depth);
    fj_buf_printf(emit->out, "fj_%c %c%u = ", fj_type_letters[type], name, ref);
    put_splat(emit, type, type == FJ_TYPE_I64 ? info->empty_i64 : info->empty_i32, info->empty);
    fj_buf_put(emit->out, ";\n");
}

static void put_loop(fj_emit *emit, const fj_sched_item *item, int depth) {
    const fj_ref ref = item->ref, loop = item->loop;
    const bool is_arg = ref != 0 && fj_op_table[fj_ir_at(emit->ir, ref)->op].rule == FJ_RULE_REDUCE_ARG;
    if (is_arg) {
        fj_emit_indent(emit, depth);
        fj_buf_printf(emit->out, is_cuda(emit) ? "fj_l v%u = 0;\n" : "fj_l v%u = fj_splat_l(0);\n", ref);
    }
    if (ref != 0) {
        const fj_type type = fj_ir_type(emit->ir, fj_ir_args(emit->ir, ref)[1]);
        put_start(emit, ref, is_arg ? 'm' : 'v', type, depth);
    }
    /* Unrolling wins nothing for atomic additions, and makes them long. */
    if (is_cuda(emit) && ref == 0) fj_buf_put(emit->out, "#pragma unroll 1\n");
    fj_emit_indent(emit, depth);
    fj_buf_printf(emit->out, "for (int64_t i%u = 0, n%u = ", loop, loop);
    fj_buf_put(emit->out, is_cuda(emit) ? "" : "fj_first_l(");
    fj_emit_value(emit, fj_ir_args(emit->ir, loop)[0]);
    fj_buf_put(emit->out, is_cuda(emit) ? "" : ")");
    fj_buf_printf(emit->out, "; i%u < n%u; i%u++) {\n", loop, loop, loop);
    fj_emit_indent(emit, depth + 1);
    fj_buf_printf(emit->out,
                  is_cuda(emit) ? "const fj_l v%u = i%u;\n" : "const fj_l v%u = fj_splat_l(i%u);\n", loop,
                  loop);
    fj_emit_block(emit, item->body, depth + 1);
    if (is_arg)
        put_arg_step(emit, ref, depth + 1);
    else if (ref != 0)
        put_step(emit, ref, depth + 1);
    fj_emit_indent(emit, depth);
    fj_buf_put(emit->out, "}\n");
}

void fj_emit_block(fj_emit *emit, const fj_sched_block *block, int depth) {
    for (size_t i = 0; i < block->items.len; i++) {
        const fj_sched_item *item = &block->items.data[i];
        if (item->loop != 0) {
            put_loop(emit, item, depth);
        } else if (fj_ir_type(emit->ir, item->ref) == FJ_TYPE_VOID) {
            put_effect(emit, item->ref, depth);
        } else if (!fj_op_is_const((fj_op)fj_ir_at(emit->ir, item->ref)->op)) {
            fj_emit_indent(emit, depth);
            fj_buf_printf(emit->out, "const fj_%c v%u = ", fj_emit_letter(emit, item->ref), item->ref);
            put_expression(emit, item->ref);
            fj_buf_put(emit->out, ";\n");
        }
    }
}
