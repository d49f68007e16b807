/* The builder, substitution, the text form and its errors, simplification rules, explanations. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

static void in_scope(void (*body)(fj_scope *, void *), void *argument) {
    fj_arena arena;
    fj_error error = {0};
    fj_arena_init(&arena, &fj_allocator_libc);
    const fj_status status = fj_scope_run(&arena, &error, body, argument);
    fj_arena_finish(&arena);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}

static char *text_of(const fj_ir *ir) {
    fj_buf buf;
    fj_buf_init(&buf, &fj_allocator_libc);
    fj_ir_print(ir, &buf);
    char *text = fj_arena_strdup(ir->arena, (fj_str){buf.data, buf.len});
    fj_buf_finish(&buf);
    return text;
}

/* ---- Builder -------------------------------------------------------------------------------------- */

static void builder_body(fj_scope *scope, void *unused) {
    fj_ir *ir = fj_ir_create(scope->arena);
    const fj_ref q = fj_ir_leaf(ir, FJ_OP_Q), kv = fj_ir_leaf(ir, FJ_OP_KV);
    (void)unused;
    ck_assert_uint_eq(fj_ir_op2(ir, FJ_OP_SUB, q, kv), fj_ir_op2(ir, FJ_OP_SUB, q, kv));
    ck_assert_uint_ne(fj_ir_op2(ir, FJ_OP_SUB, q, kv), fj_ir_op2(ir, FJ_OP_SUB, kv, q));
    ck_assert_uint_ne(fj_ir_float(ir, 0.0), fj_ir_float(ir, -0.0));
    ck_assert_uint_eq(fj_ir_float(ir, (double)NAN), fj_ir_float(ir, -(double)NAN));
    ck_assert_uint_ne(fj_ir_i32(ir, 1), fj_ir_i64(ir, 1));
    ck_assert_uint_ne(fj_ir_loop(ir, fj_ir_i64(ir, 2)), fj_ir_loop(ir, fj_ir_i64(ir, 2)));
    ck_assert_uint_eq(fj_ir_cast(ir, q, FJ_TYPE_I32), q);
    ck_assert_int_eq(fj_ir_type(ir, fj_ir_op2(ir, FJ_OP_LT, q, kv)), FJ_TYPE_BOOL);
    ck_assert_ptr_null(fj_ir_validate(ir));
}

START_TEST(builder) { in_scope(builder_body, NULL); }
END_TEST

static void too_many_body(fj_scope *scope, void *unused) {
    fj_ir *ir = fj_ir_create(scope->arena);
    (void)unused;
    for (int64_t i = 0; i < 2 * FJ_IR_MAX_NODES; i++) (void)fj_ir_i64(ir, i);
}

START_TEST(too_many_nodes) {
    fj_arena arena;
    fj_error error = {0};
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, &error, too_many_body, NULL), FJ_ERR_MOD);
    ck_assert_ptr_nonnull(strstr(error.text, "65536"));
    fj_arena_finish(&arena);
    fj_error_finish(&error);
}
END_TEST

/* A loop is renamed inside; a reduction that binds it keeps its own. */
static void substitute_body(fj_scope *scope, void *unused) {
    fj_ir *ir = fj_ir_create(scope->arena);
    (void)unused;
    const fj_ref two = fj_ir_i64(ir, 2), loop = fj_ir_loop(ir, two), other = fj_ir_loop(ir, two);
    const fj_ref twice = fj_ir_op2(ir, FJ_OP_MUL, loop, two), more = fj_ir_op2(ir, FJ_OP_ADD, twice, two);
    const fj_ref sum = fj_ir_reduce(ir, FJ_OP_REDUCE_SUM, loop, loop);
    const fj_ref body = fj_ir_op2(ir, FJ_OP_ADD, loop, sum);
    ck_assert_uint_eq(fj_ir_substitute(ir, body, loop, other), fj_ir_op2(ir, FJ_OP_ADD, other, sum));
    const fj_ref want = fj_ir_op2(ir, FJ_OP_ADD, fj_ir_op2(ir, FJ_OP_MUL, other, two), two);
    ck_assert_uint_eq(fj_ir_substitute(ir, fj_ir_op2(ir, FJ_OP_ADD, more, sum), loop, other),
                      fj_ir_op2(ir, FJ_OP_ADD, want, sum)); /* also what stands before the reduction */
    ck_assert_uint_eq(fj_ir_substitute(ir, sum, loop, other), sum);
    ck_assert_uint_eq(fj_ir_substitute(ir, loop, loop, two), two);
    ck_assert_uint_eq(fj_ir_substitute(ir, two, loop, other), two);
}

START_TEST(substitute) { in_scope(substitute_body, NULL); }
END_TEST

/* ---- Text ------------------------------------------------------------------------------------------- */

static const char example[] = "capture 0 F32 [8,-1] \"b\\x22\\xc3\\xa9\" gradient\n"
                              "capture 1 I64 [3] \"t\" = 1 -2 3\n"
                              "capture 2 F64 [2] \"u\" = 0.1 inf\n"
                              "scalar 0 float 0.5 \"s\" gradient\n"
                              "scalar 1 i64 7 \"n\"\n"
                              "%1 = h\n"
                              "%2 = kv\n"
                              "%3 = load.float @0 %1, %2\n"
                              "%4 = dim @0 1\n"
                              "%5 = loop #0 %4\n"
                              "%6 = load.float @0 %1, %5\n"
                              "%7 = reduce_sum.float %5, %6\n"
                              "%8 = add.float %3, %7\n"
                              "%9 = const_float -0.0\n"
                              "%10 = const_i64 -9223372036854775808\n"
                              "%11 = lt.bool %10, %4\n"
                              "%12 = out_of_range @0 %1, %2\n"
                              "score %8\n"
                              "mask %11\n"
                              "fault %12\n";

static void text_body(fj_scope *scope, void *unused) {
    (void)unused;
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, FJ_STR(example));
    ck_assert_str_eq(text_of(ir), example);
    ck_assert_str_eq(ir->captures.data[0].name, "b\"\xc3\xa9");
    ck_assert_int_eq(ir->captures.data[1].int_values[1], -2);
}

START_TEST(text_round_trip) { in_scope(text_body, NULL); }
END_TEST

typedef struct bad_text {
    const char *text, *message;
    int line, column;
} bad_text;

static const bad_text bad_texts[] = {
    {"%1 = h\n%3 = q\n", "range", 2, 2},
    {"%1 = bogus\n", "no such operation", 1, 11},
    {"%1 = add.float %1, %1\n", "range", 1, 17},
    {"%1 = h\n%2 = add.i32 %1\n", "number of arguments", 2, 16},
    {"%1 = h\n%2 = exp.i32 %1\n", "does not take", 2, 16},
    {"%1 = h\n%2 = add.i64 %1, %1\n", "wrong type", 2, 20},
    {"%1 = h\n%2 = h\n", "equal node", 2, 7},
    {"%1 = h\nscore %1\n", "root score has the wrong type", 3, 1},
    {"%1 = score\n%2 = const_float 0.0\n%3 = gt.bool %1, %2\nmask %3\n", "depends on the score", 5, 1},
    {"%1 = const_i64 2\n%2 = loop #0 %1\n%3 = cast_float.float %2\nscore %3\n", "free loop", 5, 1},
    {"%1 = kv\n%2 = cast_i64.i64 %1\n%3 = loop #0 %2\n", "not uniform", 4, 1},
    {"%1 = load.float @0\n", "no such captured", 1, 19},
    {"capture 0 F32 [2,\n", "number", 1, 18},
    {"capture 0 F32 [2] \"x\" = 1\n", "number", 1, 26},
    {"capture 0 F32 [1048577] \"x\" = 1\n", "too many values", 1, 30},
    {"capture 0 X [] \"x\"\n", "no such data type", 1, 10},
    {"capture 0 F32 [] \"\\x00\"\n", "escape", 1, 20},
    {"%1 = const_i32 2147483648\n", "range", 1, 16},
    {"%1 = const_i64 9223372036854775808\n", "range", 1, 16},
    {"bogus %1\n", "a line begins with", 1, 6},
    {"%1 = h %1\n", "range", 1, 9},
};

static void parse_body(fj_scope *scope, void *argument) {
    (void)fj_ir_parse(scope->arena, scope, fj_str_from(((const bad_text *)argument)->text));
}

START_TEST(text_errors) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(bad_texts); i++) {
        bad_text c = bad_texts[i];
        fj_arena arena;
        fj_error error = {0};
        fj_arena_init(&arena, &fj_allocator_libc);
        ck_assert_int_eq(fj_scope_run(&arena, &error, parse_body, &c), FJ_ERR_MOD);
        ck_assert_msg(strstr(error.text, c.message) != NULL && error.line == c.line &&
                          error.column == c.column,
                      "%s gives %d:%d: %s", c.text, error.line, error.column, error.text);
        fj_arena_finish(&arena);
        fj_error_finish(&error);
    }
}
END_TEST

/* ---- Simplification ---------------------------------------------------------------------------------- */

typedef struct rule_case {
    const char *before, *after; /* nodes and root; over %1 = score or %1 = q */
} rule_case;

static const rule_case rule_cases[] = {
    {"%1 = score\n%2 = const_float 1.0\n%3 = mul.float %1, %2\nscore %3\n", "%1 = score\nscore %1\n"},
    {"%1 = score\n%2 = neg.float %1\n%3 = neg.float %2\nscore %3\n", "%1 = score\nscore %1\n"},
    {"%1 = score\n%2 = const_float 0.0\n%3 = add.float %1, %2\nscore %3\n",
     "%1 = score\n%2 = const_float 0.0\n%3 = add.float %1, %2\nscore %3\n"}, /* -0 + 0 is 0 */
    {"%1 = score\n%2 = const_float -0.0\n%3 = add.float %2, %1\nscore %3\n", "%1 = score\nscore %1\n"},
    {"%1 = const_float 2.0\n%2 = const_float 3.0\n%3 = mul.float %1, %2\nscore %3\n",
     "%1 = const_float 6.0\nscore %1\n"},
    {"%1 = q\n%2 = const_i32 16\n%3 = floordiv.i32 %1, %2\n%4 = floormod.i32 %1, %2\n%5 = lt.bool %3, %4\nmask %5\n",
     "%1 = q\n%2 = const_i32 4\n%3 = shr.i32 %1, %2\n%4 = const_i32 15\n%5 = and.i32 %1, %4\n%6 = lt.bool %3, %5\nmask %6\n"},
    {"%1 = q\n%2 = cast_i64.i64 %1\n%3 = const_i64 5\n%4 = le.bool %2, %3\nmask %4\n",
     "%1 = q\n%2 = const_i32 5\n%3 = le.bool %1, %2\nmask %3\n"},
    {"%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\n%4 = not.bool %3\nmask %4\n",
     "%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\nmask %3\n"},
    {"%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\n%4 = const_bool true\n%5 = and.bool %3, %4\n%6 = const_bool false\n"
     "%7 = where.bool %5, %4, %6\nmask %7\n",
     "%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\nmask %3\n"},
    {"%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\n%4 = cast_i32.i32 %3\n%5 = const_i32 0\n%6 = gt.bool %4, %5\nmask %6\n",
     "%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\nmask %3\n"},
    {"%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\n%4 = cast_i32.i32 %3\n%5 = const_i32 0\n%6 = le.bool %4, %5\nmask %6\n",
     "%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\nmask %3\n"},
    /* a scatter that leaves its loop adds as often */
    {"%1 = score\n%2 = minimum.float %1, %1\n%3 = clamp_max.float %2, %2\nscore %3\n",
     "%1 = score\nscore %1\n"},
    {"capture 0 F64 [4] \"c\" gradient\n%1 = const_i64 2\n%2 = loop #0 %1\n%3 = sub.i64 %2, %2\n%4 = adjoint\n"
     "%5 = scatter @0 %4, %3\neffect %5\n",
     "capture 0 F64 [4] \"c\" gradient\n%1 = const_i64 2\n%2 = loop #0 %1\n%3 = const_i64 0\n%4 = adjoint\n"
     "%5 = reduce_sum.float %2, %4\n%6 = scatter @0 %5, %3\neffect %6\n"},
};

/* What looks like it and has no simpler form. */
static const char *const unchanged[] = {
    /* int32 does not hold 2^31 */
    "%1 = q\n%2 = cast_i64.i64 %1\n%3 = const_i64 2147483648\n%4 = lt.bool %2, %3\nmask %4\n",
    "%1 = q\n%2 = cast_i64.i64 %1\n%3 = const_i64 -2147483649\n%4 = lt.bool %2, %3\nmask %4\n",
    /* neither the bool nor its opposite */
    "%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\n%4 = cast_i32.i32 %3\n%5 = const_i32 0\n%6 = ge.bool %4, %5\nmask %6\n",
    "%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\n%4 = cast_i32.i32 %3\n%5 = const_i32 0\n%6 = lt.bool %4, %5\nmask %6\n",
    "%1 = q\n%2 = kv\n%3 = lt.bool %1, %2\n%4 = cast_i32.i32 %3\n%5 = const_i32 1\n%6 = gt.bool %4, %5\nmask %6\n",
    /* a float rounds an int64, a float32 an int32 */
    "scalar 0 i64 7 \"n\"\n%1 = scalar.i64 $0\n%2 = cast_float.float %1\n%3 = cast_i64.i64 %2\n%4 = lt.bool %3, %1\nmask %4\n",
    "%1 = q\n%2 = cast_float.float %1\n%3 = cast_i32.i32 %2\n%4 = lt.bool %3, %1\nmask %4\n",
    /* NaN */
    "scalar 0 float 0.5 \"s\"\n%1 = score\n%2 = scalar.float $0\n%3 = lt.bool %1, %2\n%4 = not.bool %3\nfault %4\n",
};

static void rules_body(fj_scope *scope, void *argument) {
    const rule_case *c = argument;
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, fj_str_from(c->before));
    ck_assert_str_eq(text_of(fj_ir_optimise(ir)), c->after);
}

START_TEST(rules) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(rule_cases); i++) {
        rule_case c = rule_cases[i];
        in_scope(rules_body, &c);
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(unchanged); i++) {
        rule_case c = {unchanged[i], unchanged[i]};
        in_scope(rules_body, &c);
    }
}
END_TEST

/* ---- Allocation failures ---------------------------------------------------------------------------- */

typedef struct failing {
    long countdown, live;
} failing;

static void *failing_resize(void *user, void *pointer, size_t old_size, size_t new_size) {
    failing *self = user;
    (void)old_size;
    if (new_size == 0) {
        self->live -= pointer != NULL;
        free(pointer);
        return NULL;
    }
    if (self->countdown-- == 0) return NULL;
    self->live += pointer == NULL;
    return realloc(pointer, new_size);
}

static void pipeline_body(fj_scope *scope, void *argument) {
    fj_buf *out = argument;
    const fj_ir *ir = fj_ir_optimise(fj_ir_guard(fj_ir_parse(scope->arena, scope, FJ_STR(example))));
    fj_ir_emit(ir, fj_ir_gradient(ir), FJ_EMIT_CPU, out);
    fj_ir_print(ir, out);
    const fj_block block = {.q = {0, 1}, .kv = {0, 1}};
    (void)fj_ir_classify(ir, &block, NULL, NULL);
    (void)fj_eval_create(scope->arena, ir);
}

START_TEST(every_allocation_may_fail) {
    bool succeeded = false;
    for (long n = 0; !succeeded; n++) {
        failing state = {.countdown = n};
        const fj_allocator allocator = {failing_resize, &state};
        fj_arena arena;
        fj_buf out;
        fj_arena_init(&arena, &allocator);
        fj_buf_init(&out, &allocator);
        const fj_status status = fj_scope_run(&arena, NULL, pipeline_body, &out);
        ck_assert(status == FJ_OK || status == FJ_ERR_MEMORY);
        succeeded = status == FJ_OK && !out.failed && state.countdown >= 0;
        fj_arena_finish(&arena);
        fj_buf_finish(&out);
        ck_assert_int_eq(state.live, 0);
        ck_assert_int_lt(n, 10000);
    }
}
END_TEST

/* ---- Faults -------------------------------------------------------------------------------------------- */

static void explain_body(fj_scope *scope, void *unused) {
    static const char text[] =
        "capture 0 F32 [-1] \"bias\"\n%1 = q\n%2 = kv\n%3 = load.float @0 %2\n%4 = const_i32 9\n"
        "%5 = lt.bool %1, %4\n%6 = score\n%7 = where.float %5, %3, %6\nscore %7\n";
    const float data[8] = {0};
    (void)unused;
    const fj_ir *ir = fj_ir_guard(fj_ir_parse(scope->arena, scope, FJ_STR(text)));
    const fj_eval_tensor tensor = {.data = data, .dtype = FJ_DTYPE_F32, .dims = {8}, .strides = {1}};
    const fj_eval_input input = {.captures = &tensor};
    fj_eval *eval = fj_eval_create(scope->arena, ir);
    char said[256];
    ck_assert(fj_eval_explain(eval, &input, 0, 1, 3, 9, 0.0, said, sizeof said));
    ck_assert_str_eq(said,
                     "captured tensor 'bias' F32 [8] is read at index 9 (dimension 0) at b=0 h=1 q=3 kv=9");
    for (size_t size = 1; size <= strlen(said); size++) { /* as much of it as there is room for */
        char less[sizeof said];
        memset(less, '~', sizeof less);
        ck_assert(fj_eval_explain(eval, &input, 0, 1, 3, 9, 0.0, less, size));
        ck_assert_uint_eq(strlen(less), size - 1);
        ck_assert_int_eq(memcmp(less, said, size - 1), 0);
        for (size_t i = size; i < sizeof less; i++) ck_assert_int_eq(less[i], '~');
    }
    ck_assert(!fj_eval_explain(eval, &input, 0, 1, 3, 7, 0.0, said, sizeof said));
    ck_assert(!fj_eval_explain(eval, &input, 0, 1, 9, 9, 0.0, said, sizeof said)); /* not selected */
}

START_TEST(explain) { in_scope(explain_body, NULL); }
END_TEST

/* ---- Intervals ------------------------------------------------------------------------------------------- */

typedef struct class_case {
    const char *text;
    int64_t q[2], kv[2];
    fj_block_class class;
} class_case;

#define CAUSAL "%1 = q\n%2 = kv\n%3 = sub.i32 %1, %2\n"

static const class_case class_cases[] = {
    {"%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\nmask %3\n", {64, 127}, {0, 63}, FJ_BLOCK_FULL},
    {"%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\nmask %3\n", {64, 127}, {64, 127}, FJ_BLOCK_PARTIAL},
    {"%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\nmask %3\n", {64, 127}, {128, 191}, FJ_BLOCK_EMPTY},
    {CAUSAL "%4 = const_i32 100\n%5 = le.bool %3, %4\nmask %5\n", {256, 319}, {0, 63}, FJ_BLOCK_EMPTY},
    {CAUSAL "%4 = abs.i32 %3\n%5 = const_i32 100\n%6 = le.bool %4, %5\nmask %6\n",
     {64, 95},
     {64, 127},
     FJ_BLOCK_FULL},
    {"%1 = q\n%2 = kv\n%3 = const_i32 64\n%4 = floordiv.i32 %1, %3\n%5 = floordiv.i32 %2, %3\n%6 = eq.bool %4, %5\nmask %6\n",
     {64, 127},
     {64, 127},
     FJ_BLOCK_FULL},
    {"%1 = q\n%2 = kv\n%3 = const_i32 64\n%4 = floordiv.i32 %1, %3\n%5 = floordiv.i32 %2, %3\n%6 = eq.bool %4, %5\nmask %6\n",
     {64, 127},
     {128, 191},
     FJ_BLOCK_EMPTY},
    {"%1 = kv\n%2 = const_i32 128\n%3 = floormod.i32 %1, %2\n%4 = const_i32 64\n%5 = lt.bool %3, %4\nmask %5\n",
     {0, 63},
     {128, 191},
     FJ_BLOCK_FULL},
    {"%1 = kv\n%2 = cast_float.float %1\n%3 = const_float 0.5\n%4 = mul.float %2, %3\n%5 = const_float 10.0\n"
     "%6 = lt.bool %4, %5\nmask %6\n",
     {0, 0},
     {0, 19},
     FJ_BLOCK_FULL},
    {"%1 = kv\n%2 = const_i32 8\n%3 = floordiv.i32 %1, %2\n%4 = const_i32 7\n%5 = le.bool %3, %4\nmask %5\n",
     {0, 0},
     {0, 63},
     FJ_BLOCK_FULL},
};

static void class_body(fj_scope *scope, void *argument) {
    const class_case *c = argument;
    const fj_block block = {.q = {c->q[0], c->q[1]}, .kv = {c->kv[0], c->kv[1]}};
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, fj_str_from(c->text));
    ck_assert_msg(fj_ir_classify(ir, &block, NULL, NULL) == c->class, "%s", c->text);
    ck_assert_msg(fj_ir_classify(fj_ir_optimise(ir), &block, NULL, NULL) == c->class, "optimised: %s",
                  c->text);
    ck_assert(fj_ir_mask_has_ranges(ir, false));
}

START_TEST(classes) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(class_cases); i++) {
        class_case c = class_cases[i];
        in_scope(class_body, &c);
    }
}
END_TEST

/* What a mask compares, and whether blocks are decided without and with minima and maxima of captured tensors. */
static const struct tier_case {
    const char *text;
    bool alone, with_tables;
} tier_cases[] = {
    {"%1 = q\n%2 = kv\n%3 = ge.bool %1, %2\nmask %3\n", true, true},
    {"capture 0 I32 [-1] \"doc\"\n%1 = q\n%2 = kv\n%3 = load.i32 @0 %1\n%4 = load.i32 @0 %2\n%5 = eq.bool %3, %4\nmask %5\n",
     false, true},
    {"capture 0 I32 [-1] \"of_batch\"\n%1 = b\n%2 = load.i32 @0 %1\n%3 = const_i32 3\n%4 = lt.bool %2, %3\nmask %4\n",
     false, false},
    {"%1 = q\n%2 = cast_float.float %1\n%3 = sin.float %2\n%4 = const_float 0.5\n%5 = lt.bool %3, %4\nmask %5\n",
     false, false},
};

static void tier_body(fj_scope *scope, void *argument) {
    const struct tier_case *c = argument;
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, fj_str_from(c->text));
    ck_assert_msg(fj_ir_mask_has_ranges(ir, false) == c->alone, "%s", c->text);
    ck_assert_msg(fj_ir_mask_has_ranges(ir, true) == c->with_tables, "with tables: %s", c->text);
}

START_TEST(tiers) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(tier_cases); i++) {
        struct tier_case c = tier_cases[i];
        in_scope(tier_body, &c);
    }
}
END_TEST

/* A dimension that is not known may be 0, and one that is may be too; a loop over it is empty then, and its greatest value
 * what no body gives. */
#define CAPTURE "capture 0 F32 [-1] \"c\"\n%1 = dim @0 0\n"
#define GREATEST CAPTURE "%2 = loop #0 %1\n%3 = const_i64 5\n"

static const struct dim_case {
    const char *text;
    int64_t dim; /* -1: not known */
    fj_block_class class;
} dim_cases[] = {
    {CAPTURE "%2 = const_i64 1\n%3 = ge.bool %1, %2\nmask %3\n", -1, FJ_BLOCK_PARTIAL},
    {CAPTURE "%2 = const_i64 0\n%3 = ge.bool %1, %2\nmask %3\n", -1, FJ_BLOCK_FULL},
    {CAPTURE "%2 = const_i64 1\n%3 = ge.bool %1, %2\nmask %3\n", 0, FJ_BLOCK_EMPTY},
    {CAPTURE "%2 = const_i64 0\n%3 = eq.bool %1, %2\nmask %3\n", 0, FJ_BLOCK_FULL},
    {GREATEST "%4 = reduce_max.i64 %2, %3\n%5 = eq.bool %4, %3\nmask %5\n", -1, FJ_BLOCK_PARTIAL},
    {GREATEST "%4 = reduce_max.i64 %2, %3\n%5 = eq.bool %4, %3\nmask %5\n", 0, FJ_BLOCK_PARTIAL},
    {GREATEST "%4 = reduce_max.i64 %2, %3\n%5 = eq.bool %4, %3\nmask %5\n", 1, FJ_BLOCK_FULL},
    {GREATEST "%4 = reduce_min.i64 %2, %3\n%5 = ge.bool %4, %3\nmask %5\n", 0, FJ_BLOCK_PARTIAL},
    {GREATEST "%4 = reduce_min.i64 %2, %3\n%5 = ge.bool %4, %3\nmask %5\n", 2, FJ_BLOCK_FULL},
};

static void dim_body(fj_scope *scope, void *argument) {
    const struct dim_case *c = argument;
    const fj_block block = {.q = {0, 0}};
    const int64_t dims[FJ_MAX_RANK] = {c->dim};
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, fj_str_from(c->text));
    const fj_block_class got = fj_ir_classify(ir, &block, NULL, c->dim < 0 ? NULL : dims);
    ck_assert_msg(got == c->class, "class %d of dimension %lld of\n%s", (int)got, (long long)c->dim, c->text);
}

START_TEST(classes_of_dimensions) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(dim_cases); i++) {
        struct dim_case c = dim_cases[i];
        in_scope(dim_body, &c);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ir");
    TCase *tcase = tcase_create("ir");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, builder);
    tcase_add_test(tcase, too_many_nodes);
    tcase_add_test(tcase, substitute);
    tcase_add_test(tcase, text_round_trip);
    tcase_add_test(tcase, text_errors);
    tcase_add_test(tcase, rules);
    tcase_add_test(tcase, every_allocation_may_fail);
    tcase_add_test(tcase, explain);
    tcase_add_test(tcase, classes);
    tcase_add_test(tcase, tiers);
    tcase_add_test(tcase, classes_of_dimensions);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
