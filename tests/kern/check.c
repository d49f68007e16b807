/* What came out of a kernel against what should. Two bounds: of each element, from the roundings on the way to it; and
 * of the mean error, from the mean error of an unfused pass, as `flexjit run --check` has it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern/kern.h"

/* ---- Values -------------------------------------------------------------------------------------------- */

static double unit_in_last_place(fj_dtype dtype, double size) {
    const int digits = dtype == FJ_DTYPE_BF16 ? 7
                     : dtype == FJ_DTYPE_F16  ? 10
                     : dtype == FJ_DTYPE_F32  ? 23
                                              : 52;
    int exponent;
    (void)frexp(size, &exponent);
    return size > 0 ? ldexp(1, exponent - 1 - digits) : 0;
}

/* What the error of an unfused pass is multiplied with. */
static double factor_of(const call *c, int which) {
    const fj_dtype dtype = c->kernel->problem.dtype;
    const double base = which < DQUERY ? 1.1 : which == DQUERY ? 2.75 : 4.4;
    if (dtype == FJ_DTYPE_F64) return 10 * base * 0x1p-29; /* the pass is one in float32 */
    return dtype == FJ_DTYPE_F32 ? 10 * base : base;
}

static bool is_near(const call *c, int which, const char *name, const double *got, FILE *out) {
    const answer *a = &c->answers[which];
    const fj_dtype dtype = c->kernel->problem.dtype;
    const bool statistic = which == LSE || which == LOW || which == MAX;
    const bool wide = dtype == FJ_DTYPE_F32 || dtype == FJ_DTYPE_F64;
    double error = 0, unfused = 0, size = 0, most = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < a->count; i++) {
        if (!isfinite(a->exact[i]) || !isfinite(a->unfused[i])) continue;
        error += fabs(got[i] - a->exact[i]);
        unfused += fabs(a->unfused[i] - a->exact[i]);
        size += fabs(a->exact[i]);
        most += a->bound[i];
        count++;
    }
    if (count == 0 || c->kernel->problem.tf32) return true; /* no yardstick for TF32 */
    const fj_dtype units = statistic && dtype != FJ_DTYPE_F64 ? FJ_DTYPE_F32 : dtype;
    const double mean = error / (double)count;
    double bound =
        factor_of(c, which) * unfused / (double)count + 4 * unit_in_last_place(units, size / (double)count);
    if (wide || size == 0)
        bound +=
            most / (double)count / 32; /* about 4 units of what was added up, where that cancels to nothing */
    if (mean <= bound) return true;
    (void)fprintf(out, "    %s: mean error %.3g, bound %.3g (unfused %.3g)\n", name, mean, bound,
                  unfused / (double)count);
    return false;
}

static bool agrees(const call *c, int which, const char *name, const double *got, FILE *out) {
    const answer *a = &c->answers[which];
    for (int64_t i = 0; i < a->count; i++) {
        if (got[i] == a->exact[i] || fabs(got[i] - a->exact[i]) <= a->bound[i]) continue;
        if (isnan(a->exact[i]) && !isfinite(got[i])) continue; /* which of them is not promised */
        (void)fprintf(out, "    %s element %lld (of %lld) is %.9g, not %.9g; bound %.3g\n", name,
                      (long long)i, (long long)a->count, got[i], a->exact[i], a->bound[i]);
        return false;
    }
    return is_near(c, which, name, got, out);
}

/* ---- Tensors ---------------------------------------------------------------------------------------------- */

static bool is_untouched(const tensor *t) {
    for (size_t i = 0; i < t->memory.size; i++)
        if (t->memory.host[i] != 0xff) return false;
    return true;
}

/* The gradient of a capture lies column-major. */
static bool check_grad(const call *c, int index, FILE *out) {
    const grad *s = &c->grads[index];
    const fj_eval_tensor *t = index < MAX_CAPTURES ? &c->captures[index] : NULL;
    const bool wide = c->kernel->problem.dtype == FJ_DTYPE_F64;
    answer *a = (answer *)(uintptr_t)&c->answers[TENSORS + index];
    double *got = calloc((size_t)s->count + 1, sizeof(double)), square = 0;
    const double fine = wide ? 0x1p-28 : c->kernel->problem.tf32 ? 64 : 1;
    if (!got) abort();
    double touched = 1; /* elements that something is added to, about */
    for (int64_t i = 0; i < s->count; i++) touched += a->exact[i] != 0;
    for (int64_t i = 0; i < s->count; i++) square += a->exact[i] * a->exact[i] / touched;
    for (int64_t i = 0; i < s->count; i++) {
        int64_t place = 0, rest = i, stride[FJ_MAX_RANK] = {0}, next = 1;
        for (int d = 0; t && d < FJ_MAX_RANK && t->dims[d]; d++) stride[d] = next, next *= t->dims[d];
        for (int d = FJ_MAX_RANK - 1; t && d >= 0; d--)
            if (t->dims[d]) place += rest % t->dims[d] * stride[d], rest /= t->dims[d];
        const void *at = s->out.host;
        got[i] = wide ? ((const double *)at)[place] : (double)((const float *)at)[place];
        const double flips = 8 * sqrt(a->bound[i]); /* reference.c: squares of independent errors */
        a->bound[i] =
            flips + fine * (0x1p-12 * (fabs(a->exact[i]) + sqrt(square)) + 0x1p-16 * s->mass / touched);
    }
    const bool good = agrees(c, TENSORS + index,
                             t ? "the gradient of a capture:" : "the gradient of the scalar:", got, out);
    free(got);
    return good;
}

static bool check_grads(const call *c, FILE *out) {
    bool good = true;
    for (int i = 0; i < GRADS; i++) {
        if (c->grads[i].count == 0) continue;
        if ((c->shape->absent & ABSENT_CAPTURE_GRADS) == 0) {
            good &= check_grad(c, i, out);
            continue;
        }
        for (size_t n = 0; n < c->grads[i].out.size; n++) good &= c->grads[i].out.host[n] == 0xff;
        if (!good) (void)fprintf(out, "    a gradient that is not wanted was written\n");
    }
    return good;
}

bool check_answers(call *c, FILE *out) {
    bool good = true;
    for (int t = 0; t < TENSORS; t++) {
        tensor *x = &c->tensors[t];
        if (!x->values) continue;
        if (!call_writes(c, t)) {
            const bool output = kernel_is_backward(c->kernel) ? t >= DQUERY : t >= OUT;
            if (output && !is_untouched(x)) {
                (void)fprintf(out, "    %s is not wanted, and was written\n", tensor_names[t]);
                good = false;
            }
            continue;
        }
        if (!tensor_read(x)) {
            (void)fprintf(out, "    %s: written outside of its elements\n", tensor_names[t]);
            good = false;
        }
        if (t == LOW && !call_writes(c, LSE)) continue; /* what it belongs to was not asked for */
        for (int64_t i = 0; t == LOW && i < c->answers[t].count; i++)
            x->values[i] += c->tensors[LSE].values[i];
        good &= agrees(c, t, tensor_names[t], x->values, out);
    }
    return good & check_grads(c, out);
}

bool check_fault(const call *c, FILE *out) {
    struct fj_cuda_fault fault;
    memcpy(&fault, c->fault.host, sizeof fault);
    if ((fault.found != 0) == c->want_fault && (!fault.found || reference_faults(c, &fault))) return true;
    (void)fprintf(out, "    fault %u of %d at b=%d h=%d q=%d kv=%d; there is %s\n", fault.found, fault.where,
                  fault.b, fault.h, fault.q, fault.kv, c->want_fault ? "one" : "none");
    return false;
}

/* ---- Work ---------------------------------------------------------------------------------------------------- */

/* Tiles of `rows` rows of queries, of `group` heads, by `keys` keys, in which something is visible. */
static int64_t live_tiles(const call *c, int64_t group, int64_t rows, int64_t keys) {
    const shape *s = c->shape;
    const int64_t all = s->q_len * group;
    int64_t live = 0;
    for (int64_t column = 0; column < s->batch * s->heads_q / group; column++)
        for (int64_t first = 0; first < all; first += rows)
            for (int64_t key = 0; key < s->kv_len; key += keys) {
                bool any = false;
                for (int64_t row = first; row < first + rows && row < all && !any; row++) {
                    const bool *seen =
                        c->visible + ((column * group + row % group) * s->q_len + row / group) * s->kv_len;
                    for (int64_t kv = key; kv < key + keys && kv < s->kv_len; kv++) any |= seen[kv];
                }
                live += any;
            }
    return live;
}

/* Products of matrices that the visible tiles need. */
static int64_t needed_products(const call *c) {
    const kernel *k = c->kernel;
    const int64_t m = k->variant.tile_m, n = k->variant.tile_n, unit = m / 16 * n / 8;
    const int64_t e = k->variant.head_pad / 16, v = k->variant.value_pad / 16;
    const int64_t steps = k->problem.dtype != FJ_DTYPE_F32 ? 1 : k->problem.tf32 ? 2 : 6; /* half as deep */
    const int64_t whole = steps == 6 ? 8 : steps; /* dP has the fourth product too */
    if (kernel_is_backward(k))
        return live_tiles(c, 1, n, m) * unit * (steps * (2 * e + v) + whole * v) +
               (c->shape->absent & ABSENT_DQUERY && k->problem.gradient->scatters.len == 0
                    ? 0
                    : live_tiles(c, 1, m, n) * unit * (steps * 2 * e + whole * v));
    const int64_t group = kernel_packs(k) && c->shape->heads_kv ? c->shape->heads_q / c->shape->heads_kv : 1;
    return live_tiles(c, group, m, n) * unit * (e + v) * steps;
}

/* Empty tiles cost nothing where the analysis of the mask finds them; and no matrix load waits for a bank. */
bool check_counts(const call *c, const fj_emu_counts *counts, FILE *out) {
    const kernel *k = c->kernel;
    if (!k->variant.mma || (kernel_is_backward(k) && !k->problem.deterministic)) return true;
    const int64_t want = needed_products(c), got = (int64_t)counts->matrix_products;
    /* Of a tile's partial blocks the mask may hide all; packed rows are of some heads. */
    const bool undecided = k->problem.block_mask && (k->problem.ir->mask || kernel_packs(k));
    bool good = got == want || (got > want && (!k->mod->exact || k->table || undecided || c->shape->spoilt));
    if (!good)
        (void)fprintf(out, "    %lld products of matrices, %lld are needed\n", (long long)got,
                      (long long)want);
    if (counts->bank_conflicts > 0) {
        (void)fprintf(out, "    %d bank conflicts\n", (int)counts->bank_conflicts);
        good = false;
    }
    return good;
}
