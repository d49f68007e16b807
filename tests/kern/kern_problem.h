/* A problem of the kernel tests: its tensors, what the definition gives for them, and how a kernel is launched on it. */
#ifndef FJ_TESTS_KERN_KERN_PROBLEM_H
#define FJ_TESTS_KERN_KERN_PROBLEM_H

#include "tests/kern/kern.h"
#include "tests/kern/kern_tensor.h"

typedef struct variant {
    bool backward;
    kern_dtype dtype;
    int isa, head_dim, value_dim;
    const kern_mod *mod;
} variant;

enum { QUERY, KEY, VALUE, OUT, LSE, LSE_LOW, MAX, DOUT, DLSE, DQUERY, DKEY, DVALUE, TENSORS };
extern const char *const tensor_names[TENSORS];

typedef struct problem {
    const variant *v;
    kern_shape shape;
    kern_layout layout;
    uint64_t seed;
    int power; /* of 2 in Q and in K: scores are integers times 2^(2 power), exact in every dtype. 0: ordinary scores */
    double scale;
    kern_tensor tensors[TENSORS], captures[KERN_MAX_CAPTURES], dcaptures[KERN_MAX_CAPTURES], dscalar;
    /* What the definition gives, and the inputs as rounded. Of lse_low: the logarithm of the sum; in backward the input. */
    double *values[TENSORS];
    kern_captures wanted;
} problem;

/* The maximum of a row that lse is made of: where it is large, kernels round products to natural scores
 * (templates/cpu/tile.h: FJ_LARGE). */
double kern_problem_max(const problem *p, int64_t row);
int64_t kern_count(const kern_tensor *t);
void kern_problem_tensor(problem *p, int which, int64_t heads, int64_t length, int64_t dim, double size);
void kern_problem_captures(problem *p);
/* All tensors, and in `values` what the definition makes of the inputs. */
void kern_problem_make(problem *p);
/* out and lse of the inputs as they are in `values`; for a backward kernel also in the tensors. */
void kern_problem_forward(problem *p);
void kern_problem_free(problem *p);
/* The outputs of the problem's direction, NULL past the last. */
kern_tensor *kern_problem_output(problem *p, int n);

struct launch {
    struct fj_cpu_args args;
    struct fj_cpu_tensor captures[KERN_MAX_CAPTURES], dcaptures[KERN_MAX_CAPTURES], dscalar;
    union fj_cpu_scalar scalar;
    struct fj_cpu_fault faults[8];
    char *memory;
    size_t size;
};

void kern_launch_open(struct launch *l, const problem *p, const struct fj_cpu_kernel *kernel, int workers);
/* Items in order on one worker, in reverse order on several. */
void kern_launch_run(const struct fj_cpu_kernel *kernel, struct launch *l);
/* False where the kernel wrote past its workspace. */
bool kern_launch_close(struct launch *l);

/* Whether NaN and infinities in Q, K, V and dO stay with what sees them (kern_nonfinite.c); says what does not. */
bool kern_check_nonfinite(const struct fj_cpu_kernel *kernel, const variant *v, uint64_t seed);

#endif
