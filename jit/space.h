/* The space of a problem's variants: all that are legal, by the values of their parameters. The plan lists a few of them
 * (jit.h); what is asked for by name or by values is looked for among all.
 *
 *     values            -> fj_jit_make_variant     the one place where a variant is made: lists, options, names (variant.c)
 *     problem + values  -> fj_jit_visit_variants   all that have these values
 *     problem + name    -> fj_jit_find_variant     a name spells every parameter, and is read back
 *
 * All of it is arithmetic: nothing is allocated, rendered or compiled.
 */
#ifndef FJ_JIT_SPACE_H
#define FJ_JIT_SPACE_H

#include "jit/jit.h"

/* What of a variant is chosen; all else follows from it and the problem. What kernels of a device do not have is 0. */
typedef enum fj_axis {
    FJ_AXIS_KERNEL, /* 0 simt, 1 mma */
    FJ_AXIS_TILE_Q,
    FJ_AXIS_TILE_KV,
    FJ_AXIS_ISA, /* cpu: an fj_isa */
    FJ_AXIS_STAGES,
    FJ_AXIS_WARPS,
    FJ_AXIS_SPLITS,
    FJ_AXIS_PACK,
    FJ_AXIS_DIRECT,
    FJ_AXIS_WIDE,
    FJ_AXIS_MOD_CHUNKS, /* from here on: unrolling, which the plan derives from the mod and the others */
    FJ_AXIS_MASK_UNROLL,
    FJ_AXIS_ONE_COPY,
    FJ_AXIS_COUNT
} fj_axis;

typedef struct fj_values {
    int of[FJ_AXIS_COUNT];
} fj_values;

/* Instead of a value. ANY: of fj_jit_visit_variants. PLAN, of unrolling and wide: what the plan takes beside the others. */
enum { FJ_VALUE_ANY = -1, FJ_VALUE_PLAN = -2 };

const char *fj_jit_axis_name(fj_axis axis); /* "tile_q" */
/* FJ_AXIS_COUNT: there is none of this name. */
fj_axis fj_jit_axis_find(const char *name);
/* Whether kernels of a device with these features have it. */
bool fj_jit_has_axis(const fj_features *features, fj_axis axis);
const char *fj_jit_kernel_name(int kernel); /* "mma" */
fj_values fj_jit_values_of(const fj_variant *variant);

/* False: not legal, and *ret_variant is untouched. No value is ANY. */
bool fj_jit_make_variant(const fj_jit_problem *problem, const fj_features *features, const fj_values *values,
                         fj_variant *ret_variant);

/* Every legal variant with these values, until visit says false. */
void fj_jit_visit_variants(const fj_jit_problem *problem, const fj_features *features,
                           const fj_values *wanted, bool (*visit)(void *user, const fj_variant *variant),
                           void *user);

/* False: no variant of the problem has this name. */
bool fj_jit_find_variant(const fj_jit_problem *problem, const fj_features *features, const char *name,
                         fj_variant *ret_variant);

/* Of the legal variants with these values, what is nearest to another one: of its kernel, packed alike, with tiles as
 * large. Without a value for unrolling and wide: the plan's. False: there is none. */
bool fj_jit_nearest_variant(const fj_jit_problem *problem, const fj_features *features,
                            const fj_values *wanted, const fj_variant *to, fj_variant *ret_variant);

/* The values of an axis that are legal beside the other ones, in ascending order; returns how many. */
enum { FJ_AXIS_VALUES = 24, FJ_AXIS_MOST = 1024 /* the largest */ };
int fj_jit_legal_values(const fj_jit_problem *problem, const fj_features *features, const fj_values *wanted,
                        fj_axis axis, int ret_values[FJ_AXIS_VALUES]);

#endif
