/* A process whose decimal point is a comma computes, prints and keeps the same as one in the C locale.
 *
 * Run by tests/support/comma_locale.py, which says with LC_ALL which locale that is. */
#include <locale.h>
#include <stdio.h>

#include "tests/attn/calls.h"

static const test_sizes sizes = {1, 2, 1, 5, 7, 16, 16};

static const char source[] = "import torch\n"
                             "CAP = 30.5\n"
                             "table = torch.tensor([0.125, 1e-3, 2.5e10])\n"
                             "tiny = 1.5e-30\n"
                             "def score_mod(score, b, h, q_idx, kv_idx):\n"
                             "    score = CAP * torch.tanh(score / CAP) + table[kv_idx % 3] * 1e-11\n"
                             "    return score + tiny + torch.where(q_idx * 0.75 > kv_idx, 0.0625, -0.3)\n"
                             "def mask_mod(b, h, q_idx, kv_idx):\n"
                             "    return kv_idx * 1.5 - 0.25 < q_idx + 6.125\n";

typedef struct outcome {
    char *texts[8];
    size_t count;
    float out[2 * 5 * 16], dquery[2 * 5 * 16];
} outcome;

static void keep(outcome *to, fj_status status, fj_text *text, const fj_error *error) {
    ck_assert_msg(status == FJ_OK, "%s", error->text);
    to->texts[to->count++] = strdup(text->data);
    fj_text_finish(text);
}

static void run_direction(outcome *to, const test_stack *stack, test_call *call, fj_direction direction) {
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = direction,
                                .dtype = FJ_DTYPE_F32,
                                .head_dim = 16,
                                .value_dim = 16};
    fj_error error = {0};
    fj_plan *plan = NULL;
    fj_kernel *kernel = NULL;
    fj_text text;
    ck_assert_msg(fj_plan_create(stack->device, stack->mod, &problem, &plan, &error) == FJ_OK, "%s",
                  error.text);
    if (stack->device->traits->text == FJ_TEXT_CPU)
        keep(to, fj_plan_show(plan, "source", &text, &error), &text, &error);
    ck_assert_msg(fj_kernel_create(plan, &kernel, &error) == FJ_OK, "%s\n%s", error.text,
                  error.detail ? error.detail : "");
    ck_assert_msg(call_launch(call, kernel, NULL, &error) == FJ_OK, "%s", error.text);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
}

/* Everything anew, in a cache of its own: what was compiled in another locale is not met. */
static outcome run_all(fj_device_kind kind) {
    outcome made = {0};
    char folder[] = "/tmp/flexjit-locale-XXXXXX", command[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    const fj_context_desc context = {.struct_size = sizeof context, .cache_path = folder};
    const fj_param params[] = {{"CAP", "31.25"}};
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = source,
                              .source_length = sizeof source - 1,
                              .params = params,
                              .param_count = 1};
    test_stack stack = {0};
    test_call call;
    fj_error error = {0};
    fj_text text;
    ck_assert_int_eq(fj_context_create(&context, &stack.context), FJ_OK);
    ck_assert_msg(fj_device_create(stack.context, kind, &stack.device, &error) == FJ_OK, "%s", error.text);
    ck_assert_msg(fj_mod_create(stack.context, &desc, &stack.mod, &error) == FJ_OK, "%s", error.text);
    call_init(&call, sizes);
    keep(&made, fj_mod_show(stack.mod, "ir", &text, &error), &text, &error);
    keep(&made, fj_mod_show(stack.mod, "grad", &text, &error), &text, &error);
    keep(&made, fj_mod_show(stack.mod, "ranges", &text, &error), &text, &error);
    run_direction(&made, &stack, &call, FJ_FORWARD);
    memcpy(made.out, call.out.dl.data, sizeof made.out);
    run_direction(&made, &stack, &call, FJ_BACKWARD);
    memcpy(made.dquery, call.dquery.dl.data, sizeof made.dquery);
    keep(&made, fj_evaluate(stack.context, "t[0] * 1.5 + 2.25e-3", "t=[0.5,1e-7]", &text, &error), &text,
         &error);
    call_finish(&call);
    stack_finish(&stack);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
    return made;
}

static void compare(fj_device_kind kind) {
    ck_assert_ptr_nonnull(setlocale(LC_ALL, "C"));
    const outcome plain = run_all(kind);
    ck_assert_ptr_nonnull(setlocale(LC_ALL, ""));
    ck_assert_str_eq(localeconv()->decimal_point, ",");
    const outcome comma = run_all(kind);
    ck_assert_uint_eq(plain.count, comma.count);
    for (size_t i = 0; i < plain.count; i++) {
        ck_assert_str_eq(plain.texts[i], comma.texts[i]);
        free(plain.texts[i]);
        free(comma.texts[i]);
    }
    ck_assert_mem_eq(plain.out, comma.out, sizeof plain.out);
    ck_assert_mem_eq(plain.dquery, comma.dquery, sizeof plain.dquery);
}

START_TEST(reference) { compare(FJ_DEVICE_REFERENCE); }
END_TEST
START_TEST(cpu) { compare(FJ_DEVICE_CPU); }
END_TEST
START_TEST(emu) { compare(FJ_DEVICE_EMU); }
END_TEST

/* Both ways, at the ends of the range and where rounding is a tie. */
START_TEST(decimals) {
    static const char *const texts[] = {"0.1",   "-0.0",     "1e+300", "5e-324", "1.7976931348623157e+308",
                                        "1e+22", "0.000123", "2.5",    "-3.0",   "123456789012345.6"};
    ck_assert_ptr_nonnull(setlocale(LC_ALL, ""));
    for (size_t i = 0; i < FJ_ARRAY_LEN(texts); i++) {
        double value = 0.0;
        fj_buf buf;
        ck_assert_uint_eq(fj_decimal_parse(fj_str_from(texts[i]), &value), strlen(texts[i]));
        fj_buf_init(&buf, &fj_allocator_libc);
        fj_buf_double(&buf, value);
        ck_assert_str_eq(buf.data, texts[i]);
        fj_buf_finish(&buf);
    }
    double value = 7.0;
    ck_assert_uint_eq(fj_decimal_parse(FJ_STR("1,5"), &value), 1);
    ck_assert_uint_eq(fj_decimal_parse(FJ_STR(".e5"), &value), 0);
    ck_assert_uint_eq(fj_decimal_parse(FJ_STR("1e+"), &value), 1);
    ck_assert_uint_eq(fj_decimal_parse(FJ_STR("-infx"), &value), 4);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("locale");
    TCase *tests = tcase_create("locale");
    suite_add_tcase(suite, tests);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, decimals);
    tcase_add_test(tests, reference);
    tcase_add_test(tests, cpu);
    tcase_add_test(tests, emu);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
