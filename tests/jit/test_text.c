/* Variants and their names; the text of a kernel. */
#include "jit/request.h"
#include "tests/jit/session.h"

/* ---- Variants ------------------------------------------------------------------------------------------ */

START_TEST(variants_spell_their_parameters) {
    fj_features all = {.isa = {true, true, true, true}}, none = {.isa = {true}};
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    fj_jit_problem forward = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_F32, .head_dim = 64, .value_dim = 32};
    int count = fj_jit_variants(&forward, &all, list);
    ck_assert_str_eq(list[0].name, "fwd_cpu_f32_e64_v32_m48_n256_avx512");
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++) ck_assert_str_ne(list[i].name, list[j].name);
    forward.dtype = FJ_DTYPE_BF16;
    ck_assert_int_gt(fj_jit_variants(&forward, &all, list), count);
    ck_assert_str_eq(list[0].name, "fwd_cpu_bf16_e64_v32_m48_n256_avx512bf16");
    count = fj_jit_variants(&forward, &none, list);
    ck_assert_int_gt(count, 0);
    for (int i = 0; i < count; i++) ck_assert_ptr_nonnull(strstr(list[i].name, "_portable"));
    forward.few_queries = true;
    (void)fj_jit_variants(&forward, &all, list);
    ck_assert_str_eq(list[0].name, "fwd_cpu_bf16_e64_v32_m48_n256_avx512bf16_direct");
}
END_TEST

START_TEST(what_no_kernel_covers_has_no_variant) {
    fj_features all = {.isa = {true, true, true, true}};
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    static const fj_jit_problem problems[] = {
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_I32, .head_dim = 64, .value_dim = 64},
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_F8_E4M3, .head_dim = 64, .value_dim = 64},
        {.kind = FJ_JIT_BACKWARD, .dtype = FJ_DTYPE_F32, .head_dim = 257, .value_dim = 64},
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_F32, .head_dim = 64, .value_dim = 0},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(problems); i++)
        ck_assert_int_eq(fj_jit_variants(&problems[i], &all, list), 0);
}
END_TEST

START_TEST(features_are_consistent) {
    fj_features have = fj_jit_features();
    ck_assert(have.isa[FJ_ISA_PORTABLE]);
    ck_assert(!have.isa[FJ_ISA_AVX512] || have.isa[FJ_ISA_AVX2]);
    ck_assert(!have.isa[FJ_ISA_AVX512BF16] || have.isa[FJ_ISA_AVX512]);
#if defined(__x86_64__)
    ck_assert_int_eq(have.isa[FJ_ISA_AVX2], __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    ck_assert_int_eq(have.isa[FJ_ISA_AVX512],
                     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
#endif
}
END_TEST

/* ---- Text ------------------------------------------------------------------------------------------------- */

static fj_status render(fj_buf *text, fj_error *error) {
    fj_rendered rendered;
    fj_buf_init(text, &fj_allocator_libc);
    return fj_jit_render(&problem, &variant, &fj_allocator_libc, text, &rendered, error);
}

static int occurrences(const char *text, const char *part) {
    int count = 0;
    for (; (text = strstr(text, part)) != NULL; text++) count++;
    return count;
}

START_TEST(includes_are_put_in_once) {
    static const char one[] = "int one;\n  #  include \"two.h\"\n", two[] = "#include \"one.h\"\nint two;";
    file_write(templates, "one.h", one, sizeof one - 1, 0600);
    file_write(templates, "two.h", two, sizeof two - 1, 0600);
    write_template("#include \"one.h\"\n#include <math.h>\n#include \"two.h\"\n/* \"x\" */ int three;\n");
    fj_buf text;
    ck_assert_int_eq(render(&text, NULL), FJ_OK);
    ck_assert_int_eq(occurrences(text.data, "int one;\n"), 1);
    ck_assert_int_eq(occurrences(text.data, "int two;\n"), 1);
    ck_assert_int_eq(occurrences(text.data, "#include"), 1);
    ck_assert_int_eq(occurrences(text.data, "#include <math.h>\n"), 1);
    ck_assert_ptr_nonnull(strstr(text.data, "#line 1 \"cpu/one.h\"\nint one;\n"));
    ck_assert_ptr_nonnull(strstr(text.data, "#line 2 \"cpu/two.h\"\nint two;\n"));
    ck_assert_ptr_nonnull(strstr(text.data, "#line 4 \"cpu/peak.c\"\n/* \"x\" */ int three;\n"));
    fj_buf_finish(&text);
}
END_TEST

/* What is read after it lies behind it in memory. */
START_TEST(a_template_of_any_size_is_whole) {
    for (int pad = 0; pad < 32; pad++) {
        char text[128];
        fj_buf out;
        (void)snprintf(text, sizeof text, "#include \"abi.h\"\n%*sint end;", pad, "");
        write_template(text);
        ck_assert_int_eq(render(&out, NULL), FJ_OK);
        ck_assert_msg(out.len > 9 && memcmp(out.data + out.len - 9, "int end;\n", 9) == 0, "%d", pad);
        fj_buf_finish(&out);
    }
}
END_TEST

START_TEST(a_missing_template_is_named) {
    fj_buf text;
    fj_error error = {0};
    write_template("#include \"nowhere.h\"\n");
    ck_assert_int_eq(render(&text, &error), FJ_ERR_IO);
    ck_assert_str_eq(error.text, "kernel template not found: 'cpu/nowhere.h'");
    fj_buf_finish(&text);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/peak.c", templates);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(render(&text, &error), FJ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(error.text, "cannot be read"));
    fj_buf_finish(&text);
}
END_TEST

/* ---- Keys ------------------------------------------------------------------------------------------------- */

/* A content is of a text, its options in their order, and a compiler with its version: each makes another key. */
START_TEST(keys_are_of_all_that_makes_a_content) {
    static const struct {
        const char *text, *options[3], *path, *version;
    } cases[] = {
        {"text", {"-O2", "-g"}, "cc", "12.2"}, {"texts", {"-O2", "-g"}, "cc", "12.2"},
        {"text", {"-g", "-O2"}, "cc", "12.2"}, {"text", {"-O2-g"}, "cc", "12.2"},
        {"text", {"-O2"}, "cc", "12.2"},       {"text", {"-O2", "-g"}, "/cc", "12.2"},
        {"text", {"-O2", "-g"}, "cc", "12.3"}, {"text", {"-O2", "-g"}, "cc1", "2.2"},
    };
    fj_digest keys[FJ_ARRAY_LEN(cases)];
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_options options = {0};
        fj_compiler compiler = {0};
        for (size_t k = 0; k < 3; k++) options.list[k] = cases[i].options[k];
        (void)snprintf(compiler.path, sizeof compiler.path, "%s", cases[i].path);
        (void)snprintf(compiler.version, sizeof compiler.version, "%s", cases[i].version);
        keys[i] = fj_jit_content_key(fj_jit_source_digest(fj_str_from(cases[i].text), &options), &compiler);
        for (size_t j = 0; j < i; j++)
            ck_assert_msg(!fj_cache_digest_equal(keys[i], keys[j]), "cases %zu and %zu", j, i);
    }
}
END_TEST

static void graph_of(fj_scope *scope, void *argument) {
    const char *const text = "%1 = q\n%2 = cast_float.float %1\nscore %2\n";
    *(fj_ir **)argument = fj_ir_parse(scope->arena, scope, fj_str_from(text));
}

static char *request_of(const fj_jit_problem *asked) {
    fj_buf text;
    fj_text taken;
    fj_buf_init(&text, &fj_allocator_libc);
    ck_assert_int_eq(fj_jit_request_text(asked, &variant, &fj_allocator_libc, &text, NULL), FJ_OK);
    ck_assert_int_eq(fj_buf_take(&text, &taken), FJ_OK);
    return taken.data;
}

/* The graphs of the output and of the sink, and dropout, are of the request; one that has none of them keeps its key. */
START_TEST(requests_hold_every_graph_and_dropout) {
    fj_arena arena;
    fj_ir *graph = NULL;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, graph_of, &graph), FJ_OK);
    const fj_jit_problem plain = {
        .kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_F32, .head_dim = 8, .value_dim = 8, .ir = graph};
    fj_jit_problem with[4] = {plain, plain, plain, plain};
    with[1].out = graph;
    with[2].sink = graph;
    with[3].dropout = true;
    char *texts[4];
    for (int i = 0; i < 4; i++) texts[i] = request_of(&with[i]);
    ck_assert_int_eq(occurrences(texts[0], "score"), 1);
    ck_assert_ptr_null(strstr(texts[0], "dropout"));
    ck_assert_ptr_nonnull(strstr(texts[1], "\nout\n"));
    ck_assert_int_eq(occurrences(texts[1], "score"), 2);
    ck_assert_ptr_nonnull(strstr(texts[2], "\nsink\n"));
    ck_assert_ptr_nonnull(strstr(texts[3], "\ndropout 1\n"));
    for (int i = 0; i < 4; i++) free(texts[i]);
    fj_arena_finish(&arena);
}
END_TEST

RUN_SUITE("text", requests_hold_every_graph_and_dropout, variants_spell_their_parameters,
          what_no_kernel_covers_has_no_variant, features_are_consistent, keys_are_of_all_that_makes_a_content,
          includes_are_put_in_once, a_missing_template_is_named, a_template_of_any_size_is_whole)
