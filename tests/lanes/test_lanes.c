/* The lanes of templates/cpu/prim.h against the value columns of expr/ir/ops.def, evaluated in double with
 * the C library: integers and bools exactly, floats within the bounds that prim_math.h states.
 *
 * Functions of one float see every 1021st of all floats, with FJ_EXHAUSTIVE=1 all of them; the others
 * see all pairs of a list of edges, and random pairs. `-v` prints the greatest error of each. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lanes/lanes.h"

#include "expr/ir/scalar_ops.h"

/* ---- The reference: ops.def in plain C --------------------------------------------------------- */

typedef bool ref_b;
typedef int32_t ref_i;
typedef int64_t ref_l;
typedef double ref_f;

#define NONE 0
#define TYPES_b     \
    typedef bool T; \
    typedef bool U; \
    enum { WIDTH = 1, ONES = 1 };
#define TYPES_i         \
    typedef int32_t T;  \
    typedef uint32_t U; \
    enum { WIDTH = 32, ONES = -1 };
#define TYPES_l         \
    typedef int64_t T;  \
    typedef uint64_t U; \
    enum { WIDTH = 64, ONES = -1 };
#define TYPES_f       \
    typedef double T; \
    typedef double U; \
    enum { WIDTH, ONES };
#define CHOOSE_b(INT, FLOAT) INT
#define CHOOSE_i(INT, FLOAT) INT
#define CHOOSE_l(INT, FLOAT) INT
#define CHOOSE_f(INT, FLOAT) FLOAT
#define FIRST_1(t) ref_##t
#define FIRST_2(t) ref_##t
#define FIRST_3(t) bool

/* Each reference is the same switch over letters, so that one RUN serves all rules: the texts are passed on. */
#define REF(name, arity, t, r, INT, FLOAT)                                      \
    static ref_##r ref_##name##_##t(FIRST_##arity(t) a, ref_##t b, ref_##t c) { \
        TYPES_##t(void) sizeof(T);                                              \
        (void)sizeof(U), (void)a, (void)b, (void)c, (void)WIDTH, (void)ONES;    \
        return (ref_##r)(CHOOSE_##t(INT, FLOAT));                               \
    }
#define REF_LEAF_BOOL(...)
#define REF_LEAF_I32(...)
#define REF_LEAF_I64(...)
#define REF_LEAF_FLOAT(...)
#define REF_SCALAR(...)
#define REF_LOAD(...)
#define REF_RANGE(...)
#define REF_LOOP(...)
#define REF_REDUCE_NUM(...)
#define REF_REDUCE_BOOL(...)
#define REF_REDUCE_ARG(...)
#define REF_EFFECT(...)
#define REF_NUM(n, k, I, F) REF(n, k, i, i, I, F) REF(n, k, l, l, I, F) REF(n, k, f, f, I, F)
#define REF_INT(n, k, I, F) REF(n, k, i, i, I, F) REF(n, k, l, l, I, F)
#define REF_FLOAT(n, k, I, F) REF(n, k, f, f, I, F)
#define REF_BITS(n, k, I, F) REF(n, k, b, b, I, F) REF(n, k, i, i, I, F) REF(n, k, l, l, I, F)
#define REF_COMPARE(n, k, I, F) REF(n, k, i, b, I, F) REF(n, k, l, b, I, F) REF(n, k, f, b, I, F)
#define REF_TEST(n, k, I, F) REF(n, k, f, b, I, F)
#define REF_WHERE(n, k, I, F) \
    REF(n, k, b, b, I, F) REF(n, k, i, i, I, F) REF(n, k, l, l, I, F) REF(n, k, f, f, I, F)
#define REF_CAST_BOOL(n, k, I, F) REF(n, k, i, b, I, F) REF(n, k, l, b, I, F) REF(n, k, f, b, I, F)
#define REF_CAST_I32(n, k, I, F) REF(n, k, b, i, I, F) REF(n, k, l, i, I, F) REF(n, k, f, i, I, F)
#define REF_CAST_I64(n, k, I, F) REF(n, k, b, l, I, F) REF(n, k, i, l, I, F) REF(n, k, f, l, I, F)
#define REF_CAST_FLOAT(n, k, I, F) REF(n, k, b, f, I, F) REF(n, k, i, f, I, F) REF(n, k, l, f, I, F)

#define OP(NAME, name, arity, RULE, INT, FLOAT, ...) REF_##RULE(name, arity, INT, FLOAT)
#include "expr/ir/ops.def"
REF(eq, 2, b, b, a == b, NONE)
REF(ne, 2, b, b, a != b, NONE)

/* One element through a reference, from and to arrays as prim_op.run has them, floats as double. */
typedef void (*ref_run)(const void *a, const void *b, const void *c, void *out, size_t i);
typedef struct ref_op {
    const char *name;
    char letter;
    ref_run run;
} ref_op;

#define AT(p, t) (((const ref_##t *)(p))[i])
#define REF_ARGS_1(t) AT(a, t), 0, 0
#define REF_ARGS_2(t) AT(a, t), AT(b, t), 0
#define REF_ARGS_3(t) AT(a, b), AT(b, t), AT(c, t)
#define RUN(name, arity, t, r)                                                                        \
    static void each_##name##_##t(const void *a, const void *b, const void *c, void *out, size_t i) { \
        (void)b, (void)c;                                                                             \
        ((ref_##r *)out)[i] = ref_##name##_##t(REF_ARGS_##arity(t));                                  \
    }
#define OP(NAME, name, arity, RULE, ...) PRIM_##RULE(name, arity)
#include "expr/ir/ops.def"
RUN(eq, 2, b, b)
RUN(ne, 2, b, b)
#undef RUN
#define RUN(name, arity, t, r) {#name, #t[0], each_##name##_##t},
static const ref_op refs[] = {
#define OP(NAME, name, arity, RULE, ...) PRIM_##RULE(name, arity)
#include "expr/ir/ops.def"
    RUN(eq, 2, b, b) RUN(ne, 2, b, b)};

/* ---- Bounds ------------------------------------------------------------------------------------- */

/* Those of prim_math.h, in ulp; 0: equal (the reference rounded once). */
static const struct {
    const char *name;
    double single, twice;
} bounds[] = {
    {"exp", 1.0, 1.0},     {"exp2", 1.5, 1.0},  {"log", 1.0, 1.0},       {"log2", 1.5, 1.0},
    {"log1p", 2.0, 1.0},   {"expm1", 2.0, 1.0}, {"tanh", 2.5, 3.0},      {"tanh_approx", 2.5, 3.0},
    {"sigmoid", 2.5, 3.0}, {"erf", 1.5, 1.5},   {"rsqrt", 1.5, 1.5},     {"sin", 0.51, 1.0},
    {"cos", 0.51, 1.0},    {"tan", 0.51, 1.0},  {"pow", 0.51, 1.0},      {"asin", 0.51, 1.0},
    {"acos", 0.51, 1.0},   {"atan", 0.51, 1.0}, {"atan2", 0.51, 1.0},    {"sinh", 0.51, 2.0},
    {"cosh", 0.51, 2.0},   {"erfc", 0.51, 2.0}, {"floordiv", 0.51, 0.0}, {"floormod", 0.51, 0.0},
};

static double bound_of(const char *name, int real_size) {
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
        if (!strcmp(bounds[i].name, name)) return real_size == 8 ? bounds[i].twice : bounds[i].single;
    return 0;
}

/* The distance of a float from an exact value, in units of the last place of that value. */
static double ulps_f32(float got, double want) {
    float nearest = (float)want;
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : HUGE_VAL;
    if (got == nearest) return signbit(got) == signbit(nearest) || want != 0 ? 0 : HUGE_VAL;
    if (isinf(got)) return fabs(want) > 0x1.fffffefp127 && signbit(got) == signbit(nearest) ? 0.5 : HUGE_VAL;
    int exponent;
    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
}

static double ulps_f64(double got, double want) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : HUGE_VAL;
    if (got == want) return signbit(got) == signbit(want) ? 0 : HUGE_VAL;
    if (isinf(got) || isinf(want)) return HUGE_VAL;
    int exponent;
    frexp(want, &exponent);
    return fabs(got - want) / ldexp(1.0, exponent < -1021 ? -1074 : exponent - 53);
}

/* ---- Arguments ---------------------------------------------------------------------------------- */

static const double float_edges[] = {0.0,
                                     -0.0,
                                     HUGE_VAL,
                                     -HUGE_VAL,
                                     (double)NAN,
                                     1,
                                     -1,
                                     2,
                                     -2,
                                     0.5,
                                     -0.5,
                                     1.5,
                                     -1.5,
                                     2.5,
                                     -2.5,
                                     3,
                                     -3,
                                     7,
                                     -7,
                                     0.3,
                                     -0.3,
                                     10,
                                     20,
                                     88.5,
                                     89,
                                     -87,
                                     -104,
                                     127.5,
                                     128,
                                     -126,
                                     -149,
                                     -150,
                                     0x1p-149,
                                     -0x1p-149,
                                     0x1p-126,
                                     0x1.fffffep127,
                                     -0x1.fffffep127,
                                     0x1p23,
                                     0x1.000002p23,
                                     0x1p24,
                                     0x1p31,
                                     -0x1p31,
                                     0x1.fffffep30,
                                     0x1p52,
                                     0x1p63,
                                     -0x1p63,
                                     0x1.fffffep62,
                                     1e10,
                                     -1e10,
                                     1e20,
                                     3e-5,
                                     100.25,
                                     -100.75,
                                     5.5,
                                     1.0000001192092896,
                                     0.99999994039535522};
static const int64_t int_edges[] = {0,
                                    1,
                                    -1,
                                    2,
                                    -2,
                                    3,
                                    -3,
                                    7,
                                    -7,
                                    10,
                                    31,
                                    32,
                                    33,
                                    63,
                                    64,
                                    65,
                                    -31,
                                    100,
                                    -100,
                                    1000003,
                                    INT32_MAX,
                                    INT32_MIN,
                                    INT32_MAX - 1,
                                    INT32_MIN + 1,
                                    46341,
                                    65536};
static const int64_t long_edges[] = {INT64_MAX,    INT64_MIN, INT64_MIN + 1, 1LL << 40,
                                     -(1LL << 40), 1LL << 62, 4294967296};

static uint64_t random_state = 20260101;
static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PAIRS ((size_t)1 << 16)

/* Element i of a pair list: the edges against each other, then random ones. Floats are float32 values. */
static double pick_f(size_t k, bool edge) {
    if (edge) return float_edges[k % COUNT(float_edges)];
    uint32_t bits = (uint32_t)random_next();
    float x;
    if (bits & 1)
        return ldexp((double)(int32_t)(bits & ~1u), -24 - (int)(random_next() % 10)); /* of usual size */
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}
static int64_t pick_l(size_t k, bool edge, bool wide) {
    size_t n = COUNT(int_edges), all = wide ? n + COUNT(long_edges) : n;
    if (edge) return k % all < n ? int_edges[k % all] : long_edges[k % all - n];
    int shift = (int)(random_next() % (wide ? 64 : 32)) + (wide ? 0 : 32);
    return (int64_t)random_next() >> shift;
}

typedef struct pairs {
    double f[3][PAIRS];
    float s[3][PAIRS];
    int32_t i[3][PAIRS];
    int64_t l[3][PAIRS];
    uint8_t b[3][PAIRS];
} pairs;

static void fill_pairs(pairs *p) {
    for (size_t k = 0; k < PAIRS; k++) {
        for (int arg = 0; arg < 3; arg++) {
            bool edge = k < PAIRS / 4;
            size_t at = arg == 0 ? k : arg == 1 ? k / COUNT(float_edges) : random_next();
            p->s[arg][k] = (float)pick_f(at, edge);
            p->f[arg][k] = (double)p->s[arg][k];
            p->i[arg][k] = (int32_t)pick_l(arg == 1 ? k / COUNT(int_edges) : at, edge, false);
            p->l[arg][k] = pick_l(arg == 1 ? k / (COUNT(int_edges) + COUNT(long_edges)) : at, edge, true);
            p->b[arg][k] = random_next() & 1;
        }
    }
}

static const void *column(const pairs *p, int arg, char letter, int real_size) {
    switch (letter) {
    case 'b': return p->b[arg];
    case 'i': return p->i[arg];
    case 'l': return p->l[arg];
    default: return real_size == 4 ? (const void *)p->s[arg] : (const void *)p->f[arg];
    }
}

/* ---- Comparisons -------------------------------------------------------------------------------- */

static int failures;
static bool verbose;

static void report(const prim_set *set, const prim_op *op, double worst, double bound, const char *where) {
    bool fails = !(worst <= bound);
    if (fails) failures++;
    if (fails || (verbose && bound > 0))
        printf("%s %-13s fj_%s_%c: %.4g ulp, bound %.4g%s%s\n", fails ? "FAIL" : "ok  ", set->name, op->name,
               op->letter, worst, bound, fails ? ", at " : "", fails ? where : "");
}

static ref_run find_ref(const prim_op *op) {
    for (size_t i = 0; i < COUNT(refs); i++)
        if (refs[i].letter == op->letter && !strcmp(refs[i].name, op->name)) return refs[i].run;
    abort();
}

/* Results at k: 0 when equal, else how wrong. */
static double compare(char result, int real_size, const void *got, const void *want, size_t k) {
    switch (result) {
    case 'b': return ((const uint8_t *)got)[k] != ((const uint8_t *)want)[k] ? HUGE_VAL : 0;
    case 'i': return ((const int32_t *)got)[k] != ((const int32_t *)want)[k] ? HUGE_VAL : 0;
    case 'l': return ((const int64_t *)got)[k] != ((const int64_t *)want)[k] ? HUGE_VAL : 0;
    }
    double exact = ((const double *)want)[k];
    return real_size == 8 ? ulps_f64(((const double *)got)[k], exact)
                          : ulps_f32(((const float *)got)[k], exact);
}

static void check_pairs(const prim_set *set, const prim_op *op, const pairs *p, void *got, void *want) {
    ref_run ref = find_ref(op);
    double worst = 0;
    char where[160] = "", first = op->arity == 3 ? 'b' : op->letter;
    op->run(column(p, 0, first, set->real_size), column(p, 1, op->letter, set->real_size),
            column(p, 2, op->letter, set->real_size), got, PAIRS);
    for (size_t k = 0; k < PAIRS; k++) {
        ref(column(p, 0, first, 8), column(p, 1, op->letter, 8), column(p, 2, op->letter, 8), want, k);
        double error = compare(op->result, set->real_size, got, want, k);
        if (!strcmp(op->name, "sign")) /* a zero of either sign */
            error = fabs(((const double *)want)[k]) == 0 && op->letter == 'f' ? 0 : error;
        if (!(error > worst)) continue;
        worst = error;
        if (op->letter == 'f')
            snprintf(where, sizeof where, "%a, %a; want %a", p->f[0][k], p->f[1][k],
                     op->result == 'f' ? ((const double *)want)[k] : 0);
        else
            snprintf(where, sizeof where, "element %zu", k);
    }
    report(set, op, worst, op->result == 'f' ? bound_of(op->name, set->real_size) : 0, where);
}

/* ---- Functions of one float --------------------------------------------------------------------- */

#define CHUNK ((size_t)1 << 16)

static double double_reference(const char *name, double x, bool *known) {
    *known = true;
    if (!strcmp(name, "exp")) return (double)expl((long double)x);
    if (!strcmp(name, "exp2")) return (double)exp2l((long double)x);
    *known = false;
    return 0;
}

static void sweep_op(const prim_set *const *sets, int set_count, const prim_op *first, uint64_t step) {
    static float in[CHUNK], got[CHUNK];
    static double want[CHUNK], wide[CHUNK];
    double worst[8] = {0};
    char where[8][160];
    ref_run ref = find_ref(first);
    for (uint64_t at = 0; at < (uint64_t)1 << 32; at += step * CHUNK) {
        for (size_t k = 0; k < CHUNK; k++) {
            uint32_t bits = (uint32_t)(at + step * k);
            memcpy(&in[k], &bits, sizeof bits);
            wide[k] = (double)in[k];
            ref(wide, NULL, NULL, want, k);
        }
        for (int s = 0; s < set_count; s++) {
            const prim_op *op = &sets[s]->ops[first - sets[0]->ops];
            op->run(in, NULL, NULL, got, CHUNK);
            for (size_t k = 0; k < CHUNK; k++) {
                double error = ulps_f32(got[k], want[k]);
                if (!(error > worst[s])) continue;
                worst[s] = error;
                snprintf(where[s], sizeof where[s], "%a: got %a, want %a", wide[k], (double)got[k], want[k]);
            }
        }
    }
    for (int s = 0; s < set_count; s++) report(sets[s], first, worst[s], bound_of(first->name, 4), where[s]);
}

/* exp and exp2 in double against long double, on a grid and around it. */
static void check_double(const prim_set *set, const prim_op *op) {
    static double in[CHUNK], got[CHUNK];
    double worst = 0;
    char where[160] = "";
    bool known = true;
    double_reference(op->name, 0, &known);
    if (!known) return;
    double half = !strcmp(op->name, "exp") ? 760 : 1090;
    for (size_t k = 0; k < CHUNK; k++) in[k] = half * ((double)(int64_t)random_next() * 0x1p-63);
    op->run(in, NULL, NULL, got, CHUNK);
    for (size_t k = 0; k < CHUNK; k++) {
        double want = double_reference(op->name, in[k], &known), error = ulps_f64(got[k], want);
        if (!(error > worst)) continue;
        worst = error;
        snprintf(where, sizeof where, "%a: got %a, want %a", in[k], got[k], want);
    }
    report(set, op, worst + 0.5, 1.5, where); /* the reference is rounded */
}

int main(int argc, char **argv) {
    verbose = argc > 1 && !strcmp(argv[1], "-v");
    const char *exhaustive = getenv("FJ_EXHAUSTIVE");
    const prim_set *single[3], *twice[3];
    int count = 0;
    single[count] = &prim_set_portable_f32, twice[count++] = &prim_set_portable_f64;
#if defined __x86_64__ && !defined PRIM_PORTABLE_ONLY
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        single[count] = &prim_set_avx2_f32, twice[count++] = &prim_set_avx2_f64;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        single[count] = &prim_set_avx512_f32, twice[count++] = &prim_set_avx512_f64;
#endif
    static pairs p;
    static int64_t got[PAIRS], want[PAIRS];
    fill_pairs(&p);
    for (int s = 0; s < 2 * count; s++) {
        const prim_set *set = s < count ? single[s] : twice[s - count];
        failures += prim_check_tile(set);
        for (int i = 0; i < set->count; i++) {
            check_pairs(set, &set->ops[i], &p, got, want);
            if (set->real_size == 8) check_double(set, &set->ops[i]);
        }
    }
    uint64_t step = exhaustive && !strcmp(exhaustive, "1") ? 1 : 1021;
    for (int i = 0; i < single[0]->count; i++) {
        const prim_op *op = &single[0]->ops[i];
        if (op->arity == 1 && op->letter == 'f' && op->result == 'f') sweep_op(single, count, op, step);
    }
    printf("lanes: %d operations in %d instruction sets, %d failures\n", single[0]->count, count, failures);
    return failures != 0;
}
