/* Operations on single values that need more than an expression; expr/ir/ops.def names them. Plain C,
 * shared by the library's evaluator and by emitted scalar code. Defined for every argument. */
#ifndef FJ_EXPR_IR_SCALAR_OPS_H
#define FJ_EXPR_IR_SCALAR_OPS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* Python's // on floats: exact where the quotient is, never off by one near an integer. */
static inline double fj_scalar_floordiv(double a, double b) {
    if (b == 0.0) return a / b;
    const double mod = fmod(a, b);
    double div = (a - mod) / b;
    if (mod != 0.0 && (b < 0.0) != (mod < 0.0)) div -= 1.0;
    if (div == 0.0) return copysign(0.0, a / b);
    const double floored = floor(div);
    return div - floored > 0.5 ? floored + 1.0 : floored;
}

/* Python's % on floats: the sign of b. */
static inline double fj_scalar_floormod(double a, double b) {
    const double mod = fmod(a, b);
    return mod != 0.0 && (b < 0.0) != (mod < 0.0) ? mod + b : mod;
}

static inline int64_t fj_scalar_ipow(int64_t base, int64_t exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
    uint64_t power = (uint64_t)base, result = 1;
    for (uint64_t rest = (uint64_t)exponent; rest != 0; rest >>= 1) {
        if (rest & 1) result *= power;
        power *= power;
    }
    return (int64_t)result;
}

/* Truncate, saturate, NaN gives 0. */
static inline int32_t fj_scalar_i32(double a) {
    if (a != a) return 0;
    if (a <= -2147483648.0) return INT32_MIN;
    return a >= 2147483647.0 ? INT32_MAX : (int32_t)a;
}

static inline int64_t fj_scalar_i64(double a) {
    if (a != a) return 0;
    if (a <= -9223372036854775808.0) return INT64_MIN;
    return a >= 9223372036854775808.0 ? INT64_MAX : (int64_t)a;
}

#endif
