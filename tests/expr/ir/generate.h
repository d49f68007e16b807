/* Random well-typed graphs with random inputs, for property tests. The seed is FJ_SEED (default: the
 * day's number, so that each day has other cases), the number of cases FJ_COUNT (default: the test's); each property
 * prints them. */
#ifndef FJ_TESTS_GENERATE_H
#define FJ_TESTS_GENERATE_H

#include <stdio.h>

#include "expr/ir/ir.h"

typedef struct fj_random {
    uint64_t state;
} fj_random;

uint32_t fj_random_below(fj_random *random, uint32_t limit);
double fj_random_real(fj_random *random, double low, double high);

int fj_test_count(int otherwise);

/* What a graph may hold. */
typedef enum fj_generate {
    FJ_GENERATE_ANY,    /* every operation, wild constants */
    FJ_GENERATE_SMOOTH, /* differentiable where it is evaluated, values of order 1 */
    FJ_GENERATE_EXACT,  /* as ANY, of operations that have one right result: no exp, sin, pow ... */
    FJ_GENERATE_MASK,   /* a mask of comparisons of indices, scalars and dimensions */
} fj_generate;

/* A graph and what it is evaluated over. */
typedef struct fj_world {
    fj_ir *ir;
    fj_eval_tensor *captures; /* as many as ir->captures */
    fj_scalar *scalars;
    int64_t *elements; /* per capture: elements of a packed copy */
    fj_eval_input input;
} fj_world;

fj_world *fj_generate_world(fj_arena *arena, fj_random *random, fj_generate kind);

/* One position. */
typedef struct fj_outcome {
    double score, dscore;
    bool mask, fault;
    double **dcaptures; /* per capture, packed; zero before */
    double *dscalars;
} fj_outcome;

fj_outcome fj_outcome_new(fj_arena *arena, const fj_world *world);
/* Evaluates a graph with the captures and scalars of the world. */
void fj_world_run(const fj_world *world, fj_eval *eval, const int32_t *position, double score, double adjoint,
                  bool live, fj_outcome *ret);
/* Bit for bit; a NaN is a NaN. */
bool fj_same(double a, double b);
bool fj_outcome_same(const fj_world *world, const fj_outcome *a, const fj_outcome *b);

/* Assertions inside a property: the failure names seed and case. */
#define FJ_HOLD(condition, ...)                                             \
    do {                                                                    \
        if (!(condition)) {                                                 \
            char fj_hold_text[1024];                                        \
            (void)snprintf(fj_hold_text, sizeof fj_hold_text, __VA_ARGS__); \
            fj_hold_failed(__FILE__, __LINE__, fj_hold_text);               \
        }                                                                   \
    } while (0)
#define FJ_TRUE(condition) FJ_HOLD(condition, "%s", #condition)
void fj_hold_failed(const char *file, int line, const char *text);

/* Runs a property on `count` cases, each with an arena of its own. */
typedef void (*fj_property)(fj_arena *arena, fj_random *random, int number);
void fj_check_property(const char *name, int count, fj_property property);

#endif
