/* Graphs: sizes, index expressions, our own JSON there and back, what is wrong with it, and every allocation failing. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fuse.h"
#include "fuse/index.h"
#include "tests/support/failing.h"

/* ---- Sizes and indices ------------------------------------------------------------------- */

static void in_scope(fj_scope *scope, void *argument) {
    (void)argument;
    fj_sizes sizes;
    fj_sizes_init(&sizes, scope->arena);
    const fj_size s = fj_size_symbol(&sizes, FJ_STR("s")), t = fj_size_symbol(&sizes, FJ_STR("t"));
    const fj_size four = fj_size_of(&sizes, 4), one = fj_size_of(&sizes, 1);
    const fj_size product = fj_size_mul(&sizes, fj_size_add(&sizes, s, one), fj_size_mul(&sizes, four, t));
    fj_size found = 0;
    int64_t value = 0;
    ck_assert_int_eq(fj_size_sub(&sizes, product, product), fj_size_of(&sizes, 0));
    ck_assert(fj_size_parse(&sizes, fj_str_from(fj_size_text(&sizes, product)), &found) && found == product);
    ck_assert(fj_size_value(&sizes, product, (int64_t[]){5, 7}, &value) && value == 6 * 28);
    ck_assert(fj_size_divide(&sizes, product, t, &found) &&
              fj_size_value(&sizes, found, (int64_t[]){5, 7}, &value) && value == 24);
    ck_assert(!fj_size_divide(&sizes, product, s, &found));
    ck_assert(fj_size_at_least_0(&sizes, fj_size_sub(&sizes, s, one)));
    ck_assert(!fj_size_at_least_0(&sizes, fj_size_sub(&sizes, s, four)));
    ck_assert(!fj_size_at_least_0(&sizes, fj_size_sub(&sizes, one, s)));
    ck_assert(!fj_size_parse(&sizes, FJ_STR("4*"), &found) && !fj_size_parse(&sizes, FJ_STR("s-1"), &found) &&
              !fj_size_parse(&sizes, FJ_STR("99999999999999999999"), &found));

    /* [B, H, L] to [B * H, L] and back is where it was, whatever B and L are. */
    fj_indices x;
    fj_indices_init(&x, &sizes, scope->arena);
    const fj_value three = {.rank = 3, .dims = {s, four, t}},
                   two = {.rank = 2, .dims = {fj_size_mul(&sizes, s, four), t}};
    const fj_index vars[] = {fj_index_var(&x, 0, s), fj_index_var(&x, 1, four), fj_index_var(&x, 2, t)};
    fj_index middle[FJ_MAX_RANK] = {0}, back[FJ_MAX_RANK] = {0};
    ck_assert(fj_index_reshape(&x, &three, vars, &two, middle));
    ck_assert_int_eq(middle[1], vars[2]);
    ck_assert(fj_index_reshape(&x, &two, middle, &three, back));
    for (int i = 0; i < 3; i++) ck_assert_int_eq(back[i], vars[i]);
    /* [6, 4] read as [4, 6] is another matrix than its transpose. */
    const fj_size six = fj_size_of(&sizes, 6);
    const fj_value a = {.rank = 2, .dims = {six, four}}, b = {.rank = 2, .dims = {four, six}};
    const fj_index rows[] = {fj_index_var(&x, 3, six), fj_index_var(&x, 4, four)};
    ck_assert(fj_index_reshape(&x, &a, rows, &b, middle));
    ck_assert(middle[0] != rows[1] && middle[1] != rows[0]);
    ck_assert(!fj_index_reshape(&x, &a, rows, &three, middle));
    /* What may be negative is not below anything. */
    const fj_index back_to_front = fj_index_scale(&x, rows[1], fj_size_of(&sizes, -1));
    ck_assert_int_ne(fj_index_div(&x, back_to_front, six), fj_index_size(&x, fj_size_of(&sizes, 0)));
    ck_assert_int_eq(fj_index_mod(&x, fj_index_add(&x, rows[1], fj_index_scale(&x, rows[0], four)), four),
                     rows[1]);
}

START_TEST(sizes_and_indices) {
    fj_arena arena;
    fj_error error = {0};
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, &error, in_scope, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

/* ---- A graph ----------------------------------------------------------------------------- */

#define VALUE(name, dtype, shape) "{\"name\":\"" name "\",\"dtype\":\"" dtype "\",\"shape\":" shape "}"
#define INPUT(name, dtype, shape) \
    "{\"name\":\"" name "\",\"kind\":\"input\",\"dtype\":\"" dtype "\",\"shape\":" shape "}"
#define NODE(op, args, result) \
    "{\"op\":\"" op "\",\"name\":\"" op "_n\",\"args\":" args ",\"results\":[" result "]}"
#define GRAPH(inputs, nodes, outputs) \
    "{\"schema\":1,\"inputs\":[" inputs "],\"nodes\":[" nodes "],\"outputs\":[" outputs "]}"
#define QKV                                \
    INPUT("q", "F32", "[\"s\",3,\"t\",8]") \
    "," INPUT("k", "F32", "[\"s\",3,\"t\",8]") "," INPUT("v", "F32", "[\"s\",3,\"t\",8]")
#define ATTENTION                                                                                                                                                  \
    NODE("transpose", "{\"self\":\"%k\"}", VALUE("kt", "F32", "[\"s\",3,8,\"t\"]"))                                                                                \
    "," NODE("matmul", "{\"self\":\"%q\",\"other\":\"%kt\"}", VALUE("scores", "F32", "[\"s\",3,\"t\",\"t\"]")) "," NODE(                                           \
        "mul", "{\"self\":\"%scores\",\"other\":0.25}",                                                                                                            \
        VALUE(                                                                                                                                                     \
            "scaled", "F32",                                                                                                                                       \
            "[\"s\",3,\"t\",\"t\"]")) "," NODE("add", "{\"self\":\"%scaled\",\"other\":\"%m\"}",                                                                   \
                                               VALUE(                                                                                                              \
                                                   "added", "F32",                                                                                                 \
                                                   "[\"s\",3,\"t\",\"t\"]")) "," NODE("softmax",                                                                   \
                                                                                      "{\"self\":\"%added\",\"dim\":-1}",                                          \
                                                                                      VALUE(                                                                       \
                                                                                          "w", "F32",                                                              \
                                                                                          "[\"s\",3,\"t\",\"t\"]")) "," NODE("matmul",                             \
                                                                                                                             "{\"self\":\"%w\",\"other\":\"%v\"}", \
                                                                                                                             VALUE(                                \
                                                                                                                                 "out",                            \
                                                                                                                                 "F32",                            \
                                                                                                                                 "[\"s\",3,\"t\",8]"))
static const char attention[] = GRAPH(QKV "," INPUT("m", "F32", "[\"s\",1,1,\"t\"]"), ATTENTION, "\"out\"");

static fj_status parse(const char *text, fj_model **ret_model, fj_error *error) {
    return fj_fuse_parse((const uint8_t *)text, strlen(text), NULL, ret_model, error);
}

START_TEST(there_and_back) {
    fj_model *model = NULL, *again = NULL;
    fj_error error = {0};
    fj_text first = {0}, second = {0};
    ck_assert_msg(parse(attention, &model, &error) == FJ_OK, "%s", error.text);
    ck_assert_int_eq(fj_fuse_write_graph(model, &first, &error), FJ_OK);
    ck_assert_msg(parse(first.data, &again, &error) == FJ_OK, "%s", error.text);
    ck_assert_int_eq(fj_fuse_write_graph(again, &second, &error), FJ_OK);
    ck_assert_str_eq(first.data, second.data);
    ck_assert_int_eq(fj_fuse_find(model, NULL, &error), FJ_OK);
    ck_assert_uint_eq(model->findings.fused.len, 1);
    ck_assert_uint_eq(model->graph.nodes.len, 1);
    const fj_fused *fused = &model->findings.fused.data[0];
    ck_assert_double_eq(fused->scale, 0.25);
    ck_assert(strstr(fused->mod, "return (score + m[b, 0, 0, kv_idx])") != NULL);
    fj_text_finish(&first);
    fj_text_finish(&second);
    fj_fuse_close(&model);
    fj_fuse_close(&again);
}
END_TEST

static const struct {
    const char *graph, *error;
} wrong[] = {
    {"", "neither a .pt2"},
    {"{", "line 1"},
    {"{\"schema\":2}", "'schema' is not 1"},
    {"{\"schema\":1,\"schema\":1}", "duplicate"},
    {GRAPH(INPUT("x", "F32", "[2]") "," INPUT("x", "F32", "[2]"), "", ""), "two values are called 'x'"},
    {GRAPH(INPUT("x", "F31", "[2]"), "", ""), "unknown dtype 'F31'"},
    {GRAPH(INPUT("x", "F32", "[-2]"), "", ""), "extent -2"},
    {GRAPH(INPUT("x", "F32", "[1,1,1,1,1,1,1,1,1]"), "", ""), "rank 9"},
    {GRAPH(INPUT("x", "F32", "[\"2*\"]"), "", ""), "neither an integer nor a size"},
    {GRAPH("", "", "\"y\""), "output 0 is not a value"},
    {GRAPH(INPUT("x", "F32", "[2]"), NODE("neg", "{\"self\":\"%z\"}", VALUE("y", "F32", "[2]")), "\"y\""),
     "'%z' is not a value made before"},
    {GRAPH(INPUT("x", "F32", "[2]"), NODE("neg", "{}", VALUE("y", "F32", "[2]")), "\"y\""),
     "argument 'self' of neg is missing"},
    {GRAPH(INPUT("x", "F32", "[2]"), NODE("neg", "{\"self\":\"%x\"}", VALUE("y", "F32", "[3]")), "\"y\""),
     "does not broadcast to 3"},
    {GRAPH(INPUT("x", "F32", "[1]"), NODE("neg", "{\"self\":\"%x\"}", VALUE("y", "F32", "[3]")), "\"y\""),
     "no operand has the result's dimension 0"},
    {GRAPH(INPUT("x", "F32", "[2,3]"), NODE("reshape", "{\"self\":\"%x\"}", VALUE("y", "F32", "[5]")),
           "\"y\""),
     "6 elements, the result 5"},
    {GRAPH(INPUT("x", "F32", "[2,3]"),
           NODE("permute", "{\"self\":\"%x\",\"dims\":[0,0]}", VALUE("y", "F32", "[2,3]")), "\"y\""),
     "permuted twice"},
    {GRAPH(INPUT("x", "F32", "[2,3]"),
           NODE("permute", "{\"self\":\"%x\",\"dims\":[1,0]}", VALUE("y", "F32", "[2,3]")), "\"y\""),
     "is 2, not 3"},
    {GRAPH(INPUT("x", "F32", "[2,3]"),
           NODE("matmul", "{\"self\":\"%x\",\"other\":\"%x\"}", VALUE("y", "F32", "[2,3]")), "\"y\""),
     "columns of 'x' (3) differ from rows of 'x' (2)"},
    {GRAPH(INPUT("x", "F32", "[2,3]"),
           NODE("softmax", "{\"self\":\"%x\",\"dim\":2}", VALUE("y", "F32", "[2,3]")), "\"y\""),
     "dimension 2 of a tensor of rank 2"},
    {GRAPH(INPUT("x", "F32", "[2,3]"),
           NODE("slice", "{\"self\":\"%x\",\"dim\":1,\"start\":2,\"end\":4}", VALUE("y", "F32", "[2,2]")),
           "\"y\""),
     "the slice is longer"},
    {GRAPH(INPUT("x", "F32", "[2,3]"),
           NODE("eq", "{\"self\":\"%x\",\"other\":1}", VALUE("y", "F32", "[2,3]")), "\"y\""),
     "the result is F32, not BOOL"},
    {"{\"schema\":1,\"weights\":\"../x\",\"inputs\":[],\"nodes\":[],\"outputs\":[]}",
     "not the name of a file beside the graph"},
    {"PK\3\4", "not a zip archive"},
};

START_TEST(what_is_wrong) {
    fj_model *model = NULL;
    fj_error error = {0};
    const fj_status status = parse(wrong[_i].graph, &model, &error);
    ck_assert_msg(status == FJ_ERR_TENSOR, "%s: %s", wrong[_i].graph, error.text);
    ck_assert_ptr_null(model);
    ck_assert_msg(strstr(error.text, wrong[_i].error) != NULL, "%s: %s", wrong[_i].graph, error.text);
}
END_TEST

START_TEST(deep_json) {
    char *text = malloc(20001);
    fj_model *model = NULL;
    memset(text, '[', 20000);
    memcpy(text, "{\"a\":", 5);
    text[20000] = '\0';
    ck_assert_int_eq(parse(text, &model, NULL), FJ_ERR_TENSOR);
    free(text);
}
END_TEST

START_TEST(every_allocation) {
    bool whole = false;
    for (long n = 0; !whole; n++) {
        failing_allocator memory = {.countdown = n, .live = 0};
        const fj_allocator allocator = {failing_resize, &memory};
        fj_model *model = NULL;
        fj_text text = {0};
        fj_status status =
            fj_fuse_parse((const uint8_t *)attention, strlen(attention), &allocator, &model, NULL);
        if (status == FJ_OK) status = fj_fuse_find(model, NULL, NULL);
        if (status == FJ_OK) status = fj_fuse_write_manifest(model, &text, NULL);
        whole = memory.countdown >= 0;
        ck_assert_int_eq(status, whole ? FJ_OK : FJ_ERR_MEMORY);
        fj_text_finish(&text);
        fj_fuse_close(&model);
        ck_assert_int_eq(memory.live, 0);
        ck_assert_int_lt(n, 10000);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fuse graph");
    TCase *tests = tcase_create("graph");
    tcase_add_test(tests, sizes_and_indices);
    tcase_add_test(tests, there_and_back);
    tcase_add_loop_test(tests, what_is_wrong, 0, (int)(sizeof wrong / sizeof wrong[0]));
    tcase_add_test(tests, deep_json);
    tcase_add_test(tests, every_allocation);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
