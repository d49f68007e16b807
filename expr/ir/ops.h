/* The operations as data: enum and table, made from ops.def. Included by ir.h, after fj_type. */
#ifndef FJ_EXPR_IR_OPS_H
#define FJ_EXPR_IR_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fj_op {
    FJ_OP_NONE,
#define OP(NAME, ...) FJ_OP_##NAME,
#include "expr/ir/ops.def"
    FJ_OP_COUNT
} fj_op;

/* What an op takes and gives. T: one type for all arguments. */
typedef enum fj_rule {
    FJ_RULE_LEAF_BOOL, /* -> bool, and so on */
    FJ_RULE_LEAF_I32,
    FJ_RULE_LEAF_I64,
    FJ_RULE_LEAF_FLOAT,
    FJ_RULE_SCALAR,      /* -> the scalar's type */
    FJ_RULE_LOAD,        /* (int...) -> the value type of the capture's dtype */
    FJ_RULE_RANGE,       /* (int...) -> bool */
    FJ_RULE_LOOP,        /* (int64 extent) -> int64 */
    FJ_RULE_REDUCE_NUM,  /* (loop, T) -> T, T of int32 int64 float */
    FJ_RULE_REDUCE_BOOL, /* (loop, bool) -> bool */
    FJ_RULE_REDUCE_ARG,  /* (loop, T) -> int64 */
    FJ_RULE_EFFECT,      /* (float, int...) -> void */
    FJ_RULE_NUM,         /* (T...) -> T, T of int32 int64 float */
    FJ_RULE_INT,         /* T of int32 int64 */
    FJ_RULE_FLOAT,       /* T is float */
    FJ_RULE_BITS,        /* T of bool int32 int64 */
    FJ_RULE_COMPARE,     /* (T, T) -> bool, T of int32 int64 float */
    FJ_RULE_TEST,        /* (float) -> bool */
    FJ_RULE_WHERE,       /* (bool, T, T) -> T, any T */
    FJ_RULE_CAST_BOOL,   /* (T) -> bool, any T but bool; and so on */
    FJ_RULE_CAST_I32,
    FJ_RULE_CAST_I64,
    FJ_RULE_CAST_FLOAT,
    FJ_RULE_COUNT
} fj_rule;

/* For which letters (types of the arguments; WHERE: of the second) an op of this rule exists:
 * FJ_LETTERS(RULE, X, ...) gives X(letter, ...) for each of them. */
#define FJ_LETTERS(RULE, X, ...) FJ_LETTERS_##RULE(X, __VA_ARGS__)
#define FJ_LETTERS_NUM(X, ...) X(i, __VA_ARGS__) X(l, __VA_ARGS__) X(f, __VA_ARGS__)
#define FJ_LETTERS_INT(X, ...) X(i, __VA_ARGS__) X(l, __VA_ARGS__)
#define FJ_LETTERS_FLOAT(X, ...) X(f, __VA_ARGS__)
#define FJ_LETTERS_BITS(X, ...) X(b, __VA_ARGS__) X(i, __VA_ARGS__) X(l, __VA_ARGS__)
#define FJ_LETTERS_COMPARE(X, ...) FJ_LETTERS_NUM(X, __VA_ARGS__)
#define FJ_LETTERS_TEST(X, ...) X(f, __VA_ARGS__)
#define FJ_LETTERS_WHERE(X, ...) X(b, __VA_ARGS__) FJ_LETTERS_NUM(X, __VA_ARGS__)
#define FJ_LETTERS_CAST_BOOL(X, ...) FJ_LETTERS_NUM(X, __VA_ARGS__)
#define FJ_LETTERS_CAST_I32(X, ...) X(b, __VA_ARGS__) X(l, __VA_ARGS__) X(f, __VA_ARGS__)
#define FJ_LETTERS_CAST_I64(X, ...) X(b, __VA_ARGS__) X(i, __VA_ARGS__) X(f, __VA_ARGS__)
#define FJ_LETTERS_CAST_FLOAT(X, ...) X(b, __VA_ARGS__) X(i, __VA_ARGS__) X(l, __VA_ARGS__)
#define FJ_LETTERS_LEAF_BOOL(X, ...)
#define FJ_LETTERS_LEAF_I32(X, ...)
#define FJ_LETTERS_LEAF_I64(X, ...)
#define FJ_LETTERS_LEAF_FLOAT(X, ...)
#define FJ_LETTERS_SCALAR(X, ...)
#define FJ_LETTERS_LOAD(X, ...)
#define FJ_LETTERS_RANGE(X, ...)
#define FJ_LETTERS_LOOP(X, ...)
#define FJ_LETTERS_REDUCE_NUM(X, ...)
#define FJ_LETTERS_REDUCE_BOOL(X, ...)
#define FJ_LETTERS_REDUCE_ARG(X, ...)
#define FJ_LETTERS_EFFECT(X, ...)

typedef struct fj_op_info {
    const char *name;
    int arity; /* -1: any */
    fj_rule rule;
    const char *int_text, *float_text; /* the value as a C expression over a b c; "NONE" */
    const char *cuda;                  /* text for one thread */
    int cost;                          /* instructions of that text */
    const char *interval;              /* "IV", "TOP", "INC(f)" */
    const char *doc;
} fj_op_info;

extern const fj_op_info fj_op_table[FJ_OP_COUNT];

/* How a reduction steps. */
typedef struct fj_reduction_info {
    fj_op step; /* FJ_OP_NONE: op is not a reduction */
    double empty;
    int64_t empty_i32, empty_i64;
} fj_reduction_info;

extern const fj_reduction_info fj_reduction_table[FJ_OP_COUNT];

/* The op of this name, or FJ_OP_NONE. */
fj_op fj_op_find(const char *name, size_t length);

static inline bool fj_op_is_pointwise(fj_op op) { return fj_op_table[op].rule >= FJ_RULE_NUM; }
static inline bool fj_op_is_reduction(fj_op op) { return fj_reduction_table[op].step != FJ_OP_NONE; }
static inline bool fj_op_is_const(fj_op op) { return op >= FJ_OP_CONST_BOOL && op <= FJ_OP_CONST_FLOAT; }
_Static_assert(FJ_OP_CONST_BOOL == 1 && FJ_OP_CONST_FLOAT == 4, "fj_op_is_const");

/* The type of a pointwise op's result for the type of its arguments (WHERE: of its second), or
 * FJ_TYPE_VOID (0) where the op does not take it. */
int fj_op_result(fj_op op, int argument);

/* "bool" "i32" "i64" "float", and the letters b i l f that functions end with. */
extern const char *const fj_type_names[];
extern const char fj_type_letters[];

/* Applies a pointwise op to count elements of packed arrays (bool, int32_t, int64_t, double). */
typedef void (*fj_op_lanes)(void *result, const void *a, const void *b, const void *c, int count);
/* For the argument type (fj_type; WHERE: of its second argument); NULL where the op does not exist. */
extern const fj_op_lanes fj_op_lanes_table[FJ_OP_COUNT][5];

#endif
