/* What the softmax of the cpu kernels rests on: powers of 2 at the ends of their range. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/lanes/lanes.h"

enum { COUNT = 1 << 14 };
_Static_assert(COUNT % PRIM_MAX_LANES == 0, "whole vectors");

static double values[COUNT];
static char column[COUNT * sizeof(double)], result[COUNT * sizeof(double)];

static double get(const prim_set *set, const char *from, int i) {
    double x;
    float f;
    if (set->real_size == 8) return memcpy(&x, from + 8 * i, 8), x;
    return memcpy(&f, from + 4 * i, 4), (double)f;
}

/* Rounds the values to the set's type. */
static void put_all(const prim_set *set) {
    for (int i = 0; i < COUNT; i++) {
        const float f = (float)values[i];
        memcpy(column + set->real_size * i, set->real_size == 8 ? (const void *)&values[i] : (const void *)&f,
               (size_t)set->real_size);
        values[i] = get(set, column, i);
    }
}

static int complain(const prim_set *set, int i, double got, double want) {
    printf("FAIL %s tile_exp2(%.17g): %.17g, want %.17g\n", set->name, values[i], got, want);
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
    for (int i = 0; i < COUNT; i++) values[i] = i < end_count ? ends[i] : 1200 * random_unit() - 1080;
    for (int i = end_count; i < COUNT && set->real_size == 4; i++) values[i] = fmod(values[i], 160);
    put_all(set);
    set->tile_exp2(column, result, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double got = get(set, result, i), want = exp2(values[i]);
        if (values[i] > 126) continue;
        bool right = fabs(got - want) <= 2 * ulp * want || (want < least && got >= 0 && got <= least);
        if (i < end_count && fabs(values[i]) != 0x1p-140)
            right = isnan(want) ? isnan(got) : got == (want < least / 2 ? 0 : want);
        if (!right) wrong += complain(set, i, got, want);
    }
    return wrong;
}

int prim_check_tile(const prim_set *set) { return check_exp2(set); }
