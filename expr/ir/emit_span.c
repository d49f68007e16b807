/* Emits spans for masks: what loose values of the row and column states are over a range of positions, and the mask's class
 * by them.
 *
 * Interval analysis loses what it cannot follow: reductions, bits, reads at places that were read. Of a value that depends on a
 * row or a column alone all values of a block can be computed instead, once for the whole row or column of blocks; their
 * least and greatest are its interval, and a block is decided by what is left. */
#include "expr/ir/emit.h"
#include "expr/ir/interval.h"

static bool is_loose_op(fj_op op) {
    switch (op) {
    case FJ_OP_AND:
    case FJ_OP_OR:
    case FJ_OP_XOR:
    case FJ_OP_WHERE: return true;
    default: return false;
    }
}

/* Per node: whether its interval may be much larger than what it spans (arena). */
static const bool *find_loose(const fj_emit *emit) {
    const fj_ir *ir = emit->ir;
    bool *loose = FJ_NEW_ARRAY(emit->arena, bool, ir->nodes.len),
         *reads = FJ_NEW_ARRAY(emit->arena, bool, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        const fj_node *node = fj_ir_at(ir, ref);
        const fj_iv_kind kind = fj_iv_kind_of(ir, ref);
        const bool is_load = node->op == FJ_OP_LOAD;
        loose[ref] = (kind == FJ_IV_UNKNOWN && !is_load) || kind == FJ_IV_REDUCE || kind == FJ_IV_BODY ||
                     (is_loose_op((fj_op)node->op) && node->type != FJ_TYPE_BOOL);
        for (int i = 0; i < node->argc; i++) {
            const fj_ref arg = fj_ir_args(ir, ref)[i];
            loose[ref] |= loose[arg] || (is_load && reads[arg]);
            reads[ref] |= reads[arg];
        }
        reads[ref] |= is_load;
    }
    return loose;
}

static void put_struct(fj_emit *emit, const char *name, const fj_ref *members, size_t count) {
    fj_buf_printf(emit->out, "struct fj_%s_span {\n    char none;\n", name);
    for (size_t i = 0; i < count; i++)
        fj_buf_printf(emit->out, "    fj_iv_%c v%u;\n", fj_emit_letter(emit, members[i]), members[i]);
    fj_buf_put(emit->out, "};\n");
}

static void put_functions(fj_emit *emit, const char *name, const fj_ref *members, size_t count) {
    const bool rows = name[0] == 'r';
    fj_buf *out = emit->out;
    fj_buf_printf(out, "static inline void fj_%s_span_init(struct fj_%s_span *to) {\n    to->none = 0;\n",
                  name, name);
    for (size_t i = 0; i < count; i++)
        fj_buf_printf(out, "    to->v%u = fj_span_empty_%c();\n", members[i],
                      fj_emit_letter(emit, members[i]));
    fj_buf_printf(
        out,
        "}\nstatic inline void fj_%s_span_add(struct fj_%s_span *to, const struct fj_%s_state *%s%s) {\n"
        "    (void)to, (void)%s%s;\n",
        name, name, name, name, rows ? "" : ", int n", name, rows ? "" : ", (void)n");
    for (size_t i = 0; i < count; i++)
        fj_buf_printf(out, "    to->v%u = fj_span_%s_%c(to->v%u, %s->v%u%s);\n", members[i],
                      rows ? "add" : "lanes", fj_emit_letter(emit, members[i]), members[i], name, members[i],
                      rows ? "" : ", n");
    fj_buf_printf(
        out,
        "}\nstatic inline void fj_%s_span_join(struct fj_%s_span *to, const struct fj_%s_span *from) {\n"
        "    (void)to, (void)from;\n",
        name, name, name);
    for (size_t i = 0; i < count; i++)
        fj_buf_printf(out, "    to->v%u = fj_span_join_%c(to->v%u, from->v%u);\n", members[i],
                      fj_emit_letter(emit, members[i]), members[i], members[i]);
    fj_buf_put(out, "}\n");
}

/* Those of the members that are loose. */
static fj_ref *select(fj_emit *emit, const bool *loose, const fj_ref *members, size_t count,
                      size_t *ret_count) {
    fj_ref *chosen = FJ_NEW_ARRAY(emit->arena, fj_ref, count + 1);
    *ret_count = 0;
    for (size_t i = 0; i < count; i++)
        if (loose[members[i]]) chosen[(*ret_count)++] = members[i];
    return chosen;
}

void fj_emit_spans(fj_emit *emit, const fj_ref *rows, size_t row_count, const fj_ref *cols,
                   size_t col_count) {
    const bool *loose = find_loose(emit);
    const char **spans = FJ_NEW_ARRAY(emit->arena, const char *, emit->ir->nodes.len);
    size_t loose_rows, loose_cols;
    const fj_ref *of_rows = select(emit, loose, rows, row_count, &loose_rows);
    const fj_ref *of_cols = select(emit, loose, cols, col_count, &loose_cols);
    fj_buf_printf(emit->out, "#define FJ_HAS_SPANS %d\n", loose_rows + loose_cols > 0);
    if (loose_rows + loose_cols == 0) return;
    for (size_t i = 0; i < loose_rows; i++) spans[of_rows[i]] = "rows";
    for (size_t i = 0; i < loose_cols; i++) spans[of_cols[i]] = "cols";
    put_struct(emit, "row", of_rows, loose_rows);
    put_struct(emit, "col", of_cols, loose_cols);
    put_functions(emit, "row", of_rows, loose_rows);
    put_functions(emit, "col", of_cols, loose_cols);
    fj_emit_span_class(emit, spans);
}
