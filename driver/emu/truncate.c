/* mma as tensor cores round it: they truncate.
 *
 * The model is that of the A100, as measured by M. Fasi, N. J. Higham, M. Mikaitis and S. Pranesh, "Numerical behavior
 * of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021. A sum of k products and an addend is made in steps of a
 * group: 8 products of 16-bit elements, or 4 of TF32. In a step
 *
 *      d = c + a1 b1 + ... + an bn
 *
 *  1. products are exact and not normalised: the significand of one is below 4, its exponent the sum of two, where a
 *     subnormal factor has the least exponent of its format;
 *  2. all terms are aligned to the largest exponent; bits below 2^-24 of that (one more than a float32 has) are cut;
 *  3. the aligned integers are added exactly;
 *  4. the sum is normalised and cut to float32.
 *
 * Both cuts round toward zero, so sums of one sign come out too small, by up to an ulp of the sum in each step: the
 * error of an accumulator grows with the number of steps, not with its root. Other generations have other groups (4 on
 * sm_75, 16 on sm_90) and one more or less extra bit; all cut.
 *
 * What was not measured, and is chosen here: a sum of zeros is +0, one that is too large is infinite, a NaN is
 * 0x7fffffff. Infinities and NaN are those of IEEE 754; subnormals are neither flushed as terms nor as results.
 */
#include <math.h>
#include <string.h>

#include "driver/emu/machine.h"

enum {
    ROWS = 16,
    COLUMNS = 8,
    MAX_DEPTH = 16,
    LEAST = -126,  /* exponent of a normal float32 */
    FRACTION = 24, /* bits that stay below the largest exponent */
    /* Stand for exponents: of a product with an infinity or NaN, even if the other factor is 0; of none but zeros. */
    OF_ZERO = -5000,
    OF_SPECIAL = 11000,
    LEAST_SPECIAL = OF_SPECIAL + OF_ZERO,
    MOST_ZERO = OF_ZERO + 1000
};

static int16_t exponent_of(float x, int least) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t field = bits >> 23 & 0xff;
    if (field == 0xff) return OF_SPECIAL;
    if (bits << 1 == 0) return OF_ZERO;
    return (int16_t)((int)field - 127 < least ? least : (int)field - 127);
}

static double power_of_2(int exponent) {
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* Toward zero, and too large is infinite. */
static float cut_to_float(double x) {
    if (fabs(x) < 0x1p-126) return (float)(trunc(x * 0x1p149) * 0x1p-149);
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= ~((UINT64_C(1) << 29) - 1);
    memcpy(&x, &bits, sizeof x);
    return fabs(x) >= 0x1p128 ? (x > 0 ? INFINITY : -INFINITY) : (float)x;
}

/* A sum that has an infinity or a NaN in it: whatever else is added, and in double nothing overflows. */
static float special_sum(float c, const float *a, const float *b, int count) {
    double sum = (double)c;
    for (int k = 0; k < count; k++) sum += (double)a[k] * (double)b[k * COLUMNS];
    if (!isnan(sum)) return (float)sum;
    const uint32_t bits = 0x7fffffff;
    float nan;
    memcpy(&nan, &bits, sizeof nan);
    return nan;
}

/* One step, of a row of C: c[8] += a[count] * b[count][8]. Exponents beside them. */
static void add_group(float c[COLUMNS], const float *a, const int16_t *a_exponent, const float *b,
                      const int16_t *b_exponent, int count) {
    int16_t largest[COLUMNS];
    double scale[COLUMNS];
    int32_t sum[COLUMNS]; /* of terms below 2^26 */
    for (int j = 0; j < COLUMNS; j++) largest[j] = exponent_of(c[j], LEAST);
    for (int k = 0; k < count; k++)
        for (int j = 0; j < COLUMNS; j++) {
            const int16_t exponent = (int16_t)(a_exponent[k] + b_exponent[k * COLUMNS + j]);
            largest[j] = exponent > largest[j] ? exponent : largest[j];
        }
    for (int j = 0; j < COLUMNS; j++) {
        const bool is_finite = largest[j] < LEAST_SPECIAL && largest[j] > MOST_ZERO;
        scale[j] = is_finite ? power_of_2(FRACTION - largest[j]) : 0;
        sum[j] = is_finite ? (int32_t)((double)c[j] * scale[j]) : 0;
    }
    for (int k = 0; k < count; k++)
        for (int j = 0; j < COLUMNS; j++) {
            const double term = (double)a[k] * (double)b[k * COLUMNS + j] * scale[j];
            sum[j] += scale[j] > 0 ? (int32_t)term : 0;
        }
    for (int j = 0; j < COLUMNS; j++) {
        if (largest[j] >= LEAST_SPECIAL)
            c[j] = special_sum(c[j], a, b + j, count);
        else
            c[j] = scale[j] > 0 ? cut_to_float(sum[j] * power_of_2(largest[j] - FRACTION)) : 0.0f;
    }
}

void fj_emu_multiply_truncated(float *c, const float *a, const float *b, int depth, int group, int least) {
    int16_t a_exponent[ROWS * MAX_DEPTH], b_exponent[MAX_DEPTH * COLUMNS];
    for (int i = 0; i < ROWS * depth; i++) a_exponent[i] = exponent_of(a[i], least);
    for (int i = 0; i < depth * COLUMNS; i++) b_exponent[i] = exponent_of(b[i], least);
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < depth; k += group)
            add_group(c + i * COLUMNS, a + i * depth + k, a_exponent + i * depth + k, b + k * COLUMNS,
                      b_exponent + k * COLUMNS, group);
}
