/* Calls that make block masks of mods: what is kept once, what is refused, allocations that fail. */
#include "tests/attn/mask/tables.h"

static fj_mod *plain_mod(const char *score, const char *mask) {
    fj_mod *mod = NULL;
    fj_error error = {0};
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .score = score,
                              .mask = mask,
                              .bindings = bindings,
                              .binding_count = CAPTURES,
                              .bindings_open = true};
    ck_assert_msg(fj_mod_create(context, &desc, &mod, &error) == FJ_OK, "%s", error.text);
    return mod;
}

static fj_status make_plain(const char *score, const char *mask, const fj_mask_args *args,
                            fj_block_mask **ret_mask, fj_error *error) {
    fj_mod *mod = plain_mod(score, mask);
    fj_mask_maker *maker = NULL;
    fj_status status = fj_mask_maker_create(device, mod, FJ_DTYPE_BF16, &maker, error);
    if (status == FJ_OK) status = fj_block_mask_make(maker, args, NULL, ret_mask, error);
    fj_mask_maker_unref(&maker);
    fj_mod_unref(&mod);
    return status;
}

/* Batches and heads that a mask does not tell apart are kept once; what only the score reads need not be there. */
START_TEST(broadcast) {
    const fj_mask_args args = {
        .struct_size = sizeof args, .batch = 3, .heads = 5, .q_len = 130, .kv_len = 200};
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    ck_assert_msg(make_plain("score + weights[kv]", "q >= kv", &args, &mask, &error) == FJ_OK, "%s",
                  error.text);
    fj_block_mask_info info = fj_block_mask_describe(mask);
    ck_assert(info.one_batch && info.one_head);
    ck_assert_int_eq(mask->rows.count, 3);
    ck_assert_int_eq(info.full, 15 * 3);
    ck_assert_int_eq(info.partial, 15 * 3);
    ck_assert_int_eq(info.empty, 15 * 6);
    fj_block_mask_unref(&mask);
    ck_assert_int_eq(make_plain(NULL, "q >= kv + 64 * h", &args, &mask, NULL), FJ_OK);
    info = fj_block_mask_describe(mask);
    ck_assert(info.one_batch && !info.one_head);
    ck_assert_int_eq(mask->rows.count, 5 * 3);
    fj_block_mask_unref(&mask);
    ck_assert_int_eq(make_plain("score * 2", NULL, &args, &mask, NULL), FJ_OK);
    info = fj_block_mask_describe(mask);
    ck_assert_int_eq(info.full, 15 * 3 * 4);
    ck_assert_int_eq(info.undecided, 0);
    fj_block_mask_unref(&mask);
}
END_TEST

START_TEST(bad_calls) {
    fj_mask_args args = {.struct_size = sizeof args, .batch = 1, .heads = 1, .q_len = 100, .kv_len = 500};
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    fill_captures(1);
    const DLTensor *doc[] = {&captures[DOC].dl}, *flags[] = {&captures[FLAGS].dl};
    args.captures = doc;
    ck_assert_int_eq(make_plain(NULL, "doc[q] == doc[kv]", &args, &mask, &error), FJ_ERR_INDEX);
    /* Key 400 reads as document 0, which the first query is of. */
    ck_assert_str_eq(
        error.text,
        "captured tensor 'doc' I32 [400] is read at index 400 (dimension 0) at b=0 h=0 q=0 kv=400");
    ck_assert_int_eq(make_plain(NULL, "(doc[q] == doc[kv]) & (kv < 400)", &args, &mask, &error), FJ_OK);
    fj_block_mask_unref(&mask);
    args.kv_len = 400;
    args.captures = flags;
    ck_assert_int_eq(make_plain(NULL, "doc[q] == doc[kv]", &args, &mask, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "captured tensor 'doc' is BOOL, not I32");
    args.captures = NULL;
    ck_assert_int_eq(make_plain(NULL, "doc[q] == doc[kv]", &args, &mask, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "captured tensor 'doc' is missing");
    args.kv_len = -1;
    ck_assert_int_eq(make_plain(NULL, "q >= kv", &args, &mask, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "kv_len is -1; it is from 0 to 2147483647");
    args.kv_len = 5, args.block_kv = (int64_t)1 << 31;
    ck_assert_int_eq(make_plain(NULL, "q >= kv", &args, &mask, &error), FJ_ERR_ARGUMENT);
    ck_assert(mask == NULL);
    args = (fj_mask_args){
        .struct_size = sizeof args, .batch = INT32_MAX, .heads = INT32_MAX, .q_len = 200, .kv_len = 9};
    ck_assert_int_eq(make_plain(NULL, "q >= kv", &args, &mask, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "a mask of batch 2147483647 and 2147483647 heads has more blocks than 2^57");
    fj_device *reference = NULL;
    fj_mask_maker *maker = NULL;
    fj_mod *mod = plain_mod(NULL, "q >= kv");
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_REFERENCE, &reference, NULL), FJ_OK);
    ck_assert_int_eq(fj_mask_maker_create(reference, mod, FJ_DTYPE_F32, &maker, &error), FJ_ERR_UNSUPPORTED);
    ck_assert_int_eq(fj_mask_maker_create(device, mod, FJ_DTYPE_I32, &maker, &error), FJ_ERR_UNSUPPORTED);
    fj_mod_unref(&mod);
    fj_device_unref(&reference);
}
END_TEST

START_TEST(each_allocation_fails) {
    const fj_mask_args args = {.struct_size = sizeof args,
                               .batch = 2,
                               .heads = 2,
                               .q_len = 400,
                               .kv_len = 400,
                               .block_q = 16,
                               .block_kv = 16,
                               .captures = (const DLTensor *[]){&captures[DOC].dl, &captures[OFFSETS].dl}};
    const fj_launch launch = {.struct_size = sizeof launch, .workers = 1};
    fill_captures(1);
    fj_mod *mod = plain_mod(NULL, "(doc[q] == doc[kv]) & (q - offsets[doc[q]] >= kv)");
    fj_mask_maker *maker = maker_of(mod);
    bool reached_the_end = false;
    const long before = failing.live;
    for (long i = 0; !reached_the_end; i++) {
        fj_block_mask *mask = NULL;
        fj_mask_maker *another = NULL;
        failing.countdown = i;
        fj_status status = fj_mask_maker_create(device, mod, FJ_DTYPE_F32, &another, NULL);
        if (status == FJ_OK) status = fj_block_mask_make(another, &args, &launch, &mask, NULL);
        reached_the_end = failing.countdown >= 0;
        failing.countdown = -1;
        ck_assert_msg(status == FJ_ERR_MEMORY || status == FJ_OK, "allocation %ld: status %d", i, status);
        ck_assert(!reached_the_end || status == FJ_OK);
        fj_block_mask_unref(&mask);
        fj_mask_maker_unref(&another);
        ck_assert_msg(failing.live == before, "allocation %ld: blocks are left", i);
    }
    fj_mask_maker_unref(&maker);
    fj_mod_unref(&mod);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("mask calls");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 100);
    tcase_add_test(tests, broadcast);
    tcase_add_test(tests, bad_calls);
    tcase_add_test(tests, each_allocation_fails);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
