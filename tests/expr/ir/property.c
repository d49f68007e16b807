/* Random numbers, and properties over them: see generate.h. */
#include "generate.h"

#include <check.h>
#include <stdlib.h>
#include <time.h>

/* ---- Random numbers: splitmix64 -------------------------------------------------------------- */

static uint64_t next(fj_random *random) {
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t fj_random_below(fj_random *random, uint32_t limit) {
    return (uint32_t)((next(random) >> 33) % limit);
}

double fj_random_real(fj_random *random, double low, double high) {
    return low + (high - low) * (double)(next(random) >> 11) * 0x1p-53;
}

int fj_test_count(int otherwise) {
    const char *text = getenv("FJ_COUNT");
    return text != NULL ? atoi(text) : otherwise;
}

/* ---- Properties ------------------------------------------------------------------------------------------ */

typedef struct property_call {
    fj_property property;
    fj_random random;
    int number;
} property_call;

static void property_body(fj_scope *scope, void *argument) {
    property_call *call = argument;
    call->property(scope->arena, &call->random, call->number);
}

static uint64_t current_seed;
static int current_number;

void fj_hold_failed(const char *file, int line, const char *text) {
    ck_abort_msg("%s:%d: FJ_SEED=%llu, case %d: %s", file, line, (unsigned long long)current_seed,
                 current_number, text);
}

void fj_check_property(const char *name, int count, fj_property property) {
    const char *seed = getenv("FJ_SEED");
    current_seed = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)(time(NULL) / 86400);
    printf("%s: %d cases, FJ_SEED=%llu\n", name, count, (unsigned long long)current_seed);
    for (current_number = 0; current_number < count; current_number++) {
        fj_error error = {0};
        fj_arena arena;
        const uint64_t start = current_seed * UINT64_C(1000003) + (uint64_t)current_number * UINT64_C(7919);
        property_call call = {property, {start}, current_number};
        fj_arena_init(&arena, &fj_allocator_libc);
        const fj_status status = fj_scope_run(&arena, &error, property_body, &call);
        fj_arena_finish(&arena);
        FJ_HOLD(status == FJ_OK, "%s: %s", name, error.text);
        fj_error_finish(&error);
    }
}
