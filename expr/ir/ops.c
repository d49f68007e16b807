/* The tables of ops.def, and what follows from an op's rule. */
#include <math.h>
#include <string.h>

#include "expr/ir/ir.h"

_Static_assert(FJ_TYPE_VOID == 0 && FJ_TYPE_BOOL == 1 && FJ_TYPE_I32 == 2 && FJ_TYPE_I64 == 3 &&
                   FJ_TYPE_FLOAT == 4,
               "fj_type_names, fj_type_letters and fj_op_result depend on the order");

const char *const fj_type_names[] = {"void", "bool", "i32", "i64", "float"};
const char fj_type_letters[] = "vbilf";

const fj_op_info fj_op_table[FJ_OP_COUNT] = {
    [FJ_OP_NONE] = {"none", 0, FJ_RULE_LEAF_BOOL, "NONE", "NONE", "", 0, "TOP", "no operation"},
#define OP(NAME, name, arity, RULE, INT, FLOAT, CUDA, COST, D, INTERVAL, DOC) \
    [FJ_OP_##NAME] = {#name, arity, FJ_RULE_##RULE, #INT, #FLOAT, CUDA, COST, #INTERVAL, DOC},
#include "expr/ir/ops.def"
};

#define ZERO_32 0
#define ZERO_64 0
#define ONE_32 1
#define ONE_64 1
#define LEAST_32 INT32_MIN
#define LEAST_64 INT64_MIN
#define MOST_32 INT32_MAX
#define MOST_64 INT64_MAX

const fj_reduction_info fj_reduction_table[FJ_OP_COUNT] = {
#define REDUCTION(NAME, STEP, INT, FLOAT) [FJ_OP_##NAME] = {FJ_OP_##STEP, FLOAT, INT##_32, INT##_64},
#include "expr/ir/ops.def"
};

fj_op fj_op_find(const char *name, size_t length) {
    for (int op = FJ_OP_NONE + 1; op < FJ_OP_COUNT; op++) {
        const char *candidate = fj_op_table[op].name;
        if (strlen(candidate) == length && memcmp(candidate, name, length) == 0) return (fj_op)op;
    }
    return FJ_OP_NONE;
}

/* Which argument types a pointwise rule takes, and its result: 0 means the argument's type. */
typedef struct type_rule {
    bool takes[FJ_TYPE_COUNT];
    fj_type result;
} type_rule;

#define TYPE_b FJ_TYPE_BOOL
#define TYPE_i FJ_TYPE_I32
#define TYPE_l FJ_TYPE_I64
#define TYPE_f FJ_TYPE_FLOAT
#define TAKE(letter, unused) [TYPE_##letter] = true,
#define TYPE_RULE(RULE, result) [FJ_RULE_##RULE] = {{FJ_LETTERS(RULE, TAKE, unused)}, result}

static const type_rule type_rules[FJ_RULE_COUNT] = {
    TYPE_RULE(NUM, FJ_TYPE_VOID),     TYPE_RULE(INT, FJ_TYPE_VOID),         TYPE_RULE(FLOAT, FJ_TYPE_VOID),
    TYPE_RULE(BITS, FJ_TYPE_VOID),    TYPE_RULE(COMPARE, FJ_TYPE_BOOL),     TYPE_RULE(TEST, FJ_TYPE_BOOL),
    TYPE_RULE(WHERE, FJ_TYPE_VOID),   TYPE_RULE(CAST_BOOL, FJ_TYPE_BOOL),   TYPE_RULE(CAST_I32, FJ_TYPE_I32),
    TYPE_RULE(CAST_I64, FJ_TYPE_I64), TYPE_RULE(CAST_FLOAT, FJ_TYPE_FLOAT),
};

int fj_op_result(fj_op op, int argument) {
    const type_rule *rule = &type_rules[fj_op_table[op].rule];
    if (argument <= FJ_TYPE_VOID || argument >= FJ_TYPE_COUNT || !rule->takes[argument]) return FJ_TYPE_VOID;
    return rule->result == FJ_TYPE_VOID ? argument : (int)rule->result;
}
