/* Python's arithmetic on constants, with 64-bit ints. */
#include <math.h>
#include <string.h>

#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Ints ---------------------------------------------------------------------------------------- */

static _Noreturn void fail_overflow(fj_elab *e, fj_place place) {
    fj_elab_fail(e, place, "this constant does not fit into 64 bits");
}

static _Noreturn void fail_zero(fj_elab *e, fj_place place) { fj_elab_fail(e, place, "division by zero"); }

static int64_t int_floordiv(fj_elab *e, int64_t a, int64_t b, fj_place place) {
    if (b == 0) fail_zero(e, place);
    if (a == INT64_MIN && b == -1) fail_overflow(e, place);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t int_mod(fj_elab *e, int64_t a, int64_t b, fj_place place) {
    if (b == 0) fail_zero(e, place);
    if (b == -1) return 0;
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

static int64_t int_pow(fj_elab *e, int64_t base, int64_t exponent, fj_place place) {
    if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
    int64_t result = 1;
    for (int64_t i = 0; i < exponent; i++) {
        if (__builtin_mul_overflow(result, base, &result)) fail_overflow(e, place);
    }
    return result;
}

static int64_t int_shift(fj_elab *e, fj_operator op, int64_t a, int64_t b, fj_place place) {
    if (b < 0) fj_elab_fail(e, place, "a negative shift count");
    if (op == FJ_OPERATOR_SHR) return b > 63 ? -(a < 0) : a >> b;
    if (a == 0) return 0;
    if (b > 63 || a > INT64_MAX >> b || a < INT64_MIN >> b) fail_overflow(e, place);
    return (int64_t)((uint64_t)a << b);
}

static fj_value binary_int(fj_elab *e, fj_operator op, int64_t a, int64_t b, fj_place place) {
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
    case FJ_OPERATOR_ADD: overflow = __builtin_add_overflow(a, b, &result); break;
    case FJ_OPERATOR_SUB: overflow = __builtin_sub_overflow(a, b, &result); break;
    case FJ_OPERATOR_MUL: overflow = __builtin_mul_overflow(a, b, &result); break;
    case FJ_OPERATOR_DIV:
        if (b == 0) fail_zero(e, place);
        return fj_value_float((double)a / (double)b);
    case FJ_OPERATOR_FLOORDIV: result = int_floordiv(e, a, b, place); break;
    case FJ_OPERATOR_MOD: result = int_mod(e, a, b, place); break;
    case FJ_OPERATOR_POW:
        if (b < 0 && a == 0) fail_zero(e, place);
        if (b < 0) return fj_value_float(pow((double)a, (double)b));
        result = int_pow(e, a, b, place);
        break;
    case FJ_OPERATOR_AND: result = a & b; break;
    case FJ_OPERATOR_OR: result = a | b; break;
    case FJ_OPERATOR_XOR: result = a ^ b; break;
    default: result = int_shift(e, op, a, b, place); break;
    }
    if (overflow) fail_overflow(e, place);
    return fj_value_int(result);
}

/* ---- Floats ---------------------------------------------------------------------------------------- */

static double float_mod(double a, double b) {
    const double rest = fmod(a, b);
    if (rest == 0) return copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}

static double float_floordiv(double a, double b) {
    const double quotient = (a - float_mod(a, b)) / b;
    const double floored = floor(quotient);
    return quotient - floored > 0.5 ? floored + 1.0 : floored;
}

static fj_value binary_float(fj_elab *e, fj_operator op, double a, double b, fj_place place) {
    const bool divides = op == FJ_OPERATOR_DIV || op == FJ_OPERATOR_FLOORDIV || op == FJ_OPERATOR_MOD;
    if (divides && b == 0) fail_zero(e, place);
    switch (op) {
    case FJ_OPERATOR_ADD: return fj_value_float(a + b);
    case FJ_OPERATOR_SUB: return fj_value_float(a - b);
    case FJ_OPERATOR_MUL: return fj_value_float(a * b);
    case FJ_OPERATOR_DIV: return fj_value_float(a / b);
    case FJ_OPERATOR_FLOORDIV: return fj_value_float(float_floordiv(a, b));
    case FJ_OPERATOR_MOD: return fj_value_float(float_mod(a, b));
    case FJ_OPERATOR_POW:
        if (a == 0 && b < 0) fail_zero(e, place);
        if (a < 0 && isfinite(b) && b != floor(b) && isfinite(a))
            fj_elab_fail(e, place, "the result is a complex number");
        if (isinf(pow(a, b)) && isfinite(a) && isfinite(b))
            fj_elab_fail(e, place, "the result is too large for a float");
        return fj_value_float(pow(a, b));
    default: fj_elab_fail(e, place, "'%s' needs ints or bools, not floats", fj_operator_text(op));
    }
}

/* ---- Sequences and strings -------------------------------------------------------------------------- */

static fj_value repeat(fj_elab *e, fj_value seq, int64_t times, fj_place place) {
    if (times < 0) times = 0;
    if (seq.seq->len > 0 && times > (int64_t)(FJ_ELAB_MAX_ITEMS / seq.seq->len)) {
        fj_elab_fail(e, place, "a list of more than %d items", FJ_ELAB_MAX_ITEMS);
    }
    FJ_VEC(fj_value) items = {0};
    fj_elab_step(e, place, seq.seq->len * (size_t)(seq.seq->len > 0 ? times : 0));
    for (int64_t i = 0; i < times && seq.seq->len > 0; i++) {
        for (size_t j = 0; j < seq.seq->len; j++) FJ_PUSH(e->arena, &items, seq.seq->items[j]);
    }
    return fj_value_sequence(e->arena, seq.kind, items.data, items.len);
}

static fj_value concatenate(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    const size_t len = a.seq->len + b.seq->len;
    if (len > FJ_ELAB_MAX_ITEMS) fj_elab_fail(e, place, "a list of more than %d items", FJ_ELAB_MAX_ITEMS);
    fj_elab_step(e, place, len);
    fj_value *items = FJ_NEW_ARRAY(e->arena, fj_value, len);
    for (size_t i = 0; i < len; i++)
        items[i] = i < a.seq->len ? a.seq->items[i] : b.seq->items[i - a.seq->len];
    return fj_value_sequence(e->arena, a.kind, items, len);
}

void fj_constant_need_text(fj_elab *e, fj_value value, fj_place place) {
    const fj_text_state text = fj_value_text(value);
    if (text == FJ_TEXT_KNOWN) return;
    fj_elab_fail_note(
        e, place,
        "strings are known that are written as they are, joined with '+', or made by str() of a "
        "string, an int, a bool or None",
        "this needs the value of %s, which the mod language does not compute",
        text == FJ_TEXT_DEVICE ? "a device's name" : "a string");
}

/* a, times over, and b. */
static fj_value join_text(fj_elab *e, fj_value a, int64_t times, fj_str b, fj_place place) {
    if (a.text != FJ_TEXT_KNOWN) return fj_value_vague(FJ_TEXT_UNKNOWN);
    if (times < 0) times = 0;
    const size_t len = a.str.len;
    if (len > 0 && times > (int64_t)((FJ_SOURCE_MAX - b.len) / len))
        fj_elab_fail(e, place, "a string of more than %d bytes", FJ_SOURCE_MAX);
    const size_t total = len * (size_t)(len > 0 ? times : 0) + b.len;
    fj_elab_step(e, place, total / 64);
    char *text = fj_arena_alloc(e->arena, total + 1);
    for (size_t at = 0; at + b.len < total; at += len) memcpy(text + at, a.str.data, len);
    if (b.len > 0) memcpy(text + total - b.len, b.data, b.len);
    text[total] = '\0';
    return fj_value_str((fj_str){text, total});
}

static bool is_int(fj_value v) { return v.kind == FJ_VALUE_INT || v.kind == FJ_VALUE_BOOL; }
static int64_t as_int(fj_value v) { return v.kind == FJ_VALUE_BOOL ? v.b : v.i; }

fj_value fj_constant_binary(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    if (a.kind == FJ_VALUE_BOOL && b.kind == FJ_VALUE_BOOL) {
        if (op == FJ_OPERATOR_AND) return fj_value_bool(a.b && b.b);
        if (op == FJ_OPERATOR_OR) return fj_value_bool(a.b || b.b);
        if (op == FJ_OPERATOR_XOR) return fj_value_bool(a.b != b.b);
    }
    if (is_int(a) && is_int(b) && op != FJ_OPERATOR_MATMUL)
        return binary_int(e, op, as_int(a), as_int(b), place);
    if (fj_value_is_number(a) && fj_value_is_number(b) && op != FJ_OPERATOR_MATMUL) {
        return binary_float(e, op, fj_value_as_double(a), fj_value_as_double(b), place);
    }
    if (op == FJ_OPERATOR_ADD && fj_value_is_sequence(a) && a.kind == b.kind)
        return concatenate(e, a, b, place);
    if (op == FJ_OPERATOR_MUL && fj_value_is_sequence(a) && is_int(b)) return repeat(e, a, as_int(b), place);
    if (op == FJ_OPERATOR_MUL && is_int(a) && fj_value_is_sequence(b)) return repeat(e, b, as_int(a), place);
    if (op == FJ_OPERATOR_ADD && a.kind == FJ_VALUE_STR && b.kind == FJ_VALUE_STR)
        return b.text == FJ_TEXT_KNOWN ? join_text(e, a, 1, b.str, place) : fj_value_vague(FJ_TEXT_UNKNOWN);
    if (op == FJ_OPERATOR_MUL && a.kind == FJ_VALUE_STR && is_int(b))
        return join_text(e, a, as_int(b), FJ_STR(""), place);
    if (op == FJ_OPERATOR_MUL && is_int(a) && b.kind == FJ_VALUE_STR)
        return join_text(e, b, as_int(a), FJ_STR(""), place);
    if (op == FJ_OPERATOR_OR && !fj_value_is_number(a)) return FJ_NONE; /* int | None, in an annotation */
    fj_elab_fail(e, place, "'%s' does not take %s and %s", fj_operator_text(op), fj_value_describe(a),
                 fj_value_describe(b));
}

fj_value fj_constant_unary(fj_elab *e, fj_operator op, fj_value a, fj_place place) {
    if (a.kind == FJ_VALUE_FLOAT && op != FJ_OPERATOR_INVERT) {
        return fj_value_float(op == FJ_OPERATOR_NEGATIVE ? -a.f : a.f);
    }
    if (!is_int(a)) {
        fj_elab_fail(e, place, "'%s' does not take %s", fj_operator_text(op), fj_value_describe(a));
    }
    const int64_t i = as_int(a);
    if (op == FJ_OPERATOR_INVERT) return fj_value_int(~i);
    if (op == FJ_OPERATOR_POSITIVE) return fj_value_int(i);
    if (i == INT64_MIN) fail_overflow(e, place);
    return fj_value_int(-i);
}

/* ---- Comparisons -------------------------------------------------------------------------------------- */

static bool contains(fj_elab *e, fj_value item, fj_value in, fj_place place) {
    if (fj_value_is_sequence(in)) {
        for (size_t i = 0; i < in.seq->len; i++) {
            if (fj_value_equal(item, in.seq->items[i])) return true;
        }
        return false;
    }
    if (in.kind == FJ_VALUE_DICT) {
        for (size_t i = 0; i < in.dict->items.len; i++) {
            if (fj_value_equal(item, in.dict->items.data[i].key)) return true;
        }
        return false;
    }
    if (in.kind != FJ_VALUE_STR || item.kind != FJ_VALUE_STR) {
        fj_elab_fail(e, place, "'in' looks into tuples, lists and strings, not into %s",
                     fj_value_describe(in));
    }
    for (size_t i = 0; i + item.str.len <= in.str.len; i++) {
        if (fj_str_equal((fj_str){in.str.data + i, item.str.len}, item.str)) return true;
    }
    return false;
}

/* -1, 0, 1; 2: unordered. */
static int order(fj_elab *e, fj_value a, fj_value b, fj_place place, fj_operator op) {
    if (is_int(a) && is_int(b)) return (as_int(a) > as_int(b)) - (as_int(a) < as_int(b));
    if (fj_value_is_number(a) && fj_value_is_number(b)) {
        const double x = fj_value_as_double(a), y = fj_value_as_double(b);
        return x != x || y != y ? 2 : (x > y) - (x < y);
    }
    if (fj_value_is_sequence(a) && a.kind == b.kind) {
        for (size_t i = 0; i < a.seq->len && i < b.seq->len; i++) {
            if (!fj_value_equal(a.seq->items[i], b.seq->items[i])) {
                fj_elab_enter(e, place);
                const int found = order(e, a.seq->items[i], b.seq->items[i], place, op);
                fj_elab_leave(e);
                return found;
            }
        }
        return (a.seq->len > b.seq->len) - (a.seq->len < b.seq->len);
    }
    fj_elab_fail(e, place, "'%s' does not compare %s with %s", fj_operator_text(op), fj_value_describe(a),
                 fj_value_describe(b));
}

bool fj_constant_compare(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    const int64_t x = fj_value_weight(a), y = fj_value_weight(b);
    const bool in = op == FJ_OPERATOR_IN || op == FJ_OPERATOR_NOT_IN;
    fj_elab_step(e, place, (size_t)(in ? y : x < y ? x : y));
    /* Only a string can be equal to one; a device is equal to a device. */
    const bool texts = in || (a.kind == b.kind && (a.kind == FJ_VALUE_STR || fj_value_is_sequence(a)));
    const bool devices = a.kind == FJ_VALUE_STR && a.text == FJ_TEXT_DEVICE && b.text == FJ_TEXT_DEVICE;
    if (texts && !devices) {
        fj_constant_need_text(e, a, place);
        fj_constant_need_text(e, b, place);
    }
    switch (op) {
    case FJ_OPERATOR_EQ: return fj_value_equal(a, b);
    case FJ_OPERATOR_NE: return !fj_value_equal(a, b);
    case FJ_OPERATOR_IS: return a.kind == b.kind && fj_value_equal(a, b);
    case FJ_OPERATOR_IS_NOT: return a.kind != b.kind || !fj_value_equal(a, b);
    case FJ_OPERATOR_IN: return contains(e, a, b, place);
    case FJ_OPERATOR_NOT_IN: return !contains(e, a, b, place);
    case FJ_OPERATOR_LT: return order(e, a, b, place, op) == -1;
    case FJ_OPERATOR_GT: return order(e, a, b, place, op) == 1;
    case FJ_OPERATOR_LE: {
        const int found = order(e, a, b, place, op);
        return found == -1 || found == 0;
    }
    default: {
        const int found = order(e, a, b, place, op);
        return found == 1 || found == 0;
    }
    }
}
