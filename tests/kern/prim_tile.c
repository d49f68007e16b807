/* What the softmax of the cpu kernels rests on: powers of 2 at the ends of their range, and differences that are exact. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/kern/prim_lanes.h"

enum { COUNT = 1 << 14 };
_Static_assert(COUNT % PRIM_MAX_LANES == 0, "whole vectors");

static double values[3][COUNT];
static char columns[3][COUNT * sizeof(double)], result[COUNT * sizeof(double)];

static double get(const prim_set *set, const char *column, int i) {
    double x;
    float f;
    if (set->real_size == 8) return memcpy(&x, column + 8 * i, 8), x;
    return memcpy(&f, column + 4 * i, 4), (double)f;
}

/* Rounds the values of a column to the set's type. */
static void put_all(const prim_set *set, int column) {
    for (int i = 0; i < COUNT; i++) {
        const float f = (float)values[column][i];
        memcpy(columns[column] + set->real_size * i,
               set->real_size == 8 ? (const void *)&values[column][i] : (const void *)&f,
               (size_t)set->real_size);
        values[column][i] = get(set, columns[column], i);
    }
}

static int complain(const prim_set *set, const char *what, int i, double got, double want) {
    printf("FAIL %s %s(%.17g, %.17g, %.17g): %.17g, want %.17g\n", set->name, what, values[0][i],
           values[1][i], values[2][i], got, want);
    return 1;
}

static uint64_t random_state = 20261130;
/* In [-1, 1) */
static double random_unit(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)random_state * 0x1p-63;
}

/* Exactly 1 at 0, exactly 0 far down, NaN of NaN; 2 ulp between, but that denormal results may be 0. */
static int check_exp2(const prim_set *set) {
    const double most = set->real_size == 8 ? 0x1.fffffffffffffp1023 : 0x1.fffffep127;
    const double least = set->real_size == 8 ? 0x1p-1022 : 0x1p-126,
                 ulp = set->real_size == 8 ? 0x1p-52 : 0x1p-23;
    const double ends[] = {0.0,  -0.0,  (double)-INFINITY, (double)NAN, -most, -most / 2, -1e10,
                           -1e5, -2000, 0x1p-140,          -0x1p-140};
    const int end_count = (int)(sizeof ends / sizeof ends[0]);
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) values[0][i] = i < end_count ? ends[i] : 1200 * random_unit() - 1080;
    for (int i = end_count; i < COUNT && set->real_size == 4; i++) values[0][i] = fmod(values[0][i], 160);
    put_all(set, 0);
    set->tile_exp2(columns[0], result, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double got = get(set, result, i), want = exp2(values[0][i]);
        if (values[0][i] > 126) continue;
        bool right = fabs(got - want) <= 2 * ulp * want || (want < least && got >= 0 && got <= least);
        if (i < end_count && fabs(values[0][i]) != 0x1p-140)
            right = isnan(want) ? isnan(got) : got == (want < least / 2 ? 0 : want);
        if (!right) wrong += complain(set, "tile_exp2", i, got, want);
    }
    return wrong;
}

/* c near the product: nothing may be lost of the difference, at any magnitude; infinite products stay what they are. */
static int check_fma_once(const prim_set *set) {
    const int bits = set->real_size == 8 ? 52 : 23, reach = set->real_size == 8 ? 450 : 55;
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        values[0][i] = ldexp(random_unit(), (int)(reach * random_unit()));
        values[1][i] = ldexp(random_unit(), (int)(reach * random_unit()));
    }
    values[0][0] = values[0][1] = ldexp(1, 18 * reach / 10), values[1][0] = values[0][0],
    values[1][1] = -values[0][0];
    put_all(set, 0);
    put_all(set, 1);
    for (int i = 0; i < COUNT; i++)
        values[2][i] = i < 2 ? 1 : -values[0][i] * values[1][i] * (1 + ldexp(rint(8 * random_unit()), -bits));
    put_all(set, 2);
    set->tile_fma_once(columns[0], columns[1], columns[2], result, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double got = get(set, result, i);
        const double want = set->real_size == 8
                              ? fma(values[0][i], values[1][i], values[2][i])
                              : (double)fmaf((float)values[0][i], (float)values[1][i], (float)values[2][i]);
        /* Halves of 53 bits are not exact together: what they lose is far below what a product loses. */
        const double slack = isfinite(want) ? ldexp(fabs(values[2][i]), -2 * bits) : 0;
        if (!(got == want || fabs(got - want) <= ldexp(fabs(want), 1 - bits) + slack))
            wrong += complain(set, "tile_fma_once", i, got, want);
    }
    return wrong;
}

int prim_check_tile(const prim_set *set) { return check_exp2(set) + check_fma_once(set); }
