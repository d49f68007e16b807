/* Kernels of templates/cuda, launched: on a GPU and on the emulator, by one host path.
 *
 *     fj_resolved  ->  gpu_args.c   the one parameter of the kernels (templates/cuda/abi.h), on the stack
 *                  ->  jit/launch.c grids and the workspace's layout
 *                  ->  gpu.c        entry points in their order
 *                  ->  the device's driver
 *
 * What the tensors, the workspace and the copies of literal tables point to is the device's memory: nothing here
 * follows such a pointer.
 */
#ifndef FJ_ATTN_GPU_H
#define FJ_ATTN_GPU_H

#include "attn/objects.h"
#include "jit/launch.h"
#include "templates/cuda/abi.h"
#include "templates/host/gpu_parameters.h"

typedef struct fj_gpu_kernel {
    fj_driver_entry entries[FJ_JIT_MAX_ENTRIES]; /* as the variant lists them */
    char *literals; /* the tables of the mod, one after the other; NULL: the host's own will do */
} fj_gpu_kernel;

/* ---- gpu.c -------------------------------------------------------------------------------------- */

/* Of a kernel whose object is loaded. */
fj_status fj_attn_gpu_prepare(fj_kernel *kernel, fj_error *error);
void fj_attn_gpu_finish(fj_kernel *kernel);
/* FJ_ERR_UNSUPPORTED: shapes that no grid covers. */
fj_status fj_attn_gpu_lay_out(const fj_kernel *kernel, const fj_resolved *all, fj_workspace *ret_layout,
                              fj_error *error);
/* Parts of the keys of a call: 1 where they are not split. */
int64_t fj_attn_gpu_splits(const fj_kernel *kernel, const fj_resolved *all);
fj_status fj_attn_gpu_launch(const fj_kernel *kernel, const fj_call *call, char *workspace,
                             size_t workspace_size, fj_error *error);
/* fj_kernel_check, where launches return before they are done. */
fj_status fj_attn_gpu_check(const fj_kernel *kernel, const fj_call *call, char *workspace,
                            size_t workspace_size, fj_error *error);

/* ---- gpu_args.c ----------------------------------------------------------------------------------- */

/* A kernel's parameters (fj_gpu_parameters), and the descriptors that they are made from, are on the stack of a launch:
 * bounded by what a GPU takes. */
_Static_assert((int)FJ_GPU_PARAMETERS == (int)FJ_DRIVER_PARAMETERS, "one limit");

/* Captures and scalars, together. */
#define FJ_GPU_MOST_INPUTS 128
#define FJ_GPU_RESOLVED (FJ_GPU_MOST_INPUTS * (2 * sizeof(fj_tensor) + sizeof(fj_scalar)))
_Static_assert(sizeof(struct fj_cuda_backward) + sizeof(struct fj_cuda_block_mask) +
                       sizeof(struct fj_cuda_sequences) + sizeof(struct fj_cuda_shared_keys) +
                       sizeof(struct fj_cuda_dropout) + sizeof(struct fj_cuda_epilogue) +
                       FJ_GPU_MOST_INPUTS *
                           (sizeof(struct fj_cuda_capture) + sizeof(struct fj_cuda_capture_grad)) <=
                   FJ_DRIVER_PARAMETERS,
               "parameters hold them");

/* FJ_ERR_UNSUPPORTED: the mod's captures and scalars do not fit. At planning, so never at a launch. */
fj_status fj_attn_gpu_check_parameters(const fj_plan *plan, fj_error *error);
/* merge: of fj_fwd_merge, else of all other entries. */
void fj_attn_gpu_fill_parameters(const fj_kernel *kernel, const fj_resolved *all, const fj_workspace *layout,
                                 char *workspace, bool merge, fj_gpu_parameters *ret_parameters);
/* Without gradients, and keys that serve a batch. */
fj_launch_extents fj_attn_gpu_extents(const fj_kernel *kernel, const fj_resolved *all);
/* Elements of a gradient. */
int64_t fj_attn_gpu_count(const fj_tensor *tensor);

#endif
