/* Emits fj_block_class: the interval analysis of the mask as straight-line code (templates/cpu/
 * interval.h); for cuda and masks also fj_may_fault, that of the faults. Loops are not run: a counter is an interval too. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "expr/ir/emit.h"
#include "expr/ir/interval.h"

enum { MOST_TURNS = 16 }; /* of a loop */

/* What is captured is unknown on cuda. Kernels of the cpu look at the elements that a block may read, where these depend on
 * its queries or its keys alone and are few; those of masks have tables as well. */
static fj_iv_kind kind_of(const fj_emit *emit, fj_ref ref) {
    enum { PAIR = 4 | 8 };
    const bool is_load = fj_ir_at(emit->ir, ref)->op == FJ_OP_LOAD;
    if (is_load && emit->target == FJ_EMIT_MASK) return FJ_IV_TABLE;
    if (is_load && emit->target == FJ_EMIT_CPU && (emit->leaves[ref] & PAIR) != PAIR) return FJ_IV_TABLE;
    return fj_iv_kind_of(emit->ir, ref);
}

static void put_type(fj_emit *emit, fj_ref ref, bool constant) {
    fj_buf_printf(emit->out, "    %sfj_iv_%c v%u = ", constant ? "const " : "", fj_emit_letter(emit, ref),
                  ref);
}

static void put_constant(fj_emit *emit, const fj_node *node) {
    fj_buf_printf(emit->out, "fj_iv_const_%c(", fj_type_letters[node->type]);
    if (node->type != FJ_TYPE_FLOAT)
        fj_buf_printf(emit->out, "%s%lldLL%s", node->imm.i == INT64_MIN ? "-1 - " : "",
                      (long long)(node->imm.i == INT64_MIN ? INT64_MAX : node->imm.i), "");
    else if (node->imm.f != node->imm.f)
        fj_buf_put(emit->out, "(double)NAN");
    else if (isinf(node->imm.f))
        fj_buf_put(emit->out, node->imm.f > 0 ? "(double)INFINITY" : "-(double)INFINITY");
    else
        fj_buf_double(emit->out, node->imm.f);
    fj_buf_put(emit->out, ")");
}

static void put_scalar(fj_emit *emit, const fj_node *node) {
    fj_buf_printf(emit->out, "fj_iv_const_%c(a->scalars[%d].%c)", fj_type_letters[node->type],
                  (int)node->imm.i, node->type == FJ_TYPE_FLOAT ? 'f' : 'i');
}

static void put_position(fj_emit *emit, fj_op op) {
    fj_buf_printf(emit->out, "fj_iv_range(%s)",
                  op == FJ_OP_B   ? "b, b"
                  : op == FJ_OP_H ? "h, h"
                  : op == FJ_OP_Q ? "q_first, q_last"
                                  : "kv_first, kv_last");
}

static void put_call(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    const fj_ref *args = fj_ir_args(emit->ir, ref);
    const fj_op_info *info = &fj_op_table[node->op];
    const char letter = fj_emit_letter(emit, args[node->op == FJ_OP_WHERE ? 1 : 0]);
    if (info->rule >= FJ_RULE_CAST_BOOL) {
        fj_buf_printf(emit->out, "fj_iv_cast_%c_%c(", letter, fj_emit_letter(emit, ref));
    } else {
        fj_buf_printf(emit->out, "fj_iv_%s_%c(", info->name, letter);
    }
    for (int i = 0; i < node->argc; i++) fj_buf_printf(emit->out, "%sv%u", i > 0 ? ", " : "", args[i]);
    fj_buf_put(emit->out, ")");
}

/* fj_iv_load_i32(a, capture, rank, indices), of kernels fj_iv_look_i32 */
static void put_table(fj_emit *emit, const fj_node *node, const fj_ref *args) {
    const char *dtype = fj_dtype_code_name(emit->ir->captures.data[node->imm.i].dtype);
    fj_buf_printf(emit->out, "fj_iv_%s_%s(a, %d, %d, ", emit->target == FJ_EMIT_MASK ? "load" : "look", dtype,
                  (int)node->imm.i, node->argc);
    fj_buf_put(emit->out, node->argc > 0 ? "(const fj_iv[]){" : "(const fj_iv *)0");
    for (int i = 0; i < node->argc; i++) fj_buf_printf(emit->out, "%sv%u", i > 0 ? ", " : "", args[i]);
    fj_buf_put(emit->out, node->argc > 0 ? "})" : ")");
}

static void put_interval(fj_emit *emit, fj_ref ref);

/* A short loop of any or all, turn by turn: what a list holds is known better than what all of it spans. Masks alone do it,
 * whose areas are many fewer than their elements. The values of a turn stand in a block of their own. */
static void put_turns(fj_emit *emit, fj_ref ref) {
    const fj_ref loop = fj_ir_args(emit->ir, ref)[0], body = fj_ir_args(emit->ir, ref)[1];
    const fj_ref extent = fj_ir_args(emit->ir, loop)[0];
    const bool any = fj_ir_at(emit->ir, ref)->op == FJ_OP_REDUCE_ANY;
    fj_buf *out = emit->out;
    fj_buf_printf(out, "    if (v%u.lo == v%u.hi && v%u.hi <= %d) {\n    v%u = fj_iv_const_b(%d);\n", extent,
                  extent, extent, MOST_TURNS, ref, !any);
    fj_buf_printf(out,
                  "    for (int64_t i = 0; i < v%u.hi; i++) {\n    const fj_iv_%c v%u = fj_iv_const_l(i);\n",
                  extent, fj_emit_letter(emit, loop), loop);
    for (fj_ref at = loop + 1; at <= body; at++) {
        if (emit->needed[at] && fj_loops_has(&emit->free_loops[at], loop)) put_interval(emit, at);
    }
    fj_buf_printf(out, "    v%u = fj_iv_%s_b(v%u, v%u);\n    }\n    }\n", ref, any ? "or" : "and", ref, body);
}

static void put_interval(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    const fj_ref *args = fj_ir_args(emit->ir, ref);
    const char letter = fj_emit_letter(emit, ref);
    const char *text = fj_op_table[node->op].interval;
    const fj_iv_kind kind = kind_of(emit, ref);
    const bool by_turns =
        kind == FJ_IV_REDUCE && emit->target == FJ_EMIT_MASK && emit->free_loops[ref].count == 0;
    put_type(emit, ref, !by_turns);
    switch (kind) {
    case FJ_IV_TABLE: put_table(emit, node, args); break;
    case FJ_IV_UNKNOWN: fj_buf_printf(emit->out, "fj_iv_top_%c()", letter); break;
    case FJ_IV_CALL: put_call(emit, ref); break;
    case FJ_IV_INCREASING: /* "INC(f)" */
        fj_buf_printf(emit->out, "fj_iv_increasing(v%u, %.*s", args[0], (int)strlen(text + 4), text + 4);
        break;
    case FJ_IV_CONSTANT: put_constant(emit, node); break;
    case FJ_IV_POSITION: put_position(emit, (fj_op)node->op); break;
    case FJ_IV_SCALAR: put_scalar(emit, node); break;
    case FJ_IV_DIM:
        fj_buf_printf(emit->out, "fj_iv_const_l(a->captures[%d].shape[%d])", (int)(node->imm.i >> 8),
                      (int)(node->imm.i & 255));
        break;
    case FJ_IV_LOOP: fj_buf_printf(emit->out, "fj_iv_counter(v%u)", args[0]); break;
    case FJ_IV_REDUCE:
        fj_buf_printf(emit->out, "fj_iv_%s(v%u, v%u)", fj_op_table[node->op].name,
                      fj_ir_args(emit->ir, args[0])[0], args[1]);
        break;
    case FJ_IV_BODY:
        fj_buf_printf(emit->out, "v%u.lo >= 1 ? v%u : fj_iv_top_%c()", fj_ir_args(emit->ir, args[0])[0],
                      args[1], letter);
        break;
    }
    fj_buf_put(emit->out, ";\n");
    if (by_turns) put_turns(emit, ref);
}

/* ---- Functions over a block ------------------------------------------------------------------------- */

/* On cuda a function of many intervals is called: it runs once for 32 blocks, and stands in each of their walks. */
enum { MOST_INLINE = 10 };

static void put_head(fj_emit *emit, const char *name, const char *more, const bool *needed, fj_ref root) {
    int count = 0;
    for (fj_ref ref = 1; ref <= root; ref++) count += needed[ref];
    const bool is_called = emit->target == FJ_EMIT_CUDA && count > MOST_INLINE;
    fj_buf_printf(
        emit->out,
        "%s int %s(%s *a, int64_t b, int64_t h, int64_t q_first,\n"
        "                                 int64_t q_last, int64_t kv_first, int64_t kv_last%s) {\n"
        "    (void)a, (void)b, (void)h, (void)q_first, (void)q_last, (void)kv_first, (void)kv_last;\n",
        is_called ? "FJ_CALLED" : fj_emit_linkage(emit), name, fj_emit_args_type(emit), more);
}

/* What the interval of a root is made of (arena). */
static const bool *needed_by(const fj_emit *emit, fj_ref root, const char *const *spans) {
    const fj_ir *ir = emit->ir;
    bool *needed = FJ_NEW_ARRAY(emit->arena, bool, ir->nodes.len);
    needed[root] = true;
    for (fj_ref ref = root; ref > 0; ref--) {
        const fj_node *node = fj_ir_at(ir, ref);
        if (!needed[ref] || (node->op != FJ_OP_OUT_OF_RANGE && kind_of(emit, ref) == FJ_IV_UNKNOWN)) continue;
        if (spans && spans[ref]) continue;
        for (int i = 0; i < node->argc; i++) needed[fj_ir_args(ir, ref)[i]] = true;
    }
    return needed;
}

void fj_emit_block_class(fj_emit *emit) {
    const bool *needed = emit->needed = needed_by(emit, emit->ir->mask, NULL);
    put_head(emit, "fj_block_class", "", needed, emit->ir->mask);
    for (fj_ref ref = 1; ref <= emit->ir->mask; ref++) {
        if (needed[ref]) put_interval(emit, ref);
    }
    fj_buf_printf(emit->out, "    return fj_iv_class(v%u);\n}\n\n", emit->ir->mask);
}

void fj_emit_span_class(fj_emit *emit, const char *const *spans) {
    const bool *needed = emit->needed = needed_by(emit, emit->ir->mask, spans);
    put_head(emit, "fj_span_class", ", const struct fj_row_span *rows, const struct fj_col_span *cols",
             needed, emit->ir->mask);
    fj_buf_put(emit->out, "    (void)rows, (void)cols;\n");
    for (fj_ref ref = 1; ref <= emit->ir->mask; ref++) {
        if (!needed[ref]) continue;
        if (!spans[ref]) {
            put_interval(emit, ref);
            continue;
        }
        put_type(emit, ref, true);
        fj_buf_printf(emit->out, "fj_span_of_%c(%s->v%u);\n", fj_emit_letter(emit, ref), spans[ref], ref);
    }
    fj_buf_printf(emit->out, "    return fj_iv_class(v%u);\n}\n\n", emit->ir->mask);
}

/* Whether any index may lie outside of its dimension. */
static void put_out_of_range(fj_emit *emit, fj_ref ref) {
    const fj_node *node = fj_ir_at(emit->ir, ref);
    put_type(emit, ref, true);
    for (int i = 0; i < node->argc; i++) {
        fj_buf_printf(emit->out, i + 1 < node->argc ? "fj_iv_or_b(" : "%s", "");
        fj_buf_printf(emit->out, "fj_iv_outside(v%u, a->captures[%d].shape[%d])%s",
                      fj_ir_args(emit->ir, ref)[i], (int)node->imm.i, i, i + 1 < node->argc ? ", " : "");
    }
    if (node->argc == 0) fj_buf_put(emit->out, "fj_iv_const_b(0)");
    for (int i = 1; i < node->argc; i++) fj_buf_put(emit->out, ")");
    fj_buf_put(emit->out, ";\n");
}

void fj_emit_may_fault(fj_emit *emit) {
    const fj_ir *ir = emit->ir;
    const bool *needed = emit->needed = needed_by(emit, ir->fault, NULL);
    put_head(emit, "fj_may_fault", "", needed, ir->fault);
    for (fj_ref ref = 1; ref <= ir->fault; ref++) {
        if (!needed[ref]) continue;
        if (fj_ir_at(ir, ref)->op == FJ_OP_OUT_OF_RANGE)
            put_out_of_range(emit, ref);
        else
            put_interval(emit, ref);
    }
    fj_buf_printf(emit->out, "    return v%u.t;\n}\n\n", ir->fault);
}
