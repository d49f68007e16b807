/* Matrix products as hardware rounds them: values worked out by hand, and the same model in integers. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "driver/emu/layout.h"
#include "driver/emu/machine.h"

enum { ROWS = 16, COLUMNS = 8 };

static const struct format {
    int type, depth, group, digits; /* digits: of a significand, after the point */
    int least, most;                /* exponents of normal numbers */
    fj_emu_layout_id a, b;
} formats[] = {
    {FJ_EMU_MMA_F16, 16, 8, 10, -14, 15, FJ_EMU_A_16X16, FJ_EMU_B_16X8},
    {FJ_EMU_MMA_BF16, 16, 8, 7, -126, 127, FJ_EMU_A_16X16, FJ_EMU_B_16X8},
    {FJ_EMU_MMA_TF32, 8, 4, 10, -126, 127, FJ_EMU_A_16X8_TF32, FJ_EMU_B_8X8_TF32},
    {FJ_EMU_MMA_F16_K8, 8, 8, 10, -14, 15, FJ_EMU_A_16X8_K8, FJ_EMU_B_8X8_K8},
};
enum { FORMATS = 4, F16 = 0, BF16 = 1, TF32 = 2 };

/* ---- A product ---------------------------------------------------------------------------------- */

static double a[ROWS][16], b[16][COLUMNS];
static float c[ROWS][COLUMNS];

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Of a value that the format has. */
static uint32_t encode(const struct format *f, double x) {
    const uint32_t bits = bits_of((float)x);
    if (f->type == FJ_EMU_MMA_TF32) return bits;
    if (f->type == FJ_EMU_MMA_BF16) return bits >> 16;
    const uint32_t sign = bits >> 16 & 0x8000;
    if (isnan(x)) return 0x7e00;
    if (isinf(x)) return sign | 0x7c00;
    if (fabs(x) < 0x1p-14) return sign | (uint32_t)(fabs(x) * 0x1p24);
    return sign | ((bits & 0x7fffffff) - 0x38000000u) >> 13;
}

static void put(const struct format *f, uint32_t *registers, uint32_t value, double x) {
    if (f->type == FJ_EMU_MMA_TF32)
        registers[value] = encode(f, x);
    else
        registers[value / 2] |= encode(f, x) << value % 2 * 16;
}

static float *c_at(uint32_t lane, uint32_t value) {
    const uint32_t at = fj_emu_layout_index(&fj_emu_layouts[FJ_EMU_C_16X8], lane, value);
    return &c[at / COLUMNS][at % COLUMNS];
}

static void multiply(const struct format *f, fj_emu_rounding rounding) {
    const fj_emu_layout *a_layout = &fj_emu_layouts[f->a], *b_layout = &fj_emu_layouts[f->b];
    fj_emu_mma lanes[FJ_EMU_WARP];
    void *operands[FJ_EMU_WARP];
    memset(lanes, 0, sizeof lanes);
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
        operands[l] = &lanes[l];
        for (uint32_t v = 0; v < a_layout->values; v++) {
            const uint32_t at = fj_emu_layout_index(a_layout, l, v);
            put(f, lanes[l].a, v, a[at / a_layout->columns][at % a_layout->columns]);
        }
        for (uint32_t v = 0; v < b_layout->values; v++) {
            const uint32_t at = fj_emu_layout_index(b_layout, l, v);
            put(f, lanes[l].b, v, b[at / COLUMNS][at % COLUMNS]);
        }
        for (uint32_t v = 0; v < 4; v++) lanes[l].c[v] = *c_at(l, v);
    }
    fj_emu_multiply(f->type, rounding, operands);
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++)
        for (uint32_t v = 0; v < 4; v++) *c_at(l, v) = lanes[l].c[v];
}

/* ---- By hand -------------------------------------------------------------------------------------- */

/* Factors of the products of one element of C, pairwise; the rest is 0. */
struct sum {
    const char *what;
    int format;
    double c, x[8], y[8];
    double result;
};

#define INF ((double)INFINITY)
#define NOT_A_NUMBER ((double)NAN)
#define ONES \
    { 1, 1, 1, 1, 1, 1, 1, 1 }

static const struct sum sums[] = {
    {"nothing is lost", F16, 3, {1, 2, 3, 4, 5, 6, 7, 8}, ONES, 39},
    {"a bit more than float has is added up", F16, 0x1p24, ONES, ONES, 0x1p24 + 8},
    {"two bits more are cut", F16, 0x1p25, ONES, ONES, 0x1p25},
    {"each term is cut", BF16, 0x1p24, {1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5}, ONES, 0x1p24 + 8},
    {"each term is cut toward 0", BF16, -0x1p24, {-1.5, -1.5, -1.5, -1.5}, ONES, -0x1p24 - 4},
    {"the sum is cut", BF16, 0x1p24 + 2, {1}, {1}, 0x1p24 + 2},
    {"the sum is cut toward 0", BF16, -0x1p24 - 2, {-1}, {1}, -0x1p24 - 2},
    {"the sum of two signs is cut toward 0", BF16, 0x1p24 + 2, {-1}, {1}, 0x1p24},
    {"the extra bit", TF32, 1, {0x1p-12, 0x1p-12}, {0x1p-12, 0x1p-12}, 1 + 0x1p-23},
    {"the bit after it", TF32, 1, {0x1p-12, 0x1p-12}, {0x1p-13, 0x1p-13}, 1},
    {"products are not normalised",
     TF32,
     0x1p-24,
     {1.5, 0x1p-12, 0x1p-12, 0x1p-12},
     {1.5, 0x1p-12, 0x1p-12, 0x1p-12},
     2.25 + 0x1p-22},
    {"the largest is a product", BF16, 1, {0x1p10, 1}, {0x1p15, 1}, 0x1p25},
    {"groups of 4", TF32, 0x1p24, {1, 1, 1, 0, 1}, ONES, 0x1p24 + 2},
    {"groups of 8", BF16, 0x1p24, {1, 1, 1, 0, 1}, ONES, 0x1p24 + 4},
    {"cancellation keeps what was aligned", BF16, -0x1p30, {0x1p15, 0x1p6, 1}, {0x1p15, 1, 1}, 64},
    {"a subnormal factor", F16, 0, {0x1p-24, 0x3p-24}, {1, 2}, 7 * 0x1p-24},
    {"a subnormal addend", BF16, 0x1p-149, {0x1p-100}, {0x1p-49}, 0x1p-148},
    {"a subnormal sum is cut", BF16, 0, {0x1p-100, 0x1p-100}, {0x3p-51, 0x1p-49}, 0x1p-149},
    {"below the least subnormal", BF16, 0, {0x1p-100, -0x1p-100}, {0x1p-50, 0x1p-50}, 0},
    {"infinity", BF16, 1, {INF, 1}, {2, 1}, INF},
    {"minus infinity", F16, -INF, {1}, {1}, -INF},
    {"infinities of two signs", F16, INF, {-INF}, {1}, NOT_A_NUMBER},
    {"infinity times 0", BF16, 1, {INF}, {0}, NOT_A_NUMBER},
    {"0 times infinity", TF32, 1, {0}, {-INF}, NOT_A_NUMBER},
    {"NaN times 0", TF32, 1, {NOT_A_NUMBER}, {0}, NOT_A_NUMBER},
    {"an addend of NaN", F16, NOT_A_NUMBER, {1}, {1}, NOT_A_NUMBER},
    {"too large a product", BF16, 1, {0x1p100}, {0x1p100}, INF},
    {"too large a sum", BF16, 0x1.fffffep127, {0x1p64}, {0x1p40}, INF},
    {"too large, and taken back in the group", BF16, 0x1p127, {0x1p64, -0x1p64}, {0x1p63, 0x1p63}, 0x1p127},
    {"the largest number", BF16, 0x1.fffffep127, {1}, {1}, 0x1.fffffep127},
};

static bool is_same(float x, float y) { return bits_of(x) == bits_of(y); }

START_TEST(test_sum) {
    const struct sum *s = &sums[_i];
    const int row = 3 * _i % ROWS, column = 5 * _i % COLUMNS;
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    memset(c, 0, sizeof c);
    for (int k = 0; k < 8; k++) a[row][k] = s->x[k], b[k][column] = s->y[k];
    c[row][column] = (float)s->c;
    multiply(&formats[s->format], FJ_EMU_ROUND_TRUNCATE);
    const float want = isnan(s->result) ? float_of(0x7fffffff) : (float)s->result;
    ck_assert_msg(is_same(c[row][column], want), "%s: %a, not %a", s->what, (double)c[row][column],
                  (double)want);
    for (int j = 0; j < COLUMNS; j++) /* a row without factors */
        ck_assert(is_same(c[(row + 1) % ROWS][j], isnan(s->y[0] * 0) ? float_of(0x7fffffff) : 0.0f) ||
                  j != column);
}
END_TEST

static uint64_t state = 1;

static uint32_t random_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* ---- Bias ------------------------------------------------------------------------------------------ */

/* An accumulator of terms of one sign: to nearest it is off by little, cut by half an ulp at each step. */
START_TEST(test_bias) {
    enum { STEPS = 512 };
    double error[FJ_EMU_ROUND_COUNT], exact = 0;
    for (int rounding = FJ_EMU_ROUND_NEAREST; rounding < FJ_EMU_ROUND_COUNT; rounding++) {
        memset(c, 0, sizeof c);
        exact = 0;
        for (int step = 0; step < STEPS; step++) {
            for (int k = 0; k < 8; k++) {
                a[0][k] = 1 + random_bits() % 1024 / 1024.0;
                b[k][0] = 1 + random_bits() % 1024 / 1024.0;
                exact += a[0][k] * b[k][0];
            }
            multiply(&formats[TF32], (fj_emu_rounding)rounding);
        }
        error[rounding] = ((double)c[0][0] - exact) / exact;
    }
    ck_assert_msg(fabs(error[FJ_EMU_ROUND_NEAREST]) < 3e-6, "%g", error[FJ_EMU_ROUND_NEAREST]);
    ck_assert_msg(error[FJ_EMU_ROUND_TRUNCATE] < -1.5e-5, "%g", error[FJ_EMU_ROUND_TRUNCATE]);
    ck_assert_msg(error[FJ_EMU_ROUND_TRUNCATE] > -2 * STEPS * 0x1p-23, "%g", error[FJ_EMU_ROUND_TRUNCATE]);
}
END_TEST

/* ---- In integers ---------------------------------------------------------------------------------- */

/* A number of the format, subnormal or normal, of an exponent within `spread` of the middle. */
static double random_number(int digits, int least, int most, int middle, int spread) {
    int exponent = middle + (int)(random_bits() % (uint32_t)(2 * spread + 1)) - spread;
    exponent = exponent > most ? most : exponent;
    const bool subnormal = exponent < least;
    const uint32_t fraction = random_bits() & ((1u << digits) - 1);
    const double significand = (subnormal ? 0 : 1) + ldexp(fraction, -digits);
    const double x = ldexp(significand, subnormal ? least : exponent);
    return random_bits() % 16 == 0 ? 0 : random_bits() & 1 ? -x : x;
}

/* Exponent of a number as hardware sees it. */
static int exponent_of(double x, int least) {
    int exponent;
    (void)frexp(x, &exponent);
    return exponent - 1 < least ? least : exponent - 1;
}

/* x / 2^unit, of significands of at most 50 bits; division truncates. */
static int64_t in_units(double x, int unit) {
    int exponent;
    if (x == 0) return 0; /* of no exponent */
    const int64_t significand = (int64_t)ldexp(frexp(x, &exponent), 50);
    const int shift = exponent - 50 - unit;
    if (shift >= 0) return significand * (INT64_C(1) << shift);
    return shift < -62 ? 0 : significand / (INT64_C(1) << -shift);
}

static float add_group(const struct format *f, float addend, int i, int j, int from) {
    int largest = addend != 0 ? exponent_of((double)addend, -126) : -1000;
    for (int k = from; k < from + f->group; k++) {
        if (a[i][k] == 0 || b[k][j] == 0) continue;
        const int exponent = exponent_of(a[i][k], f->least) + exponent_of(b[k][j], f->least);
        largest = exponent > largest ? exponent : largest;
    }
    if (largest == -1000) return 0;
    const int unit = largest - 24;
    int64_t sum = in_units((double)addend, unit);
    for (int k = from; k < from + f->group; k++) sum += in_units(a[i][k] * b[k][j], unit);
    int ulp = unit; /* of the result */
    for (int64_t rest = sum; rest >= 1 << 24 || rest <= -(1 << 24); rest /= 2) ulp++;
    ulp = ulp < -149 ? -149 : ulp;
    const int64_t cut = ulp - unit > 62 ? 0 : sum / (INT64_C(1) << (ulp - unit));
    return (float)ldexp((double)cut, ulp);
}

START_TEST(test_random_products) {
    const struct format *f = &formats[_i % FORMATS];
    const int spread = _i / FORMATS % 2 ? 3 : 14, middle = (f->least / 2) * (_i / FORMATS / 2);
    for (int turn = 0; turn < 20; turn++) {
        float want[ROWS][COLUMNS];
        for (int i = 0; i < ROWS; i++)
            for (int k = 0; k < f->depth; k++)
                a[i][k] = random_number(f->digits, f->least, f->most, middle, spread);
        for (int k = 0; k < f->depth; k++)
            for (int j = 0; j < COLUMNS; j++)
                b[k][j] = random_number(f->digits, f->least, f->most, middle, spread);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++) {
                c[i][j] = (float)random_number(23, -126, 127, 2 * middle + 4, spread + 4);
                want[i][j] = c[i][j];
                for (int k = 0; k < f->depth; k += f->group) want[i][j] = add_group(f, want[i][j], i, j, k);
            }
        multiply(f, FJ_EMU_ROUND_TRUNCATE);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++)
                ck_assert_msg(c[i][j] == want[i][j], "format %d, turn %d: %a, not %a", _i, turn,
                              (double)c[i][j], (double)want[i][j]);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("matrix");
    TCase *tcase = tcase_create("matrix");
    tcase_add_loop_test(tcase, test_sum, 0, sizeof sums / sizeof sums[0]);
    tcase_add_test(tcase, test_bias);
    tcase_add_loop_test(tcase, test_random_products, 0, 6 * FORMATS);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
