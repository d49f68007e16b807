/* The comparison behind --check: right results pass it, and wrong ones that are planted do not. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/number.h"
#include "cli/run.h"

enum { ROWS = 24, KEYS = 30, WIDTH = 16, PASSES = 3 };

static const cli_shape shape = {1, 2, 1, ROWS, KEYS, WIDTH, WIDTH};
static const fj_device_kind kinds[PASSES] = {FJ_DEVICE_REFERENCE, FJ_DEVICE_ROUNDING, FJ_DEVICE_UNFUSED};

/* A call, the passes that judge it, and a result to be judged: the reference rounded to the dtype. */
typedef struct verdict {
    fj_context *context;
    fj_mod *mod;
    fj_dtype dtype;
    cli_inputs inputs;
    cli_outputs passes[PASSES], result;
    cli_output_list lists[PASSES], result_list;
} verdict;

static void fill(cli_view *view, fj_dtype dtype, int64_t heads, int64_t rows, double size,
                 cli_random *random) {
    const int64_t dims[] = {1, heads, rows, WIDTH};
    ck_assert_int_eq(cli_view_allocate(view, "x", dtype, 4, dims), 0);
    for (size_t i = 0; i < view->count; i++)
        cli_store(dtype, view->tensor.data, i, size * cli_random_normal(random));
}

static fj_mod *make_mod(fj_context *context, const char *score, const char *mask) {
    const fj_mod_desc desc = {.struct_size = sizeof desc, .score = score, .mask = mask};
    fj_mod *mod = NULL;
    fj_error error = {0};
    ck_assert_msg(fj_mod_create(context, &desc, &mod, &error) == FJ_OK, "%s", error.text);
    return mod;
}

static void run(const verdict *v, const fj_mod *mod, fj_device_kind kind, cli_outputs *ret_outputs) {
    const cli_call_options options = {.shape = shape, .dtype = v->dtype, .scale = 0.25};
    fj_dtype dtype = kind == FJ_DEVICE_UNFUSED ? v->dtype : FJ_DTYPE_F64;
    fj_device *device = NULL;
    ck_assert_int_eq(fj_device_create(v->context, kind, &device, NULL), FJ_OK);
    ck_assert_int_eq(cli_outputs_allocate(ret_outputs, &options, &v->inputs, mod, true, dtype,
                                          cli_statistics_dtype(dtype)),
                     0);
    for (fj_direction direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        cli_kernel kernel;
        double ms;
        ck_assert_int_eq(cli_kernel_open(&kernel, device, mod, &options, direction, &v->inputs, ret_outputs),
                         0);
        ck_assert_int_eq(cli_kernel_run(&kernel, &ms), 0);
        cli_kernel_close(&kernel);
    }
    fj_device_unref(&device);
}

/* The result becomes what a mod gives, exactly but for the dtype. */
static void set_result(verdict *v, const char *score, const char *mask) {
    const cli_call_options options = {.shape = shape, .dtype = v->dtype};
    cli_outputs exact = {0};
    cli_output_list list;
    fj_mod *mod = make_mod(v->context, score, mask);
    run(v, mod, FJ_DEVICE_REFERENCE, &exact);
    cli_output_list_finish(&v->result_list);
    cli_outputs_finish(&v->result);
    ck_assert_int_eq(cli_outputs_allocate(&v->result, &options, &v->inputs, v->mod, true, v->dtype,
                                          cli_statistics_dtype(v->dtype)),
                     0);
    ck_assert_int_eq(cli_outputs_list(&exact, mod, &list), 0);
    ck_assert_int_eq(cli_outputs_list(&v->result, v->mod, &v->result_list), 0);
    for (size_t i = 0; i < list.count; i++) {
        const cli_view *from = list.items[i].view, *to = v->result_list.items[i].view;
        for (size_t j = 0; j < from->count; j++)
            cli_store(to->dtype, to->tensor.data, j, cli_load(FJ_DTYPE_F64, from->tensor.data, j));
    }
    cli_output_list_finish(&list);
    cli_outputs_finish(&exact);
    fj_mod_unref(&mod);
}

/* size: of queries and keys. */
static void begin_sized(verdict *v, fj_dtype dtype, double size, const char *score, const char *mask) {
    cli_random random = {7};
    *v = (verdict){.dtype = dtype};
    ck_assert_int_eq(fj_context_create(NULL, &v->context), FJ_OK);
    v->mod = make_mod(v->context, score, mask);
    ck_assert_int_eq(cli_inputs_begin(&v->inputs, v->mod), 0);
    fill(&v->inputs.query, dtype, shape.heads, ROWS, size, &random);
    fill(&v->inputs.key, dtype, shape.kv_heads, KEYS, size, &random);
    fill(&v->inputs.value, dtype, shape.kv_heads, KEYS, 1, &random);
    fill(&v->inputs.dout, dtype, shape.heads, ROWS, 1, &random);
    for (int i = 0; i < PASSES; i++) {
        run(v, v->mod, kinds[i], &v->passes[i]);
        ck_assert_int_eq(cli_outputs_list(&v->passes[i], v->mod, &v->lists[i]), 0);
    }
    set_result(v, score, mask);
}

static void begin(verdict *v, fj_dtype dtype, const char *score, const char *mask) {
    begin_sized(v, dtype, 1, score, mask);
}

static void end(verdict *v) {
    for (int i = 0; i < PASSES; i++) {
        cli_output_list_finish(&v->lists[i]);
        cli_outputs_finish(&v->passes[i]);
    }
    cli_output_list_finish(&v->result_list);
    cli_outputs_finish(&v->result);
    cli_inputs_finish(&v->inputs);
    fj_mod_unref(&v->mod);
    fj_context_unref(&v->context);
}

static cli_comparison judge(const verdict *v, const cli_output_list *list, cli_output_kind kind) {
    const cli_call_options options = {.shape = shape};
    cli_comparison found = {0};
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].kind != kind) continue;
        cli_evidence evidence = cli_evidence_of(&list->items[i], &options, v->dtype, &v->passes[0].lse);
        evidence.reference = evidence.unfused_reference = v->lists[0].items[i].view;
        evidence.noise = v->lists[1].items[i].view;
        evidence.unfused = v->lists[2].items[i].view;
        ck_assert_int_eq(cli_compare(&evidence, &found), 0);
    }
    return found;
}

static const cli_output_kind all_kinds[] = {CLI_OUTPUT_OUT, CLI_OUTPUT_LSE, CLI_OUTPUT_DQ, CLI_OUTPUT_DK,
                                            CLI_OUTPUT_DV};

static void check_all_good(const verdict *v, const cli_output_list *list) {
    for (size_t i = 0; i < sizeof all_kinds / sizeof all_kinds[0]; i++) {
        cli_comparison found = judge(v, list, all_kinds[i]);
        ck_assert_msg(found.ok, "%s, output %d: mean %g, bound %g, row %zu is %g times its bound",
                      fj_dtype_name(v->dtype), (int)all_kinds[i], found.mean, found.bound, found.row,
                      found.worst);
    }
}

static cli_view *view_of(verdict *v, cli_output_kind kind) {
    cli_view *const views[] = {&v->result.out,    &v->result.lse,  &v->result.max, //
                               &v->result.dquery, &v->result.dkey, &v->result.dvalue};
    return views[kind];
}

/* Row `row` of an output becomes a x + b; judged; and comes back. */
static bool is_found(verdict *v, cli_output_kind kind, size_t row, double a, double b) {
    cli_view *view = view_of(v, kind);
    size_t width = kind == CLI_OUTPUT_LSE ? 1 : WIDTH, bytes = width * fj_dtype_size(view->dtype);
    char *at = (char *)view->tensor.data + row * bytes, kept[WIDTH * sizeof(double)];
    memcpy(kept, at, bytes);
    for (size_t i = 0; i < width; i++)
        cli_store(view->dtype, at, i, (a == 0 ? 0 : a * cli_load(view->dtype, at, i)) + b);
    bool ok = judge(v, &v->result_list, kind).ok;
    memcpy(at, kept, bytes);
    return !ok;
}

static const struct {
    fj_dtype dtype;
    double factor; /* the least error of one row that is a defect */
} dtypes[] = {{FJ_DTYPE_F32, 1.0001}, {FJ_DTYPE_F16, 1.01}, {FJ_DTYPE_BF16, 1.06}};

static const char *const mods[][2] = {
    {NULL, NULL},
    {NULL, "q >= kv"},
    {"score * 2.0 - abs(q - kv)", "(kv < 9) | (q - 3 < kv)"},
    {"where(q < 12, score, -1e30)", NULL},
    {"30.0 * tanh(score / 30.0)", "kv % 3 == q % 3"},
};

START_TEST(right_results_pass) {
    verdict v;
    begin(&v, dtypes[_i % 3].dtype, mods[_i / 3][0], mods[_i / 3][1]);
    check_all_good(&v, &v.result_list); /* rounded once */
    check_all_good(&v, &v.lists[2]);    /* unfused */
    end(&v);
}
END_TEST

/* The noise is what rounding does: an unfused pass is off by about as much, neither by nothing nor by far more. 16 bits
 * round its scores as well, which the noise of a fused pass does not have. */
START_TEST(noise_is_the_size_of_errors) {
    verdict v;
    begin(&v, dtypes[_i % 3].dtype, mods[_i / 3][0], mods[_i / 3][1]);
    for (size_t i = 0; i < sizeof all_kinds / sizeof all_kinds[0]; i++) {
        double usual = judge(&v, &v.result_list, all_kinds[i]).usual;
        bool statistic = all_kinds[i] == CLI_OUTPUT_LSE && v.dtype != FJ_DTYPE_F32;
        ck_assert_msg(usual > 0.1 && (statistic || usual < 6), "output %d: %g", (int)all_kinds[i], usual);
    }
    end(&v);
}
END_TEST

static void reverse_rows(const cli_view *view, int64_t rows) {
    double *at = view->tensor.data;
    for (size_t head = 0; head < view->count / (size_t)(rows * WIDTH); head++, at += rows * WIDTH)
        for (int64_t i = 0, j = rows - 1; i < j; i++, j--)
            for (int k = 0; k < WIDTH; k++) {
                const double kept = at[i * WIDTH + k];
                at[i * WIDTH + k] = at[j * WIDTH + k];
                at[j * WIDTH + k] = kept;
            }
}

/* Keys in the reverse order, the first of which are masked instead of the last, have the same noise. */
START_TEST(noise_does_not_depend_on_the_order_of_keys) {
    char first[64], last[64];
    verdict v;
    cli_outputs reversed = {0};
    cli_output_list list;
    (void)snprintf(first, sizeof first, "kv >= 5");
    (void)snprintf(last, sizeof last, "kv < %d", KEYS - 5);
    begin(&v, FJ_DTYPE_F64, "score * 0.5", last);
    fj_mod *mod = make_mod(v.context, "score * 0.5", first);
    reverse_rows(&v.inputs.key, KEYS);
    reverse_rows(&v.inputs.value, KEYS);
    run(&v, mod, FJ_DEVICE_ROUNDING, &reversed);
    ck_assert_int_eq(cli_outputs_list(&reversed, mod, &list), 0);
    for (size_t i = 0; i < list.count; i++) {
        const cli_view *view = list.items[i].view;
        const double *x = v.lists[1].items[i].view->tensor.data, *y = view->tensor.data;
        if (list.items[i].kind == CLI_OUTPUT_DK || list.items[i].kind == CLI_OUTPUT_DV)
            reverse_rows(view, KEYS);
        for (size_t k = 0; k < view->count; k++)
            ck_assert_msg(fabs(x[k] - y[k]) <= 1e-9 * fabs(x[k]), "output %zu, %zu: %g, %g", i, k, x[k],
                          y[k]);
    }
    cli_output_list_finish(&list);
    cli_outputs_finish(&reversed);
    fj_mod_unref(&mod);
    end(&v);
}
END_TEST

START_TEST(one_wrong_row_is_found) {
    verdict v;
    double factor = dtypes[_i % 3].factor;
    begin(&v, dtypes[_i % 3].dtype, mods[_i / 3][0], mods[_i / 3][1]);
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 17, factor, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 5, 0, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 1, 1, 2 * factor - 2));
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 3, 1, (double)NAN));
    ck_assert(is_found(&v, CLI_OUTPUT_DK, 0, 1.5, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DV, 1, 1.25, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DV, 0, -1, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DQ, 1, -1, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DQ, 11, 1.25, 0));
    end(&v);
}
END_TEST

/* What a wrong bound of a loop gives: one query does not see one key. */
START_TEST(a_missing_key_is_found) {
    verdict v;
    begin(&v, dtypes[_i].dtype, NULL, "q >= kv");
    set_result(&v, NULL, "(q >= kv) & ((q != 7) | (kv != 5))");
    for (size_t i = 0; i < sizeof all_kinds / sizeof all_kinds[0]; i++)
        ck_assert_msg(!judge(&v, &v.result_list, all_kinds[i]).ok, "output %d", (int)all_kinds[i]);
    end(&v);
}
END_TEST

/* A score that is a little wrong everywhere: what the mean is for. */
START_TEST(a_small_error_everywhere_is_found) {
    static const char *const scores[] = {"score * 1.00005", "score * 1.02", "score * 1.1"};
    verdict v;
    begin(&v, dtypes[_i].dtype, NULL, NULL);
    set_result(&v, scores[_i], NULL);
    ck_assert(!judge(&v, &v.result_list, CLI_OUTPUT_OUT).ok);
    ck_assert(!judge(&v, &v.result_list, CLI_OUTPUT_LSE).ok);
    end(&v);
}
END_TEST

/* Rows that see one key: dq and dk are exactly 0, and a kernel's are what is left of the terms that cancel. */
START_TEST(cancelled_terms_leave_their_rounding) {
    verdict v;
    begin(&v, FJ_DTYPE_F32, NULL, "q == kv");
    check_all_good(&v, &v.result_list);
    for (int kind = CLI_OUTPUT_DQ; kind <= CLI_OUTPUT_DK; kind++) {
        ck_assert(!is_found(&v, (cli_output_kind)kind, 4, 1, 2e-8));
        ck_assert(is_found(&v, (cli_output_kind)kind, 4, 1, 1e-4));
    }
    end(&v);
}
END_TEST

/* A row of -1e30 beside the others: its lse is checked to its own units, theirs to theirs. */
START_TEST(large_rows_do_not_hide_the_others) {
    verdict v;
    begin(&v, FJ_DTYPE_F32, "where(q == 3, -1e30, score)", NULL);
    check_all_good(&v, &v.result_list);
    ck_assert(!is_found(&v, CLI_OUTPUT_LSE, 3, 1 + 0x1p-23, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 3, 1.0001, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 4, 1, 1e-4));
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 3, 1.001, 0)); /* the mean of V */
    end(&v);
}
END_TEST

START_TEST(rows_that_see_nothing_are_exact) {
    verdict v;
    begin(&v, FJ_DTYPE_F32, NULL, "q > kv");
    check_all_good(&v, &v.result_list);
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 0, 1, 1e-30));
    ck_assert(is_found(&v, CLI_OUTPUT_DQ, 0, 1, 1e-30));
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 0, 0, -1e30));
    ck_assert(is_found(&v, CLI_OUTPUT_DK, KEYS - 1, 1, 1e-30)); /* nobody sees it */
    end(&v);
}
END_TEST

START_TEST(rows_of_nan_agree) {
    verdict v;
    begin(&v, FJ_DTYPE_F32, "score * where(q == 3, sqrt(-1.0 - kv), 1.0)", "q >= kv");
    check_all_good(&v, &v.result_list);
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 3, 0, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 3, 0, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DQ, 3, 0, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DK, 2, 0, 0)); /* row 3 sees it */
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 9, 1.001, 0));
    /* Which of NaN and the infinities is left open, but a row that sees nothing is another thing. */
    ck_assert(!is_found(&v, CLI_OUTPUT_OUT, 3, 0, -HUGE_VAL));
    ck_assert(!is_found(&v, CLI_OUTPUT_LSE, 3, 0, HUGE_VAL));
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 3, 0, -HUGE_VAL));
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 9, 0, HUGE_VAL));
    end(&v);
}
END_TEST

/* Scores past the greatest number of F16, and squares past that of F64: the yardsticks stay finite, and find as much. */
static const struct {
    fj_dtype dtype;
    double size, most; /* most: the largest score */
} large[] = {{FJ_DTYPE_F16, 250, 1e6}, {FJ_DTYPE_F64, 1e120, 1e242}};

START_TEST(large_products_are_checked) {
    verdict v;
    begin_sized(&v, large[_i].dtype, large[_i].size, NULL, "q >= kv");
    check_all_good(&v, &v.result_list);
    check_all_good(&v, &v.lists[2]);
    ck_assert(is_found(&v, CLI_OUTPUT_LSE, 3, 1, 1e-4 * large[_i].most));
    /* Some units in the last place, of scores in F32 or F64. */
    ck_assert(
        !is_found(&v, CLI_OUTPUT_LSE, 3, 1 + (large[_i].dtype == FJ_DTYPE_F16 ? 0x1p-23 : 5 * 0x1p-52), 0));
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 17, large[_i].dtype == FJ_DTYPE_F16 ? 1.01 : 1 + 1e-13, 0));
    ck_assert(is_found(&v, CLI_OUTPUT_DV, 0, -1, 0));
    end(&v);
}
END_TEST

/* Where the rounding of what cancels reaches past the greatest number of F16, an infinity is no worse. */
START_TEST(noise_past_the_range_may_be_infinite) {
    verdict v;
    begin_sized(&v, FJ_DTYPE_F16, 250, "score * score * 8.0", "q >= kv");
    ck_assert(!is_found(&v, CLI_OUTPUT_DK, 3, 0, HUGE_VAL));
    ck_assert(is_found(&v, CLI_OUTPUT_OUT, 3, 0, HUGE_VAL));
    end(&v);
    begin(&v, FJ_DTYPE_F16, "score * score * 8.0", "q >= kv");
    ck_assert(is_found(&v, CLI_OUTPUT_DK, 3, 0, HUGE_VAL));
    end(&v);
}
END_TEST

/* Means and bounds of three rows by hand: the formulas at the head of compare.c. */
START_TEST(means_and_bounds_are_those_of_the_page) {
    double x[] = {0.5, -0.5, 0.5, 0.5, 3, 3}, noise[] = {1, 1, 2, 2, 4, 4}, zero[6] = {0};
    double unfused[] = {1, 1, 4, -4, 4, 4};
    const int64_t dims[] = {3, 2};
    cli_view views[4];
    double *const data[] = {x, noise, unfused, zero};
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(cli_view_borrow(&views[i], "x", FJ_DTYPE_F64, 2, dims, data[i]), 0);
    const cli_evidence evidence = {.x = &views[0],
                                   .noise = &views[1],
                                   .unfused = &views[2],
                                   .reference = &views[3],
                                   .unfused_reference = &views[3],
                                   .unfused_scale = 1,
                                   .rows = 3,
                                   .factor = 1.5,
                                   .slack = 1.25};
    cli_comparison found;
    ck_assert_int_eq(cli_compare(&evidence, &found), 0);
    ck_assert_double_eq_tol(found.max, 3, 1e-12);
    ck_assert_double_eq_tol(found.mean, 2 * (0.5 + 0.25 + 0.75) / 3, 1e-12);
    ck_assert_double_eq_tol(found.usual, (1. + 2 + 1) / 3, 1e-12);
    ck_assert_double_eq_tol(found.unfused, 2 * found.usual, 1e-12);
    ck_assert_double_eq_tol(found.bound, 1.5 * found.unfused + 1.25 * 2, 1e-12);
    ck_assert_double_eq_tol(found.worst, 3 / (2 * (1.5 * (4 + 4 * found.usual) + 1.25 * 4)), 1e-12);
    ck_assert_uint_eq(found.row, 2);
    ck_assert(found.ok);
    for (int i = 0; i < 4; i++) cli_view_finish(&views[i]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cli");
    TCase *tests = tcase_create("check");
    int all = 3 * (int)(sizeof mods / sizeof mods[0]);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, right_results_pass, 0, all);
    tcase_add_loop_test(tests, noise_is_the_size_of_errors, 0, all);
    tcase_add_test(tests, noise_does_not_depend_on_the_order_of_keys);
    tcase_add_loop_test(tests, one_wrong_row_is_found, 0, all);
    tcase_add_loop_test(tests, a_missing_key_is_found, 0, 3);
    tcase_add_loop_test(tests, a_small_error_everywhere_is_found, 0, 3);
    tcase_add_test(tests, cancelled_terms_leave_their_rounding);
    tcase_add_test(tests, large_rows_do_not_hide_the_others);
    tcase_add_test(tests, rows_that_see_nothing_are_exact);
    tcase_add_test(tests, rows_of_nan_agree);
    tcase_add_loop_test(tests, large_products_are_checked, 0, 2);
    tcase_add_test(tests, noise_past_the_range_may_be_infinite);
    tcase_add_test(tests, means_and_bounds_are_those_of_the_page);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
