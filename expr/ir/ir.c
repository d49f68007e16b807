/* The graph: builder with hash-consing, substitution, validation. */
#include "expr/ir/ir.h"

#include <assert.h>
#include <string.h>

#include "expr/ir/loops.h"
#include "expr/ir/schedule.h"

enum { TABLE_MIN = 256 };

/* ---- Creation -------------------------------------------------------------------------------- */

fj_ir *fj_ir_create(fj_arena *arena) {
    fj_ir *ir = FJ_NEW(arena, fj_ir);
    ir->arena = arena;
    FJ_PUSH(arena, &ir->nodes, (fj_node){0});
    FJ_PUSH(arena, &ir->args, 0); /* never empty: a pointer into it is always one */
    ir->table_cap = TABLE_MIN;
    ir->table = FJ_NEW_ARRAY(arena, uint32_t, ir->table_cap);
    return ir;
}

fj_ir *fj_ir_create_like(const fj_ir *ir) {
    fj_ir *copy = fj_ir_create(ir->arena);
    for (size_t i = 0; i < ir->captures.len; i++) FJ_PUSH(ir->arena, &copy->captures, ir->captures.data[i]);
    for (size_t i = 0; i < ir->scalars.len; i++) FJ_PUSH(ir->arena, &copy->scalars, ir->scalars.data[i]);
    return copy;
}

fj_type fj_ir_value_type(fj_dtype dtype) {
    switch (dtype) {
    case FJ_DTYPE_BOOL: return FJ_TYPE_BOOL;
    case FJ_DTYPE_I8:
    case FJ_DTYPE_U8:
    case FJ_DTYPE_I16:
    case FJ_DTYPE_I32: return FJ_TYPE_I32;
    case FJ_DTYPE_I64: return FJ_TYPE_I64;
    default: return FJ_TYPE_FLOAT;
    }
}

/* ---- Hash-consing ------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 29);
}

static uint64_t hash_of(const fj_ir_candidate *c) {
    uint64_t hash = mix((uint64_t)c->op * 8 + (uint64_t)c->type, (uint64_t)c->imm);
    for (int i = 0; i < c->argc; i++) hash = mix(hash, c->args[i]);
    return hash;
}

static bool is_same(const fj_ir *ir, fj_ref ref, const fj_ir_candidate *c) {
    const fj_node *node = fj_ir_at(ir, ref);
    return node->op == c->op && node->type == c->type && node->argc == c->argc && node->imm.i == c->imm &&
           (c->argc == 0 || memcmp(fj_ir_args(ir, ref), c->args, sizeof(fj_ref) * (size_t)c->argc) == 0);
}

static bool is_unique(fj_op op) { return op == FJ_OP_LOOP || fj_op_table[op].rule == FJ_RULE_EFFECT; }

/* The slot of the node that equals c, or the empty slot where it belongs. */
static uint32_t *find_slot(const fj_ir *ir, const fj_ir_candidate *c) {
    const size_t mask = ir->table_cap - 1;
    size_t at = (size_t)hash_of(c) & mask;
    while (ir->table[at] != 0 && !is_same(ir, ir->table[at], c)) at = (at + 1) & mask;
    return &ir->table[at];
}

static fj_ir_candidate candidate_of(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    return (fj_ir_candidate){(fj_op)node->op, (fj_type)node->type, node->imm.i, fj_ir_args(ir, ref),
                             node->argc};
}

static void grow_table(fj_ir *ir) {
    ir->table_cap *= 2;
    ir->table = FJ_NEW_ARRAY(ir->arena, uint32_t, ir->table_cap);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (is_unique((fj_op)fj_ir_at(ir, ref)->op)) continue;
        const fj_ir_candidate c = candidate_of(ir, ref);
        *find_slot(ir, &c) = ref;
    }
}

static fj_ref append(fj_ir *ir, const fj_ir_candidate *c) {
    if (ir->nodes.len >= FJ_IR_MAX_NODES) {
        fj_fail(ir->arena->scope, FJ_ERR_MOD, "the mod needs more than %d values", FJ_IR_MAX_NODES);
    }
    const fj_node node = {
        .op = (uint16_t)c->op,
        .type = (uint8_t)c->type,
        .argc = (uint8_t)c->argc,
        .args = (uint32_t)ir->args.len,
        .imm.i = c->imm,
    };
    for (int i = 0; i < c->argc; i++) FJ_PUSH(ir->arena, &ir->args, c->args[i]);
    FJ_PUSH(ir->arena, &ir->nodes, node);
    return (fj_ref)(ir->nodes.len - 1);
}

fj_ref fj_ir_node(fj_ir *ir, fj_op op, fj_type type, int64_t imm, const fj_ref *args, int argc) {
    fj_ref copy[FJ_IR_MAX_ARGS]; /* args may lie in ir->args, which moves when it grows */
    assert(argc <= FJ_IR_MAX_ARGS && fj_ir_check(ir, &(fj_ir_candidate){op, type, imm, args, argc}) == NULL);
    for (int i = 0; i < argc; i++) copy[i] = args[i];
    const fj_ir_candidate c = {op, type, imm, copy, argc};
    if (op == FJ_OP_LOOP && imm >= ir->loop_count) ir->loop_count = (uint32_t)imm + 1;
    if (is_unique(op)) return append(ir, &c);
    uint32_t *slot = find_slot(ir, &c);
    if (*slot != 0) return *slot;
    const fj_ref ref = append(ir, &c);
    *slot = ref;
    if (ir->nodes.len * 2 > ir->table_cap) grow_table(ir);
    return ref;
}

/* ---- Builder ----------------------------------------------------------------------------------- */

fj_ref fj_ir_bool(fj_ir *ir, bool value) {
    return fj_ir_node(ir, FJ_OP_CONST_BOOL, FJ_TYPE_BOOL, value, NULL, 0);
}

fj_ref fj_ir_i32(fj_ir *ir, int32_t value) {
    return fj_ir_node(ir, FJ_OP_CONST_I32, FJ_TYPE_I32, value, NULL, 0);
}

fj_ref fj_ir_i64(fj_ir *ir, int64_t value) {
    return fj_ir_node(ir, FJ_OP_CONST_I64, FJ_TYPE_I64, value, NULL, 0);
}

fj_ref fj_ir_float(fj_ir *ir, double value) {
    int64_t bits = INT64_C(0x7ff8000000000000);
    if (value == value) memcpy(&bits, &value, sizeof bits);
    return fj_ir_node(ir, FJ_OP_CONST_FLOAT, FJ_TYPE_FLOAT, bits, NULL, 0);
}

fj_ref fj_ir_leaf(fj_ir *ir, fj_op op) {
    const fj_rule rule = fj_op_table[op].rule;
    const fj_type type = rule == FJ_RULE_LEAF_BOOL  ? FJ_TYPE_BOOL
                       : rule == FJ_RULE_LEAF_FLOAT ? FJ_TYPE_FLOAT
                                                    : FJ_TYPE_I32;
    return fj_ir_node(ir, op, type, 0, NULL, 0);
}

fj_ref fj_ir_scalar(fj_ir *ir, uint32_t scalar) {
    return fj_ir_node(ir, FJ_OP_SCALAR, ir->scalars.data[scalar].type, scalar, NULL, 0);
}

fj_ref fj_ir_dim(fj_ir *ir, uint32_t capture, int axis) {
    return fj_ir_node(ir, FJ_OP_DIM, FJ_TYPE_I64, (int64_t)capture << 8 | axis, NULL, 0);
}

fj_ref fj_ir_load(fj_ir *ir, uint32_t capture, const fj_ref *indices, int count) {
    const fj_type type = fj_ir_value_type(ir->captures.data[capture].dtype);
    return fj_ir_node(ir, FJ_OP_LOAD, type, capture, indices, count);
}

fj_ref fj_ir_out_of_range(fj_ir *ir, uint32_t capture, const fj_ref *indices, int count) {
    return fj_ir_node(ir, FJ_OP_OUT_OF_RANGE, FJ_TYPE_BOOL, capture, indices, count);
}

fj_ref fj_ir_loop(fj_ir *ir, fj_ref extent) {
    return fj_ir_node(ir, FJ_OP_LOOP, FJ_TYPE_I64, ir->loop_count, &extent, 1);
}

fj_ref fj_ir_reduce(fj_ir *ir, fj_op op, fj_ref loop, fj_ref body) {
    const fj_type type = fj_op_table[op].rule == FJ_RULE_REDUCE_ARG ? FJ_TYPE_I64 : fj_ir_type(ir, body);
    return fj_ir_node(ir, op, type, 0, (fj_ref[]){loop, body}, 2);
}

static fj_ref build_pointwise(fj_ir *ir, fj_op op, const fj_ref *args, int argc) {
    const fj_ref typed = args[op == FJ_OP_WHERE ? 1 : 0];
    return fj_ir_node(ir, op, (fj_type)fj_op_result(op, (int)fj_ir_type(ir, typed)), 0, args, argc);
}

fj_ref fj_ir_op1(fj_ir *ir, fj_op op, fj_ref a) { return build_pointwise(ir, op, (fj_ref[]){a, 0}, 1); }

fj_ref fj_ir_op2(fj_ir *ir, fj_op op, fj_ref a, fj_ref b) {
    return build_pointwise(ir, op, (fj_ref[]){a, b}, 2);
}

fj_ref fj_ir_op3(fj_ir *ir, fj_op op, fj_ref a, fj_ref b, fj_ref c) {
    return build_pointwise(ir, op, (fj_ref[]){a, b, c}, 3);
}

fj_ref fj_ir_cast(fj_ir *ir, fj_ref a, fj_type type) {
    static const fj_op casts[FJ_TYPE_COUNT] = {
        [FJ_TYPE_BOOL] = FJ_OP_CAST_BOOL,
        [FJ_TYPE_I32] = FJ_OP_CAST_I32,
        [FJ_TYPE_I64] = FJ_OP_CAST_I64,
        [FJ_TYPE_FLOAT] = FJ_OP_CAST_FLOAT,
    };
    return fj_ir_type(ir, a) == type ? a : fj_ir_op1(ir, casts[type], a);
}

fj_ref fj_ir_scatter(fj_ir *ir, uint32_t capture, fj_ref value, const fj_ref *indices, int count) {
    fj_ref args[FJ_IR_MAX_ARGS] = {value};
    for (int i = 0; i < count; i++) args[i + 1] = indices[i];
    return fj_ir_node(ir, FJ_OP_SCATTER, FJ_TYPE_VOID, capture, args, count + 1);
}

fj_ref fj_ir_scatter_scalar(fj_ir *ir, uint32_t scalar, fj_ref value) {
    return fj_ir_node(ir, FJ_OP_SCATTER_SCALAR, FJ_TYPE_VOID, scalar, &value, 1);
}

/* ---- Substitution ------------------------------------------------------------------------------ */

/* Marks what of root may hold `from`. A reduction that binds `from` holds it no more. */
static bool *mark_between(const fj_ir *ir, fj_ref root, fj_ref from) {
    bool *marks = FJ_NEW_ARRAY(ir->arena, bool, root + 1);
    marks[root] = true;
    for (fj_ref ref = root; ref > from; ref--) {
        if (!marks[ref]) continue;
        const fj_node *node = fj_ir_at(ir, ref);
        const fj_ref *args = fj_ir_args(ir, ref);
        if (fj_op_is_reduction((fj_op)node->op) && args[0] == from) {
            marks[ref] = false;
            continue;
        }
        for (int i = 0; i < node->argc; i++) marks[args[i]] = true;
    }
    return marks;
}

/* requires: no reduction inside root binds a loop that is free in `to`. */
fj_ref fj_ir_substitute(fj_ir *ir, fj_ref root, fj_ref from, fj_ref to) {
    if (root == from) return to;
    if (root < from) return root;
    const bool *marks = mark_between(ir, root, from);
    fj_ref *map = FJ_NEW_ARRAY(ir->arena, fj_ref, root + 1);
    map[from] = to;
    for (fj_ref ref = from + 1; ref <= root; ref++) {
        if (!marks[ref]) continue;
        const fj_node node = *fj_ir_at(ir, ref);
        fj_ref args[FJ_IR_MAX_ARGS] = {0};
        bool changed = false;
        for (int i = 0; i < node.argc; i++) {
            const fj_ref old = fj_ir_args(ir, ref)[i];
            args[i] = map[old] != 0 ? map[old] : old;
            changed |= args[i] != old;
        }
        if (!changed) continue;
        const int64_t imm = node.op == FJ_OP_LOOP ? ir->loop_count : node.imm.i;
        map[ref] = fj_ir_node(ir, (fj_op)node.op, (fj_type)node.type, imm, args, node.argc);
    }
    return map[root] != 0 ? map[root] : root;
}

/* ---- Validation -------------------------------------------------------------------------------- */

#define WRONG(...) fj_arena_printf(ir->arena, __VA_ARGS__)

static const char *validate_capture(const fj_ir *ir, size_t index) {
    const fj_capture *capture = &ir->captures.data[index];
    if (capture->rank < 0 || capture->rank > FJ_MAX_RANK) return WRONG("capture %zu has a bad rank", index);
    if ((unsigned)capture->dtype >= FJ_DTYPE_COUNT) return WRONG("capture %zu has a bad dtype", index);
    for (int i = 0; i < capture->rank; i++) {
        if (capture->dims[i] < (capture->literal ? 0 : -1))
            return WRONG("capture %zu has a bad dimension", index);
    }
    if (capture->literal && capture->values == NULL && capture->int_values == NULL) {
        return WRONG("capture %zu is a literal without values", index);
    }
    return NULL;
}

static const char *validate_node(const fj_ir *ir, fj_ref ref, bool *loop_seen) {
    const fj_ir_candidate c = candidate_of(ir, ref);
    for (int i = 0; i < c.argc; i++) {
        if (c.args[i] >= ref) return WRONG("%%%u: argument %%%u does not precede it", ref, c.args[i]);
    }
    const char *wrong = fj_ir_check(ir, &c);
    if (wrong != NULL) return WRONG("%%%u: %s", ref, wrong);
    if (!is_unique(c.op) && *find_slot(ir, &c) != ref) return WRONG("%%%u: an equal node precedes it", ref);
    if (c.op == FJ_OP_LOOP) {
        if (loop_seen[c.imm]) return WRONG("%%%u: two loops have the number %lld", ref, (long long)c.imm);
        loop_seen[c.imm] = true;
    }
    return NULL;
}

static const char *validate_root(const fj_ir *ir, const char *name, fj_ref root, fj_type type,
                                 const fj_free_loops *loops) {
    if (root == 0) return NULL;
    if (root >= ir->nodes.len) return WRONG("root %s does not exist", name);
    if (fj_ir_type(ir, root) != type) return WRONG("the root %s has the wrong type", name);
    return loops[root].count == 0 ? NULL : WRONG("the root %s has a free loop", name);
}

static const char *validate_roots(const fj_ir *ir, const fj_free_loops *loops) {
    const struct {
        const char *name;
        fj_ref root;
        fj_type type;
    } roots[] = {
        {"score", ir->score, FJ_TYPE_FLOAT},
        {"mask", ir->mask, FJ_TYPE_BOOL},
        {"fault", ir->fault, FJ_TYPE_BOOL},
        {"dscore", ir->dscore, FJ_TYPE_FLOAT},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(roots); i++) {
        const char *wrong = validate_root(ir, roots[i].name, roots[i].root, roots[i].type, loops);
        if (wrong != NULL) return wrong;
    }
    for (size_t i = 0; i < ir->scatters.len; i++) {
        const fj_ref ref = ir->scatters.data[i];
        if (ref == 0 || ref >= ir->nodes.len || fj_ir_type(ir, ref) != FJ_TYPE_VOID) {
            return WRONG("scatter root %zu is not an effect", i);
        }
    }
    return NULL;
}

const char *fj_ir_validate(const fj_ir *ir) {
    const char *wrong = NULL;
    for (size_t i = 0; i < ir->captures.len && wrong == NULL; i++) wrong = validate_capture(ir, i);
    bool *loop_seen = FJ_NEW_ARRAY(ir->arena, bool, FJ_IR_MAX_NODES);
    for (fj_ref ref = 1; ref < ir->nodes.len && wrong == NULL; ref++) {
        wrong = validate_node(ir, ref, loop_seen);
    }
    if (wrong != NULL) return wrong;
    fj_free_loops *loops = FJ_NEW_ARRAY(ir->arena, fj_free_loops, ir->nodes.len);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (!fj_loops_of_node(ir, ref, loops, &loops[ref])) {
            return WRONG("%%%u: more than %d reductions are nested", ref, FJ_IR_MAX_FREE);
        }
    }
    const uint8_t *leaves = fj_ir_leaves(ir);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        if (fj_ir_at(ir, ref)->op != FJ_OP_LOOP) continue;
        const fj_ref extent = fj_ir_args(ir, ref)[0];
        if (leaves[extent] != 0 || loops[extent].count != 0) {
            return WRONG("%%%u: the extent of the loop is not uniform", ref);
        }
    }
    wrong = validate_roots(ir, loops);
    if (wrong != NULL) return wrong;
    if (ir->mask != 0 && (leaves[ir->mask] & 16) != 0) return WRONG("the mask depends on the score");
    fj_sched_want want = {0};
    want.root_count = fj_ir_roots(ir, &want.roots);
    return fj_schedule(ir, loops, &want) != NULL ? NULL : WRONG("too many reductions are nested");
}
