/* Running independent items on threads: OpenMP, or the caller's executor. */
#ifndef FJ_DRIVER_PARALLEL_H
#define FJ_DRIVER_PARALLEL_H

#include "base/base.h"

/* The most workers of a launch. */
#define FJ_DRIVER_MAX_WORKERS 4096

/* Threads a launch runs on, 1 to FJ_DRIVER_MAX_WORKERS. launch may be NULL. */
int fj_driver_workers(const fj_launch *launch);

/* Runs fn(arg, item, worker) once for every item in [0, items), worker in [0, fj_driver_workers()).
 * Returns when all are done. */
void fj_driver_parallel(const fj_launch *launch, int workers, int64_t items,
                        void (*fn)(void *arg, int64_t item, int worker), void *arg);

#endif
