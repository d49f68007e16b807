/* Points of the space (jit/space.h), drawn from a seed: variants that no list has, each with a mod, dimensions and shapes. What
 * the plan lists has the table. */
#include <fnmatch.h>
#include <stdlib.h>

#include "jit/space.h"
#include "tests/kern/kern.h"

typedef struct draw {
    generator *random;
    int count; /* of the variants so far */
    fj_variant variant;
} draw;

/* Each is taken with the same probability: the n-th in place of the one before in one of n cases. */
static bool take(void *user, const fj_variant *variant) {
    draw *d = user;
    if (random_below(d->random, ++d->count) == 0) d->variant = *variant;
    return true;
}

static const mod *draw_mod(generator *random) {
    int count = 0;
    while (mods[count].name) count++;
    return &mods[random_below(random, count)];
}

static fj_jit_problem draw_problem(generator *random, bool cpu) {
    static const fj_dtype dtypes[] = {FJ_DTYPE_BF16, FJ_DTYPE_F16, FJ_DTYPE_F32, FJ_DTYPE_F64};
    static const int dims[] = {64, 8, 40, 72, 16, 128, 33, 1, 96, 17, 192, 256, 80, 155};
    const bool backward = random_below(random, 2);
    const int form = random_below(random, 8);
    return (fj_jit_problem){
        .kind = backward ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD,
        .dtype = dtypes[random_below(random, cpu ? 4 : 3)],
        .head_dim = dims[random_below(random, FJ_ARRAY_LEN(dims))],
        .value_dim = dims[random_below(random, FJ_ARRAY_LEN(dims))],
        .deterministic = cpu || !backward || random_below(random, 3),
        .block_mask = form == 0,
        .q_offset = !cpu && form == 1,
        .packed = !cpu && form == 2,
        .paged = !cpu && !backward && form == 3,
    };
}

/* False: not a kernel that the range has. */
static bool draw_kernel(kernel *k, const range *r, generator *random) {
    const int target = r->targets[random_below(random, r->target_count)];
    const fj_features features = target_features(target);
    *k = (kernel){.problem = draw_problem(random, target_is_cpu(target)), .mod = draw_mod(random)};
    const graphs g = mod_graphs(k->mod);
    k->problem.ir = g.ir;
    k->problem.gradient = kernel_is_backward(k) ? g.gradient : NULL;
    k->problem.max = !kernel_is_backward(k) && random_below(random, 4) == 0;
    fj_values all;
    for (int i = 0; i < FJ_AXIS_COUNT; i++) all.of[i] = FJ_VALUE_ANY;
    draw d = {.random = random};
    fj_jit_visit_variants(&k->problem, &features, &all, take, &d);
    if (d.count == 0) return false;
    k->variant = d.variant;
    kernel_finish(k);
    return fnmatch(r->filter, k->name, 0) == 0;
}

test *space_make(const range *r, int *count) {
    enum { TRIES = 4000, SHAPES = 3 };
    test *tests = calloc((size_t)r->space, sizeof *tests);
    generator random = random_of(r->seed, "space");
    if (!tests) abort();
    *count = 0;
    for (int i = 0; i < TRIES && *count < r->space; i++) {
        if (!draw_kernel(&tests[*count].kernel, r, &random)) continue;
        table_shapes(&tests[*count], r, SHAPES);
        ++*count;
    }
    return tests;
}
