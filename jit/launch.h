/* What the kernels of a cuda variant need of a launch: grids, and the workspace they share. Both are the plan's decisions
 * (plan_cuda.c) multiplied with a call's extents, by templates/host/gpu_launch.h; nothing is launched here. */
#ifndef FJ_JIT_LAUNCH_H
#define FJ_JIT_LAUNCH_H

#include "jit/jit.h"

fj_gpu_facts fj_jit_facts(const fj_jit_problem *problem, const fj_variant *variant);
/* Blocks along x; along z an entry has its slices. 0: there is nothing to do. */
int64_t fj_jit_blocks(const fj_variant *variant, const fj_entry *entry, const fj_launch_extents *of);
/* Parts of the keys: blocks along y of fj_fwd. */
int64_t fj_jit_splits(const fj_jit_problem *problem, const fj_variant *variant, const fj_launch_extents *of);
/* False: it is larger than memory can be addressed. */
bool fj_jit_lay_out(const fj_jit_problem *problem, const fj_variant *variant, const fj_launch_extents *of,
                    fj_workspace *ret_workspace);

#endif
