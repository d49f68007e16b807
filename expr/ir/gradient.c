/* Reverse mode over the graph of a score mod.
 *
 *     forward                        backward
 *     score  b h q kv  captures      dscore      scatters: d capture[indices] += adjoint of the read
 *        \    |   /      |              ^           ^
 *         values ...  reads             |           |        adjoint of a value: sum over its users
 *              \       /                 \         /         of (adjoint of the user * derivative)
 *           modified score   <------->   the leaf `adjoint`
 *
 * The graph is walked from the score root downwards; when a value is met, all its users have given their
 * contributions. ops.def says the derivatives of pointwise operations; reductions are here. Invariants:
 *
 *   1. Only *active* values have adjoints: floats on a path from the score root to the score leaf, a read
 *      of a captured floating tensor, or a floating run-time scalar.
 *   2. The adjoint of a value is right wherever its guard (guard.c) holds. Elsewhere it may be anything,
 *      NaN included.
 *   3. So a contribution is selected, where(guard of the edge, d, 0), unless that guard is the value's
 *      own; and what leaves the graph (dscore, scatters) is selected by its guard. The side that a where
 *      does not select therefore gives exactly 0, never 0 * inf.
 *   4. The adjoint of a value has no free loops that the value has not. A user inside a loop that the
 *      value is outside of contributes its sum over the loop, also when nothing depends on the counter.
 *   5. A read is one scatter, with the read's indices: the free loops of the indices repeat it. Its value
 *      is selected by `live` too, so that masked positions and padding add exactly 0.
 *
 * A new operation needs its D column only. A new reduction needs a case in reduction_derivative. */
#include "expr/ir/guard.h"
#include "expr/ir/optimise.h"
#include "expr/ir/schedule.h"

typedef struct gradient {
    fj_ir *ir;
    fj_guards guards;
    bool *active;
    fj_ref *adjoint;
} gradient;

/* ---- Builder words of the D column ---------------------------------------------------------------- */

static fj_ref build(fj_ir *ir, fj_op op, fj_ref a, fj_ref b, fj_ref c) {
    const fj_ref args[] = {a, b, c};
    const fj_type type = fj_ir_type(ir, args[op == FJ_OP_WHERE ? 1 : 0]);
    return fj_opt_node(ir, op, (fj_type)fj_op_result(op, (int)type), 0, args, fj_op_table[op].arity);
}

#define F(x) fj_ir_float(ir, x)
#define ADD(a, b) build(ir, FJ_OP_ADD, a, b, 0)
#define SUB(a, b) build(ir, FJ_OP_SUB, a, b, 0)
#define MUL(a, b) build(ir, FJ_OP_MUL, a, b, 0)
#define DIV(a, b) build(ir, FJ_OP_DIV, a, b, 0)
#define FLOORDIV(a, b) build(ir, FJ_OP_FLOORDIV, a, b, 0)
#define POW(a, b) build(ir, FJ_OP_POW, a, b, 0)
#define AND(a, b) build(ir, FJ_OP_AND, a, b, 0)
#define EQ(a, b) build(ir, FJ_OP_EQ, a, b, 0)
#define LT(a, b) build(ir, FJ_OP_LT, a, b, 0)
#define LE(a, b) build(ir, FJ_OP_LE, a, b, 0)
#define GT(a, b) build(ir, FJ_OP_GT, a, b, 0)
#define GE(a, b) build(ir, FJ_OP_GE, a, b, 0)
#define WHERE(c, a, b) build(ir, FJ_OP_WHERE, c, a, b)
#define NEG(a) build(ir, FJ_OP_NEG, a, 0, 0)
#define SIGN(a) build(ir, FJ_OP_SIGN, a, 0, 0)
#define TRUNC(a) build(ir, FJ_OP_TRUNC, a, 0, 0)
#define LOG(a) build(ir, FJ_OP_LOG, a, 0, 0)
#define EXP(a) build(ir, FJ_OP_EXP, a, 0, 0)
#define RSQRT(a) build(ir, FJ_OP_RSQRT, a, 0, 0)
#define SIN(a) build(ir, FJ_OP_SIN, a, 0, 0)
#define COS(a) build(ir, FJ_OP_COS, a, 0, 0)
#define SINH(a) build(ir, FJ_OP_SINH, a, 0, 0)
#define COSH(a) build(ir, FJ_OP_COSH, a, 0, 0)

/* Arguments and result of the operation, the adjoint of the result, and which arguments matter. */
typedef struct derivation {
    fj_ref G, A, B, C, Y;
    bool wanted[3];
    fj_ref d[3]; /* 0: nothing */
} derivation;

#define Z 0
#define D0
#define D1(x) \
    if (v->wanted[0]) v->d[0] = (x);
#define D2(x, y) \
    D1(x)        \
    if (v->wanted[1]) v->d[1] = (y);
#define D3(x, y, z) \
    D2(x, y)        \
    if (v->wanted[2]) v->d[2] = (z);

#define OP(NAME, name, arity, RULE, INT, FLOAT, CUDA, COST, D, INTERVAL, DOC) \
    static void derive_##name(fj_ir *ir, derivation *v) {                     \
        const fj_ref G = v->G, A = v->A, B = v->B, C = v->C, Y = v->Y;        \
        (void)ir, (void)G, (void)A, (void)B, (void)C, (void)Y;                \
        D                                                                     \
    }
#include "expr/ir/ops.def"

static void (*const derive_table[FJ_OP_COUNT])(fj_ir *, derivation *) = {
#define OP(NAME, name, ...) [FJ_OP_##NAME] = derive_##name,
#include "expr/ir/ops.def"
};

/* ---- Activity ----------------------------------------------------------------------------------------- */

static bool is_source(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    if (node->type != FJ_TYPE_FLOAT) return false;
    if (node->op == FJ_OP_LOAD) {
        const fj_capture *capture = &ir->captures.data[node->imm.i];
        return !capture->literal && !capture->constant;
    }
    return node->op == FJ_OP_SCORE || node->op == FJ_OP_SCALAR;
}

static bool passes(const fj_node *node) {
    const fj_rule rule = fj_op_table[node->op].rule;
    return node->type == FJ_TYPE_FLOAT && (fj_op_is_pointwise((fj_op)node->op) || rule == FJ_RULE_REDUCE_NUM);
}

static bool *find_active(const fj_ir *ir) {
    bool *active = FJ_NEW_ARRAY(ir->arena, bool, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        const fj_node *node = fj_ir_at(ir, ref);
        active[ref] = is_source(ir, ref);
        for (int i = 0; i < node->argc && passes(node); i++) active[ref] |= active[fj_ir_args(ir, ref)[i]];
    }
    return active;
}

/* ---- Contributions --------------------------------------------------------------------------------------- */

/* Adds d, a contribution of `user`, to the adjoint of its argument `at`. */
static void contribute(gradient *g, fj_ref user, int at, fj_ref d) {
    fj_ir *ir = g->ir;
    const fj_ref value = fj_ir_args(ir, user)[at];
    const fj_free_loops between = fj_guards_between(&g->guards, user, at);
    const fj_ref guard = fj_guards_edge(&g->guards, user, at);
    const bool right_already = between.count == 0 && guard == g->guards.guard[value];
    if (!right_already && !fj_guards_is_true(ir, guard)) d = WHERE(guard, d, F(0.0));
    for (uint32_t i = 0; i < between.count; i++) {
        d = fj_opt_node(ir, FJ_OP_REDUCE_SUM, FJ_TYPE_FLOAT, 0, (fj_ref[]){between.loops[i], d}, 2);
    }
    g->adjoint[value] = g->adjoint[value] == 0 ? d : ADD(g->adjoint[value], d);
}

/* The product of the others: what a factor is multiplied with, right also where factors are 0. */
static fj_ref product_of_others(fj_ir *ir, fj_ref loop, fj_ref body) {
    const fj_ref other = fj_ir_loop(ir, fj_ir_args(ir, loop)[0]);
    const fj_ref factor = fj_ir_substitute(ir, body, loop, other);
    return fj_ir_reduce(ir, FJ_OP_REDUCE_PROD, other, WHERE(EQ(other, loop), F(1.0), factor));
}

static fj_ref reduction_derivative(fj_ir *ir, fj_ref ref, fj_ref adjoint) {
    const fj_ref loop = fj_ir_args(ir, ref)[0], body = fj_ir_args(ir, ref)[1];
    switch ((fj_op)fj_ir_at(ir, ref)->op) {
    case FJ_OP_REDUCE_SUM: return adjoint;
    case FJ_OP_REDUCE_PROD: return MUL(adjoint, product_of_others(ir, loop, body));
    default: break; /* the greatest or the least: those that are equal to it share */
    }
    const fj_ref is_it = EQ(body, ref);
    const fj_ref count = fj_ir_reduce(ir, FJ_OP_REDUCE_SUM, loop, WHERE(is_it, F(1.0), F(0.0)));
    return WHERE(is_it, DIV(adjoint, count), F(0.0));
}

static void derive_pointwise(gradient *g, fj_ref ref) {
    const fj_node node = *fj_ir_at(g->ir, ref);
    derivation v = {.G = g->adjoint[ref], .Y = ref};
    fj_ref *const operands[3] = {&v.A, &v.B, &v.C};
    for (int i = 0; i < node.argc && i < 3; i++) {
        *operands[i] = fj_ir_args(g->ir, ref)[i];
        v.wanted[i] = g->active[*operands[i]];
    }
    derive_table[node.op](g->ir, &v);
    for (int i = 0; i < node.argc && i < 3; i++) {
        if (v.d[i] != 0) contribute(g, ref, i, v.d[i]);
    }
}

/* ---- What leaves the graph ---------------------------------------------------------------------------------- */

static fj_ref selected(gradient *g, fj_ref ref, bool live) {
    fj_ir *ir = g->ir;
    fj_ref guard = g->guards.guard[ref];
    if (live) guard = fj_guards_and(ir, guard, fj_ir_leaf(ir, FJ_OP_LIVE));
    return fj_guards_is_true(ir, guard) ? g->adjoint[ref] : WHERE(guard, g->adjoint[ref], F(0.0));
}

static void leave(gradient *g, fj_ref ref) {
    fj_ir *ir = g->ir;
    const fj_node node = *fj_ir_at(ir, ref);
    if (node.op == FJ_OP_SCORE) {
        ir->dscore = selected(g, ref, false);
    } else if (node.op == FJ_OP_SCALAR) {
        const fj_ref effect = fj_ir_scatter_scalar(ir, (uint32_t)node.imm.i, selected(g, ref, true));
        FJ_PUSH(ir->arena, &ir->scatters, effect);
    } else {
        fj_ref indices[FJ_IR_MAX_ARGS];
        for (int i = 0; i < node.argc; i++) indices[i] = fj_ir_args(ir, ref)[i];
        const fj_ref value = selected(g, ref, true);
        FJ_PUSH(ir->arena, &ir->scatters, fj_ir_scatter(ir, (uint32_t)node.imm.i, value, indices, node.argc));
    }
}

/* requires: a valid graph, with or without fault root
 * keeps: all roots; adds dscore and scatters */
fj_ir *fj_ir_gradient(const fj_ir *original) {
    fj_ir *ir = fj_ir_copy(original);
    gradient g = {.ir = ir, .active = find_active(original)};
    ir->scatters.len = 0;
    ir->dscore = ir->score == 0 ? fj_ir_leaf(ir, FJ_OP_ADJOINT) : F(0.0);
    if (ir->score == 0 || ir->score >= original->nodes.len || !g.active[ir->score]) return fj_ir_optimise(ir);
    fj_guards_init(&g.guards, ir);
    fj_guards_find(&g.guards, &ir->score, 1, g.active);
    g.adjoint = FJ_NEW_ARRAY(ir->arena, fj_ref, g.guards.size);
    g.adjoint[ir->score] = fj_ir_leaf(ir, FJ_OP_ADJOINT);
    for (fj_ref ref = ir->score; ref > 0; ref--) {
        if (g.adjoint[ref] == 0 || g.guards.guard[ref] == 0) continue;
        if (is_source(ir, ref))
            leave(&g, ref);
        else if (fj_op_is_pointwise((fj_op)fj_ir_at(ir, ref)->op))
            derive_pointwise(&g, ref);
        else
            contribute(&g, ref, 1, reduction_derivative(ir, ref, g.adjoint[ref]));
    }
    return fj_ir_optimise(ir);
}
