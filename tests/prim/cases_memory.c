/* Copies, loads and stores, atomics, swizzles. */
#include <math.h>
#include <string.h>

#include "tests/prim/prim.h"

/* ---- Copies ----------------------------------------------------------------------------------- */

static void copy(const uint32_t *in, const struct prim_expected *e, uint32_t words) {
    for (uint32_t l = 0; l < 32; l++) {
        uint32_t bytes = l % (words * 4 + 1);
        memset(e->bits + l * words, 0, words * 4);
        memcpy(e->bits + l * words, in + l * words, bytes);
    }
}

static void copy_4(const uint32_t *in, const struct prim_expected *e) { copy(in, e, 1); }
static void copy_8(const uint32_t *in, const struct prim_expected *e) { copy(in, e, 2); }
static void copy_16(const uint32_t *in, const struct prim_expected *e) { copy(in, e, 4); }

static void copy_groups(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 512; i++) e->bits[i] = in[i / 32 * 32 + 31 - i % 32];
}

/* ---- Loads and stores, atomics ---------------------------------------------------------------- */

static void load_store(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 32 * 24; i++) e->bits[i] = i % 24 < 21 ? in[i] : ~in[i];
}

static int64_t small(uint32_t word) { return (int64_t)(word % 1000) - 500; }

static void atomic(const uint32_t *in, const struct prim_expected *e) {
    int64_t sum = 0;
    for (uint32_t i = 0; i < 64; i++) sum += small(in[i % 32]);
    double real = (double)sum + 16;
    int64_t wide = sum * INT64_C(0x100000000);
    e->bits[0] = prim_bits((float)sum);
    e->bits[1] = (uint32_t)sum;
    memcpy(e->bits + 2, &real, sizeof real);
    memcpy(e->bits + 4, &wide, sizeof wide);
    for (uint32_t i = 0; i < 32; i++) e->bits[7] = in[i] > e->bits[7] ? in[i] : e->bits[7];
    e->bits[8] = 64;
    for (uint32_t i = 0; i < 64; i++) e->bits[16 + i] = 1;
}

static void atomic_min(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 32; i++) e->bits[0] = in[i] < e->bits[0] ? in[i] : e->bits[0];
}

static float flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static void atomic_subnormal(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++, in += 2) {
        const float a = prim_float(in[0]), b = prim_float(in[1]);
        e->bits[2 * i] = prim_bits(flush(flush(a) + flush(b)));
        e->bits[2 * i + 1] = prim_bits(a + b);
    }
}

/* Two threads for each four words, in two blocks. */
static void atomic_v4(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t from = i / 4 * 8 + i % 4;
        e->bits[i] = prim_bits((float)(2 * (small(in[from]) + small(in[from + 4]))));
    }
}

/* Pairs around the least normal number, and any. */
static void fill_small(uint32_t *in, uint32_t words) {
    static const uint32_t special[] = {0x00000001, 0x00000001, 0,          0x80000001, 0x80000000,
                                       0x80000001, 0x00800000, 0x807fffff, 0x00800001, 0x80800000,
                                       0x007fffff, 0x00000001, 0x3f800000, 0x80000001, 0x80800000,
                                       0x80000001, 0x7f800000, 0x00000001};
    const uint32_t count = sizeof special / sizeof special[0];
    prim_fill_floats(in, words);
    for (uint32_t i = 0; i < count; i++) in[i] = special[i];
    for (uint32_t i = count; i < words / 2; i++) in[i] = prim_random() & 0x80ffffffu;
}

static void shared_atomic(const uint32_t *in, const struct prim_expected *e) {
    int64_t sum = 0;
    for (uint32_t i = 0; i < 64; i++) sum += small(in[i]);
    int64_t wide = sum * 0x10000;
    e->bits[0] = prim_bits((float)sum);
    e->bits[1] = (uint32_t)sum;
    memcpy(e->bits + 2, &wide, sizeof wide);
}

/* ---- Swizzles --------------------------------------------------------------------------------- */

/* Chunks of 16 bytes: with rows of 128 bytes, chunk c of row r is found at chunk c ^ f(r) of row r. */
static void swizzle(const uint32_t *in, const struct prim_expected *e) {
    (void)in;
    for (uint32_t i = 0; i < 128; i++) {
        uint32_t row = i / 8, chunk = i % 8;
        const uint32_t words[4] = {
            16 * (row * 8 + chunk),
            16 * (row * 8 + (chunk ^ row % 2)),
            16 * (row * 8 + (chunk ^ row % 4)),
            16 * (row * 8 + (chunk ^ row % 8)),
        };
        memcpy(e->bits + i * 4, words, sizeof words);
    }
}

const struct prim_case prim_memory_cases[] = {
    {"memory", "prim_copy_4", 75, 32, 128, 32, 32, PRIM_BITS, prim_fill_words, copy_4, {0}, 0},
    {"memory", "prim_copy_8", 75, 32, 256, 64, 64, PRIM_BITS, prim_fill_words, copy_8, {0}, 0},
    {"memory", "prim_copy_16", 75, 32, 512, 128, 128, PRIM_BITS, prim_fill_words, copy_16, {0}, 0},
    {"memory", "prim_copy_groups", 75, 32, 1536, 512, 512, PRIM_BITS, prim_fill_words, copy_groups, {0}, 0},
    {"memory", "prim_load_store", 75, 32, 0, 768, 768, PRIM_BITS, prim_fill_words, load_store, {0}, 0},
    {"memory", "prim_atomic", 75, 32, 0, 32, 80, PRIM_BITS, prim_fill_words, atomic, {2, 1, 1}, 0},
    {"memory", "prim_atomic_v4", 90, 32, 0, 128, 64, PRIM_BITS, prim_fill_words, atomic_v4, {2, 1, 1}, 0},
    {"memory", "prim_atomic_min", 75, 32, 0, 32, 1, PRIM_BITS, prim_fill_words, atomic_min, {0}, UINT32_MAX},
    {"memory",
     "prim_atomic_subnormal",
     75,
     128,
     512,
     256,
     256,
     PRIM_FLOATS,
     fill_small,
     atomic_subnormal,
     {0},
     0},
    {"memory", "prim_shared_atomic", 75, 64, 16, 64, 4, PRIM_BITS, prim_fill_words, shared_atomic, {0}, 0},
    {"memory", "prim_swizzle", 75, 32, 0, 0, 512, PRIM_BITS, prim_fill_words, swizzle, {0}, 0},
    {0},
};
