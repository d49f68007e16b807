/* Guards, and the fault root that is made of them.
 *
 * requires: a valid graph
 * keeps: the meaning; the references of what was there; adds the fault root
 *
 * The guard of a value is the condition under which its result is selected: true for a root; what a
 * where selects has the guard of the where and its condition; a value with several users has the or of
 * theirs. Loops: a user inside a loop that the value is outside of selects it when any iteration does.
 * So the guard of a value has no free loops that the value has not. */
#include "expr/ir/guard.h"

#include <string.h>

#include "expr/ir/optimise.h"

/* ---- Guards -------------------------------------------------------------------------------------- */

fj_ir *fj_ir_copy(const fj_ir *ir) {
    fj_ir *copy = fj_ir_create_like(ir);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        const fj_node *node = fj_ir_at(ir, ref);
        (void)fj_ir_node(copy, (fj_op)node->op, (fj_type)node->type, node->imm.i, fj_ir_args(ir, ref),
                         node->argc);
    }
    copy->score = ir->score;
    copy->mask = ir->mask;
    copy->fault = ir->fault;
    copy->dscore = ir->dscore;
    for (size_t i = 0; i < ir->scatters.len; i++) FJ_PUSH(copy->arena, &copy->scatters, ir->scatters.data[i]);
    return copy;
}

void fj_guards_init(fj_guards *guards, fj_ir *ir) {
    *guards = (fj_guards){.ir = ir, .size = (fj_ref)ir->nodes.len};
    guards->guard = FJ_NEW_ARRAY(ir->arena, fj_ref, ir->nodes.len);
    FJ_PUSH(ir->arena, &guards->loops, (fj_free_loops){0});
}

const fj_free_loops *fj_guards_loops(fj_guards *guards, fj_ref ref) {
    while (guards->loops.len <= ref) {
        fj_free_loops set;
        if (!fj_loops_of_node(guards->ir, (fj_ref)guards->loops.len, guards->loops.data, &set)) {
            fj_fail(guards->ir->arena->scope, FJ_ERR_MOD, "more than %d reductions are nested",
                    FJ_IR_MAX_FREE);
        }
        FJ_PUSH(guards->ir->arena, &guards->loops, set);
    }
    return &guards->loops.data[ref];
}

fj_ref fj_guards_and(fj_ir *ir, fj_ref a, fj_ref b) {
    return fj_opt_node(ir, FJ_OP_AND, FJ_TYPE_BOOL, 0, (fj_ref[]){a, b}, 2);
}

fj_ref fj_guards_or(fj_ir *ir, fj_ref a, fj_ref b) {
    return fj_opt_node(ir, FJ_OP_OR, FJ_TYPE_BOOL, 0, (fj_ref[]){a, b}, 2);
}

bool fj_guards_is_true(const fj_ir *ir, fj_ref guard) {
    const fj_node *node = fj_ir_at(ir, guard);
    return node->op == FJ_OP_CONST_BOOL && node->imm.i == 1;
}

fj_ref fj_guards_edge(fj_guards *guards, fj_ref user, int at) {
    fj_ir *ir = guards->ir;
    const fj_ref guard = guards->guard[user];
    if (fj_ir_at(ir, user)->op != FJ_OP_WHERE || at == 0) return guard;
    fj_ref condition = fj_ir_args(ir, user)[0];
    if (at == 2) condition = fj_opt_node(ir, FJ_OP_NOT, FJ_TYPE_BOOL, 0, &condition, 1);
    return fj_guards_and(ir, guard, condition);
}

fj_free_loops fj_guards_between(fj_guards *guards, fj_ref user, int at) {
    const fj_ref value = fj_ir_args(guards->ir, user)[at];
    fj_free_loops outer = *fj_guards_loops(guards, user), between = {0};
    const fj_free_loops inner = *fj_guards_loops(guards, value);
    if (fj_op_is_reduction((fj_op)fj_ir_at(guards->ir, user)->op) && at == 1) {
        const fj_ref loop = fj_ir_args(guards->ir, user)[0];
        if (!fj_loops_has(&inner, loop)) between.loops[between.count++] = loop;
    }
    for (uint32_t i = 0; i < outer.count; i++) {
        const bool counted = fj_loops_has(&inner, outer.loops[i]) || fj_loops_has(&between, outer.loops[i]);
        if (!counted && between.count < FJ_IR_MAX_FREE) between.loops[between.count++] = outer.loops[i];
    }
    return between;
}

/* Whether any iteration of the loop selects. */
static fj_ref close_loop(fj_guards *guards, fj_ref guard, fj_ref loop) {
    fj_ir *ir = guards->ir;
    if (fj_loops_has(fj_guards_loops(guards, guard), loop)) {
        return fj_opt_node(ir, FJ_OP_REDUCE_ANY, FJ_TYPE_BOOL, 0, (fj_ref[]){loop, guard}, 2);
    }
    const fj_ref extent = fj_ir_args(ir, loop)[0];
    const fj_ref runs = fj_opt_node(ir, FJ_OP_GT, FJ_TYPE_BOOL, 0, (fj_ref[]){extent, fj_ir_i64(ir, 0)}, 2);
    return fj_guards_and(ir, guard, runs);
}

static void select_argument(fj_guards *guards, fj_ref user, int at) {
    const fj_ref value = fj_ir_args(guards->ir, user)[at];
    const fj_free_loops between = fj_guards_between(guards, user, at);
    fj_ref guard = fj_guards_edge(guards, user, at);
    for (uint32_t i = 0; i < between.count; i++) guard = close_loop(guards, guard, between.loops[i]);
    fj_ref *known = &guards->guard[value];
    *known = *known == 0 ? guard : fj_guards_or(guards->ir, *known, guard);
}

void fj_guards_find(fj_guards *guards, const fj_ref *roots, size_t root_count, const bool *marked) {
    for (size_t i = 0; i < root_count; i++) {
        if (roots[i] != 0 && marked[roots[i]]) guards->guard[roots[i]] = fj_ir_bool(guards->ir, true);
    }
    for (fj_ref user = guards->size - 1; user > 0; user--) {
        if (guards->guard[user] == 0) continue;
        const int argc = fj_ir_at(guards->ir, user)->argc;
        for (int i = 0; i < argc; i++) {
            if (marked[fj_ir_args(guards->ir, user)[i]]) select_argument(guards, user, i);
        }
    }
}

/* ---- Faults ----------------------------------------------------------------------------------------- */

static bool divides_ints(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    const bool divides = node->op == FJ_OP_FLOORDIV || node->op == FJ_OP_FLOORMOD || node->op == FJ_OP_FMOD;
    if (!divides || node->type == FJ_TYPE_FLOAT) return false;
    const fj_node *divisor = fj_ir_at(ir, fj_ir_args(ir, ref)[1]);
    return !fj_op_is_const((fj_op)divisor->op) || divisor->imm.i == 0;
}

bool fj_guards_can_fail(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    return (node->op == FJ_OP_LOAD && node->argc > 0) || divides_ints(ir, ref);
}

/* What can fail, and what holds it. */
static bool *mark_failing(const fj_ir *ir) {
    bool *marked = FJ_NEW_ARRAY(ir->arena, bool, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        marked[ref] = fj_guards_can_fail(ir, ref);
        for (int i = 0; i < fj_ir_at(ir, ref)->argc; i++) marked[ref] |= marked[fj_ir_args(ir, ref)[i]];
    }
    return marked;
}

/* A loop that indexes, and on which nothing else of the read depends, fails when its last iteration does:
 * the check leaves the loop. */
static void take_last_iteration(fj_guards *guards, fj_ref read, fj_ref loop, fj_ref *indices, int count) {
    fj_ir *ir = guards->ir;
    if (fj_loops_has(fj_guards_loops(guards, guards->guard[read]), loop)) return;
    for (int i = 0; i < count; i++) {
        if (indices[i] != loop && fj_loops_has(fj_guards_loops(guards, indices[i]), loop)) return;
    }
    const fj_ref extent = fj_ir_args(ir, loop)[0], one = fj_ir_i64(ir, 1);
    const fj_ref last = fj_opt_node(ir, FJ_OP_SUB, FJ_TYPE_I64, 0, (fj_ref[]){extent, one}, 2);
    for (int i = 0; i < count; i++) {
        if (indices[i] == loop) indices[i] = last;
    }
}

static fj_ref read_fails(fj_guards *guards, fj_ref ref) {
    const fj_node node = *fj_ir_at(guards->ir, ref);
    const fj_free_loops loops = *fj_guards_loops(guards, ref);
    fj_ref indices[FJ_IR_MAX_ARGS] = {0};
    for (int i = 0; i < node.argc; i++) indices[i] = fj_ir_args(guards->ir, ref)[i];
    for (uint32_t i = 0; i < loops.count; i++) {
        take_last_iteration(guards, ref, loops.loops[i], indices, node.argc);
    }
    return fj_opt_node(guards->ir, FJ_OP_OUT_OF_RANGE, FJ_TYPE_BOOL, node.imm.i, indices, node.argc);
}

static fj_ref fails(fj_guards *guards, fj_ref ref) {
    fj_ir *ir = guards->ir;
    if (fj_ir_at(ir, ref)->op == FJ_OP_LOAD) return read_fails(guards, ref);
    const fj_ref divisor = fj_ir_args(ir, ref)[1];
    const fj_ref zero = fj_opt_const(ir, fj_ir_type(ir, divisor), 0, 0.0);
    return fj_opt_node(ir, FJ_OP_EQ, FJ_TYPE_BOOL, 0, (fj_ref[]){divisor, zero}, 2);
}

static fj_ref fault_of(fj_guards *guards, fj_ref ref) {
    fj_ir *ir = guards->ir;
    fj_ref fault = fj_guards_and(ir, fails(guards, ref), guards->guard[ref]);
    const fj_free_loops loops = *fj_guards_loops(guards, ref);
    for (uint32_t i = 0; i < loops.count; i++) fault = close_loop(guards, fault, loops.loops[i]);
    return fault;
}

fj_ir *fj_ir_guard(const fj_ir *ir) {
    fj_guards guards;
    fj_ir *to = fj_ir_copy(ir);
    fj_guards_init(&guards, to);
    const bool *marked = mark_failing(ir);
    const fj_ref roots[] = {to->score, to->mask};
    fj_guards_find(&guards, roots, FJ_ARRAY_LEN(roots), marked);
    fj_ref fault = fj_ir_bool(to, false);
    for (fj_ref ref = 1; ref < guards.size; ref++) {
        if (guards.guard[ref] != 0 && fj_guards_can_fail(ir, ref))
            fault = fj_guards_or(to, fault, fault_of(&guards, ref));
    }
    fault = fj_guards_and(to, fault, fj_ir_leaf(to, FJ_OP_LIVE));
    const fj_node *node = fj_ir_at(to, fault);
    to->fault = node->op == FJ_OP_CONST_BOOL && node->imm.i == 0 ? 0 : fault;
    return to;
}
