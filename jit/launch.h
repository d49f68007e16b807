/* What the kernels of a cuda variant need of a launch: grids, and the workspace they share. Both are the plan's decisions
 * (plan_cuda.c) multiplied with a call's extents; nothing is launched here. */
#ifndef FJ_JIT_LAUNCH_H
#define FJ_JIT_LAUNCH_H

#include "jit/jit.h"

/* The extents of a call. Products of them do not overflow: the caller looked. */
typedef struct fj_launch_extents {
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    bool packed;       /* lengths are those of all sequences, of which there are `batch` */
    int64_t gradients; /* elements of all gradients of captures and scalars that are wanted */
    int64_t largest;   /* of one of them; -1: none is wanted */
    int64_t key_elements, value_elements; /* of one batch; where keys serve a batch */
    int64_t multiprocessors;
} fj_launch_extents;

/* Queries of a head in the workspace of backward. */
int64_t fj_jit_workspace_rows(const fj_launch_extents *of);
/* Blocks along x; along z an entry has its slices. 0: there is nothing to do. */
int64_t fj_jit_blocks(const fj_variant *variant, const fj_entry *entry, const fj_launch_extents *of);

/* Where the kernels' parts lie in the workspace, each at a multiple of 256 bytes; 0 also for one that is not there.
 *
 *     forward     | fault |                                  zeroed on the stream, where the mod may read badly
 *     backward    | rows | sums | most | runs | dquery_sums | dkey | dvalue |       templates/cuda/abi.h
 */
typedef struct fj_workspace {
    size_t fault;
    size_t rows;
    size_t sums, most; /* of each gradient that is wanted, in order */
    size_t runs;
    size_t dquery_sums;
    size_t dkey, dvalue; /* parts of each batch, where keys serve a batch */
    size_t size;         /* of all */
} fj_workspace;

/* False: it is larger than memory can be addressed. */
bool fj_jit_lay_out(const fj_jit_problem *problem, const fj_variant *variant, const fj_launch_extents *of,
                    fj_workspace *ret_workspace);

#endif
