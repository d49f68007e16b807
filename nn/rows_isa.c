/* The functions of rows.h for one instruction set: FJ_NN_ISA, which the build gives beside the options for it. */
#include <math.h>
#include <string.h>

#include "nn/rows.h"

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

/* e^y for y from -127 to 0, relative error below 1e-7; 0 below -87. */
static inline float exp_f32(float y) {
    const float shift = 12582912.0F; /* 1.5 * 2^23: the bits of n stand at the end of the sum */
    const float sum = y * 1.44269504F + shift, n = sum - shift;
    const float r = (y - n * 0.693145752F) - n * 1.42860677e-6F;
    float p = 1.3888889e-3F;
    p = p * r + 8.3333333e-3F;
    p = p * r + 4.1666667e-2F;
    p = p * r + 1.6666667e-1F;
    p = p * r + 0.5F;
    p = p * r + 1;
    p = p * r + 1;
    int32_t bits;
    float power;
    memcpy(&bits, &sum, sizeof bits);
    bits = (int32_t)((uint32_t)bits << 23) + 0x3F800000;
    memcpy(&power, &bits, sizeof power);
    return y > -87.0F ? p * power : 0;
}

/* x times the normal distribution's integral up to x, and its derivative. The integral up to -z, for z of 0 and more, is
 * q(z) exp(-z^2 / 2), where q (z + 3.5) is a polynomial of (z - 3.5) / (z + 3.5), fitted to 8e-9 for z up to 15. */
static inline float gelu_of_f32(float x, float *slope) {
    const float size = x < 0 ? -x : x, z = size < 15 ? size : 15; /* so that infinity is a number */
    const float inverse = 1 / (z + 3.5F), u = (z - 3.5F) * inverse;
    float p = 1.087087806e-04F;
    p = p * u + 4.183428256e-04F;
    p = p * u - 4.950563745e-04F;
    p = p * u - 3.172848615e-03F;
    p = p * u + 6.493736673e-03F;
    p = p * u + 1.740582779e-02F;
    p = p * u - 1.160531781e-01F;
    p = p * u + 3.154250907e-01F;
    p = p * u - 5.655617387e-01F;
    p = p * u + 7.444160736e-01F;
    const float e = exp_f32(-0.5F * z * z), tail = p * inverse * e;
    const float below = x < 0 ? tail : 1 - tail;
    *slope = below + x * e * 0.398942280F;
    return x * below;
}

static void gelu_f32(void *h, void *slope, int64_t count) {
    float *x = h, *d = slope;
    if (d) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) x[i] = gelu_of_f32(x[i], &d[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float unused;
            x[i] = gelu_of_f32(x[i], &unused);
        }
    }
}

/* The C library's, an element at a time. */
static void gelu_f64(void *h, void *slope, int64_t count) {
    double *x = h, *d = slope;
    for (int64_t i = 0; i < count; i++) {
        const double below = 0.5 * erfc(-x[i] * 0.70710678118654752440);
        if (d) d[i] = below + x[i] * 0.39894228040143267794 * exp(-0.5 * x[i] * x[i]);
        x[i] *= below;
    }
}

enum { DROP_LANES = 16, DROP_WORDS = 4 * DROP_LANES };

/* fj_dropout_word of plane 0 and the columns of a block of 64 in a row: 16 counters side by side. */
static void drop_words(fj_philox_key key, uint32_t row, uint32_t block, uint32_t words[DROP_WORDS]) {
    uint32_t *const c0 = words, *const c1 = words + DROP_LANES, *const c2 = c1 + DROP_LANES,
                    *const c3 = c2 + DROP_LANES;
    for (uint32_t i = 0; i < DROP_LANES; i++) {
        c0[i] = block * DROP_LANES + i;
        c1[i] = row;
        c2[i] = c3[i] = 0;
    }
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int i = 0; i < DROP_LANES; i++) {
            const uint64_t a = (uint64_t)0xD2511F53U * c0[i], b = (uint64_t)0xCD9E8D57U * c2[i];
            c0[i] = (uint32_t)(b >> 32) ^ c1[i] ^ key.word[0];
            c2[i] = (uint32_t)(a >> 32) ^ c3[i] ^ key.word[1];
            c1[i] = (uint32_t)b;
            c3[i] = (uint32_t)a;
        }
        key.word[0] += 0x9E3779B9U;
        key.word[1] += 0xBB67AE85U;
    }
}

#define real float
#define NAME(name) name##_f32
#define SQRT sqrtf
#include "nn/rows.inc"
static const fj_nn_rows table_f32 = ROWS_TABLE;
#undef real
#undef NAME
#undef SQRT
#undef ROWS_TABLE

#define real double
#define NAME(name) name##_f64
#define SQRT sqrt
#include "nn/rows.inc"
static const fj_nn_rows table_f64 = ROWS_TABLE;

const fj_nn_rows *PASTE(fj_nn_rows_, FJ_NN_ISA)(fj_dtype dtype);
const fj_nn_rows *PASTE(fj_nn_rows_, FJ_NN_ISA)(fj_dtype dtype) {
    return dtype == FJ_DTYPE_F64 ? &table_f64 : &table_f32;
}
