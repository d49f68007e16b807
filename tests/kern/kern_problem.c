/* Problems of the kernel tests. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern_problem.h"

const char *const tensor_names[TENSORS] = {"query", "key",  "value", "out",    "lse",  "lse_low",
                                           "max",   "dout", "dlse",  "dquery", "dkey", "dvalue"};

static uint64_t random_state;
static double random_normal(void) { /* about: the sum of a few uniform numbers */
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(int64_t)random_state * 0x1p-63;
    }
    return sum * 0.87;
}

int64_t kern_count(const kern_tensor *t) {
    return t->tensor.shape[0] * t->tensor.shape[1] * t->tensor.shape[2] * t->tensor.shape[3];
}

/* ---- Data ------------------------------------------------------------------------------------------- */

/* The powers of 2 of Q and K, as far as the dtype reaches. */
static int power_of(const problem *p) {
    if (p->v->dtype == KERN_F16) return p->power < 13 ? p->power : 13;
    return p->v->dtype == KERN_F64 ? 8 * p->power : p->power;
}

static double random_value(const problem *p, int which, double size) {
    const double x = size * random_normal();
    if (p->power == 0 || which > KEY) return x;
    return ldexp(fmin(1, fmax(-1, rint(1.5 * x))), power_of(p));
}

void kern_problem_tensor(problem *p, int which, int64_t heads, int64_t length, int64_t dim, double size) {
    const int64_t dims[4] = {p->shape.batch, heads, length, dim};
    bool input = which <= VALUE || which == DOUT;
    bool real = which == LSE || which == LSE_LOW || which == MAX || which == DLSE;
    kern_dtype dtype = !real ? p->v->dtype : p->v->dtype == KERN_F64 ? KERN_F64 : KERN_F32;
    kern_tensor *t = &p->tensors[which];
    *t = kern_tensor_create(dims, dtype, p->layout == KERN_OVERLAP && !input ? KERN_GAPS : p->layout);
    p->values[which] = calloc((size_t)kern_count(t) + 1, sizeof(double));
    for (int64_t i = 0; size > 0 && i < kern_count(t); i++)
        p->values[which][i] = random_value(p, which, size);
    if (size > 0) kern_tensor_fill(t, p->values[which]);
}

/* Exact next to scores of any power. */
static double capture_value(const problem *p) {
    const double x = 0.3 * random_normal();
    return p->power == 0 || !p->v->mod->capture_is_score
             ? x
             : ldexp(rint(10 * x), 2 * power_of(p)) * fabs(p->scale);
}

/* A score that a mod fills in; the last is the least of its type. */
static double fill_of(int power, kern_dtype real) {
    if (power == 0) return -1e9;
    if (power < 20) return (double)-1e30f;
    if (power < 40) return (double)2.5e38f;
    return real == KERN_F64 ? -0x1.fffffffffffffp1023 : -0x1.fffffep127;
}

void kern_problem_captures(problem *p) {
    const kern_dtype real = p->v->dtype == KERN_F64 ? KERN_F64 : KERN_F32;
    const kern_mod *mod = p->v->mod;
    for (int i = 0; i < mod->capture_count; i++) {
        int64_t dims[4] = {1, 1, 1, 1}, *own = p->wanted.dims[i];
        mod->capture_dims(&p->shape, i, own);
        memcpy(dims, own, 3 * sizeof *own);
        p->captures[i] = kern_tensor_create(dims, real, p->layout == KERN_PACKED ? KERN_PACKED : KERN_GAPS);
        p->dcaptures[i] = kern_tensor_create(dims, real, p->layout == KERN_PACKED ? KERN_PACKED : KERN_GAPS);
        p->wanted.values[i] = calloc((size_t)kern_count(&p->captures[i]) + 1, sizeof(double));
        p->wanted.gradients[i] = calloc((size_t)kern_count(&p->captures[i]) + 1, sizeof(double));
        p->wanted.sizes[i] = calloc((size_t)kern_count(&p->captures[i]) + 1, sizeof(double));
        for (int64_t n = 0; n < kern_count(&p->captures[i]); n++) p->wanted.values[i][n] = capture_value(p);
        kern_tensor_fill(&p->captures[i], p->wanted.values[i]);
    }
    p->wanted.scalar = 0.75;
    if (mod->scalar_is_score) p->wanted.scalar = fill_of(p->power, real);
    p->dscalar = kern_tensor_create((int64_t[4]){1, 1, 1, 1}, real, KERN_PACKED);
}

static kern_data data_of(const problem *p) {
    double *const *v = p->values;
    return (kern_data){v[QUERY], v[KEY],  v[VALUE], v[OUT],    v[LSE],  v[LSE_LOW],
                       v[MAX],   v[DOUT], v[DLSE],  v[DQUERY], v[DKEY], v[DVALUE]};
}

double kern_problem_max(const problem *p, int64_t row) {
    const double max = p->values[MAX][row], lse = fabs(p->values[LSE][row]);
    if (p->v->mod->score || lse < (p->v->dtype == KERN_F64 ? 0x1p54 : 0x1p25)) return max;
    return p->v->dtype == KERN_F64 ? max : (double)(float)max;
}

/* What forward hands to backward: lse as rounded, and what rounding took. */
static void fill_forward(problem *p) {
    double *lse = p->values[LSE], *low = p->values[LSE_LOW];
    kern_tensor_fill(&p->tensors[OUT], p->values[OUT]);
    kern_tensor_fill(&p->tensors[LSE], lse);
    for (int64_t i = 0; i < kern_count(&p->tensors[LSE]); i++)
        low[i] = isfinite(lse[i]) ? (kern_problem_max(p, i) - lse[i]) + low[i] : 0;
    kern_tensor_fill(&p->tensors[LSE_LOW], low);
}

void kern_problem_forward(problem *p) {
    const kern_data data = data_of(p);
    kern_reference_forward(&p->shape, p->v->mod, &p->wanted, p->scale, &data);
    if (p->v->backward) fill_forward(p);
}

void kern_problem_make(problem *p) {
    const kern_shape *s = &p->shape;
    random_state = p->seed;
    p->scale = p->power ? (p->v->mod->score ? 0.125 : (double)0.11f) : 1 / sqrt(s->head_dim);
    if (p->layout == KERN_GAPS) p->scale *= p->power ? -1 : -1.1;
    kern_problem_tensor(p, QUERY, s->heads_q, s->q_len, s->head_dim, 1);
    kern_problem_tensor(p, KEY, s->heads_kv, s->kv_len, s->head_dim, 1);
    kern_problem_tensor(p, VALUE, s->heads_kv, s->kv_len, s->value_dim, 1);
    kern_problem_tensor(p, OUT, s->heads_q, s->q_len, s->value_dim, 0);
    kern_problem_tensor(p, LSE, s->heads_q, s->q_len, 1, 0);
    kern_problem_tensor(p, LSE_LOW, s->heads_q, s->q_len, 1, 0);
    kern_problem_tensor(p, MAX, s->heads_q, s->q_len, 1, 0);
    kern_problem_tensor(p, DOUT, s->heads_q, s->q_len, s->value_dim, 1);
    kern_problem_tensor(p, DLSE, s->heads_q, s->q_len, 1, 0.5);
    kern_problem_tensor(p, DQUERY, s->heads_q, s->q_len, s->head_dim, 0);
    kern_problem_tensor(p, DKEY, s->heads_kv, s->kv_len, s->head_dim, 0);
    kern_problem_tensor(p, DVALUE, s->heads_kv, s->kv_len, s->value_dim, 0);
    kern_problem_captures(p);
    kern_problem_forward(p);
    const kern_data data = data_of(p);
    if (p->v->backward) kern_reference_backward(s, p->v->mod, &p->wanted, p->scale, &data);
}

void kern_problem_free(problem *p) {
    for (int i = 0; i < TENSORS; i++) {
        kern_tensor_destroy(&p->tensors[i]);
        free(p->values[i]);
    }
    for (int i = 0; i < p->v->mod->capture_count; i++) {
        kern_tensor_destroy(&p->captures[i]);
        kern_tensor_destroy(&p->dcaptures[i]);
        free(p->wanted.values[i]);
        free(p->wanted.gradients[i]);
        free(p->wanted.sizes[i]);
    }
    kern_tensor_destroy(&p->dscalar);
}

kern_tensor *kern_problem_output(problem *p, int n) {
    const int first = p->v->backward ? DQUERY : OUT, count = p->v->backward ? 3 : 4;
    const int captures = p->v->backward ? p->v->mod->capture_count : 0;
    if (n < count) return &p->tensors[first + n];
    if (n - count < captures) return &p->dcaptures[n - count];
    return n - count == captures && p->v->backward ? &p->dscalar : NULL;
}

/* ---- Running ---------------------------------------------------------------------------------------- */

void kern_launch_open(struct launch *l, const problem *p, const struct fj_cpu_kernel *kernel, int workers) {
    const kern_tensor *t = p->tensors;
    *l = (struct launch){.scalar.f = p->wanted.scalar, .dscalar = p->dscalar.tensor};
    for (int i = 0; i < KERN_MAX_CAPTURES; i++)
        l->captures[i] = p->captures[i].tensor, l->dcaptures[i] = p->dcaptures[i].tensor;
    l->args = (struct fj_cpu_args){
        .query = t[QUERY].tensor,
        .key = t[KEY].tensor,
        .value = t[VALUE].tensor,
        .out = t[OUT].tensor,
        .lse = t[LSE].tensor,
        .lse_low = t[LSE_LOW].tensor,
        .max = t[MAX].tensor,
        .dout = t[DOUT].tensor,
        .dlse = t[DLSE].tensor,
        .dquery = t[DQUERY].tensor,
        .dkey = t[DKEY].tensor,
        .dvalue = t[DVALUE].tensor,
        .captures = l->captures,
        .dcaptures = l->dcaptures,
        .scalars = &l->scalar,
        .dscalars = &l->dscalar,
        .batch = p->shape.batch,
        .heads_q = p->shape.heads_q,
        .heads_kv = p->shape.heads_kv,
        .q_len = p->shape.q_len,
        .kv_len = p->shape.kv_len,
        .scale = p->scale,
        .workers = workers,
        .faults = l->faults,
    };
    /* Optional, and scores of these are small. */
    if (p->v->backward && p->layout == KERN_GAPS && p->power == 0 && !p->v->mod->scalar_is_score)
        l->args.lse_low.data = NULL;
    l->size = (kernel->workspace(&l->args) + 255) / 256 * 256;
    l->memory = aligned_alloc(256, l->size + 256);
    memset(l->memory, 0xff, l->size + 256);
    l->args.workspace = l->memory;
}

bool kern_launch_close(struct launch *l) {
    bool intact = true;
    for (int i = 0; i < 256; i++) intact &= l->memory[l->size + (size_t)i] == (char)0xff;
    free(l->memory);
    return intact;
}

void kern_launch_run(const struct fj_cpu_kernel *kernel, struct launch *l) {
    const int workers = l->args.workers;
    for (int phase = 0;; phase++) {
        int64_t items = kernel->items(&l->args, phase);
        if (items < 0) return;
        for (int64_t i = 0; i < items; i++) {
            int64_t item = workers == 1 ? i : items - 1 - i;
            kernel->run(&l->args, phase, item, (int)(item % workers));
        }
    }
}
