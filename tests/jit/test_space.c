/* The space of variants: what is legal, and that names, values and options lead to the same ones. */

#include "jit/space.h"
#include "tests/jit/session.h"

static fj_values any(void) {
    fj_values all;
    for (int i = 0; i < FJ_AXIS_COUNT; i++) all.of[i] = FJ_VALUE_ANY;
    return all;
}

static fj_features cpu_of(bool avx2, bool avx512, bool avx512bf16) {
    return (fj_features){.isa = {true, avx2, avx512, avx512bf16}};
}

typedef struct visit {
    const fj_jit_problem *problem;
    const fj_features *features;
    const fj_variant *listed;
    int listed_count, met, count;
    char last[FJ_JIT_VARIANT_NAME];
} visit;

/* A name leads back to its variant, which could be launched; every name is another one. (An assertion for each of a
 * hundred thousand takes seconds.) */
static bool is_right(visit *of, const fj_variant *v) {
    fj_variant again;
    if (!fj_jit_find_variant(of->problem, of->features, v->name, &again)) return false;
    const fj_values had = fj_jit_values_of(v), got = fj_jit_values_of(&again);
    bool right = memcmp(had.of, got.of, sizeof had.of) == 0 && strlen(v->name) < sizeof v->name - 1 &&
                 strcmp(v->name, of->last) != 0;
    for (int i = 0; i < v->entry_count; i++)
        right &= v->entries[i].shared <= of->features->shared_limit && v->entries[i].threads % 32 == 0 &&
                 v->entries[i].threads <= 1024;
    return right;
}

static bool look(void *user, const fj_variant *v) {
    visit *of = user;
    if (!is_right(of, v)) ck_abort_msg("%s, after %s", v->name, of->last);
    memcpy(of->last, v->name, sizeof of->last);
    for (int i = 0; i < of->listed_count; i++) of->met += strcmp(of->listed[i].name, v->name) == 0;
    of->count++;
    return true;
}

/* Returns how many there are. */
static int look_at_all(const fj_jit_problem *p, const fj_features *features) {
    fj_variant listed[FJ_JIT_MAX_VARIANTS];
    const int count = fj_jit_variants(p, features, listed);
    const fj_values all = any();
    visit of = {.problem = p, .features = features, .listed = listed, .listed_count = count};
    fj_jit_visit_variants(p, features, &all, look, &of);
    ck_assert_int_eq(of.met, count); /* what the plan lists is legal, and met once */
    return of.count;
}

/* A mod of the score, a captured vector and a mask. */
static const fj_ir *mod_of(fj_arena *arena, int64_t size) {
    fj_ir *ir = fj_ir_create(arena);
    const fj_capture capture = {.name = "t", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {size}};
    FJ_PUSH(arena, &ir->captures, capture);
    const fj_ref index = fj_ir_cast(ir, fj_ir_leaf(ir, FJ_OP_KV), FJ_TYPE_I64);
    ir->score = fj_ir_op2(ir, FJ_OP_ADD, fj_ir_leaf(ir, FJ_OP_SCORE), fj_ir_load(ir, 0, &index, 1));
    ir->mask = fj_ir_op2(ir, FJ_OP_GE, fj_ir_leaf(ir, FJ_OP_Q), fj_ir_leaf(ir, FJ_OP_KV));
    return fj_ir_optimise(ir);
}

static void check_names(fj_scope *scope, void *unused) {
    (void)unused;
    static const int archs[] = {75, 86}, dims[][2] = {{64, 64}, {1, 256}, {128, 40}};
    static const fj_dtype dtypes[] = {FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};
    const fj_ir *mod = mod_of(scope->arena, 8);
    for (size_t n = 0; n < FJ_ARRAY_LEN(archs) * FJ_ARRAY_LEN(dims) * FJ_ARRAY_LEN(dtypes) * 4; n++) {
        const size_t at = n / 4;
        const bool backward = n % 2, plain = n % 4 < 2;
        const fj_features features = fj_jit_arch_features((fj_arch){archs[at % 2], 0}),
                          cpu = cpu_of(true, true, true);
        const fj_jit_problem of = {.kind = backward ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD,
                                   .ir = plain ? NULL : mod,
                                   .gradient = plain || !backward ? NULL : mod,
                                   .dtype = dtypes[at / 2 % 3],
                                   .head_dim = dims[at / 6][0],
                                   .value_dim = dims[at / 6][1],
                                   .packed = at % 2,
                                   .block_mask = at % 2 == 0,
                                   .deterministic = at % 5 != 0};
        ck_assert_int_gt(look_at_all(&of, &features), 20);
        ck_assert_int_gt(look_at_all(&of, &cpu), 200);
    }
}

START_TEST(names_lead_back) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, check_names, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

START_TEST(other_names_do_not) {
    static const char *const names[] = {
        "",
        "_",
        "mma",
        "fwd_mma_bf16_e64_v64",
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w4_",
        "fwd_mma_bf16_e64_v64_m128_n64_s02_w4",
        "fwd_mma_bf16_e64_v64_n64_m128_s2_w4",
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w3",
        "fwd_mma_bf16_e64_v64_m128_n80_s2_w4",
        "fwd_mma_bf16_e64_v64_m128_n64_s99999999999_w4",
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w4_wide",   /* nothing is captured */
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w4_one",    /* nothing to share */
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w4_blocks", /* another problem's */
        "fwd_mma_f16_e64_v64_m128_n64_s2_w4",         /* another problem's */
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w4_pack_pack",
        "fwd_cpu_bf16_e64_v64_m48_n256_avx512",
        "fwd_mma_bf16_e64_v64_m128_n64_s2_w4_and_a_name_that_is_longer_than_any_name_of_a_variant_can_be_here",
    };
    const fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    const fj_jit_problem of = {
        .kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 64, .value_dim = 64};
    fj_variant found;
    ck_assert(fj_jit_find_variant(&of, &features, "fwd_mma_bf16_e64_v64_m128_n64_s2_w4", &found));
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++)
        ck_assert_msg(!fj_jit_find_variant(&of, &features, names[i], &found), "%s", names[i]);
}
END_TEST

/* What is asked for is there, and the rest is near the default. */
START_TEST(values_lead_to_what_is_near) {
    static const struct {
        fj_axis axis;
        int value;
        const char *name;
    } cases[] = {
        {FJ_AXIS_STAGES, 3, "fwd_mma_bf16_e128_v128_m128_n64_s3_w4"},
        {FJ_AXIS_WARPS, 16, "fwd_mma_bf16_e128_v128_m256_n64_s1_w16"},
        {FJ_AXIS_TILE_KV, 128, "fwd_mma_bf16_e128_v128_m128_n128_s1_w8"},
        {FJ_AXIS_KERNEL, 0, "fwd_simt_bf16_e128_v128_m128_n64_s1_w4"},
        {FJ_AXIS_PACK, 1, "fwd_mma_bf16_e128_v128_m128_n64_s1_w4_pack"},
    };
    const fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    const fj_jit_problem of = {
        .kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 128, .value_dim = 128};
    fj_variant listed[FJ_JIT_MAX_VARIANTS], found;
    ck_assert_int_gt(fj_jit_variants(&of, &features, listed), 0);
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_values wanted = any();
        wanted.of[cases[i].axis] = cases[i].value;
        ck_assert(fj_jit_nearest_variant(&of, &features, &wanted, &listed[0], &found));
        ck_assert_str_eq(found.name, cases[i].name);
    }
}
END_TEST

static void check_values(const fj_jit_problem *of, const fj_features *features, const fj_values *wanted,
                         fj_axis axis, const char *text) {
    int values[FJ_AXIS_VALUES];
    char got[200] = "";
    size_t length = 0;
    const int count = fj_jit_legal_values(of, features, wanted, axis, values);
    for (int i = 0; i < count; i++)
        length += (size_t)snprintf(got + length, sizeof got - length, "%s%d", i ? " " : "", values[i]);
    ck_assert_str_eq(got, text);
}

START_TEST(legal_values_depend_on_each_other) {
    const fj_features gpu = fj_jit_arch_features((fj_arch){80, 0}),
                      old = fj_jit_arch_features((fj_arch){75, 0});
    const fj_features avx512 = cpu_of(true, true, false), avx2 = cpu_of(true, false, false);
    fj_jit_problem of = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 64, .value_dim = 64};
    fj_values wanted = any();
    check_values(&of, &gpu, &wanted, FJ_AXIS_KERNEL, "0 1");
    check_values(&of, &old, &wanted, FJ_AXIS_KERNEL, "0");
    check_values(&of, &gpu, &wanted, FJ_AXIS_SPLITS, "0 1 2 4 8 16 32 64");
    check_values(&of, &gpu, &wanted, FJ_AXIS_WIDE, "0");
    check_values(&of, &gpu, &wanted, FJ_AXIS_MOD_CHUNKS, "1");
    wanted.of[FJ_AXIS_KERNEL] = 1;
    wanted.of[FJ_AXIS_WARPS] = 8;
    check_values(&of, &gpu, &wanted, FJ_AXIS_TILE_Q, "128 256"); /* 16 or 32 rows to a warp */
    wanted.of[FJ_AXIS_KERNEL] = 0;
    check_values(&of, &gpu, &wanted, FJ_AXIS_TILE_Q, "32 64 128 256"); /* 4 rows to a warp at least */
    wanted.of[FJ_AXIS_KERNEL] = 1;
    wanted.of[FJ_AXIS_TILE_Q] = 256;
    wanted.of[FJ_AXIS_TILE_KV] = 128;
    check_values(&of, &gpu, &wanted, FJ_AXIS_STAGES,
                 "1 2 3 4"); /* 2 (256 + 4 128) 64 + ... : within 163 KiB */
    of.head_dim = 256;
    check_values(&of, &gpu, &wanted, FJ_AXIS_STAGES, ""); /* 2 (256 256 + 128 320) are not */
    wanted = any();
    of.kind = FJ_JIT_BACKWARD, of.head_dim = 64;
    check_values(&of, &gpu, &wanted, FJ_AXIS_SPLITS, "1"); /* forward alone */
    check_values(&of, &avx512, &wanted, FJ_AXIS_SPLITS, "1");
    check_values(&of, &avx512, &wanted, FJ_AXIS_ISA, "0 1 2");
    check_values(&of, &avx2, &wanted, FJ_AXIS_ISA, "0 1");
    check_values(&of, &avx2, &wanted, FJ_AXIS_TILE_Q, "48 96 144 192 240");
    wanted.of[FJ_AXIS_TILE_KV] = 64; /* two panels of 32 keys, but not of 64 */
    check_values(&of, &avx512, &wanted, FJ_AXIS_ISA, "0 1");
}
END_TEST

/* Unrolling is the plan's, unless it is asked for; it has to make another kernel. */
static void check_unrolling(fj_scope *scope, void *unused) {
    (void)unused;
    const fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    fj_jit_problem of = {.kind = FJ_JIT_FORWARD,
                         .ir = mod_of(scope->arena, 8),
                         .dtype = FJ_DTYPE_BF16,
                         .head_dim = 64,
                         .value_dim = 64};
    fj_variant listed[FJ_JIT_MAX_VARIANTS], found;
    fj_values wanted = any();
    ck_assert_int_gt(fj_jit_variants(&of, &features, listed), 0);
    wanted.of[FJ_AXIS_KERNEL] = 1;
    check_values(&of, &features, &wanted, FJ_AXIS_MASK_UNROLL, "1 2 4");
    check_values(&of, &features, &wanted, FJ_AXIS_WIDE, "0 1");
    wanted.of[FJ_AXIS_TILE_KV] = 48; /* 6 tiles of 8 keys */
    check_values(&of, &features, &wanted, FJ_AXIS_MOD_CHUNKS, "1 2");
    wanted.of[FJ_AXIS_MOD_CHUNKS] = 2;
    wanted.of[FJ_AXIS_MASK_UNROLL] = 4;
    ck_assert(fj_jit_nearest_variant(&of, &features, &wanted, &listed[0], &found));
    ck_assert_int_eq(found.mod_chunks, 2);
    ck_assert_int_eq(found.mask_unroll, 4);
    ck_assert_ptr_nonnull(strstr(found.name, "_n48_"));
    ck_assert_ptr_nonnull(strstr(found.name, "_t2"));
    ck_assert_ptr_nonnull(strstr(found.name, "_u4"));
    wanted.of[FJ_AXIS_MOD_CHUNKS] = 4;
    ck_assert(!fj_jit_nearest_variant(&of, &features, &wanted, &listed[0], &found));
    of.ir = mod_of(scope->arena, (int64_t)INT32_MAX + 1);
    wanted = any();
    check_values(&of, &features, &wanted, FJ_AXIS_WIDE, "1");
}

START_TEST(unrolling_makes_another_kernel) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, check_unrolling, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

RUN_SUITE("space", names_lead_back, other_names_do_not, values_lead_to_what_is_near,
          legal_values_depend_on_each_other, unrolling_makes_another_kernel)
