/* NaN and infinities at places that do not see each other: one element of an input of a backward kernel is not finite,
 * and what does not see it has the bits that it has with 0 there (templates/cuda/bwd_care.h).
 *
 * A row of queries is touched where the element is its own, or of a key that it sees, unless all its scores are -inf. Then
 * its out and lse are NaN, as forward would have left them. Tainted, and free to be anything, are dquery of touched rows,
 * and dkey and dvalue of what they see; but dvalue by value not at all, where no mod of the output reads what became of it, and
 * by dout in its column alone, where it has to be. What dropout takes from a row reaches no dvalue. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern.h"

typedef struct poison {
    int which; /* the tensor */
    int64_t head, row, column;
    double value;
} poison;

/* One that the seed and the kernel's name choose. */
static poison choose(const call *c, generator *random) {
    static const int inputs[] = {DOUT, QUERY, KEY, VALUE, DOUT};
    static const double values[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    poison p = {.which = inputs[random_below(random, FJ_ARRAY_LEN(inputs))]};
    const int64_t *dims = c->tensors[p.which].dims;
    p.head = random_below(random, (int)dims[1]);
    p.row = random_below(random, (int)dims[2]);
    p.column = random_below(random, (int)dims[3]);
    p.value = values[random_below(random, FJ_ARRAY_LEN(values))];
    return p;
}

static bool is_of_keys(int which) {
    return which == KEY || which == VALUE || which == DKEY || which == DVALUE;
}

static bool sees(const call *c, int64_t row, int64_t kv) { return c->visible[row * c->shape->kv_len + kv]; }

static bool sees_any(const call *c, int64_t row) {
    for (int64_t kv = 0; kv < c->shape->kv_len; kv++)
        if (sees(c, row, kv)) return true;
    return false;
}

/* Whether dropout leaves what it sees there. */
static bool keeps(const call *c, int64_t row, int64_t kv) {
    const shape *s = c->shape;
    const int64_t head = row / s->q_len;
    return call_keeps(c, head / s->heads_q, head % s->heads_q, row % s->q_len, kv);
}

/* row: of [B,Hq,L] */
static bool is_touched(const call *c, const poison *p, int64_t row) {
    const shape *s = c->shape;
    const int64_t head = row / s->q_len % s->heads_q;
    if (c->answers[LSE].exact[row] == -(double)INFINITY || !sees_any(c, row)) return false;
    if (!is_of_keys(p->which)) return head == p->head && row % s->q_len == p->row;
    return head / (s->heads_q / s->heads_kv) == p->head && sees(c, row, p->row) &&
           (p->which != VALUE || keeps(c, row, p->row));
}

/* The same in all batches: they may be one. */
static void put(call *c, const poison *p, double value) {
    tensor *t = &c->tensors[p->which];
    for (int64_t b = 0; b < t->dims[0]; b++)
        t->values[((b * t->dims[1] + p->head) * t->dims[2] + p->row) * t->dims[3] + p->column] = value;
    tensor_store(t);
    tensor *out = &c->tensors[call_output(c)], *lse = &c->tensors[LSE];
    for (int64_t row = 0; row < tensor_count(lse) && value != 0; row++) {
        if (!is_touched(c, p, row)) continue;
        if (p->which == QUERY || p->which == KEY) lse->values[row] = (double)NAN;
        for (int64_t i = 0; i < out->dims[3] && p->which != DOUT; i++)
            out->values[row * out->dims[3] + i] = (double)NAN;
    }
    tensor_store(out);
    tensor_store(lse);
}

/* Whether some touched row sees the key of a row of [B,Hkv,S]; its value too: and keeps it. */
static bool is_seen(const call *c, const poison *p, int64_t key, bool value) {
    const shape *s = c->shape;
    const int64_t group = s->heads_q / s->heads_kv, first = key / s->kv_len * group * s->q_len;
    for (int64_t row = first; row < first + group * s->q_len; row++)
        if (is_touched(c, p, row) && sees(c, row, key % s->kv_len) &&
            (!value || keeps(c, row, key % s->kv_len)))
            return true;
    return false;
}

static bool is_same(double a, double b) { return a == b && signbit(a) == signbit(b); }

/* zero: the values with 0. */
static bool check_output(const call *c, const poison *p, int which, const double *zero, FILE *out) {
    const tensor *t = &c->tensors[which];
    const bool summed = which == DQUERY && c->kernel->variant.mma && !c->kernel->problem.deterministic;
    for (int64_t row = 0; row < tensor_count(t) / t->dims[3]; row++) {
        const bool reached = is_of_keys(which) ? is_seen(c, p, row, which == DVALUE) : is_touched(c, p, row);
        for (int64_t i = 0; i < t->dims[3]; i++) {
            const double got = t->values[row * t->dims[3] + i], want = zero[row * t->dims[3] + i];
            const bool marked = p->which == DOUT && which == DVALUE && i == p->column && reached;
            const bool by_row =
                p->which == QUERY || p->which == KEY || (p->which == VALUE && c->kernel->problem.out);
            const bool tainted = reached && (which != DVALUE || by_row);
            const bool free = tainted || (summed && isfinite(got));
            if (marked ? !isfinite(got) : free || is_same(got, want)) continue;
            (void)fprintf(out,
                          "    %s row %d column %d is %g, with 0 in place of %g in %s (head %d, row %d) %g\n",
                          tensor_names[which], (int)row, (int)i, got, p->value, tensor_names[p->which],
                          (int)p->head, (int)p->row, want);
            return false;
        }
    }
    return true;
}

bool poison_check(call *c, const object *o, const mode *m, FILE *out) {
    static const int outputs[] = {DQUERY, DKEY, DVALUE};
    const shape *s = c->shape;
    generator random = random_of((uint64_t)s->q_len, c->kernel->name);
    double *zero[FJ_ARRAY_LEN(outputs)] = {0};
    bool good = true;
    if (!kernel_is_backward(c->kernel) || s->batch * s->heads_q * s->q_len * s->kv_len == 0) return true;
    const poison p = choose(c, &random);
    for (int turn = 0; turn < 2 && good; turn++) {
        put(c, &p, turn ? p.value : 0);
        good = call_run(c, o, m, NULL, out);
        for (size_t i = 0; i < FJ_ARRAY_LEN(outputs) && good; i++) {
            tensor *t = &c->tensors[outputs[i]];
            if (!call_writes(c, outputs[i])) continue;
            good = tensor_read(t);
            if (turn) good = good && check_output(c, &p, outputs[i], zero[i], out);
            const size_t size = (size_t)tensor_count(t) * sizeof(double);
            if (!turn && (zero[i] = malloc(size + 1)) != NULL) memcpy(zero[i], t->values, size);
        }
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(outputs); i++) free(zero[i]);
    return good;
}
