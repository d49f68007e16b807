/* The value columns of ops.def as compiled loops: what the folder and the evaluator run. */
#include <math.h>

#include "expr/ir/ir.h"
#include "expr/ir/scalar_ops.h"

/* Inside a loop over letter, ops.def's T, U, WIDTH and ONES. */
#define NAMES_b     \
    typedef bool T; \
    typedef bool U; \
    enum { WIDTH = 1, ONES = 1 };
#define NAMES_i         \
    typedef int32_t T;  \
    typedef uint32_t U; \
    enum { WIDTH = 32, ONES = -1 };
#define NAMES_l         \
    typedef int64_t T;  \
    typedef uint64_t U; \
    enum { WIDTH = 64, ONES = -1 };
#define NAMES_f       \
    typedef double T; \
    typedef double U;
#define NAMES(letter)               \
    NAMES_##letter(void) sizeof(T); \
    (void)sizeof(U);

#define RESULT_NUM(T) T
#define RESULT_INT(T) T
#define RESULT_FLOAT(T) T
#define RESULT_BITS(T) T
#define RESULT_WHERE(T) T
#define RESULT_COMPARE(T) bool
#define RESULT_TEST(T) bool
#define RESULT_CAST_BOOL(T) bool
#define RESULT_CAST_I32(T) int32_t
#define RESULT_CAST_I64(T) int64_t
#define RESULT_CAST_FLOAT(T) double

#define FIRST_1(T) T
#define FIRST_2(T) T
#define FIRST_3(T) bool /* where */
#define SECOND_1(T) const T b = 0
#define SECOND_2(T) const T b = ((const T *)pb)[i]
#define SECOND_3(T) const T b = ((const T *)pb)[i]
#define THIRD_1(T) const T c = 0
#define THIRD_2(T) const T c = 0
#define THIRD_3(T) const T c = ((const T *)pc)[i]

#define VALUE_b(INT, FLOAT) INT
#define VALUE_i(INT, FLOAT) INT
#define VALUE_l(INT, FLOAT) INT
#define VALUE_f(INT, FLOAT) FLOAT

#define LANES(letter, name, arity, RULE, INT, FLOAT)                                                       \
    static void name##_##letter(void *result, const void *pa, const void *pb, const void *pc, int count) { \
        NAMES(letter)                                                                                      \
        (void)pb, (void)pc;                                                                                \
        for (int i = 0; i < count; i++) {                                                                  \
            const FIRST_##arity(T) a = ((const FIRST_##arity(T) *)pa)[i];                                  \
            SECOND_##arity(T);                                                                             \
            THIRD_##arity(T);                                                                              \
            (void)b, (void)c;                                                                              \
            ((RESULT_##RULE(T) *)result)[i] = VALUE_##letter(INT, FLOAT);                                  \
        }                                                                                                  \
    }
#define OP(NAME, name, arity, RULE, INT, FLOAT, CUDA, COST, D, INTERVAL, DOC) \
    FJ_LETTERS(RULE, LANES, name, arity, RULE, INT, FLOAT)
#include "expr/ir/ops.def"

#define TYPE_b FJ_TYPE_BOOL
#define TYPE_i FJ_TYPE_I32
#define TYPE_l FJ_TYPE_I64
#define TYPE_f FJ_TYPE_FLOAT
#define ENTRY(letter, name) [TYPE_##letter] = name##_##letter,

const fj_op_lanes fj_op_lanes_table[FJ_OP_COUNT][FJ_TYPE_COUNT] = {
#define OP(NAME, name, arity, RULE, INT, FLOAT, CUDA, COST, D, INTERVAL, DOC) \
    [FJ_OP_##NAME] = {[FJ_TYPE_VOID] = NULL, FJ_LETTERS(RULE, ENTRY, name)},
#include "expr/ir/ops.def"
};
