/* Dropout: the generator, and the statistics of what it keeps. */
#include "base/philox.h"
#include "tests/attn/calls.h"

/* The known answers of Random123's distribution (tests/kat_vectors) for philox4x32 of 10 rounds. */
START_TEST(the_generator_gives_the_known_answers) {
    static const struct {
        fj_philox_words counter;
        fj_philox_key key;
        fj_philox_words answer;
    } cases[] = {
        {{{0, 0, 0, 0}}, {{0, 0}}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
        {{{~0u, ~0u, ~0u, ~0u}}, {{~0u, ~0u}}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
        {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
         {{0xa4093822, 0x299f31d0}},
         {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        const fj_philox_words words = fj_philox(cases[i].key, cases[i].counter);
        ck_assert_mem_eq(words.word, cases[i].answer.word, sizeof words.word);
    }
}
END_TEST

START_TEST(thresholds_are_the_share_of_words) {
    static const struct {
        double dropout;
        uint64_t threshold;
    } cases[] = {{0, 0},
                 {0x1p-32, 1},
                 {0x1p-40, 1},
                 {0.5, (uint64_t)1 << 31},
                 {0.1, 429496730},
                 {1 - 0x1p-33, (uint64_t)1 << 32},
                 {1, (uint64_t)1 << 32}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++)
        ck_assert_uint_eq(fj_dropout_threshold(cases[i].dropout), cases[i].threshold);
}
END_TEST

/* ---- Statistics -------------------------------------------------------------------------------------- */

typedef struct kept {
    test_tensor tensor;
    int64_t count;
} kept;

static kept keep(double dropout, uint64_t seed, uint64_t offset, const int64_t shape[4]) {
    kept mask;
    tensor_init(&mask.tensor, FJ_DTYPE_BOOL, 4, shape);
    mask.count = (int64_t)mask.tensor.bytes;
    ck_assert_int_eq(fj_dropout_mask(dropout, seed, offset, &mask.tensor.dl, NULL), FJ_OK);
    return mask;
}

/* Chi-square of a 2 by 2 table of pairs that should be independent, each kept with probability `p`: 3 degrees of freedom. */
static double chi_square_of_pairs(const uint8_t *a, const uint8_t *b, int64_t count, double p) {
    int64_t seen[2][2] = {{0}};
    double chi = 0;
    for (int64_t i = 0; i < count; i++) seen[a[i]][b[i]]++;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            const double expected = (double)count * (i ? p : 1 - p) * (j ? p : 1 - p);
            chi += ((double)seen[i][j] - expected) * ((double)seen[i][j] - expected) / expected;
        }
    return chi;
}

/* Of 2^20 draws: the rate, and that two planes, rows, keys, seeds or offsets know nothing of each other. 25 is exceeded by
 * chance once in 10^5 times with 3 degrees of freedom; seeds are fixed. */
START_TEST(what_is_kept_is_independent) {
    static const int64_t shape[4] = {2, 2, 512, 512};
    static const double rates[] = {0.1, 0.5, 0.9};
    enum { PLANE = 512 * 512, MOST = 25 };
    for (size_t i = 0; i < FJ_ARRAY_LEN(rates); i++) {
        const double p = 1 - rates[i];
        const kept mask = keep(rates[i], 7, 11, shape), seed = keep(rates[i], 8, 11, shape),
                   offset = keep(rates[i], 7, 12, shape),
                   high = keep(rates[i], 7 + ((uint64_t)1 << 32), 11, shape);
        const uint8_t *at = tensor_elements(&mask.tensor);
        const struct {
            const char *what;
            const uint8_t *a, *b;
            int64_t count;
        } pairs[] = {{"heads", at, at + PLANE, PLANE},
                     {"batches", at, at + 2 * PLANE, 2 * PLANE},
                     {"rows", at, at + 512, mask.count - 512},
                     {"keys", at, at + 1, mask.count - 1},
                     {"words of a counter", at, at + 16, mask.count - 16},
                     {"counters", at, at + 64, mask.count - 64},
                     {"seeds", at, tensor_elements(&seed.tensor), mask.count},
                     {"high halves of seeds", at, tensor_elements(&high.tensor), mask.count},
                     {"offsets", at, tensor_elements(&offset.tensor), mask.count}};
        for (size_t k = 0; k < FJ_ARRAY_LEN(pairs); k++) {
            const double chi = chi_square_of_pairs(pairs[k].a, pairs[k].b, pairs[k].count, p);
            ck_assert_msg(chi < MOST, "%s at rate %g: chi-square %g", pairs[k].what, rates[i], chi);
        }
        int64_t count = 0;
        for (int64_t k = 0; k < mask.count; k++) count += at[k];
        const double off = ((double)count - p * (double)mask.count) / sqrt(p * (1 - p) * (double)mask.count);
        ck_assert_msg(fabs(off) < 4.5, "rate %g is off by %g standard deviations", rates[i], off);
        const kept *all[] = {&mask, &seed, &offset, &high};
        for (size_t k = 0; k < FJ_ARRAY_LEN(all); k++) free(all[k]->tensor.dl.data);
    }
}
END_TEST

/* ---- The public mask ---------------------------------------------------------------------------------- */

/* A plane is b * Hq + h: the heads of a call of two batches are those of one batch of twice as many; strides are taken. */
START_TEST(a_mask_is_a_function_of_positions) {
    static const int64_t shape[4] = {2, 3, 4, 70}, flat[4] = {1, 6, 4, 70}, wide[4] = {2, 3, 8, 140};
    const kept mask = keep(0.3, 1, 2, shape), same = keep(0.3, 1, 2, flat), more = keep(0.3, 1, 2, wide);
    const uint8_t *at = tensor_elements(&mask.tensor), *larger = tensor_elements(&more.tensor);
    ck_assert_mem_eq(at, tensor_elements(&same.tensor), mask.tensor.bytes);
    for (int64_t i = 0; i < mask.count; i++)
        ck_assert_uint_eq(at[i], larger[(i / 280) * 8 * 140 + i / 70 % 4 * 140 + i % 70]);
    test_tensor turned = more.tensor;
    memcpy(turned.shape, shape, sizeof shape);
    memcpy(turned.strides, (int64_t[]){1, 2, 6, 24}, sizeof shape);
    turned.dl.shape = turned.shape;
    turned.dl.strides = turned.strides;
    ck_assert_int_eq(fj_dropout_mask(0.3, 1, 2, &turned.dl, NULL), FJ_OK);
    for (int64_t i = 0; i < mask.count; i++)
        ck_assert_uint_eq(at[i], larger[i / 840 + i / 280 % 3 * 2 + i / 70 % 4 * 6 + i % 70 * 24]);
    free(mask.tensor.dl.data);
    free(same.tensor.dl.data);
    free(more.tensor.dl.data);
}
END_TEST

START_TEST(nothing_or_all_is_dropped_at_the_ends) {
    static const int64_t shape[4] = {1, 1, 8, 64}, none[4] = {1, 0, 8, 64};
    for (int all = 0; all <= 1; all++) {
        const kept mask = keep(all, 3, 4, shape);
        for (int64_t i = 0; i < mask.count; i++)
            ck_assert_uint_eq(((uint8_t *)tensor_elements(&mask.tensor))[i], !all);
        free(mask.tensor.dl.data);
    }
    ck_assert_int_eq(keep(0.5, 3, 4, none).count, 0);
}
END_TEST

START_TEST(bad_masks_and_probabilities_are_refused) {
    static const double bad[] = {-0.1, 1.0000001, (double)NAN, (double)INFINITY, -(double)INFINITY};
    test_tensor mask, wrong;
    fj_error error = {0};
    tensor_init(&mask, FJ_DTYPE_BOOL, 4, (int64_t[]){1, 1, 2, 2});
    tensor_init(&wrong, FJ_DTYPE_U8, 4, (int64_t[]){1, 1, 2, 2});
    for (size_t i = 0; i < FJ_ARRAY_LEN(bad); i++)
        ck_assert_int_eq(fj_dropout_mask(bad[i], 0, 0, &mask.dl, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "dropout is a probability: 0 to 1");
    ck_assert_int_eq(fj_dropout_mask(0.5, 0, 0, NULL, &error), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_dropout_mask(0.5, 0, 0, &wrong.dl, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "keep is not BOOL");
    mask.dl.ndim = 3;
    ck_assert_int_eq(fj_dropout_mask(0.5, 0, 0, &mask.dl, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "keep has rank 3: it is [B,Hq,L,S]");
    free(mask.dl.data);
    free(wrong.dl.data);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dropout");
    TCase *tcase = tcase_create("all");
    const TTest *const tests[] = {
        the_generator_gives_the_known_answers, thresholds_are_the_share_of_words,
        what_is_kept_is_independent,           a_mask_is_a_function_of_positions,
        nothing_or_all_is_dropped_at_the_ends, bad_masks_and_probabilities_are_refused};
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
