/* What ptxas says of the kernels it made (--ptxas-options=-v), read back from the compiler's log. */
#ifndef FJ_JIT_RESOURCES_H
#define FJ_JIT_RESOURCES_H

#include "base/base.h"

#define FJ_RESOURCES_MAX 12

typedef struct fj_resources {
    char kernel[64]; /* entry point */
    int registers;
    int stack, spill_stores, spill_loads; /* bytes for each thread */
    int shared;                           /* static, bytes for each block */
    int barriers;
} fj_resources;

/* How many kernels the log speaks of, in its order; at most FJ_RESOURCES_MAX. */
int fj_jit_resources_parse(fj_str log, fj_resources resources[FJ_RESOURCES_MAX]);

#endif
