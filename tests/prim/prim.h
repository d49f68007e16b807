/* The conformance tests of templates/cuda/prim.h: a kernel for each primitive, and what it must give.
 *
 * A case is a row of a table. Its input is made by a seeded generator, its expected output is computed from
 * the documentation of the primitive, without the emulator's tables. Outputs of real devices, recorded once
 * (record.h), are held against the same.
 */
#ifndef FJ_TESTS_PRIM_PRIM_H
#define FJ_TESTS_PRIM_PRIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum prim_compare {
    PRIM_BITS,
    PRIM_FLOATS,  /* bits, but any NaN is as good as another */
    PRIM_DOUBLES, /* the same for pairs of words */
    PRIM_BOUND    /* floats within a tolerance of a value */
};

struct prim_expected {
    uint32_t *bits;
    double *value, *tolerance; /* for PRIM_BOUND */
};

struct prim_case {
    const char *file, *kernel;
    uint32_t min_arch, threads, shared, in_words, out_words;
    enum prim_compare compare;
    void (*fill)(uint32_t *in, uint32_t words);
    void (*expect)(const uint32_t *in, const struct prim_expected *out);
    uint32_t grid[3];     /* 0: 1 */
    uint32_t out_initial; /* every output word before the launch */
};

extern const struct prim_case prim_exchange_cases[], prim_matrix_cases[], prim_memory_cases[],
    prim_arithmetic_cases[]; /* each ends with a row without a kernel */

/* ---- Generators ------------------------------------------------------------------------------- */

uint32_t prim_random(void); /* seeded anew for every case */
void prim_seed(uint64_t seed);
void prim_fill_words(uint32_t *in, uint32_t words);  /* any bits */
void prim_fill_floats(uint32_t *in, uint32_t words); /* of all magnitudes, and special values */
uint32_t prim_bits(float x);
float prim_float(uint32_t bits);
/* Rounded to a float format: ties to even, or away from zero. mantissa: stored bits. As a double. */
double prim_round(double x, int mantissa, int least_exponent, int most_exponent, bool away);
/* The bits of a value that the 16-bit format holds. */
uint16_t prim_encode(double x, int mantissa, int exponent_bits);
double prim_decode(uint16_t bits, int mantissa, int exponent_bits);

#endif
