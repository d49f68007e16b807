/* base/: arenas under failing allocators, text, errors, and the conversions of small floats. */
#include "base/base.h"
#include "base/dtype.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- An allocator that fails from the N-th request on ---------------------------------------- */

typedef struct failing {
    int allowed;
    size_t live;
} failing;

static void *failing_resize(void *user, void *pointer, size_t old_size, size_t new_size) {
    failing *state = user;
    if (new_size == 0) {
        free(pointer);
        state->live -= old_size;
        return NULL;
    }
    if (state->allowed-- <= 0) return NULL;
    state->live += new_size - (pointer ? old_size : 0);
    return realloc(pointer, new_size);
}

static void fill(fj_scope *scope, void *argument) {
    int *sum = argument;
    FJ_VEC(int) numbers = {0};
    for (int i = 0; i < 50000; i++) FJ_PUSH(scope->arena, &numbers, i);
    for (size_t i = 0; i < numbers.len; i++) *sum += numbers.data[i] == (int)i;
    char *text = fj_arena_printf(scope->arena, "%s-%d", "abc", 7);
    ck_assert_str_eq(text, "abc-7");
}

START_TEST(every_failing_allocation_escapes_and_nothing_leaks) {
    for (int allowed = 0;; allowed++) {
        failing state = {allowed, 0};
        fj_allocator allocator = {failing_resize, &state};
        fj_arena arena;
        fj_error error = {0};
        int sum = 0;
        fj_arena_init(&arena, &allocator);
        fj_status status = fj_scope_run(&arena, &error, fill, &sum);
        fj_arena_finish(&arena);
        ck_assert_uint_eq(state.live, 0);
        if (status == FJ_OK) {
            ck_assert_int_eq(sum, 50000);
            ck_assert_int_gt(allowed, 3);
            return;
        }
        ck_assert_int_eq(status, FJ_ERR_MEMORY);
        ck_assert_int_eq(error.status, FJ_ERR_MEMORY);
    }
}
END_TEST

static void nest(fj_scope *scope, void *argument) {
    int *depth = argument;
    if (++*depth < 3) ck_assert_int_eq(fj_scope_run(scope->arena, NULL, nest, argument), FJ_ERR_NAME);
    fj_fail(scope, FJ_ERR_NAME, "at depth %d", *depth);
}

START_TEST(scopes_nest_and_restore) {
    fj_arena arena;
    fj_error error = {0};
    int depth = 0;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, &error, nest, &depth), FJ_ERR_NAME);
    ck_assert_ptr_null(arena.scope);
    ck_assert_str_eq(error.text, "at depth 3");
    fj_arena_finish(&arena);
}
END_TEST

/* ---- Text ---------------------------------------------------------------------------------- */

START_TEST(doubles_print_shortest_and_read_back) {
    const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {1, "1.0"},
                 {-0.0, "-0.0"},
                 {1e300, "1e+300"},
                 {1.0 / 3, NULL},
                 {5e-324, NULL},
                 {(double)INFINITY, "inf"},
                 {30, "30.0"}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_buf buf;
        fj_buf_init(&buf, &fj_allocator_libc);
        fj_buf_double(&buf, cases[i].value);
        if (cases[i].text) ck_assert_str_eq(buf.data, cases[i].text);
        ck_assert_double_eq(strtod(buf.data, NULL), cases[i].value);
        fj_buf_finish(&buf);
    }
}
END_TEST

/* More digits than are kept: zeros before and behind, and a last one that decides how a tie is rounded. */
START_TEST(long_decimals_are_right) {
    const struct {
        const char *before, *after;
        double value;
    } cases[] = {{"", "1.5", 1.5},
                 {"0.", "15e900", 1.5},
                 {"1", "e-899", 1},
                 {"9007199254740993.", "", 9007199254740992.0},
                 {"9007199254740993.", "1", 9007199254740994.0},
                 {"9007199254740992.", "1", 9007199254740992.0}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        char text[1024];
        double value;
        (void)snprintf(text, sizeof text, "%s%0899d%s", cases[i].before, 0, cases[i].after);
        ck_assert_uint_eq(fj_decimal_parse(fj_str_from(text), &value), strlen(text));
        ck_assert_msg(value == cases[i].value, "%zu: %.17g", i, value);
    }
}
END_TEST

START_TEST(what_is_no_decimal_ends_it) {
    const struct {
        const char *text;
        size_t length;
    } cases[] = {{"", 0},     {".", 0},     {"-", 0},    {"-.e1", 0}, {"e5", 0}, {"x1", 0},
                 {"7", 1},    {"7x", 1},    {".5", 2},   {"5.", 2},   {"1e", 1}, {"1e+", 1},
                 {"-2e3", 4}, {"3.e2x", 4}, {"+inf", 4}, {"1.5.5", 3}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        double value;
        ck_assert_msg(fj_decimal_parse(fj_str_from(cases[i].text), &value) == cases[i].length, "%s",
                      cases[i].text);
    }
}
END_TEST

START_TEST(a_failed_buffer_stays_failed) {
    failing state = {1, 0};
    fj_allocator allocator = {failing_resize, &state};
    fj_buf buf;
    fj_text text = {0};
    fj_buf_init(&buf, &allocator);
    for (int i = 0; i < 1000; i++) fj_buf_put(&buf, "0123456789");
    ck_assert(buf.failed);
    ck_assert_uint_le(buf.len, buf.cap);
    ck_assert_int_eq(fj_buf_take(&buf, &text), FJ_ERR_MEMORY);
    ck_assert_ptr_null(text.data);
    ck_assert_uint_eq(state.live, 0);
}
END_TEST

START_TEST(distance_counts_edits) {
    ck_assert_int_eq(fj_str_distance(FJ_STR("slopes"), FJ_STR("slopes"), 3), 0);
    ck_assert_int_eq(fj_str_distance(FJ_STR("slopes"), FJ_STR("slpoes"), 3), 1);
    ck_assert_int_eq(fj_str_distance(FJ_STR("slope"), FJ_STR("slopes"), 3), 1);
    ck_assert_int_eq(fj_str_distance(FJ_STR("tanh"), FJ_STR("sin"), 2), 3);
    ck_assert_int_eq(fj_str_distance(FJ_STR(""), FJ_STR("ab"), 5), 2);
}
END_TEST

START_TEST(errors_point_at_code_points) {
    fj_error error = {.line = 7, .column = 4, .length = 3, .file = "m.py", .text = "no", .note = "why"};
    strcpy(error.source_line, "\té = abc");
    char text[256];
    size_t length = fj_error_format(&error, text, sizeof text);
    ck_assert_uint_eq(length, strlen(text));
    ck_assert_str_eq(text, "m.py:7:4: error: no\n    7 | \té = abc\n      | \t  ^~~\n  note: why\n");
    char small[8];
    ck_assert_uint_eq(fj_error_format(&error, small, sizeof small), length);
    ck_assert_str_eq(small, "m.py:7:");
}
END_TEST

START_TEST(letters_and_digits_are_those_of_ascii) {
    static const char all[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (int c = 1; c < 256; c++) {
        const char *found = strchr(all, c);
        ck_assert_int_eq(fj_is_alnum((char)c), found != NULL);
        ck_assert_int_eq(fj_is_digit((char)c), found != NULL && found - all < 10);
    }
}
END_TEST

/* ---- Data types ------------------------------------------------------------------------------ */

START_TEST(names_and_dlpack_round_trip) {
    for (int i = 0; i < FJ_DTYPE_COUNT; i++) {
        fj_dtype dtype;
        ck_assert(fj_dtype_parse(fj_dtype_name((fj_dtype)i), &dtype));
        ck_assert_int_eq(dtype, i);
        ck_assert(fj_dtype_from_dlpack(fj_dtype_to_dlpack((fj_dtype)i), &dtype));
        ck_assert_int_eq(dtype, i);
        const char *name = fj_dtype_name((fj_dtype)i); /* F32, BF16 */
        ck_assert_int_eq(fj_dtype_is_float((fj_dtype)i), name[0] == 'F' || name[1] == 'F');
    }
    fj_dtype dtype;
    ck_assert(!fj_dtype_parse("F31", &dtype));
}
END_TEST

/* Every pattern of a 16-bit float survives; halfway cases go to even. */
static void check_sixteen_bits(fj_dtype dtype) {
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t pattern = (uint16_t)bits, back;
        double value = fj_dtype_load_float(dtype, &pattern, 0);
        fj_dtype_store_float(dtype, &back, 0, value);
        if (isnan(value))
            ck_assert(isnan(fj_dtype_load_float(dtype, &back, 0)));
        else
            ck_assert_uint_eq(back, pattern);
        uint16_t above = (uint16_t)(bits + 1);
        double next = fj_dtype_load_float(dtype, &above, 0);
        if (isfinite(value) && isfinite(next) && bits != 0x7FFF) {
            fj_dtype_store_float(dtype, &back, 0, (value + next) / 2);
            ck_assert_uint_eq(back, bits & 1 ? above : pattern);
        }
    }
}

START_TEST(small_floats_round_to_even) {
    check_sixteen_bits(FJ_DTYPE_F16);
    check_sixteen_bits(FJ_DTYPE_BF16);
    ck_assert_double_eq(fj_dtype_round(FJ_DTYPE_F16, 65519.9), 65504.0);
    ck_assert(isinf(fj_dtype_round(FJ_DTYPE_F16, 65520.0)));
    ck_assert(isinf(fj_dtype_round(FJ_DTYPE_BF16, 1e39)));
    ck_assert_double_eq(fj_dtype_round(FJ_DTYPE_F32, 0.1), (double)0.1f);
}
END_TEST

START_TEST(eight_bit_floats_decode) {
    const uint8_t e4m3[] = {0x38, 0x7E, 0xFE, 0x01, 0x7F}, e5m2[] = {0x3C, 0x7B, 0x7C, 0x01, 0x7D};
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E4M3, e4m3, 0), 1.0);
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E4M3, e4m3, 1), 448.0);
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E4M3, e4m3, 2), -448.0);
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E4M3, e4m3, 3), ldexp(1, -9));
    ck_assert(isnan(fj_dtype_load_float(FJ_DTYPE_F8_E4M3, e4m3, 4)));
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E5M2, e5m2, 0), 1.0);
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E5M2, e5m2, 1), 57344.0);
    ck_assert(isinf(fj_dtype_load_float(FJ_DTYPE_F8_E5M2, e5m2, 2)));
    ck_assert_double_eq(fj_dtype_load_float(FJ_DTYPE_F8_E5M2, e5m2, 3), ldexp(1, -16));
    ck_assert(isnan(fj_dtype_load_float(FJ_DTYPE_F8_E5M2, e5m2, 4)));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("base");
    TCase *tests = tcase_create("base");
    tcase_add_test(tests, every_failing_allocation_escapes_and_nothing_leaks);
    tcase_add_test(tests, scopes_nest_and_restore);
    tcase_add_test(tests, doubles_print_shortest_and_read_back);
    tcase_add_test(tests, long_decimals_are_right);
    tcase_add_test(tests, what_is_no_decimal_ends_it);
    tcase_add_test(tests, a_failed_buffer_stays_failed);
    tcase_add_test(tests, distance_counts_edits);
    tcase_add_test(tests, errors_point_at_code_points);
    tcase_add_test(tests, letters_and_digits_are_those_of_ascii);
    tcase_add_test(tests, names_and_dlpack_round_trip);
    tcase_add_test(tests, small_floats_round_to_even);
    tcase_add_test(tests, eight_bit_floats_decode);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
