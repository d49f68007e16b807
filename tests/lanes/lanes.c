/* One prim_set: compiled once per instruction set and real type, with -DPRIM_SET=<isa>_<real>. Every
 * operation of expr/ir/ops.def is called by its name, so that a missing one does not compile. */
#define FJ_IN_DTYPE (FJ_REAL_F64 ? FJ_F64 : FJ_F32)
#include "prim_tile.h"

#include "tests/lanes/lanes.h"

typedef fj_real prim_f;
typedef int32_t prim_i;
typedef int64_t prim_l;
typedef uint8_t prim_b;

static inline fj_f get_f(const prim_f *p) { return fj_get_f(p); }
static inline fj_i get_i(const prim_i *p) { return fjv_gathered_i(p); }
static inline fj_l get_l(const prim_l *p) { return fjv_gathered_l(p); }
static inline fj_b get_b(const prim_b *p) {
    uint32_t bits = 0;
    for (int i = 0; i < FJ_LANES; i++) bits |= (uint32_t)(p[i] != 0) << i;
    return fj_unbits_b(bits);
}
static inline void put_f(prim_f *p, fj_f v) { fj_put_f(p, v); }
static inline void put_i(prim_i *p, fj_i v) { memcpy(p, &v, sizeof v); }
static inline void put_l(prim_l *p, fj_l v) { memcpy(p, &v, sizeof v); }
static inline void put_b(prim_b *p, fj_b v) {
    for (int i = 0; i < FJ_LANES; i++) p[i] = fj_bits_b(v) >> i & 1;
}

#define fj_cast_bool_i fj_cast_i_b
#define fj_cast_bool_l fj_cast_l_b
#define fj_cast_bool_f fj_cast_f_b
#define fj_cast_i32_b fj_cast_b_i
#define fj_cast_i32_l fj_cast_l_i
#define fj_cast_i32_f fj_cast_f_i
#define fj_cast_i64_b fj_cast_b_l
#define fj_cast_i64_i fj_cast_i_l
#define fj_cast_i64_f fj_cast_f_l
#define fj_cast_float_b fj_cast_b_f
#define fj_cast_float_i fj_cast_i_f
#define fj_cast_float_l fj_cast_l_f

#define CALL1(name, t) fj_##name##_##t(get_##t((const prim_##t *)a + i))
#define CALL2(name, t) fj_##name##_##t(get_##t((const prim_##t *)a + i), get_##t((const prim_##t *)b + i))
#define CALL3(name, t)                                                              \
    fj_##name##_##t(get_b((const prim_b *)a + i), get_##t((const prim_##t *)b + i), \
                    get_##t((const prim_##t *)c + i))
#define RUN(name, arity, t, r)                                                                       \
    static void run_##name##_##t(const void *a, const void *b, const void *c, void *out, size_t n) { \
        (void)b, (void)c;                                                                            \
        for (size_t i = 0; i < n; i += FJ_LANES) put_##r((prim_##r *)out + i, CALL##arity(name, t)); \
    }
#define OP(NAME, name, arity, RULE, ...) PRIM_##RULE(name, arity)
#include "expr/ir/ops.def"
RUN(eq, 2, b, b)
RUN(ne, 2, b, b)

#undef RUN
#define RUN(name, arity, t, r) {#name, #t[0], #r[0], arity, run_##name##_##t},
static const prim_op ops[] = {
#define OP(NAME, name, arity, RULE, ...) PRIM_##RULE(name, arity)
#include "expr/ir/ops.def"
    RUN(eq, 2, b, b) RUN(ne, 2, b, b)};

static void run_tile_exp2(const void *a, void *out, size_t n) {
    for (size_t i = 0; i < n; i += FJ_LANES)
        put_f((prim_f *)out + i, tile_exp2(get_f((const prim_f *)a + i)));
}
#define JOIN(a, b) a##b
#define JOINED(a, b) JOIN(a, b)
#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)
const prim_set JOINED(prim_set_, PRIM_SET) = {TEXT_OF(PRIM_SET), (int)sizeof(fj_real), ops,
                                              (int)(sizeof ops / sizeof ops[0]), run_tile_exp2};
