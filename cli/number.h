/* Elements of tensors as doubles: what comparing and filling need. */
#ifndef FJ_CLI_NUMBER_H
#define FJ_CLI_NUMBER_H

#include <stddef.h>
#include <stdint.h>

#include "flexjit/flexjit.h"

/* Element index of an aligned array; F8 types are not read. */
double cli_load(fj_dtype dtype, const void *data, size_t index);
/* Rounds to nearest even, integers truncate. */
void cli_store(fj_dtype dtype, void *data, size_t index, double value);
/* The value rounded to a float dtype. */
double cli_round(fj_dtype dtype, double value);
/* A unit in the last place of a float dtype at a magnitude. */
double cli_ulp(fj_dtype dtype, double magnitude);

/* A generator of random numbers: splitmix64. */
typedef struct cli_random {
    uint64_t state;
} cli_random;

uint64_t cli_random_bits(cli_random *random);
double cli_random_normal(cli_random *random);
/* Uniform in [0, bound), bound at least 1. */
int64_t cli_random_below(cli_random *random, int64_t bound);

#endif
