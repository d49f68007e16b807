/* Random graphs and their inputs: see generate.h. */
#include "generate.h"

#include <math.h>

#include "base/dtype.h"

static bool chance(fj_random *random, uint32_t percent) { return fj_random_below(random, 100) < percent; }

/* ---- Inputs ------------------------------------------------------------------------------------- */

static const fj_dtype dtypes[] = {
    FJ_DTYPE_F64,  FJ_DTYPE_F32, FJ_DTYPE_I32, FJ_DTYPE_I64,
    FJ_DTYPE_BOOL, FJ_DTYPE_I8,  FJ_DTYPE_U8,  FJ_DTYPE_I16,
};

static void fill(fj_random *random, const fj_eval_tensor *tensor, void *data, int64_t count,
                 fj_generate kind) {
    for (int64_t i = 0; i < count; i++) {
        const double real = fj_random_real(random, kind == FJ_GENERATE_SMOOTH ? 0.5 : -3.0,
                                           kind == FJ_GENERATE_SMOOTH ? 1.5 : 3.0);
        switch (tensor->dtype) {
        case FJ_DTYPE_F64: ((double *)data)[i] = real; break;
        case FJ_DTYPE_F32: ((float *)data)[i] = (float)real; break;
        case FJ_DTYPE_I64: ((int64_t *)data)[i] = (int64_t)fj_random_below(random, 9) - 4; break;
        case FJ_DTYPE_I32: ((int32_t *)data)[i] = (int32_t)fj_random_below(random, 9) - 4; break;
        case FJ_DTYPE_I16: ((int16_t *)data)[i] = (int16_t)((int)fj_random_below(random, 9) - 4); break;
        case FJ_DTYPE_BOOL: ((uint8_t *)data)[i] = (uint8_t)fj_random_below(random, 2); break;
        default: ((uint8_t *)data)[i] = (uint8_t)fj_random_below(random, 5);
        }
    }
}

static void add_capture(fj_world *world, fj_random *random, fj_generate kind, size_t index) {
    fj_ir *ir = world->ir;
    fj_capture capture = {.name = fj_arena_printf(ir->arena, "c%zu", index),
                          .rank = (int)fj_random_below(random, 4)};
    fj_eval_tensor *tensor = &world->captures[index];
    int64_t stride = 1;
    capture.dtype = kind == FJ_GENERATE_SMOOTH || index == 0
                      ? FJ_DTYPE_F64
                      : dtypes[fj_random_below(random, FJ_ARRAY_LEN(dtypes))];
    capture.gradient = fj_dtype_is_float(capture.dtype);
    world->elements[index] = 1;
    for (int d = capture.rank - 1; d >= 0; d--) {
        const bool empty = (kind == FJ_GENERATE_ANY || kind == FJ_GENERATE_MASK) && chance(random, 3);
        capture.dims[d] = -1;
        tensor->dims[d] = empty ? 0 : 1 + (int64_t)fj_random_below(random, 4);
        tensor->strides[d] = stride;
        stride *= tensor->dims[d] + (int64_t)(d > 0 && chance(random, 20));
        world->elements[index] *= tensor->dims[d];
    }
    tensor->dtype = capture.dtype;
    void *data = fj_arena_alloc(ir->arena, (size_t)(stride + 1) * 8);
    fill(random, tensor, data, stride + 1, kind);
    tensor->data = data;
    FJ_PUSH(ir->arena, &ir->captures, capture);
}

static void add_scalar(fj_world *world, fj_random *random, fj_generate kind, size_t index) {
    fj_ir *ir = world->ir;
    fj_runtime_scalar scalar = {.name = fj_arena_printf(ir->arena, "s%zu", index), .type = FJ_TYPE_FLOAT};
    if (kind != FJ_GENERATE_SMOOTH && index > 0)
        scalar.type = chance(random, 20) ? FJ_TYPE_BOOL : FJ_TYPE_I64;
    if (scalar.type == FJ_TYPE_FLOAT) {
        scalar.f = world->scalars[index].f = fj_random_real(random, 0.5, 2.0);
        scalar.gradient = true;
    } else {
        scalar.i = world->scalars[index].i =
            (int64_t)fj_random_below(random, scalar.type == FJ_TYPE_BOOL ? 2 : 9);
    }
    FJ_PUSH(ir->arena, &ir->scalars, scalar);
}

/* ---- Values ---------------------------------------------------------------------------------------- */

typedef FJ_VEC(fj_ref) ref_vec;

typedef struct maker {
    fj_world *world;
    fj_ir *ir;
    fj_random *random;
    fj_generate kind;
    ref_vec pool[FJ_TYPE_COUNT];
    int depth; /* open loops */
} maker;

static void add(maker *m, fj_ref ref) { FJ_PUSH(m->ir->arena, &m->pool[fj_ir_type(m->ir, ref)], ref); }

static bool is_wild(const maker *m) { return m->kind == FJ_GENERATE_ANY || m->kind == FJ_GENERATE_EXACT; }

static fj_ref constant(maker *m, fj_type type) {
    static const int64_t ints[] = {0,  1,  -1, 2,  3,  4,   5,  7,         8,
                                   16, 31, 32, 33, 64, 100, -3, INT32_MAX, INT32_MIN};
    static const double reals[] = {0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.5, 3.0, 1e-3, 1e10, 7.0, 0.1};
    const int64_t i = ints[fj_random_below(m->random, is_wild(m) ? FJ_ARRAY_LEN(ints) : 10)];
    switch (type) {
    case FJ_TYPE_BOOL: return fj_ir_bool(m->ir, chance(m->random, 50));
    case FJ_TYPE_I32: return fj_ir_i32(m->ir, (int32_t)i);
    case FJ_TYPE_I64: return fj_ir_i64(m->ir, chance(m->random, 5) && is_wild(m) ? INT64_MIN : i);
    default: break;
    }
    if (!is_wild(m)) return fj_ir_float(m->ir, fj_random_real(m->random, 0.25, 2.0));
    if (chance(m->random, 5))
        return fj_ir_float(m->ir, chance(m->random, 50) ? (double)INFINITY : (double)NAN);
    return fj_ir_float(m->ir, reals[fj_random_below(m->random, FJ_ARRAY_LEN(reals))]);
}

/* A value of the type: usually a recent one, sometimes a constant. */
static fj_ref pick(maker *m, fj_type type) {
    const ref_vec *pool = &m->pool[type];
    if (pool->len == 0 || chance(m->random, 12)) return constant(m, type);
    const uint32_t back =
        fj_random_below(m->random, 2) ? fj_random_below(m->random, 6) : fj_random_below(m->random, 64);
    return pool
        ->data[pool->len - 1 - (back < pool->len ? back : fj_random_below(m->random, (uint32_t)pool->len))];
}

static fj_ref pick_index(maker *m) { return pick(m, chance(m->random, 60) ? FJ_TYPE_I32 : FJ_TYPE_I64); }

static fj_ref read_capture(maker *m, fj_op op) {
    const uint32_t capture = fj_random_below(m->random, (uint32_t)m->ir->captures.len);
    fj_ref indices[FJ_MAX_RANK];
    const int rank = m->ir->captures.data[capture].rank;
    for (int d = 0; d < rank; d++) {
        indices[d] = pick_index(m);
        if (chance(m->random, 60)) { /* inside, usually */
            const fj_ref dim = fj_ir_dim(m->ir, capture, d);
            indices[d] = fj_ir_op2(m->ir, FJ_OP_FLOORMOD, fj_ir_cast(m->ir, indices[d], FJ_TYPE_I64), dim);
        }
    }
    return op == FJ_OP_LOAD ? fj_ir_load(m->ir, capture, indices, rank)
                            : fj_ir_out_of_range(m->ir, capture, indices, rank);
}

static bool is_smooth(fj_op op) {
    switch (op) {
    case FJ_OP_ADD:
    case FJ_OP_SUB:
    case FJ_OP_MUL:
    case FJ_OP_NEG:
    case FJ_OP_SIN:
    case FJ_OP_COS:
    case FJ_OP_ATAN:
    case FJ_OP_TANH:
    case FJ_OP_TANH_APPROX:
    case FJ_OP_SIGMOID:
    case FJ_OP_ERF: return true;
    default: return false;
    }
}

/* What is rounded correctly, and has a derivative that is. */
static bool is_exact(fj_op op) {
    if (fj_op_table[op].rule != FJ_RULE_FLOAT) return true;
    return op == FJ_OP_DIV || op == FJ_OP_SQRT || (op >= FJ_OP_FLOOR && op <= FJ_OP_TRUNC);
}

static fj_ref pointwise(maker *m) {
    for (;;) {
        const fj_op op = (fj_op)(1 + fj_random_below(m->random, FJ_OP_COUNT - 1));
        const fj_type type = (fj_type)(FJ_TYPE_BOOL + (int)fj_random_below(m->random, FJ_TYPE_COUNT - 1));
        if (!fj_op_is_pointwise(op) || fj_op_result(op, (int)type) == FJ_TYPE_VOID) continue;
        if (m->kind == FJ_GENERATE_EXACT && !is_exact(op)) continue;
        if (m->kind == FJ_GENERATE_SMOOTH && fj_op_result(op, (int)type) == FJ_TYPE_FLOAT &&
            type == FJ_TYPE_FLOAT && op != FJ_OP_WHERE && !is_smooth(op)) {
            continue;
        }
        if (m->kind == FJ_GENERATE_SMOOTH && type == FJ_TYPE_FLOAT &&
            fj_op_result(op, (int)type) != FJ_TYPE_FLOAT) {
            continue; /* a comparison of floats is a kink */
        }
        if (op == FJ_OP_WHERE)
            return fj_ir_op3(m->ir, op, pick(m, FJ_TYPE_BOOL), pick(m, type), pick(m, type));
        if (fj_op_table[op].arity == 1) return fj_ir_op1(m->ir, op, pick(m, type));
        return fj_ir_op2(m->ir, op, pick(m, type), pick(m, type));
    }
}

/* Positive and far from 0, so that logarithms, roots and quotients of it are smooth. */
static fj_ref tame(maker *m) {
    fj_ir *ir = m->ir;
    const fj_ref x =
        fj_ir_op2(ir, FJ_OP_ADD, fj_ir_op1(ir, FJ_OP_SIGMOID, pick(m, FJ_TYPE_FLOAT)), fj_ir_float(ir, 0.5));
    static const fj_op ops[] = {
        FJ_OP_EXP,  FJ_OP_EXP2,  FJ_OP_LOG, FJ_OP_LOG2, FJ_OP_LOG1P, FJ_OP_EXPM1,
        FJ_OP_SQRT, FJ_OP_RSQRT, FJ_OP_ABS, FJ_OP_SINH, FJ_OP_COSH,
    };
    if (chance(m->random, 30)) return fj_ir_op2(ir, FJ_OP_DIV, pick(m, FJ_TYPE_FLOAT), x);
    if (chance(m->random, 15))
        return fj_ir_op2(ir, FJ_OP_POW, x, fj_ir_op1(ir, FJ_OP_TANH, pick(m, FJ_TYPE_FLOAT)));
    if (chance(m->random, 10))
        return fj_ir_op2(ir, FJ_OP_ATAN2, x,
                         fj_ir_op1(ir, FJ_OP_EXP, fj_ir_op1(ir, FJ_OP_TANH, pick(m, FJ_TYPE_FLOAT))));
    return fj_ir_op1(ir, ops[fj_random_below(m->random, FJ_ARRAY_LEN(ops))], x);
}

static void make_values(maker *m, int count);

static fj_ref extent(maker *m) {
    if (m->ir->captures.len > 0 && chance(m->random, 50)) {
        const uint32_t capture = fj_random_below(m->random, (uint32_t)m->ir->captures.len);
        const int rank = m->ir->captures.data[capture].rank;
        if (rank > 0) return fj_ir_dim(m->ir, capture, (int)fj_random_below(m->random, (uint32_t)rank));
    }
    return fj_ir_i64(m->ir, fj_random_below(m->random, 4));
}

/* A reduction over values made with the counter at hand; they do not leave it. */
static fj_ref reduction(maker *m) {
    static const fj_op floats[] = {FJ_OP_REDUCE_SUM, FJ_OP_REDUCE_PROD};
    size_t kept[FJ_TYPE_COUNT];
    for (int t = 0; t < FJ_TYPE_COUNT; t++) kept[t] = m->pool[t].len;
    const fj_ref loop = fj_ir_loop(m->ir, extent(m));
    m->depth++;
    add(m, loop);
    make_values(m, 3 + (int)fj_random_below(m->random, 5));
    m->depth--;
    fj_op op = (fj_op)(FJ_OP_REDUCE_SUM + (int)fj_random_below(m->random, 8));
    fj_type type = (fj_type)(FJ_TYPE_I32 + (int)fj_random_below(m->random, 3));
    if (m->kind == FJ_GENERATE_SMOOTH) {
        op = floats[fj_random_below(m->random, 2)];
        type = FJ_TYPE_FLOAT;
    }
    if (op == FJ_OP_REDUCE_ANY || op == FJ_OP_REDUCE_ALL) type = FJ_TYPE_BOOL;
    const fj_ref body = pick(m, type);
    for (int t = 0; t < FJ_TYPE_COUNT; t++) m->pool[t].len = kept[t];
    /* A sum or product grows: kept small where it is differentiated. */
    const fj_ref whole = fj_ir_reduce(m->ir, op, loop, body);
    return m->kind == FJ_GENERATE_SMOOTH ? fj_ir_op1(m->ir, FJ_OP_TANH, whole) : whole;
}

static void make_values(maker *m, int count) {
    for (int i = 0; i < count; i++) {
        const uint32_t choice = fj_random_below(m->random, 100);
        if (choice < 15 && m->ir->captures.len > 0)
            add(m, read_capture(m, choice < 13 ? FJ_OP_LOAD : FJ_OP_OUT_OF_RANGE));
        else if (choice < 23 && m->depth < 3)
            add(m, reduction(m));
        else if (choice < 45 && m->kind == FJ_GENERATE_SMOOTH)
            add(m, tame(m));
        else
            add(m, pointwise(m));
    }
}

/* ---- Masks ------------------------------------------------------------------------------------------ */

static fj_ref mask_int(maker *m) {
    static const fj_op ops[] = {
        FJ_OP_ADD,      FJ_OP_SUB,  FJ_OP_SUB,     FJ_OP_MUL,       FJ_OP_FLOORDIV,
        FJ_OP_FLOORMOD, FJ_OP_FMOD, FJ_OP_MINIMUM, FJ_OP_MAXIMUM,   FJ_OP_AND,
        FJ_OP_OR,       FJ_OP_XOR,  FJ_OP_SHR,     FJ_OP_CLAMP_MIN, FJ_OP_CLAMP_MAX,
    };
    static const fj_op unary[] = {FJ_OP_NEG, FJ_OP_ABS, FJ_OP_SIGN, FJ_OP_NOT};
    const fj_type type = chance(m->random, 60) ? FJ_TYPE_I32 : FJ_TYPE_I64;
    if (chance(m->random, 15)) return fj_ir_op1(m->ir, unary[fj_random_below(m->random, 4)], pick(m, type));
    if (chance(m->random, 10))
        return fj_ir_op3(m->ir, FJ_OP_WHERE, pick(m, FJ_TYPE_BOOL), pick(m, type), pick(m, type));
    if (chance(m->random, 15))
        return fj_ir_cast(m->ir, pick(m, type), type == FJ_TYPE_I32 ? FJ_TYPE_I64 : FJ_TYPE_I32);
    return fj_ir_op2(m->ir, ops[fj_random_below(m->random, FJ_ARRAY_LEN(ops))], pick(m, type), pick(m, type));
}

/* Any function of the table of one float that gives a float: so each has its interval rule tried. */
static fj_op float_function(fj_random *random) {
    for (;;) {
        const fj_op op = (fj_op)fj_random_below(random, FJ_OP_COUNT);
        if (fj_op_is_pointwise(op) && fj_op_table[op].arity == 1 &&
            fj_op_result(op, FJ_TYPE_FLOAT) == FJ_TYPE_FLOAT)
            return op;
    }
}

static fj_ref mask_float(maker *m) {
    static const fj_op binary[] = {
        FJ_OP_ADD,      FJ_OP_SUB,  FJ_OP_MUL,     FJ_OP_DIV,     FJ_OP_FLOORDIV,
        FJ_OP_FLOORMOD, FJ_OP_FMOD, FJ_OP_MINIMUM, FJ_OP_MAXIMUM,
    };
    if (chance(m->random, 50))
        return fj_ir_cast(m->ir, pick(m, chance(m->random, 60) ? FJ_TYPE_I32 : FJ_TYPE_I64), FJ_TYPE_FLOAT);
    if (chance(m->random, 40)) return fj_ir_op1(m->ir, float_function(m->random), pick(m, FJ_TYPE_FLOAT));
    return fj_ir_op2(m->ir, binary[fj_random_below(m->random, FJ_ARRAY_LEN(binary))], pick(m, FJ_TYPE_FLOAT),
                     pick(m, FJ_TYPE_FLOAT));
}

static fj_ref mask_bool(maker *m) {
    static const fj_op ops[] = {FJ_OP_AND, FJ_OP_OR, FJ_OP_XOR, FJ_OP_AND, FJ_OP_OR};
    const fj_type type = (fj_type)(FJ_TYPE_I32 + (int)fj_random_below(m->random, 3));
    if (chance(m->random, 10)) return fj_ir_op1(m->ir, FJ_OP_NOT, pick(m, FJ_TYPE_BOOL));
    if (chance(m->random, 35))
        return fj_ir_op2(m->ir, ops[fj_random_below(m->random, 5)], pick(m, FJ_TYPE_BOOL),
                         pick(m, FJ_TYPE_BOOL));
    return fj_ir_op2(m->ir, (fj_op)(FJ_OP_EQ + (int)fj_random_below(m->random, 6)), pick(m, type),
                     pick(m, type));
}

static void make_mask(maker *m) {
    add(m, fj_ir_op2(m->ir, FJ_OP_SUB, fj_ir_leaf(m->ir, FJ_OP_Q), fj_ir_leaf(m->ir, FJ_OP_KV)));
    for (int i = 0; i < 14; i++) {
        const uint32_t choice = fj_random_below(m->random, 100);
        if (choice < 5)
            add(m, reduction(m));
        else if (choice < 10 && m->ir->captures.len > 0)
            add(m, read_capture(m, FJ_OP_LOAD));
        else
            add(m, choice < 50 ? mask_int(m) : choice < 70 ? mask_float(m) : mask_bool(m));
    }
    m->ir->mask = mask_bool(m);
}

/* ---- The whole ----------------------------------------------------------------------------------------- */

fj_world *fj_generate_world(fj_arena *arena, fj_random *random, fj_generate kind) {
    fj_world *world = FJ_NEW(arena, fj_world);
    const size_t captures = 1 + fj_random_below(random, 4), scalars = 1 + fj_random_below(random, 3);
    maker m = {.world = world, .random = random, .kind = kind};
    m.ir = world->ir = fj_ir_create(arena);
    world->captures = FJ_NEW_ARRAY(arena, fj_eval_tensor, captures);
    world->elements = FJ_NEW_ARRAY(arena, int64_t, captures);
    world->scalars = FJ_NEW_ARRAY(arena, fj_scalar, scalars);
    for (size_t i = 0; i < captures; i++) add_capture(world, random, kind, i);
    for (size_t i = 0; i < scalars; i++) add_scalar(world, random, kind, i);
    for (fj_op op = FJ_OP_B; op <= FJ_OP_KV; op = (fj_op)(op + 1)) add(&m, fj_ir_leaf(m.ir, op));
    for (size_t i = 0; i < scalars; i++) add(&m, fj_ir_scalar(m.ir, (uint32_t)i));
    world->input = (fj_eval_input){.captures = world->captures, .scalars = world->scalars};
    if (kind == FJ_GENERATE_MASK) {
        make_mask(&m);
        return world;
    }
    add(&m, read_capture(&m, FJ_OP_LOAD));
    make_values(&m, 4);
    if (chance(random, 70)) m.ir->mask = pick(&m, FJ_TYPE_BOOL);
    add(&m, fj_ir_leaf(m.ir, FJ_OP_SCORE));
    make_values(&m, 6 + (int)fj_random_below(random, 20));
    m.ir->score = pick(&m, FJ_TYPE_FLOAT);
    if (kind == FJ_GENERATE_SMOOTH || chance(random, 80)) {
        m.ir->score = fj_ir_op2(m.ir, FJ_OP_ADD, m.ir->score, pick(&m, FJ_TYPE_FLOAT));
        m.ir->score = fj_ir_op2(m.ir, FJ_OP_MUL, m.ir->score, fj_ir_leaf(m.ir, FJ_OP_SCORE));
    }
    return world;
}

/* ---- Running ---------------------------------------------------------------------------------------------- */

fj_outcome fj_outcome_new(fj_arena *arena, const fj_world *world) {
    fj_outcome outcome = {0};
    const size_t captures = world->ir->captures.len;
    outcome.dcaptures = FJ_NEW_ARRAY(arena, double *, captures + 1);
    outcome.dscalars = FJ_NEW_ARRAY(arena, double, world->ir->scalars.len + 1);
    for (size_t i = 0; i < captures; i++)
        outcome.dcaptures[i] = FJ_NEW_ARRAY(arena, double, world->elements[i] + 1);
    return outcome;
}

void fj_world_run(const fj_world *world, fj_eval *eval, const int32_t *position, double score, double adjoint,
                  bool live, fj_outcome *ret) {
    const fj_eval_lanes lanes = {
        .b = position[0],
        .h = position[1],
        .q = position[2],
        .kv0 = position[3],
        .count = 1,
        .score = &score,
        .adjoint = &adjoint,
        .live = &live,
    };
    const fj_eval_grads grads = {.captures = ret->dcaptures, .scalars = ret->dscalars};
    fj_eval_run(eval, &world->input, &lanes, &ret->score, &ret->mask, &ret->dscore, &ret->fault, &grads);
}

bool fj_same(double a, double b) { return (a != a && b != b) || (a == b && signbit(a) == signbit(b)); }

bool fj_outcome_same(const fj_world *world, const fj_outcome *a, const fj_outcome *b) {
    bool same = fj_same(a->score, b->score) && fj_same(a->dscore, b->dscore) && a->mask == b->mask &&
                a->fault == b->fault;
    for (size_t i = 0; i < world->ir->captures.len; i++) {
        for (int64_t k = 0; k < world->elements[i]; k++)
            same &= fj_same(a->dcaptures[i][k], b->dcaptures[i][k]);
    }
    for (size_t i = 0; i < world->ir->scalars.len; i++) same &= fj_same(a->dscalars[i], b->dscalars[i]);
    return same;
}
