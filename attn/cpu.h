/* Kernels of templates/cpu, launched: their arguments from the tensors of a call, and the sequences of a call as so many
 * calls of one batch. */
#ifndef FJ_ATTN_CPU_H
#define FJ_ATTN_CPU_H

#include "attn/objects.h"
#include "templates/cpu/abi.h"

/* The arrays that arguments point to, front to back, in memory of the caller: of a launch its workspace. */
typedef struct fj_cpu_front {
    size_t captures, dcaptures, dscalars, block_mask, faults; /* offsets */
    size_t size;                                              /* a multiple of 256 */
} fj_cpu_front;
/* at: where the first begins. */
fj_cpu_front fj_attn_cpu_front(const fj_kernel *kernel, size_t at, int workers);

/* A call that runs on the cpu. all and memory outlive it. */
typedef struct fj_cpu_call {
    const struct fj_cpu_kernel *kernel;
    const fj_resolved *all;
    const fj_launch *launch;
    struct fj_cpu_args args; /* of the whole call; its workspace is not set */
} fj_cpu_call;
/* Fills the front, but its faults. */
fj_cpu_call fj_attn_cpu_begin(const fj_kernel *kernel, const fj_resolved *all, const fj_launch *launch,
                              int workers, const fj_cpu_front *front, char *memory);
/* Bytes behind the front. */
size_t fj_attn_cpu_size(const fj_cpu_call *call);
/* memory: that many bytes, 256-byte aligned. */
void fj_attn_cpu_run(fj_cpu_call *call, char *memory);
void fj_attn_cpu_blocks(const fj_cpu_call *call, int64_t counts[4]);

#endif
