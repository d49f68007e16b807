/* The cpu device: compiled kernels of templates/cpu/abi.h, run on threads. */
#ifndef FJ_DRIVER_CPU_H
#define FJ_DRIVER_CPU_H

#include "driver/driver.h"
#include "templates/cpu/abi.h"

/* The kernel that a code object exports; NULL when it has none of our ABI. */
const struct fj_cpu_kernel *fj_driver_cpu_kernel(const fj_code *code);

/* Runs all phases, one after another, each on all of args->workers threads. Zeroes args->faults
 * (one per worker) before. */
void fj_driver_cpu_run(const struct fj_cpu_kernel *kernel, const struct fj_cpu_args *args,
                       const fj_launch *launch);

#endif
