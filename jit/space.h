/* The space of a problem's variants: all that are legal, by the values of their parameters. The plan lists a few of them
 * (jit.h); what is asked for by name or by values is looked for among all.
 *
 *     values                -> fj_jit_make_variant     the one place where a variant is made: plan, options and names use it
 *     problem + values      -> fj_jit_visit_variants   all that have these values
 *     problem + name        -> fj_jit_find_variant     names spell every parameter, and are read back
 */
#ifndef FJ_JIT_SPACE_H
#define FJ_JIT_SPACE_H

#include "jit/jit.h"

/* What of a variant is chosen; all else follows from it and the problem. */
typedef enum fj_axis {
    FJ_AXIS_KERNEL, /* 0 simt, 1 mma; of the cpu 0 */
    FJ_AXIS_TILE_Q,
    FJ_AXIS_TILE_KV,
    FJ_AXIS_ISA, /* cpu: an fj_isa */
    FJ_AXIS_STAGES,
    FJ_AXIS_WARPS,
    FJ_AXIS_SPLITS,
    FJ_AXIS_PACK,
    FJ_AXIS_WIDE,
    FJ_AXIS_MOD_CHUNKS,
    FJ_AXIS_MASK_UNROLL,
    FJ_AXIS_ONE_COPY,
    FJ_AXIS_COUNT
} fj_axis;

typedef struct fj_values {
    int of[FJ_AXIS_COUNT];
} fj_values;

/* Instead of a value: any legal one; the one that the plan takes beside the others (of those that unroll). */
enum { FJ_VALUE_ANY = -1, FJ_VALUE_PLAN = -2 };

const char *fj_jit_axis_name(fj_axis parameter); /* "tile_q" */
/* FJ_AXIS_COUNT: there is none of this name. */
fj_axis fj_jit_axis_find(const char *name);
/* Whether kernels of a device with these features have it. */
bool fj_jit_has_axis(const fj_features *features, fj_axis parameter);
const char *fj_jit_kernel_name(int kernel); /* "mma" */
fj_values fj_jit_values_of(const fj_variant *variant);

#endif
