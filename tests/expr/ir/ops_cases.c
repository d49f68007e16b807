/* Cases and inputs; the text that devices compile. */
#include "ops_cases.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "generate.h"

/* ---- Inputs ---------------------------------------------------------------------------------------- */

static const double reals[] = {0.0,
                               -0.0,
                               1.0,
                               -1.0,
                               0.5,
                               -0.5,
                               2.0,
                               -2.5,
                               3.0,
                               0x1.0002p-1,
                               0.3,
                               -0.3,
                               -20.0,
                               100.25,
                               0x1p-149,
                               -0x1p-126,
                               1e-30,
                               0x1p31,
                               -0x1p63,
                               1e30,
                               -0x1.fffffep127,
                               (double)INFINITY,
                               -(double)INFINITY,
                               (double)NAN};
static const int64_t ints[] = {
    0, 1, -1, 2, -2, 3, 7, -7, 31, 32, 33, INT32_MAX, INT32_MIN, INT32_MAX - 1, 1000003, -100};
static const int64_t longs[] = {0,
                                1,
                                -1,
                                2,
                                -3,
                                10,
                                63,
                                64,
                                65,
                                -64,
                                INT64_MAX,
                                INT64_MIN,
                                INT64_MAX - 1,
                                INT64_C(1) << 40,
                                -(INT64_C(1) << 62),
                                INT32_MIN};
enum { REALS = FJ_ARRAY_LEN(reals), INTS = FJ_ARRAY_LEN(ints) };
_Static_assert(REALS *REALS == OPS_POSITIONS && INTS * INTS <= OPS_POSITIONS && FJ_ARRAY_LEN(longs) == INTS,
               "pairs of edges are the positions");

static fj_dtype dtype_of(int capture, bool f64) {
    static const fj_dtype pairs[] = {FJ_DTYPE_I32, FJ_DTYPE_I64, FJ_DTYPE_BOOL};
    if (capture >= OPS_DTYPES) return (fj_dtype)(capture - OPS_DTYPES + 1);
    return capture < OPS_IA ? (f64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32) : pairs[(capture - OPS_IA) / 2];
}

static void fill(ops_inputs *inputs, int capture, fj_random *random) {
    const fj_dtype dtype = dtype_of(capture, inputs->f64);
    char *bytes = inputs->bytes[capture];
    for (int p = 0; p < OPS_POSITIONS; p++) {
        const int place = capture % 2 ? p / INTS % INTS : p % INTS; /* of a pair */
        if (capture >= OPS_DTYPES && dtype == FJ_DTYPE_BOOL)
            bytes[p] = p % 3 == 0;
        else if (capture >= OPS_DTYPES)
            for (size_t i = 0; i < fj_dtype_size(dtype); i++)
                bytes[(size_t)p * fj_dtype_size(dtype) + i] = (char)fj_random_below(random, 256);
        else if (fj_dtype_is_float(dtype))
            fj_dtype_store_float(dtype, bytes, p, reals[p / REALS]);
        else if (dtype == FJ_DTYPE_I32)
            ((int32_t *)(void *)bytes)[p] = (int32_t)ints[place];
        else if (dtype == FJ_DTYPE_I64)
            ((int64_t *)(void *)bytes)[p] = longs[place];
        else
            bytes[p] = (char)((capture % 2 ? p / 2 : p) % 2);
    }
    inputs->captures[capture] =
        (fj_eval_tensor){.data = bytes, .dtype = dtype, .dims = {OPS_POSITIONS}, .strides = {1}};
}

void ops_inputs_make(ops_inputs *inputs, bool f64) {
    fj_random random = {7};
    *inputs = (ops_inputs){.f64 = f64};
    for (int p = 0; p < OPS_POSITIONS; p++) {
        inputs->score[p] = f64 ? reals[p % REALS] : (double)(float)reals[p % REALS];
        inputs->live[p] = p % 11 != 5;
        inputs->adjoint[p] = inputs->live[p] ? (p % 2 ? 1.0 : -0.75) : 0.0;
    }
    for (int i = 0; i < OPS_CAPTURES; i++) fill(inputs, i, &random);
    inputs->scalars[0].f = 1.5;
    inputs->scalars[1].i = -3;
    inputs->scalars[2].i = 1;
}

/* ---- Cases ------------------------------------------------------------------------------------------- */

typedef struct maker {
    fj_arena *arena;
    const ops_inputs *inputs;
    ops_cases *cases;
    fj_ir *ir;
    bool seen[FJ_OP_COUNT];
} maker;

static void start(maker *m) {
    static const fj_type types[OPS_SCALARS] = {FJ_TYPE_FLOAT, FJ_TYPE_I64, FJ_TYPE_BOOL};
    m->ir = fj_ir_create(m->arena);
    for (int i = 0; i < OPS_CAPTURES; i++) {
        const fj_capture capture = {.name = fj_arena_printf(m->arena, "c%d", i),
                                    .dtype = m->inputs->captures[i].dtype,
                                    .rank = 1,
                                    .dims = {-1},
                                    .gradient = i <= OPS_FB};
        FJ_PUSH(m->arena, &m->ir->captures, capture);
    }
    for (int i = 0; i < OPS_SCALARS; i++) {
        const fj_runtime_scalar scalar = {.name = fj_arena_printf(m->arena, "s%d", i),
                                          .type = types[i],
                                          .f = m->inputs->scalars[i].f,
                                          .gradient = types[i] == FJ_TYPE_FLOAT};
        FJ_PUSH(m->arena, &m->ir->scalars, scalar);
    }
}

static fj_ref binary(maker *m, fj_op op, fj_ref a, fj_ref b) { return fj_ir_op2(m->ir, op, a, b); }
static fj_ref leaf(maker *m, fj_op op) { return fj_ir_leaf(m->ir, op); }
static fj_ref load_at(maker *m, int capture, fj_ref index) {
    return fj_ir_load(m->ir, (uint32_t)capture, &index, 1);
}
static fj_ref load(maker *m, int capture) { return load_at(m, capture, leaf(m, FJ_OP_KV)); }

static int pair_of(fj_type type) {
    return type == FJ_TYPE_FLOAT ? OPS_FA
         : type == FJ_TYPE_I32   ? OPS_IA
         : type == FJ_TYPE_I64   ? OPS_LA
                                 : OPS_BA;
}
static fj_ref argument(maker *m, fj_type type, int which) {
    if (type == FJ_TYPE_FLOAT && which == 0) return leaf(m, FJ_OP_SCORE);
    return load(m, pair_of(type) + which);
}

static void see(maker *m, const fj_ir *graph) {
    for (size_t i = 1; i < graph->nodes.len; i++) m->seen[graph->nodes.data[i].op] = true;
}

static void finish(maker *m, fj_op op, const char *kind, fj_ref result) {
    const fj_type type = fj_ir_type(m->ir, result);
    ck_assert_int_lt(m->cases->count, OPS_MOST_CASES);
    ops_case *c = &m->cases->list[m->cases->count++];
    *c = (ops_case){.op = op, .pieces = 1};
    (void)snprintf(c->name, sizeof c->name, "%s %s", fj_op_table[op].name, kind);
    if (type == FJ_TYPE_I32 || type == FJ_TYPE_I64) {
        c->pieces = OPS_PIECES;
        fj_ref shift =
            fj_ir_cast(m->ir, binary(m, FJ_OP_MUL, leaf(m, FJ_OP_Q), fj_ir_i32(m->ir, 16)), FJ_TYPE_I64);
        result = binary(m, FJ_OP_SHR, fj_ir_cast(m->ir, result, FJ_TYPE_I64), shift);
        result = binary(m, FJ_OP_AND, result, fj_ir_i64(m->ir, 0xffff));
    }
    m->ir->score = fj_ir_cast(m->ir, result, FJ_TYPE_FLOAT);
    c->graph = fj_ir_gradient(fj_ir_guard(m->ir));
    see(m, c->graph);
}

static void add_pointwise(maker *m, fj_op op) {
    const int arity = fj_op_table[op].arity;
    for (int type = FJ_TYPE_BOOL; type < FJ_TYPE_COUNT; type++) {
        const int result_type = fj_op_result(op, type);
        const bool is_real = type == FJ_TYPE_FLOAT || result_type == FJ_TYPE_FLOAT;
        if (result_type == FJ_TYPE_VOID || (m->inputs->f64 && !is_real)) continue;
        start(m);
        const fj_ref a = argument(m, (fj_type)type, 0);
        const fj_ref b = arity > 1 ? argument(m, (fj_type)type, 1) : 0;
        const fj_ref result = arity == 1 ? fj_ir_op1(m->ir, op, a)
                            : arity == 2 ? fj_ir_op2(m->ir, op, a, b)
                                         : fj_ir_op3(m->ir, op, load(m, OPS_BA), a, b);
        finish(m, op, fj_type_names[type], result);
    }
}

/* Over the four elements up to that of the position; indices below 0 count from the end. */
static void add_reduction(maker *m, fj_op op) {
    for (int type = FJ_TYPE_BOOL; type < FJ_TYPE_COUNT; type++) {
        if ((fj_op_table[op].rule == FJ_RULE_REDUCE_BOOL) != (type == FJ_TYPE_BOOL)) continue;
        if (m->inputs->f64 && type != FJ_TYPE_FLOAT) continue;
        start(m);
        const fj_ref loop = fj_ir_loop(m->ir, fj_ir_i64(m->ir, 4));
        const fj_ref at = binary(m, FJ_OP_SUB, fj_ir_cast(m->ir, leaf(m, FJ_OP_KV), FJ_TYPE_I64), loop);
        const fj_ref body = load_at(m, pair_of((fj_type)type) + 1, at);
        finish(m, op, fj_type_names[type], fj_ir_reduce(m->ir, op, loop, body));
    }
}

static fj_ref as_float(maker *m, fj_ref a) { return fj_ir_cast(m->ir, a, FJ_TYPE_FLOAT); }

/* What is no operation on values: reads, positions, scalars. */
static void add_leaves(maker *m) {
    static const fj_op positions[] = {FJ_OP_B, FJ_OP_H, FJ_OP_Q, FJ_OP_KV};
    for (int i = OPS_DTYPES; i < OPS_CAPTURES; i++) {
        start(m);
        finish(m, FJ_OP_LOAD, fj_dtype_code_name(m->ir->captures.data[i].dtype), load(m, i));
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(positions); i++) {
        start(m);
        finish(m, positions[i], "", leaf(m, positions[i]));
    }
    start(m); /* past the end at the last positions, for the guard */
    finish(m, FJ_OP_OUT_OF_RANGE, "",
           load_at(m, OPS_FB, binary(m, FJ_OP_ADD, leaf(m, FJ_OP_KV), fj_ir_i32(m->ir, 3))));
    start(m);
    finish(m, FJ_OP_DIM, "", fj_ir_dim(m->ir, OPS_FB, 0));
    for (uint32_t i = 0; i < OPS_SCALARS; i++) {
        start(m);
        finish(m, FJ_OP_SCALAR, fj_type_names[m->ir->scalars.data[i].type], fj_ir_scalar(m->ir, i));
    }
    start(m); /* of finite values, as all add to one gradient */
    finish(m, FJ_OP_SCATTER_SCALAR, "",
           binary(m, FJ_OP_MUL, fj_ir_scalar(m->ir, 0), as_float(m, load(m, OPS_BB))));
}

void ops_cases_make(fj_arena *arena, const ops_inputs *inputs, ops_cases *ret_cases) {
    maker m = {.arena = arena, .inputs = inputs, .cases = ret_cases};
    ret_cases->count = 0;
    for (int op = FJ_OP_NONE + 1; op < FJ_OP_COUNT; op++) {
        if (fj_op_is_pointwise((fj_op)op)) add_pointwise(&m, (fj_op)op);
        if (fj_op_is_reduction((fj_op)op)) add_reduction(&m, (fj_op)op);
    }
    add_leaves(&m);
    m.seen[FJ_OP_CONST_BOOL] = true; /* folding leaves none */
    for (int op = FJ_OP_NONE + 1; op < FJ_OP_COUNT && !inputs->f64; op++)
        FJ_HOLD(m.seen[op], "no case has the operation %s: add one to ops_cases.c", fj_op_table[op].name);
}

/* ---- What is right ------------------------------------------------------------------------------------ */

void ops_evaluate(fj_arena *arena, const ops_case *c, const ops_inputs *inputs, int query, bool round,
                  ops_answer *ret) {
    fj_eval *eval = fj_eval_create(arena, c->graph);
    const fj_eval_input input = {inputs->captures, inputs->scalars, round};
    double *captures[OPS_CAPTURES] = {ret->dcaptures[OPS_FA], ret->dcaptures[OPS_FB]};
    const fj_eval_grads grads = {.captures = captures, .scalars = (double[OPS_SCALARS]){0}};
    memset(ret, 0, sizeof *ret);
    for (int p = 0; p < OPS_POSITIONS; p += FJ_EVAL_LANES) {
        const int count = OPS_POSITIONS - p < FJ_EVAL_LANES ? OPS_POSITIONS - p : FJ_EVAL_LANES;
        const fj_eval_lanes lanes = {
            1, 2, query, p, count, inputs->score + p, inputs->adjoint + p, inputs->live + p};
        fj_eval_run(eval, &input, &lanes, ret->score + p, NULL, ret->dscore + p, ret->fault + p, &grads);
    }
    ret->dscalar = grads.scalars[0];
}

/* ---- Text --------------------------------------------------------------------------------------------- */

static const char *const renamed[] = {
    "fj_head_state",    "fj_row_state",   "fj_col_state", "fj_head_init", "fj_row_init",
    "fj_col_init",      "fj_score",       "fj_mask",      "fj_fault",     "fj_score_grad",
    "fj_capture_grads", "fj_block_class", "fj_may_fault",
};
static const char *const undefined[] = {
    "FJ_HAS_SCORE",  "FJ_HAS_MASK",          "FJ_HAS_FAULT",         "FJ_HAS_CAPTURE_GRADS",
    "FJ_HEAD_EMPTY", "FJ_ROW_EMPTY",         "FJ_COL_EMPTY",         "FJ_CAPTURES",
    "FJ_SCALARS",    "FJ_CAPTURE_GRAD_AXES", "FJ_FAULT_READS_SCORE",
};

void ops_emit(const ops_cases *cases, fj_emit_target target, bool f64, fj_buf *out) {
    const bool cuda = target == FJ_EMIT_CUDA;
    fj_buf_printf(out, "#define FJ_REAL_F64 %d\n#include \"%s\"\n", f64,
                  cuda ? "ops_kernel.h" : "ops_lanes.h");
    for (int n = 0; n < cases->count; n++) {
        for (size_t i = 0; i < FJ_ARRAY_LEN(renamed); i++)
            fj_buf_printf(out, "#undef %s\n#define %s %s_%d\n", renamed[i], renamed[i], renamed[i], n);
        for (size_t i = 0; i < FJ_ARRAY_LEN(undefined); i++) fj_buf_printf(out, "#undef %s\n", undefined[i]);
        fj_ir_emit(cases->list[n].graph, cases->list[n].graph, target, out);
        fj_buf_printf(out, "OPS_TRY(ops_try_%d)\n", n);
    }
    fj_buf_put(out, "OPS_ALL_BEGIN\n");
    for (int n = 0; n < cases->count; n++) fj_buf_printf(out, "OPS_ONE(%d, ops_try_%d)\n", n, n);
    fj_buf_put(out, "OPS_ALL_END\n");
}
