/* Equal to the bit: a NaN is equal to itself, 0 is not equal to -0. */
#ifndef FJ_TESTS_SUPPORT_BITS_H
#define FJ_TESTS_SUPPORT_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline bool same_bits(double a, double b) {
    uint64_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y;
}

#endif
