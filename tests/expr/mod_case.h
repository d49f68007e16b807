/* Mods compiled to graphs, for the tests of expr/lang. */
#ifndef FJ_TESTS_EXPR_MOD_CASE_H
#define FJ_TESTS_EXPR_MOD_CASE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expr/lang/mod.h"

static fj_arena arena;
static fj_error error;
static fj_ir *graph;
static fj_mod_origins origins;

static void setup(void) {
    fj_arena_init(&arena, &fj_allocator_libc);
    memset(&error, 0, sizeof error);
    graph = NULL;
}

static void teardown(void) {
    fj_error_finish(&error);
    fj_arena_finish(&arena);
}

static void body(fj_scope *scope, void *user) { graph = fj_expr_compile(scope, user, &origins); }

static fj_status compile(fj_mod_desc desc) {
    desc.struct_size = sizeof desc;
    if (desc.source != NULL) desc.source_length = strlen(desc.source);
    const fj_status status = fj_scope_run(&arena, &error, body, &desc);
    if (status == FJ_OK) ck_assert_ptr_null(fj_ir_validate(graph));
    return status;
}

#define ASSERT_OK(...)                                                      \
    do {                                                                    \
        const fj_status status_ = compile((fj_mod_desc){__VA_ARGS__});      \
        ck_assert_msg(status_ == FJ_OK, "%s (%s)", error.text, error.note); \
    } while (0)

#define ASSERT_FAILS(wanted, words, ...)                                      \
    do {                                                                      \
        ck_assert_int_eq(compile((fj_mod_desc){__VA_ARGS__}), (wanted));      \
        ck_assert_msg(strstr(error.text, (words)) != NULL, "%s", error.text); \
    } while (0)

__attribute__((unused)) static void count(const fj_ir *ir, fj_op op, int *ret_count) {
    *ret_count = 0;
    for (size_t i = 1; i < ir->nodes.len; i++) *ret_count += ir->nodes.data[i].op == op;
}

#define SCORE(text) "def score_mod(score, b, h, q, kv):\n    return " text "\n"
#define MASK(text) "def mask_mod(b, h, q, kv):\n    return " text "\n"

static const fj_binding vectors[] = {
    {"slopes", FJ_DTYPE_F32, 1, {8}},
    {"table", FJ_DTYPE_F16, 1, {8}},
    {"ids", FJ_DTYPE_I32, 1, {64}},
};

#define FACTORY                                                                                   \
    "import torch\nslopes = torch.randn(8)\ndef make(table):\n    def mod(score, b, h, q, kv):\n" \
    "        return score + table[h]\n    return mod\nscore_mod = make(slopes)\n"

static int run_mod_tests(const char *name, const TTest *const *tests, size_t count_of_tests) {
    TCase *all = tcase_create(name);
    tcase_add_checked_fixture(all, setup, teardown);
    for (size_t i = 0; i < count_of_tests; i++) tcase_add_test(all, tests[i]);
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}

#endif
