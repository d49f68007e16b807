/* The pointwise operations of templates/cpu/prim.h over arrays, once per instruction set. */
#ifndef FJ_TESTS_LANES_LANES_H
#define FJ_TESTS_LANES_LANES_H

#include <stddef.h>

#define PRIM_MAX_LANES 16

/* Arrays are of the letter's type: f the set's real type, i int32, l int64, b bytes; n is a multiple of
 * PRIM_MAX_LANES. A cast is named cast_<result>. */
typedef struct prim_op {
    const char *name;
    char letter, result;
    int arity;
    void (*run)(const void *a, const void *b, const void *c, void *out, size_t n);
} prim_op;

typedef struct prim_set {
    const char *name;
    int real_size;
    const prim_op *ops;
    int count;
    void (*tile_exp2)(const void *a, void *out, size_t n); /* of prim_tile.h */
} prim_set;

/* How many values of it are wrong; says which. */
int prim_check_tile(const prim_set *set);

extern const prim_set prim_set_avx512_f32, prim_set_avx512_f64;
extern const prim_set prim_set_avx2_f32, prim_set_avx2_f64;
extern const prim_set prim_set_portable_f32, prim_set_portable_f64;

/* What the ops of each rule of expr/ir/ops.h take: RUN(name, arity, letter, result). */
#define PRIM_LEAF_BOOL(...)
#define PRIM_LEAF_I32(...)
#define PRIM_LEAF_I64(...)
#define PRIM_LEAF_FLOAT(...)
#define PRIM_SCALAR(...)
#define PRIM_LOAD(...)
#define PRIM_RANGE(...)
#define PRIM_LOOP(...)
#define PRIM_REDUCE_NUM(...)
#define PRIM_REDUCE_BOOL(...)
#define PRIM_REDUCE_ARG(...)
#define PRIM_EFFECT(...)
#define PRIM_NUM(name, arity) RUN(name, arity, i, i) RUN(name, arity, l, l) RUN(name, arity, f, f)
#define PRIM_INT(name, arity) RUN(name, arity, i, i) RUN(name, arity, l, l)
#define PRIM_FLOAT(name, arity) RUN(name, arity, f, f)
#define PRIM_BITS(name, arity) RUN(name, arity, b, b) RUN(name, arity, i, i) RUN(name, arity, l, l)
#define PRIM_COMPARE(name, arity) RUN(name, arity, i, b) RUN(name, arity, l, b) RUN(name, arity, f, b)
#define PRIM_TEST(name, arity) RUN(name, arity, f, b)
#define PRIM_WHERE(name, arity) \
    RUN(name, arity, b, b) RUN(name, arity, i, i) RUN(name, arity, l, l) RUN(name, arity, f, f)
#define PRIM_CAST_BOOL(name, arity) RUN(name, arity, i, b) RUN(name, arity, l, b) RUN(name, arity, f, b)
#define PRIM_CAST_I32(name, arity) RUN(name, arity, b, i) RUN(name, arity, l, i) RUN(name, arity, f, i)
#define PRIM_CAST_I64(name, arity) RUN(name, arity, b, l) RUN(name, arity, i, l) RUN(name, arity, f, l)
#define PRIM_CAST_FLOAT(name, arity) RUN(name, arity, b, f) RUN(name, arity, i, f) RUN(name, arity, l, f)

#endif
