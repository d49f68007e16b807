/* The interval rules one by one: random intervals of arguments, and every sampled value lies inside of the result
 * (sound); over few values, which are all tried, the result is what they span and no more (tight).
 *
 * Floats are computed in double, and rounded to float32 where the arguments are numbers of it; functions also a few ulp
 * beside. It is compiled twice: with the rules as the library has them, and as NVRTC has them. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

#ifdef INTERVAL_NVRTC
#define __CUDACC_RTC__ 1 /* NOLINT(bugprone-reserved-identifier): NVRTC's own */
#endif
#include "expr/ir/interval_table.inc"

enum { ARGUMENTS = 3, SAMPLES = 12, FEW = 5, ULPS = 4 };

typedef union value {
    bool b;
    int32_t i;
    int64_t l;
    double f;
} value;

typedef fj_iv_value interval;

/* ---- The rules of ops.def ------------------------------------------------------------------------------ */

/* One op at one type of its arguments; of where that of the second and third. */
typedef struct rule {
    fj_op op;
    fj_type type, result;
    int arity;
} rule;

static interval apply(const rule *r, const interval *v) {
    double (*const increasing)(double) = fj_iv_increasing_table[r->op];
    if (increasing != NULL) return (interval){.f = fj_iv_increasing(v[0].f, increasing)};
    return fj_iv_table[r->op][r->type]((const interval *const[]){&v[0], &v[1], &v[2]});
}

/* The table is the library's own: that it has what ops.def says is read here once more. */
static const bool has_rule[FJ_OP_COUNT] = {
#define HAS_IV true
#define HAS_TOP false
#define HAS_INC(f) true
#define OP(NAME, name, arity, RULE, INT, FLOAT, CUDA, COST, D, INTERVAL, DOC) [FJ_OP_##NAME] = HAS_##INTERVAL,
#include "expr/ir/ops.def"
};

static fj_type type_of(const rule *r, int argument) {
    return r->op == FJ_OP_WHERE && argument == 0 ? FJ_TYPE_BOOL : r->type;
}

static void for_each_rule(void (*visit)(const rule *, fj_random *), fj_random *random) {
    for (fj_op op = (fj_op)1; op < FJ_OP_COUNT; op = (fj_op)(op + 1)) {
        bool any = false;
        for (fj_type type = FJ_TYPE_BOOL; type <= FJ_TYPE_FLOAT; type = (fj_type)(type + 1)) {
            const rule r = {op, type, (fj_type)fj_op_result(op, (int)type), fj_op_table[op].arity};
            if (fj_iv_table[op][type] == NULL &&
                (fj_iv_increasing_table[op] == NULL || type != FJ_TYPE_FLOAT))
                continue;
            any = true;
            visit(&r, random);
        }
        ck_assert_msg(any == has_rule[op], "%s", fj_op_table[op].name);
    }
}

/* ---- Values ---------------------------------------------------------------------------------------------- */

static bool contains(fj_type type, const interval *v, const value *x) {
    switch (type) {
    case FJ_TYPE_BOOL: return x->b ? v->b.t : v->b.f;
    case FJ_TYPE_I32: return v->i.lo <= x->i && x->i <= v->i.hi;
    case FJ_TYPE_I64: return v->i.lo <= x->l && x->l <= v->i.hi;
    default: return isnan(x->f) ? v->f.nan != 0 : v->f.lo <= x->f && x->f <= v->f.hi;
    }
}

static value compute(const rule *r, const value *x) {
    value to = {0};
    fj_op_lanes_table[r->op][r->type](&to, &x[0], &x[1], &x[2], 1);
    return to;
}

static void put_interval(fj_buf *out, fj_type type, const interval *v) {
    if (type == FJ_TYPE_FLOAT)
        fj_buf_printf(out, " [%a, %a]%s", v->f.lo, v->f.hi, v->f.nan ? " or NaN" : "");
    else if (type == FJ_TYPE_BOOL)
        fj_buf_printf(out, " {%s%s}", v->b.f ? " false" : "", v->b.t ? " true" : "");
    else
        fj_buf_printf(out, " [%lld, %lld]", (long long)v->i.lo, (long long)v->i.hi);
}

static void put_value(fj_buf *out, fj_type type, const value *x) {
    if (type == FJ_TYPE_FLOAT)
        fj_buf_printf(out, " %a", x->f);
    else
        fj_buf_printf(out, " %lld",
                      type == FJ_TYPE_BOOL  ? (long long)x->b
                      : type == FJ_TYPE_I32 ? (long long)x->i
                                            : (long long)x->l);
}

static void wrong(const rule *r, const interval *v, const value *x, const interval *whole, const char *how,
                  const value *got) {
    fj_buf out;
    fj_buf_init(&out, &fj_allocator_libc);
    for (int i = 0; i < r->arity; i++) put_interval(&out, type_of(r, i), &v[i]);
    fj_buf_put(&out, " gives");
    put_interval(&out, r->result, whole);
    fj_buf_printf(&out, ", %s", how);
    put_value(&out, r->result, got);
    for (int i = 0; x != NULL && i < r->arity; i++) {
        fj_buf_put(&out, i > 0 ? "," : " of");
        put_value(&out, type_of(r, i), &x[i]);
    }
    FJ_HOLD(false, "%s.%c of%s", fj_op_table[r->op].name, fj_type_letters[r->type], out.data);
}

/* ---- Drawing ------------------------------------------------------------------------------------------------ */

static uint64_t bits(fj_random *random) {
    return ((uint64_t)fj_random_below(random, UINT32_C(1) << 31) << 33) ^
           ((uint64_t)fj_random_below(random, UINT32_C(1) << 31) << 11) ^ fj_random_below(random, 1 << 11);
}

/* Small, an edge of the type, near a power of two, or anything. */
static int64_t draw_int(fj_random *random, int64_t least, int64_t most) {
    const int64_t near = (int64_t)fj_random_below(random, 5) - 2;
    int64_t x = (int64_t)fj_random_below(random, 41) - 20;
    switch (fj_random_below(random, 8)) {
    case 0: return least + llabs(near);
    case 1: return most - llabs(near);
    case 2:
    case 3: x = (int64_t)((UINT64_C(1) << fj_random_below(random, 62))) * (near < 0 ? -1 : 1) + near; break;
    case 4: x = (int64_t)bits(random); break;
    default: break;
    }
    return x < least || x > most ? x % 1000 : x;
}

/* What float32 holds, what it does not, and what is beyond it. */
static double draw_real(fj_random *random) {
    static const double edges[] = {
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.0,
        0.1,
        -0.3,
        1.0 / 3,
        1e-40,
        -1e-45,
        1e-300,
        0x1p-126,
        3.4e38,
        0x1.fffffep127,
        -0x1.fffffep127,
        1e39,
        -1e39,
        2147483647.0,
        -2147483648.0,
        0x1p63,
        16777217.0,
    };
    const uint32_t kind = fj_random_below(random, 10);
    if (kind == 0) return fj_random_below(random, 2) ? (double)INFINITY : -(double)INFINITY;
    if (kind <= 3) return edges[fj_random_below(random, FJ_ARRAY_LEN(edges))];
    if (kind <= 6) return (double)((int64_t)fj_random_below(random, 33) - 16) / 4;
    const double x = fj_random_real(random, -1, 1) * pow(2, fj_random_real(random, -20, 40));
    return kind == 7 ? (double)(float)x : x;
}

static interval draw_interval(fj_random *random, fj_type type) {
    const bool single = fj_random_below(random, 4) == 0, close = fj_random_below(random, 2) != 0;
    if (type == FJ_TYPE_BOOL) {
        const int either = (int)fj_random_below(random, 3);
        return (interval){.b = {either != 0, either != 1}};
    }
    if (type == FJ_TYPE_FLOAT) {
        const double a = draw_real(random), b = single ? a
                                              : close  ? a + fabs(a) * 0x1p-22
                                                       : draw_real(random);
        return (interval){.f = {fmin(a, b), fmax(a, b), fj_random_below(random, 4) == 0}};
    }
    const int64_t least = type == FJ_TYPE_I32 ? INT32_MIN : INT64_MIN,
                  most = type == FJ_TYPE_I32 ? INT32_MAX : INT64_MAX;
    const int64_t a = draw_int(random, least, most), room = a > 0 ? most - a : most;
    const int64_t width = (int64_t)fj_random_below(random, 20);
    const int64_t b = single ? a : close ? a + (width < room ? width : room) : draw_int(random, least, most);
    return (interval){.i = {a < b ? a : b, a < b ? b : a}};
}

/* The ends first, then what is near them, special, or anywhere inside. */
static value draw_value(fj_random *random, fj_type type, const interval *v, int number) {
    static const int64_t specials[] = {0, -1, 1, 2, -2, 31, 32, 63, 64, INT32_MAX, INT32_MIN};
    value x;
    if (type == FJ_TYPE_BOOL)
        return (value){.b = v->b.f && v->b.t ? fj_random_below(random, 2) != 0 : v->b.t != 0};
    if (type == FJ_TYPE_FLOAT) {
        const double part = fj_random_real(random, 0, 1);
        if (v->f.nan && fj_random_below(random, 6) == 0) return (value){.f = (double)NAN};
        if (number < 2 && fj_random_below(random, 4) != 0) return (value){.f = number ? v->f.hi : v->f.lo};
        x.f = fj_random_below(random, 4) == 0 ? draw_real(random) : v->f.lo * (1 - part) + v->f.hi * part;
        return x.f >= v->f.lo && x.f <= v->f.hi
                 ? x
                 : (value){.f = fj_random_below(random, 2) ? v->f.hi : v->f.lo};
    }
    const uint64_t width = (uint64_t)v->i.hi - (uint64_t)v->i.lo;
    const uint64_t near =
        width < 3 ? fj_random_below(random, (uint32_t)width + 1) : fj_random_below(random, 3);
    int64_t at = specials[fj_random_below(random, FJ_ARRAY_LEN(specials))];
    if (at < v->i.lo || at > v->i.hi || fj_random_below(random, 2))
        at = (int64_t)((uint64_t)v->i.lo + (width == UINT64_MAX ? bits(random) : bits(random) % (width + 1)));
    if (number % 4 == 0) at = (int64_t)((uint64_t)v->i.lo + near);
    if (number % 4 == 1) at = (int64_t)((uint64_t)v->i.hi - near);
    return type == FJ_TYPE_I32 ? (value){.i = (int32_t)at} : (value){.l = at};
}

/* ---- Sound ---------------------------------------------------------------------------------------------------- */

static void hold(const rule *r, const interval *v, const value *x, const interval *whole, const value *got) {
    if (!contains(r->result, whole, got)) wrong(r, v, x, whole, "without", got);
}

/* As hooks in float32 compute it: their arguments are numbers of float32. */
static void hold_in_f32(const rule *r, const interval *v, const value *x, const interval *whole) {
    value near[ARGUMENTS], got;
    for (int i = 0; i < r->arity; i++) {
        near[i] = x[i];
        if (type_of(r, i) == FJ_TYPE_FLOAT) near[i].f = (double)(float)x[i].f;
        if (!contains(type_of(r, i), &v[i], &near[i])) return;
    }
    got = compute(r, near);
    const float rounded = r->result == FJ_TYPE_FLOAT ? (float)got.f : 0;
    if (r->result == FJ_TYPE_FLOAT) got.f = (double)rounded;
    hold(r, v, near, whole, &got);
    if (fj_iv_increasing_table[r->op] == NULL || !isfinite(rounded)) return;
    float low = rounded, high = rounded;
    for (int i = 0; i < ULPS; i++) {
        low = nextafterf(low, -INFINITY);
        high = nextafterf(high, INFINITY);
        hold(r, v, near, whole, &(value){.f = (double)low});
        hold(r, v, near, whole, &(value){.f = (double)high});
    }
}

static void check_sound(const rule *r, fj_random *random) {
    interval v[ARGUMENTS] = {{{0, 0}}};
    for (int i = 0; i < r->arity; i++) v[i] = draw_interval(random, type_of(r, i));
    const interval whole = apply(r, v);
    for (int s = 0; s < SAMPLES; s++) {
        value x[ARGUMENTS] = {{0}};
        for (int i = 0; i < r->arity; i++) {
            const int number = s < 4 ? s >> i & 1 : (int)fj_random_below(random, SAMPLES);
            x[i] = draw_value(random, type_of(r, i), &v[i], number);
        }
        const value got = compute(r, x);
        hold(r, v, x, &whole, &got);
        hold_in_f32(r, v, x, &whole);
    }
}

static void sound_property(fj_arena *arena, fj_random *random, int number) {
    (void)arena, (void)number;
    for_each_rule(check_sound, random);
}

START_TEST(rules_are_sound) { fj_check_property("sound rules", fj_test_count(3000), sound_property); }
END_TEST

/* ---- Tight ---------------------------------------------------------------------------------------------------- */

/* Whether the rule knows the least interval for these arguments: of whole numbers, no NaN, nothing overflows. */
static bool is_tight(const rule *r, const interval *v) {
    const bool one = v[1].i.lo == v[1].i.hi;
    switch (r->op) {
    case FJ_OP_DIV: return false; /* of floats: of what is no number of float32 */
    case FJ_OP_FLOORDIV: return r->type != FJ_TYPE_FLOAT && v[1].i.lo > 0;
    case FJ_OP_FLOORMOD: return r->type != FJ_TYPE_FLOAT && one && v[1].i.lo > 0;
    case FJ_OP_FMOD: return r->type != FJ_TYPE_FLOAT && one && v[1].i.lo > 0 && v[0].i.lo >= 0;
    case FJ_OP_AND: return r->type == FJ_TYPE_BOOL || (one && (v[1].i.lo == 1 || v[1].i.lo == 3));
    case FJ_OP_OR:
    case FJ_OP_XOR: return r->type == FJ_TYPE_BOOL || (one && v[0].i.lo == v[0].i.hi);
    case FJ_OP_SHR: return v[1].i.lo >= 0;
    case FJ_OP_ISNAN: return false; /* it says what float32 may make of it */
    default: return fj_iv_increasing_table[r->op] == NULL;
    }
}

/* What the rule knows where it is not tight. */
static bool is_bounded(const rule *r, const interval *v, const interval *whole) {
    const fj_iv a = v[0].i, b = v[1].i, got = whole->i;
    if (r->type != FJ_TYPE_I32 && r->type != FJ_TYPE_I64) return true;
    switch (r->op) {
    case FJ_OP_AND:
        if (a.lo < 0 && b.lo < 0) return true;
        return got.lo >= 0 && (a.lo < 0 || got.hi <= a.hi) && (b.lo < 0 || got.hi <= b.hi);
    case FJ_OP_OR:
    case FJ_OP_XOR: return a.lo < 0 || b.lo < 0 || (got.lo >= 0 && got.hi <= 15); /* of few values */
    case FJ_OP_FLOORMOD: return b.lo <= 0 || (got.lo >= 0 && got.hi < b.hi);
    case FJ_OP_FMOD:
        if (b.lo <= 0) return true;
        return got.lo > -b.hi && got.hi < b.hi && (a.lo < 0 || got.lo >= 0) && (a.hi > 0 || got.hi <= 0);
    default: return true;
    }
}

static interval few_values(fj_random *random, fj_type type) {
    const int lo = (int)fj_random_below(random, 17) - 8, hi = lo + (int)fj_random_below(random, FEW);
    if (type == FJ_TYPE_BOOL) return draw_interval(random, type);
    return type == FJ_TYPE_FLOAT ? (interval){.f = {lo, hi, 0}} : (interval){.i = {lo, hi}};
}

static int count_of(fj_type type, const interval *v) {
    if (type == FJ_TYPE_BOOL) return v->b.f && v->b.t ? 2 : 1;
    return 1 + (int)(type == FJ_TYPE_FLOAT ? v->f.hi - v->f.lo : (double)(v->i.hi - v->i.lo));
}

static value nth_value(fj_type type, const interval *v, int n) {
    switch (type) {
    case FJ_TYPE_BOOL: return (value){.b = count_of(type, v) == 2 ? n == 1 : v->b.t != 0};
    case FJ_TYPE_I32: return (value){.i = (int32_t)v->i.lo + n};
    case FJ_TYPE_I64: return (value){.l = v->i.lo + n};
    default: return (value){.f = v->f.lo + n};
    }
}

static void join(fj_type type, interval *hull, const value *x) {
    const int64_t i = type == FJ_TYPE_I32 ? x->i : x->l;
    if (type == FJ_TYPE_BOOL)
        hull->b = (fj_iv_b){hull->b.f || !x->b, hull->b.t || x->b};
    else if (type == FJ_TYPE_FLOAT)
        hull->f = (fj_iv_f){fmin(hull->f.lo, x->f), fmax(hull->f.hi, x->f), hull->f.nan || isnan(x->f)};
    else
        hull->i = (fj_iv){fj_iv_min(hull->i.lo, i), fj_iv_max(hull->i.hi, i)};
}

static interval nothing(fj_type type) {
    if (type == FJ_TYPE_BOOL) return (interval){.b = {0, 0}};
    if (type == FJ_TYPE_FLOAT) return (interval){.f = {(double)INFINITY, -(double)INFINITY, 0}};
    return (interval){.i = {INT64_MAX, INT64_MIN}};
}

static bool is_inside(fj_type type, const interval *a, const interval *b) {
    if (type == FJ_TYPE_BOOL) return a->b.f <= b->b.f && a->b.t <= b->b.t;
    if (type == FJ_TYPE_FLOAT) return a->f.lo >= b->f.lo && a->f.hi <= b->f.hi && a->f.nan <= b->f.nan;
    return a->i.lo >= b->i.lo && a->i.hi <= b->i.hi;
}

static void check_tight(const rule *r, fj_random *random) {
    interval v[ARGUMENTS] = {{{0, 0}}}, hull = nothing(r->result);
    value x[ARGUMENTS] = {{0}}, last = {0};
    int counts[ARGUMENTS] = {1, 1, 1};
    for (int i = 0; i < r->arity; i++) v[i] = few_values(random, type_of(r, i));
    for (int i = 0; i < r->arity; i++) counts[i] = count_of(type_of(r, i), &v[i]);
    const interval whole = apply(r, v);
    for (int n = 0; n < counts[0] * counts[1] * counts[2]; n++) {
        const int at[ARGUMENTS] = {n % counts[0], n / counts[0] % counts[1], n / counts[0] / counts[1]};
        for (int i = 0; i < r->arity; i++) x[i] = nth_value(type_of(r, i), &v[i], at[i]);
        last = compute(r, x);
        hold(r, v, x, &whole, &last);
        join(r->result, &hull, &last);
    }
    if ((is_tight(r, v) && !is_inside(r->result, &whole, &hull)) || !is_bounded(r, v, &whole))
        wrong(r, v, NULL, &whole, "more than", &last);
}

static void tight_property(fj_arena *arena, fj_random *random, int number) {
    (void)arena, (void)number;
    for_each_rule(check_tight, random);
}

START_TEST(rules_are_tight) { fj_check_property("tight rules", fj_test_count(1000), tight_property); }
END_TEST

/* ---- What is beside the table --------------------------------------------------------------------------------- */

/* Constants, as they are and as float32 rounds them. */
static void constant_property(fj_arena *arena, fj_random *random, int number) {
    (void)arena, (void)number;
    const double x = draw_real(random), near = (double)(float)x;
    const fj_iv_f v = fj_iv_const_f(x);
    FJ_HOLD(v.lo <= x && x <= v.hi && v.lo <= near && near <= v.hi && !v.nan, "%a is in [%a, %a]", x, v.lo,
            v.hi);
    FJ_HOLD(x != near || isinf(x) || fabs(x) > 3.4e38 || (v.lo == x && v.hi == x), "%a is only in [%a, %a]",
            x, v.lo, v.hi);
}

START_TEST(constants) { fj_check_property("constants", fj_test_count(2000), constant_property); }
END_TEST

/* Loops of each length of an interval, over bodies that are all false, all true, or both. */
START_TEST(loops) {
    for (int lo = -2; lo < 4; lo++) {
        for (int hi = lo; hi < 4; hi++) {
            const fj_iv extent = fj_iv_range(lo, hi), counter = fj_iv_counter(extent);
            for (int kind = 0; kind < 3; kind++) {
                const fj_iv_b body = {kind != 0, kind != 1};
                const fj_iv_b any = fj_iv_reduce_any(extent, body), all = fj_iv_reduce_all(extent, body);
                ck_assert_int_eq(any.t, body.t && hi > 0);
                ck_assert_int_eq(any.f, body.f || lo <= 0);
                ck_assert_int_eq(all.t, body.t || lo <= 0);
                ck_assert_int_eq(all.f, body.f && hi > 0);
            }
            ck_assert_int_eq(counter.lo, 0);
            ck_assert_int_eq(counter.hi, hi > 0 ? hi - 1 : 0);
        }
    }
}
END_TEST

START_TEST(outside) {
    for (int n = 0; n < 4; n++) {
        for (int lo = -6; lo < 6; lo++) {
            fj_iv_b want = {0, 0};
            for (int hi = lo; hi < 6; hi++) {
                *(hi < -n || hi >= n ? &want.t : &want.f) = 1;
                const fj_iv_b got = fj_iv_outside(fj_iv_range(lo, hi), n);
                ck_assert_msg(got.t == want.t && (!want.f || got.f), "[%d, %d] of %d: %d %d", lo, hi, n,
                              got.f, got.t);
                ck_assert_msg(n == 0 || got.f == want.f, "[%d, %d] of %d: %d %d", lo, hi, n, got.f, got.t);
            }
        }
    }
}
END_TEST

START_TEST(classes) {
    ck_assert_int_eq(fj_iv_class((fj_iv_b){1, 0}), FJ_BLOCK_EMPTY);
    ck_assert_int_eq(fj_iv_class((fj_iv_b){1, 1}), FJ_BLOCK_PARTIAL);
    ck_assert_int_eq(fj_iv_class((fj_iv_b){0, 1}), FJ_BLOCK_FULL);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("interval");
    TCase *tcase = tcase_create("rules");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, rules_are_sound);
    tcase_add_test(tcase, rules_are_tight);
    tcase_add_test(tcase, constants);
    tcase_add_test(tcase, loops);
    tcase_add_test(tcase, outside);
    tcase_add_test(tcase, classes);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
