/* What must hold of the extents and run-time scalars of a call, though a mod's graph cannot say it: that
 * two extents which meet are equal, that an int made of run-time scalars fits where it is used.
 *
 * Made while a mod is elaborated; checked at each launch, without allocating. Immutable, for any thread.
 */
#ifndef FJ_EXPR_LANG_REQUIRE_H
#define FJ_EXPR_LANG_REQUIRE_H

#include "expr/ir/ir.h"
#include "expr/lang/ast.h"

typedef enum fj_require_kind {
    FJ_REQUIRE_EQUAL, /* a == b: extents that are combined elementwise */
    FJ_REQUIRE_DOT,   /* a == b: lengths of the vectors of a dot product */
    FJ_REQUIRE_SOME,  /* a > 0: the extent whose greatest or least is wanted */
    FJ_REQUIRE_INT32, /* a fits into an int32 */
    FJ_REQUIRE_ADD,   /* a + b fits into an int64, and so on */
    FJ_REQUIRE_SUB,
    FJ_REQUIRE_MUL,
    FJ_REQUIRE_POW,
    FJ_REQUIRE_SHL,
} fj_require_kind;

/* One node of an expression over dimensions, scalars and constants; arguments precede it. */
typedef struct fj_uniform_step {
    uint16_t op;
    uint8_t type, argc;
    uint8_t args[3];
    int64_t imm;
} fj_uniform_step;

enum { FJ_UNIFORM_MAX_STEPS = 200 };

/* The value of its last step. */
typedef struct fj_uniform {
    const fj_uniform_step *steps;
    int count;
} fj_uniform;

typedef struct fj_requirement {
    fj_require_kind kind;
    fj_uniform a, b;
    const char *name; /* a run-time scalar in it, or "" */
    fj_place place;
} fj_requirement;

typedef struct fj_requirements {
    fj_requirement *items;
    size_t count;
} fj_requirements;

/* The extents of all captures: those of capture i begin at first + i * step; -1 where not known. */
typedef struct fj_extents {
    const int64_t *first;
    size_t step;
} fj_extents;

/* False: ref reads a position, a tensor or a loop, or is too long. Steps are in the arena. */
bool fj_uniform_compile(const fj_ir *ir, fj_ref ref, fj_arena *arena, fj_uniform *ret_uniform);
/* The value of an int expression: scalars NULL: the defaults of ir. False: it depends on an extent
 * that is not known. */
bool fj_uniform_value(const fj_uniform *uniform, const fj_ir *ir, const fj_scalar *scalars, fj_extents dims,
                      int64_t *ret_value);

/* FJ_OK, or FJ_ERR_TENSOR with the place in the mod of the first that does not hold; what is not known holds. */
fj_status fj_requirements_check(const fj_requirements *requirements, const fj_ir *ir,
                                const fj_scalar *scalars, fj_extents dims, fj_error *error);

#endif
