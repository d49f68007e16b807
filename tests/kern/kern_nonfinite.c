/* NaN and infinities in rows of Q, K, V and dO: what does not see these rows has the same bits as with zeros there, and
 * what sees them is not finite. Dead rows and keys that no row sees are among them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern_problem.h"
#include "tests/support/bits.h"

enum { MOST_LENGTH = 256, MOST_OUTPUTS = 8 };
static const double bad_values[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};

/* One operand with some of its rows changed, and what sees them. */
typedef struct place {
    problem *p;
    int operand;
    bool changed[MOST_LENGTH];                 /* rows of the operand */
    bool rows[MOST_LENGTH], keys[MOST_LENGTH]; /* whose results depend on them */
    char *with_zeros[MOST_OUTPUTS];
} place;

static bool is_row(int operand) { return operand == QUERY || operand == DOUT; }

static void find_dependents(place *x) {
    const kern_shape *s = &x->p->shape;
    bool (*mask)(int64_t, int64_t) = x->p->v->mod->mask;
    memset(x->rows, 0, sizeof x->rows);
    memset(x->keys, 0, sizeof x->keys);
    for (int64_t q = 0; q < s->q_len; q++)
        for (int64_t kv = 0; kv < s->kv_len; kv++)
            x->rows[q] |= mask(q, kv) && x->changed[is_row(x->operand) ? q : kv];
    for (int64_t q = 0; q < s->q_len; q++)
        for (int64_t kv = 0; kv < s->kv_len; kv++) x->keys[kv] |= mask(q, kv) && x->rows[q];
}

/* The two columns beside the ends of each changed row. */
static void put(place *x, double value) {
    kern_tensor *t = &x->p->tensors[x->operand];
    const int64_t length = t->tensor.shape[2], width = t->tensor.shape[3];
    double *values = x->p->values[x->operand];
    for (int64_t row = 0; row < kern_count(t) / width; row++)
        if (x->changed[row % length])
            values[row * width + width / 2] = values[row * width + width - 1] = value;
    kern_tensor_fill(t, values);
}

/* Backward takes out and lse from forward: NaN in rows that depend on what is not finite. */
static void spoil_forward(place *x) {
    for (int which = OUT; which <= LSE; which++) {
        kern_tensor *t = &x->p->tensors[which];
        const int64_t length = t->tensor.shape[2], width = t->tensor.shape[3];
        if (x->operand == DOUT || (x->operand == VALUE && which == LSE)) continue;
        for (int64_t i = 0; i < kern_count(t); i++)
            if (x->rows[i / width % length]) x->p->values[which][i] = (double)NAN;
        kern_tensor_fill(t, x->p->values[which]);
    }
}

static void run(const struct fj_cpu_kernel *kernel, problem *p) {
    struct launch l;
    for (int i = 0; kern_problem_output(p, i); i++) kern_tensor_reset(kern_problem_output(p, i));
    kern_launch_open(&l, p, kernel, 1);
    kern_launch_run(kernel, &l);
    kern_launch_close(&l);
}

/* Whether row n of an output depends on the changed rows. */
static bool depends(const place *x, int output, int64_t n) {
    if (!x->p->v->backward) return x->operand != DOUT && x->rows[n] && (output == 0 || x->operand != VALUE);
    if (output == 0) return x->rows[n];
    return x->keys[n] && (output == 1 || x->operand != VALUE);
}

static bool compare(const place *x, double value) {
    const int outputs =
        x->p->v->backward ? 3 : 2; /* of what positions are known: out and lse; dq, dk and dv */
    for (int which = 0; which < outputs; which++) {
        const kern_tensor *t = kern_problem_output(x->p, which);
        const int64_t length = t->tensor.shape[2], width = t->tensor.shape[3], count = kern_count(t);
        kern_tensor zeros = *t;
        zeros.memory = x->with_zeros[which];
        double *got = malloc(sizeof(double) * 2 * ((size_t)count + 1)), *want = got + count + 1;
        kern_tensor_read(t, got);
        kern_tensor_read(&zeros, want);
        bool right = true, seen[MOST_LENGTH] = {0};
        for (int64_t i = 0; i < count; i++) {
            const int64_t n = i / width % length;
            if (!depends(x, which, n)) right &= same_bits(got[i], want[i]);
            seen[n] |= !isfinite(got[i]);
        }
        /* -inf hides a key from some rows. */
        for (int64_t n = 0; n < length && isnan(value); n++)
            right &= seen[n] == depends(x, which, n) || !isfinite(want[n * width]);
        free(got);
        if (right) continue;
        printf("FAIL: %g in rows of %s: output %d\n", value, tensor_names[x->operand], which);
        return false;
    }
    return true;
}

static bool check_place(const struct fj_cpu_kernel *kernel, place *x) {
    const size_t count = (size_t)kern_count(&x->p->tensors[x->operand]);
    double *kept = malloc(sizeof(double) * (count + 1));
    bool right = true;
    memcpy(kept, x->p->values[x->operand], sizeof(double) * count);
    find_dependents(x);
    put(x, 0);
    kern_problem_forward(x->p);
    run(kernel, x->p);
    for (int i = 0; kern_problem_output(x->p, i); i++) {
        const kern_tensor *t = kern_problem_output(x->p, i);
        x->with_zeros[i] = memcpy(malloc(t->bytes), t->memory, t->bytes);
    }
    spoil_forward(x);
    for (size_t i = 0; i < sizeof bad_values / sizeof bad_values[0]; i++) {
        put(x, bad_values[i]);
        run(kernel, x->p);
        right &= compare(x, bad_values[i]);
    }
    for (int i = 0; i < MOST_OUTPUTS; i++) free(x->with_zeros[i]), x->with_zeros[i] = NULL;
    memcpy(x->p->values[x->operand], kept, sizeof(double) * count);
    kern_tensor_fill(&x->p->tensors[x->operand], x->p->values[x->operand]);
    free(kept);
    return right;
}

bool kern_check_nonfinite(const struct fj_cpu_kernel *kernel, const variant *v, uint64_t seed) {
    /* Causal masks leave keys that no row sees, the others rows that see none. */
    const bool causal = v->mod->mask(1, 0);
    problem p = {.v = v, .layout = KERN_GAPS, .seed = seed};
    p.shape = (kern_shape){1, 2, 1, causal ? 60 : 130, causal ? 213 : 100, v->head_dim, v->value_dim};
    kern_problem_make(&p);
    bool right = true;
    for (int operand = QUERY; operand <= DOUT; operand++) {
        if (operand > VALUE && !(operand == DOUT && v->backward)) continue;
        place x = {.p = &p, .operand = operand};
        x.changed[7] = x.changed[20] = x.changed[21] = true;
        right &= check_place(kernel, &x);
        x.changed[p.tensors[operand].tensor.shape[2] - 1] = true;
        right &= check_place(kernel, &x);
    }
    kern_problem_free(&p);
    return right;
}
