/* Variants of the cuda templates: legal on every architecture, named for what they are. */
#include "tests/jit/session.h"

static const int archs[] = {75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121, 130};
static const int dims[] = {1, 8, 16, 40, 64, 72, 96, 128, 160, 192, 256};
static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};

static void check_problem(const fj_jit_problem *of, const fj_features *features) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    int count = fj_jit_variants(of, features, list);
    bool has_simt = false;
    ck_assert_msg(count > 0, "sm_%d %s e%d v%d", features->arch.number, fj_dtype_name(of->dtype),
                  of->head_dim, of->value_dim);
    for (int i = 0; i < count; i++) {
        const fj_variant *v = &list[i];
        ck_assert_int_eq(v->target, FJ_TARGET_CUDA);
        ck_assert_int_ge(v->head_pad, of->head_dim);
        ck_assert_int_ge(v->value_pad, of->value_dim);
        ck_assert_int_gt(v->entry_count, 0);
        ck_assert_int_lt(strlen(v->name), sizeof v->name - 1);
        for (int k = 0; k < v->entry_count; k++) {
            ck_assert_int_le(v->entries[k].shared, features->shared_limit);
            ck_assert(v->entries[k].threads % 32 == 0 && v->entries[k].threads <= 1024);
        }
        for (int j = 0; j < i; j++) ck_assert_str_ne(v->name, list[j].name);
        has_simt |= !v->mma;
        ck_assert(!v->mma || (features->arch.number >= 80 && of->dtype != FJ_DTYPE_F64));
    }
    ck_assert(has_simt); /* what always fits */
}

START_TEST(every_problem_has_a_variant_that_fits) {
    for (size_t a = 0; a < FJ_ARRAY_LEN(archs); a++)
        for (size_t t = 0; t < FJ_ARRAY_LEN(dtypes); t++)
            for (size_t e = 0; e < FJ_ARRAY_LEN(dims); e++)
                for (size_t v = 0; v < FJ_ARRAY_LEN(dims); v++)
                    for (int kind = FJ_JIT_FORWARD; kind <= FJ_JIT_BACKWARD; kind++) {
                        fj_features features = fj_jit_arch_features((fj_arch){archs[a], 0});
                        fj_jit_problem of = {.kind = (fj_jit_kind)kind,
                                             .dtype = dtypes[t],
                                             .head_dim = dims[e],
                                             .value_dim = dims[v],
                                             .deterministic = true};
                        check_problem(&of, &features);
                    }
}
END_TEST

START_TEST(names_spell_the_parameters) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    fj_jit_problem of = {.kind = FJ_JIT_FORWARD,
                         .dtype = FJ_DTYPE_BF16,
                         .head_dim = 128,
                         .value_dim = 64,
                         .deterministic = true};
    fj_features features = fj_jit_arch_features((fj_arch){90, 'a'});
    ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
    const fj_variant *v = &list[0];
    char name[64];
    (void)snprintf(name, sizeof name, "fwd_mma_bf16_e128_v64_m%d_n%d_s%d_w%d", v->tile_q, v->tile_kv,
                   v->stages, v->warps);
    ck_assert_str_eq(v->name, name);
    ck_assert_int_eq(v->arch.number, 90);
    ck_assert_int_eq(v->arch.suffix, 0); /* the same kernel as for sm_90 */
    of.kind = FJ_JIT_BACKWARD;
    of.deterministic = false;
    ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
    ck_assert_ptr_nonnull(strstr(list[0].name, "bwd_mma_bf16_atomic_e128_v64_"));
    of.dtype = FJ_DTYPE_F32;
    ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
    ck_assert_ptr_nonnull(strstr(list[0].name, "bwd_simt_f32_"));
}
END_TEST

START_TEST(what_no_kernel_covers_has_no_variant) {
    fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    static const fj_jit_problem problems[] = {
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_I32, .head_dim = 64, .value_dim = 64},
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_F16, .head_dim = 257, .value_dim = 64},
        {.kind = FJ_JIT_BACKWARD, .dtype = FJ_DTYPE_F16, .head_dim = 64, .value_dim = 0},
        {.kind = FJ_JIT_PEAK, .dtype = FJ_DTYPE_F16},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(problems); i++)
        ck_assert_int_eq(fj_jit_variants(&problems[i], &features, list), 0);
}
END_TEST

RUN_SUITE("plan cuda", every_problem_has_a_variant_that_fits, names_spell_the_parameters,
          what_no_kernel_covers_has_no_variant)
